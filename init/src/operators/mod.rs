//! What operators may ask of a node, and what it answers (`docs/operators.md`): the pure half.
//!
//! `enrolment` proves who an operator is; this room begins where that ends. One connection carries one request and its
//! answer, in bounded frames. Who asks keeps every secret: keys and tokens are made where the command is typed, and only
//! public halves are sent.
//!
//! What always holds:
//! - A frame is read only if it may come in this state and is no longer than its kind may be.
//! - A request is checked whole before anything of it is done, by who sends it and again by who gets it.
//! - An answer holds no secret: what leaves a machine as logs or in a support bundle is redacted first.

pub mod agent;
pub mod elsewhere;
pub mod exchange;
pub mod frame;
pub mod key;
pub mod key_file;
pub mod known;
pub mod objects;
pub mod redact;
pub mod request;
pub mod tar;
pub mod user;

pub use frame::Trouble;
pub use request::Request;

use std::time::Duration;

/// How long who asks waits for the next frame. A node that works says so in between, [`SIGN_OF_LIFE`].
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How long one connection of an operator lasts at most: logs that are followed end with it.
pub const SESSION: Duration = Duration::from_secs(60 * 60);
/// How often a node that has nothing to say says that it is still there, and looks whether the operator still is
/// one.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// Requests of operators that a node works on at once.
pub const AT_ONCE: usize = 16;

#[cfg(test)]
pub(crate) mod tests;
