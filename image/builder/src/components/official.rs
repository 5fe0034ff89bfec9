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

#[cfg(test)]
mod tests {
    use super::*;

    const KUBE: [&str; 6] =
        ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];

    fn group(name: &str) -> &'static Group {
        GROUPS.iter().find(|group| group.name == name).unwrap()
    }

    /// A folder with those programs. Each is bash, which says a version too; a program that is written right before it
    /// is run can be "busy".
    fn official(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::os::unix::fs::symlink("/bin/bash", folder.path().join(name)).unwrap();
        }
        folder
    }

    #[test]
    fn a_whole_group_is_taken_and_an_absent_one_is_built() {
        let from = official(&KUBE);
        assert_eq!(folder(Some(from.path()), group("kube")).unwrap().as_deref(), Some(from.path()));
        assert_eq!(folder(Some(from.path()), group("etcd")).unwrap(), None);
        assert_eq!(folder(None, group("kube")).unwrap(), None);
        let bash = super::super::program_version(Path::new("/bin/bash"), &["--version"]).unwrap();
        assert_eq!(kubernetes_version(Some(from.path())).unwrap(), Some(bash));
    }

    #[test]
    fn a_part_of_a_group_is_an_error_that_names_the_rest() {
        let from = official(&["kubelet", "kubectl"]);
        let error = folder(Some(from.path()), group("kube")).unwrap_err().to_string();
        let missing =
            "only a part of kube: kube-apiserver, kube-controller-manager, kube-proxy, kube-scheduler missing";
        assert!(error.ends_with(missing), "{error}");
    }

    #[test]
    fn what_is_built_separately_is_what_official_binaries_are_looked_for_by() {
        let separate = super::super::groups::SEPARATE_KUBERNETES;
        assert_eq!(separate.programs.iter().map(|program| program.name).collect::<Vec<_>>(), KUBE);
        assert_eq!(separate.tags, group("kube").tags);
    }

    #[test]
    fn official_programs_are_separate_files_under_the_names_of_our_links() {
        let from = official(&KUBE);
        let program = &group("kube").programs[0];
        let files: Vec<_> = program.files(from.path(), Some(from.path())).into_iter().collect();
        let expected: Vec<_> = KUBE.map(|name| (format!("bin/{name}"), from.path().join(name))).into();
        assert_eq!(files, expected);
        let ours = program.files(Path::new("/built"), Some(from.path()));
        assert_eq!(ours.len(), 7);
        assert!(ours.iter().all(|(_, file)| file == Path::new("/built/kube")));
    }
}
