//! Whether a genuine release may be used on this machine.

use super::date::Moment;
use super::{Manifest, Version};

/// What staging is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Here {
    /// The time, as good as this machine knows it.
    pub now: Moment,
    /// The OS image's interface level.
    pub os: u32,
    /// The version that runs now.
    pub running: Version,
    /// The lowest version that may run on this machine's data ([`crate::slots::Slots::floor`]).
    pub floor: Option<Version>,
}

/// A reason against a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too old to be trusted with known flaws.
    #[error("release {version} expired at {expires}; it is {now}. Fix: use a newer release, or correct the clock")]
    Expired {
        /// The release.
        version: Version,
        /// Its end.
        expires: Moment,
        /// The machine's clock.
        now: Moment,
    },
    /// Made for other OS images.
    #[error("release {version} needs an OS image of level {min} to {max}; this one has level {os}. Fix: {}", if os < min { "upgrade the OS image first" } else { "use a newer release" })]
    Os {
        /// The release.
        version: Version,
        /// Lowest level.
        min: u32,
        /// Highest level.
        max: u32,
        /// This machine's.
        os: u32,
    },
    /// Skips a step.
    #[error(
        "release {version} can follow {minimum} or later, and {running} runs. Fix: upgrade to a release in between first"
    )]
    TooFar {
        /// The release.
        version: Version,
        /// What it can follow.
        minimum: Version,
        /// What runs.
        running: Version,
    },
    /// Goes back behind what cannot be undone, such as data formats.
    #[error(
        "release {version} is below {floor}, the lowest that may run on this machine's data: a later one was committed \
         here and may have changed its formats. Fix: use {floor} or later"
    )]
    BelowFloor {
        /// The release.
        version: Version,
        /// The lowest version allowed.
        floor: Version,
    },
}

/// Everything against staging a release; nothing when it may be staged.
#[must_use]
pub fn stage(manifest: &Manifest, here: &Here) -> Vec<Refusal> {
    let version = manifest.version;
    let Here { now, running, floor, os } = *here;
    let mut refusals = seat(manifest, os, floor);
    if now > manifest.expires {
        refusals.push(Refusal::Expired { version, expires: manifest.expires, now });
    }
    if running < manifest.minimum {
        refusals.push(Refusal::TooFar { version, minimum: manifest.minimum, running });
    }
    refusals
}

/// Everything against seating a release that is on this machine already: the OS image's interface level, and the lowest
/// version that may run on its data. Its expiry is none: a cluster that nobody upgraded must still boot.
#[must_use]
pub fn seat(manifest: &Manifest, os: u32, floor: Option<Version>) -> Vec<Refusal> {
    let (version, range) = (manifest.version, manifest.os);
    let mut refusals = Vec::new();
    if !(range.min..=range.max).contains(&os) {
        refusals.push(Refusal::Os { version, min: range.min, max: range.max, os });
    }
    if let Some(floor) = floor.filter(|floor| version < *floor) {
        refusals.push(Refusal::BelowFloor { version, floor });
    }
    refusals
}
