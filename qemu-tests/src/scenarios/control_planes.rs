//! Further control planes: how they join, and what their cluster survives.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kubeboot::token::Joiner;
use serde_json::{Value, json};

use super::join::{FOUNDER, Tokens, WORKER, await_node, founder_of, joiner_of, worker_of};
use super::operators::{Desk, key, public};
use super::secrets::no_secret_stays;
use super::{founder, workload};
use crate::kubectl::{Forward, Kubectl};
use crate::machine::network::Network;
use crate::machine::{Machine, Spec, Volume};
use crate::scenario::{Founded, Needs, ONE, Scenario, Stage, TO_READY, stop_all};
use crate::wait::{Look, until};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "Control planes join at once, the API outlives one of three, and a new machine replaces it",
        needs: Needs { machines: 5, ..ONE },
        long: false,
        run: |stage| three_control_planes(stage, CONTROL_PLANES[0]),
    },
    Scenario {
        name: "A control plane that joined is lost, and a new machine replaces it",
        needs: Needs { machines: 5, ..ONE },
        long: true,
        run: |stage| {
            let lost = stage.random.one_of(&CONTROL_PLANES[1..]);
            three_control_planes(stage, lost)
        },
    },
    Scenario {
        name: "Power cuts while a control plane joins are finished by its next boot, with two members of etcd",
        needs: Needs { machines: 2, ..ONE },
        long: true,
        run: cut_while_it_joins,
    },
];

/// How often the power is cut, and within what time from power-on, in milliseconds: until a little after an unloaded host's
/// machine has its API server.
const CUTS: usize = 4;
const WINDOW: std::ops::Range<u64> = 5_000..30_000;

/// The further control planes' names.
const SECOND: &str = "second";
const THIRD: &str = "third";
/// The control planes, with their places on the network.
const CONTROL_PLANES: [(&str, u8); 3] = [(FOUNDER, 0), (SECOND, 2), (THIRD, 3)];
/// A second worker.
const OTHER: &str = "other";
/// What an agent may have resident, in kB.
const AGENT: u64 = 24_000;
/// What it may use of a processor while nothing happens, in percent, on a loaded machine.
const BUSY: f64 = 10.0;
const PAUSE: Duration = Duration::from_secs(2);
/// How long what is done in a moment may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(180);

/// Five machines are switched on at once, in any order: whoever joins waits for the founder, and control planes for each
/// other. Then this one of the control planes is lost.
fn three_control_planes(stage: &mut Stage, lost: (&'static str, u8)) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    let ann = key(stage, "ann")?;
    let mut founder = founder_of(stage, &tokens, &images)?;
    founder.words.push(format!("kubeboot.operator=\"{}\"", public(&ann)?));
    let worker = worker_of(stage, &tokens, &images)?;
    let mut specs = [
        (FOUNDER, founder),
        (SECOND, joiner_of(stage, Joiner::ControlPlane, SECOND, 2, &tokens, &images)?),
        (THIRD, joiner_of(stage, Joiner::ControlPlane, THIRD, 3, &tokens, &images)?),
        (WORKER, worker.clone()),
        (OTHER, joiner_of(stage, Joiner::Worker, OTHER, 4, &tokens, &images)?),
    ];
    stage.random.shuffle(&mut specs);
    println!("       switched on: {}", specs.each_ref().map(|(name, _)| *name).join(", "));
    let start = Instant::now();
    let mut machines = BTreeMap::new();
    for (name, spec) in specs {
        machines.insert(name, stage.start(spec)?);
    }
    let founder = machines.remove(FOUNDER).context("the founder was started")?;
    let Founded { machine: founder, kubectl, .. } = stage.ready(founder)?;
    let to_found = start.elapsed();
    let joined = machines.iter().try_for_each(|(name, machine)| await_node(&kubectl, name, &**machine));
    joined
        .and_then(|()| await_members(&kubectl))
        .inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    machines.insert(FOUNDER, founder);
    println!(
        "       founder Ready after {:.0} s, all five after {:.0} s: {:.1} times as long",
        to_found.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        start.elapsed().as_secs_f64() / to_found.as_secs_f64()
    );
    let people = People::new(stage, &kubectl, &tokens, ann)?;
    let loss = Loss { bound: to_found / 2, ..Loss::of(stage, lost, &machines, &kubectl, people)? };
    let kubectl = &loss.kubectl;
    let lived = survives(stage, &loss, &mut machines, &tokens, &images);
    let mut replacement = lived.inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    let mut gone = machines.remove(WORKER).context("the worker was started")?;
    gone.cut_power()?;
    a_removed_worker_stays_out(stage, &loss, worker)
        .inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    let again = worker_of(stage, &tokens, &images)?;
    let mut worker = stage.start(again)?;
    await_node(kubectl, WORKER, &*worker)?;
    let mut left = machines.into_values();
    let mut next = || left.next().context("three machines are left");
    stop_all([&mut *worker, &mut *replacement, &mut *next()?, &mut *next()?, &mut *next()?])
}

/// Which control plane is lost; and through whom the cluster is looked at then.
struct Loss {
    lost: (&'static str, u8),
    left: [(&'static str, u8); 2],
    /// At the first one that is left.
    kubectl: Kubectl,
    /// At each one that is left.
    others: [Forward; 2],
    /// In what time the API has to answer again: a part of what this run's founder took to be Ready, as hosts differ.
    bound: Duration,
    people: People,
}

impl Loss {
    fn of(
        stage: &Stage,
        lost: (&'static str, u8),
        machines: &BTreeMap<&str, Box<dyn Machine>>,
        founder: &Kubectl,
        people: People,
    ) -> Result<Self> {
        let mut left = CONTROL_PLANES.into_iter().filter(|one| *one != lost);
        let left = [left.next(), left.next()].map(|one| one.expect("one of three is lost"));
        // Each control plane gives its own operators certificates; the cluster's authority is one.
        let [first, second] = left.map(|(name, _)| match name {
            FOUNDER => Ok(founder.clone()),
            name => stage.granted(&*machines[name]),
        });
        let (first, second) = (first?, second?);
        let others = [first.proxy()?, second.proxy()?];
        Ok(Loss { lost, left, kubectl: first, others, bound: LIMIT, people })
    }
}

/// An operator whom the founder's settings alone name, and somebody to whom she has given a kubeconfig.
struct People {
    desk: Desk,
    ann: PathBuf,
    /// The user's.
    kubectl: Kubectl,
    /// Its contexts.
    contexts: Vec<String>,
}

const LOOK: [&str; 3] = ["get", "pods", "--all-namespaces"];

impl People {
    fn new(stage: &Stage, kubectl: &Kubectl, tokens: &Tokens, ann: PathBuf) -> Result<Self> {
        let desk = Desk::new(stage, kubectl, tokens)?;
        let config = stage.folder.join("kubeconfig-carl");
        desk.done(&ann, &["user", "create", "carl", "--role", "view", "-o", &config.to_string_lossy()])?;
        let user = Kubectl { config, server: None, ..kubectl.clone() };
        let all = user.run(&["config", "get-contexts", "--output=name"])?;
        ensure!(all.lines().count() == CONTROL_PLANES.len(), "the user's kubeconfig has the contexts: {all}");
        let contexts = all.lines().map(str::to_owned).collect();
        Ok(Self { desk, ann, kubectl: user, contexts })
    }

    /// Waits until the API answers the user by the contexts of these control planes, and by no other.
    fn await_contexts(&self, expected: &[(&str, u8)]) -> Result<()> {
        until("the user's kubeconfig to work by each control plane that lives", LIMIT, PAUSE, || {
            let by = |context: &str| {
                self.kubectl.run(&[&["--context", context, "--request-timeout=5s"][..], &LOOK].concat())
            };
            let answer: Vec<&String> = self.contexts.iter().filter(|context| by(context).is_ok()).collect();
            let of =
                |(_, number): &(&str, u8)| answer.iter().any(|context| context.contains(&Network::address(*number)));
            if answer.len() == expected.len() && expected.iter().all(of) {
                Look::Holds(())
            } else {
                Look::NotYet(format!("it works by {answer:?}"))
            }
        })
    }
}

/// A control plane's power is cut, and the cluster lives; then a new machine takes its place. Gives this.
fn survives(
    stage: &mut Stage,
    loss: &Loss,
    machines: &mut BTreeMap<&str, Box<dyn Machine>>,
    tokens: &Tokens,
    images: &Volume,
) -> Result<Box<dyn Machine>> {
    let kubectl = &loss.kubectl;
    await_mesh(kubectl, loss.lost.0, "alive")?;
    let agents = agents_stay_small(kubectl)?;
    for node in [FOUNDER, SECOND, THIRD, WORKER, OTHER] {
        let role = if [WORKER, OTHER].contains(&node) { Joiner::Worker } else { Joiner::ControlPlane };
        no_secret_stays(kubectl, node, role, tokens)?;
    }
    loss.others.iter().try_for_each(|other| written("while all live", other, LIMIT))?;
    [WORKER, OTHER].iter().try_for_each(|node| watch_the_balancer(kubectl, node))?;
    let workloads = containers(kubectl)?;
    loss.people.await_contexts(&CONTROL_PLANES)?;
    agents.iter().try_for_each(|agent| agent.since(kubectl))?;
    machines.remove(loss.lost.0).context("who is lost was started")?.cut_power()?;
    outlives(loss, &workloads)?;
    // With the kubeconfig from before.
    loss.people.await_contexts(&loss.left)?;
    replace(stage, loss, images)
}

/// A control plane joins, and its power is cut, and again; then it is left to finish. Once it has a vote, etcd can't decide
/// while it is away.
fn cut_while_it_joins(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    let spec = founder_of(stage, &tokens, &images)?;
    let machine = stage.start(spec)?;
    let mut founded = stage.ready(machine)?;
    let kubectl = &founded.kubectl;
    let spec = joiner_of(stage, Joiner::ControlPlane, SECOND, 2, &tokens, &images)?;
    for _ in 0..CUTS {
        let moment = Duration::from_millis(stage.random.within(WINDOW));
        stage.start_and_cut(spec.clone(), moment)?;
        println!("       cut {:.1} s after power-on", moment.as_secs_f64());
    }
    let mut second = stage.start(spec)?;
    let joined = await_node(kubectl, SECOND, &*second).and_then(|()| await_servers(kubectl, &[0, 2]));
    joined.and_then(|()| two_members_vote(kubectl)).inspect_err(|_| {
        kubectl.describe(&stage.folder.join("cluster.log"));
    })?;
    stop_all([&mut *second, &mut *founded.machine])
}

/// etcd's members as etcdctl lists them on the founder, which etcd has to be able to decide for.
fn members_of_etcd(kubectl: &Kubectl) -> Result<String> {
    let pki = |file: &str| format!("{}/etcd/{file}", kubeboot::paths::PKI);
    let (ca, certificate, key) = (pki("ca.crt"), pki("server.crt"), pki("server.key"));
    let files = ["--cacert", &ca, "--cert", &certificate, "--key", &key];
    let list = [&["/run/kubeboot/slot/bin/etcdctl"][..], &files, &["member", "list"]].concat();
    Ok(workload::on(kubectl, Some(FOUNDER), &list)?.trim().replace('\n', "; "))
}

/// Each machine is a member of etcd with a vote, once; a learner's line ends with true.
fn two_members_vote(kubectl: &Kubectl) -> Result<()> {
    let members = members_of_etcd(kubectl)?;
    let each: Vec<&str> = members.split("; ").collect();
    let votes = |name: &str| each.iter().filter(|line| line.contains(name) && line.ends_with("false")).count();
    ensure!(each.len() == 2 && votes(FOUNDER) == 1 && votes(SECOND) == 1, "etcd has the members: {members}");
    Ok(())
}

/// Runs kubeboot on a node, and gives what it said, whether it failed or not.
fn kubeboot(kubectl: &Kubectl, node: &str, words: &[&str]) -> String {
    workload::kubeboot(kubectl, Some(node), words).unwrap_or_else(|error| format!("{error:#}"))
}

/// What an agent has used of a processor until now, and since when its machine runs.
struct Used {
    node: &'static str,
    pid: String,
    processor: Duration,
    at: Duration,
}

impl Used {
    fn of(kubectl: &Kubectl, node: &'static str, pid: &str) -> Result<Self> {
        let seen = workload::on(kubectl, Some(node), &["cat", &format!("/proc/{pid}/stat"), "/proc/uptime"])?;
        // proc(5): after the name in brackets, user and system time are the 12th and the 13th, in hundredths of a second.
        let parse = || {
            let (stat, uptime) = seen.rsplit_once(')')?.1.split_once('\n')?;
            let mut ticks = stat.split_whitespace().skip(11).map(str::parse::<u64>);
            let processor = Duration::from_millis(10 * (ticks.next()?.ok()? + ticks.next()?.ok()?));
            let at = Duration::from_secs_f64(uptime.split_whitespace().next()?.parse().ok()?);
            Some((processor, at))
        };
        let (processor, at) = parse().with_context(|| format!("the agent of {node} is told as: {seen}"))?;
        Ok(Self { node, pid: pid.to_owned(), processor, at })
    }

    /// Says what it has used since.
    fn since(&self, kubectl: &Kubectl) -> Result<()> {
        let now = Self::of(kubectl, self.node, &self.pid)?;
        let (used, time) = (now.processor - self.processor, now.at - self.at);
        let share = 100.0 * used.as_secs_f64() / time.as_secs_f64();
        println!("       the agent of {} used {share:.2} % of a processor for {:.0} s", self.node, time.as_secs_f64());
        ensure!(share <= BUSY, "the agent of {} used {used:?} of a processor in {time:?}", self.node);
        Ok(())
    }
}

/// The agent's memory on a control plane and on a worker, with the mesh of five and enrolment's threads.
fn agents_stay_small(kubectl: &Kubectl) -> Result<Vec<Used>> {
    let mut agents = Vec::new();
    for node in [FOUNDER, WORKER] {
        let on = |command: &[&str]| workload::on(kubectl, Some(node), command);
        let pid = on(&["systemctl", "show", "kubeboot-agent.service", "--property=MainPID", "--value"])?;
        let status = on(&["cat", &format!("/proc/{}/status", pid.trim())])?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let resident: u64 = resident.with_context(|| format!("no VmRSS in {status}"))?.trim().parse()?;
        println!("       the agent of {node} has {:.1} MB resident", resident as f64 / 1000.0);
        ensure!(resident <= AGENT, "the agent of {node} has {resident} kB resident, of {AGENT} at most");
        agents.push(Used::of(kubectl, node, pid.trim())?);
    }
    Ok(agents)
}

/// Waits until the worker sees all five in the mesh and nobody else: the one of this name in this state, and the others alive.
fn await_mesh(kubectl: &Kubectl, one: &str, state: &str) -> Result<()> {
    let expected =
        [FOUNDER, SECOND, THIRD, WORKER, OTHER].map(|name| (name, if name == one { state } else { "alive" }));
    until("the worker's mesh to have its members", LIMIT, PAUSE, || {
        let said = kubeboot(kubectl, WORKER, &["members", "--output", "json"]);
        let view: Value = serde_json::from_str(&said).unwrap_or_default();
        let members = view["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let has = |(name, state): &(&str, &str)| {
            let is_meant = |member: &&Value| member["name"] == *name && member["state"] == *state;
            // Who lives has been asked, and how long the answer took is shown.
            let is_known = |member: &Value| {
                *state != "alive" || member["this-node"] == true || member["round-trip"].as_f64().is_some()
            };
            members.iter().find(is_meant).is_some_and(is_known)
        };
        let all = members.len() == expected.len() && expected.iter().all(has);
        if all { Look::Holds(()) } else { Look::NotYet(said) }
    })
}

/// Who is lost is replaced by what `kubeboot status` names, commanded over the network, and by a new machine under its name.
fn replace(stage: &mut Stage, loss: &Loss, images: &Volume) -> Result<Box<dyn Machine>> {
    let (kubectl, (lost, place), [(first, at), (second, _)]) = (&loss.kubectl, loss.lost, loss.left);
    let remove =
        loss.left.map(|(_, number)| format!("kubeboot --node {} node remove {lost}", Network::address(number)));
    for node in [WORKER, first, second] {
        until(&format!("the status of {node} to say what is lost"), LIMIT, PAUSE, || {
            let status = kubeboot(kubectl, node, &["status"]);
            let told = status.lines().any(|line| line.contains("LOST") && line.contains(lost));
            if told && remove.iter().any(|command| status.contains(command)) {
                Look::Holds(())
            } else {
                Look::NotYet(status)
            }
        })?;
    }
    await_mesh(kubectl, lost, "down")?;
    let refused = kubeboot(kubectl, first, &["node", "remove", second]);
    ensure!(refused.contains("etcd could not decide any more"), "removing a second of three was answered: {refused}");
    let removed = loss.people.desk.done_at(at, &loss.people.ann, &["node", "remove", lost])?;
    ensure!(removed.contains("etcd goes on without its member"), "removing {lost} was answered: {removed}");
    let made = kubeboot(kubectl, first, &["token", "create", "--role", "control-plane", "--output", "json"]);
    let made: Value = serde_json::from_str(&made).with_context(|| format!("token create answered: {made}"))?;
    let token = made["token"].as_str().context("token create gave no token")?;
    let disk = stage.disk_of("replacement")?;
    let mut spec = stage.spec(&disk);
    spec.name = "replacement".into();
    spec.number = place;
    let join = format!("kubeboot.join={}", Network::address(at));
    spec.words.extend(["kubeboot.role=control-plane".into(), join, format!("kubeboot.name={lost}")]);
    spec.credentials.push(("kubeboot.token".into(), token.as_bytes().to_vec()));
    spec.volumes.push(images.clone());
    let machine = stage.start(spec)?;
    await_node(kubectl, lost, &*machine)?;
    await_members(kubectl)?;
    // The machine that was lost is no member any more; the one that took its name is.
    await_mesh(kubectl, lost, "alive")?;
    Ok(machine)
}

/// A worker that was removed, and is switched on again with all that it had, is no node any more. It is left without power.
fn a_removed_worker_stays_out(stage: &mut Stage, loss: &Loss, spec: Spec) -> Result<()> {
    let kubectl = &loss.kubectl;
    let removed = kubeboot(kubectl, loss.left[0].0, &["node", "remove", WORKER, "--without-drain"]);
    ensure!(removed.contains("its name is free"), "removing the worker was answered: {removed}");
    let mut machine = stage.start(spec)?;
    let user = format!("system:node:{WORKER}");
    until("an API server to refuse the removed worker, with the reason in its audit log", TO_READY, PAUSE, || {
        let mut seen = String::new();
        for (server, _) in CONTROL_PLANES {
            let log = workload::on(kubectl, Some(server), &["grep", &user, "/var/log/kubernetes/audit.log"]);
            let log = log.unwrap_or_default();
            if log.contains("this machine was removed from the cluster") {
                return Look::Holds(());
            }
            seen = log.lines().last().unwrap_or_default().to_owned();
        }
        Look::NotYet(seen)
    })
    .with_context(|| crate::transcript::last_lines(&machine.console().text(), 30))?;
    let nodes = kubectl.run(&["get", "nodes", "-o", "name"])?;
    ensure!(!nodes.contains(WORKER), "the removed worker is a node again: {nodes}");
    machine.cut_power()
}

/// Three API servers serve, which needs as many members of etcd with a vote: each asks only the one beside it.
fn await_members(kubectl: &Kubectl) -> Result<()> {
    await_servers(kubectl, &[0, 2, 3])
}

/// The machines of these numbers serve the API.
fn await_servers(kubectl: &Kubectl, numbers: &[u8]) -> Result<()> {
    let expected: Vec<String> = numbers.iter().map(|number| Network::address(*number)).collect();
    let slice = ["get", "endpointslice", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[0]}"];
    kubectl.wait_for(&format!("{} API servers", numbers.len()), TO_READY, &slice, |found| {
        expected.iter().all(|address| found.split_whitespace().any(|one| one == address.as_str()))
    })?;
    Ok(())
}

/// In what time an API server should answer again to every node, after another one's power was cut.
const TARGET: Duration = Duration::from_secs(5);
/// What a node's watch over its balancer writes, on the node.
const WATCH: &str = "/run/balancer-watch";

/// Has a pod on a node ask for the API server's readiness through the node's balancer, with a connection of its own each
/// time, and note when it was answered.
fn watch_the_balancer(kubectl: &Kubectl, node: &str) -> Result<()> {
    let ask = "wget -q -T 2 --no-check-certificate -O /dev/null https://127.0.0.1:7445/readyz";
    let note = "read -r now rest </proc/uptime && echo \"$now\"";
    let script =
        format!("for i in $(seq 600); do {ask} && {note}; usleep 200000; done >/host{WATCH} 2>/host{WATCH}.errors &");
    // The pod that commands on the node go through is on the node's network, too.
    workload::on(kubectl, Some(node), &["true"])?;
    kubectl.exec(&format!("node-{node}"), &["sh", "-c", &script])?;
    until("the API server to answer through the balancer", LIMIT, PAUSE, || {
        match workload::on(kubectl, Some(node), &["cat", WATCH]) {
            Ok(seen) if seen.lines().count() > 2 => Look::Holds(()),
            Ok(seen) => Look::NotYet(seen),
            Err(error) => Look::NotYet(format!("{error:#}")),
        }
    })
}

/// The workers' pods, and how often their containers were started again.
fn containers(kubectl: &Kubectl) -> Result<String> {
    let field = "{.metadata.name}={.metadata.uid}/{.status.containerStatuses[*].restartCount}";
    [WORKER, OTHER]
        .iter()
        .map(|node| kubectl.run(&["get", "pod", &format!("node-{node}"), "-o", &format!("jsonpath={field}")]))
        .collect()
}

/// The longest time between two answers that a node's watch noted, or between the last one and now.
fn longest_silence(kubectl: &Kubectl, node: &str) -> Result<Duration> {
    let seen = workload::on(kubectl, Some(node), &["cat", WATCH, "/proc/uptime"])?;
    let times = seen.lines().map(|line| line.split(' ').next().unwrap_or_default().parse::<f64>());
    let times = times.collect::<Result<Vec<_>, _>>().with_context(|| format!("the watch on {node} noted: {seen}"))?;
    ensure!(times.len() > 2, "the watch on {node} noted no answers: {seen}");
    let silence = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    Ok(Duration::from_secs_f64(silence))
}

/// A write through an API server succeeds, at the latest within `limit`.
fn written(when: &str, server: &Forward, limit: Duration) -> Result<()> {
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "generateName": "written-" } });
    // One that was begun while etcd had no leader is lost with its answer after 7 s; another gets through before.
    until(&format!("a write through another API server {when}"), limit, Duration::from_millis(100), || {
        let path = "/api/v1/namespaces/default/configmaps";
        Look::from_result(server.create(path, &object, Duration::from_secs(1)))
    })
}

/// With one's power cut: the other two serve, and the workers, which were told of the founder alone, go on.
fn outlives(loss: &Loss, workloads: &str) -> Result<()> {
    let (kubectl, start) = (&loss.kubectl, Instant::now());
    let first = std::thread::scope(|scope| {
        let writes = loss.others.iter();
        let writes =
            writes.map(|other| scope.spawn(move || written("without it", other, LIMIT).map(|()| start.elapsed())));
        let writes: Vec<_> = writes.collect();
        writes.into_iter().map(|write| write.join().expect("no panic")).collect::<Result<Vec<_>>>()
    })?;
    let lease = || -> Result<String> {
        let lease: Value = kubectl.get(&["lease", "--namespace=kube-node-lease", WORKER])?;
        Ok(lease["spec"]["renewTime"].as_str().unwrap_or_default().to_owned())
    };
    let before = lease()?;
    until("the worker to renew its lease", LIMIT, PAUSE, || match lease() {
        Ok(now) if now > before => Look::Holds(()),
        Ok(now) => Look::NotYet(format!("{now}, as before")),
        Err(error) => Look::NotYet(format!("{error:#}")),
    })?;
    until("the worker's balancer to know of two API servers", LIMIT, PAUSE, || {
        let view = workload::on(kubectl, Some(WORKER), &["cat", kubeboot::paths::BALANCER]).unwrap_or_default();
        let known: Value = serde_json::from_str(&view).unwrap_or_default();
        let servers = known["servers"].as_array().map_or(0, Vec::len);
        if servers >= 2 { Look::Holds(()) } else { Look::NotYet(view) }
    })?;
    let silences = [WORKER, OTHER].map(|node| longest_silence(kubectl, node));
    let silences = silences.into_iter().collect::<Result<Vec<_>>>()?;
    let seconds = |times: &[Duration]| {
        times.iter().map(|time| format!("{:.1}", time.as_secs_f64())).collect::<Vec<_>>().join(" and ")
    };
    println!(
        "       without {}: first writes at {} and {} after {} s; silence at the workers' balancers of {} s (target {} s)",
        loss.lost.0,
        loss.left[0].0,
        loss.left[1].0,
        seconds(&first),
        seconds(&silences),
        TARGET.as_secs()
    );
    // The target is for machines with a processor each, and is reported: here five share two.
    let long = first.iter().chain(&silences).find(|time| **time > loss.bound);
    ensure!(long.is_none(), "an API server answered after {long:?} only, of {:?} at most", loss.bound);
    let now = containers(kubectl)?;
    ensure!(now == workloads, "the workers' containers were {workloads}, are {now}");
    Ok(())
}
