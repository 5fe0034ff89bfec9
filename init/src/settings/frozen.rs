//! What was applied at the first success stays: later parameters change nothing, and the console says which differ.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Origin, Settings, Source, Validated, quoted};

/// The contents of `/var/lib/kubeboot/settings.json` (`paths::FROZEN`). Holds no token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Frozen {
    /// 1.
    pub format: u32,
    /// The settings as first applied.
    pub settings: Settings,
    /// The origin of each key that was given.
    pub origins: BTreeMap<String, Origin>,
}

impl Frozen {
    /// What to freeze.
    pub fn of(validated: &Validated) -> Self {
        Frozen { format: 1, settings: validated.settings.clone(), origins: validated.origins.clone() }
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("settings are plain data with text keys");
        text.push('\n');
        text
    }

    /// Reads the file's text. Fails with what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let frozen: Frozen = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match frozen.format {
            1 => Ok(frozen),
            other => Err(format!("format {other}; this release reads format 1")),
        }
    }
}

/// A key whose value differs from the frozen one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    /// The dotted key.
    pub key: String,
    /// What was applied at first boot and holds.
    pub frozen: String,
    /// What is given now and is ignored.
    pub now: String,
    /// Where it is given.
    pub origin: Origin,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { key, frozen, now, origin } = self;
        write!(f, "{key} stays {frozen}; {now} is ignored ({origin})")
    }
}

/// Keys that are not frozen: who may command the cluster, and where this boot's events go. They change nothing of what
/// the cluster is, and a key that was lost must be replaceable by who controls the machine's boot.
pub const LIVE: [&str; 2] = ["operator", "report"];

/// Whether a key is taken anew at each boot. Never from user-data: a stick that anyone plugged in, or a volume that a
/// tenant attached, must not name who commands the cluster.
fn live(key: &str, origin: &Origin) -> bool {
    LIVE.contains(&key) && !matches!(origin.source, Source::UserData { .. })
}

impl Frozen {
    /// The settings in force at a later boot: the frozen ones, but for the [`LIVE`] keys that a source other than
    /// user-data gives now.
    pub fn in_force(&self, now: &Validated) -> Settings {
        let mut settings = self.settings.clone();
        for (key, _) in now.origins.iter().filter(|(key, origin)| live(key, origin)) {
            match key.as_str() {
                "operator" => settings.operator.clone_from(&now.settings.operator),
                _ => settings.report.clone_from(&now.settings.report),
            }
        }
        settings
    }
}

/// The keys that are given now with another value than the frozen one. A source that is gone (a stick pulled out) is no
/// difference: only keys that some source gives now are compared. `origins` are those of `now`.
pub fn diff(frozen: &Frozen, now: &Settings, origins: &BTreeMap<String, Origin>) -> Vec<Difference> {
    let (frozen, now) = (leaves(&frozen.settings), leaves(now));
    let given = origins.iter().filter(|(key, origin)| key.as_str() != super::keys::TOKEN && !live(key, origin));
    given
        .filter_map(|(key, origin)| {
            let (was, is) = (frozen.get(key).cloned().unwrap_or_default(), now.get(key).cloned().unwrap_or_default());
            (was != is).then(|| Difference {
                key: key.clone(),
                frozen: shown(&concealed(key, was)),
                now: shown(&concealed(key, is)),
                origin: origin.clone(),
            })
        })
        .collect()
}

/// A key's value as it may be shown: without the passwords of URLs.
pub fn concealed(key: &str, value: Value) -> Value {
    if !super::keys::URLS.contains(&key) {
        return value;
    }
    match value {
        Value::String(text) => Value::String(super::masked(&text)),
        Value::Array(items) => items.into_iter().map(|item| concealed(key, item)).collect(),
        Value::Object(map) => map.into_iter().map(|(name, item)| (name, concealed(key, item))).collect(),
        other => other,
    }
}

/// Values by dotted key. Maps below a key (labels) are one value.
pub fn leaves(settings: &Settings) -> BTreeMap<String, Value> {
    let mut out = BTreeMap::new();
    let Ok(Value::Object(top)) = serde_json::to_value(settings) else { return out };
    for (name, value) in top {
        match value {
            Value::Object(group) => out.extend(group.into_iter().map(|(key, value)| (format!("{name}.{key}"), value))),
            value => {
                out.insert(name, value);
            }
        }
    }
    out
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "unset".to_owned(),
        Value::String(text) => quoted(text),
        Value::Array(items) if items.is_empty() => "empty".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(map) if map.is_empty() => "empty".to_owned(),
        Value::Object(map) => {
            map.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Fragment, Given, Inputs, Source, Value, validate};

    /// The settings that a kernel command line with these values gives.
    fn given(values: &[(&'static str, Value)]) -> Validated {
        let mut fragment = Fragment::empty(Source::KernelCommandLine);
        for (key, value) in values {
            let origin = Origin::whole(Source::KernelCommandLine);
            fragment.values.insert(key, Given { origin, value: value.clone() });
        }
        validate(Inputs::merge(vec![fragment])).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn one(text: &str) -> Value {
        Value::One(zeroize::Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn the_file_is_read_back_and_holds_no_token() {
        let seed = crate::token::Seed::new(*b"kubeboot is fine").text();
        let now = given(&[("role", one("init")), ("token", one(&seed)), ("node.ip", one("192.168.1.10"))]);
        let frozen = Frozen::of(&now);
        assert_eq!(Frozen::parse(&frozen.text()), Ok(frozen.clone()));
        assert!(now.token.is_some() && !frozen.text().contains("kb1s"));
        insta::assert_snapshot!(frozen.text());
    }

    #[test]
    fn a_later_format_and_a_torn_file_are_refused() {
        let text = Frozen::of(&given(&[])).text();
        assert!(Frozen::parse(&text.replace("\"format\": 1", "\"format\": 2")).is_err_and(|e| e.contains("format 2")));
        assert!(Frozen::parse(&text[..text.len() / 2]).is_err());
    }

    #[test]
    fn differences_are_told_for_what_is_given_now_only() {
        let labels = |value: &str| Value::Map([("disk".to_owned(), vec![value.to_owned()])].into());
        let first = given(&[
            ("name", one("cp-1")),
            ("node.labels", labels("ssd")),
            ("proxy.mode", one("none")),
            ("http-proxy", one("http://p:1")),
        ]);
        let frozen = Frozen::of(&first);
        assert_eq!(diff(&frozen, &first.settings, &first.origins), []);
        let later = given(&[
            ("name", one("cp-2")),
            ("node.labels", labels("hdd")),
            ("proxy.mode", one("nftables")),
            ("cluster.dns-domain", one("cluster.local")),
            ("report", one("ttyS1")),
        ]);
        let told: Vec<String> =
            diff(&frozen, &later.settings, &later.origins).iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(told.join("\n"));
        assert_eq!(frozen.in_force(&later), Settings { report: Some("ttyS1".into()), ..first.settings });
    }

    #[test]
    fn no_password_of_a_proxy_is_shown() {
        let first = given(&[("http-proxy", one("http://ann:secret@p:1"))]);
        let mirrors = Value::Map([("docker.io".to_owned(), vec!["https://ann:secret@m".to_owned()])].into());
        let later = given(&[("http-proxy", one("http://bob:secret@p:2")), ("registry.mirrors", mirrors)]);
        let told = diff(&Frozen::of(&first), &later.settings, &later.origins);
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert!(told.len() == 2 && told.iter().all(|line| !line.contains("secret")), "{told:?}");
        let warnings: Vec<String> = first.warnings.iter().map(ToString::to_string).collect();
        assert!(warnings.len() == 1 && !warnings[0].contains("secret"), "{warnings:?}");
    }

    #[test]
    fn a_volume_plugged_in_later_names_no_operator_and_the_console_says_so() {
        let frozen = Frozen::of(&given(&[(
            "operator",
            one("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqGXr0WDGZqFbDkGWqIRWHGSfDQHpRq4gsqY9gNyL9"),
        )]));
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
        let source = Source::UserData { file: "cidata volume /dev/vdb, user-data".to_owned() };
        let mut fragment = Fragment::empty(source.clone());
        let given = Given { origin: Origin::whole(source), value: Value::List(vec![key.to_owned()]) };
        fragment.values.insert("operator", given);
        let now = validate(Inputs::merge(vec![fragment])).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_eq!(frozen.in_force(&now), frozen.settings);
        let told = diff(&frozen, &now.settings, &now.origins);
        assert_eq!(told.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["operator"]);
    }
}
