//! A worker and its API servers, simulated: seeded weather for the servers, a virtual clock, and invariants after every
//! event. The seeds are always the same ones, so a failure repeats.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;

/// One turn of the clock.
const STEP: Duration = Duration::from_millis(50);
/// How long the shell takes to find that nothing comes back.
const SILENCE: Duration = Duration::from_millis(3000);
/// How many clients the worker has.
const CLIENTS: usize = 20;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Fine,
    /// It answers that it is not ready.
    Unready,
    /// Its machine is off, since then.
    Gone(Duration),
}

struct World {
    random: Random,
    now: Duration,
    balancer: Balancer,
    weather: BTreeMap<SocketAddr, Weather>,
    base: BTreeMap<SocketAddr, u64>,
    list: Vec<SocketAddr>,
    checks: Vec<(Duration, SocketAddr, Finding)>,
    /// Each client's server, or when it tries again.
    clients: Vec<Result<SocketAddr, Duration>>,
    /// How often the preferred server changed.
    turns: u32,
    preferred: Option<SocketAddr>,
}

impl World {
    fn new(seed: u64, servers: u8) -> Self {
        let list: Vec<SocketAddr> = (1..=servers).map(|last| SocketAddr::from(([192, 0, 2, last], 6443))).collect();
        let mut random = Random(seed);
        let base = list.iter().map(|address| (*address, 1 + random.below(4))).collect();
        let mut balancer = Balancer::new(Times::REAL, seed);
        balancer.listed(Duration::ZERO, &list);
        World {
            random,
            now: Duration::ZERO,
            balancer,
            weather: list.iter().map(|address| (*address, Weather::Fine)).collect(),
            base,
            list,
            checks: Vec::new(),
            clients: vec![Err(Duration::ZERO); CLIENTS],
            turns: 0,
            preferred: None,
        }
    }

    /// One turn: checks end, clients connect, the balancer acts, and what must hold is looked at.
    fn step(&mut self) {
        self.now += STEP;
        let (done, left) = std::mem::take(&mut self.checks).into_iter().partition(|(end, ..)| *end <= self.now);
        self.checks = left;
        let done: Vec<(Duration, SocketAddr, Finding)> = done;
        for (_, address, finding) in done {
            self.balancer.found(self.now, address, finding);
        }
        self.connect();
        for action in self.balancer.act(self.now) {
            match action {
                Action::Check(address) => self.check(address),
                Action::Cut(address) => self.cut(address),
                Action::Forget(_) | Action::Say(_) => {}
            }
        }
        let wake = self.balancer.wake(self.now);
        assert!(wake.is_none_or(|wake| wake > self.now), "the loop would spin: {wake:?} at {:?}", self.now);
        let first = self.balancer.pick(&[]);
        if first != self.preferred {
            self.turns += 1;
            self.preferred = first;
        }
        self.look();
    }

    fn check(&mut self, address: SocketAddr) {
        let noise = self.random.below(3);
        let took = Duration::from_millis(self.base[&address] + noise);
        let (end, finding) = match self.weather[&address] {
            Weather::Fine => (took, Finding::Ready { took }),
            Weather::Unready => (took, Finding::Unwell { why: "500".into() }),
            // The kernel watches the connection of the check: so long after the last packet it is given up.
            Weather::Gone(since) => {
                let left = (since + SILENCE).saturating_sub(self.now).min(SILENCE);
                (left.max(Duration::from_millis(1500).min(SILENCE)), Finding::Unreachable { why: "silence".into() })
            }
        };
        self.checks.push((self.now + end, address, finding));
    }

    fn connect(&mut self) {
        for at in 0..self.clients.len() {
            if !matches!(self.clients[at], Err(next) if next <= self.now) {
                continue;
            }
            let mut tried = Vec::new();
            // The shell waits a second for each; here that is one client's business.
            while let Some(address) = self.balancer.pick(&tried) {
                if matches!(self.weather[&address], Weather::Gone(_)) {
                    self.balancer.doubt(self.now, address);
                    tried.push(address);
                    continue;
                }
                self.balancer.opened(address);
                self.clients[at] = Ok(address);
                break;
            }
            if self.clients[at].is_err() {
                self.clients[at] = Err(self.now + Duration::from_secs(1));
            }
        }
    }

    fn cut(&mut self, address: SocketAddr) {
        for client in self.clients.iter_mut().filter(|client| **client == Ok(address)) {
            *client = Err(self.now);
            self.balancer.closed(address);
        }
    }

    /// The machine of a server is switched off.
    fn kill(&mut self, address: SocketAddr) {
        self.weather.insert(address, Weather::Gone(self.now));
        // The kernel notices on the connection of the check that lies idle.
        self.checks.retain(|(_, of, _)| *of != address);
        self.checks.push((self.now + SILENCE, address, Finding::Unreachable { why: "silence".into() }));
    }

    /// What must hold after every event.
    fn look(&self) {
        let first = self.balancer.pick(&[]);
        assert_eq!(first.is_none(), self.list.is_empty(), "while a server is listed there is one to try");
        assert!(first.is_none_or(|first| self.list.contains(&first)), "only servers of the list are tried");
        let view = self.balancer.view();
        let healthy = |address: SocketAddr| {
            view.servers.iter().any(|seen| seen.address == address.to_string() && seen.health == "healthy")
        };
        if self.list.iter().any(|address| healthy(*address)) {
            assert!(first.is_some_and(healthy), "a healthy server goes before every other");
        }
    }

    fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while self.now < end {
            self.step();
        }
    }

    fn on(&self, address: SocketAddr) -> usize {
        self.clients.iter().filter(|client| **client == Ok(address)).count()
    }
}

#[test]
fn the_death_of_any_one_of_three_is_over_within_five_seconds() {
    for seed in 0..60 {
        let mut world = World::new(seed, 3);
        world.run(Duration::from_secs(5 + seed % 7));
        let victim = world.preferred.filter(|_| seed % 3 > 0).unwrap_or(world.list[0]);
        world.kill(victim);
        let died = world.now;
        while world.on(victim) > 0 || world.preferred == Some(victim) || world.clients.iter().any(Result::is_err) {
            world.step();
            assert!(world.now - died < Duration::from_secs(5), "seed {seed}: {} clients hang", world.on(victim));
        }
        world.run(Duration::from_secs(20));
        assert!(world.clients.iter().all(Result::is_ok), "seed {seed}");
    }
}

#[test]
fn servers_that_are_equally_near_do_not_take_turns() {
    for seed in 0..8 {
        let mut world = World::new(seed, 3);
        world.run(Duration::from_secs(1));
        let before = world.turns;
        world.run(Duration::from_secs(600));
        assert_eq!(world.turns, before, "seed {seed}");
    }
}

#[test]
fn a_server_that_comes_and_goes_is_left_alone_for_longer_and_longer() {
    for seed in 0..8 {
        let mut world = World::new(seed, 2);
        world.run(Duration::from_secs(10));
        let unsteady = world.preferred.unwrap();
        for _ in 0..60 {
            world.weather.insert(unsteady, Weather::Unready);
            world.run(Duration::from_secs(3));
            world.weather.insert(unsteady, Weather::Fine);
            world.run(Duration::from_secs(3));
        }
        assert!(world.turns < 30, "seed {seed}: {} turns in six minutes", world.turns);
    }
}

#[test]
fn in_any_weather_what_must_hold_holds_and_in_calm_everything_is_healthy_again() {
    for seed in 0..30 {
        let mut world = World::new(seed, 1 + u8::try_from(seed % 5).unwrap());
        let all = world.list.clone();
        for _ in 0..40 {
            let address = all[usize::try_from(world.random.below(all.len() as u64)).unwrap()];
            match world.random.below(4) {
                0 => world.kill(address),
                1 => _ = world.weather.insert(address, Weather::Unready),
                2 => _ = world.weather.insert(address, Weather::Fine),
                _ if world.list.len() > 1 => {
                    world.list.retain(|kept| *kept != address);
                    world.balancer.listed(world.now, &world.list.clone());
                }
                _ => {
                    world.list.clone_from(&all);
                    world.balancer.listed(world.now, &all);
                }
            }
            let pause = world.random.below(8000);
            world.run(Duration::from_millis(pause));
        }
        world.list.clone_from(&all);
        world.balancer.listed(world.now, &all);
        world.weather.values_mut().for_each(|weather| *weather = Weather::Fine);
        world.run(Duration::from_secs(60));
        assert!(world.balancer.view().servers.iter().all(|seen| seen.health == "healthy"), "seed {seed}");
        assert_eq!(world.balancer.view().servers.len(), all.len(), "seed {seed}: removed servers are forgotten");
        assert!(world.clients.iter().all(Result::is_ok), "seed {seed}");
    }
}
