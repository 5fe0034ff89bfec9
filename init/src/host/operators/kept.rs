//! The operators on record, as this machine saw them last. Those that were removed: its settings may name them, and it must
//! not issue certificates for them again, neither at a boot, when no API answers yet, nor later. Those that are listed: they
//! want to see what is wrong when its API server does not come up.

use std::time::Duration;

use crate::enrolment::ssh;
use crate::host::files;
use crate::host::root::Root;
use crate::operators::key::{OperatorLine, of_settings};
use crate::operators::objects::OperatorObject;
use crate::paths;
use crate::settings::Settings;

/// How long another process may take that keeps them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps who was removed, then who is listed, by `seen`. The agent and the commands do so, each by its own look, of which the
/// older may come here later: who has news to write `looks` anew while nobody else writes, so that what is kept is never
/// older than what was there.
///
/// # Errors
/// The new look's; another holds the lock for too long; it can't be written. In words.
pub fn keep(
    root: &Root,
    seen: &[OperatorObject],
    looks: impl FnOnce() -> Result<Vec<OperatorObject>, String>,
) -> Result<(), String> {
    keep_within(PATIENCE, root, seen, looks)
}

fn keep_within(
    patience: Duration,
    root: &Root,
    seen: &[OperatorObject],
    looks: impl FnOnce() -> Result<Vec<OperatorObject>, String>,
) -> Result<(), String> {
    let stays = |why: String| format!("{why}. What was there before still is; the next look writes it");
    let failed = |file: &str, error: std::io::Error| stays(format!("write {file}: {error}"));
    let says = |file: &str, text: &str| {
        let kept = files::read_optional(&root.path(file)).map_err(|error| failed(file, error))?;
        Ok::<_, String>(kept.unwrap_or_default() == text.as_bytes())
    };
    let (removed, listed) = texts(seen);
    if says(paths::REMOVED_OPERATORS, &removed)? && says(paths::LISTED_OPERATORS, &listed)? {
        return Ok(());
    }
    let lock = files::lock_folder(&root.path(paths::STATE), patience);
    let _lock = lock.map_err(|error| failed(paths::REMOVED_OPERATORS, error))?;
    let (removed, listed) = texts(&looks().map_err(stays)?);
    for (file, text) in [(paths::REMOVED_OPERATORS, removed), (paths::LISTED_OPERATORS, listed)] {
        if !says(file, &text)? {
            files::ensure(&root.path(file), text.as_bytes(), 0o600).map_err(|error| failed(file, error))?;
        }
    }
    Ok(())
}

/// The two files: a fingerprint a line of who was removed, and a key a line of who is listed.
fn texts(objects: &[OperatorObject]) -> (String, String) {
    let text = |listed: bool, line: &dyn Fn(&OperatorLine) -> String| {
        let these = objects.iter().filter(|object| object.listed == listed);
        let mut lines: Vec<String> = these.map(|object| line(&object.line) + "\n").collect();
        lines.sort();
        lines.concat()
    };
    (text(false, &OperatorLine::fingerprint), text(true, &OperatorLine::text))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::operators::tests::public_line;

    const ADA: u8 = 1;
    const BOTH: [u8; 2] = [ADA, 2];

    fn object(key: u8, listed: bool) -> OperatorObject {
        let line = OperatorLine::parse(&public_line(key, "somebody")).unwrap();
        OperatorObject { line, listed, by: "test".into(), since: 1, version: None }
    }

    fn machine() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        std::fs::create_dir_all(root.path(paths::STATE)).unwrap();
        (folder, root)
    }

    fn kept(root: &Root) -> String {
        String::from_utf8(files::read_optional(&root.path(paths::REMOVED_OPERATORS)).unwrap().unwrap_or_default())
            .unwrap()
    }

    #[test]
    fn an_older_look_takes_nobody_out_of_what_a_newer_one_kept() {
        let (_folder, root) = machine();
        let (before, after) = ([object(ADA, true)], vec![object(ADA, false)]);
        // The agent looked before the command removed Ada, and comes to write after it.
        keep(&root, &after, || Ok(after.clone())).unwrap();
        keep(&root, &before, || Ok(after.clone())).unwrap();
        assert_eq!(kept(&root), texts(&after).0);
        keep(&root, &after, || panic!("it is no news")).unwrap();
        assert!(keep(&root, &before, || Err("no API server answers".into())).unwrap_err().contains("still is"));
        assert_eq!(kept(&root), texts(&after).0);
    }

    #[test]
    fn who_can_not_have_the_lock_says_so_and_changes_nothing() {
        let (_folder, root) = machine();
        let _held = files::lock_folder(&root.path(paths::STATE), Duration::ZERO).unwrap();
        let patience = Duration::from_millis(20);
        let late = keep_within(patience, &root, &[object(ADA, false)], || panic!("not without the lock"));
        let why = late.unwrap_err();
        assert!(why.contains("another process holds its lock"), "{why}");
        assert_eq!(kept(&root), "");
    }

    /// Each look sees the objects as they are then, and is told late. Whoever reads meanwhile finds whole lines.
    #[test]
    fn two_who_write_at_once_leave_what_is_true_and_never_half_of_it() {
        let (_folder, root) = machine();
        let removed: Mutex<BTreeSet<u8>> = Mutex::default();
        let look = || {
            let removed = removed.lock().unwrap();
            BOTH.map(|key| object(key, !removed.contains(&key))).to_vec()
        };
        let whole: Vec<String> = BOTH.iter().map(|key| object(*key, false).line.fingerprint()).collect();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers = BOTH.map(|key| {
                let (removed, root, look) = (&removed, &root, &look);
                scope.spawn(move || {
                    for round in 0..40 {
                        match round % 2 {
                            0 => removed.lock().unwrap().insert(key),
                            _ => removed.lock().unwrap().remove(&key),
                        };
                        let seen = look();
                        std::thread::yield_now();
                        keep(root, &seen, || Ok(look())).unwrap();
                    }
                    removed.lock().unwrap().insert(key);
                    keep(root, &look(), || Ok(look())).unwrap();
                })
            });
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let text = kept(&root);
                    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
                    assert!(text.lines().all(|line| whole.iter().any(|one| one == line)), "{text:?}");
                }
            });
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            done.store(true, Ordering::Release);
            reader.join().unwrap();
        });
        assert_eq!(kept(&root), texts(&look()).0);
        assert_eq!(kept(&root).lines().count(), 2);
    }
}
