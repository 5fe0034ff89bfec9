//! Further control planes: how they join, and what their cluster survives.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kubeboot::token::Joiner;
use serde_json::Value;

use super::join::{FOUNDER, Tokens, WORKER, await_node, founder_of, joiner_of, worker_of};
use super::{founder, workload};
use crate::kubectl::Kubectl;
use crate::machine::Machine;
use crate::machine::network::Network;
use crate::scenario::{Needs, ONE, Scenario, Stage, TO_READY, stop};
use crate::wait::{Look, until};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "Control planes join at once, and the API outlives any one of three",
    needs: Needs { machines: 4, ..ONE },
    long: false,
    run: three_control_planes,
}];

/// The further control planes' names.
const SECOND: &str = "second";
const THIRD: &str = "third";
const PAUSE: Duration = Duration::from_secs(2);
/// How long what is done in a moment may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(180);

/// Four machines are switched on at once: whoever joins waits for the founder, and control planes for each other.
fn three_control_planes(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    let start = Instant::now();
    let second = joiner_of(stage, Joiner::ControlPlane, SECOND, 2, &tokens, &images)?;
    let third = joiner_of(stage, Joiner::ControlPlane, THIRD, 3, &tokens, &images)?;
    let (founder, worker) = (founder_of(stage, &tokens, &images)?, worker_of(stage, &tokens, &images)?);
    let again = founder.clone();
    let mut second = stage.start(second)?;
    let mut third = stage.start(third)?;
    let mut worker = stage.start(worker)?;
    let founder = stage.start(founder)?;
    let mut founded = stage.ready(founder)?;
    let to_found = start.elapsed();
    let all: [(&str, &dyn Machine); 3] = [(SECOND, &*second), (THIRD, &*third), (WORKER, &*worker)];
    let joined = all.iter().try_for_each(|(name, machine)| await_node(&founded.kubectl, name, *machine));
    joined.and_then(|()| await_members(&founded.kubectl)).inspect_err(|_| {
        founded.kubectl.describe(&stage.folder.join("cluster.log"));
    })?;
    println!(
        "       founder Ready after {:.0} s, all four after {:.0} s",
        to_found.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    // Each control plane gives its own operators certificates; the cluster's authority is one.
    let kubectl = stage.granted(&*second)?;
    founded.machine.cut_power()?;
    outlives(&kubectl).inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    let mut founder = stage.start(again)?;
    await_ready_again(&kubectl, &*founder)?;
    await_members(&kubectl)?;
    for machine in [&mut worker, &mut third, &mut second, &mut founder] {
        stop(&mut **machine)?;
    }
    Ok(())
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
    let view = workload::on(kubectl, Some(WORKER), &["cat", kubeboot::paths::BALANCER])?;
    let view: Value = serde_json::from_str(&view).with_context(|| format!("the balancer wrote: {view}"))?;
    let servers = view["servers"].as_array().map_or(0, Vec::len);
    ensure!(servers >= 2, "the worker's balancer knows of {servers} API servers: {view}");
    Ok(())
}

/// The founder comes back by itself, and catches up.
fn await_ready_again(kubectl: &Kubectl, founder: &dyn Machine) -> Result<()> {
    let ready = crate::machine::report::wait_for(founder.report(), "the founder to be ready again", TO_READY, |what| {
        matches!(what, kubeboot::timeline::What::Ready { .. }).then_some(())
    });
    ready.with_context(|| crate::transcript::last_lines(&founder.console().text(), 30))?;
    await_node(kubectl, FOUNDER, founder)
}
