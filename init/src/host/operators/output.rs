//! Where answers go, and programs whose output is an answer.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::exit::Exit;
use crate::host::files;
use crate::operators::redact::Redactor;
use crate::operators::{SESSION, SIGN_OF_LIFE, Trouble};

/// Bytes that are read of a program at once.
const CHUNK: usize = 16 << 10;

/// Where an answer goes.
pub trait Sink {
    /// Takes a part of it.
    ///
    /// # Errors
    /// [`Halt::Gone`].
    fn part(&mut self, bytes: &[u8]) -> Result<(), Halt>;
    /// Hears that the work goes on, and says whether it should.
    ///
    /// # Errors
    /// [`Halt::Gone`].
    fn goes_on(&mut self) -> Result<(), Halt>;
}

/// Why an answer ends early.
#[derive(Debug)]
pub enum Halt {
    /// It can't be done.
    Trouble(Trouble),
    /// Nobody wants it any more.
    Gone,
}

impl From<Trouble> for Halt {
    fn from(trouble: Trouble) -> Self {
        Halt::Trouble(trouble)
    }
}

/// An answer that is kept whole.
impl Sink for Vec<u8> {
    fn part(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn goes_on(&mut self) -> Result<(), Halt> {
        Ok(())
    }
}

/// Bytes of a line at most.
const LINE: usize = 64 << 10;

/// An answer that is taken line by line.
pub struct Lines<F> {
    each: F,
    rest: Vec<u8>,
}

impl<F: FnMut(&str) -> io::Result<()>> Lines<F> {
    /// Each line goes to `each`, without its end.
    pub fn new(each: F) -> Self {
        Lines { each, rest: Vec::new() }
    }
}

impl<F: FnMut(&str) -> io::Result<()>> Sink for Lines<F> {
    fn part(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            (self.each)(&String::from_utf8_lossy(&line[..end])).map_err(|_| Halt::Gone)?;
        }
        if self.rest.len() > LINE { Err(Halt::Gone) } else { Ok(()) }
    }

    fn goes_on(&mut self) -> Result<(), Halt> {
        Ok(())
    }
}

/// An answer that is written as it comes: to standard output, or to a file that is there only when it is whole.
pub struct Printed {
    to: Box<dyn Write>,
    file: Option<(PathBuf, PathBuf)>,
}

impl Printed {
    /// To standard output.
    pub fn stdout() -> Self {
        Printed { to: Box::new(std::io::stdout()), file: None }
    }

    /// To a new file beside the one that it becomes, mode 0600.
    ///
    /// # Errors
    /// It can't be made.
    pub fn file(path: &Path) -> io::Result<Self> {
        let temporary = files::temporary_beside(path)?;
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        Ok(Printed { to: Box::new(file), file: Some((temporary, path.to_owned())) })
    }

    /// It is whole: the file takes its name.
    ///
    /// # Errors
    /// It can't be written or renamed.
    pub fn keep(mut self) -> io::Result<()> {
        self.to.flush()?;
        match self.file.take() {
            Some((temporary, path)) => std::fs::rename(temporary, path),
            None => Ok(()),
        }
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.file {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

impl Sink for Printed {
    fn part(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        self.to.write_all(bytes).and_then(|()| self.to.flush()).map_err(|_| Halt::Gone)
    }

    fn goes_on(&mut self) -> Result<(), Halt> {
        Ok(())
    }
}

/// A text that another machine sends, without what would drive the terminal that it is printed to: a node that was broken
/// into says what it likes. Line feeds and tabs pass; of other control characters a `?` is left.
pub struct Plain<S> {
    to: S,
    /// The beginning of a character whose end comes with the next part.
    rest: Vec<u8>,
}

impl<S: Sink> Plain<S> {
    /// What is left goes to `to`.
    pub fn new(to: S) -> Self {
        Plain { to, rest: Vec::new() }
    }
}

impl<S: Sink> Sink for Plain<S> {
    fn part(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        let mut whole = std::mem::take(&mut self.rest);
        whole.extend_from_slice(bytes);
        let mut plain = String::with_capacity(whole.len());
        let mut left = whole.len();
        for chunk in whole.utf8_chunks() {
            left -= chunk.valid().len() + chunk.invalid().len();
            plain.extend(chunk.valid().chars().map(|c| if c.is_control() && !"\n\t".contains(c) { '?' } else { c }));
            let unfinished = std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
            match chunk.invalid() {
                [] => {}
                begun if left == 0 && unfinished => self.rest = begun.to_vec(),
                _ => plain.push(char::REPLACEMENT_CHARACTER),
            }
        }
        self.to.part(plain.as_bytes())
    }

    fn goes_on(&mut self) -> Result<(), Halt> {
        self.to.goes_on()
    }
}

/// Answers with a value, as JSON.
///
/// # Errors
/// [`Halt::Gone`].
pub fn value(sink: &mut dyn Sink, value: &impl Serialize) -> Result<u8, Halt> {
    sink.part(&serde_json::to_vec(value).expect("plain data"))?;
    Ok(Exit::Success.code())
}

/// Programs whose output is an answer.
#[derive(Debug, Clone)]
pub struct Programs {
    /// kubeboot itself.
    pub kubeboot: PathBuf,
    /// systemd's journalctl(1), and its first arguments.
    pub journalctl: Vec<String>,
    /// How often who waits for them hears that they run.
    pub sign_of_life: Duration,
}

impl Default for Programs {
    fn default() -> Self {
        let kubeboot = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("kubeboot"));
        Programs { kubeboot, journalctl: vec!["journalctl".to_owned()], sign_of_life: SIGN_OF_LIFE }
    }
}

/// Answers with the last lines of the journal.
///
/// # Errors
/// As [`program`].
pub fn logs(
    programs: &Programs,
    unit: Option<&str>,
    follow: bool,
    lines: u32,
    sink: &mut dyn Sink,
) -> Result<u8, Halt> {
    let mut arguments = vec!["--no-pager".to_owned(), "--quiet".to_owned(), "--output=short-iso".to_owned()];
    arguments.push(format!("--lines={lines}"));
    arguments.extend(unit.map(|unit| format!("--unit={unit}")));
    arguments.extend(follow.then(|| "--follow".to_owned()));
    program("The logs can't be shown", &programs.journalctl, &arguments, programs.sign_of_life, sink)?;
    Ok(Exit::Success.code())
}

/// A program that ends with whoever reads it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers with what a program says, redacted line by line, until it ends; at most for [`SESSION`]. The sink is asked every
/// `sign_of_life` whether it should go on.
///
/// # Errors
/// It can't be started or fails; or nobody wants it any more. Then it is killed.
pub fn program(
    what: &'static str,
    program: &[String],
    arguments: &[String],
    sign_of_life: Duration,
    sink: &mut dyn Sink,
) -> Result<(), Halt> {
    let failed = |why: String| Trouble::new(Exit::Failure, what, why, "read the journal of kubeboot-agent there.");
    let (name, first) = program.split_first().ok_or_else(|| failed("no program is known for it".to_owned()))?;
    let child = Command::new(name)
        .args(first)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(format!("{name} could not be started: {error}")))?;
    let mut child = Running(child);
    let mut pipe = child.0.stdout.take().expect("it was asked for");
    // Bounded, so that a slow reader slows the program and not this machine.
    let (read, parts) = mpsc::sync_channel::<Vec<u8>>(2);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if read.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let (begun, mut seen) = (Instant::now(), Instant::now());
    let mut redactor = Redactor::default();
    loop {
        let part = parts.recv_timeout(sign_of_life);
        if seen.elapsed() >= sign_of_life || matches!(part, Err(RecvTimeoutError::Timeout)) {
            sink.goes_on()?;
            seen = Instant::now();
        }
        match part {
            Ok(part) => sink.part(&redactor.take(&part))?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if begun.elapsed() >= SESSION {
            return sink.part(&redactor.end());
        }
    }
    sink.part(&redactor.end())?;
    match child.0.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(format!("{name} ended with {status}")).into()),
        Err(error) => Err(failed(format!("{name}: {error}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what it gets for who looks afterwards.
    struct Kept<'a>(&'a mut Vec<u8>);

    impl Sink for Kept<'_> {
        fn part(&mut self, bytes: &[u8]) -> Result<(), Halt> {
            self.0.part(bytes)
        }

        fn goes_on(&mut self) -> Result<(), Halt> {
            Ok(())
        }
    }

    fn plain(text: &[u8], size: usize) -> String {
        let mut kept = Vec::new();
        let mut sink = Plain::new(Kept(&mut kept));
        text.chunks(size).for_each(|part| sink.part(part).unwrap());
        String::from_utf8(kept).unwrap()
    }

    #[test]
    fn what_another_machine_says_drives_no_terminal_however_it_is_cut() {
        let text = "a\tb\u{1b}]0;title\u{7}\u{9b}31m\r\n\u{e9}\u{20ac}\u{1f600}\u{7f}\n".as_bytes();
        for size in 1..=text.len() {
            assert_eq!(plain(text, size), "a\tb?]0;title??31m?\n\u{e9}\u{20ac}\u{1f600}?\n", "{size}");
        }
        for size in 1..=3 {
            assert_eq!(plain(b"\xc2\x1b\x9b\xffx", size), "\u{fffd}?\u{fffd}\u{fffd}x", "{size}");
        }
    }
}
