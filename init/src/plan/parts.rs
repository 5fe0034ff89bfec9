//! Parts that every role's plan has: directories, leftovers, the pinned node, kubeconfigs that refer to files.

use std::path::Path;

use crate::paths::{self, temporary_beside};

use super::record::Node;
use super::sight::{Entry, Sight};
use super::{Step, state};

/// A directory, its mode, and whether it is ours alone: the mode of another's is not touched.
pub type Directory = (&'static str, u32, bool);

/// Those of every node, each after its parent.
const DIRECTORIES: [Directory; 6] = [
    ("/var/lib", 0o755, false),
    (paths::STATE, 0o700, true),
    (paths::KUBERNETES, 0o755, false),
    (paths::PKI, 0o755, true),
    (paths::KUBELET, 0o750, false),
    ("/var/lib/kubelet/pki", 0o700, false),
];

/// Adds to `files` what a power cut may leave beside each of them.
pub fn add_strays(files: &mut Vec<String>) {
    let stray = |path: &String| Some(temporary_beside(Path::new(path)).ok()?.to_string_lossy().into_owned());
    let strays: Vec<String> = files.iter().filter_map(stray).collect();
    files.extend(strays);
}

/// What a power cut left half written.
pub fn strays(sight: &Sight) -> Vec<Step> {
    let paths = sight.present().filter(|path| path.ends_with(".kubeboot-new"));
    let because = "left half written by a power cut";
    paths.map(|path| Step::Remove { path: path.to_owned(), because: because.to_owned() }).collect()
}

/// Every directory that a node has, with those of its role: paths alone.
pub fn directory_paths(of_role: &[Directory]) -> impl Iterator<Item = String> {
    DIRECTORIES.iter().chain(of_role).map(|(path, ..)| (*path).to_owned())
}

/// Directories that are missing or have another mode: those of every node, and those of its role.
pub fn directories(sight: &Sight, of_role: &[Directory]) -> Vec<Step> {
    let differs = |(path, mode, ours): &&Directory| match sight.at(path) {
        Entry::Directory { mode: found } => *ours && found != mode,
        _ => true,
    };
    let step = |(path, mode, _): &Directory| Step::Directory { path: (*path).to_owned(), mode: *mode };
    DIRECTORIES.iter().chain(of_role).filter(differs).map(step).collect()
}

/// Why the record of the node is not what it should be; none when it is.
pub fn node(sight: &Sight, wanted: &Node) -> Option<String> {
    match state::file(sight, paths::NODE).map(Node::parse) {
        Ok(Ok(node)) if node == *wanted => None,
        Ok(Ok(_)) => Some("it differs from what it should be".to_owned()),
        Ok(Err(reason)) => Some(format!("unreadable: {reason}")),
        Err(fault) => Some(fault.to_string()),
    }
}

/// Kubeconfigs that differ from what they should be.
pub fn kubeconfigs(sight: &Sight, wanted: Vec<(&'static str, String)>) -> Vec<Step> {
    let differs = |(path, contents): &(&str, String)| sight.contents(path) != Some(contents.as_bytes());
    let step = |(path, contents): (&str, String)| {
        let because = if sight.exists(path) { "it differs from what it should be" } else { "missing" };
        write(path, 0o600, contents, because.to_owned())
    };
    wanted.into_iter().filter(differs).map(step).collect()
}

/// The step that writes a file.
pub fn write(path: &str, mode: u32, contents: String, because: String) -> Step {
    Step::Write { path: path.to_owned(), mode, contents, because }
}
