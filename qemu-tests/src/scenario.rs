//! What a scenario is, and the stage on which it plays: disks, volumes and machines of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use image_builder::qemu::secret_file;
use kubeboot::timeline::What;

use crate::kubectl::Kubectl;
use crate::lab::Lab;
use crate::machine::network::Network;
use crate::machine::{Backend, Machine, Spec, Start, Volume, report};
use crate::random::Random;
use crate::subject::Release;
use crate::transcript::last_lines;
use crate::{disk, oci, volumes};

/// One thing that must be true, shown on real machines.
pub struct Scenario {
    /// A sentence that is true when the scenario passes.
    pub name: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// Whether only `--long` runs it.
    pub long: bool,
    /// How it goes.
    pub run: fn(&mut Stage) -> Result<()>,
}

/// What a scenario asks of its machines.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// UEFI firmware and the image's own boot loader.
    pub firmware: bool,
    /// Something to type on the console with.
    pub keyboard: bool,
    /// How many machines run at once, on one network.
    pub machines: u8,
    /// Memory of each, in MiB.
    pub memory: u32,
    /// The factory release in their image.
    pub release: Release,
    /// The factory release in the image of [newcomers](Stage::newcomer), if there are any.
    pub newcomers: Option<Release>,
}

impl Needs {
    /// Every release that some machine has.
    pub fn releases(&self) -> impl Iterator<Item = Release> {
        [self.release].into_iter().chain(self.newcomers)
    }
}

/// One machine as any backend has it.
pub const ONE: Needs =
    Needs { firmware: false, keyboard: false, machines: 1, memory: 2048, release: Release::Default, newcomers: None };

/// How long a machine may take from power-on to Ready, on a loaded build machine that emulates.
pub const TO_READY: Duration = Duration::from_secs(600);
/// How long an orderly stop may take.
pub const TO_STOP: Duration = Duration::from_secs(180);
/// How long something that kubeboot says early may take.
pub const TO_SPEAK: Duration = Duration::from_secs(300);

/// Size of a machine's disk in MiB: the image, and room for `/var`.
const DISK: u64 = 6144;

/// Where one run of one scenario takes place.
pub struct Stage<'a> {
    /// What all scenarios of its release share.
    pub lab: &'a Lab,
    /// What the machines run on.
    pub backend: &'a dyn Backend,
    /// This run's folder, kept when the scenario fails.
    pub folder: PathBuf,
    /// The machines' network.
    pub network: Network,
    /// Seeded choices.
    pub random: Random,
    /// What all scenarios of the newcomers' release share, and what these run on.
    pub newcomers: Option<(&'a Lab, &'a dyn Backend)>,
    needs: Needs,
    boots: u32,
}

/// A machine whose cluster answers.
pub struct Founded {
    /// The machine.
    pub machine: Box<dyn Machine>,
    /// Its API server.
    pub kubectl: Kubectl,
    /// The cluster's id.
    pub cluster: String,
    /// The node's name.
    pub node: String,
}

impl<'a> Stage<'a> {
    /// An empty stage.
    ///
    /// # Errors
    /// The folder or the network can't be made.
    pub fn new(lab: &'a Lab, backend: &'a dyn Backend, needs: Needs, folder: PathBuf, seed: u64) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let random = Random::new(seed);
        Ok(Self { lab, backend, folder, network: Network::new()?, random, newcomers: None, needs, boots: 0 })
    }

    /// A disk that was never started.
    ///
    /// # Errors
    /// The image can't be copied.
    pub fn new_disk(&self) -> Result<PathBuf> {
        self.disk_of("new")
    }

    /// A disk that was never started, for one of several machines.
    ///
    /// # Errors
    /// The image can't be copied.
    pub fn disk_of(&self, machine: &str) -> Result<PathBuf> {
        let disk = self.folder.join(format!("{machine}.raw"));
        disk::fresh(&self.lab.image, &disk, DISK)?;
        Ok(disk)
    }

    /// The disk of a machine that was founded, Ready, and shut down in order.
    ///
    /// # Errors
    /// Founding it failed.
    pub fn founded_disk(&mut self) -> Result<PathBuf> {
        let base = self.lab.ready_disk(|base| {
            let disk = self.new_disk()?;
            let mut spec = self.founder(&disk);
            spec.volumes.push(Volume::read_only(volumes::images(&self.folder, &[oci::busybox()?])?));
            let machine = self.start(spec)?;
            let mut founded = self.ready(machine)?;
            founded.kubectl.wait_for_pods("kube-system", TO_READY)?;
            stop(&mut *founded.machine)?;
            fs::rename(&disk, base).with_context(|| format!("can't keep {}", disk.display()))
        })?;
        let disk = self.folder.join("founded.raw");
        disk::copy(&base, &disk)?;
        Ok(disk)
    }

    /// A machine with a disk, commanded by the run's operator; the caller adds what it is about.
    #[must_use]
    pub fn spec(&self, disk: &Path) -> Spec {
        Spec {
            name: "node".into(),
            number: 0,
            folder: self.folder.clone(),
            disk: disk.to_owned(),
            volumes: Vec::new(),
            volumes_first: false,
            start: if self.needs.firmware { Start::Firmware } else { Start::Kernel },
            memory: self.needs.memory,
            words: vec![
                "kubeboot.report=ttyS1".into(),
                format!("kubeboot.operator=\"{}\"", self.lab.operator.public_key()),
            ],
            credentials: Vec::new(),
            connected: true,
        }
    }

    /// A machine with a disk and the role of the founder on its kernel command line.
    #[must_use]
    pub fn founder(&self, disk: &Path) -> Spec {
        let mut spec = self.spec(disk);
        spec.words.push("kubeboot.role=init".into());
        spec
    }

    /// Switches a machine on. Its logs get a folder of their own.
    ///
    /// # Errors
    /// The backend can't start it.
    pub fn start(&mut self, spec: Spec) -> Result<Box<dyn Machine>> {
        let backend = self.backend;
        self.start_on(backend, spec)
    }

    fn start_on(&mut self, backend: &dyn Backend, mut spec: Spec) -> Result<Box<dyn Machine>> {
        self.boots += 1;
        spec.folder = self.folder.join(format!("boot-{}", self.boots));
        fs::create_dir_all(&spec.folder).with_context(|| format!("can't make {}", spec.folder.display()))?;
        backend.start(&spec, &self.network)
    }

    /// Switches on a machine whose image has the newcomers' release: what it is made of, but for the disk, which is new.
    ///
    /// # Errors
    /// The scenario needs no newcomers, the image can't be copied, or the backend can't start it.
    pub fn newcomer(&mut self, mut spec: Spec) -> Result<Box<dyn Machine>> {
        let (lab, backend) = self.newcomers.context("the scenario does not say which release newcomers have")?;
        disk::fresh(&lab.image, &spec.disk, DISK)?;
        spec.name = format!("{}-{}", spec.name, lab.kubernetes);
        self.start_on(backend, spec)
    }

    /// Switches a machine on, and cuts its power at this moment from then.
    ///
    /// # Errors
    /// The backend can't start it.
    pub fn start_and_cut(&mut self, spec: Spec, moment: Duration) -> Result<()> {
        let power_on = Instant::now();
        let mut machine = self.start(spec)?;
        while let Some(left) = moment.checked_sub(power_on.elapsed()) {
            std::thread::park_timeout(left);
        }
        machine.cut_power()
    }

    /// Starts a founder and waits until it is Ready.
    ///
    /// # Errors
    /// It does not become so.
    pub fn found(&mut self, disk: &Path) -> Result<Founded> {
        let spec = self.founder(disk);
        let machine = self.start(spec)?;
        self.ready(machine)
    }

    /// Waits until a machine is Ready, and sets up kubectl for it.
    ///
    /// # Errors
    /// It reports an error, stops, or takes too long.
    pub fn ready(&self, machine: Box<dyn Machine>) -> Result<Founded> {
        let kubectl = self.granted(&*machine)?;
        let ready = report::wait_for(machine.report(), "the node to be ready", TO_READY, |what| match what {
            What::Ready { node, cluster, .. } => Some((node.clone(), cluster.clone())),
            _ => None,
        });
        let (node, cluster) = ready.inspect_err(|_| kubectl.describe(&self.folder.join("cluster.log")))?;
        Ok(Founded { machine, kubectl, cluster, node })
    }

    /// Waits for the operator's certificate, and sets up kubectl with it.
    ///
    /// # Errors
    /// The machine reports an error, stops, or takes too long.
    pub fn granted(&self, machine: &dyn Machine) -> Result<Kubectl> {
        let (certificate, ca) =
            report::wait_for(machine.report(), "an operator's certificate", TO_READY, |what| match what {
                What::Operator { certificate, ca, .. } => Some((certificate.clone(), ca.clone())),
                _ => None,
            })?;
        let reach = machine.api();
        // Of several machines that run at once each has its own.
        let server: String = reach.url.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
        let config = self.folder.join(format!("kubeconfig-{}-{server}", self.boots));
        secret_file(&config, &self.lab.operator.kubeconfig(&reach.url, &ca, &certificate))?;
        Ok(Kubectl { program: self.lab.kubectl.clone(), config, namespace: reach.namespace, server: None })
    }
}

/// Waits until everything that makes a machine a node is on its disk.
///
/// # Errors
/// It reports an error, stops, or takes too long.
pub fn configured(machine: &dyn Machine) -> Result<()> {
    report::wait_for(machine.report(), "the node to be configured", TO_SPEAK, |what| match what {
        What::Phase { name } if name == "configured" => Some(()),
        _ => None,
    })
}

/// Shuts a machine down in order.
///
/// # Errors
/// It does not stop.
pub fn stop(machine: &mut dyn Machine) -> Result<()> {
    stop_all([machine])
}

/// Shuts machines down in order, all at once.
///
/// # Errors
/// One does not stop.
pub fn stop_all<const COUNT: usize>(mut machines: [&mut dyn Machine; COUNT]) -> Result<()> {
    machines.iter_mut().try_for_each(|machine| machine.press_power())?;
    machines.into_iter().try_for_each(|machine| machine.wait_stopped(TO_STOP))
}

/// Checks that a text on a console has each of these parts.
///
/// # Errors
/// One is missing; the message shows the end of the text.
pub fn says(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "expected {part:?} on the console, found:\n{}", last_lines(text, 20));
    }
    Ok(())
}
