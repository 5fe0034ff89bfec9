//! Who this machine is by now: what earlier steps of this boot left for those after them.

use serde::de::DeserializeOwned;

use super::api::{Api, ApiError};
use super::root::Root;
use super::{etcd, files};
use crate::etcd::Membership;
use crate::health::Expected;
use crate::kubernetes::{self, kubeconfig, static_pods};
use crate::paths;
use crate::plan::record::{Cluster, Node};
use crate::settings::frozen::Frozen;
use crate::settings::{Backend, ProxyMode, Role, Settings};
use crate::slots::SeatFacts;

/// The administrator whom RBAC can't lock out; there from founding on, before any binding is made.
const KUBECONFIG: &str = "/etc/kubernetes/super-admin.conf";

/// A configured node.
#[derive(Debug, Clone)]
pub struct ThisNode {
    /// The settings as first applied, with their origins.
    pub frozen: Frozen,
    /// The settings in force: those, but for the keys that a later boot may change.
    pub settings: Settings,
    /// Name and address.
    pub node: Node,
    /// Its cluster.
    pub cluster: Cluster,
    /// Of a control plane that joined: which member of etcd's it is.
    pub membership: Option<Membership>,
    /// The release that runs.
    pub seat: SeatFacts,
}

impl ThisNode {
    /// Reads what there is.
    ///
    /// # Errors
    /// In words: the file that is missing or damaged.
    pub fn load(root: &Root) -> Result<Self, String> {
        let frozen = Frozen::parse(&String::from_utf8_lossy(&read(root, paths::FROZEN)?))
            .map_err(|why| damaged_file(paths::FROZEN, &why))?;
        let settings = match files::exists(&root.path(paths::IN_FORCE)) {
            true => json(root, paths::IN_FORCE)?,
            false => frozen.settings.clone(),
        };
        Ok(ThisNode {
            frozen,
            settings,
            node: Node::parse(&read(root, paths::NODE)?).map_err(|why| damaged_file(paths::NODE, &why))?,
            cluster: Cluster::parse(&read(root, paths::CLUSTER)?).map_err(|why| damaged_file(paths::CLUSTER, &why))?,
            membership: etcd::membership(root)?,
            seat: seat(root)?,
        })
    }

    /// A client of the API server that this node uses: as the administrator on a control plane, as the node on a worker.
    ///
    /// # Errors
    /// A kubeconfig that can't be used.
    pub fn api(&self, root: &Root) -> Result<Api, ApiError> {
        let path = if self.is_control_plane() { KUBECONFIG } else { kubeconfig::KUBELET };
        Api::from_kubeconfig(&root.path(path))
    }

    /// The URL of the API server that this node uses.
    pub fn server(&self) -> String {
        match self.is_control_plane() {
            true => kubernetes::server(self.node.address),
            false => kubeconfig::BALANCER.to_owned(),
        }
    }

    /// Whether it runs a control plane.
    pub fn is_control_plane(&self) -> bool {
        self.settings.role != Some(Role::Worker)
    }

    /// What its gates compare with. `boot` is the id of this boot.
    pub fn expected(&self, boot: String) -> Expected {
        let settings = &self.settings;
        let static_pods =
            if self.is_control_plane() { static_pods::NAMES.map(str::to_owned).into() } else { Vec::new() };
        let coredns = settings.addons.iter().any(|addon| addon == "coredns");
        Expected {
            node: self.node.name.clone(),
            boot,
            kubelet: format!("v{}", self.seat.kubernetes),
            static_pods,
            proxy: settings.proxy != ProxyMode::None,
            flannel: settings.network.backend != Backend::None,
            dns: coredns.then(|| format!("kubernetes.default.svc.{}", settings.cluster.dns_domain)),
        }
    }
}

/// The first of the node's stored records that is damaged, or missing although the node was set up. In words.
pub fn damaged(root: &Root) -> Option<String> {
    let founded = files::exists(&root.path(paths::FROZEN));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let judge = |path: &str, parse: &dyn Fn(&[u8]) -> Result<(), String>| match files::read_optional(&root.path(path)) {
        Ok(Some(bytes)) => parse(&bytes).err().map(|why| damaged_file(path, &why)),
        Ok(None) if founded => Some(damaged_file(path, "it is missing, and this machine was set up as a node")),
        Ok(None) => None,
        Err(error) => Some(format!("can't read {path}: {error}")),
    };
    judge(paths::FROZEN, &|bytes| Frozen::parse(&text(bytes)).map(drop))
        .or_else(|| judge(paths::NODE, &|bytes| Node::parse(bytes).map(drop)))
        .or_else(|| judge(paths::CLUSTER, &|bytes| Cluster::parse(bytes).map(drop)))
}

/// What `kubeboot slot` left.
///
/// # Errors
/// In words: no such file, or a damaged one.
pub fn seat(root: &Root) -> Result<SeatFacts, String> {
    json(root, paths::SEAT_FACTS)
}

fn json<T: DeserializeOwned>(root: &Root, path: &str) -> Result<T, String> {
    serde_json::from_slice(&read(root, path)?).map_err(|error| damaged_file(path, &error.to_string()))
}

fn read(root: &Root, path: &str) -> Result<Vec<u8>, String> {
    match files::read_optional(&root.path(path)) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(format!("{path} does not exist: this machine is no node yet")),
        Err(error) => Err(format!("can't read {path}: {error}")),
    }
}

fn damaged_file(path: &str, why: &str) -> String {
    format!("{path} is damaged: {why}")
}
