//! A cache entry is made once, and again when it was damaged.

use std::cell::Cell;

use super::*;

fn cache() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path().join("cache")).unwrap();
    (folder, cache)
}

fn key() -> Key {
    Key::of("test").input("a", "b").finish()
}

/// Asks for the entry and counts how often it was made.
fn ask(cache: &Cache, check: Check, made: &Cell<u32>) -> PathBuf {
    cache
        .entry("things", &key(), check, |folder| {
            made.set(made.get() + 1);
            fs::create_dir(folder.join("sub"))?;
            fs::write(folder.join("sub/file"), "contents")?;
            std::os::unix::fs::symlink("sub/file", folder.join("link"))?;
            Ok(())
        })
        .unwrap()
}

#[test]
fn an_entry_is_made_once() {
    let (_folder, cache) = cache();
    let made = Cell::new(0);
    let first = ask(&cache, Check::Content, &made);
    assert_eq!(ask(&cache, Check::Content, &made), first);
    assert_eq!(made.get(), 1);
    assert_eq!(fs::read_to_string(first.join("sub/file")).unwrap(), "contents");
}

#[test]
fn every_kind_of_damage_makes_it_anew() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 6] = [
        ("changed", |entry| fs::write(entry.join("sub/file"), "CONTENTS").unwrap()),
        ("removed", |entry| fs::remove_file(entry.join("sub/file")).unwrap()),
        ("added", |entry| fs::write(entry.join("more"), "").unwrap()),
        ("mode", |entry| fs::set_permissions(entry.join("sub/file"), fs::Permissions::from_mode(0o755)).unwrap()),
        ("stamp", |entry| fs::write(entry.join(STAMP), "{").unwrap()),
        ("unfinished", |entry| fs::remove_file(entry.join(STAMP)).unwrap()),
    ];
    for (name, harm) in harms {
        let (_folder, cache) = cache();
        let made = Cell::new(0);
        harm(&ask(&cache, Check::Content, &made));
        let again = ask(&cache, Check::Content, &made);
        assert_eq!(made.get(), 2, "{name}");
        assert_eq!(fs::read_to_string(again.join("sub/file")).unwrap(), "contents", "{name}");
        assert!(!again.join("more").exists(), "{name}");
    }
}

#[test]
fn a_listing_notices_a_truncated_file() {
    let (_folder, cache) = cache();
    let made = Cell::new(0);
    let entry = ask(&cache, Check::Listing, &made);
    fs::write(entry.join("sub/file"), "cont").unwrap();
    ask(&cache, Check::Listing, &made);
    assert_eq!(made.get(), 2);
}

#[test]
fn a_failed_making_leaves_no_entry_and_the_next_starts_empty() {
    let (_folder, cache) = cache();
    let failed = cache.entry("things", &key(), Check::Content, |folder| {
        fs::write(folder.join("half"), "")?;
        anyhow::bail!("broken on purpose")
    });
    assert_eq!(failed.expect_err("make failed").to_string(), "broken on purpose");
    let entry = ask(&cache, Check::Content, &Cell::new(0));
    assert!(!entry.join("half").exists());
}

#[test]
fn keys_tell_inputs_apart() {
    let keys = [
        Key::of("test").input("a", "bc").finish(),
        Key::of("test").input("ab", "c").finish(),
        Key::of("test").input("a", "b").input("", "c").finish(),
        Key::of("other").input("a", "bc").finish(),
    ];
    for (i, key) in keys.iter().enumerate() {
        assert!(!keys[..i].contains(key), "{i}");
        assert_eq!(key.as_str().len(), 32);
    }
}

#[test]
fn a_key_of_files_sees_names_contents_and_the_executable_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let key = || Key::of("test").files("sources", path).unwrap().finish();
    fs::write(path.join("a"), "1").unwrap();
    let first = key();
    assert_eq!(first, key());
    fs::rename(path.join("a"), path.join("b")).unwrap();
    let renamed = key();
    fs::write(path.join("b"), "2").unwrap();
    let changed = key();
    fs::set_permissions(path.join("b"), fs::Permissions::from_mode(0o755)).unwrap();
    let executable = key();
    assert!(first != renamed && renamed != changed && changed != executable);
}

/// An entry that was last used that long before `now`.
fn aged(parent: &Path, name: &str, now: SystemTime, age: Duration) -> PathBuf {
    let entry = parent.join(name);
    fs::create_dir_all(&entry).unwrap();
    File::create(entry.join(STAMP)).unwrap().set_modified(now - age).unwrap();
    entry
}

#[test]
fn what_was_not_used_lately_goes_but_the_youngest_stay() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let hours = |hours| Duration::from_secs(hours * 3600);
    let old: Vec<PathBuf> =
        (0..KEPT as u64 + 3).map(|n| aged(folder.path(), &format!("old{n}"), now, hours(10 + n))).collect();
    let locked = &old[KEPT + 2];
    let lock = File::create(locked.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    prune(folder.path(), now).unwrap();
    let left: Vec<bool> = old.iter().map(|entry| entry.exists()).collect();
    let mut expected = vec![true; KEPT];
    expected.extend([false, false, true]); // the oldest one is in use
    assert_eq!(left, expected);
}

#[test]
fn recent_entries_stay_however_many_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let recent: Vec<PathBuf> =
        (0..KEPT as u64 * 2).map(|n| aged(folder.path(), &n.to_string(), now, Duration::from_secs(60 * n))).collect();
    prune(folder.path(), now).unwrap();
    assert!(recent.iter().all(|entry| entry.exists()));
}

#[test]
fn using_an_entry_makes_it_young() {
    let (_folder, cache) = cache();
    let entry = ask(&cache, Check::Content, &Cell::new(0));
    let old = SystemTime::now() - Duration::from_secs(100_000);
    File::options().append(true).open(entry.join(STAMP)).unwrap().set_modified(old).unwrap();
    ask(&cache, Check::Content, &Cell::new(0));
    assert!(fs::metadata(entry.join(STAMP)).unwrap().modified().unwrap() > old);
}

#[test]
fn what_a_failed_build_left_goes_and_what_is_being_made_stays() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["failed.tmp", "making.tmp"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let lock = File::create(folder.path().join("making.lock")).unwrap();
    lock.lock().unwrap();
    prune(folder.path(), SystemTime::now()).unwrap();
    let left = ["failed.tmp", "making.tmp"].map(|name| folder.path().join(name).exists());
    assert_eq!(left, [false, true]);
}

#[test]
fn a_file_that_was_built_again_is_compared_byte_by_byte() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
    fs::write(&one, "bytes").unwrap();
    fs::write(&other, "bytes").unwrap();
    ensure_same(&one, &other).unwrap();
    fs::write(&other, "bytez").unwrap();
    let error = ensure_same(&one, &other).unwrap_err().to_string();
    assert!(error.contains("another file") && error.contains(&*other.to_string_lossy()), "{error}");
}
