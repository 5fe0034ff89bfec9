//! Where events go: appended to [`paths::EVENTS`], and to a serial device when the setting `report` names one.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::termios::{self, SetArg};

use super::clock;
use super::root::Root;
use crate::paths;
use crate::timeline::{Event, What};

/// How long one line may wait for a device that nobody reads before it is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// An open report: the event file, and the device if there is one.
#[derive(Debug)]
pub struct Report {
    events: Option<File>,
    device: Option<File>,
}

impl Report {
    /// Opens the report as this boot has it. Never fails: a boot must not stop because nobody can be told of it.
    pub fn open(root: &Root) -> Self {
        let events = append(root).inspect_err(|error| eprintln!("kubeboot: can't open {}: {error}", paths::EVENTS));
        let device = std::fs::read_to_string(root.path(paths::REPORT_DEVICE)).ok();
        let device = device.and_then(|name| {
            open_device(root, name.trim())
                .inspect_err(|error| eprintln!("kubeboot: can't report to /dev/{}: {error}", name.trim()))
                .ok()
        });
        Report { events: events.ok(), device }
    }

    /// Names the device (such as `ttyS1`) for this boot, and sends what was recorded before it was known.
    ///
    /// # Errors
    /// A name that is no plain file name, a device that can't be opened or set to raw mode, or an unwritable
    /// `/run/kubeboot`.
    pub fn configure(root: &Root, name: &str) -> io::Result<()> {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(io::Error::new(ErrorKind::InvalidInput, "expected a device name such as ttyS1"));
        }
        let known = root.path(paths::REPORT_DEVICE);
        if std::fs::read_to_string(&known).is_ok_and(|before| before == name) {
            return Ok(());
        }
        let mut device = open_device(root, name)?;
        let mut recorded = Vec::new();
        match File::open(root.path(paths::EVENTS)) {
            Ok(mut file) => _ = file.read_to_end(&mut recorded)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        write_patiently(&mut device, &recorded)?;
        std::fs::write(known, name)
    }

    /// Records that something happens now.
    pub fn emit(&mut self, what: What) {
        self.send(&Event::at(clock::monotonic(), what));
    }

    /// Records what happened at its own time.
    pub fn send(&mut self, event: &Event) {
        let line = event.line() + "\n";
        // One write each, so that lines of several processes never mix (O_APPEND; a tty's write lock).
        if let Some(events) = &mut self.events
            && let Err(error) = events.write_all(line.as_bytes())
        {
            eprintln!("kubeboot: can't append to {}: {error}", paths::EVENTS);
        }
        if let Some(device) = &mut self.device
            && let Err(error) = write_patiently(device, line.as_bytes())
        {
            eprintln!("kubeboot: can't write to the report device: {error}; it gets no more from this process");
            self.device = None;
        }
    }
}

fn append(root: &Root) -> io::Result<File> {
    std::fs::create_dir_all(root.path(paths::RUN))?;
    OpenOptions::new().append(true).create(true).mode(0o644).open(root.path(paths::EVENTS))
}

/// Opens a serial device without becoming its session's leader, in raw mode: a line discipline that echoes or turns
/// newlines into pairs would damage JSON lines.
fn open_device(root: &Root, name: &str) -> io::Result<File> {
    let device = OpenOptions::new()
        .write(true)
        .read(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(root.path("/dev").join(name))?;
    let mut settings = termios::tcgetattr(&device)?;
    termios::cfmakeraw(&mut settings);
    settings.control_flags |= termios::ControlFlags::CLOCAL;
    termios::tcsetattr(&device, SetArg::TCSANOW, &settings)?;
    Ok(device)
}

/// Writes everything, waiting at most [`PATIENCE`] for a device whose buffer is full and does not empty.
pub(super) fn write_patiently(device: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    let mut moved = Instant::now();
    while !bytes.is_empty() {
        match device.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                moved = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && moved.elapsed() < PATIENCE => {
                super::wait::pause_for(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::parse;

    #[test]
    fn events_of_two_processes_end_in_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        Report::open(&root).emit(What::Phase { name: "one".into() });
        Report::open(&root).emit(What::Phase { name: "two".into() });
        let (events, unknown) = parse(&std::fs::read_to_string(root.path(paths::EVENTS)).unwrap());
        let names: Vec<_> = events.into_iter().map(|event| event.what).collect();
        assert_eq!(names, [What::Phase { name: "one".into() }, What::Phase { name: "two".into() }]);
        assert_eq!(unknown, 0);
    }

    #[test]
    fn a_device_name_may_not_leave_dev() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        assert_eq!(Report::configure(&root, "../etc/x").unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_terminal_gets_earlier_and_later_events_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let (mut master, name) = pseudo_terminal();
        std::fs::create_dir_all(folder.path().join("dev")).unwrap();
        std::os::unix::fs::symlink(&name, folder.path().join("dev/ttyS1")).unwrap();
        Report::open(&root).emit(What::Phase { name: "before".into() });
        Report::configure(&root, "ttyS1").unwrap();
        Report::open(&root).emit(What::Phase { name: "after".into() });
        let mut seen = String::new();
        let mut buffer = [0; 512];
        while seen.lines().count() < 2 {
            let count = master.read(&mut buffer).unwrap();
            seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        assert_eq!(seen, std::fs::read_to_string(root.path(paths::EVENTS)).unwrap());
    }

    /// A master and the name of its other end, kept open by the caller's later opens.
    fn pseudo_terminal() -> (nix::pty::PtyMaster, String) {
        use nix::fcntl::OFlag;
        let master = nix::pty::posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
        nix::pty::grantpt(&master).unwrap();
        nix::pty::unlockpt(&master).unwrap();
        let name = nix::pty::ptsname_r(&master).unwrap();
        (master, name)
    }
}
