//! The node's name: an RFC 1123 subdomain, as Kubernetes demands of a Node's `metadata.name`.

use std::fmt;

use sha2::{Digest, Sha256};

use super::Facts;
use crate::settings::Settings;

/// Characters of a name at most.
pub const NAME: usize = 63;

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameProblem {
    /// No character at all.
    Empty,
    /// More than 63 characters: the name is also the value of the label `kubernetes.io/hostname`.
    TooLong,
    /// A label (the part between dots) is empty.
    EmptyLabel,
    /// This character is neither a lowercase letter, a digit, a hyphen nor a dot.
    Character(char),
    /// A label begins or ends with a hyphen.
    Hyphen,
}

impl fmt::Display for NameProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameProblem::Empty => f.write_str("it is empty"),
            NameProblem::TooLong => f.write_str("it has more than 63 characters"),
            NameProblem::EmptyLabel => f.write_str("nothing stands before, after or between dots"),
            NameProblem::Character(c) if c.is_ascii_uppercase() => write!(f, "the letter '{c}' is uppercase"),
            NameProblem::Character(c) => write!(f, "{c:?} is neither a letter, a digit, a hyphen nor a dot"),
            NameProblem::Hyphen => f.write_str("a part begins or ends with a hyphen"),
        }
    }
}

/// Judges a name by RFC 1123 §2.1 as Kubernetes reads it: lowercase only.
pub fn rfc1123_problem(name: &str) -> Option<NameProblem> {
    if name.is_empty() {
        return Some(NameProblem::Empty);
    }
    if let Some(c) = name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '.')) {
        return Some(NameProblem::Character(c));
    }
    if name.split('.').any(str::is_empty) {
        return Some(NameProblem::EmptyLabel);
    }
    if name.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
        return Some(NameProblem::Hyphen);
    }
    (name.len() > NAME).then_some(NameProblem::TooLong)
}

/// The node's name: the pinned one, else the setting `name`, else cloud-config's `hostname`, else the kernel's host
/// name, else (where that is a default that every machine has) `node-` and eight digits that follow from the
/// machine-id, so that they are the same at each boot. Not judged: see [`rfc1123_problem`].
pub fn node_name(facts: &Facts, settings: &Settings) -> String {
    if let Some(pinned) = &facts.pinned {
        return pinned.name.clone();
    }
    if let Some(name) = settings.name.as_ref().or(settings.os.hostname.as_ref()) {
        return name.clone();
    }
    match facts.host_name.known() {
        Some(name) if !is_default(name) => name.clone(),
        _ => {
            let id = facts.machine_id.known().map(|id| id.as_str()).unwrap_or_default();
            // Hashed, because machine-id(5) asks that the id itself is not shown on a network.
            let digest = Sha256::digest(format!("kubeboot node name {id}"));
            format!("node-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
        }
    }
}

/// Host names that the kernel, systemd and images start with, so that they name no machine.
fn is_default(name: &str) -> bool {
    matches!(name, "" | "(none)" | "localhost" | "linux" | "debian" | "kubeboot") || name.starts_with("localhost.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::facts::{Fact, MachineId, Pinned, sample};

    #[test]
    fn names_are_judged_as_kubernetes_does() {
        for good in ["a", "node-1", "node.example.org", "1", &"a".repeat(63)] {
            assert_eq!(rfc1123_problem(good), None, "{good}");
        }
        assert_eq!(rfc1123_problem(""), Some(NameProblem::Empty));
        assert_eq!(rfc1123_problem("Node"), Some(NameProblem::Character('N')));
        assert_eq!(rfc1123_problem("node_1"), Some(NameProblem::Character('_')));
        assert_eq!(rfc1123_problem("node..x"), Some(NameProblem::EmptyLabel));
        assert_eq!(rfc1123_problem("node."), Some(NameProblem::EmptyLabel));
        assert_eq!(rfc1123_problem("-node"), Some(NameProblem::Hyphen));
        assert_eq!(rfc1123_problem("a.b-"), Some(NameProblem::Hyphen));
        assert_eq!(rfc1123_problem(&"a".repeat(64)), Some(NameProblem::TooLong));
    }

    proptest! {
        #[test]
        fn a_name_without_a_problem_matches_kubernetes_expression(name in "[a-zA-Z0-9_.-]{0,70}") {
            let label = |label: &str| !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-') && !label.ends_with('-');
            prop_assert_eq!(rfc1123_problem(&name).is_none(), name.len() <= 63 && name.split('.').all(label));
        }
    }

    #[test]
    fn the_first_name_that_someone_gave_wins() {
        let mut facts = sample::facts();
        let mut settings = sample::settings();
        assert_eq!(node_name(&facts, &settings), "node-a");
        facts.host_name = Fact::Known("localhost".into());
        let derived = node_name(&facts, &settings);
        assert_eq!(rfc1123_problem(&derived), None);
        assert_eq!(derived, node_name(&facts, &settings), "the same at each boot");
        facts.machine_id = Fact::Known(MachineId::new("ffffffffffffffffffffffffffffff00"));
        assert_ne!(derived, node_name(&facts, &settings), "another on each machine");
        settings.os.hostname = Some("from-cloud-config".into());
        assert_eq!(node_name(&facts, &settings), "from-cloud-config");
        settings.name = Some("named".into());
        assert_eq!(node_name(&facts, &settings), "named");
        facts.pinned = Some(Pinned { name: "pinned".into(), address: [10, 0, 2, 15].into() });
        assert_eq!(node_name(&facts, &settings), "pinned");
    }
}
