//! Machines in QEMU: the real image, with firmware and boot loader, under KVM where it works and emulated elsewhere.

use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use image_builder::cache::Cache;
use image_builder::image::Image;
use image_builder::qemu::{self, Accelerator, Drive, Firmware, Running};
use image_builder::tools::Tools;

use crate::kubectl::free_port;
use crate::machine::network::Network;
use crate::machine::{Backend, Machine, Reach, Spec, Start};
use crate::transcript::Transcript;

/// How often a log that QEMU writes is looked at for more.
const LOOK: Duration = Duration::from_millis(50);

/// QEMU from the tools tree.
pub struct Qemu {
    tools: Tools,
    image: Image,
    accelerator: Accelerator,
}

impl Qemu {
    /// QEMU for an image, under KVM if a probe proves it.
    ///
    /// # Errors
    /// The probe can't be made.
    pub fn new(cache: &Cache, tools: Tools, image: Image) -> Result<Self> {
        let accelerator = qemu::probe(cache, &tools, &image.kernel())?;
        Ok(Self { tools, image, accelerator })
    }
}

impl Backend for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn firmware(&self) -> bool {
        true
    }

    fn keyboard(&self) -> bool {
        // Its console goes to a file.
        false
    }

    fn several(&self) -> bool {
        // Each has QEMU's own network, behind its own translation of addresses.
        false
    }

    fn processors(&self) -> usize {
        2
    }

    fn start(&self, spec: &Spec, _network: &Network) -> Result<Box<dyn Machine>> {
        let port = free_port()?;
        let drive = |path: &std::path::Path, read_only| Drive { path: path.to_owned(), format: "raw", read_only };
        let firmware = match spec.start {
            Start::Firmware => Firmware::Uefi { variables: spec.disk.with_extension("variables") },
            Start::Kernel => Firmware::Kernel {
                kernel: self.image.kernel(),
                initrd: self.image.initrd(),
                command_line: self.image.command_line()?,
            },
        };
        let network = match spec.connected {
            true => qemu::Network::User { forwards: vec![(port, 6443)] },
            false => qemu::Network::None,
        };
        let machine = qemu::Machine {
            disk: drive(&spec.disk, false),
            firmware,
            accelerator: self.accelerator,
            memory: spec.memory,
            cpus: 2,
            parameters: spec.words.clone(),
            credentials: spec.credentials.clone(),
            network,
            volumes: spec.volumes.iter().map(|volume| drive(&volume.path, !volume.writable)).collect(),
            folder: spec.folder.clone(),
            terminal: false,
            // A reboot ends the process; the test starts it again, maybe with other words.
            extra: vec!["-no-reboot".into()],
        };
        let running = machine.start(&self.tools)?;
        let logs = [running.console(), running.report()];
        let running = Arc::new(Mutex::new(running));
        let [console, report] = logs.map(|log| {
            let source = Follow { log: log.clone(), file: None, running: Arc::clone(&running) };
            Transcript::record(source, &log.with_extension("copy"))
        });
        let api = Reach { namespace: None, url: format!("https://127.0.0.1:{port}") };
        Ok(Box::new(QemuMachine { name: spec.name.clone(), running, console: console?, report: report?, api }))
    }
}

struct QemuMachine {
    name: String,
    running: Arc<Mutex<Running>>,
    console: Transcript,
    report: Transcript,
    api: Reach,
}

impl QemuMachine {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine for QemuMachine {
    fn console(&self) -> &Transcript {
        &self.console
    }

    fn report(&self) -> &Transcript {
        &self.report
    }

    fn type_line(&mut self, _line: &str) -> Result<()> {
        bail!("{} has no keyboard", self.name)
    }

    fn press_power(&mut self) -> Result<()> {
        self.running().press_power_button()
    }

    fn wait_stopped(&mut self, limit: Duration) -> Result<()> {
        // The lock is taken for each look only: the readers of its logs need it too.
        crate::wait::until(&format!("{} to stop", self.name), limit, LOOK, || match self.running().ended() {
            Ok(Some(status)) if status.success() => crate::wait::Look::Holds(()),
            Ok(Some(status)) => crate::wait::Look::Never(format!("QEMU ended with {status}")),
            Ok(None) => crate::wait::Look::NotYet("it runs".into()),
            Err(error) => crate::wait::Look::Never(format!("{error:#}")),
        })
    }

    fn cut_power(&mut self) -> Result<()> {
        self.running().cut_power()
    }

    fn api(&self) -> Reach {
        self.api.clone()
    }
}

impl Drop for QemuMachine {
    fn drop(&mut self) {
        // It was told to whoever could act on it before. The readers of the logs end, and the last drops the machine.
        let _ = self.cut_power();
    }
}

/// A log as it grows, until QEMU has ended.
struct Follow {
    log: std::path::PathBuf,
    file: Option<File>,
    running: Arc<Mutex<Running>>,
}

impl Read for Follow {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            // Asked before reading: what was written before the end is read after it.
            let ended = self.running.lock().unwrap_or_else(PoisonError::into_inner).ended();
            if self.file.is_none() {
                // QEMU makes it a moment after its start.
                self.file = File::open(&self.log).ok();
            }
            let count = self.file.as_mut().map_or(Ok(0), |file| file.read(buffer))?;
            if count > 0 || !matches!(ended, Ok(None)) {
                return Ok(count);
            }
            std::thread::park_timeout(LOOK);
        }
    }
}
