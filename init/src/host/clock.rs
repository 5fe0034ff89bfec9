//! The clocks: wall time for certificates, monotonic time for durations and events.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use super::root::Root;

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

/// When the image was made, in seconds since 1970: the time stamp of its os-release, or of systemd's clock-epoch (see
/// systemd(1)), whichever is later; 0 if unknown. No clock that is right says earlier.
pub fn image(root: &Root) -> u64 {
    let stamp = |path: &str| std::fs::metadata(root.path(path)).map(|file| file.mtime()).unwrap_or_default();
    let latest = stamp("/usr/lib/os-release").max(stamp("/usr/lib/clock-epoch"));
    u64::try_from(latest).unwrap_or_default()
}
