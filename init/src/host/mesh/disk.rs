//! What the mesh keeps on disk: its key, the generation, and the records.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::certificates::Unix;
use crate::host::files;
use crate::host::root::Root;
use crate::mesh::publish::Operators;
use crate::mesh::record::{MAX_RECORD, Record};
use crate::mesh::store::Store;
use crate::mesh::{MeshKey, publish, stored};
use crate::paths;

/// Ends the name of a record's file; before it stands what the record is about, in 16 hexadecimal digits.
const RECORD: &str = "record";

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

/// The operators, as the records on disk have them while they have force: for who can't ask the mesh. `cluster` and
/// `identity` are the cluster's id and the public half of its identity key.
pub fn operators(root: &Root, cluster: &[u8; 16], identity: &[u8; 32], now: Unix) -> Option<Operators> {
    let mut held = Store::default();
    let records = records(root).unwrap_or_default().into_iter().filter_map(|bytes| Record::parse(&bytes).ok());
    for record in records.filter(|record| record.verify(cluster, identity).is_ok()) {
        // Whatever is refused counts for nothing, as it does in the mesh.
        let _ = held.accept(Arc::new(record));
    }
    publish::operators(&held, now)
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
