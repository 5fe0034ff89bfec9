//! Takes the steps by which a node is removed ([`crate::node_removal`]).

mod draining;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::api::{Api, ApiError};
use super::enrolment::store::{InApi, Store};
use super::node::ThisNode;
use super::operators::output::Halt;
use super::root::Root;
use super::{clock, etcd, reconcile};
use crate::etcd as members;
use crate::facts::rfc1123_problem;
use crate::health::node_from;
use crate::node_removal::{Found, Step};
use draining::{PodsOf, drain};

/// Why a step was not taken.
#[derive(Debug)]
pub enum Untaken {
    /// In words.
    Failed(String),
    /// It should not go on.
    Halted(Halt),
}

impl From<String> for Untaken {
    fn from(why: String) -> Self {
        Untaken::Failed(why)
    }
}

/// One node's removal.
pub trait Removing {
    /// What is known of the node.
    fn found(&self) -> &Found;

    /// Takes a step. Pods have `limit` to move; while they do, `goes_on` says whether to go on.
    ///
    /// # Errors
    /// [`Untaken`]: what was not done.
    fn take(&self, step: &Step, limit: Duration, goes_on: &mut dyn FnMut() -> Result<(), Halt>) -> Result<(), Untaken>;
}

/// Looks at what is known of a node, by its name; errors are in words.
pub type Look = dyn Fn(&str) -> Result<Box<dyn Removing>, String> + Send + Sync;

/// A cluster that a node is removed from, as a control plane of it sees it.
pub struct Removal {
    api: Arc<Api>,
    store: Store,
    /// Where etcd is asked: this machine's member first.
    urls: Vec<String>,
    root: Root,
    found: Found,
}

impl Removal {
    /// Looks at what is known of the node.
    ///
    /// # Errors
    /// In words: the name is none, this machine is no control plane, or something can't be asked.
    pub fn look(root: &Root, name: &str) -> Result<Self, String> {
        if let Some(problem) = rfc1123_problem(name) {
            return Err(format!("{name:?} is no node's name: {problem}"));
        }
        let this = ThisNode::load(root)?;
        if !this.is_control_plane() {
            return Err("this machine is a worker; nodes are removed on a control plane".to_owned());
        }
        let api = Arc::new(this.api(root).map_err(|error| error.to_string())?);
        let store = Store::new(Arc::new(InApi::new(api.clone())));
        let own = etcd::client_url(crate::kubernetes::loopback(this.node.address));
        let urls: Vec<String> = std::iter::once(own).chain(etcd::others(root, this.node.address)).collect();
        let node = api.get_optional(&node_path(name)).map_err(|error| error.to_string())?;
        let record = store.node(name)?.map(|node| node.record);
        let (member, quorum) = quorum(root, &urls, name, record.as_ref().map(|record| record.address))?;
        let found = Found {
            name: name.to_owned(),
            own: name == this.node.name,
            node: node.map(|node| node_from(&node).ready.is_some_and(|ready| ready.status)),
            record,
            member,
            quorum,
        };
        Ok(Removal { api, store, urls, root: root.clone(), found })
    }

    fn pods(&self) -> PodsOf<'_> {
        PodsOf { api: &self.api, node: &self.found.name }
    }

    fn step(&self, step: &Step) -> Result<(), String> {
        let words = |error: ApiError| error.to_string();
        let node = node_path(&self.found.name);
        match step {
            Step::Cordon => {
                let patch = json!({"spec": {"unschedulable": true}});
                missing_is_done(self.api.merge(&node, &patch).map(drop)).map_err(words)
            }
            // It has a way of its own, because it may take long.
            Step::Drain => Ok(()),
            Step::Bar | Step::BarControlPlane => match &self.found.record {
                Some(record) => {
                    self.store.bar(record, clock::unix())?;
                    reconcile::bar(&self.api, clock::unix()).map_err(words)
                }
                None => Ok(()),
            },
            Step::LeaveEtcd { id } => {
                let (client, now) = etcd::ask(&self.root, &self.urls)?;
                match now.iter().any(|member| member.id == *id) {
                    true => client.remove(*id),
                    false => Ok(()),
                }
            }
            Step::Unregister => self.api.delete(&node).map(drop).map_err(words),
            Step::Forget => self.store.forget(&self.found.name).map(drop),
        }
    }
}

impl Removing for Removal {
    fn found(&self) -> &Found {
        &self.found
    }

    fn take(&self, step: &Step, limit: Duration, goes_on: &mut dyn FnMut() -> Result<(), Halt>) -> Result<(), Untaken> {
        match step {
            Step::Drain => drain(&self.pods(), limit, goes_on),
            other => Ok(self.step(other)?),
        }
    }
}

fn node_path(name: &str) -> String {
    format!("/api/v1/nodes/{name}")
}

fn missing_is_done(result: Result<(), ApiError>) -> Result<(), ApiError> {
    match result {
        Err(error) if error.status() == Some(404) => Ok(()),
        other => other,
    }
}

/// What a member of etcd's is to the rest: its id, if there is one, and whether the others can decide without it.
type Quorum = (Option<u64>, Result<(), String>);

/// The node's member of etcd's, and whether the others can decide without it: each is asked by itself. One that has not
/// started yet has no name, and is known by its address.
fn quorum(root: &Root, urls: &[String], name: &str, address: Option<IpAddr>) -> Result<Quorum, String> {
    let (_, all) = etcd::ask(root, urls)?;
    let peer = address.map(etcd::peer_url);
    let starts = |member: &members::Member| {
        !member.has_started() && peer.as_ref().is_some_and(|peer| member.peers.contains(peer))
    };
    let Some(own) = all.iter().find(|member| member.name == name || starts(member)) else { return Ok((None, Ok(()))) };
    let answers = |member: &&members::Member| {
        let mut clients = member.clients.iter();
        clients.any(|url| etcd::Client::new(root, url).is_ok_and(|client| client.members().is_ok()))
    };
    let healthy: Vec<u64> = all.iter().filter(answers).map(|member| member.id).collect();
    Ok((Some(own.id), members::removal(&all, own.id, &healthy)))
}
