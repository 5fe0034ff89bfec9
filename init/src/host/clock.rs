//! The clocks: wall time for certificates, monotonic time for durations and events.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Time since the kernel started, `CLOCK_MONOTONIC`: what systemd's `…TimestampMonotonic` properties count in too.
pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// Wall-clock time.
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Wall-clock time in seconds since 1970; 0 when the clock stands before that.
pub fn unix() -> u64 {
    now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}
