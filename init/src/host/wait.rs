//! Waiting for a condition with a deadline, never for time alone.

use std::fmt;
use std::time::Duration;

use super::clock;

/// A condition did not come true in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedOut {
    /// What was waited for.
    pub condition: String,
    /// How long.
    pub waited: Duration,
    /// What was seen last.
    pub seen: String,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TimedOut { condition, waited, seen } = self;
        write!(f, "waited {:.1} s for {condition}; last seen: {seen}", waited.as_secs_f64())
    }
}

impl std::error::Error for TimedOut {}

/// Asks `probe` every `pause` until it answers `Ok`, at most for `limit`. Its `Err` is what was seen instead.
pub fn until<T>(
    condition: &str,
    limit: Duration,
    pause: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> Result<T, TimedOut> {
    let start = clock::monotonic();
    loop {
        let seen = match probe() {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        let waited = clock::monotonic().saturating_sub(start);
        if waited >= limit {
            return Err(TimedOut { condition: condition.to_owned(), waited, seen });
        }
        pause_for(pause.min(limit - waited));
    }
}

/// Growing pauses for retries that have no deadline: doubled up to a limit, with a quarter of jitter, so that the
/// machines of a cluster do not ask in step.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    next: Duration,
    limit: Duration,
}

impl Backoff {
    /// Starts at `first` and never exceeds `limit` (before jitter).
    pub fn new(first: Duration, limit: Duration) -> Self {
        Backoff { first, next: first, limit }
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Waits out the next pause.
    pub fn pause(&mut self) {
        let pause = self.next;
        self.next = (pause * 2).min(self.limit);
        pause_for(pause.mul_f64(1.0 + jitter() / 4.0));
    }
}

/// Sleeps. Only for loops that poll a condition; anything else names its condition with [`until`].
pub fn pause_for(pause: Duration) {
    std::thread::sleep(pause);
}

/// Waits until a signal ends the process: for who has said the last word, and must stay for it to be seen.
pub fn for_a_signal() {
    nix::unistd::pause();
}

/// A number from 0 to 1 that differs between machines and moments. Not random enough for secrets.
fn jitter() -> f64 {
    let mixed = (clock::monotonic().subsec_nanos() ^ std::process::id().rotate_left(16)).wrapping_mul(2_654_435_761);
    f64::from(mixed >> 8) / f64::from(1u32 << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut asked = 0;
        let found = until("three", Duration::from_secs(5), Duration::from_millis(1), || {
            asked += 1;
            if asked == 3 { Ok(asked) } else { Err(format!("{asked}")) }
        });
        assert_eq!(found, Ok(3));
    }

    #[test]
    fn a_deadline_names_the_condition_and_what_was_seen() {
        let error = until::<()>("the moon", Duration::ZERO, Duration::ZERO, || Err("clouds".into())).unwrap_err();
        assert!(error.to_string().ends_with("s for the moon; last seen: clouds"), "{error}");
    }
}
