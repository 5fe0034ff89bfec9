//! What the documents promise about the code is there, and the other way round.
#![allow(clippy::disallowed_methods, reason = "a test that reads the documents")]

use std::fs;
use std::path::Path;

use kubeboot::facts::ports;
use kubeboot::preflight::{CHECKS, Severity};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
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

#[test]
fn every_port_is_documented_with_its_service() {
    let text = document("operations.md");
    for port in ports::WATCHED {
        let row = format!("| {} | {} |", port.number, port.service);
        assert!(text.contains(&row), "expected a row that begins with {row:?}");
    }
}
