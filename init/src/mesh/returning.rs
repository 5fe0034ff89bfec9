//! When a node gets the mesh key by enrolment, because the mesh does not give it.

use std::fmt;
use std::time::Duration;

/// How long nobody is heard before the key is asked for, and between the first two times.
const ALONE: Duration = Duration::from_secs(60);
/// Longest pause between them, before jitter: a cluster's nodes that are all alone must not keep its control planes busy.
const LONGEST: Duration = Duration::from_secs(900);

/// Why the key is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nobody was heard.
    Alone,
    /// Somebody has a newer key, and did not give it.
    Behind,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Alone => "nobody of the mesh is heard",
            Why::Behind => "the mesh has a newer key",
        })
    }
}

/// Whether nobody was heard for so long that the mesh key may be an old one. Both on one clock that only rises.
pub fn is_alone(now: Duration, heard: Duration) -> bool {
    now.saturating_sub(heard) >= ALONE
}

/// When it is asked next.
#[derive(Debug, Clone, Copy)]
pub struct Returning {
    at: Duration,
    pause: Duration,
}

impl Default for Returning {
    fn default() -> Self {
        Returning { at: Duration::ZERO, pause: ALONE }
    }
}

impl Returning {
    /// Whether to ask now, and why. `heard` is when somebody was heard last, `behind` whether a member spoke of a newer key,
    /// `jitter` any number: not all nodes ask at once when it is the control planes that were not heard.
    pub fn due(&mut self, now: Duration, heard: Duration, behind: bool, jitter: u8) -> Option<Why> {
        let why = match (is_alone(now, heard), behind) {
            (true, _) => Why::Alone,
            (false, true) => Why::Behind,
            (false, false) => {
                *self = Returning::default();
                return None;
            }
        };
        if now < self.at {
            return None;
        }
        self.at = now + self.pause + self.pause * u32::from(jitter) / 1024;
        self.pause = (self.pause * 2).min(LONGEST);
        Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARD: Duration = Duration::from_secs(1000);

    /// The seconds after `HEARD` at which it is asked, within so many.
    fn asked(returning: &mut Returning, behind: bool, jitter: u8, seconds: u64) -> Vec<u64> {
        let at = |second: &u64| returning.due(HEARD + Duration::from_secs(*second), HEARD, behind, jitter).is_some();
        (0..seconds).filter(at).collect()
    }

    #[test]
    fn who_hears_nobody_asks_after_a_minute_and_then_less_and_less() {
        let times = asked(&mut Returning::default(), false, 0, 4000);
        assert_eq!(times, [60, 120, 240, 480, 960, 1860, 2760, 3660]);
        let jittered = asked(&mut Returning::default(), false, 255, 400);
        assert_eq!(jittered, [60, 135, 285], "up to a quarter later");
    }

    #[test]
    fn who_heard_of_a_newer_key_asks_at_once() {
        let mut returning = Returning::default();
        assert_eq!(returning.due(HEARD, HEARD, true, 0), Some(Why::Behind));
        assert_eq!(returning.due(HEARD, HEARD, true, 0), None);
    }

    #[test]
    fn who_heard_somebody_begins_anew() {
        let mut returning = Returning::default();
        assert_eq!(asked(&mut returning, false, 0, 500).len(), 4);
        assert_eq!(returning.due(HEARD, HEARD, false, 0), None);
        assert_eq!(asked(&mut returning, false, 0, 130), [60, 120]);
    }
}
