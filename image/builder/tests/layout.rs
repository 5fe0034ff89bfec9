//! What several files of the image say alike: partitions, units, profiles. Each is written where its reader looks for
//! it, so that they must be held together here.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests read the repository")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn repository(path: &str) -> PathBuf {
    image_builder::repository().join(path)
}

/// Every regular file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else if !path.is_symlink() {
            found.push(path)
        }
    }
    found.sort();
    found
}

/// The settings of a systemd-like file: key → values, in order.
fn settings(path: &Path) -> BTreeMap<String, Vec<String>> {
    let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap().lines().filter(|line| !line.starts_with('#')) {
        if let Some((key, value)) = line.split_once('=') {
            settings.entry(key.trim().to_owned()).or_default().push(value.trim().to_owned());
        }
    }
    settings
}

fn size(path: &str) -> String {
    let found = settings(&repository(path));
    let most = found["SizeMaxBytes"][0].clone();
    if let Some(least) = found.get("SizeMinBytes") {
        assert_eq!(least[0], most, "{path}: a partition of a slot has one size");
    }
    most
}

#[test]
fn both_slots_have_the_size_that_the_image_is_made_with() {
    assert_eq!(size("image/mkosi/mkosi.repart/00-esp.conf"), size("units/repart.d/00-esp.conf"));
    for file in ["10-root-a.conf", "20-root-b.conf"] {
        assert_eq!(size("image/mkosi/mkosi.repart/10-root-a.conf"), size(&format!("units/repart.d/{file}")), "{file}");
    }
    for file in ["11-verity-a.conf", "21-verity-b.conf"] {
        let made = size("image/mkosi/mkosi.repart/11-verity-a.conf");
        assert_eq!(made, size(&format!("units/repart.d/{file}")), "{file}");
    }
}

#[test]
fn units_name_only_units_that_exist() {
    let folder = repository("units/systemd/system");
    let own: BTreeSet<String> =
        files(&folder).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let mut named = 0;
    for unit in files(&folder) {
        for (key, values) in settings(&unit) {
            let relation = ["After", "Before", "Wants", "Requires", "RequiredBy", "WantedBy", "OnFailure", "Slice"];
            if !relation.contains(&key.as_str()) {
                continue;
            }
            for name in values.iter().flat_map(|value| value.split_whitespace()) {
                let ours = ["kube", "containerd", "flanneld"].iter().any(|prefix| name.starts_with(prefix));
                // A slice needs no file: systemd and the kubelet know it by its name.
                let known = own.contains(name) || name == "kubepods.slice";
                assert!(!ours || known, "{}: {key}={name} names no unit", unit.display());
                named += usize::from(ours);
            }
        }
    }
    assert!(named > 20, "only {named} relations were found: the test looks in the wrong place");
}

#[test]
fn what_a_condition_waits_for_is_not_started_by_the_boot_itself() {
    let target = settings(&repository("units/systemd/system/kubeboot.target"));
    let early: BTreeSet<&str> = target["Wants"].iter().flat_map(|value| value.split_whitespace()).collect();
    for unit in files(&repository("units/systemd/system")) {
        let name = unit.file_name().unwrap().to_string_lossy().into_owned();
        let conditions = settings(&unit).remove("ConditionPathExists").unwrap_or_default();
        if conditions.iter().any(|path| path.starts_with("/run/kubeboot/config/")) {
            assert!(!early.contains(name.as_str()), "{name} would be skipped before its configuration exists");
        }
    }
}

#[test]
fn only_the_debug_profile_can_be_logged_in_to() {
    let base = fs::read_to_string(repository("image/mkosi/mkosi.conf")).unwrap();
    assert!(base.contains("systemd.getty_auto=no"));
    for file in files(&repository("image/mkosi")).into_iter().chain(files(&repository("units"))) {
        let text = fs::read_to_string(&file).unwrap();
        let debug = file.to_string_lossy().contains("mkosi.profiles/debug/");
        for word in ["openssh", "Autologin", "getty_auto=yes", "enable ssh", "enable getty", "enable serial-getty"] {
            assert!(debug || !text.contains(word), "{} has {word}", file.display());
        }
    }
}

#[test]
fn programs_are_started_from_the_image_or_the_seat() {
    for unit in files(&repository("units")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "service"))
    {
        for (key, values) in settings(&unit) {
            for value in values.iter().filter(|_| key.starts_with("Exec")) {
                // A failure that does not count (systemd.service(5)).
                let program = value.strip_prefix('-').unwrap_or(value);
                let known = ["/usr/bin/", "/usr/sbin/nft ", "/run/kubeboot/slot/bin/"]
                    .iter()
                    .any(|place| program.starts_with(place));
                assert!(known && !value.contains("sh -c"), "{}: {key}={value}", unit.display());
            }
        }
    }
}
