//! Whole runs below a temporary root, with a mount that does as it is told.

use std::io::ErrorKind;

use sha2::{Digest as _, Sha256};

use super::*;
use crate::release::sample;
use crate::slots::{Content, Slots, State};

struct Machine {
    _folder: tempfile::TempDir,
    root: Root,
    slots: Slots,
}

/// What was mounted, and what the mount says to it.
type Answer = fn(Seat, &Path) -> Result<(), Unusable>;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

/// A release for OS images of level 1 to 2.
fn release(kubernetes: &str, floor: &str) -> Vec<u8> {
    let version = version(&format!("{kubernetes}-1"));
    let (minimum, floor) = (version, floor.parse().unwrap());
    let manifest = sample::manifest();
    sample::release(&crate::release::Manifest {
        kubernetes: kubernetes.into(),
        build: 1,
        version,
        minimum,
        floor,
        ..manifest
    })
}

fn mounted(_: Seat, _: &Path) -> Result<(), Unusable> {
    Ok(())
}

/// What the kernel says to a block that does not verify, and to a disk that does not answer.
fn eio_in_slots(seat: Seat, path: &Path) -> Result<(), Unusable> {
    match seat {
        Seat::Factory => Ok(()),
        Seat::Slot(_) => Err(Unusable::Block {
            path: path.display().to_string(),
            offset: 4096,
            length: 8192,
            error: io::Error::from_raw_os_error(nix::libc::EIO),
        }),
    }
}

impl Machine {
    /// An image of level 1 with a factory release.
    fn new(factory: &[u8]) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for path in ["/run", "/usr", "/usr/lib", "/usr/lib/kubeboot", "/var", "/var/lib", paths::STATE, paths::RELEASES]
        {
            files::make_folder(&root.path(path), 0o755).unwrap();
        }
        let machine = Machine { _folder: folder, root, slots: Slots::default() };
        machine.write(paths::RELEASE_KEYS, sample::key_file().as_bytes());
        machine.write(paths::OS_RELEASE, b"level = 1\n");
        machine.write(paths::FACTORY, factory);
        machine
    }

    fn write(&self, path: &str, contents: &[u8]) {
        files::write_atomic(&self.root.path(path), contents, 0o644).unwrap();
    }

    /// Puts a release on /var and into the table.
    fn hold(mut self, slot: Slot, state: State, release: &[u8]) -> Machine {
        let digest: String = Sha256::digest(release).iter().map(|byte| format!("{byte:02x}")).collect();
        self.write(&format!("{}/{digest}.release", paths::RELEASES), release);
        if state == State::Committed {
            self.slots.current = Some(slot);
        }
        self.slots.slots.insert(slot, Content { digest, version: "in words".into(), state });
        self.write(paths::SLOTS, &slots::write(&self.slots));
        self
    }

    fn floor(mut self, floor: &str) -> Machine {
        self.slots.floor = Some(version(floor));
        self.write(paths::SLOTS, &slots::write(&self.slots));
        self
    }

    fn file(&self, slot: Slot) -> PathBuf {
        self.root.path(format!("{}/{}.release", paths::RELEASES, self.slots.slots[&slot].digest))
    }

    fn flip_a_bit(&self, slot: Slot) {
        let mut bytes = files::read_optional(&self.file(slot)).unwrap().unwrap();
        bytes[100] ^= 1;
        files::write_atomic(&self.file(slot), &bytes, 0o644).unwrap();
    }

    /// Has every write of the table fail, as a full disk does.
    fn fill_the_disk(&self) {
        let temporary = paths::temporary_beside(&self.root.path(paths::SLOTS)).unwrap();
        files::make_folder(&temporary, 0o755).unwrap();
    }

    fn table(&self) -> Slots {
        slots::read(&files::read_optional(&self.root.path(paths::SLOTS)).unwrap().unwrap()).unwrap()
    }

    /// One boot, and what was mounted in it.
    fn boot(&self, answer: Answer) -> (Result<SeatFacts, String>, Vec<Seat>) {
        let mut asked = Vec::new();
        let facts = take_seat(&self.root, &mut |seat, path, _| {
            asked.push(seat);
            answer(seat, path)
        });
        (facts, asked)
    }
}

const A: Seat = Seat::Slot(Slot::A);
const B: Seat = Seat::Slot(Slot::B);

#[test]
fn the_factory_release_sets_the_floor_once() {
    let machine = Machine::new(&release("1.37.2", "1.37.0-0"));
    let facts = machine.boot(mounted).0.unwrap();
    assert_eq!((facts.seat, facts.boot, facts.checked_by), (Seat::Factory, 1, CheckedBy::Image));
    assert_eq!(machine.table().floor, Some(version("1.37.0-0")));
    // With the table's writes failing, a second boot still has nothing to say: it writes none.
    machine.fill_the_disk();
    assert_eq!(machine.boot(mounted).0.unwrap().boot, 2);
}

#[test]
fn the_committed_release_is_seated_and_leaves_the_table_alone() {
    let machine =
        Machine::new(&release("1.36.3", "1.36.0-0")).hold(Slot::B, State::Committed, &release("1.37.2", "1.37.0-0"));
    let (facts, asked) = machine.boot(mounted);
    let facts = facts.unwrap();
    assert_eq!((facts.seat, facts.version.as_str(), facts.checked_by), (B, "1.37.2-1", CheckedBy::Verity));
    assert_eq!((asked, machine.table()), (vec![B], machine.slots.clone()));
    let kept = files::read_optional(&machine.root.path(paths::SEAT_FACTS)).unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<SeatFacts>(&kept).unwrap(), facts);
}

#[test]
fn a_copy_that_rotted_is_discarded_without_a_verdict_and_the_other_slot_is_seated() {
    let machine = Machine::new(&release("1.37.1", "1.37.0-0"))
        .hold(Slot::B, State::Committed, &release("1.37.1", "1.37.0-0"))
        .hold(Slot::A, State::Committed, &release("1.37.2", "1.37.0-0"));
    machine.flip_a_bit(Slot::A);
    fn only_b(seat: Seat, path: &Path) -> Result<(), Unusable> {
        if seat == B { Ok(()) } else { eio_in_slots(seat, path) }
    }
    let facts = machine.boot(only_b).0.unwrap();
    assert_eq!(facts.seat, B);
    assert!(facts.passed_over[0].why.contains("from byte 4096 of 8192 on"), "{:?}", facts.passed_over);
    let table = machine.table();
    assert!(matches!(table.state(Slot::A), Some(State::Bad { verdict }) if verdict.contains("stage the release anew")));
    assert_eq!((table.current, table.verdicts.len()), (Some(Slot::B), 0));
    assert_eq!(machine.boot(only_b).1, [B], "it is not tried again");
}

#[test]
fn a_disk_that_does_not_answer_once_takes_no_release_away() {
    let committed = release("1.37.2", "1.37.0-0");
    let machine = Machine::new(&committed).hold(Slot::A, State::Committed, &committed);
    let (facts, asked) = machine.boot(eio_in_slots);
    assert_eq!((facts.unwrap().seat, asked), (Seat::Factory, vec![A, Seat::Factory]));
    assert_eq!(machine.table().state(Slot::A), Some(&State::Committed));
    assert_eq!(machine.boot(mounted).0.unwrap().seat, A);
}

#[test]
fn a_file_that_is_gone_is_discarded() {
    let machine = Machine::new(&release("1.37.2", "1.37.0-0")).hold(
        Slot::A,
        State::Trial { tries: 0 },
        &release("1.37.3", "1.37.0-0"),
    );
    files::remove(&machine.file(Slot::A)).unwrap();
    assert_eq!(machine.boot(mounted).1, [Seat::Factory]);
    let table = machine.table();
    assert!(matches!(table.state(Slot::A), Some(State::Bad { .. })) && table.verdicts.is_empty(), "{table:?}");
}

/// An older image, after a rollback: the releases are good, and are there when the newer image is back.
#[test]
fn what_only_this_image_cant_run_is_passed_over_and_keeps_its_tries() {
    let newer = release("1.37.3", "1.37.0-0");
    let setup = || {
        Machine::new(&newer).hold(Slot::A, State::Trial { tries: 1 }, &newer).hold(Slot::B, State::Committed, &newer)
    };
    let other_level = setup();
    other_level.write(paths::FACTORY, &release_for_level("1.37.3", 3));
    other_level.write(paths::OS_RELEASE, b"level = 3\n");
    let other_key = setup();
    let stranger = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    other_key.write(paths::RELEASE_KEYS, stranger.pk.to_base64().as_bytes());
    for (machine, reason) in [(other_level, "needs an OS image of level 1 to 2"), (other_key, "none of the keys")] {
        let (_, asked) = machine.boot(mounted);
        assert!(!asked.contains(&A) && !asked.contains(&B), "{asked:?}");
        assert_eq!(machine.table().slots, machine.slots.slots, "{reason}");
        let error = machine.boot(|seat, path| {
            Err(Unusable::Mount { path: format!("{seat} {}", path.display()), error: ErrorKind::Other.into() })
        });
        assert!(error.0.unwrap_err().contains(reason), "{reason}");
    }
}

fn release_for_level(kubernetes: &str, level: u32) -> Vec<u8> {
    let version = version(&format!("{kubernetes}-1"));
    let os = crate::release::manifest::OsRange { min: level, max: level };
    sample::release(&crate::release::Manifest {
        kubernetes: kubernetes.into(),
        build: 1,
        version,
        os,
        ..sample::manifest()
    })
}

#[test]
fn signed_nonsense_is_condemned() {
    let nonsense = sample::file(b"{}", &sample::sign(0, b"{}"));
    let machine = Machine::new(&release("1.37.2", "1.37.0-0")).hold(Slot::A, State::Trial { tries: 0 }, &nonsense);
    assert_eq!(machine.boot(mounted).1, [Seat::Factory]);
    let table = machine.table();
    assert!(table.verdicts.contains_key(&machine.slots.slots[&Slot::A].digest), "{table:?}");
}

#[test]
fn a_slot_below_the_floor_is_passed_over() {
    let machine = Machine::new(&release("1.37.0", "1.37.0-0"))
        .hold(Slot::A, State::Committed, &release("1.36.3", "1.36.0-0"))
        .floor("1.37.0-0");
    let facts = machine.boot(mounted).0.unwrap();
    assert_eq!(facts.seat, Seat::Factory);
    assert!(facts.passed_over[0].why.contains("release 1.36.3-1 is below 1.37.0-0"), "{:?}", facts.passed_over);
    assert_eq!(machine.table().slots, machine.slots.slots);
}

#[test]
fn a_factory_release_below_the_floor_is_not_let_near_newer_data() {
    let machine = Machine::new(&release("1.36.3", "1.36.0-0")).floor("1.37.0-0");
    let (facts, asked) = machine.boot(mounted);
    assert_eq!(asked, []);
    let error = facts.unwrap_err();
    assert!(error.contains("Fix: boot an image whose factory release is 1.37.0-0 or later"), "{error}");
    assert!(!files::exists(&machine.root.path(paths::SEAT_FACTS)));
}

#[test]
fn a_try_is_counted_before_the_trial_is_mounted() {
    let trial = release("1.37.3", "1.37.0-0");
    let machine = Machine::new(&trial).hold(Slot::A, State::Trial { tries: 0 }, &trial);
    // As a boot that the mount kills leaves it: no word after the mount.
    let (facts, asked) = machine.boot(|seat, path| match seat {
        Seat::Factory => Ok(()),
        Seat::Slot(_) => Err(Unusable::Mount { path: path.display().to_string(), error: ErrorKind::Other.into() }),
    });
    assert_eq!((facts.unwrap().seat, asked[0]), (Seat::Factory, A));
    assert_eq!(machine.table().state(Slot::A), Some(&State::Trial { tries: 1 }));
}

#[test]
fn a_trial_that_cant_be_counted_is_not_made_and_the_committed_release_is() {
    let machine = Machine::new(&release("1.37.1", "1.37.0-0"))
        .hold(Slot::A, State::Committed, &release("1.37.2", "1.37.0-0"))
        .hold(Slot::B, State::Trial { tries: 0 }, &release("1.37.3", "1.37.0-0"))
        .floor("1.37.0-0");
    machine.fill_the_disk();
    let (facts, asked) = machine.boot(mounted);
    let facts = facts.unwrap();
    assert_eq!((facts.seat, asked), (A, vec![A]));
    assert_eq!(facts.passed_over[0].seat, B);
    assert!(facts.passed_over[0].why.contains("its try can't be counted: can't write"), "{:?}", facts.passed_over);
    assert_eq!(machine.table(), machine.slots);
}

#[test]
fn tries_used_up_end_at_the_committed_release_even_on_a_full_disk() {
    let machine = Machine::new(&release("1.37.1", "1.37.0-0"))
        .hold(Slot::A, State::Committed, &release("1.37.2", "1.37.0-0"))
        .hold(Slot::B, State::Trial { tries: slots::TRIES }, &release("1.37.3", "1.37.0-0"))
        .floor("1.37.0-0");
    machine.fill_the_disk();
    assert_eq!(machine.boot(mounted).1, [A]);
}

#[test]
fn a_table_that_cant_be_believed_is_left_alone_and_the_factory_held_to_what_is_on_var() {
    for wrong in [&b"{\"format\": 1"[..], b"{\"format\": 7, \"other\": true}"] {
        let old = Machine::new(&release("1.36.3", "1.36.0-0"));
        old.write(&format!("{}/{}.release", paths::RELEASES, "a".repeat(64)), &release("1.37.2", "1.37.0-0"));
        old.write(paths::SLOTS, wrong);
        let (facts, asked) = old.boot(mounted);
        assert!(facts.unwrap_err().contains("1.37.0-0") && asked.is_empty());
        let same = Machine::new(&release("1.36.3", "1.36.0-0"));
        same.write(&format!("{}/{}.release", paths::RELEASES, "a".repeat(64)), &release("1.36.4", "1.36.0-0"));
        same.write(paths::SLOTS, wrong);
        assert_eq!(same.boot(mounted).0.unwrap().seat, Seat::Factory);
        assert_eq!(files::read_optional(&same.root.path(paths::SLOTS)).unwrap().unwrap(), wrong);
    }
}
