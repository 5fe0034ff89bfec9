//! Names and values → a fragment, by the table of keys.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::tree::{Data, Node};
use crate::settings::keys::{self, Key, Shape};
use crate::settings::{Fragment, Given, Origin, Problem, Value, masked, quoted};

/// Adds the keys of `node`, a map, to the fragment. Nested names are joined by dots.
pub fn read(fragment: &mut Fragment, node: &Node) {
    read_group(fragment, "", node);
}

fn read_group(fragment: &mut Fragment, prefix: &str, node: &Node) {
    let Data::Map(entries) = &node.data else {
        let origin = Origin::at(&fragment.source, node.line);
        let members = keys::KEYS.iter().filter(|key| key.name.starts_with(&format!("{prefix}.")));
        let members: Vec<&str> = members.map(|key| key.name).collect();
        let expected = match prefix {
            "" => "a group of keys, such as role and token".to_owned(),
            _ => format!("keys below it: {}", members.join(", ")),
        };
        let mut problem = Problem::source(origin, node.kind(), expected);
        problem.key = (!prefix.is_empty()).then(|| prefix.to_owned());
        fragment.problems.push(problem);
        return;
    };
    for (name, value) in entries {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        read_named(fragment, &name, value);
    }
}

/// Adds one value by its dotted name: a key of the table, a group, or a problem.
pub fn read_named(fragment: &mut Fragment, name: &str, node: &Node) {
    match keys::find(name) {
        Some(key) => read_key(fragment, key, node),
        None if keys::is_group(name) => read_group(fragment, name, node),
        None if name == super::reset::NAME => {
            let origin = Origin::at(&fragment.source, node.line);
            let expected = "it on the kernel command line or as a credential: it is taken from nowhere else";
            let mut problem = Problem::source(origin, "an order to reset the machine", expected);
            problem.key = Some(name.to_owned());
            fragment.problems.push(problem);
        }
        None => {
            fragment.problems.push(Problem {
                key: Some(name.to_owned()),
                origin: Origin::at(&fragment.source, node.line),
                found: "a key that does not exist".to_owned(),
                expected: "a key of the list in docs/settings.md".to_owned(),
                nearest: keys::nearest(name),
            });
        }
    }
}

fn read_key(fragment: &mut Fragment, key: &'static Key, node: &Node) {
    let origin = Origin::at(&fragment.source, node.line);
    if let Some(before) = fragment.values.get(key.name) {
        let found = format!("a second value; the first is at {}", before.origin);
        let mut problem = Problem::source(origin, found, "one");
        problem.key = Some(key.name.to_owned());
        fragment.problems.push(problem);
        return;
    }
    match value(key.shape, node) {
        Ok(value) => _ = fragment.values.insert(key.name, Given { origin, value }),
        Err(wrong) => {
            let mut problem = Problem::source(Origin::at(&fragment.source, wrong.line), wrong.found, key.expected);
            problem.key = Some(key.name.to_owned());
            fragment.problems.push(problem);
        }
    }
}

struct Wrong {
    line: Option<u32>,
    found: String,
}

/// The value in its key's shape.
fn value(shape: Shape, node: &Node) -> Result<Value, Wrong> {
    let wrong = |node: &Node| Wrong { line: node.line, found: node.kind().to_owned() };
    let text = |node: &Node| node.as_text().map(str::to_owned).ok_or_else(|| wrong(node));
    match (shape, &node.data) {
        (Shape::One, Data::Text(text)) => Ok(Value::One(Zeroizing::new(text.trim().to_owned()))),
        (Shape::List, Data::Text(text)) => Ok(Value::List(split(text))),
        (Shape::Lines, Data::Text(text)) if text.trim().is_empty() => Ok(Value::List(Vec::new())),
        (Shape::Lines, Data::Text(text)) => Ok(Value::List(vec![text.trim().to_owned()])),
        (Shape::List | Shape::Lines, Data::List(items)) => {
            Ok(Value::List(items.iter().map(text).collect::<Result<_, _>>()?))
        }
        (Shape::Map | Shape::MapOfLists, Data::Text(text)) => pairs(shape, text, node.line).map(Value::Map),
        (Shape::Map | Shape::MapOfLists, Data::Map(entries)) => {
            let entry = |(name, node): &(String, Node)| {
                let values = match &node.data {
                    Data::List(items) if shape == Shape::MapOfLists => {
                        items.iter().map(text).collect::<Result<_, _>>()?
                    }
                    Data::Nothing => vec![String::new()],
                    _ => vec![text(node)?],
                };
                Ok((name.clone(), values))
            };
            Ok(Value::Map(entries.iter().map(entry).collect::<Result<_, _>>()?))
        }
        _ => Err(wrong(node)),
    }
}

/// Texts between commas; an empty text is an empty list.
fn split(text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    text.split(',').map(|item| item.trim().to_owned()).collect()
}

/// `name=text,name=text`
fn pairs(shape: Shape, text: &str, line: Option<u32>) -> Result<BTreeMap<String, Vec<String>>, Wrong> {
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for item in split(text) {
        let Some((name, value)) = item.split_once('=') else {
            let found = format!("{}, which has no `=`", quoted(&masked(&item)));
            return Err(Wrong { line, found });
        };
        let values = map.entry(name.trim().to_owned()).or_default();
        if shape == Shape::Map && !values.is_empty() {
            return Err(Wrong { line, found: format!("{} twice", quoted(name)) });
        }
        values.push(value.trim().to_owned());
    }
    Ok(map)
}
