//! What was built before: folders under `${XDG_CACHE_HOME:-~/.cache}/kubeboot`, each named by a hash of everything that
//! went into it. A folder appears whole or not at all (made under a temporary name, renamed), carries a stamp of its
//! contents, and is made anew when the stamp says that it was damaged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The stamp's name in an entry. An entry without one was not finished. Its time is that of the entry's last use.
const STAMP: &str = ".stamp.json";
/// How many entries of a kind are kept, whatever their age.
const KEPT: usize = 8;
/// An entry that was used this recently is kept in any case: a machine may be booting from it.
const RECENT: Duration = Duration::from_secs(2 * 60 * 60);

/// The cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// How an entry is checked before it is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Every file's SHA-256. For what is signed or shipped.
    Content,
    /// Every file's name, length and mode. For trees of many gigabytes that only serve to build.
    Listing,
}

/// What one file in an entry was when it was made. A symbolic link's digest is that of its target's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    length: u64,
    mode: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

type Stamp = BTreeMap<String, FileStamp>;

impl Cache {
    /// The user's cache.
    ///
    /// # Errors
    /// Neither `XDG_CACHE_HOME` nor `HOME` is set, or the folder cannot be made.
    pub fn open() -> Result<Self> {
        let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
            (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
            (_, Some(home)) if !home.is_empty() => PathBuf::from(home).join(".cache"),
            _ => anyhow::bail!("Cannot choose a cache folder: neither XDG_CACHE_HOME nor HOME is set"),
        };
        Self::at(base.join("kubeboot"))
    }

    /// A cache in `root`, which is made where it is missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn at(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).with_context(|| format!("Cannot make the cache folder {}", root.display()))?;
        Ok(Self { root })
    }

    /// The cache folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder `<cache>/<kind>/<key>`, made by `make` where it is missing or damaged. `make` gets an empty folder
    /// to fill. Two processes that want the same entry at once: the second one waits, and uses the first one's.
    ///
    /// # Errors
    /// `make` failed (its error, and nothing is kept), or the cache cannot be read or written.
    pub fn entry(
        &self,
        kind: &str,
        key: &Key,
        check: Check,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let parent = self.root.join(kind);
        let entry = parent.join(key.as_str());
        fs::create_dir_all(&parent).with_context(|| format!("Cannot make the cache folder {}", parent.display()))?;
        let lock_path = parent.join(format!("{}.lock", key.as_str()));
        let lock = File::create(&lock_path).with_context(|| format!("Cannot make the lock {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("Cannot lock {}", lock_path.display()))?;
        match damage(&entry, check) {
            None => {
                // When this fails, the entry only looks older than it is.
                let _ = File::options()
                    .append(true)
                    .open(entry.join(STAMP))
                    .and_then(|stamp| stamp.set_modified(SystemTime::now()));
                return Ok(entry);
            }
            Some(Damage::Missing) => {}
            Some(Damage::Found(what)) => eprintln!("Making {kind} {} again: {what}", key.as_str()),
        }
        let temporary = parent.join(format!("{}.tmp", key.as_str()));
        remove(&temporary)?;
        fs::create_dir(&temporary).with_context(|| format!("Cannot make {}", temporary.display()))?;
        make(&temporary)?;
        let stamp = serde_json::to_vec_pretty(&stamp(&temporary, check)?).context("Cannot write a cache stamp")?;
        fs::write(temporary.join(STAMP), stamp)
            .with_context(|| format!("Cannot write {}", temporary.join(STAMP).display()))?;
        remove(&entry)?;
        fs::rename(&temporary, &entry)
            .with_context(|| format!("Cannot rename {} to {}", temporary.display(), entry.display()))?;
        prune(&parent, SystemTime::now())?;
        Ok(entry)
    }
}

/// Removes entries of a kind that were not used lately, but the [`KEPT`] youngest, and what failed builds left.
fn prune(parent: &Path, now: SystemTime) -> Result<()> {
    let (mut entries, mut left_over) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(parent).with_context(|| format!("Cannot list {}", parent.display()))? {
        let path = entry.with_context(|| format!("Cannot list {}", parent.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            left_over.push(path);
        } else if let Ok(used) = fs::metadata(path.join(STAMP)).and_then(|stamp| stamp.modified()) {
            entries.push((used, path));
        }
    }
    entries.sort();
    let spare = entries.len().saturating_sub(KEPT);
    let old =
        entries.into_iter().take(spare).filter(|(used, _)| now.duration_since(*used).is_ok_and(|age| age > RECENT));
    for path in old.map(|(_, path)| path).chain(left_over) {
        let lock_path = path.with_extension("lock");
        let lock = File::create(&lock_path).with_context(|| format!("Cannot make the lock {}", lock_path.display()))?;
        // Whoever holds it makes the entry, or is about to use it.
        if lock.try_lock().is_ok() {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Why an entry cannot be used.
enum Damage {
    Missing,
    Found(String),
}

/// What is wrong with an entry; nothing when it is what its stamp says.
fn damage(entry: &Path, check: Check) -> Option<Damage> {
    if !entry.exists() {
        return Some(Damage::Missing);
    }
    let Ok(text) = fs::read(entry.join(STAMP)) else {
        return Some(Damage::Found("it was not finished".into()));
    };
    let Ok(recorded) = serde_json::from_slice::<Stamp>(&text) else {
        return Some(Damage::Found("its stamp is damaged".into()));
    };
    let found = match stamp(entry, check) {
        Ok(found) => found,
        Err(error) => return Some(Damage::Found(format!("{error:#}"))),
    };
    if let Some((path, _)) = recorded.iter().find(|(path, was)| found.get(*path) != Some(was)) {
        return Some(Damage::Found(format!("{path} is missing or was changed")));
    }
    found
        .keys()
        .find(|path| !recorded.contains_key(*path))
        .map(|path| Damage::Found(format!("{path} does not belong there")))
}

/// The stamp of what is in `folder` now.
fn stamp(folder: &Path, check: Check) -> Result<Stamp> {
    let mut stamp = Stamp::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(directory) = left.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("Cannot list {}", directory.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("Cannot list {}", directory.display()))?;
            let path = entry.path();
            let kind = entry.file_type().with_context(|| format!("Cannot examine {}", path.display()))?;
            if kind.is_dir() {
                left.push(path);
            } else if path != folder.join(STAMP) {
                let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
                stamp.insert(name, file_stamp(&path, check)?);
            }
        }
    }
    Ok(stamp)
}

fn file_stamp(path: &Path, check: Check) -> Result<FileStamp> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("Cannot examine {}", path.display()))?;
    let sha256 = match check {
        Check::Listing => None,
        Check::Content if metadata.is_symlink() => {
            let target = fs::read_link(path).with_context(|| format!("Cannot read the link {}", path.display()))?;
            Some(hex(&Sha256::digest(target.as_os_str().as_bytes())))
        }
        Check::Content => Some(sha256_file(path)?),
    };
    Ok(FileStamp { length: metadata.len(), mode: metadata.permissions().mode(), sha256 })
}

/// Removes a folder of the cache, if it is there.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("Cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The SHA-256 of a file, in lower-case hexadecimal digits.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("Cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("Cannot read {}", path.display()))?;
        if read == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}

/// Fails when a file that was built again differs from the first.
///
/// # Errors
/// They differ, or one can't be read.
pub fn ensure_same(first: &Path, again: &Path) -> Result<()> {
    let (one, other) = (sha256_file(first)?, sha256_file(again)?);
    anyhow::ensure!(
        one == other,
        "A build from nothing gave another file: SHA-256 {one} of {}, but {other} of {}",
        first.display(),
        again.display()
    );
    Ok(())
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of a cache entry: a hash of labelled inputs. Labels and lengths are hashed too, so no two different lists
/// of inputs have one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Starts a key; `purpose` should change whenever the meaning of the inputs does.
    #[must_use]
    pub fn of(purpose: &str) -> KeyBuilder {
        KeyBuilder(Sha256::new()).input("purpose", purpose.as_bytes())
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key that still takes inputs.
#[derive(Debug, Clone)]
pub struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// Adds an input.
    #[must_use]
    pub fn input(mut self, label: &str, value: impl AsRef<[u8]>) -> Self {
        for part in [label.as_bytes(), value.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds a file, or every file below a folder, by path below it, contents and whether it may be executed.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn files(mut self, label: &str, path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return self.file(label, path);
        }
        let mut names: Vec<String> = stamp(path, Check::Listing)?.into_keys().collect();
        names.sort();
        for name in names {
            self = self.file(&format!("{label}/{name}"), &path.join(&name))?;
        }
        Ok(self)
    }

    fn file(self, label: &str, path: &Path) -> Result<Self> {
        let found = file_stamp(path, Check::Content)?;
        let executable = if found.mode & 0o111 == 0 { "-" } else { "x" };
        Ok(self.input(label, found.sha256.unwrap_or_default()).input(label, executable))
    }

    /// The finished key.
    #[must_use]
    pub fn finish(self) -> Key {
        Key(hex(&self.0.finalize()[..16]))
    }
}

#[cfg(test)]
mod tests;
