//! Rules over the release, the machine-id and the name.

use super::{Finding, Outcome, Subject, error, given, warning};
use crate::facts::{node_name, rfc1123_problem};
use crate::paths;
use crate::settings::Role;

pub(super) fn seat(subject: &Subject) -> Outcome {
    given(&subject.facts.seat, |seat| {
        let status = "look on the console, or in the journal of kubeboot-slot, why it could not be mounted";
        let Some(kind) = &seat.mounted else {
            return error(format!("no release is mounted at {}", paths::SEAT), status).into();
        };
        let mut findings: Vec<Finding> = Vec::new();
        if !seat.read_only {
            findings.push(error(
                format!(
                    "{} ({kind}) is mounted writable, so that anything could replace the node's programs",
                    paths::SEAT
                ),
                "boot again: kubeboot-slot mounts it read-only",
            ));
        }
        match &seat.record {
            Some(Ok(record)) => findings.extend(record.passed_over.iter().map(|passed| {
                let found = format!("{} was passed over: {}", passed.seat, passed.why);
                warning(found, format!("none is needed now: {} runs instead", record.seat))
            })),
            Some(Err(why)) => findings.push(error(why.clone(), "boot again: kubeboot-slot writes it anew")),
            None => findings.push(error(format!("{} is missing", paths::SEAT_FACTS), status)),
        }
        if !seat.missing.is_empty() {
            let list = seat.missing.join(", ");
            findings.push(error(format!("the release lacks {list}"), "boot a release that is whole"));
        }
        findings.into()
    })
}

/// The hardware address that QEMU gives every machine that is not given one.
const QEMU_DEFAULT_MAC: &str = "52:54:00:12:34:56";

pub(super) fn machine_id(subject: &Subject) -> Outcome {
    let facts = subject.facts;
    given(&facts.machine_id, |id| {
        let mut findings: Vec<Finding> = Vec::new();
        if let Some(problem) = id.problem() {
            let fix = "empty the disk's /var/lib/kubeboot/machine-id (kubeboot reset) and boot again: it is made anew";
            findings.push(error(format!("the machine-id {problem}"), fix));
        }
        if facts.dmi.shared_uuid() {
            findings.push(warning(
                format!("the firmware's UUID ({}) is a default that many machines share", facts.dmi.uuid),
                "give this machine a UUID of its own in its firmware or its hypervisor",
            ));
        }
        // A lone founder does not mind; a second machine like it does.
        let uplink = facts.node_address(subject.settings).map(|address| address.interface);
        let interfaces = facts.network.known().map(|network| network.interfaces.as_slice()).unwrap_or_default();
        let is_uplink = |name: &str| uplink.as_ref().is_ok_and(|uplink| uplink == name);
        if subject.role != Role::Init
            && let Some(interface) = interfaces.iter().find(|one| is_uplink(&one.name) && one.mac == QEMU_DEFAULT_MAC)
        {
            findings.push(warning(
                format!("{} has QEMU's default hardware address {QEMU_DEFAULT_MAC}", interface.name),
                "give each machine one of its own (QEMU: -device …,mac=…)",
            ));
        }
        findings.into()
    })
}

pub(super) fn host_name(subject: &Subject) -> Outcome {
    let name = node_name(subject.facts, subject.settings);
    let Some(problem) = rfc1123_problem(&name) else { return Outcome::Pass };
    let example: String = name
        .to_lowercase()
        .chars()
        .map(|c| if matches!(c, 'a'..='z' | '0'..='9' | '-' | '.') { c } else { '-' })
        .take(63)
        .collect();
    let example = example.trim_matches(['-', '.']);
    let fix = match rfc1123_problem(example) {
        None => format!("give it another one: kubeboot.name={example}"),
        Some(_) => "give it another one: kubeboot.name=NAME".to_owned(),
    };
    error(format!("the node can't be named {name:?}: {problem}"), fix).into()
}
