//! The balancer of a worker: which API server a new connection goes to, which servers are left alone, and whose
//! connections are cut. Decisions over events, without sockets or clock; `host/balancer` is its shell.
//!
//! - A connection goes to the first server by: health, nearness, rank. The rank is this process's own random order, so
//!   that the workers of a cluster spread over servers that are equally near.
//! - A server that fails gets no new connection while another is better. Where none is healthy all are tried.
//! - Connections are cut only when that helps: of a server that can't be reached, or that has been unwell for long, and
//!   only once another server has answered since. So a worker that lost its own network cuts nothing.
//! - A server that came back has to answer twice, after a pause that grows with each fall. Where no other is healthy,
//!   once is enough.
//!
//! Times are durations since any fixed moment.

mod answer;
mod distance;
mod machine;
mod view;

use std::time::Duration;

pub use answer::{Answer, REQUEST, answer};
pub use machine::{Action, Balancer, Finding};
pub use view::{Seen, View};

/// How long things take and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// From one check of a healthy server to the next. That its machine lives, the kernel watches all the time.
    pub check: Duration,
    /// The same for a server that is not healthy.
    pub check_again: Duration,
    /// How long a server that fell is left alone, at least; doubled with each fall…
    pub hold: Duration,
    /// …up to this.
    pub longest_hold: Duration,
    /// A server that was healthy for so long has its falls forgotten.
    pub steady: Duration,
    /// Connections of a server that is unwell for so long are cut.
    pub hung: Duration,
    /// How long the connections of a server live that is in the list no more.
    pub drain: Duration,
    /// How long a server stays near, or far, at least.
    pub dwell: Duration,
}

impl Times {
    /// Those of a machine.
    pub const REAL: Times = Times {
        check: Duration::from_secs(5),
        check_again: Duration::from_secs(1),
        hold: Duration::from_secs(1),
        longest_hold: Duration::from_secs(30),
        steady: Duration::from_secs(60),
        hung: Duration::from_secs(10),
        drain: Duration::from_secs(30),
        dwell: Duration::from_secs(30),
    };
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
