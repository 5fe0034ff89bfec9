//! `kubeboot slot`: picks the release to boot, counts the try, checks its signature, and mounts it as the seat.
//!
//! Runs from the image, never from a release: it is what can leave a bad release behind.

use std::io;
use std::path::PathBuf;

use crate::exit::Exit;
use crate::host::console::Console;
use crate::host::report::Report;
use crate::host::root::Root;
use crate::host::{clock, files, mounts, releases, seat};
use crate::paths;
use crate::release::{Envelope, Keys, rules};
use crate::slots::{self, CheckedBy, Content, PassedOver, Record, Seat, SeatFacts, Slot, Slots, Transition};
use crate::timeline::{Outcome, What};
use crate::words;

/// The command's arguments: none.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Why a seat could not be used.
enum Unusable {
    /// The release itself is to blame: it is not tried again.
    Release(String),
    /// Something else is (a device, memory): the next boot may try again.
    Machine(String),
}

impl Unusable {
    fn why(&self) -> &str {
        match self {
            Unusable::Release(why) | Unusable::Machine(why) => why,
        }
    }
}

/// Runs the command.
pub fn run(_: &Args) -> Exit {
    let root = Root::system();
    if mounts::is_mount_point(&root.path(paths::SEAT)) && files::exists(&root.path(paths::SEAT_FACTS)) {
        println!("A release is seated already; nothing was changed.");
        return Exit::Success;
    }
    let start = clock::monotonic();
    match take_seat(&root) {
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

fn take_seat(root: &Root) -> Result<SeatFacts, String> {
    files::make_folder(&root.path(paths::RUN), 0o755).map_err(|error| format!("can't make {}: {error}", paths::RUN))?;
    let boot = count_boot(root);
    let mut slots = read_table(root);
    let choice = slots::choose(&slots);
    if let Some((slot, record)) = choice.record {
        let transition = match record {
            Record::Try => Transition::Try,
            Record::Exhausted => Transition::Condemn { verdict: format!("not healthy in {} boots", slots::TRIES) },
        };
        // A try that can't be counted must not be made: it could be made for ever.
        change(root, &mut slots, slot, transition)?;
    }
    let keys = releases::keys(root)?;
    let level = releases::os_level(root)?;
    let mut passed_over = Vec::new();
    for (seat, why) in choice.order {
        match mount(root, seat, &slots, &keys, level) {
            Ok(envelope) => {
                let facts = facts(seat, why, &envelope, boot, passed_over);
                let text = serde_json::to_vec_pretty(&facts).map_err(|error| error.to_string())?;
                files::write_volatile(&root.path(paths::SEAT_FACTS), &text, 0o644)
                    .map_err(|error| format!("can't write {}: {error}", paths::SEAT_FACTS))?;
                return Ok(facts);
            }
            Err(unusable) => {
                eprintln!("kubeboot: {seat} can't be used: {}", unusable.why());
                if let (Seat::Slot(slot), Unusable::Release(verdict)) = (seat, &unusable)
                    && let Err(error) = change(root, &mut slots, slot, Transition::Condemn { verdict: verdict.clone() })
                {
                    eprintln!("kubeboot: {error}");
                }
                passed_over.push(PassedOver { seat, why: unusable.why().to_owned() });
            }
        }
    }
    Err(format!(
        "no release can be seated, not even the factory one; the machine can't become a node. Fix: boot another image \
         (the disk's state is untouched). Found: {}",
        passed_over.iter().map(|over| format!("{}: {}", over.seat, over.why)).collect::<Vec<_>>().join("; ")
    ))
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

fn read_table(root: &Root) -> Slots {
    let bytes = match files::read_optional(&root.path(paths::SLOTS)) {
        Ok(None) => return Slots::default(),
        Ok(Some(bytes)) => bytes,
        Err(error) => {
            eprintln!("kubeboot: can't read {}: {error}. The factory release is used", paths::SLOTS);
            return Slots::default();
        }
    };
    slots::read(&bytes).unwrap_or_else(|damaged| {
        eprintln!("kubeboot: {damaged}. The factory release is used. Fix: kubeboot upgrade writes a new table");
        Slots::default()
    })
}

fn change(root: &Root, slots: &mut Slots, slot: Slot, transition: Transition) -> Result<(), String> {
    slots.apply(slot, transition).map_err(|refused| refused.to_string())?;
    files::write_atomic(&root.path(paths::SLOTS), &slots::write(slots), 0o644)
        .map_err(|error| format!("can't write {}: {error}. Fix: check the disk that holds /var", paths::SLOTS))
}

fn mount(root: &Root, seat: Seat, slots: &Slots, keys: &Keys, os: u32) -> Result<Envelope, Unusable> {
    let path = match seat {
        Seat::Factory => root.path(paths::FACTORY),
        Seat::Slot(slot) => slots
            .slots
            .get(&slot)
            .and_then(|content| file(root, content))
            .ok_or_else(|| Unusable::Release("its digest in the slot table is none".to_owned()))?,
    };
    let envelope = releases::open(&path, keys).map_err(|error| match error {
        releases::OpenError::Io(error) if error.kind() != io::ErrorKind::NotFound => {
            Unusable::Machine(format!("can't read {}: {error}", path.display()))
        }
        error => Unusable::Release(format!("{}: {error}", path.display())),
    })?;
    if let Some(refusal) = rules::seat(&envelope.manifest, os).first() {
        return Err(Unusable::Release(refusal.to_string()));
    }
    let target = root.path(paths::SEAT);
    let mounted = files::make_folder(&target, 0o755).and_then(|()| match seat {
        Seat::Factory => seat::mount_file(&path, &target),
        Seat::Slot(_) => seat::mount_verity(&path, &envelope.manifest.verity, &target),
    });
    mounted.map_err(|error| Unusable::Machine(format!("can't mount {}: {error}", path.display())))?;
    Ok(envelope)
}

/// The release's file; none when the table's digest is no file name of ours.
fn file(root: &Root, content: &Content) -> Option<PathBuf> {
    let hex = content.digest.len() == 64 && content.digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| root.path(paths::RELEASES).join(format!("{}.release", content.digest)))
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
