//! What the console says. Pure: texts from values; `host::console` shows them.

mod block;
pub mod members;
pub mod table;
pub mod tokens;
mod welcome;

pub use block::Block;
pub use welcome::{Member, Ready, no_role, prompt_help, seed};

use std::time::Duration;

use crate::settings::frozen::Difference;
use crate::settings::{Problem, Warning};
use crate::timeline::Outcome;

/// Whether a text may carry colours (ECMA-48 sequences).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// For journals, files and programs.
    Plain,
    /// For a terminal.
    Color,
}

/// A colour's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It worked.
    Good,
    /// It did not.
    Bad,
    /// Look at this.
    Note,
    /// A heading.
    Strong,
}

impl Paint {
    /// `text` in the tone, or as it is.
    pub fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Note => "33",
            Tone::Strong => "1",
        };
        match self {
            Paint::Plain => text.to_owned(),
            Paint::Color => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// The line of a step that has ended: `[done] etcd's certificate authority (0.01 s)`. What was not needed is not timed.
pub fn step(outcome: Outcome, what: &str, took: Duration, paint: Paint) -> String {
    let what = one_line(what);
    match outcome {
        Outcome::Done => format!("{} {what} ({})", paint.tone(Tone::Good, "[done]"), duration(took)),
        Outcome::Skipped => format!("[skip] {what}"),
        Outcome::Failed => format!("{} {what} ({})", paint.tone(Tone::Bad, "[fail]"), duration(took)),
    }
}

/// A duration as people say it: `0.4 ms`, `12 ms`, `1.25 s`, `3 min 20 s`.
pub fn duration(took: Duration) -> String {
    match took.as_secs_f64() {
        seconds if seconds < 0.001 => format!("{:.1} ms", seconds * 1000.0),
        seconds if seconds < 0.9995 => format!("{:.0} ms", seconds * 1000.0),
        seconds if seconds < 9.995 => format!("{seconds:.2} s"),
        seconds if seconds < 119.5 => format!("{seconds:.0} s"),
        _ => {
            let seconds = (took + Duration::from_millis(500)).as_secs();
            format!("{} min {} s", seconds / 60, seconds % 60)
        }
    }
}

/// What is wrong with the settings, all of it, each with its fix.
pub fn bad_settings(problems: &[Problem]) -> Block {
    let what = match problems.len() {
        1 => "The settings have a problem".to_owned(),
        count => format!("The settings have {count} problems"),
    };
    Block {
        what,
        why: problems.iter().map(ToString::to_string).collect(),
        state: "Nothing was changed on this machine.".to_owned(),
        fix: problems.iter().map(Problem::fix).collect::<Vec<_>>(),
    }
}

/// The line of a warning.
pub fn warning(warning: &Warning, paint: Paint) -> String {
    note(&warning.to_string(), paint)
}

/// The line of a setting that was changed after it was frozen.
pub fn ignored(difference: &Difference, paint: Paint) -> String {
    note(&format!("{difference}. To apply it, start over: kubeboot reset, or the parameter kubeboot.reset"), paint)
}

/// A line that asks for attention.
pub fn note(text: &str, paint: Paint) -> String {
    format!("{} {}", paint.tone(Tone::Note, "[note]"), one_line(text))
}

/// What helps against a fault of the disk that a reason tells of, by the words that the system has for it; none of another.
pub fn disk_fix(why: &str) -> Option<&'static str> {
    // errno(3) as std::io::Error has it: ENOSPC, EDQUOT; EROFS; EIO.
    let is = |numbers: &[u8]| numbers.iter().any(|number| why.contains(&format!("(os error {number})")));
    match () {
        () if is(&[28, 122]) => Some("make room on /var: a larger disk, or delete what is not needed"),
        () if is(&[30]) => Some("restart the machine: /var became read-only, as it does after a fault of its disk"),
        () if is(&[5]) => Some("replace the disk: it does not do what it is asked"),
        () => None,
    }
}

/// Whether two texts differ in nothing but figures: times, sizes and counts move without being news.
pub fn same_but_for_figures(one: &str, other: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let split = text.split(|c: char| c.is_ascii_digit());
        split.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    words(one) == words(other)
}

/// Control characters, which would let a text drive the terminal, become blanks.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
