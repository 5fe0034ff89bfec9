//! `kubeboot slot`: picks the release to boot, checks it, counts the try, and mounts it as the seat.
//!
//! Runs from the image, never from a release: it is what can leave a bad release behind.

mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use crate::exit::Exit;
use crate::host::console::Console;
use crate::host::report::Report;
use crate::host::root::Root;
use crate::host::{clock, files, mounts, releases, seat};
use crate::paths;
use crate::release::manifest::Verity;
use crate::release::rules::{self, Refusal};
use crate::release::{Envelope, Keys, Version};
use crate::slots::{self, CheckedBy, OnDisk, PassedOver, Record, Seat, SeatFacts, Slot, Transition, Unusable};
use crate::timeline::{Outcome, What};
use crate::words;
use table::Table;

/// The command's arguments: none.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Mounts the release in a file as the seat.
type Mount<'a> = &'a mut dyn FnMut(Seat, &Path, &Verity) -> Result<(), Unusable>;

/// Runs the command.
pub fn run(_: &Args) -> Exit {
    let root = Root::system();
    if mounts::is_mount_point(&root.path(paths::SEAT)) && files::exists(&root.path(paths::SEAT_FACTS)) {
        println!("A release is seated already; nothing was changed.");
        return Exit::Success;
    }
    let start = clock::monotonic();
    match take_seat(&root, &mut |seat, file, verity| mount(&root, seat, file, verity)) {
        Ok(facts) => {
            let words = format!("seat release {} from {}: {}", facts.version, facts.seat, facts.why);
            let took = clock::monotonic().saturating_sub(start);
            Console::open(&root).say(|paint| words::step(Outcome::Done, &words, took, paint));
            Report::open(&root).emit(What::Seat {
                slot: String::from(facts.seat),
                version: facts.version.clone(),
                why: facts.why.clone(),
            });
            Exit::Success
        }
        Err(error) => {
            eprintln!("kubeboot: {error}");
            Report::open(&root).emit(What::Error { command: "slot".to_owned(), message: error });
            Exit::Failure
        }
    }
}

fn take_seat(root: &Root, mount: Mount<'_>) -> Result<SeatFacts, String> {
    files::make_folder(&root.path(paths::RUN), 0o755).map_err(|error| format!("can't make {}: {error}", paths::RUN))?;
    let boot = count_boot(root);
    let keys = releases::keys(root)?;
    let level = releases::os_level(root)?;
    let mut bench = Bench { root, table: Table::load(root, &keys), keys, level, mount };
    let choice = slots::choose(&bench.table.slots);
    let trial = match choice.record {
        Some((slot, Record::Try)) => Some(slot),
        Some((slot, Record::Exhausted)) => {
            // Not being able to write this down stops nothing: the next boot counts as many tries, and says the same.
            bench.record(slot, Transition::Condemn { verdict: format!("not healthy in {} boots", slots::TRIES) });
            None
        }
        None => None,
    };
    let mut passed_over = Vec::new();
    for (seat, why) in choice.order {
        match bench.seat(seat, trial) {
            Ok(envelope) => {
                bench.settle_floor(seat, envelope.manifest.floor);
                let passed_over = passed_over.iter().map(told).collect();
                let facts = facts(seat, why, &envelope, boot, passed_over);
                let text = serde_json::to_vec_pretty(&facts).map_err(|error| error.to_string())?;
                files::write_volatile(&root.path(paths::SEAT_FACTS), &text, 0o644)
                    .map_err(|error| format!("can't write {}: {error}", paths::SEAT_FACTS))?;
                return Ok(facts);
            }
            Err(unusable) => {
                eprintln!("kubeboot: {seat} can't be used: {unusable}");
                bench.settle(seat, &unusable);
                passed_over.push((seat, unusable));
            }
        }
    }
    Err(nothing_seated(&passed_over))
}

/// Everything that one seat after the other is tried with.
struct Bench<'a> {
    root: &'a Root,
    table: Table<'a>,
    keys: Keys,
    /// The OS image's interface level.
    level: u32,
    mount: Mount<'a>,
}

impl Bench<'_> {
    /// Checks a seat's release and mounts it. A try of the slot on `trial` is counted between the two: not before, since
    /// a release that this OS image can't run was not tried, and not after, since a mount may be what a boot dies of.
    fn seat(&mut self, seat: Seat, trial: Option<Slot>) -> Result<Envelope, Unusable> {
        let file = self.file(seat).ok_or(Unusable::NoDigest)?;
        let envelope = releases::open(&file, &self.keys)
            .map_err(|error| Unusable::Read { path: file.display().to_string(), error })?;
        if let Some(refusal) = rules::seat(&envelope.manifest, self.level, self.floor()).into_iter().next() {
            return Err(Unusable::Refused(refusal));
        }
        if let Some(slot) = trial.filter(|slot| seat == Seat::Slot(*slot)) {
            self.table.change(slot, Transition::Try).map_err(Unusable::Uncounted)?;
        }
        (self.mount)(seat, &file, &envelope.manifest.verity)?;
        Ok(envelope)
    }

    /// What a seat that can't be used leaves in the table.
    fn settle(&mut self, seat: Seat, unusable: &Unusable) {
        let Seat::Slot(slot) = seat else { return };
        let file = unusable.doubts_bytes().then(|| self.look_at(slot));
        if let Some(transition) = unusable.fate(file.as_ref()).transition(unusable) {
            self.record(slot, transition);
        }
    }

    /// The factory release is always committed, so seating it is what commits it: it has no trial, and its programs may
    /// change the data's formats from now on. Of a slot, the commit says so.
    fn settle_floor(&mut self, seat: Seat, floor: Version) {
        // One that can't be written down is tried again at the next boot; to seat nothing at all would help nobody.
        if seat == Seat::Factory
            && let Err(error) = self.table.raise_floor(floor)
        {
            eprintln!("kubeboot: {error}");
        }
    }

    fn record(&mut self, slot: Slot, transition: Transition) {
        if let Err(error) = self.table.change(slot, transition) {
            eprintln!("kubeboot: {error}");
        }
    }

    fn floor(&self) -> Option<Version> {
        self.table.slots.floor
    }

    fn look_at(&self, slot: Slot) -> OnDisk {
        match (self.file(Seat::Slot(slot)), self.table.slots.slots.get(&slot)) {
            (Some(file), Some(content)) => releases::compare(&file, &content.digest),
            _ => OnDisk::Gone,
        }
    }

    /// The release's file; none when the table's digest is no file name of ours.
    fn file(&self, seat: Seat) -> Option<PathBuf> {
        let Seat::Slot(slot) = seat else { return Some(self.root.path(paths::FACTORY)) };
        let digest = &self.table.slots.slots.get(&slot)?.digest;
        let hex = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| self.root.path(paths::RELEASES).join(format!("{digest}.release")))
    }
}

/// The counter is for people and tests; a boot does not stop for it.
fn count_boot(root: &Root) -> u64 {
    let path = root.path(paths::BOOTS);
    let before = match files::read_optional(&path) {
        Ok(None) => 0,
        Ok(Some(bytes)) => {
            std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| {
                eprintln!("kubeboot: {} is damaged: expected a number. Counting starts anew", paths::BOOTS);
                0
            })
        }
        Err(error) => {
            eprintln!("kubeboot: can't read {}: {error}", paths::BOOTS);
            0
        }
    };
    let boot: u64 = u64::saturating_add(before, 1);
    if let Err(error) = files::write_atomic(&path, format!("{boot}\n").as_bytes(), 0o644) {
        eprintln!("kubeboot: can't write {}: {error}", paths::BOOTS);
    }
    boot
}

/// The factory release is not read whole first, as a slot's is: it lies in the image's own verity root, and with nothing
/// behind it to go to, a bad block found earlier would end the boot no better.
fn mount(root: &Root, seat: Seat, file: &Path, verity: &Verity) -> Result<(), Unusable> {
    let target = root.path(paths::SEAT);
    let failed = |error: io::Error| Unusable::Mount { path: file.display().to_string(), error };
    files::make_folder(&target, 0o755).map_err(failed)?;
    match seat {
        Seat::Factory => seat::mount_file(file, &target).map_err(failed),
        Seat::Slot(_) => seat::mount_verity(file, verity, &target),
    }
}

fn told((seat, unusable): &(Seat, Unusable)) -> PassedOver {
    PassedOver { seat: *seat, why: unusable.to_string() }
}

fn nothing_seated(passed_over: &[(Seat, Unusable)]) -> String {
    let fix = match passed_over.last() {
        Some((Seat::Factory, Unusable::Refused(Refusal::BelowFloor { floor, .. }))) => format!(
            "boot an image whose factory release is {floor} or later: this one's is too old for the cluster's data, and \
             is not let near it"
        ),
        _ => "boot another image".to_owned(),
    };
    let found: Vec<String> = passed_over.iter().map(|(seat, unusable)| format!("{seat}: {unusable}")).collect();
    format!(
        "no release can be seated, not even the factory one; the machine can't become a node. Fix: {fix} (the data on \
         /var is untouched). Found: {}",
        found.join("; ")
    )
}

fn facts(seat: Seat, why: String, envelope: &Envelope, boot: u64, passed_over: Vec<PassedOver>) -> SeatFacts {
    let manifest = &envelope.manifest;
    SeatFacts {
        seat,
        why,
        version: manifest.version.to_string(),
        kubernetes: manifest.kubernetes.clone(),
        erofs_sha256: manifest.erofs.sha256.to_string(),
        root_hash: manifest.verity.root_hash.to_string(),
        signed_by: envelope.key.to_string(),
        checked_by: if seat == Seat::Factory { CheckedBy::Image } else { CheckedBy::Verity },
        boot,
        passed_over,
    }
}
