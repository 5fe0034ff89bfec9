//! The part of a boot that only a machine that joins has: what has to be asked of a control plane, as long as it takes.

use std::time::Duration;

use crate::discovery::words as found;
use crate::enrolment::seeking::Host;
use crate::exit::Exit;
use crate::host::etcd::{NoMember, Word};
use crate::host::joining::{Asker, By, Granted, hosts_of, known_hosts, whom};
use crate::host::root::Root;
use crate::host::{clock, etcd, files, node, systemd, worker};
use crate::kubernetes::kubelet;
use crate::paths;
use crate::plan::Step;
use crate::plan::record::Cluster;
use crate::plan::worker::split;
use crate::timeline::{Outcome, What};
use crate::words::Block;

use super::failed;
use super::situation::Member;
use super::told::{Stop, Told};

/// A look at etcd that changed nothing is not worth a line.
const WORTH_TELLING: Duration = Duration::from_millis(100);

/// Takes the steps of the plan of a machine that joins. A machine that joins has the cluster's settings in force afterwards.
///
/// # Errors
/// A control plane refuses for good; a step fails.
pub fn act(root: &Root, told: &mut Told, member: &mut Member, steps: &[Step]) -> Result<(), Stop> {
    let (before, after) = split(steps).unwrap_or((steps, &[]));
    take(root, told, before, None)?;
    if after.is_empty() {
        return Ok(());
    }
    let start = clock::monotonic();
    let granted = ask(root, told, member)?;
    told.step("be admitted by a control plane", Outcome::Done, clock::monotonic().saturating_sub(start));
    if member.token.is_some() {
        for one in &granted.differences {
            told.note(&format!("{one}: all nodes of the cluster share it"));
        }
        member.settings = granted.frozen.settings.clone();
        member.own = granted.frozen.clone();
    }
    take(root, told, after, Some(&granted))
}

fn take(root: &Root, told: &mut Told, steps: &[Step], granted: Option<&Granted>) -> Result<(), Stop> {
    let done = |step: &Step, took: Duration| told.step(&step.to_string(), Outcome::Done, took);
    worker::act(root, steps, granted, done).map_err(|error| failed(&error.to_string()))
}

/// Asks until a control plane has granted what is needed. Each new reason for waiting is told once.
fn ask(root: &Root, told: &mut Told, member: &Member) -> Result<Granted, Stop> {
    let start = clock::monotonic();
    let (by, hosts) = match &member.token {
        Some(token) => (By::Token(token.clone()), hosts_of(&member.settings.join)),
        None => by_node_key(root, member).map_err(|why| failed(&why))?,
    };
    let names: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let place =
        if names.is_empty() { found::place(member.worker.node.address) } else { format!("at {}", names.join(", ")) };
    systemd::status(&format!("asking to be a node of the cluster {place}"));
    let asker = asker(root, member, by, hosts).map_err(|why| failed(&why))?;
    let refused = |block: Block| Stop { exit: Exit::Refused, block };
    asker
        .ask(|block| {
            systemd::status(&block.line());
            // News, whatever the attempt before ended with.
            told.release();
            told.say(|paint| block.text(paint));
            // Waiting is no error: who watches a machine must not give it up for this.
            let (step, outcome) = (format!("ask a control plane: {}", block.line()), Outcome::Failed);
            told.emit(What::Step { step, outcome, seconds: clock::monotonic().saturating_sub(start).as_secs_f64() });
        })
        .map_err(refused)
}

/// As what the machine comes back, and whom it asks.
fn by_node_key(root: &Root, member: &Member) -> Result<(By, Vec<Host>), String> {
    let record = files::read_optional(&root.path(paths::CLUSTER)).ok().flatten().unwrap_or_default();
    let cluster = Cluster::parse(&record).map_err(|why| format!("read {}: {why}", paths::CLUSTER))?;
    Ok((By::NodeKey(cluster), known_hosts(root, &member.settings.join)))
}

fn asker(root: &Root, member: &Member, by: By, hosts: Vec<Host>) -> Result<Asker, String> {
    let release = node::seat(root)?.version.parse();
    let release = release.map_err(|error: crate::release::VersionError| error.to_string())?;
    Asker::new(root, by, &member.worker.node, release, hosts, member.own.clone())
}

/// The cluster of a machine that is a node of it.
struct ByNodeKey<'a> {
    root: &'a Root,
    member: &'a Member,
}

impl etcd::Cluster for ByNodeKey<'_> {
    fn whom(&self) -> String {
        let join = &self.member.settings.join;
        whom(&known_hosts(self.root, join), join, self.member.worker.node.address)
    }

    fn ask(&self) -> Word {
        let returning =
            by_node_key(self.root, self.member).and_then(|(by, hosts)| asker(self.root, self.member, by, hosts));
        returning.map_or_else(Word::Later, Asker::is_node)
    }
}

/// Becomes a member of etcd's, if it is none yet: waits until it is this machine's turn. Each new reason for waiting is told
/// once.
///
/// # Errors
/// The cluster has removed the machine, or what waiting does not mend.
pub fn etcd(root: &Root, told: &mut Told, member: &Member) -> Result<(), Stop> {
    let start = clock::monotonic();
    let took = || clock::monotonic().saturating_sub(start);
    let cluster = ByNodeKey { root, member };
    let done = etcd::join(root, &member.worker.node, &cluster, |why| {
        systemd::status(why);
        told.release();
        told.note(why);
        let step = format!("become a member of etcd: {why}");
        told.emit(What::Step { step, outcome: Outcome::Failed, seconds: took().as_secs_f64() });
    });
    done.map_err(|why| match why {
        NoMember::Removed(block) => Stop { exit: Exit::Refused, block },
        NoMember::Failed(why) => failed(&why),
    })?;
    if took() >= WORTH_TELLING {
        told.step("become a member of etcd", Outcome::Done, took());
    }
    Ok(())
}

/// Tells of labels that a worker can't have.
pub fn note_labels(told: &mut Told, member: &Member) {
    for label in kubelet::refused_labels(&member.settings) {
        told.note(&format!(
            "the label {label} is not set: a worker may not give it to itself. On a control plane: kubectl label node {} {label}=…",
            member.worker.node.name
        ));
    }
}
