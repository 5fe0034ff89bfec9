//! systemd credentials (systemd.exec(5), "Credentials"): `kubeboot.role`, `kubeboot.token`, `kubeboot.config`.

use super::tree::Node;
use super::{Bytes, schema, text, tree, unreadable};
use crate::settings::{Fragment, Origin, Problem, Source};

/// One fragment a credential; `kubeboot.role` and `kubeboot.token` win over `kubeboot.config`.
pub fn parse(credentials: &[(String, Bytes)]) -> Vec<Fragment> {
    let settings = credentials.iter().filter(|(name, _)| name != super::reset::CREDENTIAL);
    let mut fragments: Vec<Fragment> = settings.map(|(name, bytes)| one(name, bytes)).collect();
    fragments
        .sort_by_key(|fragment| matches!(&fragment.source, Source::Credential { name } if name == "kubeboot.config"));
    fragments
}

fn one(name: &str, bytes: &[u8]) -> Fragment {
    let mut fragment = Fragment::empty(Source::Credential { name: name.to_owned() });
    match name {
        "kubeboot.role" | "kubeboot.token" => {
            if let Some(text) = text(&mut fragment, bytes) {
                let key = name.trim_start_matches("kubeboot.");
                schema::read_named(&mut fragment, key, &Node::text(text.trim()));
            }
        }
        "kubeboot.config" => config(&mut fragment, bytes),
        other => {
            let found = format!("a credential named {}", crate::settings::quoted(other));
            let expected = "kubeboot.role, kubeboot.token or kubeboot.config";
            let origin = Origin::whole(fragment.source.clone());
            fragment.problems.push(Problem::source(origin, found, expected));
        }
    }
    fragment
}

/// The keys in TOML or in YAML. It is TOML if it reads as TOML; else the language that the first line looks like is
/// the one whose error is told.
fn config(fragment: &mut Fragment, bytes: &[u8]) {
    let Some(text) = text(fragment, bytes) else { return };
    let (error, language) = match (tree::toml(text), tree::yaml(text)) {
        (Ok(node), _) => return schema::read(fragment, &node),
        (Err(_), Ok(node)) if node.as_text().is_none() => {
            // The same document may serve as user-data: the keys may stand below `kubeboot:`.
            return schema::read(fragment, node.get("kubeboot").unwrap_or(&node));
        }
        (Err(toml), Ok(_)) => (toml, "TOML"),
        (Err(toml), Err(_)) if looks_like_toml(text) => (toml, "TOML"),
        (Err(_), Err(yaml)) => (yaml, "YAML"),
    };
    unreadable(fragment, error, language);
}

fn looks_like_toml(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| line.starts_with('[') || line.split_once('=').is_some_and(|(name, _)| !name.contains(':')))
}
