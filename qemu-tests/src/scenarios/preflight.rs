//! Preflight on machines that are not fit: the console names every problem at once, each with its fix.
//!
//! Every check of preflight's table fails on some machine here.

use std::fs::File;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use image_builder::command::run;

use kubeboot::preflight::{CHECKS, Severity};
use kubeboot::timeline::What;

use crate::disk::Var;
use crate::machine::{Machine, Volume, report};
use crate::scenario::{Needs, ONE, Scenario, Stage, TO_SPEAK};
use crate::transcript::last_lines;

const MANY: &str = "Preflight names every problem at once, each with its fix";
const FOREIGN: &str = "Preflight names a foreign kernel, a damaged record of the release and a read-only state";
const SMALL: &str = "Preflight names too little memory and a slow disk";
const ALONE: &str = "Preflight names a missing default route and missing name servers";
const FULL: &str = "Preflight names a full disk";
const CGROUPS: &str = "Preflight names a missing cgroup controller";

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: ALONE, needs: ONE, long: false, run: alone },
    Scenario { name: MANY, needs: ONE, long: false, run: many },
    Scenario { name: FOREIGN, needs: ONE, long: false, run: foreign },
    Scenario { name: SMALL, needs: Needs { memory: 640, ..ONE }, long: false, run: small },
    Scenario { name: FULL, needs: ONE, long: false, run: full },
    Scenario { name: CGROUPS, needs: ONE, long: false, run: cgroups },
];

/// A finding that a scenario provokes.
struct Provoked {
    /// The check that makes it, and whose worst severity it has.
    check: &'static str,
    /// The scenario.
    by: &'static str,
    /// Words of it.
    says: &'static str,
}

const fn provoked(check: &'static str, by: &'static str, says: &'static str) -> Provoked {
    Provoked { check, by, says }
}

/// Every check of preflight's table, and how it fails.
const PROVOKED: &[Provoked] = &[
    provoked("container", FOREIGN, "this system runs in a container (podman)"),
    provoked("kernel-version", FOREIGN, "the kernel is 5.4.0, older than 5.13"),
    provoked("kernel-modules", FOREIGN, "this kernel lacks"),
    provoked("cgroup-controllers", CGROUPS, "missing cgroup controllers: memory"),
    provoked("memory", SMALL, "a control plane needs 1 GiB; this machine has"),
    provoked("cpus", MANY, "this machine has 1 CPU"),
    provoked("swap", MANY, "swap is on (/dev/"),
    provoked("clock", MANY, "the clock says 2020-02-02"),
    provoked("var-file-system", FOREIGN, "/var is ext4 (/dev/"),
    provoked("var-space", FULL, "are free on /var"),
    provoked("var-latency", SMALL, "etcd gives up at 1 s"),
    provoked("seat", FOREIGN, "/run/kubeboot/seat.json can't be understood"),
    provoked("machine-id", FOREIGN, "the machine-id is still \"uninitialized\""),
    provoked("host-name", MANY, "the node can't be named \"Node-A\""),
    provoked("node-address", ALONE, "no default route"),
    provoked("network-overlap", MANY, "pods (10.77.0.0/16) share addresses with the network 10.77.0.0/24"),
    provoked("ports", MANY, "port 6443, which kube-apiserver needs, is in use by systemd (PID 1, "),
    provoked("name-servers", ALONE, "no name server is known"),
    provoked("mtu", MANY, "network.mtu is 9000 bytes, but"),
];

/// Waits until preflight has failed, and looks for the findings that a scenario provokes, each on a line with its fix:
/// errors below the heading that counts them, warnings as notes before it.
fn finds(machine: &dyn Machine, scenario: &str) -> Result<()> {
    let (heading, state) = ("Preflight found ", "Nothing was changed on this machine.");
    let (notes, errors) = machine.console().wait_for("preflight's findings on the console", TO_SPEAK, |text| {
        let (notes, rest) = text.split_once(heading)?;
        rest.split_once(state).map(|(errors, _)| (notes.to_owned(), errors.to_owned()))
    })?;
    for Provoked { check, says, .. } in PROVOKED.iter().filter(|provoked| provoked.by == scenario) {
        let row = CHECKS.iter().find(|row| row.name == *check);
        let row = row.with_context(|| format!("preflight has no check {check}"))?;
        let place = if row.severity == Severity::Error { &errors } else { &notes };
        let said = place.lines().any(|line| line.contains(says) && line.contains("Fix: "));
        ensure!(
            said,
            "expected {says:?} and its fix as {} on the console, found:\n{}",
            row.severity.word(),
            last_lines(place, 30)
        );
    }
    Ok(())
}

/// A unit that does these things before kubeboot looks at the machine. Some lay what other machines have over this one's.
fn spoiler(commands: &[&str]) -> Vec<u8> {
    let commands: String = commands.iter().map(|command| format!("ExecStart={command}\n")).collect();
    format!(
        "[Unit]\nDefaultDependencies=no\nAfter=kubeboot-slot.service systemd-networkd.service systemd-resolved.service\n\
         Before=kubeboot.service\n[Service]\nType=oneshot\n{commands}"
    )
    .into_bytes()
}

fn many(stage: &mut Stage) -> Result<()> {
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
    let spoiler = spoiler(&["date -s 2020-02-02"]);
    spec.credentials.push(("systemd.extra-unit.spoiler.service".into(), spoiler));
    let words = [
        "maxcpus=1",
        "systemd.hostname=Node-A",
        "systemd.wants=squatter.socket",
        "systemd.wants=spoiler.service",
        "kubeboot.cluster.pod-cidr=10.77.0.0/16",
        "kubeboot.network.mtu=9000",
    ];
    spec.words.extend(words.map(str::to_owned));
    let machine = stage.start(spec)?;
    finds(&*machine, MANY)
}

fn foreign(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    let mut spec = stage.founder(&disk);
    let spoiler = spoiler(&[
        // What podman leaves in its containers, and a kernel without a module.
        "touch /run/.containerenv",
        "mount -t tmpfs tmpfs /usr/lib/modules",
        "mkdir /usr/lib/modules/5.4.0",
        "touch /usr/lib/modules/5.4.0/modules.builtin",
        "sh -c 'echo 5.4.0 >/run/old'",
        "mount --bind /run/old /proc/sys/kernel/osrelease",
        "sh -c 'echo uninitialized >/etc/machine-id'",
        "truncate -s 9 /run/kubeboot/seat.json",
        "mount --bind /var /var",
        "mount -o remount,bind,ro /var",
    ]);
    spec.credentials.push(("systemd.extra-unit.spoiler.service".into(), spoiler));
    spec.words.push("systemd.wants=spoiler.service".into());
    let machine = stage.start(spec)?;
    finds(&*machine, FOREIGN)
}

fn small(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    let mut spec = stage.founder(&disk);
    let slow = "[Service]\nIOWriteIOPSMax=/var 1\n";
    spec.credentials.push(("systemd.unit-dropin.kubeboot.service".into(), slow.into()));
    let machine = stage.start(spec)?;
    finds(&*machine, SMALL)
}

fn alone(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    let mut spec = stage.founder(&disk);
    spec.connected = false;
    let machine = stage.start(spec)?;
    finds(&*machine, ALONE)
}

fn full(stage: &mut Stage) -> Result<()> {
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
    finds(&*machine, FULL)
}

fn cgroups(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    let mut spec = stage.founder(&disk);
    spec.words.push("cgroup_disable=memory".into());
    let machine = stage.start(spec)?;
    finds(&*machine, CGROUPS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_of_preflight_is_provoked_on_a_machine() {
        let checks: BTreeSet<_> = CHECKS.iter().map(|check| check.name).collect();
        let provoked: BTreeSet<_> = PROVOKED.iter().map(|provoked| provoked.check).collect();
        assert_eq!(checks, provoked, "each check needs a row in PROVOKED, and each row a check");
    }

    #[test]
    fn every_scenario_provokes_something_and_every_finding_has_its_scenario() {
        let scenarios: BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        let provoking: BTreeSet<_> = PROVOKED.iter().map(|provoked| provoked.by).collect();
        assert_eq!(scenarios, provoking);
    }

    #[test]
    fn a_spoiler_runs_its_commands_in_order_before_kubeboot() {
        let unit = String::from_utf8(spoiler(&["a b", "c"])).unwrap();
        assert!(unit.contains("\nBefore=kubeboot.service\n"), "{unit}");
        assert!(unit.ends_with("[Service]\nType=oneshot\nExecStart=a b\nExecStart=c\n"), "{unit}");
    }
}
