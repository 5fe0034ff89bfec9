//! Machines: what a scenario can ask of one, whatever it runs on.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::transcript::Transcript;

pub mod network;
pub mod report;

/// How a machine gets from power-on to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// UEFI firmware, boot loader, unified kernel image.
    Firmware,
    /// The backend loads the image's kernel and initrd itself.
    Kernel,
}

/// What a machine is made of. It is built anew at each power-on; only the disk carries over.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Names the machine in messages and files.
    pub name: String,
    /// Its place on the test's network, from 0.
    pub number: u8,
    /// Where logs go; exists.
    pub folder: PathBuf,
    /// The disk, raw, written to.
    pub disk: PathBuf,
    /// Further disks, in the order in which the machine sees them.
    pub volumes: Vec<Volume>,
    /// Whether the machine sees them before its own disk, on a backend that can do so.
    pub volumes_first: bool,
    /// How it starts.
    pub start: Start,
    /// Memory in MiB.
    pub memory: u32,
    /// Words for the kernel command line, after the image's own.
    pub words: Vec<String>,
    /// systemd system credentials, name and contents.
    pub credentials: Vec<(String, Vec<u8>)>,
    /// Whether it has an address and a default route.
    pub connected: bool,
}

/// A disk that is plugged in beside the machine's own.
#[derive(Debug, Clone)]
pub struct Volume {
    /// The raw image.
    pub path: PathBuf,
    /// Whether the machine may write to it.
    pub writable: bool,
}

impl Volume {
    /// A volume that the machine can only read.
    #[must_use]
    pub fn read_only(path: PathBuf) -> Self {
        Self { path, writable: false }
    }
}

/// A machine that was switched on. Dropping it cuts its power.
pub trait Machine: Send {
    /// What it says on its console.
    fn console(&self) -> &Transcript;

    /// What kubeboot reports on the report channel, one JSON object a line.
    fn report(&self) -> &Transcript;

    /// Types a line on the console.
    ///
    /// # Errors
    /// The machine has stopped.
    fn type_line(&mut self, line: &str) -> Result<()>;

    /// Asks for an orderly stop, as the power button does.
    ///
    /// # Errors
    /// The machine does not take the request.
    fn press_power(&mut self) -> Result<()>;

    /// Waits until the machine has stopped by itself, by power-off or reboot: both end it.
    ///
    /// # Errors
    /// It still runs when `limit` has passed.
    fn wait_stopped(&mut self, limit: Duration) -> Result<()>;

    /// Takes the power away at once. What the guest had not written is lost.
    ///
    /// # Errors
    /// The process can't be killed.
    fn cut_power(&mut self) -> Result<()>;

    /// How the host reaches the machine's port 6443.
    fn api(&self) -> Reach;
}

/// A way from the host to a machine's API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Network namespace to be in; none means the host's own.
    pub namespace: Option<String>,
    /// `https://ADDRESS:PORT`
    pub url: String,
}

/// A kind of machine.
pub trait Backend: Sync {
    /// Its name, as on the command line.
    fn name(&self) -> &'static str;

    /// Whether it has firmware to start from.
    fn firmware(&self) -> bool;

    /// Whether something can be typed on its console.
    fn keyboard(&self) -> bool;

    /// Whether several machines share the test's network, each with its own address.
    fn several(&self) -> bool;

    /// How many of the host's processors one machine keeps busy.
    fn processors(&self) -> usize;

    /// Switches a machine on.
    ///
    /// # Errors
    /// The machine can't be started; a guest that fails later is seen on its console.
    fn start(&self, spec: &Spec, network: &network::Network) -> Result<Box<dyn Machine>>;
}
