//! What a machine gets when it is admitted.

use std::net::SocketAddr;

use zeroize::Zeroizing;

use super::hello::{joiner_code, read_joiner};
use crate::certificates::Authority;
use crate::enrolment::statement::Statement;
use crate::enrolment::wire::{Malformed, Reader, Writer};
use crate::kubernetes::encryption;
use crate::mesh::MeshKey;
use crate::mesh::stored::FIRST_EPOCH;
use crate::paths;
use crate::plan::founder::SERVICE_ACCOUNT_KEY;
use crate::plan::record::Endpoints;
use crate::token::Joiner;

/// Bytes of a certificate at most, PEM.
const CERTIFICATE: usize = 4096;
/// Bytes of a private key, or of the encryption configuration, at most.
const SECRET_TEXT: usize = 4096;
/// API servers at most.
const ENDPOINTS: usize = Endpoints::MOST;
/// Bytes of the cluster's settings at most.
const SETTINGS: usize = 8192;

/// Bytes of the fields at most.
pub(super) const MOST: usize = 1
    + (8 + 32)
    + (1 + ENDPOINTS * (17 + 2))
    + (2 + SETTINGS)
    + (1 + Authority::ALL.len() * (1 + 2 + CERTIFICATE))
    + 4 * (2 + CERTIFICATE)
    + (1 + Key::ALL.len() * (1 + 2 + SECRET_TEXT))
    + Statement::MOST;

/// A secret of the cluster that every control plane holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// An authority's private key, PEM.
    Authority(Authority),
    /// The key that signs ServiceAccount tokens, PEM.
    ServiceAccount,
    /// The configuration with the keys that encrypt Secrets in etcd.
    Encryption,
    /// The cluster's identity key, PEM.
    Identity,
}

impl Key {
    /// Every key, in the order in which they are sent.
    pub const ALL: [Key; 7] = [
        Key::Authority(Authority::Cluster),
        Key::Authority(Authority::FrontProxy),
        Key::Authority(Authority::Etcd),
        Key::Authority(Authority::KubeletServing),
        Key::ServiceAccount,
        Key::Encryption,
        Key::Identity,
    ];

    /// Where a control plane keeps it, mode 0600.
    pub fn path(self) -> &'static str {
        match self {
            Key::Authority(authority) => authority.key(),
            Key::ServiceAccount => SERVICE_ACCOUNT_KEY,
            Key::Encryption => encryption::PATH,
            Key::Identity => paths::IDENTITY_KEY,
        }
    }

    fn code(self) -> u8 {
        match self {
            Key::Authority(authority) => authority_code(authority),
            Key::ServiceAccount => 5,
            Key::Encryption => 6,
            Key::Identity => 7,
        }
    }
}

fn authority_code(authority: Authority) -> u8 {
    match authority {
        Authority::Cluster => 1,
        Authority::FrontProxy => 2,
        Authority::Etcd => 3,
        Authority::KubeletServing => 4,
    }
}

/// A key and what it is: PEM, or the encryption configuration.
pub type Held = (Key, Zeroizing<Vec<u8>>);

/// What a node of this cluster needs. The cluster's id and keys came with the proof. Holds secrets: no Debug.
#[derive(Clone)]
pub struct Grant {
    /// What the machine is to the cluster.
    pub role: Joiner,
    /// The key that seals the mesh's messages, with its epoch.
    pub mesh_key: MeshKey,
    /// The API servers, one at least.
    pub endpoints: Vec<SocketAddr>,
    /// The settings that all nodes of the cluster share, TOML.
    pub settings: String,
    /// The certificate authorities, PEM, in the order of [`Authority::ALL`]: for a control plane all, for a worker the
    /// two that its own certificates come from.
    pub authorities: Vec<(Authority, String)>,
    /// The node's certificates, PEM, in the order of its requests.
    pub certificates: [String; 4],
    /// For a control plane all of [`Key::ALL`], in that order; for a worker none.
    pub keys: Vec<Held>,
    /// For a worker the cluster's word about it, which it shows to operators. None to who does not speak
    /// [`super::STATEMENTS`]: it would not read a field more.
    pub statement: Option<Statement>,
}

impl Grant {
    /// Whether it holds what a machine of its role gets, and nothing more.
    pub fn fits(&self) -> bool {
        let (authorities, keys): (&[Authority], &[Key]) = match self.role {
            Joiner::ControlPlane => (&Authority::ALL, &Key::ALL),
            Joiner::Worker => (&[Authority::Cluster, Authority::KubeletServing], &[]),
        };
        !self.endpoints.is_empty()
            && self.authorities.iter().map(|(authority, _)| authority).eq(authorities)
            && self.keys.iter().map(|(key, _)| key).eq(keys)
            && self
                .statement
                .as_ref()
                .is_none_or(|statement| statement.role == Joiner::Worker && self.role == Joiner::Worker)
    }

    pub(super) fn write(&self, to: &mut Writer) -> Result<(), Malformed> {
        to.byte(joiner_code(self.role));
        to.u64(self.mesh_key.epoch);
        to.array(self.mesh_key.secret().as_ref());
        to.count("list of endpoints", ENDPOINTS, self.endpoints.len())?;
        self.endpoints.iter().for_each(|endpoint| to.socket(*endpoint));
        to.text("settings", SETTINGS, &self.settings)?;
        to.count("list of authorities", Authority::ALL.len(), self.authorities.len())?;
        for (authority, certificate) in &self.authorities {
            to.byte(authority_code(*authority));
            to.text("authority's certificate", CERTIFICATE, certificate)?;
        }
        for certificate in &self.certificates {
            to.text("certificate", CERTIFICATE, certificate)?;
        }
        to.count("list of keys", Key::ALL.len(), self.keys.len())?;
        for (key, secret) in &self.keys {
            to.byte(key.code());
            to.bytes("key", SECRET_TEXT, secret)?;
        }
        self.statement.as_ref().map_or(Ok(()), |statement| statement.write(to))
    }

    /// `stated`: a statement follows.
    pub(super) fn read(from: &mut Reader<'_>, stated: bool) -> Result<Self, Malformed> {
        let role = read_joiner("role", from)?;
        let epoch = from.u64("mesh key's epoch")?;
        if epoch < FIRST_EPOCH {
            return Err(Malformed::Form("mesh key's epoch"));
        }
        let mesh_key = MeshKey::new(epoch, Zeroizing::new(from.array("mesh key")?));
        let count = from.count("list of endpoints", ENDPOINTS)?;
        let endpoints = (0..count).map(|_| from.socket("endpoint")).collect::<Result<_, _>>()?;
        let settings = from.text("settings", SETTINGS)?.to_owned();
        let authorities = authorities(from)?;
        let mut certificates = [const { String::new() }; 4];
        for certificate in &mut certificates {
            *certificate = from.text("certificate", CERTIFICATE)?.to_owned();
        }
        let keys = keys(from)?;
        let statement = if stated { Some(Statement::read(from)?) } else { None };
        Ok(Grant { role, mesh_key, endpoints, settings, authorities, certificates, keys, statement })
    }
}

fn authorities(from: &mut Reader<'_>) -> Result<Vec<(Authority, String)>, Malformed> {
    let field = "list of authorities";
    let count = from.count(field, Authority::ALL.len())?;
    let mut list: Vec<(Authority, String)> = Vec::with_capacity(count);
    for _ in 0..count {
        let found = from.byte(field)?;
        let authority = Authority::ALL.into_iter().find(|one| authority_code(*one) == found);
        let authority = authority.ok_or(Malformed::Unknown { field, found })?;
        if list.last().is_some_and(|(last, _)| *last >= authority) {
            return Err(Malformed::Form(field));
        }
        list.push((authority, from.text("authority's certificate", CERTIFICATE)?.to_owned()));
    }
    Ok(list)
}

fn keys(from: &mut Reader<'_>) -> Result<Vec<Held>, Malformed> {
    let field = "list of keys";
    let count = from.count(field, Key::ALL.len())?;
    let mut list: Vec<Held> = Vec::with_capacity(count);
    for _ in 0..count {
        let found = from.byte(field)?;
        let key = Key::ALL.into_iter().find(|one| one.code() == found);
        let key = key.ok_or(Malformed::Unknown { field, found })?;
        if list.last().is_some_and(|(last, _)| *last >= key) {
            return Err(Malformed::Form(field));
        }
        list.push((key, Zeroizing::new(from.bytes("key", SECRET_TEXT)?.to_vec())));
    }
    Ok(list)
}
