//! `kubeboot status`: what this machine is, whether it is healthy, and with `--why` where each setting came from.

mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::Output;
use crate::certificates::expiry::Listed;
use crate::exit::Exit;
use crate::health::{self, Verdict};
use crate::host::gates::Gates;
use crate::host::node::ThisNode;
use crate::host::root::Root;
use crate::host::{clock, files, founder, node, renewal};
use crate::paths;
use crate::settings::frozen;
use crate::slots::{self, SeatFacts, Slots};

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kubeboot status\n  kubeboot status --why\n  kubeboot status --output json | jq .gates\n\n\
    Exit status: 0 when every gate passes, 1 when one does not, 6 when the machine has no role yet."
)]
pub struct Args {
    /// Also show where each setting came from
    #[arg(long)]
    why: bool,
    /// How to answer
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Everything that status shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    /// The release that runs; none before `kubeboot slot`.
    seat: Option<SeatFacts>,
    /// What the slots hold; none when the table is damaged.
    slots: Option<Slots>,
    /// The node; none before it has a role.
    node: Option<NodeStatus>,
    /// The gates as observed now; empty before the node is configured.
    gates: Vec<Verdict>,
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
pub fn run(args: &Args) -> Exit {
    let status = gather(&Root::system(), args.why);
    match args.output {
        Output::Text => print!("{}", text::text(&status)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&status).unwrap_or_default()),
    }
    match &status.node {
        None => Exit::NoRole,
        Some(_) if health::all_pass(&status.gates) => Exit::Success,
        Some(_) => Exit::Failure,
    }
}

fn gather(root: &Root, why: bool) -> Status {
    let mut status = Status {
        seat: node::seat(root).ok(),
        slots: None,
        node: None,
        gates: Vec::new(),
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
    if !files::exists(&root.path(paths::FROZEN)) {
        return status;
    }
    match ThisNode::load(root) {
        Ok(this) => node_status(root, &this, why, &mut status),
        Err(error) => status.problems.push(error),
    }
    status
}

fn node_status(root: &Root, this: &ThisNode, why: bool, status: &mut Status) {
    let role = this.settings.role.and_then(|role| serde_json::to_value(role).ok());
    status.node = Some(NodeStatus {
        role: role.as_ref().and_then(Value::as_str).unwrap_or("none").to_owned(),
        name: this.node.name.clone(),
        address: this.node.address.to_string(),
        cluster: this.cluster.id.clone(),
        server: crate::kubernetes::server(this.node.address),
    });
    match Gates::new(root, this) {
        Ok(mut gates) => {
            gates.look_at_all();
            status.gates = health::judge(gates.expected(), gates.seen());
        }
        Err(error) => status.problems.push(error.to_string()),
    }
    (status.certificates, status.now) = founder::certificates(root, &renewal::as_founder(this));
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
