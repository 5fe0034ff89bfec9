//! What the mesh keeps on disk: its key, the generation, and the records.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::certificates::Unix;
use crate::host::root::Root;
use crate::host::{clock, files};
use crate::mesh::publish::Operators;
use crate::mesh::record::{Kind, MAX_RECORD, Record};
use crate::mesh::store::Store;
use crate::mesh::{MeshKey, publish, stored};
use crate::paths;

/// Ends the name of a record's file; before it stands what the record is about, in 16 hexadecimal digits.
const RECORD: &str = "record";
/// How long what was found on disk about operators stays: clocks are set anew, and then other records have force.
const KEPT: Duration = Duration::from_secs(15);

/// The mesh key on disk.
///
/// # Errors
/// In words: there is none, it can't be read, or it is damaged.
pub fn mesh_key(root: &Root) -> Result<MeshKey, String> {
    match files::read_optional(&root.path(paths::MESH_KEY)) {
        Ok(Some(bytes)) => stored::read_key(&Zeroizing::new(bytes))
            .map_err(|why| format!("the mesh key in {} is damaged: {why}", paths::MESH_KEY)),
        Ok(None) => Err(format!("{} does not exist", paths::MESH_KEY)),
        Err(error) => Err(format!("read {}: {error}", paths::MESH_KEY)),
    }
}

/// Whether the key on disk is older than this one, damaged or missing.
pub fn lacks_mesh_key(root: &Root, key: &MeshKey) -> bool {
    mesh_key(root).map_or(true, |held| held.epoch < key.epoch)
}

/// Replaces the mesh key on disk.
///
/// # Errors
/// In words: it can't be written; the old one then still is there.
pub fn write_mesh_key(root: &Root, key: &MeshKey) -> Result<(), String> {
    let written = files::write_atomic(&root.path(paths::MESH_KEY), &stored::key_bytes(key), 0o600);
    written.map_err(|error| format!("write {}: {error}. The mesh key that was there still is", paths::MESH_KEY))
}

/// Counts a start: the generation from now on, on disk before it is said. One that is missing or damaged begins anew.
///
/// # Errors
/// In words: it can't be read or written.
pub fn next_generation(root: &Root) -> Result<u32, String> {
    let failed = |error: io::Error| format!("count the mesh's starts in {}: {error}", paths::MESH_GENERATION);
    files::make_folder(&root.path(paths::MESH), 0o700).map_err(failed)?;
    let bytes = files::read_optional(&root.path(paths::MESH_GENERATION)).map_err(failed)?;
    let before = bytes.and_then(|bytes| stored::read_generation(&bytes)).unwrap_or_default();
    let generation = before.saturating_add(1);
    write_generation(root, generation)?;
    Ok(generation)
}

/// Writes a generation down.
///
/// # Errors
/// In words.
pub fn write_generation(root: &Root, generation: u32) -> Result<(), String> {
    let text = stored::generation_text(generation);
    let written = files::write_atomic(&root.path(paths::MESH_GENERATION), text.as_bytes(), 0o600);
    written
        .map_err(|error| format!("write {}: {error}. The mesh stays at the generation before", paths::MESH_GENERATION))
}

/// Every record on disk, as it was signed. What is too long for one, or can't be read, is passed over: the mesh has it
/// from others.
///
/// # Errors
/// In words: the folder can't be listed.
pub fn records(root: &Root) -> Result<Vec<Vec<u8>>, String> {
    let files = match files::list(&root.path(paths::MESH)) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("list the mesh's records in {}: {error}", paths::MESH)),
    };
    let is_record = |file: &PathBuf| file.extension().is_some_and(|extension| extension == RECORD);
    let fits = |file: &PathBuf| std::fs::metadata(file).is_ok_and(|found| found.len() <= MAX_RECORD as u64);
    let records = files.iter().filter(|file| is_record(file) && fits(file));
    Ok(records.filter_map(|file| files::read_optional(file).ok().flatten()).collect())
}

/// The operators, as the records on disk have them while they have force: for who can't ask the mesh. Each connection asks,
/// and whoever can connect could keep a node at verifying: one does at a time, and what was found stays for a while.
#[derive(Default)]
pub struct Kept(Mutex<Option<Found>>);

/// What was found.
struct Found {
    files: Vec<Stamp>,
    /// On the monotonic clock.
    at: Duration,
    operators: Option<Operators>,
}

/// A file as it was: one that is replaced has another inode.
type Stamp = (PathBuf, u64, i64, i64);

impl Kept {
    /// Looks, unless the files are those of the last look, which is not long ago. `cluster` and `identity` are the cluster's id
    /// and the public half of its identity key.
    pub fn operators(&self, root: &Root, cluster: &[u8; 16], identity: &[u8; 32]) -> Option<Operators> {
        let (now, unix) = (clock::monotonic(), clock::unix());
        self.of(stamps(root), now, unix, || operators(root, cluster, identity, unix))
    }

    fn of(
        &self,
        files: Vec<Stamp>,
        now: Duration,
        unix: Unix,
        look: impl FnOnce() -> Option<Operators>,
    ) -> Option<Operators> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |found: &Found| {
            found.files == files
                && now.saturating_sub(found.at) < KEPT
                && found.operators.as_ref().is_none_or(|operators| unix < operators.until)
        };
        if !kept.as_ref().is_some_and(holds) {
            *kept = Some(Found { files, at: now, operators: look() });
        }
        kept.as_ref().and_then(|found| found.operators.clone())
    }
}

fn stamps(root: &Root) -> Vec<Stamp> {
    let files = files::list(&root.path(paths::MESH)).unwrap_or_default();
    let stamp = |file: PathBuf| {
        let found = std::fs::metadata(&file).ok()?;
        Some((file, found.ino(), found.mtime(), found.mtime_nsec()))
    };
    let mut stamps: Vec<Stamp> = files.into_iter().filter_map(stamp).collect();
    stamps.sort();
    stamps
}

/// The operators, as the records on disk have them. Verifies each time: see [`Kept`].
pub fn operators(root: &Root, cluster: &[u8; 16], identity: &[u8; 32], now: Unix) -> Option<Operators> {
    let records = records(root).unwrap_or_default();
    let held = about_operators(&records, |record| record.verify(cluster, identity).is_ok());
    publish::operators(&held, now)
}

/// The records that say who is an operator, and whose word counts for nothing. No other is verified.
fn about_operators(records: &[Vec<u8>], verifies: impl Fn(&Record) -> bool) -> Store {
    let mut held = Store::default();
    let records = records.iter().filter_map(|bytes| Record::parse(bytes).ok());
    for record in records.filter(|record| matches!(record.kind, Kind::Removal | Kind::Operators) && verifies(record)) {
        // Whatever is refused counts for nothing, as it does in the mesh.
        let _ = held.accept(Arc::new(record));
    }
    held
}

/// Writes a record down, in place of an older one about the same.
///
/// # Errors
/// In words: the older one then still is there.
pub fn write_record(root: &Root, record: &Record) -> Result<(), String> {
    let path = format!("{}/{:016x}.{RECORD}", paths::MESH, record.about().0);
    let written = files::write_atomic(&root.path(&path), &record.bytes(), 0o600);
    written.map_err(|error| format!("write {path}: {error}. What was there before still is"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::mesh::record::Certificate;
    use crate::mesh::{NodeId, Roll};

    fn stamp(inode: u64) -> Vec<Stamp> {
        vec![(PathBuf::from("a.record"), inode, 1, 0)]
    }

    #[test]
    fn what_was_found_stays_while_the_files_do_and_the_time_has_not_come() {
        let (kept, looks) = (Kept::default(), AtomicUsize::new(0));
        let found = |until| Operators { roll: Roll::default(), until };
        let ask = |inode, seconds, unix, until: Option<Unix>| {
            let look = || {
                looks.fetch_add(1, Ordering::Relaxed);
                until.map(found)
            };
            kept.of(stamp(inode), Duration::from_secs(seconds), unix, look)
        };
        assert_eq!(ask(1, 100, 1000, Some(1010)), Some(found(1010)));
        for _ in 0..100 {
            assert_eq!(ask(1, 109, 1009, None), Some(found(1010)));
        }
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        assert_eq!(ask(1, 110, 1010, Some(2000)), Some(found(2000)), "its force has ended");
        assert_eq!(ask(2, 110, 1010, None), None, "a record was replaced");
        assert_eq!(ask(2, 124, 1024, Some(2000)), None, "that there is none stays too");
        assert_eq!(ask(2, 125, 1025, Some(2000)), Some(found(2000)), "it was long ago");
        assert_eq!(looks.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn no_record_is_verified_that_says_nothing_of_operators() {
        let record = |kind: Kind, subject: &[u8], body: Vec<u8>, expiry| {
            let certificate = Certificate { signer: NodeId([7; 16]), key: [0; 32], not_after: 9, signature: [0; 64] };
            let (cluster, subject, signature) = ([1; 16], subject.to_vec(), [0; 64]);
            Record { kind, cluster, subject, epoch: 1, issued: 1, expiry, body, certificate, signature }.bytes()
        };
        let records = [
            record(Kind::Endpoints, &[], Vec::new(), 9),
            record(Kind::Verdict, &[1], Vec::new(), 9),
            record(Kind::Removal, &[3; 16], Vec::new(), Unix::MAX),
            record(Kind::Operators, &[], Roll::default().bytes(), 9),
        ];
        let asked = RefCell::new(Vec::new());
        let held = about_operators(&records, |record| {
            asked.borrow_mut().push(record.kind);
            true
        });
        assert_eq!((asked.into_inner(), held.len()), (vec![Kind::Removal, Kind::Operators], 2));
    }
}
