//! Removing a node from its cluster, decided from what is known of it: which steps, in which order, and when not at all.
//!
//! Each step may be the last that is taken: asked again, the removal goes on. What names the node, its record, goes last.

mod aftermath;
mod drain;

use serde::{Deserialize, Serialize};

use crate::enrolment::decision::NodeRecord;
use crate::token::Joiner;
use crate::words::Block;

pub use aftermath::{KNEW, after, report};
pub use drain::{Pod, eviction, to_evict};

/// What is known of a node that is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Whether it is the machine that is asked to remove it.
    pub own: bool,
    /// Whether the cluster has a Node of that name, and if so whether it is Ready.
    pub node: Option<bool>,
    /// What the cluster has on record of the machine.
    pub record: Option<NodeRecord>,
    /// Its member of etcd's, if it has one.
    pub member: Option<u64>,
    /// Whether the rest of etcd's members can decide without it, or why not.
    pub quorum: Result<(), String>,
}

/// One step of a removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// No pod is sent there any more.
    Cordon,
    /// Its pods move to other nodes, as their disruption budgets allow.
    Drain,
    /// From now on its node key opens nothing, and what its certificates ask to change is refused.
    Bar,
    /// The same for a control plane, which knew the cluster's keys: that is not undone by it.
    BarControlPlane,
    /// etcd goes on without its member.
    LeaveEtcd {
        /// The member's id.
        id: u64,
    },
    /// The Node object goes, and with it the pods that were bound to it.
    Unregister,
    /// The name is free again.
    Forget,
}

impl Step {
    /// What is told when it was taken.
    pub fn done(&self) -> &'static str {
        match self {
            Step::Cordon => "no pod is sent there any more",
            Step::Drain => "its pods have moved",
            Step::Bar => "its node key opens nothing any more",
            Step::BarControlPlane => {
                "its node key opens nothing any more; the cluster's keys, which it knew, stay as they are"
            }
            Step::LeaveEtcd { .. } => "etcd goes on without its member",
            Step::Unregister => "the cluster has no such node any more",
            Step::Forget => "its name is free",
        }
    }
}

/// What who removes a node hears meanwhile: JSON, one a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// A step that may take minutes begins.
    Begins(Step),
    /// A step was taken.
    Taken(Step),
}

impl Progress {
    /// What people are told.
    pub fn words(&self) -> &'static str {
        match self {
            Progress::Begins(Step::Drain) => "its pods move; that may take a while",
            Progress::Begins(_) => "a step begins",
            Progress::Taken(step) => step.done(),
        }
    }
}

/// The steps that remove a node. `drain`: whether its pods are to be moved, where they can be.
///
/// # Errors
/// Why it is not removed, for people.
pub fn plan(found: &Found, drain: bool) -> Result<Vec<Step>, Block> {
    let refused = |why: String, fix: Vec<String>| {
        let what = format!("The node {} was not removed", found.name);
        Err(Block { what, why: vec![why], state: "Nothing was changed.".to_owned(), fix })
    };
    if found.node.is_none() && found.record.is_none() && found.member.is_none() {
        let fix = vec!["see which there are: kubectl get nodes".to_owned()];
        return refused("the cluster knows no node of that name".to_owned(), fix);
    }
    if let Err(why) = &found.quorum {
        let fix = vec![
            "bring back, or remove, the members that do not answer first: kubeboot status".to_owned(),
            "or join another control plane before this one goes.".to_owned(),
        ];
        return refused(format!("etcd could not decide any more: {why}"), fix);
    }
    if found.own {
        let why = "it is this very machine, which could not finish what it began".to_owned();
        return refused(why, vec!["run the same command on another control plane.".to_owned()]);
    }
    let mut steps = Vec::new();
    if let Some(ready) = found.node {
        steps.push(Step::Cordon);
        // The pods of a machine that does not answer end nowhere; new ones are made when its node goes.
        if ready && drain {
            steps.push(Step::Drain);
        }
    }
    steps.extend(found.record.as_ref().map(|record| match record.role {
        Joiner::Worker => Step::Bar,
        Joiner::ControlPlane => Step::BarControlPlane,
    }));
    steps.extend(found.member.map(|id| Step::LeaveEtcd { id }));
    if found.node.is_some() {
        steps.push(Step::Unregister);
    }
    if found.record.is_some() {
        steps.push(Step::Forget);
    }
    Ok(steps)
}

#[cfg(test)]
mod tests;
