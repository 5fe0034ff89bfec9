//! What the documents promise about the code is there, and the other way round.
#![allow(clippy::disallowed_methods, reason = "a test that reads the documents")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use kubeboot::facts::ports;
use kubeboot::preflight::{CHECKS, Severity};
use kubeboot::settings::keys::{KEYS, Shape};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

fn document(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Headings of the third level below the second-level heading `section`, each with its text.
fn sections(text: &str, section: &str) -> Vec<(String, String)> {
    let start = text.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("expected a section {section:?}"));
    let body = &text[start + 4..];
    let body = &body[..body.find("\n## ").unwrap_or(body.len())];
    let parts = body.split("\n### ").skip(1);
    parts
        .map(|part| part.split_once('\n').map(|(name, text)| (name.to_owned(), text.to_owned())).unwrap_or_default())
        .collect()
}

#[test]
fn every_preflight_check_is_documented_in_its_order() {
    let documented = sections(&document("troubleshooting.md"), "Preflight");
    let names: Vec<&str> = documented.iter().map(|(name, _)| name.as_str()).collect();
    let checks: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
    assert_eq!(names, checks);
}

#[test]
fn each_checks_worst_severity_is_said() {
    for (name, text) in sections(&document("troubleshooting.md"), "Preflight") {
        let check = CHECKS.iter().find(|check| check.name == name).expect("a check");
        let (error, new_only) = (text.contains("*Error"), text.contains("*Error on new machines"));
        assert_eq!(error, check.severity == Severity::Error, "{name}");
        assert_eq!(new_only, check.established < check.severity, "{name}");
    }
}

/// Titles of errors, as the commands' sources have them.
#[test]
fn every_documented_error_is_said_somewhere() {
    let text = document("troubleshooting.md");
    let body = text.split("\n## Errors of a boot\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let titles: Vec<&str> = body
        .expect("a section on errors")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(titles.len() > 10, "{titles:?}");
    let sources = [
        "commands/boot/mod.rs",
        "commands/boot/situation.rs",
        "commands/boot/told.rs",
        "commands/etc/mod.rs",
        "commands/init.rs",
        "commands/reset.rs",
        "discovery/words.rs",
        "disk/trouble.rs",
        "enrolment/seeking.rs",
        "words/mod.rs",
    ]
    .map(|name| document(&format!("../init/src/{name}")))
    .concat();
    for title in titles {
        assert!(sources.contains(title), "no source says {title:?}");
    }
}

#[test]
fn every_port_is_documented_with_its_service() {
    let text = document("operations.md");
    for port in ports::WATCHED {
        let row = format!("| {} | {} |", port.number, port.service);
        assert!(text.contains(&row), "expected a row that begins with {row:?}");
    }
}

/// `docs/settings.md` as the table of keys has it.
fn settings() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         Made from the table of keys, `init/src/settings/keys.rs`. Where a value may come from, and which source wins,\n\
         stands in [operations.md](operations.md#where-settings-come-from). On the kernel command line a key is written\n\
         `kubeboot.KEY=VALUE`; in TOML and below cloud-config's `kubeboot:` the dots nest. `kubeboot.reset=ID` is no setting\n\
         but an order: [operations.md](operations.md#starting-over).\n",
    );
    for key in KEYS {
        let form = match key.shape {
            Shape::One => "one value",
            Shape::List => "a list; on one line separated by commas",
            Shape::Lines => "a list; on the command line the key is repeated",
            Shape::Map => "a map; on one line `name=value`, separated by commas",
            Shape::MapOfLists => "a map of lists; on one line `name=value`, separated by commas",
        };
        let example = match key.example {
            example if example.starts_with('(') => example.to_owned(),
            example => format!("`kubeboot.{}={example}`", key.name),
        };
        let _ = write!(
            text,
            "\n## {}\n{}\n\n- expected: {}\n- form: {form}\n- default: {}\n- example: {example}\n",
            key.name, key.doc, key.expected, key.default
        );
    }
    text
}

/// After a change of the table: `UPDATE_DOCUMENTS=1 cargo test -p kubeboot --test documents`.
#[test]
fn settings_are_documented_as_the_table_has_them() {
    let expected = settings();
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(path("settings.md"), &expected).expect("a writable document");
    }
    assert!(document("settings.md") == expected, "docs/settings.md is not what the table of keys says: update it");
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    for name in [
        "architecture.md",
        "discovery.md",
        "enrolment.md",
        "mesh.md",
        "operations.md",
        "releases.md",
        "security.md",
        "settings.md",
        "troubleshooting.md",
    ] {
        for link in document(name).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = document(if file.is_empty() { name } else { file });
            let anchors = |line: &str| {
                let title = line.trim_start_matches('#').trim().to_lowercase();
                let kept: String = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-')).collect();
                kept.replace(' ', "-")
            };
            let found = target.lines().filter(|line| line.starts_with('#')).any(|line| anchors(line) == anchor);
            assert!(anchor.is_empty() || found, "{name}: {link}");
        }
    }
}
