//! Status for people.

use serde_json::Value;

use super::{Machine, Status};
use crate::certificates::Standing;
use crate::certificates::expiry::Listed;
use crate::health::control_planes::replacing;
use crate::slots::{Slot, State, TRIES};

/// The whole text.
pub(super) fn text(status: &Status) -> String {
    let mut out = String::new();
    out += &head(status);
    if !status.gates.is_empty() {
        out += "\nHEALTH\n";
        for gate in &status.gates {
            out += &format!("  {} {:<12} {}\n", if gate.pass { "ok  " } else { "FAIL" }, gate.gate, gate.observed);
        }
    }
    if let Some(view) = &status.balancer {
        out += "\nAPI SERVERS\n";
        view.servers.iter().for_each(|server| out += &format!("  {}\n", server.words()));
    }
    if !status.control_planes.is_empty() {
        out += "\nCONTROL PLANES\n";
        for one in &status.control_planes {
            let address = one.address.map_or_else(String::new, |address| address.to_string());
            out += &format!("  {} {:<24} {address}\n", if one.ready { "ok  " } else { "LOST" }, one.name);
        }
        replacing(&status.control_planes).iter().for_each(|line| out += &format!("  {line}\n"));
    }
    out += &slots(status);
    if !status.certificates.is_empty() {
        out += "\nCERTIFICATES\n";
        for listed in &status.certificates {
            out += &certificate(listed, status.now);
        }
    }
    if !status.settings.is_empty() {
        out += "\nSETTINGS\n";
        for setting in &status.settings {
            out += &format!("  {:<24} {:<24} {}\n", setting.key, value(&setting.value), setting.origin);
        }
    }
    if let Some(error) = &status.last_error {
        out += &format!("\nLAST ERROR\n  {}\n", error_words(error));
    }
    if !status.problems.is_empty() {
        out += "\nPROBLEMS\n";
        status.problems.iter().for_each(|problem| out += &format!("  {problem}\n"));
    }
    out
}

fn head(status: &Status) -> String {
    let mut lines = Vec::new();
    match &status.node {
        None => lines.push((
            "node",
            match status.state {
                Machine::NoRole => "this machine has no role yet",
                Machine::Starting => "this machine is being set up",
                Machine::NotSetUp => "this machine could not be set up: see the last error",
                Machine::Damaged => "this node's stored state is damaged: see below",
                Machine::Node => "this machine is a node, and can't say more: see the problems",
            }
            .to_owned(),
        )),
        Some(node) => {
            let failing = status.gates.iter().filter(|gate| !gate.pass).count();
            let healthy = match (status.gates.is_empty(), failing) {
                _ if status.state == Machine::Damaged => "stored state is damaged: see the last error".to_owned(),
                (true, _) => "not configured at this boot".to_owned(),
                (false, 0) => "Ready: every gate passes".to_owned(),
                (false, count) => format!("not Ready: {count} of {} gates fail", status.gates.len()),
            };
            lines.push(("node", format!("{} ({}), role {}", node.name, node.address, node.role)));
            lines.push(("health", healthy));
            lines.push(("cluster", node.cluster.clone()));
            lines.push(("fingerprint", node.fingerprint.clone()));
            lines.push(("API server", node.server.clone()));
        }
    }
    if let Some(seat) = &status.seat {
        lines.push(("release", format!("{} from {} ({}), boot {}", seat.version, seat.seat, seat.why, seat.boot)));
    }
    lines.iter().map(|(name, value)| format!("{name:<11} {value}\n")).collect()
}

fn slots(status: &Status) -> String {
    let Some(slots) = &status.slots else { return String::new() };
    let mut out = "\nSLOTS\n".to_owned();
    for slot in Slot::ALL {
        let words = match slots.slots.get(&slot) {
            None => "empty".to_owned(),
            Some(content) => {
                let state = match &content.state {
                    State::Staged => "staged for the next boot".to_owned(),
                    State::Trial { tries } => format!("on trial, {tries} of {TRIES} tries begun"),
                    State::Committed => "committed".to_owned(),
                    State::Bad { verdict } => format!("bad: {verdict}"),
                };
                format!("{} {state}", content.version)
            }
        };
        out += &format!("  {slot:<8} {words}\n");
    }
    if let Some(floor) = slots.floor {
        out += &format!("  {:<8} {floor}: no release below it runs on this machine's data\n", "floor");
    }
    for over in status.seat.iter().flat_map(|seat| &seat.passed_over) {
        out += &format!("  {} was passed over: {}\n", over.seat, over.why);
    }
    out
}

fn certificate(listed: &Listed, now: u64) -> String {
    let name = &listed.name;
    match (listed.validity, listed.standing) {
        (Some(validity), Some(standing)) => {
            let left = validity.not_after.saturating_sub(now) / (24 * 60 * 60);
            let words = match standing {
                Standing::NotYetValid => "not valid yet by this clock".to_owned(),
                Standing::Good => format!("{left} days left"),
                Standing::Due => format!("{left} days left, to be renewed"),
                Standing::Expired => "EXPIRED".to_owned(),
            };
            let renewal = match (listed.authority, listed.renew_at) {
                (true, _) => ", an authority: renewed by hand".to_owned(),
                (false, Some(at)) if at > now => format!(", renewed in {} days", (at - now) / (24 * 60 * 60)),
                _ => String::new(),
            };
            format!("  {name:<28} {words}{renewal}\n")
        }
        _ => format!("  {name:<28} can't be read: {}\n", listed.path),
    }
}

fn value(shown: &Value) -> String {
    match shown {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Array(list) => list.iter().map(value).collect::<Vec<_>>().join(", "),
        Value::Object(map) if map.is_empty() => "-".to_owned(),
        Value::Object(map) => {
            map.iter().map(|(key, held)| format!("{key}={}", value(held))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn error_words(error: &Value) -> String {
    let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |key: &str| {
        let list = error.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
    };
    format!("kubeboot {}: {}: {}. Fix: {}", text("command"), text("what"), list("why"), list("fix"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ControlPlane;
    use super::super::{NodeStatus, Setting};
    use super::*;
    use crate::balancer::{Seen, View};
    use crate::certificates::Validity;
    use crate::health::Verdict;
    use crate::slots::{CheckedBy, Content, PassedOver, Seat, SeatFacts, Slots};

    const NOW: u64 = 1_800_000_000;

    fn seat() -> SeatFacts {
        SeatFacts {
            seat: Seat::Factory,
            why: "no release on /var could be used".into(),
            version: "1.37.2-1".into(),
            kubernetes: "1.37.2".into(),
            erofs_sha256: "aa".into(),
            root_hash: "bb".into(),
            signed_by: "0123456789ABCDEF".into(),
            checked_by: CheckedBy::Image,
            boot: 3,
            passed_over: vec![PassedOver {
                seat: Seat::Slot(Slot::A),
                why: "its manifest is not what was signed".into(),
            }],
        }
    }

    fn listed(name: &str, days: u64, authority: bool) -> Listed {
        let validity = Validity::starting(NOW, days * 24 * 60 * 60);
        Listed {
            name: name.into(),
            path: format!("/{name}"),
            validity: Some(validity),
            standing: Some(validity.standing(NOW, 0)),
            authority,
            renew_at: (!authority).then(|| validity.renew_at(0)),
        }
    }

    #[test]
    fn a_node_in_trouble_says_everything() {
        let verdict = |gate: &str, pass, observed: &str| Verdict { gate: gate.into(), pass, observed: observed.into() };
        let mut slots = Slots { floor: "1.37.0-0".parse().ok(), ..Slots::default() };
        slots.slots.insert(
            Slot::A,
            Content {
                digest: "d".into(),
                version: "1.37.3-1".into(),
                state: State::Bad { verdict: "not signed".into() },
            },
        );
        let status = Status {
            state: Machine::Node,
            seat: Some(seat()),
            slots: Some(slots),
            node: Some(NodeStatus {
                role: "init".into(),
                name: "one".into(),
                address: "192.0.2.10".into(),
                cluster: "00ff".into(),
                fingerprint: "0f".repeat(16),
                server: "https://192.0.2.10:6443".into(),
            }),
            gates: vec![verdict("api", true, "ready"), verdict("dns", false, "no ready endpoint")],
            balancer: Some(View {
                format: View::FORMAT,
                servers: vec![
                    Seen {
                        address: "192.0.2.10:6443".into(),
                        health: "unreachable".into(),
                        why: Some("nothing comes back from it".into()),
                        preferred: false,
                        far: false,
                        draining: false,
                    },
                    Seen {
                        address: "192.0.2.11:6443".into(),
                        health: "healthy".into(),
                        why: None,
                        preferred: true,
                        far: false,
                        draining: false,
                    },
                ],
            }),
            control_planes: [("one", true), ("two", false)]
                .map(|(name, ready)| ControlPlane {
                    name: name.into(),
                    address: Some([192, 0, 2, 10].into()),
                    ready,
                    since: "2026-11-29T23:00:00Z".into(),
                })
                .into(),
            certificates: vec![listed("kubernetes", 3650, true), listed("apiserver", 365, false)],
            now: NOW,
            settings: [
                ("role", json!("init")),
                ("join", json!([])),
                ("addons", json!(["coredns"])),
                ("name", json!(null)),
            ]
            .map(|(key, value)| Setting { key: key.into(), value, origin: "kernel command line".into() })
            .into(),
            last_error: Some(json!({"command": "boot", "what": "a", "why": ["b", "c"], "fix": ["d"]})),
            problems: vec!["x is damaged".into()],
        };
        insta::assert_snapshot!(text(&status));
    }

    #[test]
    fn a_machine_without_a_role_says_so() {
        let status = |state: Machine| Status {
            state,
            seat: None,
            slots: Some(Slots::default()),
            node: None,
            gates: vec![],
            balancer: None,
            control_planes: vec![],
            certificates: vec![],
            now: NOW,
            settings: vec![],
            last_error: None,
            problems: vec![],
        };
        insta::assert_snapshot!(text(&status(Machine::NoRole)));
        let lines =
            [Machine::Starting, Machine::NotSetUp, Machine::Damaged, Machine::Node].map(|state| head(&status(state)));
        insta::assert_snapshot!("the_other_states", lines.concat());
    }
}
