//! Releases other than the default one.

use anyhow::{Result, ensure};

use super::founder::serves_workloads;
use super::workload;
use crate::scenario::{Needs, ONE, Scenario, Stage, stop};
use crate::subject::Release;

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "A founder on an older Kubernetes serves workloads",
        needs: Needs { release: Release::Older, ..ONE },
        long: true,
        run: older,
    },
    Scenario {
        name: "A founder whose Kubernetes is six separate programs serves workloads",
        needs: Needs { release: Release::Separate, ..ONE },
        long: true,
        run: separate,
    },
];

fn older(stage: &mut Stage) -> Result<()> {
    stop(&mut *serves_workloads(stage)?.machine)
}

fn separate(stage: &mut Stage) -> Result<()> {
    let mut founded = serves_workloads(stage)?;
    let programs = workload::on_node(&founded.kubectl, &["ls", "/run/kubeboot/slot/bin"])?;
    let has = |name: &str| programs.lines().any(|program| program == name);
    ensure!(has("kubelet") && !has("kube"), "the release has our multi-call binary: {programs}");
    stop(&mut *founded.machine)
}
