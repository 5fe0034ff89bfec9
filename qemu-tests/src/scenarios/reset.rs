//! `kubeboot reset` returns a machine to its first boot.

use anyhow::{Context, Result, ensure};

use super::workload;
use crate::scenario::{ONE, Scenario, Stage, TO_STOP, stop};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] =
    &[Scenario { name: "A machine that was reset founds another cluster", needs: ONE, long: true, run: reset }];

fn reset(stage: &mut Stage) -> Result<()> {
    let disk = stage.founded_disk()?;
    let mut founded = stage.found(&disk)?;
    // The connection may end with the machine, before the command can say that it succeeded.
    let said = workload::on_node(&founded.kubectl, &["/run/kubeboot/slot/bin/kubeboot", "reset", "--yes"]);
    if founded.machine.wait_stopped(TO_STOP).is_err() {
        said.context("kubeboot reset failed")?;
        stop(&mut *founded.machine)?;
    }
    let again = stage.found(&disk)?;
    ensure!(again.cluster != founded.cluster, "after a reset the cluster is still {}", again.cluster);
    Ok(())
}
