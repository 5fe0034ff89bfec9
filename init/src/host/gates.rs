//! Looks at what the health gates judge.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::api::{Api, ApiError};
use super::node::ThisNode;
use super::root::Root;
use super::{files, probe};
use crate::health::{self, Expected, NodeSeen, PodSeen, Seen, node_from, pods_from};
use crate::kubernetes::containerd::CONTAINERS;

/// etcd's health port, on loopback, plain HTTP (kubeadm's `--listen-metrics-urls`).
const ETCD: u16 = 2381;
/// kube-proxy's health port.
const PROXY: u16 = 10256;
/// Who answers for the Service kube-dns.
const DNS_ENDPOINTS: &str = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices\
                             ?labelSelector=kubernetes.io%2Fservice-name%3Dkube-dns";
/// What flanneld writes when it has its lease.
const SUBNET: &str = "/run/flannel/subnet.env";

/// Changes at each boot (random(4)); the kubelet reports it with the node.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot; empty where it can't be read, which no node reports.
pub fn boot_id(root: &Root) -> String {
    let text = files::read_optional(&root.path(BOOT_ID)).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// Ids of the containers that containerd has started since the machine did.
fn containers(root: &Root) -> BTreeSet<String> {
    let folders = files::list(&root.path(CONTAINERS)).unwrap_or_default();
    let name = |path: std::path::PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    folders.into_iter().filter_map(name).collect()
}

/// Keeps a client and what was seen so far, and looks again only at what has not passed.
pub struct Gates {
    api: Api,
    expected: Expected,
    /// Where the node's services answer the node itself.
    loopback: IpAddr,
    dns: Option<IpAddr>,
    root: Root,
    seen: Seen,
    silent: bool,
}

impl Gates {
    /// For this node.
    ///
    /// # Errors
    /// A kubeconfig that can't be used.
    pub fn new(root: &Root, this: &ThisNode) -> Result<Self, ApiError> {
        Ok(Gates {
            api: this.api(root)?,
            expected: this.expected(boot_id(root)),
            loopback: crate::kubernetes::loopback(this.node.address),
            dns: this.settings.cluster.service_cidr.nth(10),
            root: root.clone(),
            seen: Seen::default(),
            silent: false,
        })
    }

    /// What the gates compare with.
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    /// What was seen last.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Whether the API server has been seen ready.
    pub fn api_is_ready(&self) -> bool {
        passed(&self.seen.api)
    }

    /// Whether nobody answered as the API server when everything was looked at.
    pub fn api_is_silent(&self) -> bool {
        self.silent
    }

    /// Looks at everything, whatever else fails. Only where nobody answers as the API server, nobody is asked twice: each
    /// unanswered question costs its whole time-out, and whoever looks then waits.
    pub fn look_at_all(&mut self) {
        let answer = self.api.text("/readyz");
        let silence = answer.as_ref().err().map(ToString::to_string);
        self.silent = silence.is_some();
        self.seen.api = Some(self.ready(answer));
        self.seen.node = Some(silence.clone().map_or_else(|| self.node(), Err));
        if !self.expected.static_pods.is_empty() {
            self.seen.etcd = Some(self.endpoint(ETCD, "/readyz"));
        }
        self.seen.flannel = Some(self.lease());
        self.seen.proxy = Some(self.endpoint(PROXY, "/healthz"));
        self.seen.pods = Some(silence.map_or_else(|| self.pods(), Err));
        if let (Some(name), Some(server)) = (&self.expected.dns, self.dns) {
            self.seen.dns = Some(self.dns(server, name));
        }
    }

    /// Looks at what has not passed, each only when what it builds on has: a machine that starts a control plane has
    /// no CPU to spare for questions that can't be answered yet.
    pub fn look_again(&mut self) {
        let control_plane = !self.expected.static_pods.is_empty();
        if !passed(&self.seen.api) {
            self.seen.api = Some(self.ready(self.api.text("/readyz")));
        }
        if !passed(&self.seen.api) {
            return;
        }
        if !matches!(&self.seen.node, Some(Ok(node)) if self.settled(node)) {
            self.seen.node = Some(self.node());
        }
        if !matches!(&self.seen.node, Some(Ok(node)) if self.settled(node)) {
            return;
        }
        if control_plane && !passed(&self.seen.etcd) {
            self.seen.etcd = Some(self.endpoint(ETCD, "/readyz"));
        }
        if self.expected.flannel && !passed(&self.seen.flannel) {
            self.seen.flannel = Some(self.lease());
        }
        if self.expected.proxy && !passed(&self.seen.proxy) {
            self.seen.proxy = Some(self.endpoint(PROXY, "/healthz"));
        }
        // Looked at every time: a pod that is still to come makes no list look unfinished.
        self.seen.pods = Some(self.pods());
        if let (Some(name), Some(server)) = (&self.expected.dns, self.dns)
            && !passed(&self.seen.dns)
        {
            self.seen.dns = Some(self.dns(server, name));
        }
    }

    fn settled(&self, node: &NodeSeen) -> bool {
        node.boot == self.expected.boot
            && node.ready.as_ref().is_some_and(|ready| ready.status)
            && !node.pod_cidrs.is_empty()
    }

    /// Asks only when somebody is there to answer: an unanswered question costs its whole time-out.
    fn dns(&self, server: IpAddr, name: &str) -> Result<String, String> {
        // A worker may not look; there the cluster's DNS has answered for long in most cases.
        if !self.expected.static_pods.is_empty() {
            let slices = self.api.get(DNS_ENDPOINTS).map_err(|error| error.to_string())?;
            if !health::has_ready_endpoint(&slices) {
                return Err("the Service kube-dns has no ready endpoint".to_owned());
            }
        }
        probe::resolve(server, name).map(|found| format!("{server} says {name} is {found}"))
    }

    fn ready(&self, answer: Result<(u16, String), ApiError>) -> Result<String, String> {
        match answer {
            Ok((200, _)) => Ok(format!("{} is ready", self.api.server())),
            Ok((status, body)) => Err(format!("{} answers {status}: {}", self.api.server(), failing(&body))),
            Err(error) => Err(error.to_string()),
        }
    }

    fn node(&self) -> Result<NodeSeen, String> {
        let path = format!("/api/v1/nodes/{}", self.expected.node);
        match self.api.get_optional(&path) {
            Ok(Some(node)) => Ok(node_from(&node)),
            Ok(None) => Err(format!("the kubelet has not registered {} yet", self.expected.node)),
            Err(error) => Err(error.to_string()),
        }
    }

    fn pods(&self) -> Result<Vec<PodSeen>, String> {
        let path = format!("/api/v1/namespaces/kube-system/pods?fieldSelector=spec.nodeName%3D{}", self.expected.node);
        let pods = self.api.get(&path).map_err(|error| error.to_string())?;
        // After the question: whatever the answer says runs was started before.
        Ok(pods_from(&pods, &containers(&self.root)))
    }

    fn endpoint(&self, port: u16, path: &str) -> Result<String, String> {
        let address = SocketAddr::new(self.loopback, port);
        match probe::http(address, path) {
            Ok((200, _)) => Ok(format!("{address}{path} is healthy")),
            Ok((status, body)) => Err(format!("{address}{path} answers {status}: {}", failing(&body))),
            Err(error) => Err(format!("{address}{path}: {error}")),
        }
    }

    fn lease(&self) -> Result<String, String> {
        let text = files::read_optional(&self.root.path(SUBNET)).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let subnet = text.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET="));
        subnet.map(|subnet| format!("flanneld serves {subnet}")).ok_or_else(|| format!("no lease yet in {SUBNET}"))
    }
}

fn passed(answer: &Option<Result<String, String>>) -> bool {
    matches!(answer, Some(Ok(_)))
}

/// The checks that fail in a verbose health answer (`[-]etcd failed: …`), or its first line.
fn failing(body: &str) -> String {
    let failed: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("[-]")).take(5).collect();
    if failed.is_empty() { body.lines().next().unwrap_or_default().to_owned() } else { failed.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_this_boot_are_those_that_containerd_keeps_on_the_tmpfs() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        assert!(containers(&root).is_empty());
        std::fs::create_dir_all(root.path(CONTAINERS).join("0a1b")).unwrap();
        assert_eq!(containers(&root), BTreeSet::from(["0a1b".to_owned()]));
    }

    #[test]
    fn this_boot_has_an_id() {
        assert_eq!(boot_id(&Root::system()).len(), 36);
        assert_eq!(boot_id(&Root::at(tempfile::tempdir().unwrap().path())), "");
    }

    #[test]
    fn only_the_checks_that_fail_are_shown() {
        let body = "[+]ping ok\n[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\nreadyz check failed\n";
        assert_eq!(failing(body), "poststarthook/rbac/bootstrap-roles failed: reason withheld");
        assert_eq!(failing("no leader\nx"), "no leader");
    }
}
