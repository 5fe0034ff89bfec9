//! Brings a worker's files to what they should be: looks, and acts by the plan. What a control plane has to be asked for
//! is asked between the two ([`super::joining`]).

use std::time::Duration;

use super::execute::{Executor, Failed};
use super::joining::Granted;
use super::root::Root;
use super::{clock, observe};
use crate::certificates::Unix;
use crate::certificates::expiry::Listed;
use crate::plan::{self, Sight, Step, Worker};

/// What is on disk of all that the worker's plan wants to know.
pub fn look(root: &Root, worker: &Worker) -> Sight {
    look_at(root, &worker.paths())
}

/// What is on disk at `paths`.
pub fn look_at(root: &Root, paths: &[String]) -> Sight {
    observe::look(root, paths.iter().map(String::as_str))
}

/// Does what a plan, or a part of one, says; `done` hears of each step.
///
/// # Errors
/// The first step that fails.
pub fn act(
    root: &Root,
    steps: &[Step],
    granted: Option<&Granted>,
    done: impl FnMut(&Step, Duration),
) -> Result<(), Failed> {
    // Kubeconfigs of a worker's refer to files: none is made from a server's address.
    let mut executor = Executor::new(root, clock::unix(), String::new(), None);
    if let Some(granted) = granted {
        executor = executor.with(granted);
    }
    executor.run(steps, done)
}

/// Every certificate of the node, for `kubeboot status`.
pub fn certificates(root: &Root, worker: &Worker) -> (Vec<Listed>, Unix) {
    let now = clock::unix();
    (plan::certificates_of_worker(&look(root, worker), now), now)
}

#[cfg(test)]
mod control_plane_tests;
#[cfg(test)]
mod tests;
