//! Preflight on machines that are not fit: the console names every problem at once, each with its fix.

use std::fs::File;
use std::process::Command;

use anyhow::{Context, Result};
use image_builder::command::run;

use kubeboot::timeline::What;

use crate::disk::Var;
use crate::machine::{Machine, Volume, report};
use crate::scenario::{Needs, ONE, Scenario, Stage, TO_SPEAK, says};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "Preflight names every problem at once, each with its fix",
        needs: ONE,
        long: false,
        run: many_problems,
    },
    Scenario {
        name: "Preflight names too little memory",
        needs: Needs { memory: 640, ..ONE },
        long: false,
        run: little_memory,
    },
    Scenario { name: "Preflight names a missing default route", needs: ONE, long: false, run: no_network },
    Scenario { name: "Preflight names a full disk", needs: ONE, long: false, run: full_disk },
    Scenario {
        name: "Preflight names a missing cgroup controller",
        needs: ONE,
        long: false,
        run: no_memory_controller,
    },
];

/// The console once preflight has failed.
fn findings(machine: &dyn Machine) -> Result<String> {
    // The line that ends the error: the notes before it have their fixes too.
    let state = "Nothing was changed on this machine.";
    machine
        .console()
        .wait_for("preflight's findings on the console", TO_SPEAK, |text| text.contains(state).then(|| text.to_owned()))
}

fn many_problems(stage: &mut Stage) -> Result<()> {
    let swap = stage.folder.join("swap.img");
    File::create(&swap).and_then(|file| file.set_len(64 << 20)).context("can't make a volume for swap")?;
    run(Command::new("mkswap").args(["-q", "-L", "test-swap"]).arg(&swap), "make a swap volume")?;
    let disk = stage.new_disk()?;
    let mut spec = stage.founder(&disk);
    spec.volumes.push(Volume { path: swap, writable: true });
    spec.credentials.push(("fstab.extra".into(), b"LABEL=test-swap none swap sw 0 0\n".to_vec()));
    let squatter = "[Unit]\nDefaultDependencies=no\nBefore=sockets.target\n[Socket]\nListenStream=6443\nAccept=yes\n";
    spec.credentials.push(("systemd.extra-unit.squatter.socket".into(), squatter.into()));
    spec.credentials.push(("systemd.extra-unit.squatter@.service".into(), b"[Service]\nExecStart=true\n".to_vec()));
    spec.words.extend(["systemd.wants=squatter.socket", "kubeboot.cluster.pod-cidr=10.77.0.0/16"].map(str::to_owned));
    let machine = stage.start(spec)?;
    machine.console().wait_for_text("6443", TO_SPEAK)?;
    says(&findings(&*machine)?, &["swap", "6443", "10.77.0.0/16", "Fix:"])
}

fn little_memory(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    let spec = stage.founder(&disk);
    let machine = stage.start(spec)?;
    says(&findings(&*machine)?, &["memory", "Fix:"])
}

fn no_network(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    let mut spec = stage.founder(&disk);
    spec.connected = false;
    let machine = stage.start(spec)?;
    says(&findings(&*machine)?, &["default route", "Fix:"])
}

fn full_disk(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    // A boot without a role makes /var and no more.
    let spec = stage.spec(&disk);
    let mut machine = stage.start(spec)?;
    report::wait_for(machine.report(), "the settings to be read", TO_SPEAK, |what| {
        matches!(what, What::Step { .. }).then_some(())
    })?;
    machine.cut_power()?;
    drop(machine);
    Var::write(&disk)?.fill(512)?;
    let spec = stage.founder(&disk);
    let machine = stage.start(spec)?;
    says(&findings(&*machine)?, &["free on /var", "Fix:"])
}

fn no_memory_controller(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    let mut spec = stage.founder(&disk);
    spec.words.push("cgroup_disable=memory".into());
    let machine = stage.start(spec)?;
    says(&findings(&*machine)?, &["memory", "cgroup", "Fix:"])
}
