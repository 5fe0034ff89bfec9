//! Running the few programs that kubeboot leaves work to, each with a deadline and bounded output.

use std::fmt;
use std::io::{self, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Most that is kept of each of a program's outputs, in bytes.
const KEPT: u64 = 4 << 20;

/// What a program said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, as text.
    pub stdout: String,
    /// Its standard error, as text.
    pub stderr: String,
}

/// Why a program did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// It could not be started.
    Start(String, io::Error),
    /// It ended with a status that means failure; the text is the end of what it said.
    Status(String, ExitStatus, String),
    /// It took longer than it may and was killed.
    TimedOut(String, Duration),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Start(program, error) => write!(f, "{program} could not be started: {error}"),
            Failure::Status(program, status, said) => write!(f, "{program} ended with {status}: {said}"),
            Failure::TimedOut(program, limit) => {
                write!(f, "{program} did not end within {:.0} s and was killed", limit.as_secs_f64())
            }
        }
    }
}

impl std::error::Error for Failure {}

/// Runs a program to its end, whatever its status. It gets no standard input.
///
/// # Errors
/// [`Failure::Start`] and [`Failure::TimedOut`].
pub fn output(program: &str, arguments: &[&str], limit: Duration) -> Result<Output, Failure> {
    let start = |error| Failure::Start(program.to_owned(), error);
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    // Readers of their own, so that a program that fills one pipe can't hang while the other is read.
    let stdout = child.stdout.take().map(|pipe| std::thread::spawn(move || drain(pipe)));
    let stderr = child.stderr.take().map(|pipe| std::thread::spawn(move || drain(pipe)));
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(start)? {
            break status;
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::TimedOut(program.to_owned(), limit));
        }
        super::wait::pause_for(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let text = |reader: Option<std::thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    Ok(Output { status, stdout: text(stdout), stderr: text(stderr) })
}

/// Runs a program that has to succeed, and gives its standard output.
///
/// # Errors
/// Those of [`output`], and [`Failure::Status`] with the end of what the program said.
pub fn run(program: &str, arguments: &[&str], limit: Duration) -> Result<String, Failure> {
    let done = output(program, arguments, limit)?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let said = if done.stderr.trim().is_empty() { &done.stdout } else { &done.stderr };
    let lines: Vec<&str> = said.trim().lines().collect();
    let last = lines[lines.len().saturating_sub(5)..].join("; ");
    Err(Failure::Status(program.to_owned(), done.status, last))
}

/// Reads to the end, keeping the first [`KEPT`] bytes.
fn drain(mut pipe: impl Read) -> String {
    let mut kept = Vec::new();
    let _ = pipe.by_ref().take(KEPT).read_to_end(&mut kept);
    let _ = io::copy(&mut pipe, &mut io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_says_why() {
        let error = run("sh", &["-c", "echo broken >&2; exit 3"], Duration::from_secs(10)).unwrap_err();
        assert_eq!(error.to_string(), "sh ended with exit status: 3: broken");
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let error = run("sleep", &["60"], Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, Failure::TimedOut(..)), "{error}");
    }

    #[test]
    fn much_output_does_not_block() {
        let text = run("sh", &["-c", "head -c 300000 /dev/zero | tr '\\0' x"], Duration::from_secs(10)).unwrap();
        assert_eq!(text.len(), 300_000);
    }
}
