//! Further machines, each made a node of the first one's cluster by its token.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use kubeboot::certificates::profile;
use kubeboot::paths;
use kubeboot::timeline::What;
use kubeboot::token::{Joiner, Seed};
use serde_json::{Value, json};

use super::{attacks, founder, workload};
use crate::kubectl::Kubectl;
use crate::machine::network::Network;
use crate::machine::{Machine, Spec, Volume, report};
use crate::oci::BUSYBOX;
use crate::scenario::{Needs, ONE, Scenario, Stage, TO_READY, stop_all};
use crate::wait::{Look, until};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "A worker joins with its token and serves workloads",
        needs: Needs { machines: 2, ..ONE },
        long: false,
        run: a_worker_joins,
    },
    Scenario {
        name: "A cluster that was off until its nodes had no certificate left comes back by itself",
        needs: Needs { machines: 2, ..ONE },
        long: true,
        run: a_cluster_comes_back,
    },
];

const LIMIT: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_secs(2);

/// The two machines' names, which are their nodes' too.
pub(super) const FOUNDER: &str = "founder";
pub(super) const WORKER: &str = "worker";

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
    let mut spec = worker_of(stage, &tokens, &images)?;
    // It finds its cluster on the network by itself.
    spec.words.retain(|word| !word.starts_with("kubeboot.join="));
    let mut worker = stage.start(spec.clone())?;
    let ready = await_node(kubectl, WORKER, &*worker);
    let used = ready.and_then(|()| {
        let (found, join) = (to_found.as_secs_f64(), start.elapsed().as_secs_f64());
        println!("       founder Ready after {found:.0} s, worker after {join:.0} s more: {:.2} of it", join / found);
        ensure!(join <= found / 2.0, "a worker took longer than half of its founder's time");
        println!(
            "       from where it looked for its cluster to its certificates: {:.0} ms",
            admitted(&*worker)? * 1000.0
        );
        use_both(kubectl)?;
        a_watch_outlives_the_agent(kubectl)?;
        attacks::pods_are_kept_from_enrolment(kubectl)?;
        tokens_are_made_and_revoked(kubectl)
    });
    used.inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    let before = boot_of(kubectl, WORKER)?;
    worker.cut_power()?;
    spec.credentials.retain(|(name, _)| name != "kubeboot.token");
    let mut worker = stage.start(spec)?;
    kubectl
        .wait_for("the worker's next boot", TO_READY, &["get", "node", WORKER, "-o", BOOT], |boot| {
            !boot.is_empty() && boot != before
        })
        .with_context(|| crate::transcript::last_lines(&worker.console().text(), 30))?;
    await_node(kubectl, WORKER, &*worker)?;
    certificates_are_renewed_in_time(kubectl).inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    stop_all([&mut *worker, &mut *founded.machine])
}

/// How long the cluster is off: its nodes' certificates and its tokens end sooner, the kubeconfig from before does not.
const OFF: Duration = Duration::from_secs(25 * 24 * 60 * 60);
const _: () = assert!(OFF.as_secs() > profile::NODE);

fn a_cluster_comes_back(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    let (mut spec, mut worker_spec) = (founder_of(stage, &tokens, &images)?, worker_of(stage, &tokens, &images)?);
    let machine = stage.start(spec.clone())?;
    let mut worker = stage.start(worker_spec.clone())?;
    let mut founded = stage.ready(machine)?;
    let kubectl = &founded.kubectl;
    await_node(kubectl, WORKER, &*worker)?;
    kubectl.wait_for("the default service account", LIMIT, &["get", "serviceaccount", "default"], |_| true)?;
    kubectl.apply(&pods())?;
    kubectl.wait_for_pods("default", LIMIT)?;
    let before = [boot_of(kubectl, FOUNDER)?, boot_of(kubectl, WORKER)?];
    worker.cut_power()?;
    founded.machine.cut_power()?;
    let later = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")? + OFF;
    for spec in [&mut spec, &mut worker_spec] {
        spec.words.push(format!("systemd.clock_usec={}", later.as_micros()));
        spec.credentials.retain(|(name, _)| name != "kubeboot.token");
    }
    founded.machine = stage.start(spec)?;
    worker = stage.start(worker_spec)?;
    for ((node, before), machine) in [FOUNDER, WORKER].iter().zip(&before).zip([&*founded.machine, &*worker]) {
        kubectl
            .wait_for(&format!("the next boot of {node}"), TO_READY, &["get", "node", node, "-o", BOOT], |boot| {
                !boot.is_empty() && boot != before
            })
            .and_then(|_| await_node(kubectl, node, machine))
            .with_context(|| crate::transcript::last_lines(&machine.console().text(), 30))
            .inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    }
    let now = workload::on(kubectl, Some(WORKER), &["date", "+%s"])?;
    let now: u64 = now.trim().parse().with_context(|| format!("the worker's clock says {now}"))?;
    ensure!(now >= later.as_secs(), "the worker's clock was not set: it says {now}");
    use_both(kubectl).inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    stop_all([&mut *worker, &mut *founded.machine])
}

/// How many seconds a machine took to find its cluster and to be admitted, certificates and all, as it reports.
pub(super) fn admitted(machine: &dyn Machine) -> Result<f64> {
    let events = report::events(&machine.report().text());
    let taken = events.iter().find_map(|event| match &event.what {
        What::Step { step, seconds, .. } if step == "be admitted by a control plane" => Some(*seconds),
        _ => None,
    });
    taken.context("the machine reports no admission")
}

/// The id of a node's boot, as its kubelet reports it.
const BOOT: &str = "jsonpath={.status.nodeInfo.bootID}";

fn boot_of(kubectl: &Kubectl, node: &str) -> Result<String> {
    kubectl.run(&["get", "node", node, "-o", BOOT])
}

/// Everything that a cluster needs of secrets, made beforehand and offline.
pub(super) struct Tokens {
    seed: String,
    worker: String,
    control_plane: String,
}

impl Tokens {
    /// The founder's.
    pub(super) fn seed(&self) -> &str {
        &self.seed
    }

    /// What workers join by.
    pub(super) fn worker(&self) -> &str {
        &self.worker
    }

    /// Every one of them.
    pub(super) fn secrets(&self) -> [&str; 3] {
        [&self.seed, &self.worker, &self.control_plane]
    }

    pub(super) fn new(stage: &mut Stage) -> Self {
        let random = [stage.random.bits(), stage.random.bits()].map(u64::to_be_bytes).concat();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&random);
        let seed = Seed::new(bytes);
        let of = |joiner| seed.join_token(joiner).text().to_string();
        let (worker, control_plane) = (of(Joiner::Worker), of(Joiner::ControlPlane));
        Self { seed: seed.text().to_string(), worker, control_plane }
    }
}

pub(super) fn founder_of(stage: &Stage, tokens: &Tokens, images: &Volume) -> Result<Spec> {
    founder_named(stage, FOUNDER, 0, tokens, images)
}

/// A machine that founds a cluster from the seed: its name, and its place on the network.
pub(super) fn founder_named(stage: &Stage, name: &str, number: u8, tokens: &Tokens, images: &Volume) -> Result<Spec> {
    let disk = stage.disk_of(name)?;
    let mut spec = stage.founder(&disk);
    spec.name = name.into();
    spec.number = number;
    spec.words.push(format!("kubeboot.name={name}"));
    spec.credentials.push(("kubeboot.token".into(), tokens.seed.clone().into_bytes()));
    spec.volumes.push(images.clone());
    Ok(spec)
}

pub(super) fn worker_of(stage: &Stage, tokens: &Tokens, images: &Volume) -> Result<Spec> {
    joiner_of(stage, Joiner::Worker, WORKER, 1, tokens, images)
}

/// A machine that joins the founder's cluster: its name, and its place on the network.
pub(super) fn joiner_of(
    stage: &Stage,
    joiner: Joiner,
    name: &str,
    number: u8,
    tokens: &Tokens,
    images: &Volume,
) -> Result<Spec> {
    let (role, token) = match joiner {
        Joiner::Worker => ("worker", &tokens.worker),
        Joiner::ControlPlane => ("control-plane", &tokens.control_plane),
    };
    let disk = stage.disk_of(name)?;
    let mut spec = stage.spec(&disk);
    spec.name = name.into();
    spec.number = number;
    let join = format!("kubeboot.join={}", Network::address(0));
    spec.words.extend([format!("kubeboot.role={role}"), join, format!("kubeboot.name={name}")]);
    spec.credentials.push(("kubeboot.token".into(), token.clone().into_bytes()));
    spec.volumes.push(images.clone());
    Ok(spec)
}

/// Waits until a machine's node is Ready in the cluster.
pub(super) fn await_node(kubectl: &Kubectl, node: &str, machine: &dyn Machine) -> Result<()> {
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
pub(super) fn use_both(kubectl: &Kubectl) -> Result<()> {
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
    let view = workload::on(kubectl, Some(WORKER), &["cat", paths::BALANCER])?;
    let view: Value = serde_json::from_str(&view).with_context(|| format!("the balancer wrote: {view}"))?;
    let expected = format!("{}:6443", Network::address(0));
    let server = &view["servers"][0];
    ensure!(server["address"] == expected.as_str() && server["health"] == "healthy", "the balancer thinks: {view}");
    Ok(())
}

/// What is seen of the worker's node, through the balancer there, and by which process.
const WATCHED: &str = "/run/watched";

/// The balancer is a process of its own: who watches through it does not notice that the agent starts again.
fn a_watch_outlives_the_agent(kubectl: &Kubectl) -> Result<()> {
    let on = |command: &str| workload::on(kubectl, Some(WORKER), &["sh", "-c", command]);
    let watch = format!("/run/kubeboot/slot/bin/kubectl get node {WORKER} --watch --output=name");
    let watch = format!("setsid {watch} </dev/null >{WATCHED} 2>&1 & echo $! >{WATCHED}.pid");
    on(&format!("export KUBECONFIG=/etc/kubernetes/kubelet.conf; {watch}"))?;
    let seen = |more_than: usize| {
        until("the watch to see the node", LIMIT, PAUSE, || match on(&format!("cat {WATCHED}")) {
            Ok(lines) if lines.lines().count() > more_than => Look::Holds(lines.lines().count()),
            Ok(lines) => Look::NotYet(lines),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    };
    seen(0)?;
    on("systemctl restart kubeboot-agent.service")?;
    let before = on(&format!("wc -l <{WATCHED}"))?;
    let before = before.trim().parse().with_context(|| format!("wc said {before}"))?;
    kubectl.run(&["label", "node", WORKER, "watched=yes"])?;
    seen(before)?;
    on(&format!("kill $(cat {WATCHED}.pid) && rm {WATCHED} {WATCHED}.pid"))
        .context("the watch ended when the agent was started again")
        .map(drop)
}

/// On the control plane: a token is made, listed by kubeboot and kubectl without its secret, and revoked.
fn tokens_are_made_and_revoked(kubectl: &Kubectl) -> Result<()> {
    let token = |words: &[&str]| {
        workload::kubeboot(kubectl, Some(FOUNDER), &[&["token"], words, &["--output", "json"]].concat())
    };
    let objects = || kubectl.run(&["get", "configmaps", "-n", "kubeboot-system", "-o", "yaml"]);
    let made: Value = serde_json::from_str(&token(&["create", "--uses", "2", "--ttl", "1h"])?)?;
    let (Some(id), Some(secret)) = (made["id"].as_str(), made["token"].as_str()) else {
        anyhow::bail!("token create answered: {made}");
    };
    let (listed, kept) = (token(&["list"])?, objects()?);
    ensure!(listed.contains(id), "token {id} is not in the list: {listed}");
    ensure!(kept.contains(&format!("token-{id}")) && kept.contains(&format!("node-{WORKER}")), "kubectl lists: {kept}");
    ensure!(!listed.contains(secret) && !kept.contains(secret), "the token itself was kept");
    token(&["revoke", id])?;
    let (listed, kept) = (token(&["list"])?, objects()?);
    ensure!(!listed.contains(id) && !kept.contains(&format!("token-{id}")), "token {id} is still there: {listed}");
    Ok(())
}

/// Every certificate of a node: the kubelet's two, kube-proxy's and flanneld's.
const CERTIFICATES: [&str; 4] = [
    "/var/lib/kubelet/pki/kubelet-client-current.pem",
    "/var/lib/kubelet/pki/kubelet.crt",
    "/etc/kubernetes/pki/kube-proxy.pem",
    "/etc/kubernetes/pki/flannel.pem",
];
/// Where kubelets say that they live.
const LEASE: [&str; 3] = ["get", "lease", "--namespace=kube-node-lease"];

/// On both machines the clock is set: to when certificates are due, and to when those that were there before have ended.
/// The founder renews by its own authorities, the worker in return for its node key, and both kubelets go on.
fn certificates_are_renewed_in_time(kubectl: &Kubectl) -> Result<()> {
    kubectl.wait_for_pods("default", LIMIT)?;
    let nodes = [FOUNDER, WORKER];
    let on = |node: &str, command: &[&str]| workload::on(kubectl, Some(node), command);
    let set_clocks = |by: &str| nodes.iter().try_for_each(|node| on(node, &["date", "--set", by]).map(drop));
    // A line for each file of each node.
    let digests = || -> Result<Vec<String>> {
        let of = |node: &&str| on(node, &[&["sha256sum"][..], &CERTIFICATES].concat());
        let lines = nodes.iter().map(of).collect::<Result<Vec<_>>>()?;
        Ok(lines.iter().flat_map(|of_one| of_one.lines().map(str::to_owned)).collect())
    };
    let before = digests()?;
    ensure!(before.len() == nodes.len() * CERTIFICATES.len(), "the nodes have the certificates: {before:?}");
    set_clocks("+5 days")?;
    until("every certificate of both nodes to be renewed", LIMIT, PAUSE, || match digests() {
        Ok(now) if now.len() == before.len() && now.iter().all(|file| !before.contains(file)) => Look::Holds(()),
        Ok(now) => Look::NotYet(format!("{now:?}; before the clocks were set: {before:?}")),
        Err(error) => Look::NotYet(format!("{error:#}")),
    })?;
    set_clocks("+3 days")?;
    for node in nodes {
        let now = on(node, &["date", "--utc", "+%Y-%m-%dT%H:%M:%S"])?;
        let query = [&LEASE[..], &[node, "--output=jsonpath={.spec.renewTime}"]].concat();
        kubectl.wait_for(&format!("the kubelet of {node} to renew its lease"), LIMIT, &query, |renewed| {
            renewed > now.trim()
        })?;
    }
    // The API server reads logs from kubelets by what they serve with.
    kubectl
        .wait_for("a log from the worker", LIMIT, &["logs", "client-worker"], |log| log.contains("started"))
        .map(drop)
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
                // Process 1 of its own, a program of busybox's would not hear that it is to end.
                "shareProcessNamespace": true,
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
