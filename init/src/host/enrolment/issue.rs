//! What a machine gets that is taken in: certificates by the authorities' keys on disk, and what else a node needs.

use std::net::SocketAddr;

use zeroize::Zeroizing;

use crate::certificates::{Authority, Request, Unix};
use crate::enrolment::decision::NodeRecord;
use crate::enrolment::message::{Founded, Grant, Held, Key};
use crate::enrolment::server::Issue;
use crate::enrolment::statement::Statement;
use crate::host::api::Api;
use crate::host::files;
use crate::host::keys::{self, Signer};
use crate::host::mesh::disk;
use crate::host::node::ThisNode;
use crate::host::random;
use crate::host::reconcile;
use crate::host::root::Root;
use crate::kubernetes::API_PORT;
use crate::mesh::MeshKey;
use crate::mesh::stored::FIRST_EPOCH;
use crate::paths;
use crate::settings::shared;
use crate::token::Joiner;

/// Puts together what this machine gets, by its role. The keys are read each time: none stays in this process's memory.
///
/// # Errors
/// In words: a key that can't be read or does not sign.
pub fn grant(
    root: &Root,
    this: &ThisNode,
    api: &Api,
    node: &NodeRecord,
    certificates: &[Issue],
    now: Unix,
) -> Result<Grant, String> {
    let issued: Result<Vec<String>, String> = certificates.iter().map(|issue| certificate(root, issue, now)).collect();
    let certificates = issued?.try_into().map_err(|_| "expected four certificate requests".to_owned())?;
    let (wanted, keys): (&[Authority], &[Key]) = match node.role {
        Joiner::ControlPlane => (&Authority::ALL, &Key::ALL),
        Joiner::Worker => (&[Authority::Cluster, Authority::KubeletServing], &[]),
    };
    let authority = |which: &Authority| {
        let text = text(root, which.certificate())?;
        Ok((*which, text.as_str().to_owned()))
    };
    Ok(Grant {
        role: node.role,
        mesh_key: disk::mesh_key(root)?,
        endpoints: endpoints(this, api),
        settings: shared::text(&this.settings),
        authorities: wanted.iter().map(authority).collect::<Result<_, String>>()?,
        certificates,
        keys: keys.iter().map(|key| held(root, *key)).collect::<Result<_, String>>()?,
        statement: match node.role {
            Joiner::Worker => Some(statement(root, this, node, now)?),
            Joiner::ControlPlane => None,
        },
    })
}

/// The cluster's word about a worker.
fn statement(root: &Root, this: &ThisNode, node: &NodeRecord, now: Unix) -> Result<Statement, String> {
    let Founded { id, .. } = Founded::of(&this.cluster)?;
    Ok(Statement::of(&id, node, now, &key(root, paths::IDENTITY_KEY)?))
}

fn certificate(root: &Root, issue: &Issue, now: Unix) -> Result<String, String> {
    sign(root, &issue.request, &issue.spki, now).map_err(|error| format!("{}: {error}", issue.leaf))
}

/// Signs a certificate (PEM) for a public key (SubjectPublicKeyInfo, DER), by the authority's key on disk.
///
/// # Errors
/// In words: a key that can't be read or does not sign.
pub fn sign(root: &Root, request: &Request, spki: &[u8], now: Unix) -> Result<String, String> {
    let authority = request.authority;
    let (certificate, key) = (bytes(root, authority.certificate())?, bytes(root, authority.key())?);
    let signer = Signer::load(&certificate, &key).map_err(|error| format!("{authority}: {error}"))?;
    signer.issue_for(request, spki, now).map_err(|error| error.to_string())
}

/// The text of a file that is no secret.
///
/// # Errors
/// In words: it can't be read.
pub fn public(root: &Root, path: &str) -> Result<String, String> {
    text(root, path).map(|text| text.as_str().to_owned())
}

fn held(root: &Root, key: Key) -> Result<Held, String> {
    bytes(root, key.path()).map(|bytes| (key, bytes))
}

/// The API servers: those that they name themselves, or else this machine's own.
fn endpoints(this: &ThisNode, api: &Api) -> Vec<SocketAddr> {
    let own = SocketAddr::new(this.node.address, API_PORT);
    match reconcile::api_servers(api) {
        Ok(Some(record)) => record.servers,
        Ok(None) => vec![own],
        Err(error) => {
            eprintln!("kubeboot: {error}. The new node is told of this machine's API server alone");
            vec![own]
        }
    }
}

/// Makes the mesh's first key, if there is none.
///
/// # Errors
/// In words: it can't be written.
pub fn ensure_mesh_key(root: &Root) -> Result<(), String> {
    if files::exists(&root.path(paths::MESH_KEY)) {
        return Ok(());
    }
    disk::write_mesh_key(root, &MeshKey::new(FIRST_EPOCH, Zeroizing::new(random::bytes())))
}

/// This machine's node key, made if there is none.
///
/// # Errors
/// In words: it can't be read or written.
pub fn ensure_node_key(root: &Root) -> Result<keys::Ed25519, String> {
    let path = root.path(paths::NODE_KEY);
    if !files::exists(&path) {
        let key = keys::ed25519().map_err(|error| error.to_string())?;
        files::write_atomic(&path, key.as_bytes(), 0o600)
            .map_err(|error| format!("can't write {}: {error}", paths::NODE_KEY))?;
    }
    key(root, paths::NODE_KEY)
}

/// An Ed25519 key from its file.
///
/// # Errors
/// In words: it can't be read.
pub fn key(root: &Root, path: &str) -> Result<keys::Ed25519, String> {
    keys::Ed25519::load(&bytes(root, path)?).map_err(|error| format!("{path}: {error}"))
}

fn bytes(root: &Root, path: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    match files::read_optional(&root.path(path)) {
        Ok(Some(bytes)) => Ok(Zeroizing::new(bytes)),
        Ok(None) => Err(format!("{path} does not exist")),
        Err(error) => Err(format!("can't read {path}: {error}")),
    }
}

fn text(root: &Root, path: &str) -> Result<Zeroizing<String>, String> {
    let bytes = bytes(root, path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{path} is damaged: expected text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}
