//! Asks etcd's members for what [`crate::etcd`] decides: by etcd's JSON gateway, with the certificate that health probes
//! have.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::api::{Api, ApiError};
use super::root::Root;
use super::{clock, files, observe, systemd, wait};
use crate::certificates::{Authority, Form, Leaf};
use crate::etcd::{self, CLIENT_PORT, Call, Member, Membership, Next, Own, PATIENCE, PEER_PORT, Standing};
use crate::kubernetes::endpoint;
use crate::paths;
use crate::plan::record::{Endpoints, Node};
use crate::words::Block;

/// Pauses while another machine has the place, or etcd is not healthy enough to take anybody in: from this…
const FIRST: Duration = Duration::from_secs(1);
/// …doubled up to this.
const LAST: Duration = Duration::from_secs(8);
/// etcd's data, all of it.
const MEMBER: &str = "/var/lib/etcd/member";

/// What a control plane that joined keeps of its membership; none on a founder, and before it is a member.
///
/// # Errors
/// In words: it is damaged.
pub fn membership(root: &Root) -> Result<Option<Membership>, String> {
    let bytes = files::read_optional(&root.path(paths::ETCD_MEMBERSHIP));
    let bytes = bytes.map_err(|error| format!("read {}: {error}", paths::ETCD_MEMBERSHIP))?;
    let parse = |bytes: Vec<u8>| Membership::parse(&bytes);
    bytes.map(parse).transpose().map_err(|why| format!("{} is damaged: {why}", paths::ETCD_MEMBERSHIP))
}

fn keep(root: &Root, membership: &Membership) -> Result<(), String> {
    files::write_atomic(&root.path(paths::ETCD_MEMBERSHIP), membership.text().as_bytes(), 0o600)
        .map_err(|error| format!("write {}: {error}", paths::ETCD_MEMBERSHIP))
}

/// A member's URL for the other members.
pub fn peer_url(address: IpAddr) -> String {
    format!("https://{}", endpoint(address, PEER_PORT))
}

/// A member's URL for clients.
pub fn client_url(address: IpAddr) -> String {
    format!("https://{}", endpoint(address, CLIENT_PORT))
}

/// The members that are asked: those beside the API servers that this machine knows of, but for its own.
pub fn others(root: &Root, own: IpAddr) -> Vec<String> {
    let bytes = files::read_optional(&root.path(paths::ENDPOINTS)).ok().flatten().unwrap_or_default();
    // A record that can't be read names nobody.
    let servers = Endpoints::parse(&bytes).map(|record| record.servers).unwrap_or_default();
    servers.iter().map(|server| server.ip()).filter(|address| *address != own).map(client_url).collect()
}

/// A client of one member.
pub struct Client {
    api: Api,
}

impl Client {
    /// For the member at `url`, with the certificate that this control plane's health probes have.
    ///
    /// # Errors
    /// In words: the certificate can't be read or used.
    pub fn new(root: &Root, url: &str) -> Result<Self, String> {
        let read = |path: &str| match files::read_optional(&root.path(path)) {
            Ok(Some(bytes)) => Ok(zeroize::Zeroizing::new(bytes)),
            Ok(None) => Err(format!("{path} is missing")),
            Err(error) => Err(format!("read {path}: {error}")),
        };
        let Form::Pair { certificate, key } = Leaf::EtcdHealthcheckClient.form() else {
            return Err("etcd's clients have a certificate and a key, a file each".to_owned());
        };
        let (ca, certificate, key) = (read(Authority::Etcd.certificate())?, read(certificate)?, read(key)?);
        let api = Api::new(url, &ca, Some((&certificate, &key))).map_err(|error| error.to_string())?;
        Ok(Client { api })
    }

    fn call(&self, (path, body): Call) -> Result<Value, String> {
        self.api.post(path, &body).map_err(|error| match error {
            ApiError::Refused { message, .. } => message,
            ApiError::Unreachable { why, .. } => format!("no member of etcd's answers at {}: {why}", self.api.server()),
            other => other.to_string(),
        })
    }

    /// The members.
    ///
    /// # Errors
    /// In words: it does not answer, or the majority does not.
    pub fn members(&self) -> Result<Vec<Member>, String> {
        Member::list(&self.call(etcd::list())?)
    }

    /// Removes a member.
    ///
    /// # Errors
    /// In words: etcd refuses.
    pub fn remove(&self, id: u64) -> Result<(), String> {
        self.call(etcd::remove(id)).map(drop)
    }
}

/// The first of `urls` that answers for the majority, and the members by its word.
///
/// # Errors
/// In words: why none does.
pub fn ask(root: &Root, urls: &[String]) -> Result<(Client, Vec<Member>), String> {
    let mut why = Vec::new();
    for url in urls {
        systemd::alive();
        let client = Client::new(root, url)?;
        match client.members() {
            Ok(members) => return Ok((client, members)),
            Err(error) => why.push(error),
        }
    }
    if why.is_empty() {
        return Err(format!("no other control plane is known ({})", paths::ENDPOINTS));
    }
    Err(why.join("; "))
}

/// What the cluster says to whether this machine may be a member.
pub enum Word {
    /// It is a node of the cluster.
    Yes,
    /// It can't be asked now; why, in words.
    Later(String),
    /// It is none any more, for people.
    No(Block),
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
/// this returns. `may_join` asks the cluster, each time before a place is taken: the node may have been removed while it
/// waited, and etcd knows nothing of that. `say` hears of each new reason for waiting.
///
/// # Errors
/// [`NoMember`].
pub fn join(root: &Root, node: &Node, may_join: impl Fn() -> Word, mut say: impl FnMut(&str)) -> Result<(), NoMember> {
    let has_log = || observe::etcd(root).log.is_ok_and(|bytes| bytes > 0);
    if let Some(membership) = membership(root)?
        && (membership.voter || has_log() || takes_up(root, membership, node)?)
    {
        return Ok(());
    }
    let peer = peer_url(node.address);
    let mut backoff = wait::Backoff::new(FIRST, LAST);
    let mut holder = Holder::default();
    let mut said = String::new();
    loop {
        let own = Own { name: node.name.clone(), peer: peer.clone(), has_log: has_log() };
        let waiting = match attempt(root, &own, &others(root, node.address), &mut holder, &may_join)? {
            Attempt::Done => return Ok(()),
            Attempt::Again => {
                backoff.reset();
                continue;
            }
            Attempt::Later(why) => why,
        };
        if waiting != said {
            say(&waiting);
            said = waiting;
        }
        backoff.pause();
    }
}

/// Whether a learner that has not started yet still has its place. Whom etcd has to find at its first start may have
/// changed since the place was taken.
fn takes_up(root: &Root, membership: Membership, node: &Node) -> Result<bool, String> {
    let Ok((_, members)) = ask(root, &others(root, node.address)) else { return Ok(true) };
    if etcd::standing(&members, membership.id) == Standing::Gone {
        let path = root.path(paths::ETCD_MEMBERSHIP);
        files::remove(&path).map_err(|error| format!("remove {}: {error}", paths::ETCD_MEMBERSHIP))?;
        return Ok(false);
    }
    let now = Membership::learner(membership.id, &node.name, &peer_url(node.address), &members);
    if now.initial_cluster != membership.initial_cluster {
        keep(root, &now)?;
    }
    Ok(true)
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
    fn is_late(&mut self, id: u64) -> bool {
        let now = clock::monotonic();
        match self.0 {
            Some((known, since)) if known == id => now.saturating_sub(since) >= PATIENCE,
            _ => {
                self.0 = Some((id, now));
                false
            }
        }
    }
}

fn attempt(
    root: &Root,
    own: &Own,
    urls: &[String],
    holder: &mut Holder,
    may_join: &impl Fn() -> Word,
) -> Result<Attempt, NoMember> {
    let (client, members) = match ask(root, urls) {
        Ok(found) => found,
        Err(why) => return Ok(Attempt::Later(format!("etcd can't be asked for a place: {why}"))),
    };
    // What etcd refuses may pass: a member that has just joined has to be heard of for a while first.
    let done = |result: Result<(), String>, what: &str| match result {
        Ok(()) => Attempt::Again,
        Err(why) => Attempt::Later(format!("etcd does not {what} yet: {why}")),
    };
    Ok(match etcd::next(&members, own) {
        Next::Take(membership) => {
            keep(root, &membership)?;
            Attempt::Done
        }
        Next::Add => match may_join() {
            Word::Yes => done(client.call(etcd::add(&own.peer)).map(drop), "take this machine in"),
            Word::Later(why) => {
                Attempt::Later(format!("the cluster can't be asked whether this is a node of it: {why}"))
            }
            Word::No(block) => return Err(NoMember::Removed(block)),
        },
        Next::Replace(id) => done(client.remove(id), "take this machine in anew"),
        Next::Discard => {
            discard(root)?;
            Attempt::Again
        }
        Next::Wait(member) if holder.is_late(member.id) => {
            done(client.remove(member.id), "give the place of a member that never became one to this machine")
        }
        Next::Wait(member) => Attempt::Later(format!(
            "{} joins etcd just now; control planes join one at a time, and this one is next",
            member.label()
        )),
        Next::Taken(member) => Attempt::Later(format!(
            "etcd has a voting member {} at {}, and its data is not on this machine. If that machine is lost, run on a \
             control plane: kubeboot node remove {}",
            member.name,
            member.peers.join(", "),
            member.name
        )),
    })
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

/// Whether the other members say that there is none of this name any more. What can't be asked says nothing.
pub fn was_removed(root: &Root, node: &Node) -> bool {
    let members = ask(root, &others(root, node.address)).map(|(_, members)| members).unwrap_or_default();
    !members.is_empty() && !members.iter().any(|member| member.name == node.name)
}

/// What came of asking for a vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vote {
    /// It has one, and that is on record.
    Has,
    /// It has to wait, and why.
    NotYet(String),
    /// There is no such member any more: it was removed.
    Removed,
}

/// Asks for a vote for this machine's member, which is on record as a learner.
///
/// # Errors
/// In words: the record can't be written, or the certificate is missing.
pub fn vote(root: &Root, membership: &Membership, node: &Node) -> Result<Vote, String> {
    let (client, members) = match ask(root, &others(root, node.address)) {
        Ok(found) => found,
        Err(why) => return Ok(Vote::NotYet(why)),
    };
    match etcd::standing(&members, membership.id) {
        Standing::Votes => {}
        Standing::Gone => return Ok(Vote::Removed),
        Standing::Learns => {
            if let Err(why) = client.call(etcd::promote(membership.id)) {
                return Ok(Vote::NotYet(why));
            }
        }
    }
    keep(root, &membership.clone().promoted())?;
    Ok(Vote::Has)
}
