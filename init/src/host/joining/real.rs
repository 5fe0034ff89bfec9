//! A worker joins a real control plane's server behind a real API server, and uses what it was given.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::host::api::Api;
use crate::host::enrolment::cluster::Enrolment;
use crate::host::enrolment::tests::real;
use crate::host::{reconcile, worker};
use crate::kubernetes::{addons, kubeconfig};
use crate::plan::Worker;
use crate::plan::worker::{When, plan, split};
use crate::settings::{Role, Settings};
use crate::token::{Joiner as Joins, Seed};

/// A machine with this name; its address comes from the name's last digit.
pub(crate) fn node(name: &str) -> Node {
    let number = name.bytes().last().unwrap() - b'0';
    Node { name: name.into(), address: [192, 0, 2, 20 + number].into(), machine_id: "m".into() }
}

fn asker(root: &Root, by: By, node: &Node, server: &SocketAddr) -> Asker {
    let settings = Settings { role: Some(Role::Worker), ..Settings::default() };
    let own = Frozen { format: 1, settings, origins: Default::default() };
    let host = Host { name: server.ip().to_string(), port: server.port() };
    Asker::new(root, by, node, "1.37.2-4".parse().unwrap(), vec![host], own).unwrap()
}

/// A machine whose `/var` was just made.
pub(crate) fn machine(folder: &std::path::Path) -> Root {
    let root = Root::at(folder);
    for path in ["/etc/kubernetes", "/run/kubeboot", "/var"] {
        std::fs::create_dir_all(root.path(path)).unwrap();
    }
    root
}

/// A boot's steps, up to the grant and from there on.
pub(crate) fn join(root: &Root, by: By, node: &Node, server: &SocketAddr) -> Result<Granted, Block> {
    let this = Worker { node: node.clone() };
    let steps = plan(&this, &worker::look(root, &this), clock::unix(), When::Lost).unwrap();
    let (before, after) = split(&steps).unwrap();
    worker::act(root, before, None, |_, _| {}).unwrap();
    let granted = asker(root, by, node, server).ask_once()?;
    worker::act(root, after, Some(&granted), |_, _| {}).unwrap();
    assert_eq!(plan(&this, &worker::look(root, &this), clock::unix(), When::Due).unwrap(), []);
    Ok(granted)
}

/// The kubelet's client, at the port of this test in the balancer's place.
fn as_the_node(root: &Root) -> Api {
    let text = std::fs::read_to_string(root.path(kubeconfig::KUBELET)).unwrap();
    let text = text.replace(kubeconfig::BALANCER, &format!("https://127.0.0.1:{}", real::API));
    let text = text.replace(" /", &format!(" {}/", root.path("/").display()));
    let path = root.path("/run/kubeboot/kubelet.conf");
    std::fs::write(&path, text).unwrap();
    Api::from_kubeconfig(&path).unwrap()
}

fn slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.0.0.12"]}, {"addresses": ["10.0.0.11"]}],
    })
}

/// `ETCD=PATH KUBE_APISERVER=PATH cargo test -p kubeboot --lib joining::real -- --ignored --nocapture`
#[test]
#[ignore = "needs etcd and kube-apiserver, and half a minute"]
fn a_worker_joins_and_may_do_what_its_agent_does_and_no_more() {
    let program = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("expected {name}")));
    let folder = tempfile::tempdir().unwrap();
    let founder = Root::at(folder.path().join("founder"));
    let this = real::found(&founder);
    let _api = real::run_api(&founder, &[program("ETCD"), program("KUBE_APISERVER")], folder.path());
    let admin = real::client(&founder);
    real::await_api(&admin, folder.path());
    let enrolment = Arc::new(real::open(Enrolment::new(&founder, &this, admin.clone(), None).unwrap()));
    enrolment.prepare().unwrap();
    let server = real::serve(&enrolment);
    let w1 = node("w-1");

    let root = machine(&folder.path().join("worker"));
    let token = || By::Token(Seed::new(real::SEED).join_token(Joins::Worker));
    let begun = clock::monotonic();
    let granted = join(&root, token(), &w1, &server).unwrap_or_else(|block| panic!("{block:?}"));
    println!("joined in {:?}", clock::monotonic() - begun);
    let back = asker(&root, By::NodeKey(granted.enrolled.cluster.clone()), &w1, &server).ask_once();
    assert!(back.is_ok(), "{:?}", back.err());

    // Another machine of that name waits, and hears why.
    let other = machine(&folder.path().join("other"));
    let refused = join(&other, token(), &w1, &server).err().unwrap();
    assert!(refused.line().contains("another machine with the name w-1"), "{refused:?}");

    // What the agent and the gates of a worker ask for, as the node.
    let without_dns = Settings { addons: Vec::new(), ..Settings::default() };
    reconcile::add_ons(&admin, &addons::wanted(&without_dns, &addons::Seen::default())).unwrap();
    admin.apply(&slice()).unwrap();
    admin.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "w-1"}})).unwrap();
    let api = as_the_node(&root);
    assert_eq!(api.text("/readyz").unwrap().0, 200);
    let servers = ["10.0.0.11:6443", "10.0.0.12:6443"].map(|one| one.parse().unwrap());
    let found = wait::until("the permission", Duration::from_secs(20), Duration::from_millis(200), || {
        reconcile::api_servers(&api).map_err(|error| error.to_string())
    });
    assert_eq!(found.unwrap(), Some(Endpoints::of(servers)));
    assert!(reconcile::node_is_ready(&api, "w-1", "boot").unwrap().is_err());
    api.get("/api/v1/namespaces/kube-system/pods?fieldSelector=spec.nodeName%3Dw-1").unwrap();
    for forbidden in
        ["/api/v1/secrets", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", "/api/v1/configmaps"]
    {
        assert_eq!(api.get(forbidden).unwrap_err().status(), Some(403), "{forbidden}");
    }
}
