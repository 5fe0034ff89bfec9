//! Asks etcd's members for what [`crate::etcd`] decides: by etcd's JSON gateway, with the certificate that health probes
//! have.

mod joining;

use std::net::IpAddr;

use serde_json::Value;

use super::api::{Api, ApiError};
use super::root::Root;
use super::{files, systemd};
use crate::certificates::{Authority, Form, Leaf};
use crate::etcd::circle::Circle;
use crate::etcd::{self, CLIENT_PORT, Call, Member, Membership, PEER_PORT, Standing};
use crate::kubernetes::endpoint;
use crate::paths;
use crate::plan::record::{Endpoints, Node};
use crate::words::Block;

pub use joining::{Cluster, NoMember, join};

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

pub(super) fn keep(root: &Root, membership: &Membership) -> Result<(), String> {
    files::write_atomic(&root.path(paths::ETCD_MEMBERSHIP), membership.text().as_bytes(), 0o600)
        .map_err(|error| format!("write {}: {error}. What was there before still is", paths::ETCD_MEMBERSHIP))
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
    let (url, members) = first(&Gateway(root), urls)?;
    Ok((Client::new(root, url)?, members))
}

/// etcd's members, as they are asked.
trait Members {
    /// The members by the word of the one at `url`, who speaks for the majority.
    fn list(&self, url: &str) -> Result<Vec<Member>, String>;

    /// Asks the one at `url` to change something.
    fn call(&self, url: &str, call: Call) -> Result<(), String>;
}

/// By etcd's JSON gateway.
struct Gateway<'a>(&'a Root);

impl Members for Gateway<'_> {
    fn list(&self, url: &str) -> Result<Vec<Member>, String> {
        Client::new(self.0, url)?.members()
    }

    fn call(&self, url: &str, call: Call) -> Result<(), String> {
        Client::new(self.0, url)?.call(call).map(drop)
    }
}

/// The first of `urls` that answers for the majority, and the members by its word.
fn first<'a>(etcd: &dyn Members, urls: &'a [String]) -> Result<(&'a str, Vec<Member>), String> {
    let mut why = Vec::new();
    for url in urls {
        systemd::alive();
        match etcd.list(url) {
            Ok(members) => return Ok((url, members)),
            Err(error) => why.push(error),
        }
    }
    if why.is_empty() {
        return Err(format!("no other control plane is known ({})", paths::ENDPOINTS));
    }
    Err(why.join("; "))
}

/// What the cluster's control planes say to this machine.
pub enum Word {
    /// It is a node of the cluster, and these are the API servers.
    Yes(Endpoints),
    /// They can't be asked now; why, in words.
    Later(String),
    /// It is none any more, for people.
    No(Block),
}

/// Keeps where the API servers are. True when that is news.
///
/// # Errors
/// In words: it can't be written.
pub fn keep_endpoints(root: &Root, record: &Endpoints) -> Result<bool, String> {
    files::ensure(&root.path(paths::ENDPOINTS), record.text().as_bytes(), 0o644)
        .map_err(|error| format!("write {}: {error}. What was there before still is", paths::ENDPOINTS))
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
    /// Nobody answers for the majority, and why not.
    Silence(String),
    /// It has not started yet, and whom it finds by this record, which is kept, are others than before.
    Moved(Membership),
    /// There is no such member any more: it was removed.
    Removed,
}

/// Asks for a vote for this machine's member, which is on record as a learner.
///
/// # Errors
/// In words: the record can't be written.
pub fn vote(root: &Root, membership: &Membership, node: &Node, circle: &mut Circle) -> Result<Vote, String> {
    vote_by(&Gateway(root), root, membership, node, circle)
}

fn vote_by(
    etcd: &dyn Members,
    root: &Root,
    membership: &Membership,
    node: &Node,
    circle: &mut Circle,
) -> Result<Vote, String> {
    let urls = circle.whom(&client_url(node.address), &others(root, node.address));
    let (url, members) = match first(etcd, &urls) {
        Ok(found) => found,
        Err(why) => return Ok(Vote::Silence(why)),
    };
    circle.answered(url, &members);
    match etcd::standing(&members, membership.id) {
        Standing::Votes => {}
        Standing::Gone => return Ok(Vote::Removed),
        Standing::Learns => {
            if let Some(moved) = joining::moved(root, membership, node, &members)? {
                return Ok(Vote::Moved(moved));
            }
            if let Err(why) = etcd.call(url, etcd::promote(membership.id)) {
                return Ok(Vote::NotYet(why));
            }
        }
    }
    keep(root, &membership.clone().promoted())?;
    Ok(Vote::Has)
}

#[cfg(test)]
mod tests;
