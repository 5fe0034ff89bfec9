//! `kubeboot timeline`: each phase of this boot from the kernel's start to Ready, as a table, a picture or JSON.

use std::collections::BTreeMap;

use clap::ValueEnum;

use crate::exit::Exit;
use crate::host::root::Root;
use crate::host::{files, node, systemd};
use crate::paths;
use crate::timeline::{self, Manager, Span, UnitTimes};

/// Units that a boot passes through.
const UNITS: [&str; 15] = [
    "kubeboot-etc.service",
    "local-fs.target",
    "sysinit.target",
    "systemd-networkd.service",
    "kubeboot-slot.service",
    "kubeboot.service",
    "containerd.service",
    "kubeboot-images.service",
    "kubeboot-archives.service",
    "kubelet.service",
    "kube-proxy.service",
    "flanneld.service",
    "kubeboot-agent.service",
    "kubeboot-health.service",
    "multi-user.target",
];

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kubeboot timeline\n  kubeboot timeline --output svg > boot.svg")]
pub struct Args {
    /// How to show it
    #[arg(long, short, value_enum, default_value_t = Form::Table)]
    output: Form,
}

/// Forms of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For a terminal
    Table,
    /// For programs
    Json,
    /// A picture
    Svg,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    let root = Root::system();
    match gather(&root) {
        Ok(spans) => {
            println!("{}", show(&root, args.output, &spans).trim_end());
            Exit::Success
        }
        Err(error) => {
            eprintln!("kubeboot: can't tell this boot's timeline: {error}");
            Exit::Failure
        }
    }
}

fn show(root: &Root, form: Form, spans: &[Span]) -> String {
    match form {
        Form::Table => timeline::table(spans),
        Form::Json => serde_json::to_string_pretty(spans).unwrap_or_default(),
        Form::Svg => {
            let seat = node::seat(root).map(|seat| format!(", release {}", seat.version)).unwrap_or_default();
            timeline::svg(spans, &format!("From the kernel's start to Ready{seat}"))
        }
    }
}

fn gather(root: &Root) -> Result<Vec<Span>, String> {
    let names = ["InitRDTimestampMonotonic", "UserspaceTimestampMonotonic", "FinishTimestampMonotonic"];
    let manager = systemd::properties(None, &names).map_err(|error| error.to_string())?;
    let manager = Manager {
        initrd: seconds(&manager, names[0]),
        userspace: seconds(&manager, names[1]),
        finish: seconds(&manager, names[2]),
    };
    let names = ["Id", "InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic"];
    let units = systemd::show(&UNITS, &names).map_err(|error| error.to_string())?;
    let units: Vec<UnitTimes> = units
        .iter()
        .map(|unit| UnitTimes {
            name: unit.get("Id").cloned().unwrap_or_default(),
            begin: seconds(unit, names[1]),
            active: seconds(unit, names[2]),
        })
        .collect();
    let text = files::read_optional(&root.path(paths::EVENTS))
        .map_err(|error| format!("can't read {}: {error}", paths::EVENTS))?
        .unwrap_or_default();
    let (events, unknown) = timeline::parse(&String::from_utf8_lossy(&text));
    if unknown > 0 {
        eprintln!("kubeboot: {unknown} lines of {} are no events and were left out", paths::EVENTS);
    }
    Ok(timeline::spans(&manager, &units, &events))
}

/// systemd counts in microseconds.
fn seconds(properties: &BTreeMap<String, String>, name: &str) -> f64 {
    properties.get(name).and_then(|value| value.parse::<f64>().ok()).unwrap_or_default() / 1e6
}
