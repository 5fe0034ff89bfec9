//! The binaries of a release: built from pinned Go modules (`image/components/`), or taken from a folder of official
//! ones.

mod build;
mod groups;
mod official;
mod versions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

pub use groups::{GROUPS, Group, Place, Program};
pub use versions::{Kubernetes, kubernetes};

use crate::cache::Cache;

/// Everything that goes into a release, on the build machine's disk.
#[derive(Debug)]
pub struct Components {
    /// The version of Kubernetes that is in there.
    pub kubernetes: Kubernetes,
    /// Each file of the release: where it goes, and where it is now. Files that are one on disk become one again.
    pub files: BTreeMap<String, PathBuf>,
    /// Each group's version, as its program reports it.
    pub versions: BTreeMap<String, String>,
}

/// Where binaries come from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The version of Kubernetes; the default one when there is none.
    pub kubernetes: Option<String>,
    /// A folder with official binaries, used instead of our own where it has a group's programs.
    pub from: Option<PathBuf>,
    /// Builds every binary anew beside the cached one, and fails when a byte differs.
    pub rebuild: bool,
}

/// Builds what is missing and collects everything.
///
/// # Errors
/// A build failed, a program reports another version than was pinned, or `from` has only a part of a group.
pub fn components(cache: &Cache, source: &Source) -> Result<Components> {
    let kubernetes = versions::chosen(source)?;
    let mut found = Components { kubernetes, files: BTreeMap::new(), versions: BTreeMap::new() };
    for group in GROUPS {
        let (folder, expected) = match official::folder(source.from.as_deref(), group)? {
            Some(folder) => (folder, None),
            None => {
                let pinned = build::pinned_version(group, &found.kubernetes)?;
                (build::group(cache, group, &found.kubernetes, &pinned, source.rebuild)?, Some(pinned))
            }
        };
        let reported = reported_version(group, &folder)?;
        if let Some(expected) = expected.filter(|expected| *expected != reported) {
            bail!("{} reports version {reported}. Expected {expected}, as its go.mod pins", group.name);
        }
        found.versions.insert(group.name.to_owned(), reported);
        for program in group.programs {
            for (place, file) in program.files(&folder, source.from.as_deref()) {
                found.files.insert(place, file);
            }
        }
    }
    let kubernetes = &found.versions["kube"];
    if *kubernetes != found.kubernetes.version {
        bail!("the binaries report Kubernetes {kubernetes}. Expected {}", found.kubernetes.version);
    }
    Ok(found)
}

/// A folder with Kubernetes' six programs of the default version as separate binaries, for [`Source::from`]: built from
/// the same pinned modules as our multi-call binary, or found in the cache.
///
/// # Errors
/// A build failed.
pub fn separate_kubernetes(cache: &Cache) -> Result<PathBuf> {
    let (group, kubernetes) = (&groups::SEPARATE_KUBERNETES, kubernetes(None)?);
    build::group(cache, group, &kubernetes, &build::pinned_version(group, &kubernetes)?, false)
}

/// Runs the tests of our own Go code. How many groups have any.
///
/// # Errors
/// A test failed; what it printed is in the message.
pub fn test_go() -> Result<usize> {
    build::test(GROUPS)
}

/// Asks a group's program for its version.
fn reported_version(group: &Group, folder: &Path) -> Result<String> {
    let (program, arguments) = group.version_command;
    // The official ones of a multi-call binary are asked by their own name.
    let (name, arguments) = match arguments.split_first() {
        Some((first, rest)) if folder.join(first).is_file() => (*first, rest),
        _ => (program, arguments),
    };
    program_version(&folder.join(name), arguments)
}

/// Asks a program for its version.
fn program_version(path: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(path)
        .args(arguments)
        .env_clear()
        .output()
        .with_context(|| format!("Cannot ask {} for its version", path.display()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    versions::first_version(&text)
        .with_context(|| format!("{} {} names no version: {text:?}", path.display(), arguments.join(" ")))
}
