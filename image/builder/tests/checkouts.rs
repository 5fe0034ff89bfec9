//! Two checkouts that compile into one folder.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used, reason = "a test that compiles")]

use std::fs;
use std::path::Path;
use std::process::Command;

use image_builder::repository;

/// A workspace of one program that prints its word.
fn checkout(folder: &Path, word: &str) {
    fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = "[package]\nname = \"says\"\nedition = \"2024\"\n[profile.tools]\ninherits = \"dev\"\n[workspace]\n";
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.join("src/main.rs"), format!("fn main() {{ println!(\"{word}\"); }}\n")).unwrap();
}

fn run(folder: &Path, target: &Path) -> String {
    let script = ". \"$0\"; take_target \"$1\" tools dev; exec cargo run --quiet --offline --profile tools";
    let library = repository().join("image/target.sh");
    let mut sh = Command::new("sh");
    sh.args(["-euc", script]).arg(library).arg(target).current_dir(folder).env_remove("CARGO_TARGET_DIR");
    let output = sh.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn each_runs_what_it_holds_itself() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, target] = ["one", "two", "target"].map(|name| folder.path().join(name));
    checkout(&one, "one");
    checkout(&two, "two");
    for _ in 0..2 {
        assert_eq!(run(&one, &target), "one");
        // Its files are older than what was compiled of the other's.
        assert_eq!(run(&two, &target), "two");
    }
    assert_eq!(run(&two, &target), "two");
}
