//! The floor: what a founded machine runs, started by one unit with nothing around it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use base64::Engine;
use image_builder::command::run;
use image_builder::qemu::secret_file;
use serde_json::Value;

use super::{copy, measure};
use crate::disk::Var;
use crate::kubectl::Kubectl;
use crate::machine::Volume;
use crate::scenario::{Stage, stop};
use crate::scenarios::on_node;

/// Units that the floor does without.
const MASKED: &[&str] = &["kubeboot.service", "kubeboot-console.service", "kubeboot-os-health.service"];
/// What the kubelet left that a first start would not find.
const FORGOTTEN: &[&str] = &["/var/lib/etcd/member", "/var/lib/kubelet/pods", "/var/lib/kubelet/plugins_registry"];
/// The static pods whose commands become processes.
const PODS: &[&str] = &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// A machine whose files are all made: its disk, the volume with what is rendered at each boot, and its kubectl.
pub struct Floor {
    disk: PathBuf,
    volume: PathBuf,
    kubectl: Kubectl,
}

/// Founds a machine, takes what it rendered, and forgets its cluster's data.
///
/// # Errors
/// The machine does not become Ready, or something can't be taken from it.
pub fn prepare(stage: &mut Stage) -> Result<Floor> {
    let disk = stage.founded_disk()?;
    let mut founded = stage.found(&disk)?;
    let archive = on_node(&founded.kubectl, &["sh", "-c", "tar -C /run/kubeboot -c config | base64 -w0"])?;
    let archive = base64::engine::general_purpose::STANDARD.decode(archive.trim()).context("no base64 came back")?;
    let mut processes = Vec::new();
    for name in PODS {
        let label = format!("component={name}");
        let pods = founded.kubectl.get(&["pods", "-n", "kube-system", "-l", &label])?;
        processes
            .push(words(&pods["items"][0]["spec"]["containers"][0]["command"]).with_context(|| (*name).to_owned())?);
    }
    founded.kubectl.run(&["delete", "pod", "node", "--wait=false"])?;
    stop(&mut *founded.machine)?;
    let mut kubectl = founded.kubectl.clone();
    kubectl.config = stage.folder.join("floor.conf");
    {
        let var = Var::write(&disk)?;
        // Nobody has given the operator any rights in the floor's empty cluster.
        let administrator = fs::read_to_string(var.path("/var/lib/kubeboot/kubernetes/super-admin.conf"));
        secret_file(&kubectl.config, &administrator.context("can't read the administrator's kubeconfig")?)?;
        for path in FORGOTTEN.iter().map(|path| var.path(path)).filter(|path| path.exists()) {
            fs::remove_dir_all(&path).with_context(|| format!("can't remove {}", path.display()))?;
        }
    }
    let base = stage.folder.join("floor.raw");
    fs::rename(&disk, &base).context("can't keep the floor's disk")?;
    let volume = volume(stage, &archive, &processes)?;
    Ok(Floor { disk: base, volume, kubectl })
}

impl Floor {
    /// Boots it once and gives the seconds to Ready.
    pub fn boot(&self, stage: &mut Stage) -> Result<f64> {
        let disk = copy(stage, &self.disk)?;
        let mut spec = stage.spec(&disk);
        spec.volumes.push(Volume::read_only(self.volume.clone()));
        spec.words.extend(MASKED.iter().map(|unit| format!("systemd.mask={unit}")));
        spec.words.push("systemd.wants=floor.service".into());
        spec.credentials.push(("systemd.extra-unit.floor.service".into(), UNIT.into()));
        let power_on = Instant::now();
        let mut machine = stage.start(spec)?;
        let mut kubectl = self.kubectl.clone();
        // Its own server certificate is the same; only the way to it may differ from boot to boot.
        kubectl.server = Some(machine.api().url);
        measure(&mut *machine, &kubectl, power_on, &disk)
    }
}

/// One unit that starts everything at once.
const UNIT: &str = "[Unit]\nDefaultDependencies=no\nRequires=kubeboot-slot.service\n\
    After=kubeboot-slot.service systemd-networkd.service systemd-sysctl.service\n\
    [Service]\nDelegate=yes\nKillMode=control-group\nTimeoutStopSec=5\n\
    ExecStartPre=mkdir -p /run/floor /run/kubeboot /run/flannel /etc/kubernetes\n\
    ExecStartPre=mount -o ro LABEL=floor /run/floor\nExecStartPre=cp -a /run/floor/config /run/kubeboot/\n\
    ExecStartPre=mount --bind /var/lib/kubeboot/kubernetes /etc/kubernetes\n\
    EnvironmentFile=-/run/kubeboot/config/kubelet.env\nEnvironmentFile=-/run/kubeboot/config/flanneld.env\n\
    EnvironmentFile=-/run/kubeboot/config/containerd.env\n\
    ExecStart=sh /run/floor/start\n";

/// Pause before a process that has ended is started again, in seconds: the kubelet ends when containerd is not up in time,
/// the controller-manager when the API server is not. Short, so that the floor stays a floor.
const AGAIN: &str = "0.2";

/// What the unit runs.
fn script(processes: &[String]) -> String {
    let bin = "/run/kubeboot/slot/bin";
    let services = [
        format!("{bin}/containerd --config /run/kubeboot/config/containerd.toml"),
        format!("{bin}/kubelet --config=/run/kubeboot/config/kubelet.yaml $KUBELET_ARGS"),
        format!("{bin}/kube-proxy --config=/run/kubeboot/config/kube-proxy.yaml"),
        format!("{bin}/flanneld $FLANNELD_ARGS"),
    ];
    let keep = |process| format!("while :; do {process}; sleep {AGAIN}; done &\n");
    let started: Vec<_> = processes.iter().chain(&services).map(keep).collect();
    format!("export PATH={bin}:/usr/sbin:/usr/bin\n{}wait\n", started.concat())
}

/// A command from a pod, quoted for a shell.
fn words(command: &Value) -> Result<String> {
    let words = command.as_array().context("the pod has no command")?;
    let quoted = words.iter().filter_map(Value::as_str).map(|word| format!("'{}'", word.replace('\'', "'\\''")));
    Ok(quoted.collect::<Vec<_>>().join(" "))
}

fn volume(stage: &Stage, archive: &[u8], processes: &[String]) -> Result<PathBuf> {
    let tree = stage.folder.join("floor.files");
    fs::create_dir_all(&tree).with_context(|| format!("can't make {}", tree.display()))?;
    let mut tar = Command::new("tar");
    crate::command::output_with_input(tar.arg("-C").arg(&tree).args(["-xf", "-"]), archive)?;
    fs::write(tree.join("start"), script(processes)).context("can't write the floor's script")?;
    let volume = stage.folder.join("floor.img");
    let mut make = Command::new("mkfs.ext4");
    make.args(["-q", "-F", "-L", "floor", "-d"]).args([&tree, &volume]).arg("16M");
    run(&mut make, "make the floor's volume")?;
    Ok(volume)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_command_is_quoted_for_the_shell() {
        assert_eq!(words(&json!(["a", "--b=it's $HOME"])).unwrap(), r"'a' '--b=it'\''s $HOME'");
    }

    #[test]
    fn every_process_is_started_at_once_and_again() {
        let script = script(&["'etcd'".into()]);
        assert!(script.contains("\nwhile :; do 'etcd'; sleep 0.2; done &\n"), "{script}");
        assert_eq!(script.lines().filter(|line| line.ends_with(" &")).count(), 5);
        assert!(script.ends_with("wait\n"));
    }
}
