//! Reading release files, the keys that may sign them, and what the OS image says of itself.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::files;
use super::root::Root;
use crate::paths;
use crate::release::manifest::Digest;
use crate::release::{self, Envelope, Keys, ReadError, Version};
use crate::slots::OnDisk;

/// Most files below [`paths::RELEASES`] that are looked at: two slots, and what torn stagings left.
const FILES: usize = 64;

/// Opens a release and checks trailer, manifest and signature.
///
/// # Errors
/// The file can't be read, or is no release that a trusted key signed.
pub fn open(path: &Path, keys: &Keys) -> Result<Envelope, ReadError> {
    release::read(&mut File::open(path)?, keys)
}

/// Reads a release's file whole and compares its SHA-256 with the one that was staged.
pub fn compare(path: &Path, staged: &str) -> OnDisk {
    let hash = || -> io::Result<Digest> {
        let mut hash = Sha256::new();
        io::copy(&mut File::open(path)?, &mut hash)?;
        Ok(Digest(hash.finalize().into()))
    };
    match hash() {
        Ok(found) if found.to_string() == staged => OnDisk::AsStaged,
        Ok(_) => OnDisk::Changed,
        Err(error) if error.kind() == ErrorKind::NotFound => OnDisk::Gone,
        Err(_) => OnDisk::Unreadable,
    }
}

/// The highest floor of the genuine releases on `/var`, whether or not they were committed: for a machine whose slot
/// table can't be believed, so that nothing says any more which of them was.
///
/// # Errors
/// The folder can't be listed; that it is not there is none.
pub fn highest_floor(root: &Root, keys: &Keys) -> io::Result<Option<Version>> {
    let folder = root.path(paths::RELEASES);
    if !files::exists(&folder) {
        return Ok(None);
    }
    let mut found = files::list(&folder)?;
    found.truncate(FILES);
    Ok(found.iter().filter_map(|path| open(path, keys).ok()).map(|envelope| envelope.manifest.floor).max())
}

/// The keys that the image trusts.
///
/// # Errors
/// In words: no file, no key, a line that is none.
pub fn keys(root: &Root) -> Result<Keys, String> {
    let wrong = |why: String| format!("{}: {why}. Fix: build the image anew", paths::RELEASE_KEYS);
    let text = std::fs::read_to_string(root.path(paths::RELEASE_KEYS)).map_err(|error| wrong(error.to_string()))?;
    Keys::parse(&text).map_err(|error| wrong(error.to_string()))
}

/// What an OS image says of itself.
#[derive(Debug, Deserialize)]
struct OsFile {
    /// Interface level, [`crate::release::manifest::OsRange`].
    level: u32,
    /// Whether people can log in: the debug image.
    #[serde(default)]
    shell: bool,
}

/// The OS image's interface level.
///
/// # Errors
/// In words: no file, or one without `level`.
pub fn os_level(root: &Root) -> Result<u32, String> {
    os(root).map(|os| os.level)
}

/// Whether people can log in on this image. False when it does not say.
pub fn has_shell(root: &Root) -> bool {
    os(root).is_ok_and(|os| os.shell)
}

fn os(root: &Root) -> Result<OsFile, String> {
    let wrong = |why: String| format!("{}: {why}. Fix: build the image anew", paths::OS_RELEASE);
    let text = std::fs::read_to_string(root.path(paths::OS_RELEASE)).map_err(|error| wrong(error.to_string()))?;
    toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))
}
