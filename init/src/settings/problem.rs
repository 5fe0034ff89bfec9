//! What can be wrong with an input: said with the key, the source, what was found and what was expected.

use std::fmt;

use super::{Origin, Source};

/// Longest piece of an input that a message repeats, in characters.
const SHOWN: usize = 60;

/// One thing wrong with the inputs. Nothing was changed on the machine when one is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key, when the problem is about one.
    pub key: Option<String>,
    /// Where it was written.
    pub origin: Origin,
    /// What was found there; never a secret.
    pub found: String,
    /// What would have been right.
    pub expected: String,
    /// A valid key that resembles an unknown one.
    pub nearest: Option<&'static str>,
}

impl Problem {
    /// A value that is wrong for its key.
    pub fn value(key: &str, origin: &Origin, found: &str, expected: impl Into<String>) -> Self {
        Problem {
            key: Some(key.to_owned()),
            origin: origin.clone(),
            found: quoted(found),
            expected: expected.into(),
            nearest: None,
        }
    }

    /// A source, or a part of it, that can't be read as what it should be.
    pub fn source(origin: Origin, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Problem { key: None, origin, found: found.into(), expected: expected.into(), nearest: None }
    }

    /// A key as it is written in the problem's source.
    fn written(&self, key: &str) -> String {
        let prefix = if self.origin.source == Source::KernelCommandLine { "kubeboot." } else { "" };
        format!("{prefix}{}", clean(key))
    }

    /// The fix, as an instruction.
    pub fn fix(&self) -> String {
        let place = &self.origin;
        let key = self.key.as_deref().map(|key| self.written(key));
        match (key, self.nearest.map(|key| self.written(key))) {
            (Some(key), Some(nearest)) => format!("write {nearest} instead of {key} ({place})."),
            (Some(key), None) => format!("correct or remove {key} ({place})."),
            (None, _) => format!("correct or remove it ({place})."),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "{}: ", self.written(key))?;
        }
        write!(f, "found {}, expected {} ({})", clean(&self.found), clean(&self.expected), self.origin)?;
        if let Some(nearest) = self.nearest {
            write!(f, "; the nearest key is {}", self.written(nearest))?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Something that was not applied, or that the operator should know; not a reason to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where it was written.
    pub origin: Origin,
    /// What, in one sentence without a full stop.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", clean(&self.text), self.origin)
    }
}

/// `text` without control characters, so that an input can't drive a terminal, and cut to a bounded length.
fn clean(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut shown: String = text.chars().take(LONGEST).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// `text` in quotes: control characters escaped, so that an input can't drive a terminal, and cut to a bounded length.
pub fn quoted(text: &str) -> String {
    let mut shown = String::with_capacity(SHOWN + 8);
    shown.push('"');
    for (count, character) in text.chars().enumerate() {
        if count == SHOWN {
            shown.push('…');
            break;
        }
        match character {
            '"' => shown.push_str("\\\""),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown.push('"');
    shown
}
