//! Further machines, each made a node of the first one's cluster by its token.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kubeboot::token::{Joiner, Seed};
use serde_json::{Value, json};

use super::{founder, workload};
use crate::kubectl::Kubectl;
use crate::machine::network::Network;
use crate::machine::{Machine, Spec, Volume};
use crate::oci::BUSYBOX;
use crate::scenario::{Needs, ONE, Scenario, Stage, TO_READY, stop};
use crate::wait::{Look, until};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "A worker joins with its token and serves workloads",
    needs: Needs { machines: 2, ..ONE },
    long: false,
    run: a_worker_joins,
}];

const LIMIT: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_secs(2);

/// The two machines' names, which are their nodes' too.
const FOUNDER: &str = "founder";
const WORKER: &str = "worker";

fn a_worker_joins(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    let start = Instant::now();
    let spec = founder_of(stage, &tokens, &images)?;
    let machine = stage.start(spec)?;
    let mut founded = stage.ready(machine)?;
    let kubectl = &founded.kubectl;
    let to_found = start.elapsed();
    let start = Instant::now();
    let spec = worker_of(stage, &tokens, &images)?;
    let mut worker = stage.start(spec)?;
    let ready = await_node(kubectl, WORKER, &*worker);
    let used = ready.and_then(|()| {
        println!(
            "       founder Ready after {:.0} s, worker after {:.0} s more",
            to_found.as_secs_f64(),
            start.elapsed().as_secs_f64()
        );
        use_both(kubectl)
    });
    used.inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    stop(&mut *worker)?;
    stop(&mut *founded.machine)
}

/// Everything that a cluster needs of secrets, made beforehand and offline.
struct Tokens {
    seed: String,
    worker: String,
}

impl Tokens {
    fn new(stage: &mut Stage) -> Self {
        let random = [stage.random.bits(), stage.random.bits()].map(u64::to_be_bytes).concat();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&random);
        let seed = Seed::new(bytes);
        let worker = seed.join_token(Joiner::Worker).text().to_string();
        Self { seed: seed.text().to_string(), worker }
    }
}

fn founder_of(stage: &Stage, tokens: &Tokens, images: &Volume) -> Result<Spec> {
    let disk = stage.disk_of(FOUNDER)?;
    let mut spec = stage.founder(&disk);
    spec.name = FOUNDER.into();
    spec.words.push(format!("kubeboot.name={FOUNDER}"));
    spec.credentials.push(("kubeboot.token".into(), tokens.seed.clone().into_bytes()));
    spec.volumes.push(images.clone());
    Ok(spec)
}

fn worker_of(stage: &Stage, tokens: &Tokens, images: &Volume) -> Result<Spec> {
    let disk = stage.disk_of(WORKER)?;
    let mut spec = stage.spec(&disk);
    spec.name = WORKER.into();
    spec.number = 1;
    let join = format!("kubeboot.join={}", Network::address(0));
    spec.words.extend(["kubeboot.role=worker".into(), join, format!("kubeboot.name={WORKER}")]);
    spec.credentials.push(("kubeboot.token".into(), tokens.worker.clone().into_bytes()));
    spec.volumes.push(images.clone());
    Ok(spec)
}

/// Waits until a machine's node is Ready in the cluster.
fn await_node(kubectl: &Kubectl, node: &str, machine: &dyn Machine) -> Result<()> {
    let query = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    let ready = kubectl.wait_for(
        &format!("node {node} to be Ready"),
        TO_READY,
        &["get", "node", node, "-o", query],
        |status| status == "True",
    );
    let console = machine.console().text();
    ready.map(drop).with_context(|| format!("{node} said:\n{}", crate::transcript::last_lines(&console, 30)))
}

/// Pods on both machines, each other's Services, logs and exec; and the worker's way to the API server.
fn use_both(kubectl: &Kubectl) -> Result<()> {
    kubectl.wait_for_pods("kube-system", TO_READY)?;
    kubectl.wait_for("the default service account", LIMIT, &["get", "serviceaccount", "default"], |_| true)?;
    kubectl.apply(&pods())?;
    kubectl.wait_for_pods("default", LIMIT)?;
    for (node, other) in [(WORKER, FOUNDER), (FOUNDER, WORKER)] {
        let (client, service) = (format!("client-{node}"), format!("http://web-{other}/"));
        let mut page = String::new();
        // kube-proxy hears of an endpoint a moment after it is ready; until then it refuses connections.
        until(&format!("a pod on {node} to reach the Service of a pod on {other}"), LIMIT, PAUSE, || {
            let ask = ["wget", "-q", "-T", "20", "-O", "-", service.as_str()];
            Look::from_result(kubectl.exec(&client, &ask).map(|answer| page = answer))
        })?;
        ensure!(page.contains("a page from the pod"), "web-{other} answered: {page}");
    }
    let logs = kubectl.run(&["logs", "client-worker"])?;
    ensure!(logs.contains("the client started"), "kubectl logs gave: {logs}");
    let forwarded = kubectl.forward("pod/web-worker", 80)?.fetch(LIMIT)?;
    ensure!(forwarded.contains("a page from the pod"), "the forwarded port answered: {forwarded}");
    let view = workload::on(kubectl, Some(WORKER), &["cat", "/run/kubeboot/balancer.json"])?;
    let view: Value = serde_json::from_str(&view).with_context(|| format!("the balancer wrote: {view}"))?;
    let expected = format!("{}:6443", Network::address(0));
    let server = &view["servers"][0];
    ensure!(server["address"] == expected.as_str() && server["health"] == "healthy", "the balancer thinks: {view}");
    Ok(())
}

/// On each node a web server with its Service, and a client.
fn pods() -> String {
    let serve = ["httpd", "-f", "-p", "80", "-h", "/www"];
    let wait = ["sh", "-c", "echo the client started; exec sleep 86400"];
    let pod = |name: &str, node: &str, command: &[&str]| {
        let name = format!("{name}-{node}");
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                "nodeSelector": { "kubernetes.io/hostname": node },
                "tolerations": [{ "operator": "Exists" }], "terminationGracePeriodSeconds": 1,
                "containers": [
                    { "name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": command },
                ],
            },
        })
    };
    let service = |node: &str| {
        let name = format!("web-{node}");
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "selector": { "app": name }, "ports": [{ "port": 80 }] },
        })
    };
    let items: Vec<Value> = [FOUNDER, WORKER]
        .iter()
        .flat_map(|node| [service(node), pod("web", node, &serve), pod("client", node, &wait)])
        .collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}
