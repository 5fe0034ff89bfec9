//! The host's processor that a machine runs on, for as long as it runs.
//!
//! A machine's kernel and its processes are processes of the host that take turns, at every system call and page fault:
//! never two of them work at once. On two processors each turn would wake the other processor up, which costs a host that
//! is a virtual machine itself an interrupt and an exit.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// How many machines of this run each processor has.
static MACHINES: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// A machine's place on a processor, given back when it is dropped.
pub struct Processor(usize);

impl Processor {
    /// A place on the processor that has the fewest machines, of those that this process may use.
    ///
    /// # Errors
    /// The host does not say which these are.
    pub fn take() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("can't ask which processors may be used")?;
        let mut machines = MACHINES.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false));
        let number = emptiest(usable, &machines).context("no processor may be used")?;
        *machines.entry(number).or_default() += 1;
        Ok(Self(number))
    }

    /// Its number on the host.
    pub fn number(&self) -> usize {
        self.0
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        let mut machines = MACHINES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = machines.get_mut(&self.0) {
            *count = count.saturating_sub(1);
        }
    }
}

/// The first of those with the fewest machines.
fn emptiest(usable: impl Iterator<Item = usize>, machines: &BTreeMap<usize, usize>) -> Option<usize> {
    usable.min_by_key(|number| machines.get(number).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_spread_over_the_processors_that_may_be_used() {
        let mut machines = BTreeMap::new();
        let mut taken = Vec::new();
        for _ in 0..5 {
            let number = emptiest([1, 3].into_iter(), &machines).unwrap();
            *machines.entry(number).or_default() += 1;
            taken.push(number);
        }
        assert_eq!(taken, [1, 3, 1, 3, 1]);
        assert_eq!(emptiest(std::iter::empty(), &machines), None);
    }
}
