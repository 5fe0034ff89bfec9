//! Machines that are not taken in: each hears why on its own console, and the log of who refused it has the reason.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use kubeboot::token::Joiner;
use serde_json::Value;

use super::join::{FOUNDER, Tokens, WORKER, await_node, founder_of, joiner_of, use_both, worker_of};
use super::{founder, workload};
use crate::kubectl::Kubectl;
use crate::machine::network::Network;
use crate::machine::{Machine, Spec, Volume};
use crate::scenario::{Needs, ONE, Scenario, Stage, TO_READY, stop, stop_all};
use crate::subject::Release;
use crate::transcript::last_lines;
use crate::wait::{Look, until};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "Whoever is not taken in is told why on its console, and the log of who refused it has the reason",
        needs: Needs { machines: 2, ..ONE },
        long: false,
        run: refusals,
    },
    Scenario {
        name: "Machines with a newer Kubernetes than their cluster are refused, and are told why",
        needs: Needs { machines: 2, release: Release::Older, newcomers: Some(Release::Default), ..ONE },
        long: true,
        run: too_new,
    },
    Scenario {
        name: "A worker with a Kubernetes a minor older than its cluster joins",
        needs: Needs { machines: 2, newcomers: Some(Release::Older), ..ONE },
        long: true,
        run: an_older_one_joins,
    },
];

const LIMIT: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_secs(2);
/// Where nobody is.
const NOBODY: u8 = 9;
/// How far a clock is ahead.
const AHEAD: Duration = Duration::from_secs(3 * 3600);
/// The place of who asks.
const ASKS: u8 = 1;

/// Somebody who is refused.
struct Case {
    what: &'static str,
    spec: Spec,
    /// What its console says.
    told: Vec<String>,
    /// What the founder's log says of it.
    logged: &'static str,
}

fn refusals(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    let mut spec = founder_of(stage, &tokens, &images)?;
    // It is the only control plane that comes by the founder's token.
    spec.words.push("kubeboot.expect=1".into());
    let machine = stage.start(spec)?;
    nobody_answers(stage, &tokens, &images)?;
    let mut founded = stage.ready(machine)?;
    let asked = cases(stage, &founded.kubectl, &tokens, &images)
        .and_then(|cases| cases.into_iter().try_for_each(|case| is_refused(stage, &founded.kubectl, case)))
        .and_then(|()| {
            // The seed's tokens are over.
            let over = ["delete", "configmap", "--namespace=kubeboot-system", "--selector=kubeboot.local/kind=token"];
            founded.kubectl.run(&over)?;
            let spec = joiner_of(stage, Joiner::Worker, WORKER, ASKS, &tokens, &images)?;
            is_refused(stage, &founded.kubectl, unaccepted("a token that is over", spec))
        });
    asked.inspect_err(|_| founded.kubectl.describe(&stage.folder.join("cluster.log")))?;
    stop(&mut *founded.machine)
}

/// Where it was told to join through there is nobody.
fn nobody_answers(stage: &mut Stage, tokens: &Tokens, images: &Volume) -> Result<()> {
    let mut spec = joiner_of(stage, Joiner::Worker, WORKER, ASKS, tokens, images)?;
    let join = format!("kubeboot.join={}", Network::address(NOBODY));
    let word = spec.words.iter_mut().find(|word| word.starts_with("kubeboot.join="));
    *word.context("a joiner is told where to join")? = join;
    let mut machine = stage.start(spec)?;
    let told = [
        format!("no control plane answers at {}:7440", Network::address(NOBODY)),
        "start that control plane; or correct the address (kubeboot.join=)".to_owned(),
    ];
    told.iter().try_for_each(|part| machine.console().wait_for_text(part, TO_READY))?;
    machine.cut_power()
}

/// What is said of a token that the cluster does not know: the same whether it never did or does no more.
fn unaccepted(what: &'static str, spec: Spec) -> Case {
    let told = ["no control plane here accepts this token", "make a new one with: kubeboot token create"];
    Case { what, spec, told: told.map(str::to_owned).into(), logged: "its token is unknown" }
}

fn cases(stage: &Stage, kubectl: &Kubectl, tokens: &Tokens, images: &Volume) -> Result<Vec<Case>> {
    // Each has a disk of its own.
    let of = |joiner, name| joiner_of(stage, joiner, name, ASKS, tokens, images);
    let mut same_name = of(Joiner::Worker, "same-name")?;
    same_name.words.retain(|word| !word.starts_with("kubeboot.name="));
    same_name.words.push(format!("kubeboot.name={FOUNDER}"));
    let mut ahead = of(Joiner::Worker, "ahead")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")? + AHEAD;
    ahead.words.push(format!("systemd.clock_usec={}", now.as_micros()));
    let further = of(Joiner::ControlPlane, "further")?;
    let mut wrong = of(Joiner::Worker, "wrong")?;
    wrong.credentials = vec![("kubeboot.token".into(), revoked(kubectl)?.into_bytes())];
    let told = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
    Ok(vec![
        Case {
            what: "a name that is taken",
            spec: same_name,
            told: vec![
                format!("the cluster has another machine with the name {FOUNDER}"),
                "give this machine another name with kubeboot.name=".to_owned(),
                format!("kubeboot --node {}:7440 node remove {FOUNDER}", Network::address(0)),
            ],
            logged: "another machine has its name: a control plane at",
        },
        Case {
            what: "a clock that is ahead",
            spec: ahead,
            told: told(&["this machine's clock is ", " ahead of the cluster's", "set the clock"]),
            logged: "ahead of this one's; at most",
        },
        Case {
            what: "a control plane more than was expected",
            spec: further,
            told: told(&[
                "the time in which control planes join with the founder's token is over",
                "kubeboot token create --role control-plane",
            ]),
            logged: "as many control planes as were expected have joined",
        },
        unaccepted("a token that was revoked", wrong),
    ])
}

/// Kubernetes' version skew policy: no kubelet is newer than an API server; and a new minor comes by an upgrade alone.
fn too_new(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    let machine = founder_of(stage, &tokens, &images).and_then(|spec| stage.start(spec))?;
    let mut founded = stage.ready(machine)?;
    let (newer, _) = stage.newcomers.context("newcomers are newer")?;
    for joiner in [Joiner::Worker, Joiner::ControlPlane] {
        let spec = joiner_of(stage, joiner, WORKER, ASKS, &tokens, &images)?;
        let told = [
            format!("this machine has release {}", newer.kubernetes),
            format!("the cluster runs {}", stage.lab.kubernetes),
            "start this machine with a release of Kubernetes 1.".to_owned(),
        ];
        let what = "a Kubernetes that is newer than the cluster's";
        let case = Case { what, spec, told: told.into(), logged: "does not go with API servers of" };
        hears_why(stage, &founded.kubectl, case, |stage, spec| stage.newcomer(spec))
            .inspect_err(|_| founded.kubectl.describe(&stage.folder.join("cluster.log")))?;
    }
    stop(&mut *founded.machine)
}

fn an_older_one_joins(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    let machine = founder_of(stage, &tokens, &images).and_then(|spec| stage.start(spec))?;
    let mut founded = stage.ready(machine)?;
    let kubectl = &founded.kubectl;
    let spec = worker_of(stage, &tokens, &images)?;
    let mut worker = stage.newcomer(spec)?;
    await_node(kubectl, WORKER, &*worker)
        .and_then(|()| use_both(kubectl))
        .inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    let (older, _) = stage.newcomers.context("newcomers are older")?;
    let kubelet = kubectl.run(&["get", "node", WORKER, "-o", "jsonpath={.status.nodeInfo.kubeletVersion}"])?;
    ensure!(kubelet == format!("v{}", older.kubernetes), "the worker's kubelet is {kubelet}");
    stop_all([&mut *worker, &mut *founded.machine])
}

/// A token that the cluster has made and revoked.
fn revoked(kubectl: &Kubectl) -> Result<String> {
    let token = |words: &[&str]| {
        workload::kubeboot(kubectl, Some(FOUNDER), &[&["token"], words, &["--output", "json"]].concat())
    };
    let made: Value = serde_json::from_str(&token(&["create"])?).context("token create answers JSON")?;
    token(&["revoke", made["id"].as_str().context("a token has an id")?])?;
    Ok(made["token"].as_str().context("token create gives the token")?.to_owned())
}

fn is_refused(stage: &mut Stage, kubectl: &Kubectl, case: Case) -> Result<()> {
    hears_why(stage, kubectl, case, |stage, spec| stage.start(spec))
}

/// The same of a machine that is switched on in this way.
fn hears_why(
    stage: &mut Stage,
    kubectl: &Kubectl,
    case: Case,
    start: fn(&mut Stage, Spec) -> Result<Box<dyn Machine>>,
) -> Result<()> {
    let Case { what, spec, told, logged } = case;
    let journal = ["journalctl", "--unit=kubeboot-agent", "--output=cat", "--no-pager"];
    let log = || workload::on(kubectl, Some(FOUNDER), &journal);
    let of_it = |log: &str| log.lines().filter(|line| line.contains("refused") && line.contains(logged)).count();
    let before = of_it(&log()?);
    let mut machine = start(stage, spec)?;
    for part in &told {
        machine.console().wait_for_text(part, TO_READY).with_context(|| format!("{what} is told"))?;
    }
    until(&format!("the founder's log to name {what}: {logged:?}"), LIMIT, PAUSE, || match log() {
        Ok(after) if of_it(&after) > before => Look::Holds(()),
        Ok(after) => Look::NotYet(last_lines(&after, 20)),
        Err(error) => Look::NotYet(format!("{error:#}")),
    })?;
    machine.cut_power()
}
