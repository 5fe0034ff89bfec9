//! Waiting for conditions: always with a deadline, and with what was seen last when it passes.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The outcome of one look at a condition.
pub enum Look<T> {
    /// It holds.
    Holds(T),
    /// Not yet; what was seen instead.
    NotYet(String),
    /// It can't hold any more: there is no use in waiting on.
    Never(String),
}

impl<T> Look<T> {
    /// An outcome from a fallible probe whose errors are all worth another try.
    pub fn from_result<E: Display>(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Holds(value),
            Err(error) => Self::NotYet(format!("{error:#}")),
        }
    }
}

/// Looks until the condition holds, at most every `pause`.
///
/// # Errors
/// `limit` passed, or the condition can never hold: the message names the condition and what was seen last.
pub fn until<T>(what: &str, limit: Duration, pause: Duration, mut look: impl FnMut() -> Look<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = match look() {
            Look::Holds(value) => return Ok(value),
            Look::NotYet(seen) => seen,
            Look::Never(seen) => bail!("waited for {what}: it can't happen any more. Seen: {seen}"),
        };
        if start.elapsed() >= limit {
            bail!("waited {} s for {what}: in vain. Seen last: {seen}", limit.as_secs());
        }
        std::thread::park_timeout(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_never_holds_is_named_with_what_was_seen() {
        let error = until::<()>("the moon", Duration::ZERO, Duration::ZERO, || Look::NotYet("clouds".into()));
        assert_eq!(error.unwrap_err().to_string(), "waited 0 s for the moon: in vain. Seen last: clouds");
    }

    #[test]
    fn an_impossible_condition_ends_the_wait_at_once() {
        let day = Duration::from_secs(86_400);
        let error = until::<()>("a reply", day, day, || Look::Never("it exited".into())).unwrap_err();
        assert!(error.to_string().contains("it exited"), "{error}");
    }

    #[test]
    fn a_condition_is_looked_at_until_it_holds() {
        let mut looks = 0;
        let value = until("three", Duration::from_secs(5), Duration::ZERO, || {
            looks += 1;
            if looks == 3 { Look::Holds(looks) } else { Look::NotYet(looks.to_string()) }
        });
        assert_eq!(value.unwrap(), 3);
    }
}
