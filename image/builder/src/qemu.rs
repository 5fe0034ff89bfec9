//! Starts machines in QEMU from the tools tree: with firmware (OVMF) or with a kernel given directly.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;

use crate::cache::{Cache, Check, Key};
use crate::tools::Tools;

/// How often a machine that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a kernel may take to prove that KVM works here.
const PROBE: Duration = Duration::from_secs(5);
/// What a kernel without a root file system says in the end.
const PROOF: &str = "Unable to mount root fs";

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor's own virtualization.
    Kvm,
    /// Emulation: some ten times slower.
    Tcg,
}

/// How the machine starts.
#[derive(Debug, Clone)]
pub enum Firmware {
    /// UEFI, systemd-boot and the disk's unified kernel image. The variables are kept in this file, made if missing.
    Uefi {
        /// The variable store.
        variables: PathBuf,
    },
    /// The kernel itself, without firmware or boot loader.
    Kernel {
        /// The kernel's file.
        kernel: PathBuf,
        /// The initrd's file.
        initrd: PathBuf,
        /// The image's own kernel command line; [`Machine::parameters`] come after it.
        command_line: String,
    },
}

/// The machine's one network card.
#[derive(Debug, Clone)]
pub enum Network {
    /// QEMU's own network with DHCP and name service; each pair forwards a port of 127.0.0.1 to one of the machine.
    User {
        /// (port of this host, port of the machine)
        forwards: Vec<(u16, u16)>,
    },
    /// An existing tap device of the network namespace that QEMU runs in.
    Tap {
        /// Its name.
        interface: String,
        /// The card's address, which must differ between the machines of one network.
        mac: String,
    },
    /// No card.
    None,
}

/// A disk beside the first: a data volume.
#[derive(Debug, Clone)]
pub struct Drive {
    /// The image's file.
    pub path: PathBuf,
    /// `raw` or `qcow2`.
    pub format: &'static str,
    /// Whether writes fail.
    pub read_only: bool,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The first disk.
    pub disk: Drive,
    /// How it starts.
    pub firmware: Firmware,
    /// What runs its instructions.
    pub accelerator: Accelerator,
    /// Memory, in MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
    /// Added to the kernel command line. Nothing secret: QEMU's own command line may show it.
    pub parameters: Vec<String>,
    /// systemd credentials, by name; their values never stand on a command line.
    pub credentials: Vec<(String, Vec<u8>)>,
    /// The network card.
    pub network: Network,
    /// Further disks.
    pub volumes: Vec<Drive>,
    /// A folder for what the machine leaves: `console.log` (first serial port), `report.jsonl` (second), `qemu.log`,
    /// and the credentials' files while it runs. Made by the caller.
    pub folder: PathBuf,
    /// Whether somebody may type on the console: then `console` in the folder is a terminal device, and its log is
    /// written as ever.
    pub terminal: bool,
    /// Further arguments for QEMU.
    pub extra: Vec<String>,
}

/// A machine that was started. Dropping it cuts the power.
#[derive(Debug)]
pub struct Running {
    child: Child,
    monitor: Option<ChildStdin>,
    folder: PathBuf,
    secrets: Vec<PathBuf>,
}

impl Machine {
    /// Starts the machine.
    ///
    /// # Errors
    /// A file cannot be made, or QEMU does not start.
    pub fn start(&self, tools: &Tools) -> Result<Running> {
        let mut secrets = Vec::new();
        let mut command = tools.command("qemu-system-x86_64");
        command.args(self.arguments(tools, &mut secrets)?);
        let log = self.folder.join("qemu.log");
        let log = File::create(&log).with_context(|| format!("Cannot make {}", log.display()))?;
        // Its own process group: Ctrl-C is for the command, which then stops the machine in an orderly way.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("Cannot start QEMU")?;
        let monitor = child.stdin.take();
        if let Some(answers) = child.stdout.take() {
            // Somebody must read what the monitor says, or QEMU stops when the pipe is full.
            std::thread::spawn(move || {
                let mut answers = BufReader::new(answers);
                let mut line = String::new();
                while answers.read_line(&mut line).is_ok_and(|read| read > 0) {
                    line.clear();
                }
            });
        }
        let mut running = Running { child, monitor, folder: self.folder.clone(), secrets };
        running.tell(r#"{"execute":"qmp_capabilities"}"#)?;
        Ok(running)
    }

    /// QEMU's arguments. Files for secrets are made on the way, and named in `secrets`.
    fn arguments(&self, tools: &Tools, secrets: &mut Vec<PathBuf>) -> Result<Vec<String>> {
        let mut arguments = Arguments::default();
        self.board(&mut arguments);
        self.start_arguments(tools, &mut arguments)?;
        arguments.option("-drive", self.disk.argument("disk0"));
        arguments.option("-device", "virtio-blk-pci,drive=disk0,bootindex=1");
        for (index, volume) in self.volumes.iter().enumerate() {
            arguments.option("-drive", volume.argument(&format!("volume{index}")));
            arguments.option("-device", format!("virtio-blk-pci,drive=volume{index}"));
        }
        self.network_arguments(&mut arguments);
        for (index, (name, value)) in self.credentials.iter().enumerate() {
            let path = self.folder.join(format!("credential-{index}"));
            secret_file(&path, &credential_text(name, value))?;
            arguments.option("-smbios", format!("type=11,path={}", escape(&path.display().to_string())));
            secrets.push(path);
        }
        arguments.0.extend(self.extra.iter().cloned());
        Ok(arguments.0)
    }

    fn board(&self, arguments: &mut Arguments) {
        let (accelerator, processor) = match self.accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            Accelerator::Tcg => ("tcg,thread=multi", "max"),
        };
        arguments.flag("-nodefaults").flag("-no-user-config");
        arguments.option("-machine", "q35,smm=off,sata=off").option("-accel", accelerator);
        arguments.option("-cpu", processor).option("-smp", self.cpus.to_string());
        arguments.option("-m", self.memory.to_string()).option("-display", "none");
        arguments.option("-qmp", "stdio").option("-run-with", "exit-with-parent=on");
        arguments.option("-device", "virtio-rng-pci").option("-device", "i6300esb").option("-action", "watchdog=reset");
        let folder = escape(&self.folder.display().to_string());
        let console = if self.terminal {
            format!("pty,id=console,path={folder}/console,logfile={folder}/console.log,logappend=on")
        } else {
            format!("file,id=console,path={folder}/console.log,append=on")
        };
        arguments.option("-chardev", console).option("-serial", "chardev:console");
        arguments.option("-chardev", format!("file,id=report,path={folder}/report.jsonl,append=on"));
        arguments.option("-serial", "chardev:report");
    }

    fn start_arguments(&self, tools: &Tools, arguments: &mut Arguments) -> Result<()> {
        let parameters = self.parameters.join(" ");
        match &self.firmware {
            Firmware::Uefi { variables } => {
                if !variables.exists() {
                    let empty = tools.root().join("usr/share/OVMF/OVMF_VARS_4M.fd");
                    fs::copy(&empty, variables).with_context(|| format!("Cannot copy {}", empty.display()))?;
                }
                let code = "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd";
                arguments.option("-drive", code);
                let variables = escape(&variables.display().to_string());
                arguments.option("-drive", format!("if=pflash,format=raw,file={variables}"));
                if !parameters.is_empty() {
                    let text = escape(&format!("io.systemd.stub.kernel-cmdline-extra={parameters}"));
                    arguments.option("-smbios", format!("type=11,value={text}"));
                }
            }
            Firmware::Kernel { kernel, initrd, command_line } => {
                arguments.option("-kernel", kernel.display().to_string());
                arguments.option("-initrd", initrd.display().to_string());
                arguments.option("-append", format!("{command_line} {parameters}"));
            }
        }
        Ok(())
    }

    fn network_arguments(&self, arguments: &mut Arguments) {
        match &self.network {
            Network::User { forwards } => {
                let forwards = forwards.iter().map(|(host, guest)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
                arguments.option("-netdev", format!("user,id=net0{}", forwards.collect::<String>()));
                arguments.option("-device", "virtio-net-pci,netdev=net0,romfile=");
            }
            Network::Tap { interface, mac } => {
                arguments.option("-netdev", format!("tap,id=net0,ifname={interface},script=no,downscript=no"));
                arguments.option("-device", format!("virtio-net-pci,netdev=net0,mac={mac},romfile="));
            }
            Network::None => {}
        }
    }
}

impl Drive {
    fn argument(&self, id: &str) -> String {
        let Drive { path, format, read_only } = self;
        let read_only = if *read_only { "on" } else { "off" };
        let path = escape(&path.display().to_string());
        // What the guest wrote reaches the host's cache, and a flush is not handed on to the host's disk: a cut of the
        // guest's power loses nothing more, the host's own power is not what is tested, and on a busy host a flush of
        // etcd's takes 100 ms.
        format!("if=none,id={id},file={path},format={format},readonly={read_only},cache=unsafe,discard=unmap")
    }
}

/// QEMU's arguments under construction.
#[derive(Debug, Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn option(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.0.push(name.into());
        self.0.push(value.into());
        self
    }
}

/// A value in one of QEMU's comma-separated lists.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// The SMBIOS type 11 string that carries a credential (systemd.system-credentials(7)).
fn credential_text(name: &str, value: &[u8]) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(value);
    format!("io.systemd.credential.binary:{name}={encoded}")
}

/// Writes a file that only its owner may ever read.
///
/// # Errors
/// It exists already, or cannot be written.
pub fn secret_file(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("Cannot make {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("Cannot write {}", path.display()))
}

impl Running {
    /// QEMU's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log of the first serial port, the console.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    /// What came out of the second serial port, the report channel.
    #[must_use]
    pub fn report(&self) -> PathBuf {
        self.folder.join("report.jsonl")
    }

    /// How QEMU ended, if it did.
    ///
    /// # Errors
    /// The process cannot be asked.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("Cannot ask how QEMU is")
    }

    /// Presses the power button, as ACPI has it.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn press_power_button(&mut self) -> Result<()> {
        self.tell(r#"{"execute":"system_powerdown"}"#)
    }

    /// Presses the reset button: the machine starts again at once, and what it had not written is lost.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn reset(&mut self) -> Result<()> {
        self.tell(r#"{"execute":"system_reset"}"#)
    }

    /// Waits until QEMU has ended.
    ///
    /// # Errors
    /// It runs on when `patience` has passed; it goes on running.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("The machine still runs after {} s, and was expected to be off", patience.as_secs());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Cuts the power: the process is killed, and what the guest had not flushed is lost.
    ///
    /// # Errors
    /// The process cannot be killed.
    pub fn cut_power(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            self.child.kill().context("Cannot kill QEMU")?;
            self.child.wait().context("Cannot wait for QEMU")?;
        }
        Ok(())
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        let monitor = self.monitor.as_mut().context("QEMU has no monitor")?;
        writeln!(monitor, "{command}").with_context(|| {
            let mut log = String::new();
            let _ = File::open(self.folder.join("qemu.log")).map(|mut file| file.read_to_string(&mut log));
            format!("QEMU ended early: {}", log.trim())
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.cut_power() {
            eprintln!("{error:#}");
        }
        for path in &self.secrets {
            let _ = fs::remove_file(path);
        }
    }
}

/// KVM when a kernel proves within five seconds that it starts there (a device file that opens proves nothing),
/// otherwise emulation. What was found holds until this host starts again.
///
/// # Errors
/// The cache cannot be written, or QEMU does not start.
pub fn probe(cache: &Cache, tools: &Tools, kernel: &Path) -> Result<Accelerator> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("Cannot read this boot's id")?;
    let key = Key::of("kvm probe 1").input("boot", boot).input("tools", tools.key().as_str()).finish();
    let found = cache.entry("kvm", &key, Check::Content, |folder| {
        let works = kernel_starts(tools, kernel, &folder.join("console.log"))?;
        fs::write(folder.join("works"), if works { "yes" } else { "no" }).context("Cannot write the probe's result")
    })?;
    let works = fs::read_to_string(found.join("works")).context("Cannot read the probe's result")? == "yes";
    Ok(if works { Accelerator::Kvm } else { Accelerator::Tcg })
}

/// Whether a kernel under KVM gets as far as missing its root file system.
fn kernel_starts(tools: &Tools, kernel: &Path, console: &Path) -> Result<bool> {
    let mut command = tools.command("qemu-system-x86_64");
    command.args(["-nodefaults", "-no-user-config", "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256"]);
    command.args(["-display", "none", "-no-reboot", "-append", "console=ttyS0 panic=-1", "-serial"]);
    command.arg(format!("file:{}", escape(&console.display().to_string()))).arg("-kernel").arg(kernel);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().context("Cannot start QEMU to probe KVM")?;
    let deadline = Instant::now() + PROBE;
    while child.try_wait().context("Cannot ask how the KVM probe is")?.is_none() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
    // A guest that hangs inside the host's kernel may not die at once; it is not waited for.
    let _ = child.kill();
    let _ = child.try_wait();
    Ok(fs::read(console).is_ok_and(|said| String::from_utf8_lossy(&said).contains(PROOF)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_are_doubled() {
        assert_eq!(escape("a,b"), "a,,b");
    }

    #[test]
    fn a_credential_is_encoded_so_that_any_byte_passes() {
        let text = credential_text("kubeboot.token", b"kb1s,x\n");
        assert_eq!(text, "io.systemd.credential.binary:kubeboot.token=a2Ixcyx4Cg==");
    }
}
