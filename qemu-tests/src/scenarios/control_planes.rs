//! Further control planes: how they join, and what their cluster survives.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kubeboot::token::Joiner;
use serde_json::Value;

use super::join::{FOUNDER, Tokens, WORKER, await_node, founder_of, joiner_of, worker_of};
use super::{founder, workload};
use crate::kubectl::Kubectl;
use crate::machine::network::Network;
use crate::machine::{Machine, Spec, Volume};
use crate::scenario::{Needs, ONE, Scenario, Stage, TO_READY, stop};
use crate::wait::{Look, until};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "Control planes join at once, the API outlives one of three, and a new machine replaces it",
    needs: Needs { machines: 5, ..ONE },
    long: false,
    run: three_control_planes,
}];

/// The further control planes' names.
const SECOND: &str = "second";
const THIRD: &str = "third";
/// A second worker.
const OTHER: &str = "other";
/// What an agent may have resident, in kB.
const AGENT: u64 = 24_000;
const PAUSE: Duration = Duration::from_secs(2);
/// How long what is done in a moment may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(180);

/// Five machines are switched on at once, the founder last: whoever joins waits for it, and control planes for each other.
fn three_control_planes(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    let start = Instant::now();
    let second = joiner_of(stage, Joiner::ControlPlane, SECOND, 2, &tokens, &images)?;
    let third = joiner_of(stage, Joiner::ControlPlane, THIRD, 3, &tokens, &images)?;
    let (founder, worker_spec) = (founder_of(stage, &tokens, &images)?, worker_of(stage, &tokens, &images)?);
    let other = joiner_of(stage, Joiner::Worker, OTHER, 4, &tokens, &images)?;
    let mut second = stage.start(second)?;
    let mut third = stage.start(third)?;
    let mut worker = stage.start(worker_spec.clone())?;
    let mut other = stage.start(other)?;
    let founder = stage.start(founder)?;
    let mut founded = stage.ready(founder)?;
    let to_found = start.elapsed();
    let all: [(&str, &dyn Machine); 4] = [(SECOND, &*second), (THIRD, &*third), (WORKER, &*worker), (OTHER, &*other)];
    let joined = all.iter().try_for_each(|(name, machine)| await_node(&founded.kubectl, name, *machine));
    joined.and_then(|()| await_members(&founded.kubectl)).inspect_err(|_| {
        founded.kubectl.describe(&stage.folder.join("cluster.log"));
    })?;
    println!(
        "       founder Ready after {:.0} s, all five after {:.0} s: {:.1} times as long",
        to_found.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        start.elapsed().as_secs_f64() / to_found.as_secs_f64()
    );
    await_mesh(&founded.kubectl, "alive")?;
    agents_stay_small(&founded.kubectl)?;
    // Each control plane gives its own operators certificates; the cluster's authority is one.
    let kubectl = stage.granted(&*second)?;
    founded.machine.cut_power()?;
    let mut replaced = outlives(&kubectl)
        .and_then(|()| replace_the_founder(stage, &kubectl, &images))
        .inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    worker.cut_power()?;
    let mut worker = a_removed_worker_stays_out(stage, &kubectl, worker_spec)
        .inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    for machine in [&mut worker, &mut other, &mut third, &mut second, &mut replaced] {
        stop(&mut **machine)?;
    }
    Ok(())
}

/// Runs kubeboot on a node, and gives what it said, whether it failed or not.
fn kubeboot(kubectl: &Kubectl, node: &str, words: &[&str]) -> String {
    let command = [&["/run/kubeboot/slot/bin/kubeboot"], words].concat();
    workload::on(kubectl, Some(node), &command).unwrap_or_else(|error| format!("{error:#}"))
}

/// The agent's memory on a control plane and on a worker, with the mesh of five and enrolment's threads.
fn agents_stay_small(kubectl: &Kubectl) -> Result<()> {
    for node in [FOUNDER, WORKER] {
        let on = |command: &[&str]| workload::on(kubectl, Some(node), command);
        let pid = on(&["systemctl", "show", "kubeboot-agent.service", "--property=MainPID", "--value"])?;
        let status = on(&["cat", &format!("/proc/{}/status", pid.trim())])?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let resident: u64 = resident.with_context(|| format!("no VmRSS in {status}"))?.trim().parse()?;
        println!("       the agent of {node} has {:.1} MB resident", resident as f64 / 1000.0);
        ensure!(resident <= AGENT, "the agent of {node} has {resident} kB resident, of {AGENT} at most");
    }
    Ok(())
}

/// Waits until the worker sees all five in the mesh and nobody else: the founder in this state, and the others alive.
fn await_mesh(kubectl: &Kubectl, founder: &str) -> Result<()> {
    let expected = [(FOUNDER, founder), (SECOND, "alive"), (THIRD, "alive"), (WORKER, "alive"), (OTHER, "alive")];
    until("the worker's mesh to have its members", LIMIT, PAUSE, || {
        let said = kubeboot(kubectl, WORKER, &["members", "--output", "json"]);
        let view: Value = serde_json::from_str(&said).unwrap_or_default();
        let members = view["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let has = |(name, state): &(&str, &str)| {
            members.iter().any(|member| member["name"] == *name && member["state"] == *state)
        };
        let all = members.len() == expected.len() && expected.iter().all(has);
        if all { Look::Holds(()) } else { Look::NotYet(said) }
    })
}

/// The lost founder is replaced by the commands that `kubeboot status` gives, and by a new machine under its name.
fn replace_the_founder(stage: &mut Stage, kubectl: &Kubectl, images: &Volume) -> Result<Box<dyn Machine>> {
    let remove = format!("on {SECOND}: kubeboot node remove {FOUNDER}");
    until("a worker's status to say what is lost", LIMIT, PAUSE, || {
        let status = kubeboot(kubectl, WORKER, &["status"]);
        let lost = status.lines().any(|line| line.contains("LOST") && line.contains(FOUNDER));
        if lost && status.contains(&remove) { Look::Holds(()) } else { Look::NotYet(status) }
    })?;
    await_mesh(kubectl, "down")?;
    let refused = kubeboot(kubectl, SECOND, &["node", "remove", THIRD]);
    ensure!(refused.contains("etcd could not decide any more"), "removing a second of three was answered: {refused}");
    let removed = kubeboot(kubectl, SECOND, &["node", "remove", FOUNDER]);
    ensure!(removed.contains("etcd goes on without its member"), "removing the founder was answered: {removed}");
    let made = kubeboot(kubectl, SECOND, &["token", "create", "--role", "control-plane", "--output", "json"]);
    let made: Value = serde_json::from_str(&made).with_context(|| format!("token create answered: {made}"))?;
    let token = made["token"].as_str().context("token create gave no token")?;
    let disk = stage.disk_of("replacement")?;
    let mut spec = stage.spec(&disk);
    spec.name = "replacement".into();
    let join = format!("kubeboot.join={}", Network::address(2));
    spec.words.extend(["kubeboot.role=control-plane".into(), join, format!("kubeboot.name={FOUNDER}")]);
    spec.credentials.push(("kubeboot.token".into(), token.as_bytes().to_vec()));
    spec.volumes.push(images.clone());
    let machine = stage.start(spec)?;
    await_node(kubectl, FOUNDER, &*machine)?;
    await_members(kubectl)?;
    // The machine that was lost is no member any more; the one that took its name is.
    await_mesh(kubectl, "alive")?;
    Ok(machine)
}

/// A worker that was removed, and is switched on again with all that it had, is no node any more.
fn a_removed_worker_stays_out(stage: &mut Stage, kubectl: &Kubectl, spec: Spec) -> Result<Box<dyn Machine>> {
    let removed = kubeboot(kubectl, SECOND, &["node", "remove", WORKER, "--without-drain"]);
    ensure!(removed.contains("its name is free"), "removing the worker was answered: {removed}");
    let machine = stage.start(spec)?;
    let user = format!("system:node:{WORKER}");
    let servers = [FOUNDER, SECOND, THIRD];
    until("an API server to refuse the removed worker, with the reason in its audit log", TO_READY, PAUSE, || {
        let mut seen = String::new();
        for server in servers {
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
    Ok(machine)
}

/// Three API servers serve, which needs as many members of etcd with a vote: each asks only the one beside it.
fn await_members(kubectl: &Kubectl) -> Result<()> {
    let expected = [0, 2, 3].map(Network::address);
    let slice = ["get", "endpointslice", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[0]}"];
    kubectl.wait_for("three API servers", TO_READY, &slice, |found| {
        expected.iter().all(|address| found.split_whitespace().any(|one| one == address.as_str()))
    })?;
    Ok(())
}

/// With the founder's power cut: what is written is kept, and the worker, which was told of the founder alone, goes on.
fn outlives(kubectl: &Kubectl) -> Result<()> {
    let start = Instant::now();
    until("a write through another API server", LIMIT, Duration::from_millis(200), || {
        Look::from_result(kubectl.run(&["create", "configmap", "written-without-the-founder"]).map(drop))
    })?;
    println!("       first write {:.1} s after the founder's power was cut", start.elapsed().as_secs_f64());
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
    })
}
