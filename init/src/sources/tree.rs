//! TOML and YAML as one kind of tree that knows its lines. Reading is bounded; what the values mean is not known here.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

/// Deepest nesting that is read.
const DEPTH: usize = 32;
/// Most values that are read.
const NODES: usize = 20_000;

/// A value and the line it stands on.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Line, counted from 1, where it is known.
    pub line: Option<u32>,
    /// The value.
    pub data: Data,
}

/// A value.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Data {
    /// Nothing was written.
    #[default]
    Nothing,
    /// A text, a whole number or a truth value, as written.
    Text(Zeroizing<String>),
    /// A scalar that is none of them (a fraction, a date): what it is, for messages.
    Other(&'static str),
    /// Values in order.
    List(Vec<Node>),
    /// Names and values in order; no name twice.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// A text without a line.
    pub fn text(text: &str) -> Self {
        Node { line: None, data: Data::Text(Zeroizing::new(text.to_owned())) }
    }

    /// What it is, completing "found …"; nothing of its contents.
    pub fn kind(&self) -> &'static str {
        match self.data {
            Data::Nothing => "no value",
            Data::Text(_) => "a text",
            Data::Other(what) => what,
            Data::List(_) => "a list",
            Data::Map(_) => "a group of keys",
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a name, if it is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, node)| node),
            _ => None,
        }
    }
}

/// Why a document can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Line, counted from 1, where it is known.
    pub line: Option<u32>,
    /// What is wrong; no value of the document is repeated.
    pub message: String,
}

/// Reads TOML 1.0. Fails at the first error of syntax.
pub fn toml(text: &str) -> Result<Node, Unreadable> {
    let lines = Lines::of(text);
    let table = DeTable::parse(text).map_err(|error| Unreadable {
        line: error.span().map(|span| lines.at(span.start)),
        message: toml_message(text, &error),
    })?;
    let line = Some(lines.at(table.span().start));
    let data = Data::Map(toml_map(table.into_inner(), &lines, DEPTH)?);
    Ok(Node { line, data })
}

/// The parser's message; for the commonest slip, which it words badly, our own.
fn toml_message(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = text[before.rfind('\n').map_or(0, |at| at + 1)..].lines().next().unwrap_or_default();
    let value = line.split_once('=').map_or("", |(_, value)| value.trim_start());
    match value.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => "a text without quotes".to_owned(),
        false => one_line(error.message()),
    }
}

fn toml_map(table: DeTable<'_>, lines: &Lines, depth: usize) -> Result<Vec<(String, Node)>, Unreadable> {
    table
        .into_iter()
        .map(|(key, value)| {
            let line = lines.at(key.span().start);
            Ok((key.into_inner().into_owned(), toml_node(value.into_inner(), line, lines, depth)?))
        })
        .collect()
}

fn toml_node(value: DeValue<'_>, line: u32, lines: &Lines, depth: usize) -> Result<Node, Unreadable> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Unreadable { line: Some(line), message: format!("values nested more than {DEPTH} deep") });
    };
    let text = |text: String| Data::Text(Zeroizing::new(text));
    let data = match value {
        DeValue::String(value) => text(value.into_owned()),
        DeValue::Integer(value) if value.radix() == 10 => text(value.as_str().replace('_', "")),
        DeValue::Integer(_) => Data::Other("a number that is not decimal"),
        DeValue::Boolean(value) => text(value.to_string()),
        DeValue::Float(_) => Data::Other("a fraction without quotes"),
        DeValue::Datetime(_) => Data::Other("a date without quotes"),
        DeValue::Array(items) => {
            let items = items.into_iter();
            let node = |item: toml::Spanned<DeValue<'_>>| {
                let line = lines.at(item.span().start);
                toml_node(item.into_inner(), line, lines, depth)
            };
            Data::List(items.map(node).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => Data::Map(toml_map(table, lines, depth)?),
    };
    Ok(Node { line: Some(line), data })
}

/// Reads one YAML 1.2 document (JSON is YAML too). Fails at the first error of syntax, at a key that is there twice, and
/// when it holds more, deeper or more often repeated values than any configuration has.
pub fn yaml(text: &str) -> Result<Node, Unreadable> {
    serde_saphyr::from_str_with_options(text, yaml_options()).map_err(|error| {
        let line = error.location().and_then(|location| u32::try_from(location.line()).ok());
        Unreadable { line: line.filter(|line| *line > 0), message: yaml_message(&error) }
    })
}

/// The parser's message without what is told elsewhere (the place) or is meant for programmers (its options).
fn yaml_message(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::Budget { .. } = error.without_snippet() {
        return "more documents, more or deeper nested values than a configuration has".to_owned();
    }
    let message = one_line(&error.without_snippet().to_string());
    let end = [" at line ", ", set "].iter().filter_map(|mark| message.find(mark)).min();
    message[..end.unwrap_or(message.len())].to_owned()
}

fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 4 * NODES,
            max_aliases: 100,
            max_anchors: 100,
            max_recorded_anchor_events: NODES,
            max_recorded_anchor_bytes: 2 << 20,
            max_depth: DEPTH,
            max_documents: 1,
            max_nodes: NODES,
            max_total_scalar_bytes: 2 << 20,
            max_merge_keys: 100,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES,
            max_replay_stack_depth: 8,
            max_alias_expansions_per_anchor: 100,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<Data>::deserialize(deserializer)?;
        let line = u32::try_from(spanned.referenced.line()).ok().filter(|line| *line > 0);
        Ok(Node { line, data: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl DataVisitor {
    fn text<E>(text: impl fmt::Display) -> Result<Data, E> {
        Ok(Data::Text(Zeroizing::new(text.to_string())))
    }
}

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, value: &str) -> Result<Data, E> {
        Self::text(value)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Self::text(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Self::text(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
        Self::text(value)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Data, E> {
        Ok(Data::Other("a very long number without quotes"))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Data, E> {
        Ok(Data::Other("a very long number without quotes"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Data, E> {
        Ok(Data::Other("a fraction without quotes"))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Data, E> {
        Ok(Data::Other("binary data"))
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Nothing)
    }

    fn visit_none<E>(self) -> Result<Data, E> {
        Ok(Data::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Data, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Data::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Data, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Data::Map(map))
    }
}

/// Where each line begins.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Lines(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The line of a byte offset, counted from 1.
    fn at(&self, offset: usize) -> u32 {
        u32::try_from(self.0.partition_point(|start| *start <= offset)).unwrap_or(u32::MAX)
    }
}

/// A parser's message on one line, without control characters and of bounded length.
fn one_line(message: &str) -> String {
    let flat: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    flat.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as text: `name@line=value`.
    fn flat(node: &Node) -> String {
        let line = node.line.map_or(String::new(), |line| format!("@{line}"));
        match &node.data {
            Data::Nothing => format!("-{line}"),
            Data::Text(text) => format!("{}{line}", text.as_str()),
            Data::Other(what) => format!("<{what}>{line}"),
            Data::List(items) => format!("[{}]", items.iter().map(flat).collect::<Vec<_>>().join(" ")),
            Data::Map(entries) => {
                format!("{{{}}}", entries.iter().map(|(k, v)| format!("{k}:{}", flat(v))).collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn yaml_knows_its_lines_and_keeps_texts_as_written() {
        let node = yaml("a: text\nb:\n  c: 12\n  d: [x, true]\ne: 0644\nf: 1.10\ng:\nh: 'q'\n").ok();
        insta::assert_snapshot!(node.as_ref().map(flat).unwrap_or_default());
    }

    #[test]
    fn toml_knows_its_lines_and_keeps_texts_as_written() {
        let node = toml("a = \"text\"\n[b]\nc = 1_2\nd = [\n \"x\",\n true]\ne.f = 1.10\n").ok();
        insta::assert_snapshot!(node.as_ref().map(flat).unwrap_or_default());
    }

    #[test]
    fn errors_name_the_line_and_repeat_no_value() {
        let secret = "kb1s-AAAAA";
        let broken = [
            yaml(&format!("a: 1\ntoken: {secret}\ntoken: {secret}\n")).err(),
            yaml(&format!("a: 1\n- {secret}\n")).err(),
            yaml(&format!("token: \"{secret}\n")).err(),
            yaml(&format!("{}{secret}", "[".repeat(200))).err(),
            yaml(&format!("a: &a [{secret}]\nb: [*a, *c]\n")).err(),
            yaml("a: 1\n---\nb: 2\n").err(),
            toml(&format!("a = 1\ntoken = \"{secret}\ntoken = 1")).err(),
            toml(&format!("a = 1\na = \"{secret}\"")).err(),
            toml(&format!("a = {secret}")).err(),
            toml(&format!("a = {}", "[".repeat(200))).err(),
        ];
        let texts: Vec<String> = broken
            .iter()
            .map(|error| {
                let Unreadable { line, message } = error.as_ref().expect("each is broken");
                assert!(!message.contains(secret), "{message}");
                format!("{line:?} {message}")
            })
            .collect();
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn a_document_that_grows_when_aliases_are_followed_is_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let before = level - 1;
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 9].join(", "));
        }
        assert!(yaml(&bomb).is_err());
    }
}
