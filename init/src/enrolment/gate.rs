//! Who may be connected to a server at once, so that a crowd of strangers does not keep an honest machine out.
//!
//! When all places are taken a newcomer is not refused: a connection that has shown no fingerprint has to go. Of those that
//! have said nothing and those that speak TLS it is the oldest of whichever are more. So neither kind can leave the other
//! without places, and an honest machine, which passes through both, has shown a fingerprint long before its turn comes;
//! who opens connections and says nothing, or speaks TLS and says no more, crowds out only his like.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::pace::Pace;

/// How many, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once.
    pub all: usize,
    /// Connections of one source at once.
    pub of_one: usize,
    /// Connections that one source may open in a burst…
    pub burst: u32,
    /// …and how many more each second.
    pub each_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { all: 256, of_one: 16, burst: 64, each_second: 4 }
    }
}

/// Which connection.
pub type Id = u64;

/// What a connection has shown so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing.
    Open,
    /// It speaks TLS.
    Spoke,
    /// It knows a fingerprint of this cluster.
    Knows,
    /// It has a token or a node key that is accepted: it is never dropped.
    Accepted,
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It comes in, and the other connection has to go, if one is named.
    Admitted {
        /// The newcomer's.
        id: Id,
        /// Who goes.
        dropped: Option<Id>,
    },
    /// Its source opens connections too fast.
    TooFast,
    /// Everybody who is here has been accepted; or as many as may be here have had to go and have not ended yet.
    Full,
}

/// Where somebody comes from: an IPv4 address, or the half of an IPv6 address that names a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Source(u128);

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Source(u128::from(u32::from(v4))),
            IpAddr::V6(v6) => Source(u128::from(v6) >> 64 << 64 | 1 << 63),
        }
    }
}

/// The places and who has them.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    next: Id,
    here: BTreeMap<Id, (Source, Stage)>,
    /// Who had to go while something may have been done for it in the cluster, which ends in its own time. Who had shown
    /// less waits for a message, and ends at once.
    going: BTreeSet<Id>,
    pace: Pace<Source>,
}

impl Gate {
    /// Nobody is here.
    pub fn new(limits: Limits) -> Self {
        let pace = Pace::new(limits.burst, limits.each_second);
        Gate { limits, next: 0, here: BTreeMap::new(), going: BTreeSet::new(), pace }
    }

    /// How many are here.
    pub fn count(&self) -> usize {
        self.here.len()
    }

    /// Somebody opens a connection at `now`, on any clock that only runs forward.
    pub fn arrive(&mut self, now: Duration, from: IpAddr) -> Arrival {
        let source = Source::of(from);
        if !self.pace.allow(now, source) {
            return Arrival::TooFast;
        }
        if self.going.len() >= self.limits.all {
            return Arrival::Full;
        }
        let of_one = self.here.values().filter(|(other, _)| *other == source).count();
        let dropped = if of_one >= self.limits.of_one {
            self.next_to_go(|other| other == source)
        } else if self.here.len() >= self.limits.all {
            self.next_to_go(|_| true)
        } else {
            return Arrival::Admitted { id: self.enter(source), dropped: None };
        };
        match dropped {
            None => Arrival::Full,
            Some(dropped) => {
                if self.here.remove(&dropped).is_some_and(|(_, stage)| stage >= Stage::Knows) {
                    self.going.insert(dropped);
                }
                Arrival::Admitted { id: self.enter(source), dropped: Some(dropped) }
            }
        }
    }

    /// A connection has shown more. False when it had to go meanwhile.
    pub fn advance(&mut self, id: Id, stage: Stage) -> bool {
        let known = self.here.get_mut(&id);
        known.map(|(_, before)| *before = stage.max(*before)).is_some()
    }

    /// A connection has ended.
    pub fn leave(&mut self, id: Id) {
        self.here.remove(&id);
        self.going.remove(&id);
    }

    fn enter(&mut self, source: Source) -> Id {
        self.next += 1;
        self.here.insert(self.next, (source, Stage::Open));
        self.next
    }

    /// Who came first of those without a fingerprint, at the stage that more of them are at; else of those with one.
    ///
    /// Were it always one that has said nothing, those who speak TLS and say no more would fill the places but for one,
    /// and no newcomer would get through its handshake before the next came.
    fn next_to_go(&self, of: impl Fn(Source) -> bool) -> Option<Id> {
        let at = |stage: Stage| {
            self.here.iter().filter(|(_, (source, _))| of(*source)).filter(move |(_, (_, shown))| *shown == stage)
        };
        let crowded = if at(Stage::Spoke).count() > at(Stage::Open).count() { Stage::Spoke } else { Stage::Open };
        [crowded, Stage::Knows].into_iter().find_map(|stage| at(stage).next()).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::REMEMBERED;
    use super::*;

    fn source(number: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + number).into())
    }

    fn admitted(arrival: Arrival) -> (Id, Option<Id>) {
        match arrival {
            Arrival::Admitted { id, dropped } => (id, dropped),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_thousand_strangers_do_not_crowd_out_a_machine_that_has_shown_something() {
        let mut gate = Gate::new(Limits::default());
        for number in 0..300 {
            gate.arrive(Duration::ZERO, source(number));
        }
        let (honest, dropped) = admitted(gate.arrive(Duration::ZERO, source(9_000)));
        assert!(dropped.is_some_and(|id| id < honest));
        assert!(gate.advance(honest, Stage::Spoke));
        for number in 1000..2000 {
            let (_, dropped) = admitted(gate.arrive(Duration::ZERO, source(number)));
            assert_ne!(dropped, Some(honest));
            assert!(gate.count() <= 256);
        }
        assert!(gate.advance(honest, Stage::Accepted));
        gate.leave(honest);
        assert!(!gate.advance(honest, Stage::Accepted));
    }

    #[test]
    fn who_speaks_tls_and_says_no_more_leaves_room_for_handshakes() {
        let mut gate = Gate::new(Limits::default());
        for number in 0..1000 {
            let (id, _) = admitted(gate.arrive(Duration::ZERO, source(number)));
            gate.advance(id, Stage::Spoke);
        }
        let (honest, _) = admitted(gate.arrive(Duration::ZERO, source(9_000)));
        for number in 1000..1120 {
            assert_ne!(admitted(gate.arrive(Duration::ZERO, source(number))).1, Some(honest));
        }
        assert!(gate.advance(honest, Stage::Spoke), "a hundred came while it was in its handshake");
        for number in 2000..2120 {
            let (id, dropped) = admitted(gate.arrive(Duration::ZERO, source(number)));
            assert_ne!(dropped, Some(honest));
            gate.advance(id, Stage::Spoke);
        }
        assert!(
            gate.advance(honest, Stage::Knows),
            "and a hundred got through theirs before it had shown a fingerprint"
        );
        for number in 3000..5000 {
            assert_ne!(admitted(gate.arrive(Duration::ZERO, source(number))).1, Some(honest));
        }
    }

    #[test]
    fn those_who_have_shown_more_stay_longer_and_the_accepted_stay() {
        let mut gate = Gate::new(Limits { all: 3, ..Limits::default() });
        let ids = [1, 2, 3].map(|number| admitted(gate.arrive(Duration::ZERO, source(number))).0);
        gate.advance(ids[0], Stage::Knows);
        gate.advance(ids[1], Stage::Accepted);
        assert_eq!(admitted(gate.arrive(Duration::ZERO, source(4))).1, Some(ids[2]));
        let (fourth, dropped) = admitted(gate.arrive(Duration::ZERO, source(5)));
        assert_eq!(dropped, Some(fourth - 1), "the one that came before it has shown nothing either");
        gate.advance(fourth, Stage::Accepted);
        assert_eq!(admitted(gate.arrive(Duration::ZERO, source(6))).1, Some(ids[0]));
        gate.advance(fourth + 1, Stage::Accepted);
        assert_eq!(gate.arrive(Duration::ZERO, source(7)), Arrival::Full);
    }

    #[test]
    fn one_source_crowds_out_only_itself() {
        let mut gate = Gate::new(Limits { of_one: 2, ..Limits::default() });
        let (other, _) = admitted(gate.arrive(Duration::ZERO, source(1)));
        let (first, _) = admitted(gate.arrive(Duration::ZERO, source(2)));
        gate.arrive(Duration::ZERO, source(2));
        assert_eq!(admitted(gate.arrive(Duration::ZERO, source(2))).1, Some(first));
        assert!(gate.advance(other, Stage::Spoke));
        let (v6, near) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let (first, _) = admitted(gate.arrive(Duration::ZERO, v6));
        gate.arrive(Duration::ZERO, near);
        assert_eq!(admitted(gate.arrive(Duration::ZERO, near)).1, Some(first), "one network of IPv6 is one source");
        assert_eq!(Source::of("::ffff:10.0.0.1".parse().unwrap()), Source::of(source(1)));
    }

    #[test]
    fn a_source_that_comes_too_fast_waits_and_others_do_not() {
        let mut gate = Gate::new(Limits { burst: 3, each_second: 2, ..Limits::default() });
        let mut come = |now: u64, from: u32| match gate.arrive(Duration::from_millis(now), source(from)) {
            Arrival::Admitted { id, .. } => {
                gate.leave(id);
                true
            }
            _ => false,
        };
        assert_eq!([0, 0, 0, 0, 499, 500, 501].map(|now| come(now, 1)), [true, true, true, false, false, true, false]);
        assert!(come(501, 2));
        assert_eq!([9000; 4].map(|now| come(now, 1)), [true, true, true, false]);
    }

    #[test]
    fn who_had_to_go_and_does_not_end_makes_newcomers_wait() {
        let mut gate = Gate::new(Limits { all: 2, ..Limits::default() });
        let ids = [1, 2, 3, 4].map(|number| {
            let (id, _) = admitted(gate.arrive(Duration::ZERO, source(number)));
            assert!(gate.advance(id, Stage::Knows));
            id
        });
        assert_eq!(gate.count(), 2);
        assert_eq!(gate.arrive(Duration::ZERO, source(5)), Arrival::Full, "two are here, and two have not ended");
        assert!(!gate.advance(ids[0], Stage::Knows), "nothing more is done for who had to go");
        gate.leave(ids[0]);
        assert_eq!(admitted(gate.arrive(Duration::ZERO, source(5))).1, Some(ids[2]));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut gate = Gate::new(Limits::default());
        for number in 0..10_000 {
            let (id, _) = admitted(gate.arrive(Duration::from_millis(number.into()), source(number)));
            gate.leave(id);
        }
        assert_eq!((gate.pace.remembered(), gate.count()), (REMEMBERED, 0));
    }
}
