//! Machines that are told nothing of each other but a token, on one network.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kubeboot::discovery::{GROUP_IPV4, PORT};
use kubeboot::timeline::What;
use kubeboot::token::Joiner;

use super::founder;
use super::join::{Tokens, WORKER, await_node, founder_named, founder_of, joiner_of};
use crate::machine::network::Network;
use crate::machine::{Machine, Spec, Volume, report};
use crate::scenario::{Founded, Needs, ONE, Scenario, Stage, TO_READY, says, stop, stop_all};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "A worker finds its cluster on the local network, and a second founder with the same seed refuses",
        needs: Needs { machines: 3, ..ONE },
        long: false,
        run: found_and_refused,
    },
    Scenario {
        name: "Two founders of one seed that could not hear each other are told, and a worker chooses neither",
        needs: Needs { machines: 3, ..ONE },
        long: true,
        run: two_clusters,
    },
];

/// The second founder's name.
const TWIN: &str = "twin";
/// A founder that is switched on with the first one, and hears nobody.
const RIVAL: &str = "rival";
const RIVALS_PLACE: u8 = 3;
/// Within what time two founders say that they are two.
const MINUTE: Duration = Duration::from_secs(60);
/// A worker that is switched on when there are two clusters.
const LATE: &str = "late";
/// What a unit that has ended writes to the console, for no line of kubeboot's own has its exit code.
const ENDED: &str = "kubeboot.service has ended with ";

fn found_and_refused(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    // The worker is first: it waits, and says where it looks.
    let mut spec = joiner_of(stage, Joiner::Worker, WORKER, 1, &tokens, &images)?;
    spec.words.retain(|word| !word.starts_with("kubeboot.join="));
    let mut worker = stage.start(spec)?;
    let place = format!("on the local network of {} (multicast to {GROUP_IPV4}", Network::address(1));
    worker.console().wait_for_text(&place, TO_READY)?;
    let spec = founder_of(stage, &tokens, &images)?;
    let machine = stage.start(spec)?;
    let mut founded = stage.ready(machine)?;
    let log = stage.folder.join("cluster.log");
    await_node(&founded.kubectl, WORKER, &*worker).inspect_err(|_| founded.kubectl.describe(&log))?;
    // The seed's tokens are over: the cluster is known by its seed all the same.
    let over = ["delete", "configmap", "--namespace=kubeboot-system", "--selector=kubeboot.local/kind=token"];
    founded.kubectl.run(&over)?;
    let mut spec = founder_named(stage, TWIN, 2, &tokens, &images)?;
    tells_its_end(&mut spec);
    let mut twin = stage.start(spec)?;
    refuses(&*twin, &founded.cluster)?;
    twin.cut_power()?;
    stop_all([&mut *worker, &mut *founded.machine])
}

fn two_clusters(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    let mut rival = stage.start(founder_named(stage, RIVAL, RIVALS_PLACE, &tokens, &images)?)?;
    stage.network.cut(RIVALS_PLACE)?;
    let spec = founder_of(stage, &tokens, &images)?;
    let machine = stage.start(spec)?;
    let mut founded = stage.ready(machine)?;
    two_clusters_are_told_and_none_is_chosen(stage, &founded, &*rival, &tokens, &images)
        .inspect_err(|_| founded.kubectl.describe(&stage.folder.join("cluster.log")))?;
    rival.cut_power()?;
    stop(&mut *founded.machine)
}

/// Two founders could not hear each other, and each has founded a cluster from the seed. When they can, both say so; and a
/// machine that comes to join goes to neither.
fn two_clusters_are_told_and_none_is_chosen(
    stage: &mut Stage,
    founded: &Founded,
    rival: &dyn Machine,
    tokens: &Tokens,
    images: &Volume,
) -> Result<()> {
    let other = report::wait_for(rival.report(), "the other cluster", TO_READY, |what| match what {
        What::Ready { cluster, .. } => Some(cluster.clone()),
        _ => None,
    })?;
    ensure!(other != founded.cluster, "both founders have one cluster, {other}");
    stage.network.tap(RIVALS_PLACE)?;
    let healed = Instant::now();
    for (machine, own, other) in [(&*founded.machine, &founded.cluster, &other), (rival, &other, &founded.cluster)] {
        let told = format!("two clusters were founded from one seed: this one, {own}, and {other} at ");
        machine.console().wait_for_text(&told, TO_READY)?;
    }
    let told = healed.elapsed();
    println!("       both founders said so {:.0} s after they could hear each other", told.as_secs_f64());
    ensure!(told <= MINUTE, "the founders said so after {told:?} only");
    let mut spec = joiner_of(stage, Joiner::Worker, LATE, 4, tokens, images)?;
    spec.words.retain(|word| !word.starts_with("kubeboot.join="));
    let mut late = stage.start(spec)?;
    let console = late.console();
    console.wait_for_text("several clusters answer to this token", TO_READY)?;
    for cluster in [&founded.cluster, &other] {
        console.wait_for_text(&format!("cluster {cluster} at "), TO_READY)?;
    }
    console.wait_for_text("name a control plane of the one that is meant", TO_READY)?;
    // Who takes a machine in puts it on record before it is told.
    for kubectl in [&founded.kubectl, &stage.granted(rival)?] {
        let records = kubectl.run(&["get", "configmaps", "--namespace=kubeboot-system", "-o", "name"])?;
        ensure!(!records.contains(&format!("node-{LATE}")), "{LATE} has chosen one of two clusters: {records}");
    }
    late.cut_power()
}

fn tells_its_end(spec: &mut Spec) {
    let dropin = format!("[Service]\nExecStopPost=sh -c 'echo {ENDED}$EXIT_STATUS >/dev/console'\n");
    spec.credentials.push(("systemd.unit-dropin.kubeboot.service".into(), dropin.into()));
}

/// Names the cluster that is there, to people and to programs, and founds nothing.
fn refuses(twin: &dyn Machine, cluster: &str) -> Result<()> {
    let told = report::wait_for(twin.report(), "the refusal", TO_READY, |what| match what {
        What::Error { command, message } if command == "boot" => Some(message.clone()),
        _ => None,
    })?;
    let existing = format!("cluster {cluster} at {}:7440", Network::address(0));
    let parts = ["A cluster of this seed exists already", existing.as_str(), "kubeboot.role=control-plane"];
    says(&told, &parts)?;
    twin.console().wait_for_text(&format!("{ENDED}7"), TO_READY)?;
    says(&twin.console().text(), &parts)?;
    let made = |what: &What| matches!(what, What::Step { step, .. } if step.starts_with("found the cluster"));
    let events = report::events(&twin.report().text());
    ensure!(
        !events.iter().any(|event| made(&event.what)),
        "{TWIN} has founded a cluster on UDP port {PORT}: {events:?}"
    );
    Ok(())
}
