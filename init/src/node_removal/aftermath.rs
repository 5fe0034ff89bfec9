//! What is left to do when a node is removed, for people and for programs.

use serde_json::{Value, json};

use super::Step;
use crate::token::Joiner;

/// What every control plane knows, and what who has it can do. kubeboot replaces none of these in a cluster that was
/// founded.
pub const KNEW: [(&str, &str); 5] = [
    ("authority-keys", "make certificates of anybody's, administrators' too, that the cluster believes"),
    ("service-account-key", "make tokens of any ServiceAccount"),
    ("encryption-key", "read the Secrets in a copy of etcd's data"),
    ("identity-key", "pose as the cluster to machines that join and to operators"),
    ("secrets", "use what the Secrets held when it was a control plane"),
];

/// As what the node was a part of the cluster, by the steps that removed it.
fn role(steps: &[Step]) -> Joiner {
    let was = |step: &Step| matches!(step, Step::BarControlPlane | Step::LeaveEtcd { .. });
    if steps.iter().any(was) { Joiner::ControlPlane } else { Joiner::Worker }
}

/// The role as `--role` has it.
fn named(role: Joiner) -> &'static str {
    match role {
        Joiner::Worker => "worker",
        Joiner::ControlPlane => "control-plane",
    }
}

/// What is told who removed it.
pub fn after(name: &str, steps: &[Step]) -> String {
    let role = role(steps);
    let gone =
        format!("\n{name} is removed. If the machine still runs, switch it off, or empty it with: kubeboot reset\n");
    let token = format!("A new machine may take its name. Its token: kubeboot token create --role {}\n", named(role));
    if role == Joiner::Worker {
        return gone + &token;
    }
    let can: Vec<&str> = KNEW.iter().map(|(_, can)| *can).collect();
    format!(
        "{gone}\n\
         It knew the cluster's keys. Its removal replaces none of them, and kubeboot has no way to do so.\n\
         Who has its disk can:\n  - {}\n\
         So empty the disk (kubeboot reset), or destroy it. If it may be in other hands: found a new cluster,\n\
         move what runs here there, and change what the Secrets hold.\n\n{token}",
        can.join("\n  - ")
    )
}

/// What a program is told of a removal.
pub fn report(name: &str, steps: &[Step]) -> Value {
    let role = role(steps);
    let knew: Vec<&str> = match role {
        Joiner::ControlPlane => KNEW.iter().map(|(what, _)| *what).collect(),
        Joiner::Worker => Vec::new(),
    };
    json!({"removed": name, "role": named(role), "steps": steps, "knew": knew})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_removes_a_control_plane_hears_what_it_knew() {
        let control_plane = [Step::Cordon, Step::BarControlPlane, Step::LeaveEtcd { id: 7 }, Step::Unregister];
        let worker = [Step::Cordon, Step::Drain, Step::Bar, Step::Unregister, Step::Forget];
        let texts = [("cp-3", &control_plane[..]), ("w-7", &worker[..])].map(|(name, steps)| {
            format!("{}\n{}\n", after(name, steps), serde_json::to_string_pretty(&report(name, steps)).unwrap())
        });
        insta::assert_snapshot!(texts.join("---\n"));
    }

    #[test]
    fn a_removal_that_goes_on_knows_what_the_machine_was() {
        // Its member left etcd before; or the cluster had no record of it.
        for steps in [&[Step::BarControlPlane, Step::Forget][..], &[Step::LeaveEtcd { id: 7 }]] {
            assert!(after("cp-3", steps).contains("It knew the cluster's keys"), "{steps:?}");
        }
    }
}
