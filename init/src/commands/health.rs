//! `kubeboot health`: waits until every gate of the release passes, and then says how to use the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::exit::Exit;
use crate::health::{self, Verdict};
use crate::host::console::Console;
use crate::host::gates::Gates;
use crate::host::node::ThisNode;
use crate::host::report::Report;
use crate::host::root::Root;
use crate::host::{clock, files, releases, systemd, wait};
use crate::operators::known::fingerprint_text;
use crate::operators::{key, objects};
use crate::paths;
use crate::timeline::{Outcome, What};
use crate::token::fingerprint;
use crate::words::{self, Member, Ready};

/// Between looks while a boot is young: short, because what is waited for is on the way to Ready.
const QUICK: Duration = Duration::from_millis(200);
/// Between looks while the API server starts: each is work for it, and the agent, on whom Ready waits, asks it too.
const STARTING: Duration = Duration::from_secs(1);
/// Between looks once a boot is old: the cause is then outside, and the CPU is better used by it.
const SLOW: Duration = Duration::from_secs(2);
/// When a boot is old, since the command began.
const OLD: Duration = Duration::from_secs(300);
/// How often the console hears what is still waited for.
const REMIND: Duration = Duration::from_secs(60);

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// What `health.json` holds.
#[derive(Debug, Serialize)]
struct Written<'a> {
    ready: bool,
    /// Seconds since the kernel started.
    at: f64,
    gates: &'a [Verdict],
}

/// Runs the command.
pub fn run(_: &Args) -> Exit {
    let root = Root::system();
    let mut report = Report::open(&root);
    match watch(&root, &mut report) {
        Ok(()) => Exit::Success,
        Err(error) => {
            eprintln!("kubeboot: {error}");
            report.emit(What::Error { command: "health".to_owned(), message: error });
            Exit::Failure
        }
    }
}

/// Ends when every gate passes. There is no deadline: a machine whose cluster is away waits, and says for what.
fn watch(root: &Root, report: &mut Report) -> Result<(), String> {
    let this = ThisNode::load(root)?;
    let mut gates = Gates::new(root, &this).map_err(|error| error.to_string())?;
    let mut console = Console::open(root);
    let start = clock::monotonic();
    let mut known: BTreeMap<String, Verdict> = BTreeMap::new();
    let mut reminded = start;
    loop {
        gates.look_again();
        let verdicts = health::judge(gates.expected(), gates.seen());
        let told = tell(&verdicts, &mut known, report);
        for words in &told.passed {
            console.say(|paint| words::step(Outcome::Done, words, clock::monotonic().saturating_sub(start), paint));
        }
        if told.changed {
            write(root, &verdicts)?;
            systemd::status(&waiting(&verdicts));
        }
        if health::all_pass(&verdicts) {
            report.emit(ready(&this));
            mark_ready(root);
            welcome(root, &this, &mut console);
            forget_seed(root);
            return Ok(());
        }
        let now = clock::monotonic();
        if now.saturating_sub(reminded) >= REMIND {
            let words = format!("still waiting for {}", waiting(&verdicts));
            console.say(|_| words.clone());
            reminded = now;
        }
        wait::pause_for(pause(now.saturating_sub(start), gates.api_is_ready()));
    }
}

/// The pause before the next look, after looking for so long.
fn pause(age: Duration, api: bool) -> Duration {
    match (age < OLD, api) {
        (true, true) => QUICK,
        (true, false) => STARTING,
        (false, _) => SLOW,
    }
}

/// What a look at the gates brought.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// Whether anything is other than before.
    changed: bool,
    /// Words for the console: gates that pass and did not before.
    passed: Vec<String>,
}

/// Reports what changed.
fn tell(verdicts: &[Verdict], known: &mut BTreeMap<String, Verdict>, report: &mut Report) -> Told {
    let mut told = Told::default();
    for verdict in verdicts {
        let before = known.insert(verdict.gate.clone(), verdict.clone());
        told.changed |= before.as_ref() != Some(verdict);
        if before.is_some_and(|before| before.pass) == verdict.pass {
            continue;
        }
        let Verdict { gate, pass, observed } = verdict.clone();
        if pass {
            told.passed.push(format!("{gate}: {observed}"));
        }
        if pass && let Some(name) = milestone(&gate) {
            report.emit(What::Phase { name: name.to_owned() });
        }
        report.emit(What::Gate { gate, pass, observed });
    }
    told
}

/// Gates whose passing is a phase of the boot.
fn milestone(gate: &str) -> Option<&'static str> {
    match gate {
        "api" => Some("api-ready"),
        "kubelet" => Some("node-ready"),
        _ => None,
    }
}

fn write(root: &Root, gates: &[Verdict]) -> Result<(), String> {
    let written = Written { ready: health::all_pass(gates), at: clock::monotonic().as_secs_f64(), gates };
    let text = serde_json::to_vec_pretty(&written).map_err(|error| error.to_string())?;
    files::write_volatile(&root.path(paths::HEALTH), &text, 0o644)
        .map_err(|error| format!("can't write {}: {error}", paths::HEALTH))
}

/// The first gate that was looked at and does not pass, and how many others.
fn waiting(verdicts: &[Verdict]) -> String {
    let failing: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.pass).collect();
    let looked_at = failing.iter().find(|verdict| verdict.observed != health::NOT_ASKED);
    match (looked_at.or(failing.first()), failing.len()) {
        (None, _) => "every gate passes".to_owned(),
        (Some(first), 1) => format!("{}: {}", first.gate, first.observed),
        (Some(first), count) => format!("{}: {} (and {} more)", first.gate, first.observed, count - 1),
    }
}

fn ready(this: &ThisNode) -> What {
    What::Ready {
        node: this.node.name.clone(),
        cluster: this.cluster.id.clone(),
        kubernetes: this.seat.kubernetes.clone(),
        server: this.server(),
    }
}

/// The last words of a boot that ended well.
fn welcome(root: &Root, this: &ThisNode, console: &mut Console) {
    if !this.is_control_plane() {
        let words = Member {
            node: &this.node.name,
            cluster: &this.cluster.id,
            kubernetes: &format!("v{}", this.seat.kubernetes),
            after: clock::monotonic(),
        };
        return console.say(|paint| words.text(paint));
    }
    let rows = objects::operators(&key::of_settings(&this.settings), &[]);
    let operators: Vec<String> = rows.into_iter().map(|(_, row)| row.fingerprint).collect();
    let (kubernetes, server) = (format!("v{}", this.seat.kubernetes), crate::kubernetes::server(this.node.address));
    let ready = Ready {
        node: &this.node.name,
        cluster: &this.cluster.id,
        fingerprint: &fingerprint_text(&fingerprint(&this.cluster.identity())),
        kubernetes: &kubernetes,
        server: &server,
        after: clock::monotonic(),
        operators: &operators,
        report: this.settings.report.as_deref(),
        shell: releases::has_shell(root),
        join: this.is_control_plane().then_some(this.node.address),
    };
    console.say(|paint| ready.text(paint));
}

/// Says for good that the node was Ready, or took machines in: from then on etcd's data may not be missing.
pub(super) fn mark_ready(root: &Root) {
    let mark = root.path(paths::WAS_READY);
    if files::exists(&mark) {
        return;
    }
    let text = format!("Ready for the first time at {} seconds since 1970\n", clock::unix());
    if let Err(error) = files::write_atomic(&mark, text.as_bytes(), 0o600) {
        eprintln!(
            "kubeboot: can't write {}: {error}. Should etcd's data be lost, the next boot won't notice; it tries to \
             write this again. Fix: check the disk that holds /var",
            paths::WAS_READY
        );
    }
}

/// A seed that the founder made itself was shown on the console by `kubeboot boot`; from Ready on it is not kept.
fn forget_seed(root: &Root) {
    if let Err(error) = files::remove(&root.path(paths::SEED)) {
        eprintln!("kubeboot: can't remove {}: {error}. Fix: remove it by hand", paths::SEED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(gate: &str, pass: bool, observed: &str) -> Verdict {
        Verdict { gate: gate.to_owned(), pass, observed: observed.to_owned() }
    }

    #[test]
    fn the_first_gate_that_waits_is_named() {
        let verdicts = [verdict("api", true, "x"), verdict("kubelet", false, "not Ready"), verdict("dns", false, "y")];
        assert_eq!(waiting(&verdicts), "kubelet: not Ready (and 1 more)");
        assert_eq!(waiting(&verdicts[..1]), "every gate passes");
        let unasked = [verdict("etcd", false, health::NOT_ASKED), verdict("kubelet", false, "not Ready")];
        assert_eq!(waiting(&unasked), "kubelet: not Ready (and 1 more)");
    }

    #[test]
    fn the_mark_of_a_first_ready_boot_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        files::make_folder(&root.path("/var"), 0o755).unwrap();
        files::make_folder(&root.path("/var/lib"), 0o755).unwrap();
        files::make_folder(&root.path(paths::STATE), 0o700).unwrap();
        mark_ready(&root);
        let read = || files::read_optional(&root.path(paths::WAS_READY)).unwrap();
        assert!(read().is_some_and(|text| text.starts_with(b"Ready for the first time at ")));
        files::write_atomic(&root.path(paths::WAS_READY), b"before", 0o600).unwrap();
        mark_ready(&root);
        assert_eq!(read().as_deref(), Some(&b"before"[..]));
    }

    #[test]
    fn a_gate_is_reported_when_it_passes_and_when_it_no_longer_does() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let mut report = Report::open(&root);
        let mut known = BTreeMap::new();
        for (pass, changes) in [(false, true), (false, false), (true, true), (false, true)] {
            let told = tell(&[verdict("api", pass, "seen")], &mut known, &mut report);
            assert_eq!((told.changed, told.passed.len()), (changes, usize::from(pass)));
        }
        let text = files::read_optional(&root.path(paths::EVENTS)).unwrap().unwrap_or_default();
        let (events, _) = crate::timeline::parse(&String::from_utf8_lossy(&text));
        let told: Vec<_> = events.iter().map(|event| &event.what).collect();
        assert!(matches!(
            told[..],
            [What::Phase { .. }, What::Gate { pass: true, .. }, What::Gate { pass: false, .. }]
        ));
    }
}
