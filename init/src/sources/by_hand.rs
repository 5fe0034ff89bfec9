//! What a person typed, as the TOML of `paths::BY_HAND`: the source that wins over every other.

use toml::Value;
use zeroize::Zeroizing;

use crate::settings::keys::{self, Shape};
use crate::settings::{Origin, Problem, Source, quoted};

/// The document for `key=value` pairs as on the kernel command line, without the prefix `kubeboot.`. A key that is a list
/// may be repeated; of others the last wins. Whether keys and values are good is for the document's reader to say.
///
/// # Errors
/// Every word that is no pair.
pub fn document<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Zeroizing<String>, Vec<Problem>> {
    let mut given: Vec<(String, Vec<String>)> = Vec::new();
    let mut problems = Vec::new();
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            let origin = Origin::whole(Source::ByHand);
            problems.push(Problem::source(origin, quoted(word), "KEY=VALUE, such as name=cp-1"));
            continue;
        };
        let name = name.strip_prefix("kubeboot.").unwrap_or(name).replace('_', "-");
        match given.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value.to_owned()),
            None => given.push((name, vec![value.to_owned()])),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut text = Zeroizing::new(String::from("# Made by kubeboot from what was typed. It goes at power-off.\n"));
    for (name, mut values) in given {
        let value = match keys::find(&name).map(|key| key.shape) {
            Some(Shape::Lines) => Value::Array(values.into_iter().map(Value::String).collect()),
            Some(Shape::List | Shape::Map | Shape::MapOfLists) => Value::String(values.join(",")),
            _ => Value::String(values.pop().unwrap_or_default()),
        };
        text.push_str(&format!("{} = {value}\n", Value::String(name)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::validate;
    use crate::sources::{Bytes, Gathered, parse};

    #[test]
    fn what_is_typed_means_the_same_as_on_the_kernel_command_line() {
        let words = [
            "role=init",
            "kubeboot.name=a",
            "name=cp-1",
            "api.extra_sans=a.example",
            "api.extra-sans=b.example",
            "node.labels=a=b,c=d",
            "cluster.pod-cidr=10.10.0.0/16",
            "operator=ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqGXr0WDGZqFbDkGWqIRWHGSfDQHpRq4gsqY9gNyL9 ann's, \\here",
        ];
        let line: Vec<String> =
            words.iter().map(|word| format!("\"kubeboot.{}\"", word.trim_start_matches("kubeboot."))).collect();
        let typed = document(words).expect("pairs");
        let settings = |gathered: &Gathered| {
            validate(parse(gathered)).map(|validated| validated.settings).map_err(|problems| format!("{problems:?}"))
        };
        let bytes = |text: &str| Bytes::new(text.as_bytes().to_vec());
        let by_hand = settings(&Gathered { by_hand: Some(bytes(&typed)), ..Gathered::default() });
        let by_line = settings(&Gathered { command_line: bytes(&line.join(" ")), ..Gathered::default() });
        assert_eq!(by_hand, by_line);
        assert_eq!(by_hand.expect("valid").api.extra_sans, ["a.example", "b.example"]);
    }

    #[test]
    fn values_can_not_add_keys() {
        let text = document(["name=x\"\nrole = \"init", "a\"=1\nrole=\"init\""]).expect("pairs");
        let gathered = Gathered { by_hand: Some(Bytes::new(text.as_bytes().to_vec())), ..Gathered::default() };
        let inputs = parse(&gathered);
        assert!(!inputs.values.contains_key("role"), "{}", text.as_str());
        assert_eq!(inputs.problems.len(), 1);
        assert!(document(["init"]).is_err());
    }
}
