//! `kubeboot boot`: sources → settings → facts → preflight → plan → act. Every boot runs this same path; on a finished
//! machine the plan is empty, and only what goes at power-off is rendered anew.

mod joining;
mod situation;
mod told;

use std::time::Duration;

use crate::discovery::{Found, Key, words as discovered};
use crate::exit::Exit;
use crate::host::founder::{self, own_seed};
use crate::host::root::Root;
use crate::host::{clock, discovery, files, mounts, node, os, report::Report, sources, systemd};
use crate::kubernetes::{self, Site};
use crate::paths;
use crate::plan::record::Cluster;
use crate::plan::worker::NEW;
use crate::plan::{self, Founder, Step};
use crate::timeline::{Outcome, What};
use crate::token::{Joiner, Seed, fingerprint};
use crate::words::{self, Block};

use situation::Member;
pub use situation::{Goal, Patience, Situation, damaged_settings, in_force, role, unfit};
pub use told::{Stop, Told};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// How long systemd-networkd may take to start again.
const NETWORKD: Duration = Duration::from_secs(30);
/// How long a founder listens for a cluster of its seed.
const ALONE: Duration = Duration::from_secs(2);

/// Runs the command.
pub fn run(_: &Args) -> Exit {
    let root = Root::system();
    let mut told = Told::open_again(&root, "boot");
    match boot(&root, &mut told) {
        Ok(exit) => {
            told.release();
            exit
        }
        Err(stop) => told.stop(&root, &stop),
    }
}

fn boot(root: &Root, told: &mut Told) -> Result<Exit, Stop> {
    let force = match in_force(root, told) {
        Ok(force) => force,
        Err(stop) => {
            report_to(root, told, sources::report(root).as_deref());
            return Err(stop);
        }
    };
    let settings = &force.settings;
    report_to(root, told, settings.report.as_deref());
    operating_system(root, told, settings);
    let Some(wanted) = role(&force)? else {
        systemd::status("no role was given: asking on the console");
        start(told, "kubeboot-console.service");
        return Ok(Exit::NoRole);
    };
    let mut situation = Situation::gather(root, told, &force, wanted, Patience::Boot)?;
    // Preflight found no error: from here on, /var is written to.
    mount(root)?;
    let name = &situation.node().name;
    if let Err(error) = os::set_host_name(name) {
        told.note(&format!("the kernel does not take the host name {name}: {error}"));
    }
    let _lock = founder::lock(root).map_err(|error| failed(&format!("lock the node's files: {error}")))?;
    if situation.knows_its_cluster() {
        // Neither containerd nor the local image needs a certificate: both come up while they are made.
        let site = situation.site(root, "").map_err(|why| failed(&why))?;
        founder::render(root, &site, &kubernetes::runtime(&site)).map_err(|error| failed(&error))?;
        start(told, "kubeboot-images.service");
    }
    act(root, told, &mut situation)?;
    render(root, told, &situation)?;
    leave_settings(root, situation.settings())?;
    let _ = files::remove(&root.path(paths::LAST_ERROR));
    start(told, "kubeboot-node.target");
    told.emit(What::Phase { name: "configured".into() });
    match &situation.goal {
        Goal::Founder { founder, .. } => publish_operators(root, told, founder),
        Goal::Member(member) if member.joiner == Joiner::ControlPlane => {
            publish_operators(root, told, &member.as_founder());
        }
        Goal::Member(member) => joining::note_labels(told, member),
    }
    told.flush();
    // Kept until the node was Ready once, and shown at each boot until then.
    if let Some(seed) = own_seed(root) {
        told.secret(|paint| words::seed(seed.trim(), paint));
    }
    systemd::status("configured; the node's services are starting");
    Ok(Exit::Success)
}

fn publish_operators(root: &Root, told: &mut Told, founder: &Founder) {
    founder::operators(root, founder).into_iter().for_each(|event| told.emit(event));
}

/// Sends this boot's events to a serial device from now on, and those that were recorded before.
fn report_to(root: &Root, told: &mut Told, device: Option<&str>) {
    if let Some(device) = device
        && let Err(error) = Report::configure(root, device)
    {
        told.note(&format!("events can't be sent to {device}: {error}"));
    }
    told.reopen_report(root);
}

/// `/etc/kubernetes` is kept on `/var`, except for the static pods: what runs was rendered at this boot.
fn mount(root: &Root) -> Result<(), Stop> {
    let failed = |path: &str, error: std::io::Error| failed(&format!("mount {path}: {error}"));
    let (state, etc, manifests) =
        (root.path(paths::KUBERNETES_STATE), root.path(paths::KUBERNETES), root.path(paths::MANIFESTS));
    for path in [&root.path(paths::STATE), &state, &etc] {
        let mode = if path.ends_with("lib/kubeboot") { 0o700 } else { 0o755 };
        files::make_folder(path, mode).map_err(|error| failed(&path.to_string_lossy(), error))?;
    }
    if !mounts::is_mount_point(&etc) {
        mounts::bind(&state, &etc).map_err(|error| failed(paths::KUBERNETES, error))?;
    }
    if !mounts::is_mount_point(&manifests) {
        files::make_folder(&manifests, 0o700)
            .and_then(|()| mounts::tmpfs(&manifests, 0o700, "1m"))
            .map_err(|error| failed(paths::MANIFESTS, error))?;
    }
    Ok(())
}

fn operating_system(root: &Root, told: &mut Told, settings: &crate::settings::Settings) {
    let applied = os::apply(root, &settings.os);
    for refused in &applied.refused {
        told.note(refused);
    }
    for unit in applied.restart {
        let restarted = match unit {
            // Until it has started, what it says of its links is of before.
            os::NETWORKD => systemd::await_restart_if_running(unit, NETWORKD),
            unit => systemd::restart_if_running(unit),
        };
        if let Err(error) = restarted {
            told.note(&format!("{unit} was not told of its new configuration: {error}"));
        }
    }
}

/// Compares, and does what is missing.
fn act(root: &Root, told: &mut Told, situation: &mut Situation) -> Result<(), Stop> {
    let steps = situation.plan(root).map_err(|why| Stop::damaged(&why))?;
    for step in steps.iter().filter(|step| is_repair(step)) {
        told.note(&format!("{step}: {}", step.because()));
    }
    match &mut situation.goal {
        Goal::Founder { founder, seed } => {
            if let Some(seed) = seed.as_ref().filter(|_| steps.contains(&Step::Cluster)) {
                is_first_of(told, seed, founder)?;
            }
            found(root, told, founder, &steps, seed.take())
        }
        Goal::Member(member) if member.joiner == Joiner::Worker => joining::act(root, told, member, &steps),
        Goal::Member(member) => control_plane(root, told, member, &steps),
    }
}

/// Looks whether the seed that was given has a cluster already, as after a second start with the same parameters on
/// another machine. As good as can be: two that are founded at the same moment, or that don't hear each other, are noticed
/// later (`docs/discovery.md`).
fn is_first_of(told: &mut Told, seed: &Seed, founder: &Founder) -> Result<(), Stop> {
    let (start, address) = (clock::monotonic(), founder.node.address);
    systemd::status(&format!("looking for a cluster of this seed {}", discovered::place(address)));
    let key = Key::of(&fingerprint(&seed.founding_key().public()));
    match discovery::look(address, &key, ALONE) {
        Ok(found) if found == Found::default() => {}
        Ok(found) => return Err(Stop { exit: Exit::Refused, block: discovered::founded_already(&found) }),
        Err(why) => told.note(&format!("whether this seed has a cluster already can't be found out: {why}")),
    }
    told.step("look for another cluster of this seed", Outcome::Done, clock::monotonic().saturating_sub(start));
    Ok(())
}

/// A control plane's part: it joins, if it has not; makes what a control plane has; and becomes a member of etcd's.
fn control_plane(root: &Root, told: &mut Told, member: &mut Member, steps: &[Step]) -> Result<(), Stop> {
    match member.token {
        None => found(root, told, &member.as_founder(), steps, None)?,
        Some(_) => {
            joining::act(root, told, member, steps)?;
            let founder = member.as_founder();
            let sight = founder::look(root, &founder);
            let rest = plan::plan(&founder, &sight, clock::unix()).map_err(|why| Stop::damaged(&why))?;
            found(root, told, &founder, &rest, None)?;
        }
    }
    joining::etcd(root, told, member)
}

fn found(root: &Root, told: &mut Told, founder: &Founder, steps: &[Step], seed: Option<Seed>) -> Result<(), Stop> {
    let done = |step: &Step, took| told.step(&step.to_string(), Outcome::Done, took);
    founder::act(root, founder, steps, seed, done).map_err(|error| failed(&error.to_string()))
}

/// Whether a step makes something again that was there before: worth a word of its own.
fn is_repair(step: &Step) -> bool {
    matches!(step, Step::Remove { .. }) || !matches!(step.because(), "" | "missing" | "first success" | NEW)
}

/// Renders what goes at power-off.
fn render(root: &Root, told: &mut Told, situation: &Situation) -> Result<(), Stop> {
    let start = clock::monotonic();
    let record = files::read_optional(&root.path(paths::CLUSTER)).ok().flatten().unwrap_or_default();
    let cluster = Cluster::parse(&record).map_err(|why| failed(&format!("read {}: {why}", paths::CLUSTER)))?;
    let site: Site<'_> = situation.site(root, &cluster.id).map_err(|why| failed(&why))?;
    let written = founder::render(root, &site, &kubernetes::renders(&site)).map_err(|error| failed(&error))?;
    let took = clock::monotonic().saturating_sub(start);
    let release = node::seat(root).map(|seat| seat.kubernetes).unwrap_or_else(|_| "unknown".to_owned());
    told.step(&format!("render {} files for Kubernetes {release}", written.len()), Outcome::Done, took);
    Ok(())
}

/// For the agent, health and status of this boot, which do not see every source.
fn leave_settings(root: &Root, settings: &crate::settings::Settings) -> Result<(), Stop> {
    let text = serde_json::to_vec_pretty(settings).map_err(|error| failed(&error.to_string()))?;
    files::write_volatile(&root.path(paths::IN_FORCE), &text, 0o600)
        .map_err(|error| failed(&format!("write {}: {error}", paths::IN_FORCE)))
}

fn start(told: &mut Told, unit: &str) {
    if let Err(error) = systemd::start(unit) {
        told.note(&format!("{unit} was not started: {error}"));
    }
}

/// What could not be done, for a reason that may pass.
pub fn failed(why: &str) -> Stop {
    Stop {
        exit: Exit::Failure,
        block: Block {
            what: "This machine could not be set up as a node".to_owned(),
            why: vec![why.to_owned()],
            state: "What was on disk before still is; the next attempt goes on from there.".to_owned(),
            fix: vec![words::disk_fix(why).unwrap_or("remove the cause.").to_owned()],
        },
    }
}
