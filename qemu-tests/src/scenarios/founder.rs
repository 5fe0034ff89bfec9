//! Founding a cluster, by each way in which a machine can be told to.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Error, Result, ensure};
use kubeboot::paths;
use kubeboot::settings::Role;
use kubeboot::settings::frozen::Frozen;
use kubeboot::timeline::What;

use super::{attacks, workload};
use crate::disk::Var;
use crate::machine::{Volume, report};
use crate::oci;
use crate::scenario::{Founded, Needs, ONE, Scenario, Stage, TO_READY, configured, says, stop};
use crate::volumes::{self, Format};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "A founder started by UEFI from its kernel command line serves workloads",
        needs: Needs { firmware: true, memory: 4096, ..ONE },
        long: true,
        run: by_firmware,
    },
    Scenario {
        name: "A founder started without firmware serves workloads",
        needs: ONE,
        long: false,
        run: by_command_line,
    },
    Scenario { name: "A systemd credential makes a founder", needs: ONE, long: false, run: by_credential },
    Scenario { name: "NoCloud on a vfat volume makes a founder", needs: ONE, long: false, run: by_nocloud_vfat },
    Scenario { name: "NoCloud on an ISO 9660 volume makes a founder", needs: ONE, long: false, run: by_nocloud_iso },
    Scenario { name: "A ConfigDrive makes a founder", needs: ONE, long: false, run: by_config_drive },
    Scenario {
        name: "A network-config decides the address of the node, whatever the machine had before",
        needs: ONE,
        long: false,
        run: by_network_config,
    },
    Scenario {
        name: "A founder with each of the other network backends is Ready",
        needs: ONE,
        long: true,
        run: by_backend,
    },
];

/// flannel's backends beside the default one.
const BACKENDS: [&str; 2] = ["host-gw", "wireguard"];

const CLOUD_CONFIG: &str =
    "#cloud-config\nhostname: from-user-data\nkubeboot:\n  role: init\n  node:\n    labels:\n      origin: user-data\n";
const TOML: &str = "#kubeboot\nrole = \"init\"\nname = \"from-user-data\"\n\n[node.labels]\norigin = \"user-data\"\n";
/// For the networks of both kinds of machines. Each has got another address by the time that this is read. The name of
/// the one in QEMU must not fit the other's too, which udev also calls enx and its hardware address.
const NETWORK_CONFIG: &str = "version: 2
ethernets:
  uml: {match: {name: vec0}, addresses: [10.77.0.200/24], gateway4: 10.77.0.1, nameservers: {addresses: [10.77.0.1]}}
  qemu: {match: {name: 'enp*'}, addresses: [10.0.2.200/24], gateway4: 10.0.2.2, nameservers: {addresses: [10.0.2.3]}}
";
const META_DATA: &str = "instance-id: a-test\n";

/// A volume with the image that pods of scenarios use.
///
/// # Errors
/// It can't be made.
pub fn images(stage: &Stage) -> Result<Volume> {
    Ok(Volume::read_only(volumes::images(&stage.folder, &[oci::busybox()?])?))
}

fn by_backend(stage: &mut Stage) -> Result<()> {
    let images = images(stage)?;
    for backend in BACKENDS {
        let disk = stage.new_disk()?;
        let mut spec = stage.founder(&disk);
        spec.words.push(format!("kubeboot.network.backend={backend}"));
        spec.volumes.push(images.clone());
        let machine = stage.start(spec)?;
        let mut founded = stage.ready(machine).with_context(|| backend.to_owned())?;
        let config = workload::on_node(&founded.kubectl, &["cat", "/run/kubeboot/config/flannel.json"])?;
        ensure!(config.contains(&format!("\"{backend}\"")), "flannel is told: {config}");
        stop(&mut *founded.machine)?;
    }
    Ok(())
}

fn by_firmware(stage: &mut Stage) -> Result<()> {
    let mut founded = serves_workloads(stage)?;
    attacks::a_pod_is_logged(&founded.kubectl, "client")?;
    stop(&mut *founded.machine)
}

fn by_command_line(stage: &mut Stage) -> Result<()> {
    stop(&mut *serves_workloads(stage)?.machine)
}

/// Founds a cluster, uses it, and holds what it reports of itself against the release.
///
/// # Errors
/// It does not become Ready, or something does not work.
pub(super) fn serves_workloads(stage: &mut Stage) -> Result<Founded> {
    let disk = stage.new_disk()?;
    let mut spec = stage.founder(&disk);
    spec.volumes.push(images(stage)?);
    let machine = stage.start(spec)?;
    let founded = stage.ready(machine)?;
    founded.kubectl.wait_for_pods("kube-system", TO_READY)?;
    workload::run(&founded)?;
    says(&founded.machine.console().text(), &["[done]", "To add a machine:", "kubeboot.role=worker"])?;
    let expected = format!("v{}", stage.lab.kubernetes);
    let kubelet = ["get", "node", &founded.node, "-o", "jsonpath={.status.nodeInfo.kubeletVersion}"];
    let kubelet = founded.kubectl.run(&kubelet)?;
    ensure!(kubelet == expected, "the node reports Kubernetes {kubelet}, expected {expected}");
    let server = founded.kubectl.run(&["get", "--raw=/version"])?;
    ensure!(server.contains(&format!("{expected:?}")), "the API server is not {expected}, but {server}");
    Ok(founded)
}

fn by_credential(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    let mut spec = stage.spec(&disk);
    spec.credentials.push(("kubeboot.role".into(), b"init".to_vec()));
    spec.credentials.push(("kubeboot.config".into(), b"name = \"from-credential\"\n".to_vec()));
    let machine = stage.start(spec)?;
    let founded = stage.ready(machine)?;
    founded.kubectl.run(&["get", "node", "from-credential"]).map(drop)
}

fn by_nocloud_vfat(stage: &mut Stage) -> Result<()> {
    let files = [("user-data", CLOUD_CONFIG), ("meta-data", META_DATA)];
    let volume = volumes::user_data(&stage.folder, Format::Vfat, "cidata", &files)?;
    by_user_data(stage, volume)
}

fn by_nocloud_iso(stage: &mut Stage) -> Result<()> {
    let files = [("user-data", TOML), ("meta-data", META_DATA)];
    let volume = volumes::user_data(&stage.folder, Format::Iso9660, "cidata", &files)?;
    is_told_by(stage, volume, "cidata")
}

fn by_config_drive(stage: &mut Stage) -> Result<()> {
    let files =
        [("openstack/latest/user_data", CLOUD_CONFIG), ("openstack/latest/meta_data.json", "{\"uuid\": \"a-test\"}")];
    let volume = volumes::user_data(&stage.folder, Format::Iso9660, "config-2", &files)?;
    is_told_by(stage, volume, "config-2")
}

fn by_network_config(stage: &mut Stage) -> Result<()> {
    let files = [("user-data", CLOUD_CONFIG), ("meta-data", META_DATA), ("network-config", NETWORK_CONFIG)];
    let volume = volumes::user_data(&stage.folder, Format::Vfat, "cidata", &files)?;
    let disk = stage.new_disk()?;
    let mut spec = stage.spec(&disk);
    spec.volumes.push(Volume::read_only(volume));
    let machine = stage.start(spec)?;
    let server = report::wait_for(machine.report(), "an operator's certificate", TO_READY, |what| match what {
        What::Operator { server, .. } => Some(server.clone()),
        _ => None,
    })?;
    ensure!(server.ends_with(".200:6443"), "the node has taken the address of {server}");
    Ok(())
}

/// A machine is a founder once its disk says so, with the settings of the user-data; that such a one becomes Ready, the one
/// with a vfat volume shows.
fn is_told_by(stage: &mut Stage, volume: PathBuf, label: &str) -> Result<()> {
    let disk = stage.new_disk()?;
    let mut spec = stage.spec(&disk);
    spec.volumes.push(Volume::read_only(volume));
    let mut machine = stage.start(spec)?;
    configured(&*machine)?;
    machine.cut_power()?;
    let var = Var::read(&disk)?;
    let text = fs::read_to_string(var.path(paths::FROZEN)).context("the machine has no settings on its disk")?;
    let frozen = Frozen::parse(&text).map_err(Error::msg).with_context(|| text.clone())?;
    let role = frozen.origins.get("role").map(ToString::to_string).unwrap_or_default();
    let labels = &frozen.settings.node.labels;
    ensure!(
        frozen.settings.role == Some(Role::Init)
            && role.contains(label)
            && labels.get("origin").is_some_and(|origin| origin == "user-data")
            && var.path(paths::CLUSTER).is_file(),
        "the machine has the settings: {text}"
    );
    Ok(())
}

fn by_user_data(stage: &mut Stage, volume: PathBuf) -> Result<()> {
    let disk = stage.new_disk()?;
    let mut spec = stage.spec(&disk);
    spec.volumes.push(Volume::read_only(volume));
    let machine = stage.start(spec)?;
    let founded = stage.ready(machine)?;
    let labelled = ["get", "node", "from-user-data", "-o", "jsonpath={.metadata.labels.origin}"];
    founded
        .kubectl
        .wait_for("the node's label from the user-data", TO_READY, &labelled, |label| label == "user-data")
        .map(drop)
        .context("the settings of the user-data did not arrive")
}
