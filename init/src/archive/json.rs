//! JSON as Go's encoding/json understands it, where that can be understood in one way only.
//!
//! Go takes a key for a field whatever its case, and the last of several. So a key that is there twice, or in two
//! spellings, is refused, and one that is not ASCII: Go folds some of those to ASCII too.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::settings::quoted;

/// A value; of what is not needed only that it is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    Text(String),
    List(Vec<Json>),
    /// By the key in lower case: the key as written, and its value.
    Object(BTreeMap<String, (String, Json)>),
    /// Null, a number or a truth value.
    Other,
}

/// Reads one value, and nothing after it.
pub(super) fn parse(bytes: &[u8]) -> Result<Json, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

impl Json {
    /// The field of an object whose name, in lower case, is `name`.
    pub(super) fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(fields) => fields.get(name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The entry of a map with exactly this key.
    pub(super) fn exactly(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(fields) => {
                fields.get(&key.to_ascii_lowercase()).filter(|(written, _)| written == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> Option<&[Json]> {
        match self {
            Json::List(list) => Some(list),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            if !key.is_ascii() {
                return Err(A::Error::custom(format!("expected keys in ASCII, found {}", quoted(&key))));
            }
            let folded = key.to_ascii_lowercase();
            let value = entries.next_value()?;
            if fields.contains_key(&folded) {
                return Err(A::Error::custom(format!("expected each key once, found {} again", quoted(&key))));
            }
            fields.insert(folded, (key, value));
        }
        Ok(Json::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_two_spellings_is_refused_at_any_depth() {
        for text in [
            r#"{"a": 1, "a": 2}"#,
            r#"{"manifests": [], "Manifests": []}"#,
            r#"[{"x": {"digest": "1", "DIGEST": "2"}}]"#,
            "{\"manife\u{17f}ts\": []}",
            r#"{"\u212a": 1}"#,
            r#"{"a": 1} {"b": 1}"#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn fields_are_found_in_any_case_and_map_entries_only_as_written() {
        let json = parse(br#"{"RepoTags": ["a"], "n": null, "t": true, "f": [1, -2, 3.5]}"#).unwrap();
        assert_eq!(json.get("repotags").and_then(Json::list).map(<[Json]>::len), Some(1));
        assert!(json.exactly("repotags").is_none() && json.exactly("RepoTags").is_some());
        assert_eq!(json.get("n"), Some(&Json::Other));
    }
}
