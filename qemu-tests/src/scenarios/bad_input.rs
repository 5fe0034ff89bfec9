//! Mistakes in each source of settings: the console and the report name the key, the source and the nearest valid key.

use anyhow::Result;
use kubeboot::timeline::What;

use crate::machine::{Spec, Volume, report};
use crate::scenario::{ONE, Scenario, Stage, TO_SPEAK, says};
use crate::volumes::{self, Format};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "A mistake on the kernel command line is named", needs: ONE, long: false, run: command_line },
    Scenario { name: "A mistake in a credential is named", needs: ONE, long: false, run: credential },
    Scenario { name: "A mistake in a cloud-config is named", needs: ONE, long: false, run: cloud_config },
    Scenario { name: "A mistake in user-data as TOML is named", needs: ONE, long: false, run: toml },
    Scenario { name: "A node name that is not valid is named", needs: ONE, long: false, run: node_name },
    Scenario { name: "User-data that is no known kind is named", needs: ONE, long: false, run: garbage },
];

fn command_line(stage: &mut Stage) -> Result<()> {
    named(stage, &["kubeboot.rolle", "kernel command line", "role"], |_, spec| {
        spec.words.push("kubeboot.rolle=init".into());
        Ok(())
    })
}

fn node_name(stage: &mut Stage) -> Result<()> {
    named(stage, &["Not_Valid", "kernel command line"], |_, spec| {
        spec.words.extend(["kubeboot.role=init", "kubeboot.name=Not_Valid"].map(str::to_owned));
        Ok(())
    })
}

fn credential(stage: &mut Stage) -> Result<()> {
    named(stage, &["cluster.pod-cdir", "credential", "cluster.pod-cidr"], |_, spec| {
        spec.credentials.push(("kubeboot.role".into(), b"init".to_vec()));
        spec.credentials.push(("kubeboot.config".into(), b"[cluster]\npod-cdir = \"10.0.0.0/16\"\n".to_vec()));
        Ok(())
    })
}

fn cloud_config(stage: &mut Stage) -> Result<()> {
    user_data(stage, "#cloud-config\nkubeboot:\n  role: init\n  nmae: a\n", &["nmae", "CIDATA", "line 4", "name"])
}

fn toml(stage: &mut Stage) -> Result<()> {
    user_data(stage, "#kubeboot\nrole = \"inti\"\n", &["inti", "role", "init"])
}

fn garbage(stage: &mut Stage) -> Result<()> {
    user_data(stage, "#!/bin/sh\necho hello\n", &["user-data", "#cloud-config"])
}

fn user_data(stage: &mut Stage, text: &str, parts: &[&str]) -> Result<()> {
    named(stage, parts, |stage, spec| {
        let files = [("user-data", text), ("meta-data", "instance-id: a-test\n")];
        let volume = volumes::user_data(&stage.folder, Format::Vfat, "cidata", &files)?;
        spec.volumes.push(Volume::read_only(volume));
        Ok(())
    })
}

/// Boots with a mistake, and looks for the parts of the message on the console and in the report.
fn named(stage: &mut Stage, parts: &[&str], mistake: impl FnOnce(&Stage, &mut Spec) -> Result<()>) -> Result<()> {
    let disk = stage.new_disk()?;
    let mut spec = stage.spec(&disk);
    mistake(stage, &mut spec)?;
    let machine = stage.start(spec)?;
    // The kernel shows its command line on the console too: only what comes with a fix counts.
    let text = machine.console().wait_for("a message with a fix", TO_SPEAK, |text| {
        let fix = text.find("Fix:")?;
        let end = text[fix..].find('\n')?;
        let start = text[..fix].rfind("[    ").unwrap_or(0);
        Some(text[start..fix + end].to_owned())
    })?;
    says(&text, parts)?;
    // Who waits for the machine hears of it too, although the settings can't be used.
    let told = report::wait_for(machine.report(), "the error", TO_SPEAK, |what| match what {
        What::Error { command, message } if command == "boot" => Some(message.clone()),
        _ => None,
    })?;
    says(&told, parts)
}
