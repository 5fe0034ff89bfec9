//! Where answers go, and programs whose output is an answer.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use serde::Serialize;

use crate::exit::Exit;
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

/// Answers with a value, as JSON.
///
/// # Errors
/// [`Halt::Gone`].
pub fn value(sink: &mut dyn Sink, value: &impl Serialize) -> Result<u8, Halt> {
    sink.part(&serde_json::to_vec(value).expect("plain data"))?;
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

/// Answers with what a program says, redacted line by line, until it ends; at most for [`SESSION`].
///
/// # Errors
/// It can't be started or fails; or nobody wants it any more. Then it is killed.
pub fn program(what: &'static str, program: &Path, arguments: &[String], sink: &mut dyn Sink) -> Result<(), Halt> {
    let failed = |why: String| Trouble::new(Exit::Failure, what, why, "read the journal of kubeboot-agent there.");
    let name = program.display();
    let child = Command::new(program)
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
        let part = parts.recv_timeout(SIGN_OF_LIFE);
        if seen.elapsed() >= SIGN_OF_LIFE || matches!(part, Err(RecvTimeoutError::Timeout)) {
            sink.goes_on()?;
            seen = Instant::now();
        }
        match part {
            Ok(part) => sink.part(&redactor.take(&part))?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if begun.elapsed() >= SESSION {
            return Ok(sink.part(&redactor.end())?);
        }
    }
    sink.part(&redactor.end())?;
    match child.0.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(format!("{name} ended with {status}")).into()),
        Err(error) => Err(failed(format!("{name}: {error}")).into()),
    }
}
