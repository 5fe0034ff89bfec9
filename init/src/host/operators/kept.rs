//! The operators on record, as this machine saw them last. Those that were removed: its settings may name them, and it must
//! not issue certificates for them again, neither at a boot, when no API answers yet, nor later. Those that are listed: they
//! want to see what is wrong when its API server does not come up.

use crate::enrolment::ssh;
use crate::host::files;
use crate::host::root::Root;
use crate::operators::key::{OperatorLine, of_settings};
use crate::operators::objects::OperatorObject;
use crate::paths;
use crate::settings::Settings;

/// Keeps who was removed, then who is listed. Writes only what is news.
///
/// # Errors
/// It can't be written, in words.
pub fn keep(root: &Root, objects: &[OperatorObject]) -> Result<(), String> {
    let lines = |listed: bool, line: &dyn Fn(&OperatorLine) -> String| {
        let these = objects.iter().filter(|object| object.listed == listed);
        let mut lines: Vec<String> = these.map(|object| line(&object.line) + "\n").collect();
        lines.sort();
        lines
    };
    write(root, paths::REMOVED_OPERATORS, &lines(false, &OperatorLine::fingerprint))?;
    write(root, paths::LISTED_OPERATORS, &lines(true, &OperatorLine::text))
}

fn write(root: &Root, file: &str, lines: &[String]) -> Result<(), String> {
    let path = root.path(file);
    if lines.is_empty() && !files::exists(&path) {
        return Ok(());
    }
    files::ensure(&path, lines.concat().as_bytes(), 0o600)
        .map(drop)
        .map_err(|error| format!("write {file}: {error}. What was there before still is"))
}

/// Whether a key is an operator's as far as this machine knows without the API: listed when it was looked at last, or named
/// by the settings, and not removed.
///
/// # Errors
/// A file can't be read, in words: then nobody can tell.
pub fn is_operator(root: &Root, settings: &Settings, key: &[u8]) -> Result<bool, String> {
    let listed = read(root, paths::LISTED_OPERATORS)?;
    let is_it = |line: &str| OperatorLine::parse(line).is_ok_and(|line| line.key == key);
    let named = of_settings(settings).iter().any(|line| is_it(line)) || listed.lines().any(is_it);
    Ok(named && !is_removed(root, key)?)
}

/// Whether a key was an operator's that this machine knows to be removed.
///
/// # Errors
/// The file can't be read, in words.
pub fn is_removed(root: &Root, key: &[u8]) -> Result<bool, String> {
    let fingerprint = ssh::fingerprint(key);
    Ok(read(root, paths::REMOVED_OPERATORS)?.lines().any(|gone| gone == fingerprint))
}

fn read(root: &Root, file: &str) -> Result<String, String> {
    match files::read_optional(&root.path(file)) {
        Ok(found) => Ok(String::from_utf8_lossy(&found.unwrap_or_default()).into_owned()),
        Err(error) => Err(format!("read {file}: {error}")),
    }
}

/// Takes those who were removed out of what the settings name.
pub fn apply(root: &Root, settings: &mut Settings) {
    let removed = match files::read_optional(&root.path(paths::REMOVED_OPERATORS)) {
        Ok(found) => String::from_utf8_lossy(&found.unwrap_or_default()).into_owned(),
        Err(error) => {
            eprintln!("kubeboot: {}: {error}. Removed operators may get certificates", paths::REMOVED_OPERATORS);
            return;
        }
    };
    let stays = |line: &String| {
        let fingerprint = OperatorLine::parse(line).map(|line| line.fingerprint());
        fingerprint.map_or(true, |fingerprint| !removed.lines().any(|gone| gone == fingerprint))
    };
    settings.operator.retain(stays);
    settings.os.ssh_authorized_keys.retain(stays);
}
