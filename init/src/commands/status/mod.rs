//! `kubeboot status`: what this machine is, whether it is healthy, and with `--why` where each setting came from.

mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::place::{Needs, There};
use super::{Output, answer};
use crate::balancer::View;
use crate::certificates::expiry::Listed;
use crate::exit::Exit;
use crate::health::control_planes::{self, ControlPlane};
use crate::health::{self, Verdict};
use crate::host::gates::Gates;
use crate::host::node::ThisNode;
use crate::host::root::Root;
use crate::host::{clock, files, node, renewal, systemd};
use crate::operators::Request;
use crate::operators::known::fingerprint_text;
use crate::paths;
use crate::settings::frozen;
use crate::slots::{self, SeatFacts, Slots};
use crate::token::fingerprint;

/// The unit that sets a machine up.
const BOOT: &str = "kubeboot.service";

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kubeboot status\n  kubeboot --node 10.0.0.10 status\n  kubeboot status --why\n  kubeboot status --output json | jq .gates\n\n\
    Exit status: 0 when every gate passes, 1 when one does not or the role is not set up, 4 when stored state is damaged,\n\
    6 when the machine has no role yet."
)]
pub struct Args {
    /// Also show where each setting came from
    #[arg(long)]
    why: bool,
    /// How to answer
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// What the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Machine {
    /// It was given no role.
    NoRole,
    /// It is being set up as a node.
    Starting,
    /// It was given a role, and could not be set up: the last error says why.
    NotSetUp,
    /// Stored state can't be read, or can't be made again.
    Damaged,
    /// It is a node.
    Node,
}

/// Everything that status shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    /// What the machine is.
    state: Machine,
    /// The release that runs; none before `kubeboot slot`.
    seat: Option<SeatFacts>,
    /// What the slots hold; none when the table is damaged.
    slots: Option<Slots>,
    /// The node; none before it has a role.
    node: Option<NodeStatus>,
    /// The gates as observed now; empty before the node is configured.
    gates: Vec<Verdict>,
    /// On a worker: what its balancer thinks of the API servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    balancer: Option<View>,
    /// The cluster's control planes, as an API server has them; empty where none answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    control_planes: Vec<ControlPlane>,
    /// Every certificate of the node, with its expiry.
    certificates: Vec<Listed>,
    /// The clock that the certificates are judged by, in seconds since 1970.
    now: u64,
    /// Each setting's value and origin; only with `--why`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    settings: Vec<Setting>,
    /// The last error that a boot ended with; none when it ended well.
    last_error: Option<Value>,
    /// What could not be read, in words.
    problems: Vec<String>,
}

/// Who the machine is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct NodeStatus {
    role: String,
    name: String,
    address: String,
    cluster: String,
    /// Of the cluster's identity key: what `--fingerprint` takes.
    fingerprint: String,
    server: String,
}

/// A setting and where it came from.
#[derive(Debug, Serialize)]
struct Setting {
    key: String,
    value: Value,
    origin: String,
}

/// Runs the command.
pub fn run(args: &Args, there: &There) -> Exit {
    if there.node.is_some() {
        let request = Request::Status { why: args.why, json: args.output == Output::Json };
        return answer::end("status", args.output, there.open(Needs::Machine).and_then(|open| open.print(&request)));
    }
    let status = gather(&Root::system(), args.why);
    match args.output {
        Output::Text => print!("{}", text::text(&status)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&status).unwrap_or_default()),
    }
    exit(&status)
}

fn exit(status: &Status) -> Exit {
    match status.state {
        Machine::NoRole => Exit::NoRole,
        Machine::Damaged => Exit::Damaged,
        Machine::Node if health::all_pass(&status.gates) => Exit::Success,
        Machine::Starting | Machine::NotSetUp | Machine::Node => Exit::Failure,
    }
}

fn gather(root: &Root, why: bool) -> Status {
    let mut status = Status {
        state: Machine::NoRole,
        seat: node::seat(root).ok(),
        slots: None,
        node: None,
        gates: Vec::new(),
        balancer: read(root, paths::BALANCER).and_then(|bytes| serde_json::from_slice(&bytes).ok()),
        control_planes: Vec::new(),
        certificates: Vec::new(),
        now: clock::unix(),
        settings: Vec::new(),
        last_error: read(root, paths::LAST_ERROR).and_then(|bytes| serde_json::from_slice(&bytes).ok()),
        problems: Vec::new(),
    };
    match read(root, paths::SLOTS).map(|bytes| slots::read(&bytes)) {
        None => status.slots = Some(Slots::default()),
        Some(Ok(table)) => status.slots = Some(table),
        Some(Err(damaged)) => status.problems.push(damaged.to_string()),
    }
    let damaged = node::damaged(root);
    status.state =
        state(&status, files::exists(&root.path(paths::FROZEN)), damaged.is_some(), || systemd::starting(BOOT));
    let readable = damaged.is_none();
    status.problems.extend(damaged);
    if readable && files::exists(&root.path(paths::FROZEN)) {
        match ThisNode::load(root) {
            Ok(this) => node_status(root, &this, why, &mut status),
            Err(error) => status.problems.push(error),
        }
    }
    status
}

/// `founded`: the settings are frozen; `damaged`: a record of the node can't be read; `starting`: the boot is at work.
fn state(status: &Status, founded: bool, damaged: bool, starting: impl FnOnce() -> bool) -> Machine {
    let ended = status.last_error.as_ref().and_then(|error| error.get("exit")).and_then(Value::as_u64);
    match (founded, &status.last_error) {
        _ if damaged || ended == Some(Exit::Damaged.code().into()) => Machine::Damaged,
        (true, _) => Machine::Node,
        (false, Some(_)) => Machine::NotSetUp,
        (false, None) if starting() => Machine::Starting,
        (false, None) => Machine::NoRole,
    }
}

fn node_status(root: &Root, this: &ThisNode, why: bool, status: &mut Status) {
    let role = this.settings.role.and_then(|role| serde_json::to_value(role).ok());
    status.node = Some(NodeStatus {
        role: role.as_ref().and_then(Value::as_str).unwrap_or("none").to_owned(),
        name: this.node.name.clone(),
        address: this.node.address.to_string(),
        cluster: this.cluster.id.clone(),
        fingerprint: fingerprint_text(&fingerprint(&this.cluster.identity())),
        server: this.server(),
    });
    let mut silent = false;
    match Gates::new(root, this) {
        Ok(mut gates) => {
            gates.look_at_all();
            silent = gates.api_is_silent();
            status.gates = health::judge(gates.expected(), gates.seen());
        }
        Err(error) => status.problems.push(error.to_string()),
    }
    // Who does not answer is not asked twice: it takes long, and the gates say why.
    let nodes = (!silent).then(|| this.api(root).and_then(|api| api.get(control_planes::PATH)));
    match nodes {
        Some(Ok(nodes)) => status.control_planes = control_planes::control_planes(&nodes),
        Some(Err(error)) => status.problems.push(format!("the cluster's control planes are not known: {error}")),
        None => {
            status.problems.push("the cluster's control planes are not known: no API server answers".to_owned());
        }
    }
    (status.certificates, status.now) = renewal::certificates(root, this);
    if why {
        status.settings = origins(this);
    }
}

fn origins(this: &ThisNode) -> Vec<Setting> {
    let origins: BTreeMap<_, _> = this.frozen.origins.iter().collect();
    let origin = |key: &String| origins.get(key).map_or("the default".to_owned(), ToString::to_string);
    frozen::leaves(&this.settings)
        .into_iter()
        .filter(|(key, _)| !key.starts_with("os."))
        .map(|(key, value)| Setting { origin: origin(&key), value: frozen::concealed(&key, value), key })
        .collect()
}

fn read(root: &Root, path: &str) -> Option<Vec<u8>> {
    files::read_optional(&root.path(path)).ok().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_role_a_role_that_failed_and_a_damaged_node_are_three_things() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for path in ["/run", paths::RUN, "/var", "/var/lib", paths::STATE] {
            files::make_folder(&root.path(path), 0o755).unwrap();
        }
        let write = |path: &str, text: &str| files::write_volatile(&root.path(path), text.as_bytes(), 0o600).unwrap();
        let now = || {
            let status = gather(&root, false);
            (status.state, exit(&status))
        };
        assert_eq!(now(), (Machine::NoRole, Exit::NoRole));
        write(
            paths::LAST_ERROR,
            &json!({"command": "boot", "exit": 3, "what": "Preflight found an error"}).to_string(),
        );
        assert_eq!(now(), (Machine::NotSetUp, Exit::Failure));
        write(paths::LAST_ERROR, &json!({"command": "boot", "exit": 4, "what": "ca.key is missing"}).to_string());
        assert_eq!(now(), (Machine::Damaged, Exit::Damaged));
        files::remove(&root.path(paths::LAST_ERROR)).unwrap();
        for path in [paths::NODE, paths::CLUSTER, paths::FROZEN] {
            write(path, "{");
            assert_eq!(now(), (Machine::Damaged, Exit::Damaged), "{path}");
            files::remove(&root.path(path)).unwrap();
        }
        let frozen = serde_json::to_value(crate::settings::Settings::default()).unwrap();
        write(paths::FROZEN, &json!({"format": 1, "settings": frozen, "origins": {}}).to_string());
        assert_eq!(now(), (Machine::Damaged, Exit::Damaged), "a node without a record of its own");
    }

    #[test]
    fn a_boot_that_is_at_work_is_no_machine_without_a_role() {
        let folder = tempfile::tempdir().unwrap();
        let status = gather(&Root::at(folder.path()), false);
        assert_eq!(state(&status, false, false, || true), Machine::Starting);
        assert_eq!(state(&status, true, false, || true), Machine::Node);
    }
}
