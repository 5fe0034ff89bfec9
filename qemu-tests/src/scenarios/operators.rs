//! Operators: people who command a cluster over the network by their ssh keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use image_builder::command::{output, run};
use image_builder::host;
use kubeboot::token::Joiner;
use serde_json::Value;

use super::founder;
use super::join::{FOUNDER, Tokens, WORKER, await_node, founder_of, worker_of};
use super::secrets::no_secret_stays;
use crate::kubectl::{Kubectl, within};
use crate::machine::network::Network;
use crate::scenario::{Needs, ONE, Scenario, Stage, stop_all};
use crate::transcript::Transcript;
use crate::wait::{Look, until};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "Operators command their cluster over the network, and nobody else does",
        needs: Needs { machines: 2, ..ONE },
        long: false,
        run: operators_command_the_cluster,
    },
    Scenario {
        name: "A worker answers operators, and nobody else, also when its control plane has no power",
        needs: Needs { machines: 2, ..ONE },
        long: true,
        run: a_worker_answers,
    },
];

/// How long what is done in a moment may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_secs(2);
/// The exit code with which a control plane refuses (docs/operations.md).
const REFUSED: i32 = 7;

fn operators_command_the_cluster(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let (ann, bob, eve) = (key(stage, "ann")?, key(stage, "bob")?, key(stage, "eve")?);
    let images = founder::images(stage)?;
    let mut spec = founder_of(stage, &tokens, &images)?;
    spec.words.push(format!("kubeboot.operator=\"{}\"", public(&ann)?));
    let worker = worker_of(stage, &tokens, &images)?;
    let machine = stage.start(spec)?;
    let mut worker = stage.start(worker)?;
    let mut founded = stage.ready(machine)?;
    let desk = Desk::new(stage, &founded.kubectl, &tokens)?;
    let done = await_node(&founded.kubectl, WORKER, &*worker)
        .and_then(|()| people(&desk, &founded.kubectl, &ann))
        .and_then(|()| operators(&desk, &ann, &bob))
        .and_then(|()| strangers(&desk, &ann, &eve))
        .and_then(|()| no_secret_leaves(&desk, &ann, &tokens))
        .and_then(|()| no_secret_stays(&founded.kubectl, FOUNDER, Joiner::ControlPlane, &tokens))
        .and_then(|()| no_secret_stays(&founded.kubectl, WORKER, Joiner::Worker, &tokens))
        .and_then(|()| a_node_is_removed(&desk, &founded.kubectl, &ann));
    done.inspect_err(|_| founded.kubectl.describe(&stage.folder.join("cluster.log")))?;
    stop_all([&mut *worker, &mut *founded.machine])
}

fn a_worker_answers(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let (ann, bob, eve) = (key(stage, "ann")?, key(stage, "bob")?, key(stage, "eve")?);
    let images = founder::images(stage)?;
    let mut spec = founder_of(stage, &tokens, &images)?;
    spec.words.push(format!("kubeboot.operator=\"{}\"", public(&ann)?));
    let worker = worker_of(stage, &tokens, &images)?;
    let machine = stage.start(spec.clone())?;
    let mut worker = stage.start(worker)?;
    let mut founded = stage.ready(machine)?;
    let desk = Desk::new(stage, &founded.kubectl, &tokens)?;
    let done = await_node(&founded.kubectl, WORKER, &*worker)
        .and_then(|()| operators(&desk, &ann, &bob))
        .and_then(|()| a_worker_is_asked(&desk, &ann, &bob, &eve));
    done.inspect_err(|_| founded.kubectl.describe(&stage.folder.join("cluster.log")))?;
    // Without any control plane: that is when a worker's logs are wanted most.
    founded.machine.cut_power()?;
    a_worker_alone_is_asked(&desk, &ann, &eve)?;
    founded.machine = stage.start(spec)?;
    let done = await_node(&founded.kubectl, FOUNDER, &*founded.machine).and_then(|()| await_status(&desk, &ann));
    done.inspect_err(|_| founded.kubectl.describe(&stage.folder.join("cluster.log")))?;
    stop_all([&mut *worker, &mut *founded.machine])
}

/// An ssh key in a file, as ssh-keygen makes it.
pub(super) fn key(stage: &Stage, name: &str) -> Result<PathBuf> {
    host::host_packages(&["openssh-client"])?;
    let file = stage.folder.join(format!("id_{name}"));
    let mut keygen = Command::new("ssh-keygen");
    run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&file), "make an ssh key")?;
    Ok(file)
}

/// The public half of a key: one line.
pub(super) fn public(key: &Path) -> Result<String> {
    let file = key.with_extension("pub");
    let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// What names a key in lists and logs: `SHA256:…`.
fn fingerprint(key: &Path) -> Result<String> {
    let mut keygen = Command::new("ssh-keygen");
    let line = output(keygen.args(["-l", "-f"]).arg(key.with_extension("pub")), "ask for a key's fingerprint")?;
    line.split_whitespace().nth(1).map(str::to_owned).with_context(|| format!("ssh-keygen -l said: {line}"))
}

/// Where people sit: another machine of the cluster's network, with the kubeboot of the release.
pub(super) struct Desk {
    program: PathBuf,
    namespace: Option<String>,
    folder: PathBuf,
    fingerprint: String,
}

/// A log as it grows.
struct Followed {
    child: Child,
    log: Transcript,
}

impl Drop for Followed {
    fn drop(&mut self) {
        // Who follows goes on until then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a command ended.
struct Ended {
    code: Option<i32>,
    out: String,
    said: String,
}

impl Desk {
    pub(super) fn new(stage: &Stage, kubectl: &Kubectl, tokens: &Tokens) -> Result<Self> {
        let seed = stage.folder.join("seed");
        image_builder::qemu::secret_file(&seed, tokens.seed())?;
        let program = stage.lab.kubeboot.clone();
        let mut inspect = Command::new(&program);
        inspect.args(["token", "inspect", "--output", "json", "--token-file"]).arg(&seed);
        let said = output(&mut inspect, "look at the seed")?;
        let said: Value = serde_json::from_str(&said).with_context(|| format!("token inspect answered: {said}"))?;
        let fingerprint = said["fingerprint"].as_str().context("a seed has a fingerprint")?.to_owned();
        Ok(Self { program, namespace: kubectl.namespace.clone(), folder: stage.folder.clone(), fingerprint })
    }

    /// Runs kubeboot as who has this key, at the founder.
    fn ask(&self, key: &Path, words: &[&str]) -> Result<Ended> {
        self.ask_at(0, key, words)
    }

    /// The same, at the machine in that place on the network.
    fn ask_at(&self, number: u8, key: &Path, words: &[&str]) -> Result<Ended> {
        let mut command = self.command(number, key, words);
        let ended = command.output().with_context(|| format!("can't run {}", self.program.display()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ended { code: ended.status.code(), out: text(&ended.stdout), said: text(&ended.stderr) })
    }

    /// kubeboot as who has this key. The cluster is known by the seed's fingerprint, which is remembered.
    fn command(&self, number: u8, key: &Path, words: &[&str]) -> Command {
        let mut command = within(self.namespace.as_deref(), &self.program.to_string_lossy());
        command.args(["--node", &Network::address(number), "--fingerprint", &self.fingerprint, "--identity"]).arg(key);
        command.args(words).env("HOME", &self.folder).env_remove("SSH_AUTH_SOCK").env_remove("XDG_CONFIG_HOME");
        command
    }

    /// Follows the log of a unit at the founder, from its latest line on, until what it gives is dropped.
    fn follow(&self, key: &Path, unit: &str) -> Result<Followed> {
        let mut command = self.command(0, key, &["logs", unit, "--follow", "--lines", "1"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("can't follow a log")?;
        let out = child.stdout.take().context("its output is piped")?;
        let followed = Followed { child, log: Transcript::record(out, &self.folder.join("followed.log"))? };
        // The line from before shows that it is on its way.
        followed.log.wait_for("a first line of the log", LIMIT, |text| text.contains('\n').then_some(()))?;
        Ok(followed)
    }

    /// The same at the founder, where it has to succeed. Gives what it printed.
    pub(super) fn done(&self, key: &Path, words: &[&str]) -> Result<String> {
        self.done_at(0, key, words)
    }

    /// The same at the machine in that place on the network.
    pub(super) fn done_at(&self, number: u8, key: &Path, words: &[&str]) -> Result<String> {
        let Ended { code, out, said } = self.ask_at(number, key, words)?;
        ensure!(code == Some(0), "kubeboot {} at {number} ended with {code:?}: {said}{out}", words.join(" "));
        Ok(out)
    }
}

/// An operator looks at the cluster, gets a kubeconfig, and gives somebody else one that may look and no more.
fn people(desk: &Desk, kubectl: &Kubectl, ann: &Path) -> Result<()> {
    let status = desk.done(ann, &["status"])?;
    ensure!(status.contains("Ready: every gate passes"), "status said: {status}");
    until("the founder's mesh to be shown", LIMIT, PAUSE, || match desk.done(ann, &["members"]) {
        Ok(members) if members.contains(FOUNDER) => Look::Holds(()),
        Ok(members) => Look::NotYet(members),
        Err(error) => Look::NotYet(format!("{error:#}")),
    })?;
    let own = desk.ask(ann, &["node", "remove", FOUNDER])?;
    ensure!(own.code == Some(REFUSED), "removing the only control plane said: {}{}", own.out, own.said);
    let file = |name: &str| desk.folder.join(format!("kubeconfig-{name}"));
    let as_user = |name: &str| Kubectl { config: file(name), server: None, ..kubectl.clone() };
    desk.done(ann, &["kubeconfig", "-o", &file("ann").to_string_lossy()])?;
    let nodes = as_user("ann").run(&["get", "nodes", "-o", "name"])?;
    ensure!(nodes.contains("node/founder"), "the operator's kubeconfig shows: {nodes}");
    desk.done(ann, &["user", "create", "carl", "--role", "view", "-o", &file("carl").to_string_lossy()])?;
    let carl = as_user("carl");
    let pods = ["get", "pods", "--all-namespaces"];
    until("a user with the role view to look at pods", LIMIT, PAUSE, || Look::from_result(carl.run(&pods).map(drop)))?;
    let denied = carl.run(&["delete", "pods", "--all", "--namespace=kube-system"]);
    ensure!(denied.as_ref().is_err_and(|why| why.to_string().contains("orbidden")), "a viewer's delete: {denied:?}");
    let listed = desk.done(ann, &["user", "list"])?;
    ensure!(listed.contains("carl"), "user list said: {listed}");
    desk.done(ann, &["user", "revoke", "carl"])?;
    until("a revoked user to see nothing", LIMIT, PAUSE, || match carl.run(&pods) {
        Ok(_) => Look::NotYet("pods are shown".to_owned()),
        Err(_) => Look::Holds(()),
    })?;
    let token = desk.done(ann, &["token", "create", "--output", "json"])?;
    let made: Value = serde_json::from_str(&token).with_context(|| format!("token create answered: {token}"))?;
    let id = made["id"].as_str().context("a token has an id")?;
    ensure!(desk.done(ann, &["token", "list"])?.contains(id), "token {id} is not listed");
    desk.done(ann, &["token", "revoke", id]).map(drop)
}

/// A second operator comes and goes, and the last one stays.
fn operators(desk: &Desk, ann: &Path, bob: &Path) -> Result<()> {
    ensure!(desk.ask(bob, &["status"])?.code == Some(REFUSED), "who is no operator yet was answered");
    desk.done(ann, &["operator", "add", &public(bob)?])?;
    desk.done(bob, &["status"])?;
    let listed = desk.done(bob, &["operator", "list", "--output", "json"])?;
    desk.done(ann, &["operator", "remove", &public(bob)?])?;
    let gone = desk.ask(bob, &["status"])?;
    ensure!(gone.code == Some(REFUSED), "a removed operator was answered: {}{}", gone.out, gone.said);
    // Whoever else was named at boot goes too: then one is left.
    let listed: Value = serde_json::from_str(&listed).with_context(|| format!("operator list answered: {listed}"))?;
    let all = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    let fingerprints: Vec<&str> = all.iter().filter_map(|one| one["fingerprint"].as_str()).collect();
    ensure!(fingerprints.len() == 3, "operator list answered: {listed}");
    let known = [fingerprint(ann)?, fingerprint(bob)?];
    for other in fingerprints.iter().filter(|one| !known.iter().any(|known| known == **one)) {
        desk.done(ann, &["operator", "remove", other])?;
    }
    let last = desk.ask(ann, &["operator", "remove", &public(ann)?])?;
    ensure!(last.code != Some(0) && last.said.contains("last"), "removing the last said: {}{}", last.out, last.said);
    desk.done(ann, &["status"]).map(drop)
}

/// Who never was an operator gets nothing, and the log says who it was, while it happens, to who follows it.
fn strangers(desk: &Desk, ann: &Path, eve: &Path) -> Result<()> {
    let followed = desk.follow(ann, "kubeboot-agent")?;
    let (own, file) = (public(eve)?, desk.folder.join("for-eve").to_string_lossy().into_owned());
    for words in [
        &["status"][..],
        &["logs"],
        &["support-bundle", "-o", &file],
        &["members"],
        &["kubeconfig"],
        &["token", "list"],
        &["token", "create"],
        &["operator", "list"],
        &["operator", "add", &own],
        &["user", "list"],
        &["user", "create", "eve", "-o", &file],
        &["node", "remove", WORKER],
    ] {
        let ended = desk.ask(eve, words)?;
        ensure!(
            ended.code == Some(REFUSED) && ended.out.is_empty(),
            "a stranger's {words:?} ended with {:?}: {}{}",
            ended.code,
            ended.out,
            ended.said
        );
    }
    ensure!(!Path::new(&file).exists(), "a stranger got a file");
    followed.log.wait_for_text(&fingerprint(eve)?, LIMIT)
}

/// The worker's place on the network.
const AT_WORKER: u8 = 1;

/// A worker shows what it has to an operator, and nothing to anybody else: neither to a stranger nor to who was removed. What is
/// the control planes' it sends to them.
fn a_worker_is_asked(desk: &Desk, ann: &Path, bob: &Path, eve: &Path) -> Result<()> {
    // Who the operators are comes by the mesh, and who is none any more: ann was named by settings, bob was added and removed.
    let status = until("an operator to be served by the worker", LIMIT, PAUSE, || {
        Look::from_result(desk.done_at(AT_WORKER, ann, &["status"]))
    })?;
    ensure!(status.contains(WORKER) && status.contains("role worker"), "the worker's status said: {status}");
    let seen = desk.ask_at(AT_WORKER, ann, &["members"])?;
    ensure!(seen.code == Some(0) && seen.out.contains(FOUNDER), "the worker's members: {}{}", seen.out, seen.said);
    ensure!(seen.said.contains(&format!("the worker {WORKER}")), "whom it spoke with was not said: {}", seen.said);
    let bundle = desk.folder.join("bundle-of-the-worker.tar.gz");
    desk.done_at(AT_WORKER, ann, &["support-bundle", "-o", &bundle.to_string_lossy()])?;
    let refused = |key: &Path| {
        let Ended { code, out, said } = desk.ask_at(AT_WORKER, key, &["status"])?;
        ensure!(code == Some(REFUSED) && out.is_empty(), "the worker's answer ended with {code:?}: {out}{said}");
        Ok(())
    };
    refused(eve)?;
    until("who was removed to be refused by the worker", LIMIT, PAUSE, || Look::from_result(refused(bob)))?;
    not_the_workers(desk, ann)?;
    // By the log, which names who was refused and has nothing of what the worker does not do.
    let log = desk.done_at(AT_WORKER, ann, &["logs", "kubeboot-agent", "--lines", "1000"])?;
    ensure!(log.contains(&fingerprint(eve)?), "the worker's log does not name the stranger's key: {log}");
    ensure!(!log.contains("token create"), "the worker was sent what it does not do: {log}");
    Ok(())
}

/// What a worker does not do, it says where to ask for.
fn not_the_workers(desk: &Desk, ann: &Path) -> Result<()> {
    let command = format!("kubeboot --node {} token create", Network::address(0));
    let ended = desk.ask_at(AT_WORKER, ann, &["token", "create"])?;
    let told = ended.code != Some(0) && ended.out.is_empty() && ended.said.contains(&command);
    ensure!(told, "token create at the worker ended with {:?}: {}{}", ended.code, ended.out, ended.said);
    Ok(())
}

/// The control plane has no power, and the worker answers all the same.
fn a_worker_alone_is_asked(desk: &Desk, ann: &Path, eve: &Path) -> Result<()> {
    let log = desk.done_at(AT_WORKER, ann, &["logs", "kubelet", "--lines", "50"])?;
    ensure!(log.lines().count() > 1 && log.contains("kubelet"), "logs kubelet at the worker said: {log}");
    // Its gates may fail by now, which is the code's to say.
    let status = desk.ask_at(AT_WORKER, ann, &["status"])?;
    ensure!(
        status.code != Some(REFUSED) && status.out.contains(WORKER),
        "status at the worker ended with {:?}: {}{}",
        status.code,
        status.out,
        status.said
    );
    let stranger = desk.ask_at(AT_WORKER, eve, &["logs"])?;
    ensure!(
        stranger.code == Some(REFUSED) && stranger.out.is_empty(),
        "a stranger got from the worker: {}{}",
        stranger.out,
        stranger.said
    );
    not_the_workers(desk, ann)
}

/// The founder is back, and serves operators with its API.
fn await_status(desk: &Desk, ann: &Path) -> Result<()> {
    until("the founder to be Ready again", LIMIT, PAUSE, || match desk.done(ann, &["status"]) {
        Ok(status) if status.contains("Ready: every gate passes") => Look::Holds(()),
        Ok(status) => Look::NotYet(status),
        Err(error) => Look::NotYet(format!("{error:#}")),
    })
}

/// What is given out to find a fault holds no secret.
fn no_secret_leaves(desk: &Desk, ann: &Path, tokens: &Tokens) -> Result<()> {
    let bundle = desk.folder.join("bundle.tar.gz");
    desk.done(ann, &["support-bundle", "-o", &bundle.to_string_lossy()])?;
    let mut tar = Command::new("tar");
    let text = output(tar.arg("-xzOf").arg(&bundle), "read the support bundle")?;
    ensure!(text.contains("kubelet"), "the bundle says nothing of the kubelet");
    for secret in tokens.secrets().into_iter().chain(["PRIVATE KEY"]) {
        ensure!(!text.contains(secret), "the support bundle holds a secret");
    }
    Ok(())
}

/// Names and states.
type Members = Vec<(String, String)>;

/// The mesh is shown, the kubelet's log too, and the worker is removed: its pods move, and it is gone from the cluster and the
/// mesh.
fn a_node_is_removed(desk: &Desk, kubectl: &Kubectl, ann: &Path) -> Result<()> {
    let members = || -> Result<Members> {
        let view = desk.done(ann, &["members", "--output", "json"])?;
        let view: Value = serde_json::from_str(&view).with_context(|| format!("members answered: {view}"))?;
        let text = |member: &Value, field: &str| member[field].as_str().unwrap_or_default().to_owned();
        let all = view["members"].as_array().context("a mesh has members")?;
        Ok(all.iter().map(|member| (text(member, "name"), text(member, "state"))).collect())
    };
    let await_members = |what: &str, accept: &dyn Fn(&Members) -> bool| {
        until(what, LIMIT, PAUSE, || match members() {
            Ok(found) if accept(&found) => Look::Holds(()),
            Ok(found) => Look::NotYet(format!("{found:?}")),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    };
    await_members("both nodes to be alive in the mesh", &|all| {
        [FOUNDER, WORKER].iter().all(|node| all.iter().any(|(name, state)| name == node && state == "alive"))
    })?;
    let log = desk.done(ann, &["logs", "kubelet", "--lines", "50"])?;
    ensure!(log.lines().count() > 1 && log.contains("kubelet"), "logs kubelet said: {log}");
    let said = desk.done(ann, &["node", "remove", WORKER])?;
    for step in ["its pods move", "its pods have moved", "its node key opens nothing any more", "its name is free"] {
        ensure!(said.contains(&format!("{WORKER}: {step}")), "node remove said: {said}");
    }
    let nodes = kubectl.run(&["get", "nodes", "-o", "name"])?;
    ensure!(!nodes.contains(WORKER) && nodes.contains(FOUNDER), "the cluster has: {nodes}");
    await_members("the worker to be gone from the mesh", &|all| all.iter().all(|(name, _)| name != WORKER))
}
