//! Reading release files, the keys that may sign them, and what the OS image says of itself.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::root::Root;
use crate::paths;
use crate::release::{self, Envelope, Keys, ReadError};

/// Why a release can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file can't be opened or read.
    #[error("{0}")]
    Io(io::Error),
    /// It is no release that a trusted key signed.
    #[error("{0}")]
    Release(ReadError),
}

/// Opens a release and checks trailer, manifest and signature.
///
/// # Errors
/// [`OpenError`].
pub fn open(path: &Path, keys: &Keys) -> Result<Envelope, OpenError> {
    let mut file = File::open(path).map_err(OpenError::Io)?;
    release::read(&mut file, keys).map_err(|error| match error {
        ReadError::Io(error) => OpenError::Io(error),
        error => OpenError::Release(error),
    })
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
