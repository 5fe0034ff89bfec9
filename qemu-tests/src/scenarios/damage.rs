//! Damaged files: what can be made again safely is; what can't is named, and never replaced in silence.

use std::fs;

use anyhow::{Context, Result, ensure};
use kubeboot::paths;

use crate::disk::Var;
use crate::scenario::{ONE, Scenario, Stage, TO_SPEAK};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "A damaged server certificate is made again", needs: ONE, long: false, run: leaf },
    Scenario { name: "A damaged CA key stops the boot and is named", needs: ONE, long: false, run: ca_key },
    Scenario {
        name: "A missing service account key stops the boot and is named",
        needs: ONE,
        long: false,
        run: sa_key,
    },
    Scenario {
        name: "A founded machine whose etcd data is gone stops and says so",
        needs: ONE,
        long: false,
        run: etcd,
    },
];

const PKI: &str = "/var/lib/kubeboot/kubernetes/pki";

fn leaf(stage: &mut Stage) -> Result<()> {
    let disk = stage.founded_disk()?;
    let path = format!("{PKI}/apiserver.crt");
    let damaged = {
        let var = Var::write(&disk)?;
        let text = fs::read(var.path(&path)).with_context(|| format!("can't read {path}"))?;
        let half = text[..text.len() / 2].to_vec();
        fs::write(var.path(&path), &half).with_context(|| format!("can't damage {path}"))?;
        half
    };
    let mut founded = stage.found(&disk)?;
    founded.machine.cut_power()?;
    let now = fs::read(Var::read(&disk)?.path(&path)).with_context(|| format!("can't read {path}"))?;
    ensure!(now.len() > damaged.len() && now.starts_with(b"-----BEGIN CERTIFICATE"), "{path} was not made again");
    Ok(())
}

fn ca_key(stage: &mut Stage) -> Result<()> {
    stops_and_names(stage, "ca.key", Some(b"-----BEGIN PRIVATE KEY-----\nMIGH"))
}

fn sa_key(stage: &mut Stage) -> Result<()> {
    stops_and_names(stage, "sa.key", None)
}

fn etcd(stage: &mut Stage) -> Result<()> {
    let disk = stage.founded_disk()?;
    let (member, away) = ("/var/lib/etcd/member", "/var/lib/other");
    let moved = |from: &str, to: &str| {
        let var = Var::write(&disk)?;
        fs::rename(var.path(from), var.path(to)).with_context(|| format!("can't move {from} to {to}"))
    };
    moved(member, away)?;
    let spec = stage.founder(&disk);
    let mut machine = stage.start(spec)?;
    machine.console().wait_for("etcd's database and a fix on the console", TO_SPEAK, |text| {
        let named = text.find(paths::ETCD_DATABASE)?;
        text[named..].find("restore /var/lib/etcd from a snapshot").map(drop)
    })?;
    machine.cut_power()?;
    ensure!(!Var::read(&disk)?.path(member).exists(), "etcd was started, and made an empty cluster");
    // The fix that it names.
    moved(away, member)?;
    stage.found(&disk)?;
    Ok(())
}

/// Damages (or removes) a key of a founded machine; its next boot must say so and leave it as it is.
fn stops_and_names(stage: &mut Stage, key: &str, contents: Option<&[u8]>) -> Result<()> {
    let disk = stage.founded_disk()?;
    let path = format!("{PKI}/{key}");
    {
        let var = Var::write(&disk)?;
        let file = var.path(&path);
        match contents {
            Some(contents) => fs::write(file, contents),
            None => fs::remove_file(file),
        }
        .with_context(|| format!("can't damage {path}"))?;
    }
    let spec = stage.founder(&disk);
    let mut machine = stage.start(spec)?;
    let console = machine.console();
    console.wait_for(&format!("{key} and a fix on the console"), TO_SPEAK, |text| {
        let named = text.find(&format!("pki/{key}"))?;
        text[named..].find("Fix:").map(drop)
    })?;
    machine.cut_power()?;
    let now = fs::read(Var::read(&disk)?.path(&path)).ok();
    ensure!(now.as_deref() == contents, "{path} was changed by the boot that should have stopped");
    Ok(())
}
