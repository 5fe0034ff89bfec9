//! Notices that the clock was set.

use std::time::Duration;

/// A clock that moves by more than this between two looks was set, in seconds.
const STEP: u64 = 60;

/// Notices that the clock was set: wall time moves as monotonic time does, or somebody moved it.
pub(super) struct Watch {
    wall: u64,
    monotonic: Duration,
}

impl Watch {
    pub(super) fn new(wall: u64, monotonic: Duration) -> Self {
        Watch { wall, monotonic }
    }

    /// Whether the clock was set since this was asked last. `wall` is in seconds since 1970.
    pub(super) fn was_set(&mut self, wall: u64, monotonic: Duration) -> bool {
        let expected = self.wall.saturating_add(monotonic.saturating_sub(self.monotonic).as_secs());
        *self = Watch::new(wall, monotonic);
        wall.abs_diff(expected) > STEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_noticed_once_and_one_that_runs_is_not() {
        let at = Duration::from_secs;
        let mut watch = Watch::new(1_800_000_000, at(100));
        assert!(!watch.was_set(1_800_000_010, at(110)));
        assert!(!watch.was_set(1_800_000_010 + 60 + 59, at(170)), "a time server that pulls it along sets nothing");
        assert!(watch.was_set(1_900_000_000, at(180)));
        assert!(!watch.was_set(1_900_000_010, at(190)));
        assert!(watch.was_set(1_800_000_020, at(200)), "back");
        assert!(!watch.was_set(1_800_000_030, at(210)));
    }
}
