//! The purity rule of `docs/architecture.md`: only `init/src/host` touches files, network, processes, the clock or
//! randomness, and the commands reach them through it. Clippy holds the rule; this test holds the list of exceptions.
#![allow(clippy::disallowed_methods, reason = "a test that reads the sources")]

use std::fs;
use std::path::{Path, PathBuf};

/// Files that may switch clippy's rule off, each for everything below it: the door itself, and tools that are effects.
const EXCEPTIONS: &[&str] = &[
    "image/builder/src/lib.rs",
    "image/builder/src/main.rs",
    "image/builder/tests/checkouts.rs",
    "image/builder/tests/layout.rs",
    "init/benches/balancer.rs",
    "init/benches/founding.rs",
    "init/src/host/mod.rs",
    "init/tests/balancer.rs",
    "init/tests/documents.rs",
    "init/tests/mesh_simulation.rs",
    "init/tests/purity.rs",
    "init/tests/units.rs",
    "qemu-tests/src/lib.rs",
    "qemu-tests/src/main.rs",
];

/// Ways to reach the machine without clippy's notice.
const EFFECTS: &[&str] = &["nix::", "ureq::", "sd_notify::", "crate::host", "aws_lc_rs::rand"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// Every Rust file below `folder`: its path relative to the repository, and its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let root = repository();
    let (mut folders, mut found) = (vec![root.join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).expect("UTF-8 text")));
            }
        }
    }
    assert!(!found.is_empty(), "expected Rust files below {folder}");
    found.sort();
    found
}

/// True if the text switches off a `disallowed_…` lint, in whatever layout of the attribute.
fn switches_off(text: &str) -> bool {
    let dense: String = text.split_whitespace().collect();
    ["allow(", "expect("].iter().any(|word| {
        dense.split(word).skip(1).any(|attribute| {
            let end = attribute.find(")]").unwrap_or(attribute.len());
            attribute[..end].contains("clippy::disallowed_")
        })
    })
}

/// True if the line has `path` where a path may begin.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn only_the_door_and_the_tools_switch_the_rule_off() {
    let everywhere = ["init", "image/builder", "qemu-tests"].map(sources).concat();
    let off = everywhere.iter().filter(|(_, text)| switches_off(text)).map(|(name, _)| name.as_str());
    let unexpected: Vec<&str> = off.filter(|name| !EXCEPTIONS.contains(name)).collect();
    assert!(unexpected.is_empty(), "effects belong in init/src/host: {unexpected:?}");
}

#[test]
fn no_pure_room_reaches_for_the_machine() {
    let all = sources("init/src");
    let pure = all.iter().filter(|(name, _)| {
        !name.starts_with("init/src/host/") && !name.starts_with("init/src/commands/") && name != "init/src/main.rs"
    });
    let mut reaching = Vec::new();
    for (name, text) in pure {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            if EFFECTS.iter().any(|effect| names(line, effect)) {
                reaching.push(format!("{name}: {}", line.trim()));
            }
        }
    }
    assert!(reaching.is_empty(), "{reaching:#?}");
}

#[test]
fn the_rule_is_seen_in_any_layout() {
    assert!(switches_off("#![allow(clippy::disallowed_methods, reason = \"x\")]"));
    assert!(switches_off("#[allow(\n    clippy::disallowed_types,\n)]\nfn f() {}"));
    assert!(names("use nix::sys;", "nix::") && !names("Unix::from(1)", "nix::"));
    assert!(switches_off("#[expect(dead_code, clippy::disallowed_methods)]"));
    assert!(!switches_off("// clippy::disallowed_methods holds this\n#[allow(dead_code)]\nfn f() {}"));
}
