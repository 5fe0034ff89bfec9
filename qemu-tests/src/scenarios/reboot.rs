//! Booting a finished machine again: nothing of kubeboot's changes on disk but its boot counter and what the mesh keeps.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kubeboot::{paths, timeline::What};

use super::{operators, workload};
use crate::disk::{Var, differences};
use crate::machine::{Volume, report};
use crate::scenario::{Founded, ONE, Scenario, Stage, TO_READY, TO_SPEAK, stop};
use crate::volumes::{self, Format};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "The second and the tenth boot change nothing but the boot counter",
        needs: ONE,
        long: true,
        run: ten_boots,
    },
    Scenario {
        name: "A parameter that changed later changes nothing, and the console says so",
        needs: ONE,
        long: false,
        run: frozen,
    },
];

/// Everything of kubeboot's on a stopped machine's disk.
type State = BTreeMap<String, String>;

fn ten_boots(stage: &mut Stage) -> Result<()> {
    let disk = stage.founded_disk()?;
    let (founding, before) = (boots(&disk)?, state(&disk)?);
    ensure!(founding == 1, "a machine that was founded counts {founding} boots, expected 1");
    let mut second = stage.found(&disk)?;
    second.kubectl.run(&["create", "configmap", "kept", "--from-literal=by=the-user"])?;
    let identity = identity(&second)?;
    stop(&mut *second.machine)?;
    unchanged("second", &before, &disk)?;
    for boot in 3..10 {
        let spec = stage.founder(&disk);
        let mut machine = stage.start(spec)?;
        // Its own work is done when the first health gate is looked at.
        report::wait_for(machine.report(), &format!("boot {boot} to get to its health"), TO_SPEAK, |what| {
            matches!(what, What::Gate { .. }).then_some(())
        })?;
        stop(&mut *machine)?;
    }
    let mut tenth = stage.found(&disk)?;
    let kept = tenth.kubectl.run(&["get", "configmap", "kept", "-o", "jsonpath={.data.by}"])?;
    ensure!(kept == "the-user", "the user's ConfigMap holds {kept:?}");
    let now = self::identity(&tenth)?;
    ensure!(now == identity, "the cluster was {identity}, is {now}");
    tenth.kubectl.wait_for_pods("kube-system", TO_READY)?;
    stop(&mut *tenth.machine)?;
    unchanged("tenth", &before, &disk)?;
    let counted = boots(&disk)?;
    ensure!(counted == 10, "the boot counter says {counted}, expected 10");
    Ok(())
}

fn frozen(stage: &mut Stage) -> Result<()> {
    let disk = stage.founded_disk()?;
    let mut spec = stage.founder(&disk);
    spec.words.push("kubeboot.cluster.dns-domain=elsewhere.example".into());
    // A stick that is plugged in later.
    // What the settings name is frozen; the command line would come before a stick.
    spec.words.retain(|word| !word.starts_with("kubeboot.operator="));
    let stranger = operators::public(&operators::key(stage, "stranger")?)?;
    let user_data = format!(
        "#cloud-config\nssh_authorized_keys: [\"{stranger}\"]\nkubeboot:\n  name: from-a-stick\n  operator: \
         [\"{stranger}\"]\n"
    );
    let files = [("user-data", user_data.as_str()), ("meta-data", "instance-id: a-test\n")];
    let stick = volumes::user_data(&stage.folder, Format::Vfat, "cidata", &files)?;
    spec.volumes.push(Volume::read_only(stick));
    let machine = stage.start(spec)?;
    let founded = stage.ready(machine)?;
    founded.machine.console().wait_for_text("cluster.dns-domain", Duration::from_secs(10))?;
    founded.machine.console().wait_for_text("\"from-a-stick\" is ignored", Duration::from_secs(10))?;
    ensure!(founded.node != "from-a-stick", "the node has another name");
    let operators = workload::kubeboot(&founded.kubectl, None, &["operator", "list"])?;
    ensure!(operators.contains("SHA256:") && !operators.contains("stranger"), "operators are: {operators}");
    let dns = ["get", "configmap", "-n", "kube-system", "coredns", "-o", "jsonpath={.data}"];
    let config = founded.kubectl.run(&dns)?;
    ensure!(config.contains("cluster.local") && !config.contains("elsewhere"), "CoreDNS is configured with {config}");
    Ok(())
}

/// What makes the cluster this one and no other.
fn identity(founded: &Founded) -> Result<String> {
    let uid = ["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"];
    let ca = ["get", "configmap", "kube-root-ca.crt", "-n", "kube-public", "-o", "jsonpath={.data}"];
    let uid = founded.kubectl.run(&uid)?;
    let ca = founded.kubectl.wait_for("the cluster's CA", TO_SPEAK, &ca, |ca| !ca.is_empty())?;
    Ok(format!("{} {uid} {ca}", founded.cluster))
}

fn state(disk: &Path) -> Result<State> {
    let mut state = Var::read(disk)?.digest(paths::STATE)?;
    let below =
        |path| Path::new(path).strip_prefix(paths::STATE).with_context(|| format!("{path} is not in the state"));
    // The mesh counts its starts and keeps what it hears: the agent's, not the boot's.
    let (counter, mesh) = (below(paths::BOOTS)?, below(paths::MESH)?);
    state.retain(|path, _| Path::new(path) != counter && !Path::new(path).starts_with(mesh));
    Ok(state)
}

fn unchanged(which: &str, before: &State, disk: &Path) -> Result<()> {
    let changes = differences(before, &state(disk)?);
    ensure!(changes.is_empty(), "the {which} boot changed kubeboot's files: {}", changes.join("; "));
    Ok(())
}

/// The boot counter on a stopped machine's disk.
fn boots(disk: &Path) -> Result<u64> {
    let path = Var::read(disk)?;
    let text = std::fs::read_to_string(path.path(paths::BOOTS)).context("can't read the boot counter")?;
    text.trim().parse().with_context(|| format!("the boot counter holds {text:?}"))
}
