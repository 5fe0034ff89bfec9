//! `kubeboot reset` returns a machine to its first boot.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::power_cut::cluster_id;
use super::workload;
use crate::disk::Var;
use crate::machine::Spec;
use crate::scenario::{ONE, Scenario, Stage, TO_SPEAK, configured};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "A machine that was reset founds another cluster", needs: ONE, long: false, run: reset },
    Scenario {
        name: "A reset parameter with the id of the cluster returns a damaged machine to first boot",
        needs: ONE,
        long: false,
        run: parameter,
    },
];

/// What the fix of a damaged machine names.
const PARAMETER: &str = "kubeboot.reset=";

fn reset(stage: &mut Stage) -> Result<()> {
    let disk = stage.founded_disk()?;
    let mut founded = stage.found(&disk)?;
    let said = workload::kubeboot(&founded.kubectl, None, &["reset", "--yes"])?;
    ensure!(said.contains("forgets its cluster when it starts next"), "kubeboot reset said: {said}");
    // What was ordered is on disk by then.
    founded.machine.cut_power()?;
    let spec = stage.founder(&disk);
    let again = refounded(stage, spec)?;
    ensure!(again != founded.cluster, "after a reset the cluster is still {again}");
    Ok(())
}

/// The parameter is taken from the console, as an operator would; left in place, it does nothing to the next cluster.
fn parameter(stage: &mut Stage) -> Result<()> {
    let disk = stage.founded_disk()?;
    {
        let var = Var::write(&disk)?;
        let key = var.path("/var/lib/kubeboot/kubernetes/pki/ca.key");
        fs::remove_file(&key).with_context(|| format!("can't remove {}", key.display()))?;
    }
    let spec = stage.founder(&disk);
    let mut machine = stage.start(spec)?;
    let id = machine.console().wait_for("a reset parameter with an id on the console", TO_SPEAK, |text| {
        let id = text.split(PARAMETER).nth(1)?.get(..32)?;
        id.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| id.to_owned())
    })?;
    machine.cut_power()?;
    let mut other = stage.founder(&disk);
    other.words.push(format!("{PARAMETER}{}", id.chars().rev().collect::<String>()));
    let mut machine = stage.start(other)?;
    machine.console().wait_for_text("nothing was reset", TO_SPEAK)?;
    machine.console().wait_for_text("pki/ca.key", TO_SPEAK)?;
    machine.cut_power()?;
    let mut ordered = stage.founder(&disk);
    ordered.words.push(format!("{PARAMETER}{id}"));
    let machine = stage.start(ordered.clone())?;
    let mut founded = stage.ready(machine)?;
    ensure!(founded.cluster != id, "after a reset the cluster is still {id}");
    founded.machine.cut_power()?;
    let again = refounded(stage, ordered)?;
    ensure!(again == founded.cluster, "the parameter was left in place and took {} too", founded.cluster);
    Ok(())
}

/// The id of the cluster that a machine has on its disk once it is configured.
fn refounded(stage: &mut Stage, spec: Spec) -> Result<String> {
    let disk = spec.disk.clone();
    let mut machine = stage.start(spec)?;
    configured(&*machine)?;
    machine.cut_power()?;
    // Mounted to be written to: what is on disk may be in the journal only.
    cluster_id(&Var::write(&disk)?).context("the machine has no cluster on its disk")
}
