//! JSON values as YAML (1.2, block style), for files that people read. Every text is quoted as JSON quotes it, which
//! YAML reads the same, unless it is a plain word.

use serde_json::Value;

/// The value as a YAML document.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut out),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

/// Writes a map or list that is not empty, each line indented by `depth` pairs of blanks.
fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&indent);
                out.push_str(&quoted(key));
                out.push(':');
                nested(value, depth + usize::from(!value.is_array()), out);
            }
        }
        Value::Array(list) => {
            for value in list {
                out.push_str(&indent);
                out.push('-');
                item(value, depth, out);
            }
        }
        _ => {}
    }
}

/// Writes what follows `key:`.
fn nested(value: &Value, depth: usize, out: &mut String) {
    if is_empty(value) {
        out.push(' ');
        out.push_str(&scalar(value));
        out.push('\n');
    } else {
        out.push('\n');
        block(value, depth, out);
    }
}

/// Writes what follows `-`: a map begins on the same line.
fn item(value: &Value, depth: usize, out: &mut String) {
    if is_empty(value) {
        out.push(' ');
        out.push_str(&scalar(value));
        out.push('\n');
        return;
    }
    let mut inner = String::new();
    block(value, depth + 1, &mut inner);
    out.push(' ');
    out.push_str(inner.trim_start_matches(' '));
}

/// Whether the value is written on one line.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// The text bare if no reader can take it for anything else, else as JSON.
fn quoted(text: &str) -> String {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_./=,*+@".contains(c);
    let first = |c: char| c.is_ascii_alphabetic() || c == '/' || text.starts_with("--");
    // What YAML 1.1 or 1.2 takes for a boolean or for nothing.
    let word = text.to_ascii_lowercase();
    let special = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"].contains(&word.as_str());
    if text.starts_with(first) && text.chars().all(inner) && !special {
        return text.to_owned();
    }
    Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document() {
        insta::assert_snapshot!(text(&json!({
            "kind": "Pod", "empty": {}, "none": [], "number": 3, "on": "on", "port": "80",
            "list": [{"a": 1, "b": ["x", "--y=z:1"]}, "text: here", ["nested"]],
        })));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[ -~]{1,8}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_yaml_reader_gets_the_same_value(value in any_value()) {
            let text = text(&value);
            let read: Value = serde_saphyr::from_str(&text).map_err(|error| {
                TestCaseError::fail(format!("{error}\n{text}"))
            })?;
            prop_assert_eq!(read, value, "{}", text);
        }
    }
}
