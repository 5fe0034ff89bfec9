//! Machines in user-mode Linux: quick, one processor, no firmware, several at once on one network.

use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::machine::network::{GATEWAY, Network};
use crate::machine::{Backend, Machine, Reach, Spec, Start};
use crate::transcript::Transcript;
use crate::wait::{Look, until};
use processor::Processor;

pub mod kernel;
pub mod mconsole;
pub mod processor;

/// User-mode Linux on this host.
pub struct Uml {
    /// The kernel, from [`kernel::program`].
    pub program: PathBuf,
    /// The image's initrd.
    pub initrd: PathBuf,
    /// The image's own kernel command line.
    pub cmdline: String,
}

impl Backend for Uml {
    fn name(&self) -> &'static str {
        "uml"
    }

    fn firmware(&self) -> bool {
        false
    }

    fn keyboard(&self) -> bool {
        true
    }

    fn several(&self) -> bool {
        true
    }

    fn processors(&self) -> usize {
        1
    }

    fn start(&self, spec: &Spec, network: &Network) -> Result<Box<dyn Machine>> {
        ensure!(spec.start == Start::Kernel, "user-mode Linux has no firmware to start {} from", spec.name);
        // A folder with a short name: the path of a socket has at most 108 bytes.
        let sockets = tempfile::tempdir().context("can't make a folder for the control socket")?;
        let processor = Processor::take()?;
        // The machine goes when this process does, however it ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "taskset", "--cpu-list", &processor.number().to_string()])
            .args(["ip", "netns", "exec", network.namespace()])
            .arg(&self.program)
            .args(self.arguments(spec)?);
        if spec.connected {
            let tap = network.tap(spec.number)?;
            let hardware = Network::hardware_address(spec.number);
            command.arg(format!("vec0:transport=tap,ifname={tap},mac={hardware},depth=128"));
        }
        command.arg(format!("uml_dir={}/", sockets.path().display()));
        let shm = PathBuf::from("/dev/shm");
        if shm.is_dir() {
            command.env("TMPDIR", shm);
        }
        // A group of its own: the guest's processes are processes of the host, and all go together.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("can't start {}", self.program.display()))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(keyboard), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            bail!("the pipes of {} are missing", spec.name);
        };
        let console = Transcript::record(stdout, &spec.folder.join("console.log"))?;
        let report = Transcript::record(stderr, &spec.folder.join("report.jsonl"))?;
        let control = sockets.path().join(&spec.name).join("mconsole");
        let url = format!("https://{}:6443", Network::address(spec.number));
        let api = Reach { namespace: Some(network.namespace().to_owned()), url };
        let name = spec.name.clone();
        Ok(Box::new(UmlMachine {
            name,
            child,
            keyboard,
            console,
            report,
            control,
            api,
            _processor: processor,
            _sockets: sockets,
        }))
    }
}

impl Uml {
    /// The words for the kernel: those of user-mode Linux itself, the image's, the network's and the test's.
    fn arguments(&self, spec: &Spec) -> Result<Vec<String>> {
        let mut words = vec![
            "seccomp=on".to_owned(),
            // A reboot ends the process; the test starts it again, maybe with other words.
            "noreboot".to_owned(),
            format!("umid={}", spec.name),
            format!("mem={}M", spec.memory),
            format!("initrd={}", self.initrd.display()),
            "con=null".to_owned(),
            "ssl0=fd:0,fd:1".to_owned(),
            "ssl1=null,fd:2".to_owned(),
        ];
        let volumes = spec.volumes.iter().map(|volume| (&volume.path, if volume.writable { "" } else { "r" }));
        let mut disks: Vec<_> = volumes.collect();
        disks.insert(if spec.volumes_first { disks.len() } else { 0 }, (&spec.disk, ""));
        for (index, (path, mode)) in disks.into_iter().enumerate() {
            words.push(format!("ubd{index}{mode}={}", path.display()));
        }
        words.extend(self.cmdline.split_whitespace().map(str::to_owned));
        // Without a word about it, this kernel adds its first disk; the image has its root behind verity.
        words.push("root=/dev/mapper/root".to_owned());
        if spec.connected {
            let address = Network::address(spec.number);
            words.push(format!("ip={address}::{GATEWAY}:255.255.255.0::vec0:off:{GATEWAY}"));
        }
        for (name, value) in &spec.credentials {
            let value = base64::engine::general_purpose::STANDARD.encode(value);
            words.push(format!("systemd.set_credential_binary={name}:{value}"));
        }
        words.extend(spec.words.iter().cloned());
        // COMMAND_LINE_SIZE of arch/um.
        let length = words.iter().map(|word| word.len() + 1).sum::<usize>();
        ensure!(length < 4096, "the kernel command line of {} is {length} bytes long, more than 4095", spec.name);
        Ok(words)
    }
}

struct UmlMachine {
    name: String,
    child: Child,
    keyboard: ChildStdin,
    console: Transcript,
    report: Transcript,
    control: PathBuf,
    api: Reach,
    /// Given back with the machine.
    _processor: Processor,
    /// Removed with the machine.
    _sockets: TempDir,
}

impl Machine for UmlMachine {
    fn console(&self) -> &Transcript {
        &self.console
    }

    fn report(&self) -> &Transcript {
        &self.report
    }

    fn type_line(&mut self, line: &str) -> Result<()> {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).with_context(|| format!("can't type to {}", self.name))
    }

    fn press_power(&mut self) -> Result<()> {
        mconsole::send(&self.control, "cad").with_context(|| format!("{} does not take Ctrl-Alt-Del", self.name))
    }

    fn wait_stopped(&mut self, limit: Duration) -> Result<()> {
        let (name, child) = (&self.name, &mut self.child);
        until(&format!("{name} to stop"), limit, Duration::from_millis(100), || match child.try_wait() {
            Ok(Some(status)) if status.signal().is_some() => Look::Never(format!("it was ended by {status}")),
            Ok(Some(_)) => Look::Holds(()),
            Ok(None) => Look::NotYet("it runs".into()),
            Err(error) => Look::Never(error.to_string()),
        })
    }

    fn cut_power(&mut self) -> Result<()> {
        let group = Pid::from_raw(i32::try_from(self.child.id()).context("a process id beyond 31 bits")?);
        match killpg(group, Signal::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => bail!("can't cut the power of {}: {error}", self.name),
        }
        self.child.wait().with_context(|| format!("can't wait for {}", self.name))?;
        Ok(())
    }

    fn api(&self) -> Reach {
        self.api.clone()
    }
}

impl Drop for UmlMachine {
    fn drop(&mut self) {
        // It was told to whoever could act on it before.
        let _ = self.cut_power();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Volume;

    fn spec() -> Spec {
        Spec {
            name: "m0".into(),
            number: 0,
            folder: "/f".into(),
            disk: "/f/disk".into(),
            volumes: vec![Volume::read_only("/f/seed".into())],
            volumes_first: false,
            start: Start::Kernel,
            memory: 2048,
            words: vec!["kubeboot.role=init".into()],
            credentials: vec![("kubeboot.role".into(), b"init".to_vec())],
            connected: true,
        }
    }

    fn uml() -> Uml {
        Uml { program: "/linux".into(), initrd: "/initrd".into(), cmdline: "roothash=ab console=ttyS0\n".into() }
    }

    #[test]
    fn the_machine_gets_what_the_specification_says() {
        let words = uml().arguments(&spec()).unwrap().join(" ");
        for part in [
            "mem=2048M initrd=/initrd",
            "ubd0=/f/disk ubd1r=/f/seed",
            "roothash=ab console=ttyS0 root=/dev/mapper/root ip=10.77.0.10::10.77.0.1:255.255.255.0::vec0:off:10.77.0.1",
            "systemd.set_credential_binary=kubeboot.role:aW5pdA== kubeboot.role=init",
        ] {
            assert!(words.contains(part), "{part} in {words}");
        }
    }

    #[test]
    fn volumes_may_come_before_the_disk() {
        let words = uml().arguments(&Spec { volumes_first: true, ..spec() }).unwrap().join(" ");
        assert!(words.contains("ubd0r=/f/seed ubd1=/f/disk"), "{words}");
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        let mut spec = spec();
        spec.words = vec!["x".repeat(4000)];
        assert!(uml().arguments(&spec).unwrap_err().to_string().contains("more than 4095"));
    }
}
