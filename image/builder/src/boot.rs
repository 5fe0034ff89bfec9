//! `image/boot`: builds what is missing, starts one machine, waits until its node is Ready, and says how to use it.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kubeboot::kubernetes::kubeconfig;
use kubeboot::settings::validate;
use kubeboot::sources::{self, Gathered};
use kubeboot::timeline::{Outcome, What};
use kubeboot::words::{Paint, bad_settings};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cache::Cache;
use crate::image::Image;
use crate::operator::Operator;
use crate::progress::Progress;
use crate::qemu::{Accelerator, Drive, Firmware, Machine, Network, Running, probe, secret_file};
use crate::report::Follower;
use crate::tools::Tools;

/// The disk's size once it is a machine's, in bytes. Sparse.
const DISK: u64 = 20 << 30;
/// How often the report is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a machine may take to switch itself off.
const POWER_OFF: Duration = Duration::from_secs(120);
/// How long a machine that failed may take for the same.
const LAST_WISH: Duration = Duration::from_secs(30);
/// How many of the console's last lines a failure shows.
const TAIL: usize = 30;
/// Parameters that are secret: they travel as systemd credentials, because `/proc/cmdline` is everybody's.
const SECRET: &[&str] = &["kubeboot.token"];

/// How to boot.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Switch the machine off once its node is Ready
    #[arg(long)]
    pub once: bool,
    /// Keep the machine's folder: disk, logs, kubeconfig
    #[arg(long)]
    pub keep: bool,
    /// Write a summary to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// What runs the machine's instructions; chosen by a probe unless given
    #[arg(long, value_name = "KIND")]
    pub accel: Option<Accelerator>,
    /// Memory in MiB
    #[arg(long, default_value_t = 4096, value_name = "MIB")]
    pub memory: u32,
    /// Processors
    #[arg(long, default_value_t = 2, value_name = "COUNT")]
    pub cpus: u32,
    /// How long the node may take to become Ready, in seconds
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    pub timeout: u64,
    /// Boot the kernel without firmware and boot loader
    #[arg(long)]
    pub direct: bool,
    /// Parameters for the machine, such as kubeboot.role=init
    #[arg(value_name = "KEY=VALUE")]
    pub parameters: Vec<String>,
}

/// What `--json` writes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    ready: bool,
    accelerator: Accelerator,
    /// Seconds from the start of QEMU to the event that says Ready.
    seconds_to_ready: Option<f64>,
    /// The machine's own clock at that event: seconds since its kernel started.
    seconds_since_kernel: Option<f64>,
    steps: Vec<Timed>,
    node: Option<String>,
    cluster: Option<String>,
    server: String,
    kubeconfig: Option<PathBuf>,
    folder: PathBuf,
    error: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Timed {
    what: String,
    seconds: f64,
}

impl Summary {
    /// How waiting ended, for a machine that was started then.
    fn take(&mut self, ended: &Result<End>, started: Instant) {
        match ended {
            Ok(End::Ready { node, cluster, since_kernel }) => {
                self.ready = true;
                self.seconds_to_ready = Some(started.elapsed().as_secs_f64());
                self.seconds_since_kernel = Some(*since_kernel);
                (self.node, self.cluster) = (Some(node.clone()), Some(cluster.clone()));
            }
            Ok(End::Interrupted) => self.error = Some("interrupted".into()),
            Err(error) => self.error = Some(format!("{error:#}")),
        }
    }
}

/// How waiting ended.
enum End {
    /// The node is Ready.
    Ready { node: String, cluster: String, since_kernel: f64 },
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

/// Boots `image` and waits as the options say. `kubectl` is a program that is kubectl when it is called so.
///
/// # Errors
/// The machine ended, failed or took too long: the error has its last error and the end of its console.
pub fn boot(
    cache: &Cache,
    tools: &Tools,
    image: &Image,
    options: &Options,
    kubectl: Option<&Path>,
    mut progress: Progress,
) -> Result<()> {
    let interrupts = interrupts()?;
    let folder = make_folder(cache)?;
    let accelerator = match options.accel {
        Some(given) => given,
        None => probe(cache, tools, &image.kernel())?,
    };
    if let Some(program) = kubectl {
        let link = folder.join("kubectl");
        symlink(program, &link).with_context(|| format!("Cannot make the link {}", link.display()))?;
    }
    let operator = Operator::generate()?;
    secret_file(&folder.join("operator.pem"), &operator.private_pem())?;
    let port = free_port()?;
    let machine = machine(image, options, &folder, accelerator, port, &operator)?;
    progress.done(&format!("machine laid out ({accelerator:?}, {} MiB, {} CPUs)", options.memory, options.cpus));
    let started = Instant::now();
    let mut running = machine.start(tools)?;
    eprintln!("       console: {} (to type on it: screen {}/console)", running.console().display(), folder.display());
    let server = format!("https://127.0.0.1:{port}");
    let mut wait = Wait { follower: Follower::new(&running.report()), last_error: None, kubeconfig: None };
    let deadline = started + Duration::from_secs(options.timeout);
    let ended = wait.until_ready(&mut running, &operator, &server, deadline, &interrupts);
    let mut summary = Summary {
        ready: false,
        accelerator,
        seconds_to_ready: None,
        seconds_since_kernel: None,
        steps: progress.steps().iter().map(|(what, seconds)| Timed { what: what.clone(), seconds: *seconds }).collect(),
        node: None,
        cluster: None,
        server,
        kubeconfig: wait.kubeconfig.clone(),
        folder: folder.clone(),
        error: None,
    };
    summary.take(&ended, started);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&summary).context("Cannot write the summary")?;
        fs::write(path, text + "\n").with_context(|| format!("Cannot write {}", path.display()))?;
    }
    let result = finish(ended, &mut running, options, &summary, &interrupts);
    drop(running);
    if options.keep || result.is_err() {
        eprintln!("       kept: {}", folder.display());
    } else {
        fs::remove_dir_all(&folder).with_context(|| format!("Cannot remove {}", folder.display()))?;
    }
    result
}

fn finish(
    ended: Result<End>,
    running: &mut Running,
    options: &Options,
    summary: &Summary,
    interrupts: &SignalFd,
) -> Result<()> {
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => {
            // Off in order if it can, so that the kept disk has its whole journal.
            if running.press_power_button().is_ok() {
                let _ = running.wait(LAST_WISH);
            }
            let console = tail(&running.console());
            return Err(error.context(format!("The machine did not become Ready. The end of its console:\n{console}")));
        }
    };
    if let End::Ready { node, .. } = &ended {
        eprintln!("[done] node {node} is Ready ({:.1} s)", summary.seconds_to_ready.unwrap_or_default());
        if !options.once {
            say_how_to_use(summary, running);
            wait_for_the_end(running, interrupts)?;
        }
    }
    if running.ended()?.is_none() {
        running.press_power_button()?;
        running.wait(POWER_OFF)?;
        eprintln!("[done] machine switched off");
    }
    match ended {
        End::Ready { .. } => Ok(()),
        End::Interrupted => bail!("Interrupted before the node was Ready"),
    }
}

fn say_how_to_use(summary: &Summary, running: &Running) {
    if let Some(kubeconfig) = &summary.kubeconfig {
        let kubectl = summary.folder.join("kubectl");
        let kubectl = if kubectl.is_file() { kubectl } else { PathBuf::from("kubectl") };
        println!("\nUse the cluster:  export KUBECONFIG={}", kubeconfig.display());
        println!("                  {} get pods -A", kubectl.display());
    }
    println!("Watch it:         tail -f {}", running.console().display());
    println!("Stop it:          Ctrl-C, or kill {}\n", std::process::id());
}

/// Until the machine switches itself off, or Ctrl-C.
fn wait_for_the_end(running: &mut Running, interrupts: &SignalFd) -> Result<()> {
    while running.ended()?.is_none() {
        if interrupts.read_signal().context("Cannot wait for Ctrl-C")?.is_some() {
            eprintln!("       switching the machine off");
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// What is being waited for, and what was seen on the way.
struct Wait {
    follower: Follower,
    last_error: Option<String>,
    kubeconfig: Option<PathBuf>,
}

impl Wait {
    fn until_ready(
        &mut self,
        running: &mut Running,
        operator: &Operator,
        server: &str,
        deadline: Instant,
        interrupts: &SignalFd,
    ) -> Result<End> {
        let mut ready = None;
        // A worker has no API server, and no authority that could sign for an operator.
        let mut worker = false;
        loop {
            let ended = running.ended()?;
            for event in self.follower.poll()? {
                match event.what {
                    What::Operator { certificate, ca, .. } => {
                        self.kubeconfig = Some(write_kubeconfig(running, operator, server, &certificate, &ca)?);
                    }
                    What::Ready { node, cluster, server, .. } => {
                        worker = server == kubeconfig::BALANCER;
                        ready = Some(End::Ready { node, cluster, since_kernel: event.t });
                    }
                    What::Error { command, message } => {
                        eprintln!("[fail] kubeboot {command}: {message}");
                        self.last_error = Some(format!("kubeboot {command}: {message}"));
                        if matches!(command.as_str(), "etc" | "slot" | "boot") {
                            bail!("{}", self.last_words());
                        }
                    }
                    what => say(event.t, &what),
                }
            }
            match (ready.take(), &self.kubeconfig) {
                (Some(end), Some(_)) => return Ok(end),
                (Some(end), None) if worker => return Ok(end),
                (still, _) => ready = still,
            }
            if let Some(status) = ended {
                bail!("QEMU ended with {status}. {}", self.last_words());
            }
            if Instant::now() > deadline {
                let lacking = if ready.is_some() { "the operator's certificate" } else { "the event that says Ready" };
                bail!("The deadline passed while waiting for {lacking}. {}", self.last_words());
            }
            if interrupts.read_signal().context("Cannot wait for Ctrl-C")?.is_some() {
                return Ok(End::Interrupted);
            }
            std::thread::sleep(LOOK);
        }
    }

    fn last_words(&self) -> String {
        match &self.last_error {
            Some(error) => format!("The machine's last error: {error}"),
            None => "The machine reported no error".into(),
        }
    }
}

/// One line for an event, in the words of the machine's own console.
fn say(t: f64, what: &What) {
    match what {
        What::Seat { slot, version, why } => eprintln!("{t:7.1} [done] release {version} from slot {slot}: {why}"),
        What::Step { step, outcome, seconds } => {
            let outcome = match outcome {
                Outcome::Done => "done",
                Outcome::Skipped => "skip",
                Outcome::Failed => "fail",
            };
            eprintln!("{t:7.1} [{outcome}] {step} ({seconds:.2} s)");
        }
        What::Phase { name } => eprintln!("{t:7.1} {name}"),
        What::Gate { gate, pass, observed } => {
            eprintln!("{t:7.1} gate {gate}: {} ({observed})", if *pass { "passes" } else { "waits" });
        }
        _ => {}
    }
}

fn write_kubeconfig(
    running: &Running,
    operator: &Operator,
    server: &str,
    certificate: &str,
    ca: &str,
) -> Result<PathBuf> {
    let path = running.console().with_file_name("kubeconfig");
    let _ = fs::remove_file(&path);
    secret_file(&path, &operator.kubeconfig(server, ca, certificate))?;
    Ok(path)
}

fn machine(
    image: &Image,
    options: &Options,
    folder: &Path,
    accelerator: Accelerator,
    port: u16,
    operator: &Operator,
) -> Result<Machine> {
    let disk = folder.join("disk.raw");
    copy_disk(&image.disk(), &disk)?;
    let firmware = if options.direct {
        Firmware::Kernel { kernel: image.kernel(), initrd: image.initrd(), command_line: image.command_line()? }
    } else {
        Firmware::Uefi { variables: folder.join("variables.fd") }
    };
    let (secret, open) = split_parameters(&options.parameters)?;
    let mut parameters = vec!["kubeboot.report=ttyS1".to_owned()];
    parameters.push(format!("kubeboot.operator=\"{}\"", operator.public_key()));
    parameters.extend(open);
    Ok(Machine {
        disk: Drive { path: disk, format: "raw", read_only: false },
        firmware,
        accelerator,
        memory: options.memory,
        cpus: options.cpus,
        parameters,
        credentials: secret,
        network: Network::User { forwards: vec![(port, 6443)] },
        volumes: Vec::new(),
        folder: folder.to_path_buf(),
        terminal: true,
        extra: Vec::new(),
    })
}

/// Judges the parameters as the machine will, so that a mistake is told before there is one.
///
/// # Errors
/// What is wrong with them, with the fix for each.
pub fn judge(parameters: &[String]) -> Result<()> {
    let (secret, open) = split_parameters(parameters)?;
    let credentials = secret.into_iter().map(|(name, value)| (name, Zeroizing::new(value))).collect();
    let command_line = Zeroizing::new(open.join(" ").into_bytes());
    match validate(sources::parse(&Gathered { credentials, command_line, ..Gathered::default() })) {
        Ok(_) => Ok(()),
        Err(problems) => bail!("{}", bad_settings(&problems).text(Paint::Plain).trim_end()),
    }
}

/// Credentials by name, and parameters for the kernel command line.
type Split = (Vec<(String, Vec<u8>)>, Vec<String>);

/// Secret parameters as credentials, the others as they are.
fn split_parameters(parameters: &[String]) -> Result<Split> {
    let (mut secret, mut open) = (Vec::new(), Vec::new());
    for parameter in parameters {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if key.is_empty() || key.contains(char::is_whitespace) {
            bail!("{parameter:?} is no parameter. Expected KEY=VALUE, such as kubeboot.role=init");
        }
        if SECRET.contains(&key) {
            secret.push((key.to_owned(), value.as_bytes().to_vec()));
        } else if value.contains(char::is_whitespace) && !value.starts_with('"') {
            open.push(format!("{key}=\"{value}\""));
        } else {
            open.push(parameter.clone());
        }
    }
    Ok((secret, open))
}

/// Copies a sparse disk, and grows it to a machine's size.
///
/// # Errors
/// `cp` fails, or the file cannot be grown.
pub fn copy_disk(from: &Path, to: &Path) -> Result<()> {
    let mut copy = std::process::Command::new("cp");
    copy.args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to);
    crate::command::run(&mut copy, "copy the image's disk")?;
    let disk = File::options().write(true).open(to).with_context(|| format!("Cannot open {}", to.display()))?;
    disk.set_len(DISK).with_context(|| format!("Cannot grow {}", to.display()))
}

/// A new folder below the cache, for one machine.
fn make_folder(cache: &Cache) -> Result<PathBuf> {
    let parent = cache.root().join("machines");
    fs::create_dir_all(&parent).with_context(|| format!("Cannot make {}", parent.display()))?;
    for number in 0..1000 {
        let folder = parent.join(format!("{}-{number}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("Cannot make {}", folder.display())),
        }
    }
    bail!("{} is full of machines. Fix: remove it", parent.display())
}

/// A port of 127.0.0.1 that nothing listens on now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("Cannot find a free port")?;
    Ok(listener.local_addr().context("Cannot find a free port")?.port())
}

/// Ctrl-C and the like, to be read instead of dying of them.
fn interrupts() -> Result<SignalFd> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("Cannot block signals")?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("Cannot wait for signals")
}

/// The last lines of a console log, indented.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].iter().map(|line| format!("  | {}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_travels_as_a_credential() {
        let given = ["kubeboot.role=init", "kubeboot.token=kb1s-x", "kubeboot.name=a b", "debug"].map(str::to_owned);
        let (secret, open) = split_parameters(&given).unwrap();
        assert_eq!(secret, [("kubeboot.token".to_owned(), b"kb1s-x".to_vec())]);
        assert_eq!(open, ["kubeboot.role=init", "kubeboot.name=\"a b\"", "debug"]);
    }

    #[test]
    fn a_parameter_that_the_machine_would_refuse_starts_none() {
        let judged = |parameter: &str| judge(&[parameter.to_owned()]).map_err(|error| error.to_string());
        for good in
            ["kubeboot.role=init", "kubeboot.role=worker", "kubeboot.reset=00112233", "debug", "kubeboot.name=a-b"]
        {
            assert_eq!(judged(good), Ok(()), "{good}");
        }
        for (bad, fix) in
            [("kubeboot.rol=init", "write kubeboot.role"), ("kubeboot.role=inti", "correct or remove kubeboot.role")]
        {
            assert!(judged(bad).unwrap_err().contains(fix), "{bad}");
        }
    }

    #[test]
    fn a_parameter_without_a_key_is_refused() {
        assert!(split_parameters(&["=x".to_owned()]).unwrap_err().to_string().contains("Expected KEY=VALUE"));
    }
}
