//! Power cuts at seeded moments of the first boot: the next boot finishes, with one cluster id ever.

use std::time::Duration;

use anyhow::{Result, ensure};
use kubeboot::paths;
use serde_json::Value;

use crate::disk::Var;
use crate::scenario::{Needs, ONE, Scenario, Stage, TO_READY};

/// The scenarios of this file: one, which a run plays with as many seeds as it wants.
pub const SCENARIOS: &[Scenario] =
    &[Scenario { name: POWER_CUT, needs: Needs { memory: 2048, ..ONE }, long: false, run: cut }];

/// Its name, by which a run finds it.
pub const POWER_CUT: &str = "A power cut during the first boot is finished by the next, with one cluster id";

/// The first boot is cut within this time from power-on: until a little after an unloaded host's machine is Ready.
const WINDOW: std::ops::Range<u64> = 2_000..35_000;

fn cut(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    let moment = Duration::from_millis(stage.random.within(WINDOW));
    let spec = stage.founder(&disk);
    stage.start_and_cut(spec, moment)?;
    let before = Var::read(&disk).ok().and_then(|var| cluster_id(&var));
    let mut founded = stage.found(&disk)?;
    founded.kubectl.wait_for_pods("kube-system", TO_READY)?;
    founded.machine.cut_power()?;
    let after = Var::read(&disk).ok().and_then(|var| cluster_id(&var));
    ensure!(after.as_ref() == Some(&founded.cluster), "the disk has cluster id {after:?}, not {}", founded.cluster);
    if let Some(before) = before {
        let now = &founded.cluster;
        ensure!(
            before == *now,
            "the cluster id was {before} when the power was cut {moment:?} after power-on, is {now}"
        );
    }
    Ok(())
}

/// The cluster id on a stopped machine's disk, if it has got that far.
pub(super) fn cluster_id(var: &Var) -> Option<String> {
    let text = std::fs::read_to_string(var.path(paths::CLUSTER)).ok()?;
    let cluster: Value = serde_json::from_str(&text).ok()?;
    Some(cluster["id"].as_str()?.to_owned())
}
