//! How far a server is: a smoothed latency, and a verdict that does not flap.

use std::time::Duration;

/// A new measurement counts for so much of the whole: one in…
const SMOOTHING: u32 = 8;

/// How long a server takes to answer, and whether it counts as near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Distance {
    /// Smoothed; none before the first answer.
    pub latency: Option<Duration>,
    /// Whether it is clearly farther than the nearest.
    pub far: bool,
    /// When that last changed.
    turned: Option<Duration>,
}

impl Distance {
    /// Takes a measurement in.
    pub(super) fn measured(&mut self, took: Duration) {
        self.latency = Some(match self.latency {
            None => took,
            Some(before) => (before * (SMOOTHING - 1) + took) / SMOOTHING,
        });
    }

    /// Compares with the nearest server. To become far takes more than twice its latency, to become near again less than
    /// half more, each with a margin for what is noise in a small network; and neither is undone before `dwell`.
    pub(super) fn compare(&mut self, now: Duration, nearest: Duration, dwell: Duration) {
        let Some(latency) = self.latency else { return };
        if self.turned.is_some_and(|turned| now < turned + dwell) {
            return;
        }
        let limit = match self.far {
            false => nearest * 2 + Duration::from_millis(5),
            true => nearest * 3 / 2 + Duration::from_millis(2),
        };
        if (latency > limit) != self.far {
            self.far = !self.far;
            self.turned = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DWELL: Duration = Duration::from_secs(30);

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn one_slow_answer_makes_nothing_far() {
        let mut distance = Distance::default();
        distance.measured(milliseconds(2));
        distance.measured(milliseconds(40));
        distance.compare(milliseconds(0), milliseconds(2), DWELL);
        assert!(!distance.far);
    }

    #[test]
    fn a_far_server_has_to_come_clearly_nearer_and_not_at_once() {
        let mut distance = Distance { latency: Some(milliseconds(60)), ..Distance::default() };
        distance.compare(milliseconds(0), milliseconds(20), DWELL);
        assert!(distance.far);
        distance.latency = Some(milliseconds(10));
        distance.compare(milliseconds(29_999), milliseconds(20), DWELL);
        assert!(distance.far, "too soon");
        distance.latency = Some(milliseconds(40));
        distance.compare(milliseconds(30_000), milliseconds(20), DWELL);
        assert!(distance.far, "between the limits nothing changes");
        distance.latency = Some(milliseconds(30));
        distance.compare(milliseconds(30_001), milliseconds(20), DWELL);
        assert!(!distance.far);
    }
}
