//! etcd's members: how a further control plane becomes one, decided from what etcd says of itself (its `Cluster` service,
//! `api/etcdserverpb/rpc.proto`).
//!
//! Control planes join one at a time. What admits them singly is etcd's own log: it has room for one learner
//! (`--max-learners`), and a member's id is new at each try. So the learner's place is the lease, and the id its fencing
//! token: who was thrown out of the place can't be promoted any more, whatever it believes.

pub mod circle;
mod record;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

pub use record::Membership;

/// How long a learner of another machine's may hold the place before who waits for it removes it: a copy of a database of
/// etcd's usual limit (2 GiB) takes far less over 100 Mbit/s.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The port for clients.
pub const CLIENT_PORT: u16 = 2379;
/// The port for other members.
pub const PEER_PORT: u16 = 2380;

/// A member, as etcd lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id, which no later member gets again.
    pub id: u64,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where other members reach it.
    pub peers: Vec<String>,
    /// Where clients reach it; empty until it has started once.
    pub clients: Vec<String>,
    /// Whether it has no vote yet.
    pub learner: bool,
}

impl Member {
    /// The members in an answer to a list, an addition, a promotion or a removal.
    ///
    /// # Errors
    /// In words: an answer of another form.
    pub fn list(answer: &Value) -> Result<Vec<Member>, String> {
        let members = answer.get("members").and_then(Value::as_array);
        let members = members.ok_or("expected a list of members, found none")?;
        members
            .iter()
            .map(|member| Self::read(member).ok_or_else(|| format!("expected a member, found {member}")))
            .collect()
    }

    /// Zero values are left out of JSON, as protobuf has it.
    fn read(member: &Value) -> Option<Member> {
        let urls = |field: &str| -> Vec<String> {
            let urls = member.get(field).and_then(Value::as_array).into_iter().flatten();
            urls.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Some(Member {
            id: member.get("ID")?.as_str()?.parse().ok()?,
            name: member.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            peers: urls("peerURLs"),
            clients: urls("clientURLs"),
            learner: member.get("isLearner").and_then(Value::as_bool).unwrap_or_default(),
        })
    }

    /// Whether it has ever run: only then it knows its name.
    pub fn has_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// What it is called in messages.
    pub fn label(&self) -> String {
        match self.name.as_str() {
            "" => self.peers.join(", "),
            name => name.to_owned(),
        }
    }
}

/// A request of etcd's JSON gateway: its path, and its body.
pub type Call = (&'static str, Value);

/// Asks for the members, as the majority knows them.
pub fn list() -> Call {
    ("/v3/cluster/member/list", json!({"linearizable": true}))
}

/// Asks for a place as a learner.
pub fn add(peer: &str) -> Call {
    ("/v3/cluster/member/add", json!({"peerURLs": [peer], "isLearner": true}))
}

/// Asks for a vote for a learner.
pub fn promote(id: u64) -> Call {
    ("/v3/cluster/member/promote", json!({"ID": id.to_string()}))
}

/// Removes a member.
pub fn remove(id: u64) -> Call {
    ("/v3/cluster/member/remove", json!({"ID": id.to_string()}))
}

/// What a machine that is to be a member is by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its node's name, which is its member's.
    pub name: String,
    /// Where other members reach it.
    pub peer: String,
    /// Whether a write-ahead log of etcd's is on its disk.
    pub has_log: bool,
}

/// What a machine without a record of its membership does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Remove what is on disk of etcd's: it belongs to no member that there is, and nothing was ever promised by it.
    Discard,
    /// Ask for the place.
    Add,
    /// The place is this machine's.
    Take(Membership),
    /// The machine that had this address and lost its disk holds the place: it is asked for anew.
    Replace(u64),
    /// Another machine holds the place.
    Wait(Member),
    /// A member that votes has this machine's name or address, and its data is not here.
    Taken(Member),
}

/// Decides, for a machine that has no record of its membership. Such a machine never started etcd as a member that it
/// still is: the record is on disk before.
pub fn next(members: &[Member], own: &Own) -> Next {
    let is_own = |member: &&Member| member.name == own.name || member.peers.contains(&own.peer);
    match members.iter().find(is_own) {
        // The record alone was lost: with a log etcd goes by what stands there, and refuses it if it is another member's.
        Some(member)
            if !member.learner && own.has_log && member.name == own.name && member.peers.contains(&own.peer) =>
        {
            Next::Take(Membership::learner(member.id, &own.name, &own.peer, members).promoted())
        }
        Some(member) if !member.learner => Next::Taken(member.clone()),
        Some(member) if member.has_started() => Next::Replace(member.id),
        Some(_) | None if own.has_log => Next::Discard,
        Some(member) => Next::Take(Membership::learner(member.id, &own.name, &own.peer, members)),
        None => match members.iter().find(|member| member.learner) {
            Some(learner) => Next::Wait(learner.clone()),
            None => Next::Add,
        },
    }
}

/// What etcd's members think of the one with this id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has a vote.
    Votes,
    /// It has none yet.
    Learns,
    /// There is no such member any more.
    Gone,
}

/// What etcd's members think of the one with this id.
pub fn standing(members: &[Member], id: u64) -> Standing {
    match members.iter().find(|member| member.id == id) {
        Some(member) if member.learner => Standing::Learns,
        Some(_) => Standing::Votes,
        None => Standing::Gone,
    }
}

/// Why a member can't be removed, or none: what is left has to be able to decide.
///
/// `healthy` are the ids of members that answered just now.
pub fn removal(members: &[Member], id: u64, healthy: &[u64]) -> Result<(), String> {
    let Some(member) = members.iter().find(|member| member.id == id) else { return Ok(()) };
    if member.learner {
        return Ok(());
    }
    let rest: Vec<&Member> = members.iter().filter(|other| !other.learner && other.id != id).collect();
    if rest.is_empty() {
        return Err("it is etcd's only voting member: without it there is no cluster".to_owned());
    }
    let needed = rest.len() / 2 + 1;
    let answering = rest.iter().filter(|other| healthy.contains(&other.id)).count();
    if answering >= needed {
        return Ok(());
    }
    let silent: Vec<String> =
        rest.iter().filter(|other| !healthy.contains(&other.id)).map(|other| other.label()).collect();
    Err(format!(
        "of the {} voting members that would be left, {needed} have to answer and {answering} do ({} does not)",
        rest.len(),
        silent.join(", ")
    ))
}

/// Each started member's name with where it is reached, and this machine's own: etcd's `--initial-cluster`.
fn initial_cluster(own: (&str, &str), members: &[Member]) -> BTreeMap<String, String> {
    let started = members.iter().filter(|member| member.has_started());
    let mut cluster: BTreeMap<String, String> =
        started.filter_map(|member| Some((member.name.clone(), member.peers.first()?.clone()))).collect();
    cluster.insert(own.0.to_owned(), own.1.to_owned());
    cluster
}

#[cfg(test)]
mod tests;
