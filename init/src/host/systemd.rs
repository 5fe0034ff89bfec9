//! What is asked of systemd: units by `systemctl`, readiness by `sd_notify`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::process::{self, Failure};

/// How long systemd may take to answer a question.
const ANSWER: Duration = Duration::from_secs(30);

/// Properties of a unit, or of the manager itself when `unit` is none (org.freedesktop.systemd1(5)).
///
/// # Errors
/// systemctl's.
pub fn properties(unit: Option<&str>, names: &[&str]) -> Result<BTreeMap<String, String>, Failure> {
    let units: Vec<&str> = unit.into_iter().collect();
    Ok(show(&units, names)?.pop().unwrap_or_default())
}

/// Properties of several units by one call, in the order of `units`.
///
/// # Errors
/// systemctl's.
pub fn show(units: &[&str], names: &[&str]) -> Result<Vec<BTreeMap<String, String>>, Failure> {
    let property = format!("--property={}", names.join(","));
    let mut arguments = vec!["show", "--no-pager", property.as_str()];
    arguments.extend(units);
    Ok(parse_show(&process::run("systemctl", &arguments, ANSWER)?))
}

/// `NAME=VALUE` lines; an empty line stands between units.
fn parse_show(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut found = vec![BTreeMap::new()];
    for line in text.lines() {
        match (line.split_once('='), found.last_mut()) {
            (Some((name, value)), Some(unit)) => _ = unit.insert(name.to_owned(), value.to_owned()),
            _ => found.push(BTreeMap::new()),
        }
    }
    found
}

/// Enqueues the start of a unit and returns at once.
///
/// # Errors
/// systemctl's.
pub fn start(unit: &str) -> Result<(), Failure> {
    process::run("systemctl", &["start", "--no-block", unit], ANSWER).map(drop)
}

/// Stops units and waits until they stopped.
///
/// # Errors
/// systemctl's; units that need longer than `limit`.
pub fn stop(units: &[&str], limit: Duration) -> Result<(), Failure> {
    let mut arguments = vec!["stop"];
    arguments.extend(units);
    process::run("systemctl", &arguments, limit).map(drop)
}

/// Starts a unit, again if it runs, and waits until it has started or failed.
///
/// # Errors
/// systemctl's, which are also the unit's; a unit that needs longer than `limit`.
pub fn restart(unit: &str, limit: Duration) -> Result<(), Failure> {
    process::run("systemctl", &["restart", unit], limit).map(drop)
}

/// Whether a unit is being started. Where there is no systemd, nothing is.
pub fn starting(unit: &str) -> bool {
    let shown = show(&[unit], &["ActiveState"]).unwrap_or_default();
    shown.iter().any(|unit| unit.get("ActiveState").is_some_and(|state| state == "activating"))
}

/// Starts a unit again if it runs, and returns at once.
///
/// # Errors
/// systemctl's.
pub fn restart_if_running(unit: &str) -> Result<(), Failure> {
    process::run("systemctl", &["try-restart", "--no-block", unit], ANSWER).map(drop)
}

/// Starts a unit again if it runs, and waits until it has started or failed.
///
/// # Errors
/// systemctl's, which are also the unit's; a unit that needs longer than `limit`.
pub fn await_restart_if_running(unit: &str, limit: Duration) -> Result<(), Failure> {
    process::run("systemctl", &["try-restart", unit], limit).map(drop)
}

/// Tells systemd that the service is up. Without a manager there is nobody to tell, which is no error.
pub fn ready(status: &str) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]);
}

/// What `systemctl status` shows beside the service.
pub fn status(text: &str) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Status(text)]);
}

/// Feeds the watchdog, when the unit has one.
pub fn alive() {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_apart_by_empty_lines() {
        let units = parse_show("Id=a.service\nActiveState=active\n\nId=b.service\nExecStart={ path=/bin/x ; }\n");
        assert_eq!(units.len(), 2);
        assert_eq!(units[0]["ActiveState"], "active");
        assert_eq!(units[1]["ExecStart"], "{ path=/bin/x ; }");
    }
}
