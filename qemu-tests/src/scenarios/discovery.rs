//! Machines that are told nothing of each other but a token, on one network.

use anyhow::{Result, ensure};
use kubeboot::discovery::{GROUP_IPV4, PORT};
use kubeboot::timeline::What;
use kubeboot::token::Joiner;

use super::founder;
use super::join::{Tokens, WORKER, await_node, founder_named, founder_of, joiner_of};
use crate::machine::network::Network;
use crate::machine::{Machine, Spec, report};
use crate::scenario::{Needs, ONE, Scenario, Stage, TO_READY, says, stop};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "A worker finds its cluster on the local network, and a second founder with the same seed refuses",
    needs: Needs { machines: 3, ..ONE },
    long: false,
    run: found_and_refused,
}];

/// The second founder's name.
const TWIN: &str = "twin";
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
    let mut spec = founder_named(stage, TWIN, 2, &tokens, &images)?;
    tells_its_end(&mut spec);
    let mut twin = stage.start(spec)?;
    refuses(&*twin, &founded.cluster)?;
    twin.cut_power()?;
    stop(&mut *worker)?;
    stop(&mut *founded.machine)
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
