//! Becoming a member of etcd's: waiting for the place, and taking it.

use std::time::Duration;

use super::{Gateway, Members, Word, client_url, first, keep, keep_endpoints, membership, others, peer_url};
use crate::etcd::circle::{Circle, Turn};
use crate::etcd::{self, Member, Membership, Next, Own, PATIENCE, Standing};
use crate::host::root::Root;
use crate::host::{clock, files, observe, wait};
use crate::paths;
use crate::plan::record::Node;
use crate::words::Block;

/// Pauses while another machine has the place, or etcd is not healthy enough to take anybody in: from this…
const FIRST: Duration = Duration::from_secs(1);
/// …doubled up to this.
const LAST: Duration = Duration::from_secs(8);
/// etcd's data, all of it.
const MEMBER: &str = "/var/lib/etcd/member";

/// The cluster, as its control planes can be asked by a machine that is a node of it.
pub trait Cluster {
    /// Whom [`Cluster::ask`] asks, for people.
    fn whom(&self) -> String;

    /// Asks whether this machine is a node, and where the API servers are. Bounded.
    fn ask(&self) -> Word;
}

/// Why a machine does not become a member.
pub enum NoMember {
    /// The cluster has removed it.
    Removed(Block),
    /// In words: what waiting does not mend.
    Failed(String),
}

impl From<String> for NoMember {
    fn from(why: String) -> Self {
        NoMember::Failed(why)
    }
}

/// Makes this machine a member of etcd's, which learns and has no vote yet, as long as it takes. It is on record when
/// this returns. The cluster is asked each time before a place is taken, for the node may have been removed while it
/// waited, and etcd knows nothing of that; and while no member answers that is known here. `say` hears of each new reason
/// for waiting.
///
/// # Errors
/// [`NoMember`].
pub fn join(root: &Root, node: &Node, cluster: &dyn Cluster, mut say: impl FnMut(&str)) -> Result<(), NoMember> {
    let mut backoff = wait::Backoff::new(FIRST, LAST);
    let etcd = Gateway(root);
    let mut joining = Joining::new(root, node, &etcd, cluster);
    joining.run(&clock::monotonic, &mut say, |pause| match pause {
        Pause::Next => backoff.pause(),
        Pause::None => backoff.reset(),
    })
}

/// What comes between two attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// Nothing: what follows is to be decided at once.
    None,
    /// A pause, longer than the one before.
    Next,
}

/// A machine that joins.
pub(super) struct Joining<'a> {
    root: &'a Root,
    node: &'a Node,
    etcd: &'a dyn Members,
    cluster: &'a dyn Cluster,
    circle: Circle,
    holder: Holder,
}

/// What came of one attempt.
enum Attempt {
    Done,
    /// Something changed: what follows is to be decided at once.
    Again,
    /// Why it has to wait.
    Later(String),
}

/// Who holds the place, and since when as this machine saw it.
#[derive(Default)]
struct Holder(Option<(u64, Duration)>);

impl Holder {
    /// Whether this one has held it for too long.
    fn is_late(&mut self, id: u64, now: Duration) -> bool {
        match self.0 {
            Some((known, since)) if known == id => now.saturating_sub(since) >= PATIENCE,
            _ => {
                self.0 = Some((id, now));
                false
            }
        }
    }
}

impl<'a> Joining<'a> {
    pub(super) fn new(root: &'a Root, node: &'a Node, etcd: &'a dyn Members, cluster: &'a dyn Cluster) -> Self {
        let (circle, holder) = (Circle::default(), Holder::default());
        Joining { root, node, etcd, cluster, circle, holder }
    }

    /// Until it is a member. `now` is a clock that is never set.
    pub(super) fn run(
        &mut self,
        now: &dyn Fn() -> Duration,
        say: &mut dyn FnMut(&str),
        mut pause: impl FnMut(Pause),
    ) -> Result<(), NoMember> {
        if let Some(membership) = membership(self.root)?
            && (membership.voter || has_log(self.root) || self.takes_up(&membership, now())?)
        {
            return Ok(());
        }
        let mut said = String::new();
        loop {
            let waiting = match self.attempt(now())? {
                Attempt::Done => return Ok(()),
                Attempt::Again => {
                    pause(Pause::None);
                    continue;
                }
                Attempt::Later(why) => why,
            };
            if waiting != said {
                say(&waiting);
                said = waiting;
            }
            pause(Pause::Next);
        }
    }

    /// Whether a learner that has not started yet still has its place. Whom etcd has to find at its first start may have
    /// changed since the place was taken. While nobody can be asked it starts with what it has, and the agent asks on.
    fn takes_up(&mut self, membership: &Membership, now: Duration) -> Result<bool, NoMember> {
        let mut asked = self.members();
        if asked.is_err() {
            self.circle.asked(now);
            self.learn()?;
            asked = self.members();
        }
        let Ok((_, members)) = asked else { return Ok(true) };
        if etcd::standing(&members, membership.id) == Standing::Gone {
            let path = self.root.path(paths::ETCD_MEMBERSHIP);
            files::remove(&path).map_err(|error| format!("remove {}: {error}", paths::ETCD_MEMBERSHIP))?;
            return Ok(false);
        }
        moved(self.root, membership, self.node, &members)?;
        Ok(true)
    }

    /// Who answers, and the members by its word.
    fn members(&mut self) -> Result<(String, Vec<Member>), String> {
        let own = self.node.address;
        let urls = self.circle.whom(&client_url(own), &others(self.root, own));
        let (url, members) = first(self.etcd, &urls)?;
        self.circle.answered(url, &members);
        Ok((url.to_owned(), members))
    }

    /// Asks the control planes where the API servers are, beside which etcd runs, and keeps what they say.
    fn learn(&mut self) -> Result<(), NoMember> {
        let whom = self.cluster.whom();
        let came = match self.cluster.ask() {
            Word::No(block) => return Err(NoMember::Removed(block)),
            Word::Later(why) => format!("none says where etcd is now: {why}"),
            Word::Yes(record) => {
                keep_endpoints(self.root, &record)?;
                record.words()
            }
        };
        self.circle.learned(&whom, &came);
        Ok(())
    }

    fn attempt(&mut self, now: Duration) -> Result<Attempt, NoMember> {
        let (url, members) = match self.members() {
            Ok(found) => found,
            Err(why) => return self.unanswered(&why, now),
        };
        let own = Own { name: self.node.name.clone(), peer: peer_url(self.node.address), has_log: has_log(self.root) };
        // What etcd refuses may pass: a member that has just joined has to be heard of for a while first.
        let call = |call: etcd::Call, what: &str| match self.etcd.call(&url, call) {
            Ok(()) => Attempt::Again,
            Err(why) => Attempt::Later(format!("etcd does not {what} yet: {why}")),
        };
        Ok(match etcd::next(&members, &own) {
            Next::Take(membership) => {
                keep(self.root, &membership)?;
                Attempt::Done
            }
            Next::Add => match self.cluster.ask() {
                Word::Yes(record) => {
                    keep_endpoints(self.root, &record)?;
                    call(etcd::add(&own.peer), "take this machine in")
                }
                Word::Later(why) => {
                    Attempt::Later(format!("the cluster can't be asked whether this is a node of it: {why}"))
                }
                Word::No(block) => return Err(NoMember::Removed(block)),
            },
            Next::Replace(id) => call(etcd::remove(id), "take this machine in anew"),
            Next::Discard => {
                discard(self.root)?;
                Attempt::Again
            }
            Next::Wait(member) if self.holder.is_late(member.id, now) => {
                call(etcd::remove(member.id), "give the place of a member that never became one to this machine")
            }
            Next::Wait(member) => Attempt::Later(format!(
                "{} joins etcd just now; control planes join one at a time, and this one is next",
                member.label()
            )),
            Next::Taken(member) => Attempt::Later(format!(
                "etcd has a voting member {} at {}, and its data is not on this machine. If that machine is lost, run on \
                 a control plane: kubeboot node remove {}",
                member.name,
                member.peers.join(", "),
                member.name
            )),
        })
    }

    /// No member answers that is known here: in time the control planes are asked for others.
    fn unanswered(&mut self, why: &str, now: Duration) -> Result<Attempt, NoMember> {
        if self.circle.silence(now) == Turn::AskControlPlanes {
            let before = others(self.root, self.node.address);
            self.learn()?;
            if others(self.root, self.node.address) != before {
                return Ok(Attempt::Again);
            }
        }
        Ok(Attempt::Later(format!("etcd can't be asked for a place: {}", self.circle.words(why))))
    }
}

fn has_log(root: &Root) -> bool {
    observe::etcd(root).log.is_ok_and(|bytes| bytes > 0)
}

/// The membership of a learner that etcd has not started as yet, when it has to find others than it was kept with: it is
/// kept as it is now.
pub(super) fn moved(
    root: &Root,
    membership: &Membership,
    node: &Node,
    members: &[Member],
) -> Result<Option<Membership>, String> {
    let now = Membership::learner(membership.id, &node.name, &peer_url(node.address), members);
    if has_log(root) || now.initial_cluster == membership.initial_cluster {
        return Ok(None);
    }
    keep(root, &now)?;
    Ok(Some(now))
}

/// Removes data that belongs to no member that there is. Never called where the node was Ready once.
fn discard(root: &Root) -> Result<(), String> {
    if files::exists(&root.path(paths::WAS_READY)) {
        return Err(format!(
            "{} has data, and there is no {}: this machine was a member of etcd's. Nothing was changed",
            paths::ETCD_DATA,
            paths::ETCD_MEMBERSHIP
        ));
    }
    let path = root.path(MEMBER);
    let removed = std::fs::remove_dir_all(&path).and_then(|()| files::sync_parent(&path));
    removed.map_err(|error| format!("remove {MEMBER}: {error}"))
}
