//! Whether this machine can become, or go on being, a node: a table of checks, each a pure rule over [`Facts`] and
//! [`Settings`]. All of them run, so that all findings come at once, each with its fix.
//!
//! A check that could not be made ([`Outcome::Unchecked`]) is neither passed nor failed, and stops nothing.

use serde::Serialize;

use crate::facts::{Fact, Facts};
use crate::settings::{Role, Settings};

mod identity;
mod machine;
mod network;
mod report;
mod storage;
#[cfg(test)]
mod tests;

pub use machine::is_doubtful;
pub use report::Report;

/// How much a finding matters. Ordered: the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The node works, but worse than it could.
    Warning,
    /// The node can't work: nothing is set up.
    Error,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What was found, with figures and names.
    pub found: String,
    /// What to do about it.
    pub fix: String,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// One or more findings.
    Found(Vec<Finding>),
    /// Why nothing can be said.
    Unchecked(String),
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Short name, as documented in `docs/troubleshooting.md`.
    pub name: &'static str,
    /// The worst severity of its findings.
    pub severity: Severity,
    /// The worst severity on a machine that is a node already: some findings make a new node hopeless, but should not
    /// keep one down that has work to do.
    pub established: Severity,
    /// Roles that it applies to.
    pub roles: &'static [Role],
    /// Why it matters.
    pub why: &'static str,
    /// The rule.
    pub rule: fn(&Subject) -> Outcome,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The machine.
    pub facts: &'a Facts,
    /// What was asked for.
    pub settings: &'a Settings,
    /// What the machine is to become.
    pub role: Role,
}

const EVERY: &[Role] = &[Role::Init, Role::ControlPlane, Role::Worker];
const CONTROL_PLANE: &[Role] = &[Role::Init, Role::ControlPlane];

/// A check whose findings matter as much on a node as on a new machine.
const fn check(name: &'static str, severity: Severity, why: &'static str, rule: fn(&Subject) -> Outcome) -> Check {
    Check { name, severity, established: severity, roles: EVERY, why, rule }
}

/// A check whose errors only warn on a machine that is a node already.
const fn only_new(name: &'static str, why: &'static str, rule: fn(&Subject) -> Outcome) -> Check {
    Check { name, severity: Severity::Error, established: Severity::Warning, roles: EVERY, why, rule }
}

const fn on_control_planes(check: Check) -> Check {
    Check { roles: CONTROL_PLANE, ..check }
}

use Severity::{Error, Warning};

/// Every check, in the order in which they are shown: what the machine is, its disk, its names, its network.
pub const CHECKS: &[Check] = &[
    check("container", Error, "The kubelet needs a kernel, a cgroup tree and mounts of its own", machine::container),
    check("kernel-version", Error, "kube-proxy's nftables mode and cgroup v2 need a recent kernel", machine::version),
    check("kernel-modules", Error, "Pods' file systems, networks and Services are the kernel's work", machine::modules),
    check(
        "cgroup-controllers",
        Error,
        "The kubelet limits and accounts for pods by cgroup v2 controllers",
        machine::cgroups,
    ),
    only_new("memory", "A node without enough memory kills its own services", machine::memory),
    on_control_planes(check(
        "cpus",
        Warning,
        "A control plane on one CPU is slow to start and to answer",
        machine::cpus,
    )),
    check("swap", Error, "The kubelet refuses to start while swap is on", machine::swap),
    check("clock", Error, "Certificates are valid from one time to another", machine::clock),
    check("var-file-system", Error, "What makes the machine a node is kept on /var", storage::file_system),
    only_new("var-space", "etcd, images and logs fill /var; the kubelet evicts pods when it gets full", storage::space),
    on_control_planes(only_new(
        "var-latency",
        "etcd makes each change last before it answers; a slow disk makes it lose its leader",
        storage::latency,
    )),
    check("seat", Error, "Every program of the node runs from the release mounted there", identity::seat),
    check(
        "machine-id",
        Error,
        "Two machines with one id get the same address and take each other's logs",
        identity::machine_id,
    ),
    check("host-name", Error, "A node's name must be an RFC 1123 subdomain", identity::host_name),
    check("node-address", Error, "Other nodes and the API server reach this one by it", network::node_address),
    only_new("network-overlap", "An address that means two things reaches neither for sure", network::overlaps),
    check("ports", Error, "The node's services listen on fixed ports", network::ports),
    check("name-servers", Warning, "CoreDNS asks them for every name outside the cluster", network::name_servers),
    only_new("mtu", "A packet larger than the path allows is lost without a word", network::mtu),
];

/// Makes every check that applies to `role`.
pub fn run(facts: &Facts, settings: &Settings, role: Role) -> Report {
    let subject = Subject { facts, settings, role };
    let made = CHECKS.iter().filter(|check| check.roles.contains(&role)).map(|check| {
        let worst = if facts.established { check.established } else { check.severity };
        let outcome = match (check.rule)(&subject) {
            Outcome::Found(mut findings) => {
                findings.iter_mut().for_each(|finding| finding.severity = finding.severity.min(worst));
                Outcome::Found(findings)
            }
            other => other,
        };
        (check, outcome)
    });
    Report::new(role, made.collect())
}

fn error(found: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { severity: Error, found: found.into(), fix: fix.into() }
}

fn warning(found: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { severity: Warning, found: found.into(), fix: fix.into() }
}

/// Judges a known fact; an unknown one can't be.
fn given<T>(fact: &Fact<T>, rule: impl FnOnce(&T) -> Outcome) -> Outcome {
    match fact {
        Fact::Known(value) => rule(value),
        Fact::Unknown(why) => Outcome::Unchecked(why.clone()),
    }
}

impl From<Vec<Finding>> for Outcome {
    fn from(findings: Vec<Finding>) -> Self {
        if findings.is_empty() { Outcome::Pass } else { Outcome::Found(findings) }
    }
}

impl From<Finding> for Outcome {
    fn from(finding: Finding) -> Self {
        Outcome::Found(vec![finding])
    }
}

/// A number of bytes in words: `2 GiB`, `1.5 GiB`, `512 MiB`. Rounded down, so that what is too little never reads as
/// enough.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, shift)) = UNITS.into_iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes} bytes");
    };
    let (whole, tenths) = (bytes >> shift, ((bytes & ((1 << shift) - 1)) * 10) >> shift);
    if whole < 10 && tenths > 0 { format!("{whole}.{tenths} {unit}") } else { format!("{whole} {unit}") }
}
