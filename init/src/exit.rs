//! Exit codes of every command, documented in `docs/operations.md`.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Success,
    /// It failed while acting; the message says what state it left.
    Failure,
    /// The command line or the settings are wrong; nothing was changed.
    BadInput,
    /// Preflight found an error; nothing was changed.
    Preflight,
    /// Stored state is damaged and can't be made again safely.
    Damaged,
    /// A deadline passed while waiting; the message names the condition.
    Timeout,
    /// The machine has no role yet: it was given none.
    NoRole,
}

impl Exit {
    /// The code that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::BadInput => 2,
            Exit::Preflight => 3,
            Exit::Damaged => 4,
            Exit::Timeout => 5,
            Exit::NoRole => 6,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
