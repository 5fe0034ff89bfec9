//! What preflight came to, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use super::{Check, Finding, Outcome, Severity};
use crate::settings::Role;

/// The outcome of every check, in the table's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What the machine is to become.
    pub role: Role,
    /// True if there is no error.
    pub passed: bool,
    /// One entry a check.
    pub checks: Vec<Checked>,
}

/// One check's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The check's name.
    pub name: &'static str,
    /// `ok`, `warning`, `error` or `unchecked`: that of the worst finding.
    pub result: &'static str,
    /// Why the check matters.
    pub why: &'static str,
    /// What is not as it should be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Why the check could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<String>,
}

impl Report {
    pub(super) fn new(role: Role, made: Vec<(&Check, Outcome)>) -> Self {
        let checks: Vec<Checked> = made.into_iter().map(|(check, outcome)| Checked::new(check, outcome)).collect();
        let passed = checks.iter().all(|check| check.result != "error");
        Report { role, passed, checks }
    }

    /// Findings of one severity.
    pub fn findings(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.checks.iter().flat_map(|check| &check.findings).filter(move |finding| finding.severity == severity)
    }

    /// One line for each finding, errors first, for the console: `swap is on (…). Fix: …`.
    pub fn lines(&self) -> Vec<(Severity, String)> {
        let line = |finding: &Finding| (finding.severity, format!("{}. Fix: {}.", finding.found, finding.fix));
        self.findings(Severity::Error).chain(self.findings(Severity::Warning)).map(line).collect()
    }

    /// Every check with its result and, below, each fix; then how many there are of each.
    pub fn table(&self) -> String {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        let mut rows: Vec<(&str, &str, String)> = Vec::new();
        for check in &self.checks {
            match &check.unchecked {
                Some(why) => rows.push(("unchecked", check.name, why.clone())),
                None if check.findings.is_empty() => rows.push(("ok", check.name, String::new())),
                None => {
                    for finding in &check.findings {
                        rows.push((finding.severity.word(), check.name, finding.found.clone()));
                        rows.push(("", "", format!("Fix: {}.", finding.fix)));
                    }
                }
            }
        }
        let mut text = String::new();
        for (result, name, words) in rows {
            let _ = writeln!(text, "{}", format!("{result:9}  {name:width$}  {words}").trim_end());
        }
        text + &self.summary() + "\n"
    }

    /// How many checks passed, warned, failed, could not be made: `17 passed, 1 warning, 1 error`.
    pub fn summary(&self) -> String {
        let made = |result: &str| self.checks.iter().filter(|check| check.result == result).count();
        let plural = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let mut parts = vec![format!("{} passed", made("ok"))];
        for (severity, one) in [(Severity::Warning, "warning"), (Severity::Error, "error")] {
            let count = self.findings(severity).count();
            if count > 0 {
                parts.push(plural(count, one));
            }
        }
        if made("unchecked") > 0 {
            parts.push(format!("{} could not be checked", made("unchecked")));
        }
        parts.join(", ")
    }

    /// The report as JSON, for `--output json`.
    pub fn json(&self) -> String {
        // Strings, booleans and lists of them can't fail to serialize.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

impl Checked {
    fn new(check: &Check, outcome: Outcome) -> Self {
        let (findings, unchecked) = match outcome {
            Outcome::Pass => (Vec::new(), None),
            Outcome::Found(findings) => (findings, None),
            Outcome::Unchecked(why) => (Vec::new(), Some(why)),
        };
        let worst = findings.iter().map(|finding| finding.severity).max();
        let result = match (worst, &unchecked) {
            (Some(severity), _) => severity.word(),
            (None, Some(_)) => "unchecked",
            (None, None) => "ok",
        };
        Checked { name: check.name, result, why: check.why, findings, unchecked }
    }
}

impl Severity {
    /// The word that stands for it.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}
