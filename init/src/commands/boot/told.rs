//! What a boot says: to the console, the journal and the report channel, and to whoever asks later.

use std::time::Duration;

use serde_json::{Value, json};

use crate::exit::Exit;
use crate::host::console::Console;
use crate::host::report::Report;
use crate::host::root::Root;
use crate::host::{clock, files, systemd};
use crate::paths;
use crate::plan::Damaged;
use crate::sources::reset;
use crate::timeline::{Outcome, What};
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

    /// Something that can't be made again is missing or damaged.
    pub fn damaged(why: &Damaged) -> Self {
        Stop {
            exit: Exit::Damaged,
            block: Block {
                what: "Something that this node needs is damaged".to_owned(),
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
}

impl Told {
    /// Opens console and report. Never fails.
    pub fn open(root: &Root, command: &'static str) -> Self {
        let (console, report) = (Some(Console::open(root)), Some(Report::open(root)));
        Told { command, console, report, waiting: Vec::new() }
    }

    /// For commands that look and change nothing: nobody hears.
    pub fn nobody(command: &'static str) -> Self {
        Told { command, console: None, report: None, waiting: Vec::new() }
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

    /// A secret: to the console only.
    pub fn secret(&mut self, text: impl Fn(Paint) -> zeroize::Zeroizing<String>) {
        self.flush();
        if let Some(console) = &mut self.console {
            console.say_secret(text);
        }
    }

    /// An event.
    pub fn emit(&mut self, what: What) {
        if let Some(report) = &mut self.report {
            report.emit(what);
        }
    }

    /// Says why the command ends, everywhere: console, journal, report, `systemctl status`, `kubeboot status`.
    pub fn stop(&mut self, root: &Root, stop: &Stop) -> Exit {
        let block = &advised(root, &stop.block);
        self.say(|paint| block.text(paint));
        let message = block.line();
        self.emit(What::Error { command: self.command.to_owned(), message: message.clone() });
        systemd::status(&message);
        let kept = Stop { exit: stop.exit, block: block.clone() }.json(self.command);
        if let Err(error) = files::write_volatile(&root.path(paths::LAST_ERROR), kept.to_string().as_bytes(), 0o644) {
            self.note(&format!("{} could not be written: {error}", paths::LAST_ERROR));
        }
        stop.exit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
