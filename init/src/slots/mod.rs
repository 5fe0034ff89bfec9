//! Slots: what each holds, which transitions there are, and which one to boot. One table, no effects.
//!
//! ```text
//!            stage             try (each boot)         commit
//!   empty ─────────▶ staged ─────────▶ trial{n} ─────────────▶ committed
//!                    ▲  │                  │                        │
//!         stage over │  └───────────┬──────┘ condemn, discard       │
//!                    └───────── bad{why} ◀──────────────────────────┘
//! ```
//! A release that is condemned keeps its verdict by digest, so that it is not tried again by accident; one whose copy on
//! this disk is damaged is discarded without a verdict, and may be staged anew. The factory release is no slot of the
//! table: it is always there, always committed, and never written.
//!
//! The table also keeps the floor: the lowest version that may run on this machine's data. It only ever rises.

mod choice;
mod seat;
mod store;
mod unusable;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use choice::{Choice, Record, choose};
pub use seat::{CheckedBy, PassedOver, SeatFacts};
pub use store::{FORMAT, Unbelievable, read, write};
pub use unusable::{Fate, OnDisk, Unusable};

use crate::release::Version;

/// How many boots a trial gets before its slot counts as bad: one that a power cut may spoil, and one more.
pub const TRIES: u32 = 2;

/// The slots on `/var`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Slot; 2] = [Slot::A, Slot::B];

    /// The one that is not this.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}

/// What can be booted: a slot, or the image's own release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Seat {
    /// A release on `/var`.
    Slot(Slot),
    /// The release that the image carries.
    Factory,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Slot::A => "A",
            Slot::B => "B",
        })
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seat::Slot(slot) => write!(f, "slot {slot}"),
            Seat::Factory => f.write_str("the factory release"),
        }
    }
}

/// Where a release stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Written and read back; not yet to be booted.
    Staged,
    /// On probation: to be booted until its tries are used up.
    Trial {
        /// Boots already begun.
        tries: u32,
    },
    /// Proved itself; the one to return to.
    Committed,
    /// Not to be booted.
    Bad {
        /// Why, in words.
        verdict: String,
    },
}

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// SHA-256 of the release file, lower-case hex; also the file's name below [`crate::paths::RELEASES`].
    pub digest: String,
    /// Version in words, such as `1.37.2-1`. The file's own manifest decides; this is for `status`.
    pub version: String,
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
}

/// The whole table: what the slots hold, which was committed last, and the verdicts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slots {
    /// Slots that hold something.
    pub slots: BTreeMap<Slot, Content>,
    /// The slot committed last; none means the factory release.
    pub current: Option<Slot>,
    /// Why releases were found bad, by digest; kept when their slot is used again.
    pub verdicts: BTreeMap<String, String>,
    /// The highest floor of any release that was ever committed on this machine, the factory's among them: nothing
    /// below it may run on this machine's data. None before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Version>,
}

/// How many verdicts are kept; the rest are dropped in the order of their digests.
const VERDICTS: usize = 32;

/// A transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// A new release was written for this slot.
    Stage {
        /// Its digest.
        digest: String,
        /// Its version.
        version: String,
        /// Stage it although a verdict says that it is bad.
        force: bool,
    },
    /// The staged release is to be booted next.
    Begin,
    /// A boot of the trial begins.
    Try,
    /// The trial passed its gates.
    Commit {
        /// The release's own floor, by its manifest.
        floor: Version,
    },
    /// The release is not to be booted again, from whatever copy.
    Condemn {
        /// Why.
        verdict: String,
    },
    /// This disk's copy of the release is damaged and not to be booted again. Another copy may be good.
    Discard {
        /// What was found.
        damage: String,
    },
}

/// A transition that the table does not have, or that its start state forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The slot it was asked of.
    pub slot: Slot,
    /// What was asked.
    pub asked: &'static str,
    /// What the slot would have to be.
    pub expected: &'static str,
    /// What it is.
    pub found: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { slot, asked, expected, found } = self;
        write!(f, "can't {asked} slot {slot}: expected {expected}, found {found}; nothing was changed")
    }
}

impl std::error::Error for Refused {}

impl Slots {
    /// Carries out one transition, or says why not and changes nothing. The only place where slot states change.
    ///
    /// # Errors
    /// [`Refused`] when the slot is not in a state that the transition starts from.
    pub fn apply(&mut self, slot: Slot, transition: Transition) -> Result<(), Refused> {
        let found = self.slots.get(&slot).map(|content| &content.state);
        let next = match (found, &transition) {
            (_, Transition::Stage { digest, version, force }) => return self.stage(slot, digest, version, *force),
            (Some(State::Staged), Transition::Begin) => match self.trial() {
                Some(other) => {
                    return Err(self.refuse(slot, "try", "no other trial", &format!("slot {other} on trial")));
                }
                None => State::Trial { tries: 0 },
            },
            (_, Transition::Begin) => return Err(self.refused(slot, "try", "a staged release")),
            (Some(State::Trial { tries }), Transition::Try) if *tries < TRIES => State::Trial { tries: tries + 1 },
            (_, Transition::Try) => return Err(self.refused(slot, "boot", "a trial with tries left")),
            (Some(State::Trial { tries: 1.. }), Transition::Commit { floor }) => {
                self.raise_floor(*floor);
                State::Committed
            }
            (_, Transition::Commit { .. }) => return Err(self.refused(slot, "commit", "a trial that was booted")),
            (Some(State::Staged | State::Trial { .. } | State::Committed), Transition::Condemn { verdict }) => {
                self.keep_verdict(slot, verdict);
                State::Bad { verdict: verdict.clone() }
            }
            (Some(State::Staged | State::Trial { .. } | State::Committed), Transition::Discard { damage }) => {
                State::Bad { verdict: damage.clone() }
            }
            (_, Transition::Condemn { .. } | Transition::Discard { .. }) => {
                return Err(self.refused(slot, "condemn", "a staged, tried or committed release"));
            }
        };
        self.enter(slot, next);
        Ok(())
    }

    /// Holds every later boot to `floor` or above: a release with it was committed, or is the factory release and runs.
    /// True when that is news.
    pub fn raise_floor(&mut self, floor: Version) -> bool {
        let raised = self.floor.is_none_or(|before| before < floor);
        if raised {
            self.floor = Some(floor);
        }
        raised
    }

    /// The slot on trial, if any.
    pub fn trial(&self) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| matches!(self.state(*slot), Some(State::Trial { .. })))
    }

    /// Where the slot's release stands; none when it holds nothing.
    pub fn state(&self, slot: Slot) -> Option<&State> {
        self.slots.get(&slot).map(|content| &content.state)
    }

    fn stage(&mut self, slot: Slot, digest: &str, version: &str, force: bool) -> Result<(), Refused> {
        if self.current == Some(slot) && self.state(slot) == Some(&State::Committed) {
            return Err(self.refuse(slot, "stage into", "a slot that is not the committed one", "the committed one"));
        }
        if matches!(self.state(slot), Some(State::Trial { .. })) {
            return Err(self.refused(slot, "stage into", "no trial"));
        }
        if let (Some(verdict), false) = (self.verdicts.get(digest), force) {
            let found = format!("the verdict \u{201c}{verdict}\u{201d}");
            return Err(self.refuse(slot, "stage into", "a release without a verdict (or --force)", &found));
        }
        self.verdicts.remove(digest);
        self.slots.insert(slot, Content { digest: digest.into(), version: version.into(), state: State::Staged });
        Ok(())
    }

    fn keep_verdict(&mut self, slot: Slot, verdict: &str) {
        let Some(content) = self.slots.get(&slot) else { return };
        self.verdicts.insert(content.digest.clone(), verdict.to_owned());
        while self.verdicts.len() > VERDICTS {
            self.verdicts.pop_first();
        }
    }

    fn enter(&mut self, slot: Slot, state: State) {
        let Some(content) = self.slots.get_mut(&slot) else { return };
        if state == State::Committed {
            self.current = Some(slot);
        }
        content.state = state;
        if self.current.is_some_and(|current| self.state(current) != Some(&State::Committed)) {
            self.current = Slot::ALL.into_iter().find(|slot| self.state(*slot) == Some(&State::Committed));
        }
    }

    fn refused(&self, slot: Slot, asked: &'static str, expected: &'static str) -> Refused {
        let found = match self.state(slot) {
            None => "nothing".to_owned(),
            Some(State::Staged) => "a staged release".to_owned(),
            Some(State::Trial { tries }) => format!("a trial after {tries} of {TRIES} tries"),
            Some(State::Committed) => "a committed release".to_owned(),
            Some(State::Bad { verdict }) => format!("a bad release ({verdict})"),
        };
        self.refuse(slot, asked, expected, &found)
    }

    fn refuse(&self, slot: Slot, asked: &'static str, expected: &'static str, found: &str) -> Refused {
        Refused { slot, asked, expected, found: found.to_owned() }
    }
}

#[cfg(test)]
mod tests;
