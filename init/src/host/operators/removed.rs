//! The operators that were removed from the cluster, as this machine knows them: its settings may name them, and it must not
//! issue certificates for them again, neither at a boot, when no API answers yet, nor later.

use crate::host::files;
use crate::host::root::Root;
use crate::operators::key::OperatorLine;
use crate::operators::objects::OperatorObject;
use crate::paths;
use crate::settings::Settings;

/// Keeps who was removed. Writes only if that is news.
///
/// # Errors
/// It can't be written, in words.
pub fn keep(root: &Root, objects: &[OperatorObject]) -> Result<(), String> {
    let removed = objects.iter().filter(|object| !object.listed);
    let mut lines: Vec<String> = removed.map(|object| object.line.fingerprint() + "\n").collect();
    lines.sort();
    let path = root.path(paths::REMOVED_OPERATORS);
    if lines.is_empty() && !files::exists(&path) {
        return Ok(());
    }
    files::ensure(&path, lines.concat().as_bytes(), 0o600)
        .map(drop)
        .map_err(|error| format!("write {}: {error}. What was there before still is", paths::REMOVED_OPERATORS))
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
