//! What a machine says on a serial line: recorded to a file, and waited for.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A line from a machine, read by a thread of its own until the other end closes.
#[derive(Clone)]
pub struct Transcript {
    shared: Arc<Shared>,
    log: PathBuf,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    bytes: Vec<u8>,
    closed: bool,
}

/// How much is looked at in memory; the file has all of it.
const LIMIT: usize = 16 << 20;

impl Transcript {
    /// Reads `source` to its end in a thread, and keeps everything in `log` too.
    ///
    /// # Errors
    /// The file can't be made, or no thread can be started.
    pub fn record(mut source: impl Read + Send + 'static, log: &Path) -> Result<Self> {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("can't open {}", log.display()))?;
        let state = Mutex::new(State { bytes: Vec::new(), closed: false });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let writer = Arc::clone(&shared);
        let copy = move || {
            let mut buffer = vec![0; 1 << 16];
            // A pseudo-terminal whose other end is gone answers with an error: for us that is its end.
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                // The log is for people; what tests wait for is in memory.
                let _ = file.write_all(&buffer[..count]);
                let mut state = writer.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.bytes.len() < LIMIT {
                    state.bytes.extend_from_slice(&buffer[..count]);
                }
                writer.changed.notify_all();
            }
            writer.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
            writer.changed.notify_all();
        };
        std::thread::Builder::new().name("transcript".into()).spawn(copy).context("can't start a reading thread")?;
        Ok(Self { shared, log: log.to_owned() })
    }

    /// Everything so far, without terminal control sequences and carriage returns.
    #[must_use]
    pub fn text(&self) -> String {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        plain(&state.bytes)
    }

    /// The file that holds everything as it came.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until `find` finds something in the text.
    ///
    /// # Errors
    /// `limit` passed or the line closed first: the message names the condition and ends with the last lines.
    pub fn wait_for<T>(&self, what: &str, limit: Duration, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let end = Instant::now() + limit;
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (seen, closed) = (state.bytes.len(), state.closed);
            let text = plain(&state.bytes);
            drop(state);
            if let Some(found) = find(&text) {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if closed || left.is_zero() {
                let why = if closed { "the machine stopped first".into() } else { format!("in vain for {limit:?}") };
                bail!("waited for {what}: {why}. Last lines:\n{}", last_lines(&text, 12));
            }
            state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.bytes.len() == seen && !state.closed {
                let woken = self.shared.changed.wait_timeout(state, left);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Waits for a text as it stands on the console.
    ///
    /// # Errors
    /// As for [`Transcript::wait_for`].
    pub fn wait_for_text(&self, wanted: &str, limit: Duration) -> Result<()> {
        self.wait_for(&format!("{wanted:?} on the console"), limit, |text| text.contains(wanted).then_some(()))
    }
}

/// The last `count` lines that are not empty.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> String {
    let mut lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).rev().take(count).collect();
    lines.reverse();
    lines.join("\n")
}

/// Text without escape sequences (ECMA-48: CSI, OSC, and two-byte ones) and carriage returns.
#[must_use]
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => match characters.next() {
                Some('[') => while characters.next().is_some_and(|next| !('\u{40}'..='\u{7e}').contains(&next)) {},
                Some(']') => skip_operating_system_command(&mut characters),
                _ => {}
            },
            '\r' | '\0' => {}
            _ => plain.push(character),
        }
    }
    plain
}

/// Skips to the end of an OSC sequence: BEL, or ESC and a backslash.
fn skip_operating_system_command(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(character) = characters.next() {
        if character == '\u{7}' {
            return;
        }
        if character == '\u{1b}' {
            characters.next_if_eq(&'\\');
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_left_out() {
        assert_eq!(plain(b"[\x1b[0;32m  OK  \x1b[0m] a\r\n\x1b]0;title\x07b\x1b]3008;x\x1b\\c\x1b7"), "[  OK  ] a\nbc");
    }

    #[test]
    fn a_text_is_found_and_the_log_holds_everything() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        let transcript = Transcript::record(&b"starting\nready\n"[..], &log).unwrap();
        transcript.wait_for_text("ready", Duration::from_secs(10)).unwrap();
        let error = transcript.wait_for_text("never", Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.contains("\"never\"") && error.contains("the machine stopped first"), "{error}");
        assert!(error.ends_with("starting\nready"), "{error}");
        assert_eq!(std::fs::read(log).unwrap(), b"starting\nready\n");
    }

    #[test]
    fn a_silent_line_ends_the_wait_at_the_deadline() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let transcript = Transcript::record(reader, &folder.path().join("log")).unwrap();
        let error = transcript.wait_for_text("x", Duration::from_millis(20)).unwrap_err().to_string();
        assert!(error.contains("in vain"), "{error}");
    }
}
