//! A worker's plan: what a machine that joined a cluster has to have on disk, in the order in which it is made.
//!
//! All that outlives a power-off and is the cluster's comes from one exchange with a control plane, which is a step of the
//! plan. The node key is on disk before the machine asks, and asking again with it takes no second use of a token: so a
//! power cut anywhere leaves a machine that asks again at its next boot.

use crate::certificates::expiry::Standing;
use crate::certificates::profile::of_every_node;
use crate::certificates::{Authority, Fault, Inspected, Leaf, Request, Unix, check};
use crate::enrolment::objects::unhex;
use crate::enrolment::statement::{self, Statement};
use crate::kubernetes::kubeconfig;
use crate::paths;
use crate::token::Joiner;

use super::parts::write;
use super::record::{Cluster, Endpoints, Node};
use super::sight::{Entry, Sight};
use super::{Damaged, Step, parts, state};

/// What should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The node's name, address and machine-id: the pinned ones, once there are any.
    pub node: Node,
}

/// A part of what should be. Each is compared with what is, in the order of [`ORDER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Strays,
    Directories,
    Node,
    Key,
    Enrolment,
    Kubeconfigs,
    Freeze,
    /// Everything before is on disk before anything after it is begun.
    Flush,
}

/// The worker's order. The node key is on disk before the machine asks; the settings are frozen, which says that it is a
/// node, only when everything else is on disk.
const ORDER: &[Part] = &[
    Part::Strays,
    Part::Directories,
    Part::Node,
    Part::Key,
    Part::Flush,
    Part::Enrolment,
    Part::Kubeconfigs,
    Part::Flush,
    Part::Freeze,
    Part::Flush,
];

/// The authorities that a worker knows: those that its own certificates come from.
pub const AUTHORITIES: [Authority; 2] = [Authority::Cluster, Authority::KubeletServing];

/// Why a machine joins.
pub const NEW: &str = "this machine is no node yet";

/// Which certificates are asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Those without which the node can't work: a boot waits for no more than these.
    Lost,
    /// Those that are due, too: the agent's renewals, while the node runs.
    Due,
}

impl Worker {
    /// Every path that the plan wants to know of.
    pub fn paths(&self) -> Vec<String> {
        // The mesh's key only for what a power cut left beside it: the plan has nothing to say of the key itself.
        let mut files: Vec<String> = [
            paths::CLUSTER,
            paths::NODE,
            paths::NODE_KEY,
            paths::MESH_KEY,
            paths::ENDPOINTS,
            paths::STATEMENT,
            paths::FROZEN,
        ]
        .map(str::to_owned)
        .into();
        files.extend(AUTHORITIES.map(|authority| authority.certificate().to_owned()));
        files.extend(Leaf::OF_EVERY_NODE.iter().flat_map(|leaf| leaf.form().paths()).map(str::to_owned));
        files.extend(kubeconfigs().into_iter().map(|(path, _)| path.to_owned()));
        parts::add_strays(&mut files);
        files.extend(parts::directory_paths(&[]));
        files
    }

    /// The certificates that this node has, and what they say for its node key. Which of them its services use is the
    /// cluster's choice, which a machine learns with them: it has all.
    pub fn leaves(&self, key: &[u8; 32]) -> [(Leaf, Request); 4] {
        of_every_node(&self.node.name, self.node.address, key)
    }
}

/// Kubeconfigs that refer to files, with their contents. All go through the balancer.
fn kubeconfigs() -> Vec<(&'static str, String)> {
    kubeconfig::of_node(&kubeconfig::through_balancer()).map(|(_, path, text)| (path, text)).into()
}

/// Whether the machine has joined: from then on it comes back by its node key, and never again by a token.
pub fn joined(sight: &Sight) -> bool {
    sight.exists(paths::FROZEN)
}

/// Compares what should be with what is.
///
/// # Errors
/// [`Damaged`]: something that a node can't get again is missing or damaged.
pub fn plan(worker: &Worker, sight: &Sight, now: Unix, when: When) -> Result<Vec<Step>, Damaged> {
    plan_for(worker, sight, now, when, &Beside { directories: &[], kubeconfigs: &kubeconfigs() })
}

/// What goes beside that which every machine that joins has.
pub(super) struct Beside<'a> {
    /// Further directories.
    pub(super) directories: &'a [parts::Directory],
    /// Kubeconfigs that refer to files, with their contents.
    pub(super) kubeconfigs: &'a [(&'static str, String)],
}

/// The plan of a machine that joins, whatever as.
pub(super) fn plan_for(
    worker: &Worker,
    sight: &Sight,
    now: Unix,
    when: When,
    beside: &Beside<'_>,
) -> Result<Vec<Step>, Damaged> {
    let found = Found { worker, sight, now, joined: joined(sight) };
    let mut steps = Vec::new();
    let mut flushed = 0;
    for part in ORDER {
        match part {
            Part::Strays => steps.extend(parts::strays(sight)),
            Part::Directories => steps.extend(parts::directories(sight, beside.directories)),
            Part::Node => steps.extend(found.node()?),
            Part::Key => steps.extend(found.key()?),
            Part::Enrolment => steps.extend(found.enrolment(when)?),
            Part::Kubeconfigs => steps.extend(parts::kubeconfigs(sight, beside.kubeconfigs.to_vec())),
            Part::Freeze => steps.extend(found.freeze()),
            Part::Flush if steps.len() > flushed => steps.push(Step::Flush),
            Part::Flush => {}
        }
        if *part == Part::Flush {
            flushed = steps.len();
        }
    }
    Ok(steps)
}

/// Where a plan has to ask a control plane: the steps before, and those from there on. None when it has not to.
pub fn split(steps: &[Step]) -> Option<(&[Step], &[Step])> {
    let at = steps.iter().position(|step| matches!(step, Step::Join { .. } | Step::Return { .. }))?;
    Some(steps.split_at(at))
}

fn asked_for_statement(fault: Fault) -> Step {
    Step::Return { leaves: Vec::new(), because: format!("{}: {fault}", paths::STATEMENT) }
}

/// What is, beside what should be.
struct Found<'a> {
    worker: &'a Worker,
    sight: &'a Sight,
    now: Unix,
    joined: bool,
}

impl Found<'_> {
    fn node(&self) -> Result<Option<Step>, Damaged> {
        let Some(because) = parts::node(self.sight, &self.worker.node) else { return Ok(None) };
        if self.joined && !self.has_moved() {
            return Err(Damaged::lost(paths::NODE, "the node's name and address", because));
        }
        Ok(Some(write(paths::NODE, 0o644, self.worker.node.text(), because)))
    }

    /// Whether the machine has another address than before and is otherwise the same. Its certificate then differs from what
    /// it should say, and is asked for again.
    fn has_moved(&self) -> bool {
        let before = state::file(self.sight, paths::NODE).ok().and_then(|bytes| Node::parse(bytes).ok());
        before.is_some_and(|before| Node { address: self.worker.node.address, ..before } == self.worker.node)
    }

    fn key(&self) -> Result<Option<Step>, Damaged> {
        match state::file(self.sight, paths::NODE_KEY).and_then(check::ed25519_public_half) {
            Ok(_) => Ok(self.mode(paths::NODE_KEY, 0o600)),
            Err(fault) if self.joined => Err(Damaged::lost(paths::NODE_KEY, "the node's key", fault.to_string())),
            Err(fault) => Ok(Some(Step::NodeKey { because: fault.to_string() })),
        }
    }

    /// What a control plane has to be asked for.
    fn enrolment(&self, when: When) -> Result<Vec<Step>, Damaged> {
        if !self.joined {
            return Ok(vec![Step::Join { because: NEW.to_owned() }]);
        }
        self.cluster()?;
        let faults = self.faults(when)?;
        let statement = self.statement(when);
        let Some((_, first)) = faults.first() else {
            return Ok(self.endpoints().or_else(|| statement.map(asked_for_statement)).into_iter().collect());
        };
        let same = faults.iter().all(|(_, fault)| fault == first);
        let because = match same {
            true => first.to_string(),
            false => faults.iter().map(|(leaf, fault)| format!("{leaf}: {fault}")).collect::<Vec<_>>().join(", "),
        };
        // Each return brings a new statement with it, whatever it is for.
        Ok(vec![Step::Return { leaves: faults.iter().map(|(leaf, _)| *leaf).collect(), because }])
    }

    /// Without this record the balancer knows no API server, and so nobody on this machine can ask for it.
    fn endpoints(&self) -> Option<Step> {
        let found = match state::file(self.sight, paths::ENDPOINTS).map(Endpoints::parse) {
            Ok(Ok(_)) => return None,
            Ok(Err(reason)) => format!("unreadable: {reason}"),
            Err(fault) => fault.to_string(),
        };
        Some(Step::Return { leaves: Vec::new(), because: format!("{}: {found}", paths::ENDPOINTS) })
    }

    /// What is wrong with what the cluster says of this worker. No boot waits for it: operators alone do. A machine that
    /// joined by a release that knew no statements has none.
    fn statement(&self, when: When) -> Option<Fault> {
        if when == When::Lost {
            return None;
        }
        let statement = match state::file(self.sight, paths::STATEMENT).map(Statement::parse) {
            Ok(Ok(statement)) => statement,
            Ok(Err(malformed)) => return Some(Fault::Unreadable(malformed.to_string())),
            Err(fault) => return Some(fault),
        };
        let key = state::file(self.sight, paths::NODE_KEY).and_then(check::ed25519_public_half).ok();
        let cluster = state::file(self.sight, paths::CLUSTER).ok().and_then(|text| Cluster::parse(text).ok());
        let key: [u8; 32] = key.and_then(|key| key.try_into().ok()).unwrap_or_default();
        let (id, identity) =
            (cluster.as_ref().and_then(|cluster| unhex(&cluster.id)), cluster.map(|one| one.identity()));
        match statement.verify(&id.unwrap_or_default(), &identity.unwrap_or_default(), self.now) {
            _ if !statement.is_of(Joiner::Worker, &self.worker.node.name, &key) => Some(Fault::WrongKey),
            Err(statement::Fault::Ended { .. }) => Some(Fault::Expired),
            Err(statement::Fault::Future) => Some(Fault::NotYetValid),
            Err(fault) => Some(Fault::Differs(fault.to_string())),
            Ok(()) => (statement.standing(self.now) == Standing::Due).then_some(Fault::Due),
        }
    }

    /// A node knows its cluster again by the identity key in this record.
    fn cluster(&self) -> Result<(), Damaged> {
        let found = match state::file(self.sight, paths::CLUSTER).map(Cluster::parse) {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(reason)) => reason,
            Err(fault) => fault.to_string(),
        };
        Err(Damaged::lost(paths::CLUSTER, "who the cluster is", found))
    }

    /// Certificates that are not what they should be. Without its authority none can be judged.
    fn faults(&self, when: When) -> Result<Vec<(Leaf, Fault)>, Damaged> {
        let mut faults = Vec::new();
        let key = state::file(self.sight, paths::NODE_KEY).and_then(check::ed25519_public_half).ok();
        // A node without its key went no further than that.
        let key: [u8; 32] = key.and_then(|key| key.try_into().ok()).unwrap_or_default();
        for (leaf, request) in self.worker.leaves(&key) {
            let verdict = match self.authority(request.authority)? {
                Ok(authority) => state::leaf(self.sight, leaf, &request, &authority, "", self.now),
                Err(fault) => Err(fault),
            };
            match verdict {
                Ok(()) => {}
                Err(Fault::Due) if when == When::Lost => {}
                Err(fault) => faults.push((leaf, fault)),
            }
        }
        Ok(faults)
    }

    fn authority(&self, which: Authority) -> Result<Result<Inspected, Fault>, Damaged> {
        let path = which.certificate();
        match state::file(self.sight, path).and_then(|text| check::trusted(which, text, self.now)) {
            Err(fault @ Fault::NotYetValid) => {
                Err(Damaged::of_fault(path, &format!("certificate authority {which}"), &fault, self.now))
            }
            verdict => Ok(verdict),
        }
    }

    fn freeze(&self) -> Option<Step> {
        (!self.joined).then(|| Step::Freeze { because: "first success".to_owned() })
    }

    fn mode(&self, path: &str, mode: u32) -> Option<Step> {
        let differs = matches!(self.sight.at(path), Entry::File { mode: found, .. } if *found != mode);
        differs.then(|| Step::Mode { path: path.to_owned(), mode })
    }
}
