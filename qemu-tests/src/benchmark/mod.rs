//! How long a machine takes to be Ready, divided by the floor: the same binaries, all started at once as plain
//! processes, with every file made beforehand and no static pods.
//!
//! Both are counted from the start of `kubeboot-slot.service`, the first unit after `/var` is mounted, to the first
//! moment at which the host sees `/readyz` succeed and the node Ready.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use image_builder::command::output;
use serde_json::Value;

use crate::disk::{self, Var};
use crate::kubectl::{Kubectl, readyz};
use crate::lab::Lab;
use crate::machine::{Backend, Machine};
use crate::scenario::{ONE, Stage, TO_READY, stop};
use crate::wait::{Look, until};

mod floor;

/// How many pairs are measured.
const PAIRS: usize = 5;
/// How often the host looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Measures pairs in turn, prints each and the ratio of the medians.
///
/// # Errors
/// A machine does not become Ready.
pub fn ready(lab: &Lab, backend: &dyn Backend, seed: u64) -> Result<()> {
    let mut stage = Stage::new(lab, backend, ONE, lab.folder.join("benchmark"), seed)?;
    let floor = floor::prepare(&mut stage)?;
    let (mut boots, mut floors) = (Vec::new(), Vec::new());
    println!("boot to Ready, and its floor, in seconds on {}", backend.name());
    for pair in 1..=PAIRS {
        boots.push(boot(&mut stage).context("a founder's first boot")?);
        floors.push(floor.boot(&mut stage).context("the floor")?);
        println!("pair {pair}: {:6.1} {:6.1}", boots[pair - 1], floors[pair - 1]);
    }
    let (boot, floor) = (median(&mut boots), median(&mut floors));
    println!("median: {boot:6.1} {floor:6.1}, ratio {:.2}", boot / floor);
    Ok(())
}

/// A founder's first boot.
fn boot(stage: &mut Stage) -> Result<f64> {
    let disk = stage.new_disk()?;
    let spec = stage.founder(&disk);
    let power_on = Instant::now();
    let mut machine = stage.start(spec)?;
    let kubectl = stage.granted(&*machine)?;
    measure(&mut *machine, &kubectl, power_on, &disk)
}

/// Waits for Ready, stops the machine, and gives the seconds since the first unit after `/var` was mounted.
fn measure(machine: &mut dyn Machine, kubectl: &Kubectl, power_on: Instant, disk: &Path) -> Result<f64> {
    // One request and nothing around it: kubectl would first ask what kinds there are, while the machine is at its busiest.
    let nodes = ["get", "--raw", "/api/v1/nodes"];
    let reach = machine.api();
    until("/readyz", TO_READY, PAUSE, || Look::from_result(readyz(reach.namespace.as_deref(), &reach.url)))?;
    until("a Ready node", TO_READY, PAUSE, || match kubectl.run(&nodes).and_then(|list| condition(&list)) {
        Ok(status) if status == "True" => Look::Holds(()),
        Ok(status) => Look::NotYet(format!("the node's condition Ready is {status:?}")),
        Err(error) => Look::NotYet(format!("{error:#}")),
    })?;
    let ready = power_on.elapsed().as_secs_f64();
    stop(machine)?;
    Ok(ready - first_unit(disk)?)
}

/// The condition Ready of the only node of a NodeList; empty when there is none yet.
fn condition(list: &str) -> Result<String> {
    let list: Value = serde_json::from_str(list).context("the list of nodes is no JSON")?;
    let conditions = list.pointer("/items/0/status/conditions").and_then(Value::as_array);
    let ready = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
    Ok(ready.and_then(|one| one["status"].as_str()).unwrap_or_default().to_owned())
}

/// When the first unit after `/var` was started in the last boot, in seconds since its kernel started.
fn first_unit(disk: &Path) -> Result<f64> {
    let var = Var::read(disk)?;
    let mut journalctl = Command::new("journalctl");
    journalctl.arg("-D").arg(var.path("/var/log/journal"));
    journalctl.args(["-b", "0", "-u", "kubeboot-slot.service", "-o", "json", "--no-pager"]);
    let lines = output(&mut journalctl, "read a machine's journal")?;
    let first = lines.lines().next().context("the journal has nothing of kubeboot-slot.service")?;
    let entry: Value = serde_json::from_str(first).context("journalctl gave no JSON")?;
    let stamp = entry["__MONOTONIC_TIMESTAMP"].as_str().and_then(|stamp| stamp.parse::<f64>().ok());
    Ok(stamp.context("the journal's entry has no time")? / 1e6)
}

/// The middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A copy of a disk for one boot.
fn copy(stage: &Stage, base: &Path) -> Result<std::path::PathBuf> {
    let disk = stage.folder.join("floor-boot.raw");
    if disk.exists() {
        fs::remove_file(&disk).with_context(|| format!("can't remove {}", disk.display()))?;
    }
    disk::copy(base, &disk)?;
    ensure!(disk.is_file(), "{} was not made", disk.display());
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_its_condition_says_so() {
        let list = |conditions: &str| {
            condition(&format!("{{\"items\":[{{\"status\":{{\"conditions\":{conditions}}}}}]}}")).unwrap()
        };
        assert_eq!(list(r#"[{"type":"DiskPressure","status":"False"},{"type":"Ready","status":"True"}]"#), "True");
        assert_eq!(list("[]"), "");
        assert_eq!(condition("{\"items\":[]}").unwrap(), "");
        assert!(condition("Unauthorized").is_err());
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(&mut [9.0, 1.0, 5.0, 7.0, 3.0]) - 5.0).abs() < f64::EPSILON);
    }
}
