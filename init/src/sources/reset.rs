//! `kubeboot.reset=ID`: an order to return a machine to its first boot, for machines where nobody can log in.
//!
//! It is no setting: it is taken from the kernel command line and from a credential only, never from user-data, so that
//! a stick empties no machine. And it names what it is for, the cluster's id. The reset removes that id, so that an order
//! that stays in place does nothing to the next cluster.

use super::{Gathered, command_line};
use crate::plan::record::Cluster;

/// Its name below `kubeboot.`
pub const NAME: &str = "reset";
/// The credential's name.
pub const CREDENTIAL: &str = "kubeboot.reset";

/// What was ordered, from the highest source that says anything.
pub fn ordered(gathered: &Gathered) -> Option<String> {
    let credential = gathered.credentials.iter().find(|(name, _)| name == CREDENTIAL);
    let credential = credential.map(|(_, bytes)| String::from_utf8_lossy(bytes).trim().to_owned());
    credential.or_else(|| command_line::reset(&gathered.command_line))
}

/// The id that an order must name: the cluster's; where that can't be read, the machine's, which a reset removes too.
/// `cluster` is what `paths::CLUSTER` holds, `machine` the id in `paths::MACHINE_ID`.
pub fn expected(cluster: Option<&[u8]>, machine: Option<String>) -> Option<String> {
    cluster.and_then(|bytes| Cluster::parse(bytes).ok()).map(|cluster| cluster.id).or(machine)
}

/// What comes of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is none, or nothing that it could be for.
    Nothing,
    /// It names what is on this disk.
    Reset,
    /// It names something else, for people.
    Other(String),
}

/// Judges an order against what is on disk.
pub fn judge(ordered: Option<&str>, expected: Option<&str>) -> Verdict {
    match (ordered, expected) {
        (None, _) | (_, None) => Verdict::Nothing,
        (Some(ordered), Some(expected)) if ordered.eq_ignore_ascii_case(expected) => Verdict::Reset,
        (Some(ordered), Some(expected)) => Verdict::Other(format!(
            "{CREDENTIAL} names {}, and this machine has {expected}: nothing was reset. Remove the parameter",
            crate::settings::quoted(ordered)
        )),
    }
}

/// The order in words, as the last step of a fix.
pub fn fix(expected: &str) -> String {
    format!("or, where nobody can log in, start it with this on its kernel command line: {CREDENTIAL}={expected}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::{Inputs, Problem};
    use crate::sources::{Bytes, Layout, Volume, parse};

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn told(line: &str, credential: Option<&str>) -> Gathered {
        Gathered {
            command_line: Bytes::new(line.as_bytes().to_vec()),
            credentials: credential
                .map(|text| (CREDENTIAL.to_owned(), Bytes::new(text.as_bytes().to_vec())))
                .into_iter()
                .collect(),
            ..Gathered::default()
        }
    }

    #[test]
    fn an_order_comes_from_the_command_line_or_a_credential_and_is_no_setting() {
        assert_eq!(ordered(&told("quiet", None)), None);
        assert_eq!(ordered(&told("kubeboot.reset=a kubeboot.reset=\"b\"", None)).as_deref(), Some("b"));
        let both = told("kubeboot.role=init kubeboot.reset=a", Some("c\n"));
        assert_eq!(ordered(&both).as_deref(), Some("c"));
        let Inputs { values, problems, .. } = parse(&both);
        assert_eq!((values.len(), problems), (1, Vec::<Problem>::new()));
    }

    #[test]
    fn no_stick_orders_a_reset() {
        let user_data = Bytes::new(format!("#cloud-config\nkubeboot:\n  reset: {ID}\n").into_bytes());
        let volume = Volume {
            layout: Layout::NoCloud,
            name: "cidata volume /dev/vdb".to_owned(),
            user_data: Some(user_data),
            meta_data: None,
            network: None,
        };
        let gathered = Gathered { volumes: vec![volume], ..Gathered::default() };
        assert_eq!(ordered(&gathered), None);
        let problems: Vec<String> = parse(&gathered).problems.iter().map(ToString::to_string).collect();
        assert!(problems.len() == 1 && problems[0].contains("taken from nowhere else"), "{problems:?}");
    }

    #[test]
    fn an_order_holds_for_the_id_that_it_names_and_for_no_other() {
        assert_eq!(judge(Some(ID), Some(ID)), Verdict::Reset);
        assert_eq!(judge(Some(&ID.to_uppercase()), Some(ID)), Verdict::Reset);
        assert_eq!(judge(None, Some(ID)), Verdict::Nothing);
        assert_eq!(judge(Some(ID), None), Verdict::Nothing, "there is nothing to reset");
        for other in ["", "yes", "0123"] {
            assert!(matches!(judge(Some(other), Some(ID)), Verdict::Other(_)), "{other}");
        }
    }

    #[test]
    fn a_damaged_record_leaves_the_machines_id() {
        assert_eq!(expected(Some(b"{"), Some(ID.to_owned())).as_deref(), Some(ID));
        assert_eq!(expected(None, Some(ID.to_owned())).as_deref(), Some(ID));
        assert_eq!(expected(None, None), None);
    }

    proptest! {
        #[test]
        fn only_the_very_id_resets(text in ".{0,40}") {
            prop_assume!(!text.eq_ignore_ascii_case(ID));
            prop_assert_ne!(judge(Some(&text), Some(ID)), Verdict::Reset);
        }
    }
}
