//! The kernel command line, split as the kernel splits it (lib/cmdline.c, `next_arg`).

use super::schema;
use super::tree::{Data, Node};
use crate::settings::keys::{self, Shape};
use crate::settings::{Fragment, Origin, Problem, Source};

/// Reads the parameters that begin with `kubeboot.`. In names, `_` and `-` mean the same, as they do to the kernel. Of a
/// repeated parameter the last wins, as it does to systemd; those that are lists are joined.
pub fn parse(line: &[u8]) -> Fragment {
    let mut fragment = Fragment::empty(Source::KernelCommandLine);
    let mut given: Vec<(String, Node)> = Vec::new();
    for argument in arguments(&String::from_utf8_lossy(line)) {
        let Some(name) = argument.name.strip_prefix("kubeboot.") else { continue };
        let name = name.replace('_', "-");
        // An order for the initrd, no setting.
        if name == super::reset::NAME {
            continue;
        }
        let Some(value) = argument.value else {
            fragment.problems.push(Problem {
                key: Some(name.clone()),
                origin: Origin::whole(Source::KernelCommandLine),
                found: "no value".to_owned(),
                expected: format!("kubeboot.{name}=VALUE"),
                nearest: None,
            });
            continue;
        };
        let shape = keys::find(&name).map(|key| key.shape);
        match (given.iter_mut().find(|(before, _)| *before == name), shape) {
            (Some((_, node)), Some(Shape::List | Shape::Map | Shape::MapOfLists)) => append(node, ",", value),
            (Some((_, node)), Some(Shape::Lines)) => push(node, value),
            (Some((_, node)), _) => *node = Node::text(value),
            (None, _) => given.push((name, Node::text(value))),
        }
    }
    for (name, node) in &given {
        schema::read_named(&mut fragment, name, node);
    }
    fragment
}

/// The value of `kubeboot.reset=`, the last one.
pub(super) fn reset(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let given = arguments(&line).filter(|argument| argument.name == "kubeboot.reset");
    given.filter_map(|argument| argument.value.map(str::to_owned)).last()
}

fn append(node: &mut Node, separator: &str, value: &str) {
    let joined = match node.as_text() {
        Some(before) if !before.is_empty() => format!("{before}{separator}{value}"),
        _ => value.to_owned(),
    };
    *node = Node::text(&joined);
}

fn push(node: &mut Node, value: &str) {
    match &mut node.data {
        Data::List(items) => items.push(Node::text(value)),
        _ => {
            let first = std::mem::take(node);
            node.data = Data::List(vec![first, Node::text(value)]);
        }
    }
}

/// One parameter.
#[derive(Debug, PartialEq, Eq)]
struct Argument<'a> {
    name: &'a str,
    value: Option<&'a str>,
}

/// Splits at blanks outside double quotes; the first `=` ends the name; quotes around the whole, or around the value, are
/// taken off. Other quotes stay, and there is no escaping.
fn arguments(line: &str) -> impl Iterator<Item = Argument<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(is_blank);
        if rest.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = rest
            .char_indices()
            .find(|(_, c)| {
                quoted ^= *c == '"';
                is_blank(*c) && !quoted
            })
            .map_or(rest.len(), |(at, _)| at);
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(argument(word))
    })
}

fn argument(word: &str) -> Argument<'_> {
    let (word, was_quoted) = match word.strip_prefix('"') {
        Some(inner) => (inner, true),
        None => (word, false),
    };
    let trimmed = |text: &'_ str, yes: bool| if yes { text.strip_suffix('"').map(str::len) } else { None };
    let word = &word[..trimmed(word, was_quoted).unwrap_or(word.len())];
    match word.split_once('=') {
        None => Argument { name: word, value: None },
        Some((name, value)) => {
            let value = value.strip_prefix('"').map_or(value, |inner| inner.strip_suffix('"').unwrap_or(inner));
            Argument { name, value: Some(value) }
        }
    }
}

/// The kernel's `isspace`, and NUL, which ends its command line.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' | '\0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(line: &str) -> Vec<(&str, Option<&str>)> {
        arguments(line).map(|argument| (argument.name, argument.value)).collect()
    }

    #[test]
    fn quotes_follow_the_kernels_rules() {
        assert_eq!(split("a b=c  d=\n"), [("a", None), ("b", Some("c")), ("d", Some(""))]);
        assert_eq!(split(r#"a="b c" d"#), [("a", Some("b c")), ("d", None)]);
        assert_eq!(split(r#""a=b c" d"#), [("a", Some("b c")), ("d", None)]);
        assert_eq!(split(r#"a=b" c"d"#), [("a", Some(r#"b" c"d"#))]);
        assert_eq!(split(r#"a="b c"#), [("a", Some("b c"))]);
        assert_eq!(split("a=b=c"), [("a", Some("b=c"))]);
        assert_eq!(split("\""), [("", None)]);
    }

    proptest! {
        #[test]
        fn plain_words_come_back_as_they_were(words in proptest::collection::vec(("[a-z.]{1,8}", "[a-z0-9,:/-]{0,8}"), 0..9)) {
            let line: Vec<String> = words.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let line = line.join(" ");
            let expected: Vec<_> = words.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))).collect();
            prop_assert_eq!(split(&line), expected);
        }

        #[test]
        fn no_line_panics(line: Vec<u8>, tail in "[\"= a-z.]*") {
            parse(&line);
            parse(format!("kubeboot.{tail}").as_bytes());
        }
    }
}
