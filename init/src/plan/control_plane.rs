//! The plan of a control plane that joins: first what makes it a node of the cluster, as a worker becomes one, but with the
//! cluster's keys; from then on the founder's plan, which makes everything else by these keys.
//!
//! The cluster's keys are on disk before the settings are frozen. So the founder's plan finds a machine whose founding was
//! complete: it replaces no key, and issues what is missing.

use crate::certificates::Unix;
use crate::enrolment::message::Key;

use super::sight::Sight;
use super::worker::{Beside, When};
use super::{Damaged, Step, Worker, founder, parts, worker};

/// Every path that [`plan`] wants to know of.
pub fn paths(machine: &Worker) -> Vec<String> {
    let mut files = machine.paths();
    let mut keys: Vec<String> = Key::ALL.map(|key| key.path().to_owned()).into();
    parts::add_strays(&mut keys);
    files.extend(keys);
    files.extend(parts::directory_paths(founder::DIRECTORIES));
    files
}

/// What a machine that has not joined yet has to do until it has.
///
/// # Errors
/// [`Damaged`], as [`worker::plan`].
pub fn plan(machine: &Worker, sight: &Sight, now: Unix) -> Result<Vec<Step>, Damaged> {
    // The kubeconfigs that refer to files are the founder's plan's: they lead to this machine's own API server.
    worker::plan_for(machine, sight, now, When::Lost, &Beside { directories: founder::DIRECTORIES, kubeconfigs: &[] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;
    use crate::plan::record::Node;
    use crate::plan::sight::Entry;

    fn machine() -> Worker {
        Worker {
            node: Node {
                name: "two".into(),
                address: "192.0.2.12".parse().unwrap(),
                machine_id: "0123456789abcdef0123456789abcdef".into(),
            },
        }
    }

    #[test]
    fn a_new_machine_makes_room_for_the_keys_asks_and_is_a_node_last() {
        let steps = plan(&machine(), &Sight::default(), 1_800_000_000).unwrap();
        let lines: Vec<String> = steps.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn what_a_power_cut_left_of_a_key_is_removed() {
        let wanted = paths(&machine());
        let torn = "/etc/kubernetes/pki/.sa.key.kubeboot-new";
        assert!(wanted.iter().any(|path| path == torn), "{wanted:?}");
        let mut sight = Sight::default();
        sight.note(torn, Entry::File { mode: 0o600, contents: Vec::new().into() });
        let steps = plan(&machine(), &sight, 1_800_000_000).unwrap();
        assert!(matches!(&steps[0], Step::Remove { path, .. } if path == torn), "{steps:?}");
        assert!(wanted.iter().any(|path| path == paths::FROZEN));
    }
}
