//! Where `/var` comes from: the disk that the machine was started from, and no other; and what is said when it can't.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use image_builder::cache::sha256_file;
use kubeboot::paths;
use kubeboot::timeline::What;

use crate::disk::{self, Var};
use crate::machine::{Volume, report};
use crate::scenario::{ONE, Scenario, Stage, TO_SPEAK, configured};
use crate::volumes;

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "A second disk with the label of the state is left alone", needs: ONE, long: false, run: foreign },
    Scenario { name: "A disk without room says so", needs: ONE, long: false, run: no_room },
    Scenario { name: "A damaged state is named and never formatted", needs: ONE, long: true, run: damaged },
];

/// How long a machine with nothing to go on to has to show that it stays: an emergency shell would come at once.
const STAYS: Duration = Duration::from_secs(5);

fn foreign(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    let other = volumes::labelled(&stage.folder, "kubeboot-var")?;
    let before = sha256_file(&other)?;
    // The first boot makes the machine's own partition, the second finds both.
    for volumes_first in [true, false] {
        let mut spec = stage.founder(&disk);
        spec.volumes.push(Volume { path: other.clone(), writable: true });
        spec.volumes_first = volumes_first;
        let mut machine = stage.start(spec)?;
        configured(&*machine)?;
        machine.cut_power()?;
        ensure!(sha256_file(&other)? == before, "the other disk was written to");
    }
    // To be written, so that what the power cut left in its journal is replayed.
    let boots = fs::read_to_string(Var::write(&disk)?.path(paths::BOOTS)).context("the boots were not counted")?;
    ensure!(boots.trim() == "2", "the machine's own disk counts {boots:?} boots, expected 2");
    Ok(())
}

fn no_room(stage: &mut Stage) -> Result<()> {
    let image = fs::metadata(&stage.lab.image).context("can't look at the image")?.len();
    let disk = stage.folder.join("small.raw");
    disk::fresh(&stage.lab.image, &disk, image.div_ceil(1 << 20) + 1024)?;
    let spec = stage.founder(&disk);
    let mut machine = stage.start(spec)?;
    let (before, after) = ("The disk is too small for this machine's state (/var):", " MiB or more");
    let enough: u64 = machine.console().wait_for("the size that is enough, on the console", TO_SPEAK, |text| {
        let (_, fix) = text.split_once(before)?.1.split_once("Fix: enlarge the disk to ")?;
        fix.split_once(after)?.0.parse().ok()
    })?;
    let reported = |text: &str| report::events(text).into_iter().find_map(|event| error_of(event.what));
    machine.report().wait_for("the same on the report channel", TO_SPEAK, reported)?;
    // It stays, and nothing hides what it said. (Only a machine with a system of its own hears the power button.)
    ensure!(machine.wait_stopped(STAYS).is_err(), "it did not stay");
    let last = machine.console().text();
    ensure!(last.trim_end().ends_with("start the machine again."), "its last words are not its fix:\n{last}");
    machine.cut_power()?;
    // What it asked for is enough.
    disk::enlarge(&disk, enough)?;
    let spec = stage.founder(&disk);
    let machine = stage.start(spec)?;
    configured(&*machine)
}

fn damaged(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    let spec = stage.founder(&disk);
    let mut machine = stage.start(spec)?;
    configured(&*machine)?;
    machine.cut_power()?;
    disk::spoil_var(&disk)?;
    let spec = stage.founder(&disk);
    let mut machine = stage.start(spec)?;
    machine.console().wait_for("what is damaged and a fix, on the console", TO_SPEAK, |text| {
        text.split_once("This machine's state (/var) is damaged:")?.1.find("fsck.repair=yes").map(drop)
    })?;
    machine.cut_power()?;
    ensure!(disk::is_spoilt(&disk)?, "the damaged file system was written to");
    Ok(())
}

/// The message of an error that the initrd's kubeboot ended with.
fn error_of(what: What) -> Option<String> {
    match what {
        What::Error { command, message } if command == "etc" => Some(message),
        _ => None,
    }
}
