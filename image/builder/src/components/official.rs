//! Official binaries instead of our own.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::groups::{GROUPS, Group};

/// The folder of official binaries if it has this group's: then all of its programs, each under its own name.
pub(super) fn folder(from: Option<&Path>, group: &Group) -> Result<Option<PathBuf>> {
    let Some(from) = from else { return Ok(None) };
    let names = names(group);
    let missing: Vec<&str> = names.iter().copied().filter(|name| !from.join(name).is_file()).collect();
    if missing.len() == names.len() {
        return Ok(None);
    }
    if !missing.is_empty() {
        bail!("{} has only a part of {}: {} missing", from.display(), group.name, missing.join(", "));
    }
    Ok(Some(from.to_path_buf()))
}

/// Names of a group's official programs: a multi-call binary of Kubernetes is ours alone.
fn names(group: &Group) -> Vec<&'static str> {
    group
        .programs
        .iter()
        .flat_map(|program| std::iter::once(program.name).chain(program.links.iter().copied()))
        .filter(|name| *name != "kube")
        .collect()
}

/// The version of the Kubernetes in `from`, if there is one.
pub(super) fn kubernetes_version(from: Option<&Path>) -> Result<Option<String>> {
    let kube = GROUPS.iter().find(|group| group.name == "kube");
    match kube.map(|group| folder(from, group)) {
        Some(Ok(Some(folder))) => super::program_version(&folder.join("kubelet"), &["--version"]).map(Some),
        Some(Err(error)) => Err(error),
        _ => Ok(None),
    }
}
