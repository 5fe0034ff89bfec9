//! The file of clusters that a person has spoken with: `$XDG_CONFIG_HOME/kubeboot/known_clusters`, `~/.config` where that is
//! not set.

use std::path::{Path, PathBuf};

use crate::host::files;
use crate::operators::known::Known;
use crate::token::SECRET;

/// Where it is.
///
/// # Errors
/// Neither variable that says it is set, in words.
pub fn path() -> Result<PathBuf, String> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let folder = folder.ok_or("neither XDG_CONFIG_HOME nor HOME is set, so known clusters can't be kept")?;
    Ok(folder.join("kubeboot/known_clusters"))
}

/// What it holds; nothing where there is none.
///
/// # Errors
/// It can't be read, or is damaged; in words.
pub fn load(path: &Path) -> Result<Known, String> {
    let failed = |why: String| format!("{}: {why}", path.display());
    let bytes = files::read_optional(path).map_err(|error| failed(error.to_string()))?.unwrap_or_default();
    Known::parse(&String::from_utf8_lossy(&bytes)).map_err(failed)
}

/// Remembers who proved to be at an address. True if that is new.
///
/// # Errors
/// It can't be written, in words.
pub fn learn(path: &Path, host: &str, cluster: &str, fingerprint: [u8; SECRET]) -> Result<bool, String> {
    let mut known = load(path)?;
    if !known.learn(host, cluster, fingerprint) {
        return Ok(false);
    }
    let failed = |error: std::io::Error| format!("{} can't be written: {error}", path.display());
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    files::write_atomic(path, known.text().as_bytes(), 0o600).map_err(failed)?;
    Ok(true)
}
