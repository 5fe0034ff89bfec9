//! What a boot says: to the console, the journal and the report channel, and to whoever asks later.

use std::time::Duration;

use serde_json::{Value, json};

use crate::exit::{Exit, TRIED_AGAIN_AFTER};
use crate::host::console::Console;
use crate::host::report::Report;
use crate::host::root::Root;
use crate::host::{clock, files, systemd};
use crate::paths;
use crate::plan::Damaged;
use crate::sources::reset;
use crate::timeline::{Event, Outcome, What};
use crate::words::{self, Block, Paint};

/// Why a command ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// How it ends.
    pub exit: Exit,
    /// What is said.
    pub block: Block,
}

impl Stop {
    /// For programs, and for `kubeboot status` later.
    pub fn json(&self, command: &str) -> Value {
        let Block { what, why, state, fix } = &self.block;
        json!({"command": command, "exit": self.exit.code(), "what": what, "why": why, "state": state, "fix": fix})
    }

    /// Something that can't be made again is missing or damaged, or by this clock not valid yet.
    pub fn damaged(why: &Damaged) -> Self {
        let (exit, what) = match why {
            // A clock is set, by a time server perhaps a moment later: the boot is tried again.
            Damaged::Clock { .. } => (Exit::Preflight, "This machine's clock is behind its cluster's certificates"),
            _ => (Exit::Damaged, "Something that this node needs is damaged"),
        };
        Stop {
            exit,
            block: Block {
                what: what.to_owned(),
                why: vec![why.to_string()],
                state: "Nothing was changed.".to_owned(),
                fix: why.fix(),
            },
        }
    }
}

/// A fix that is a reset, with the way to it where nobody can log in.
fn advised(root: &Root, block: &Block) -> Block {
    let mut block = block.clone();
    if block.fix.last().is_some_and(|last| last.ends_with("kubeboot reset")) {
        block.fix.extend(super::super::reset::id(root).map(|id| reset::fix(&id)));
    }
    block
}

/// Everyone who is told.
pub struct Told {
    command: &'static str,
    console: Option<Console>,
    report: Option<Report>,
    /// Lines that wait until there is nothing more urgent to do: a serial console takes its time.
    waiting: Vec<(String, Outcome, Duration)>,
    /// The error that the attempt before this one ended with, until this one has come to anything else.
    before: Option<Value>,
    /// Events that wait as long.
    held: Vec<Event>,
}

impl Told {
    /// Opens console and report. Never fails.
    pub fn open(root: &Root, command: &'static str) -> Self {
        let (console, report) = (Some(Console::open(root)), Some(Report::open(root)));
        Told { command, console, report, waiting: Vec::new(), before: None, held: Vec::new() }
    }

    /// [`Told::open`] for a command that is tried again until it succeeds: after a failure everything waits until it is
    /// known that something is other than it was. The journal gets all of it.
    pub fn open_again(root: &Root, command: &'static str) -> Self {
        let mut told = Told::open(root, command);
        told.before = last_error(root);
        if told.before.is_some()
            && let Some(console) = &mut told.console
        {
            console.hold();
        }
        told
    }

    /// For commands that look and change nothing: nobody hears.
    pub fn nobody(command: &'static str) -> Self {
        Told { command, console: None, report: None, waiting: Vec::new(), before: None, held: Vec::new() }
    }

    /// Opens the report again, after its device was named.
    pub fn reopen_report(&mut self, root: &Root) {
        self.report = Some(Report::open(root));
    }

    /// A step that has ended. Its event goes out at once, its line at the next [`Told::flush`].
    pub fn step(&mut self, step: &str, outcome: Outcome, took: Duration) {
        let seconds = (took.as_secs_f64() * 1e6).round() / 1e6;
        self.emit(What::Step { step: step.to_owned(), outcome, seconds });
        self.waiting.push((step.to_owned(), outcome, took));
    }

    /// Does something as a step; what it may fail of is told elsewhere.
    pub fn timed<T>(&mut self, step: &str, action: impl FnOnce() -> T) -> T {
        let start = clock::monotonic();
        let result = action();
        self.step(step, Outcome::Done, clock::monotonic().saturating_sub(start));
        result
    }

    /// Shows the lines that wait.
    pub fn flush(&mut self) {
        let lines = std::mem::take(&mut self.waiting);
        if !lines.is_empty() {
            let line = |(what, outcome, took): &(String, Outcome, Duration), paint| {
                words::step(*outcome, what, *took, paint) + "\n"
            };
            self.show(|paint| lines.iter().map(|one| line(one, paint)).collect());
        }
    }

    /// Something worth attention.
    pub fn note(&mut self, text: &str) {
        self.say(|paint| words::note(text, paint));
    }

    /// A text for people.
    pub fn say(&mut self, text: impl Fn(Paint) -> String) {
        self.flush();
        self.show(text);
    }

    fn show(&mut self, text: impl Fn(Paint) -> String) {
        if let Some(console) = &mut self.console {
            console.say(text);
        }
    }

    /// Something has come of this attempt: what waits is told, and everything later at once.
    pub fn release(&mut self) {
        self.before = None;
        self.flush();
        if let Some(console) = &mut self.console {
            console.release();
        }
        for event in std::mem::take(&mut self.held) {
            self.send(event);
        }
    }

    /// A secret: to the console only.
    pub fn secret(&mut self, text: impl Fn(Paint) -> zeroize::Zeroizing<String>) {
        self.release();
        if let Some(console) = &mut self.console {
            console.say_secret(text);
        }
    }

    /// An event.
    pub fn emit(&mut self, what: What) {
        let event = Event::at(clock::monotonic(), what);
        if self.before.is_some() {
            self.held.push(event);
        } else {
            self.send(event);
        }
    }

    fn send(&mut self, event: Event) {
        if let Some(report) = &mut self.report {
            report.send(&event);
        }
    }

    /// Says why the command ends, everywhere: console, journal, report, `systemctl status`, `kubeboot status`. What the
    /// attempt before has said already is not said again on the console and in the report.
    pub fn stop(&mut self, root: &Root, stop: &Stop) -> Exit {
        let mut block = advised(root, &stop.block);
        if self.command == "boot" && stop.exit.is_tried_again() {
            block.state += &format!(" It is tried again every {TRIED_AGAIN_AFTER} s.");
        }
        let kept = Stop { exit: stop.exit, block: block.clone() }.json(self.command);
        let before = self.before.as_ref().map(Value::to_string);
        if before.is_some_and(|before| words::same_but_for_figures(&before, &kept.to_string())) {
            self.say(|paint| block.text(paint));
            self.held.clear();
            if let Some(console) = &mut self.console {
                console.forget_held();
            }
        } else {
            self.release();
            self.say(|paint| block.text(paint));
            self.emit(What::Error { command: self.command.to_owned(), message: block.line() });
        }
        systemd::status(&block.line());
        if let Err(error) = files::write_volatile(&root.path(paths::LAST_ERROR), kept.to_string().as_bytes(), 0o644) {
            self.note(&format!("{} could not be written: {error}", paths::LAST_ERROR));
        }
        stop.exit
    }
}

/// What the attempt before this one ended with; none if it is the first, or if that can't be read.
fn last_error(root: &Root) -> Option<Value> {
    serde_json::from_slice(&files::read_optional(&root.path(paths::LAST_ERROR)).ok()??).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn stop(why: &str) -> Stop {
        let block = Block { what: "No".into(), why: vec![why.into()], state: "As before.".into(), fix: Vec::new() };
        Stop { exit: Exit::Preflight, block }
    }

    /// One attempt that notes something and fails; what it put on the screen, and how many events it recorded.
    fn attempt(root: &Root, why: Option<&str>) -> (String, usize) {
        let (screen, events) = (root.path("/dev/console"), root.path(paths::EVENTS));
        files::write_volatile(&screen, b"", 0o600).unwrap();
        let read = |path: &Path| String::from_utf8(files::read_optional(path).unwrap().unwrap_or_default()).unwrap();
        let count = || read(&events).lines().count();
        let before = count();
        let mut told = Told { console: Some(Console::on_screen(root)), ..Told::open(root, "boot") };
        told.before = last_error(root);
        if told.before.is_some() {
            told.console.as_mut().unwrap().hold();
        }
        told.step("look", Outcome::Done, Duration::ZERO);
        told.note("a warning");
        match why {
            Some(why) => assert_eq!(told.stop(root, &stop(why)), Exit::Preflight),
            None => told.release(),
        }
        (read(&screen), count() - before)
    }

    #[test]
    fn an_error_is_said_again_only_when_it_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for path in ["/dev", "/run", paths::RUN] {
            files::make_folder(&root.path(path), 0o755).unwrap();
        }
        let all = |why: &str| {
            format!("[done] look (0.0 ms)\n[note] a warning\nNo:\n  {why}\nAs before. It is tried again every 15 s.\n")
        };
        assert_eq!(attempt(&root, Some("swap is on")), (all("swap is on"), 2));
        assert_eq!(attempt(&root, Some("swap is on")), (String::new(), 0));
        assert_eq!(attempt(&root, Some("800 MiB free")), (all("800 MiB free"), 2));
        assert_eq!(attempt(&root, Some("790 MiB free")), (String::new(), 0), "a figure that moves is no news");
        let last = files::read_optional(&root.path(paths::LAST_ERROR)).unwrap().unwrap();
        let last: Value = serde_json::from_slice(&last).unwrap();
        assert_eq!(last["why"][0], "790 MiB free", "but it is kept for who asks");
        assert_eq!(attempt(&root, None), ("[done] look (0.0 ms)\n[note] a warning\n".to_owned(), 1));
    }

    #[test]
    fn a_fix_that_is_a_reset_names_the_parameter_with_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        files::make_folder(&root.path("/var"), 0o755).unwrap();
        files::make_folder(&root.path("/var/lib"), 0o755).unwrap();
        files::make_folder(&root.path(paths::STATE), 0o700).unwrap();
        let path = "/etc/kubernetes/pki/ca.key".to_owned();
        let damaged = Damaged::Irreplaceable { path, what: "a key".to_owned(), found: "missing".to_owned() };
        let stop = Stop::damaged(&damaged);
        assert_eq!(advised(&root, &stop.block), stop.block, "there is no id to name");
        let id = b"0123456789abcdef0123456789abcdef\n";
        files::write_atomic(&root.path(paths::MACHINE_ID), id, 0o444).unwrap();
        insta::assert_snapshot!(advised(&root, &stop.block).text(Paint::Plain));
        let clock = Stop::damaged(&Damaged::Clock { path: String::new(), what: String::new(), now: 0 });
        assert_eq!(advised(&root, &clock.block), clock.block);
        assert!(clock.exit.is_tried_again() && !stop.exit.is_tried_again(), "a clock is set, damage stays");
    }
}
