//! Exit codes of every command, documented in `docs/operations.md`.

use std::process::ExitCode;

/// After how many seconds a boot that may succeed later is tried again (`RestartSec=` in the unit).
pub const TRIED_AGAIN_AFTER: u8 = 15;

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
    /// A control plane refused the machine or the operator, for a reason that does not pass by itself; nothing was changed.
    Refused,
}

impl Exit {
    /// Every end.
    pub const ALL: [Exit; 8] = [
        Exit::Success,
        Exit::Failure,
        Exit::BadInput,
        Exit::Preflight,
        Exit::Damaged,
        Exit::Timeout,
        Exit::NoRole,
        Exit::Refused,
    ];

    /// The end with that code, which another machine said; one that this release does not know is a failure.
    pub fn of_code(code: u8) -> Exit {
        Exit::ALL.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Failure)
    }

    /// Whether `kubeboot.service` tries again: what stopped it may pass by itself, or be mended from outside. Wrong
    /// input, damage, a missing role and a control plane's refusal do not (`RestartPreventExitStatus=` in the unit).
    pub fn is_tried_again(self) -> bool {
        matches!(self, Exit::Failure | Exit::Preflight | Exit::Timeout)
    }

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
            Exit::Refused => 7,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
