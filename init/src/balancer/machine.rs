//! The machine: events in, decisions out.

use std::net::SocketAddr;
use std::time::Duration;

use super::distance::Distance;
use super::{Times, View, view};

/// Answers in a row after which a server that fell is healthy again.
const RETURN: u32 = 2;

/// What a check of a server found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is ready, and took so long to say so.
    Ready {
        /// From the request to the answer.
        took: Duration,
    },
    /// Its machine answers, but the server not as a ready one does: another status, no answer in time, a certificate that
    /// is not the cluster's.
    Unwell {
        /// What was seen.
        why: String,
    },
    /// Nothing comes back from its machine, or nobody listens there.
    Unreachable {
        /// What was seen.
        why: String,
    },
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Check this server, and report with [`Balancer::found`].
    Check(SocketAddr),
    /// Close every connection to this server, so that the clients connect anew.
    Cut(SocketAddr),
    /// Nothing of this server is left: it is checked no more.
    Forget(SocketAddr),
    /// Write this line to the journal.
    Say(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    Untried,
    Healthy { since: Duration },
    Unwell { since: Duration, why: String },
    Unreachable { since: Duration, why: String },
}

impl Health {
    fn word(&self) -> &'static str {
        match self {
            Health::Untried => "untried",
            Health::Healthy { .. } => "healthy",
            Health::Unwell { .. } => "unwell",
            Health::Unreachable { .. } => "unreachable",
        }
    }
}

/// One server.
#[derive(Debug, Clone)]
struct Server {
    address: SocketAddr,
    health: Health,
    distance: Distance,
    /// Ready answers in a row.
    streak: u32,
    /// When it was last ready.
    answered: Option<Duration>,
    /// When a check last found it not ready.
    failed: Duration,
    /// A connection to it failed since it was last ready.
    doubted: bool,
    /// How often it fell lately.
    falls: u32,
    /// Not healthy before this.
    held: Duration,
    /// When it is to be checked next.
    due: Duration,
    checking: bool,
    /// When the last check began.
    asked: Option<Duration>,
    connections: u32,
    /// When it left the list.
    removed: Option<Duration>,
    rank: u64,
}

impl Server {
    fn is_healthy(&self) -> bool {
        matches!(self.health, Health::Healthy { .. })
    }

    /// The lower, the better for a new connection.
    fn tier(&self) -> u8 {
        match self.health {
            Health::Healthy { .. } if !self.doubted => 0,
            Health::Healthy { .. } => 1,
            _ if self.streak > 0 => 2,
            Health::Untried => 3,
            Health::Unwell { .. } => 4,
            Health::Unreachable { .. } => 5,
        }
    }

    fn order(&self) -> (u8, bool, u64) {
        (self.tier(), self.distance.far, self.rank)
    }

    /// From when on its connections are better cut, if another server serves.
    fn lost_from(&self, times: &Times) -> Option<Duration> {
        match self.health {
            Health::Unreachable { since, .. } => Some(since),
            Health::Unwell { since, .. } => Some(since + times.hung),
            _ => None,
        }
    }

    /// When it began to fail.
    fn failing_since(&self) -> Option<Duration> {
        match self.health {
            Health::Unreachable { since, .. } | Health::Unwell { since, .. } => Some(since),
            _ => None,
        }
    }
}

/// The balancer's mind.
#[derive(Debug)]
pub struct Balancer {
    times: Times,
    salt: u64,
    /// Those of the list in its order, then those that left it.
    servers: Vec<Server>,
    said: Vec<String>,
}

impl Balancer {
    /// Knows no server yet. `salt` is this process's own random number.
    pub fn new(times: Times, salt: u64) -> Self {
        Balancer { times, salt, servers: Vec::new(), said: Vec::new() }
    }

    /// Takes over a new list. What is known of servers in both is kept.
    pub fn listed(&mut self, now: Duration, list: &[SocketAddr]) {
        let mut before = std::mem::take(&mut self.servers);
        for address in list {
            let known = before.iter().position(|server| server.address == *address).map(|at| before.remove(at));
            let mut server = known.unwrap_or_else(|| self.added(now, *address));
            server.removed = None;
            self.servers.push(server);
        }
        for mut server in before {
            if server.removed.is_none() {
                server.removed = Some(now);
                let left = server.connections;
                self.said.push(format!("{} is no API server any more; {left} connections are left", server.address));
            }
            self.servers.push(server);
        }
        self.promote(now);
    }

    fn added(&mut self, now: Duration, address: SocketAddr) -> Server {
        self.said.push(format!("{address} is an API server"));
        Server {
            address,
            health: Health::Untried,
            distance: Distance::default(),
            streak: 0,
            answered: None,
            failed: now,
            doubted: false,
            falls: 0,
            held: now,
            due: now,
            checking: false,
            asked: None,
            connections: 0,
            removed: None,
            rank: rank(self.salt, address),
        }
    }

    /// The server that a new connection should try, after those in `tried`.
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let left = self.servers.iter().filter(|server| server.removed.is_none() && !tried.contains(&server.address));
        left.min_by_key(|server| server.order()).map(|server| server.address)
    }

    /// A connection to a server is being made.
    pub fn opened(&mut self, address: SocketAddr) {
        if let Some(server) = self.known(address) {
            server.connections += 1;
        }
    }

    /// A connection to a server is gone, or was never there.
    pub fn closed(&mut self, address: SocketAddr) {
        if let Some(server) = self.known(address) {
            server.connections = server.connections.saturating_sub(1);
        }
    }

    /// Something says that a server may have failed: others go first until it has answered, and it is asked at once, or
    /// as soon as it was not asked just before.
    pub fn doubt(&mut self, now: Duration, address: SocketAddr) {
        let pause = self.times.check_again;
        if let Some(server) = self.known(address) {
            server.doubted = true;
            let soon = server.asked.map_or(now, |asked| now.max(asked + pause));
            server.due = server.due.min(soon);
        }
    }

    /// A check has ended without a finding, or the connection that it had kept is gone.
    pub fn lost(&mut self, now: Duration, address: SocketAddr) {
        if let Some(server) = self.known(address) {
            server.checking = false;
        }
        self.doubt(now, address);
    }

    /// A check has ended.
    pub fn found(&mut self, now: Duration, address: SocketAddr, finding: Finding) {
        let times = self.times;
        let Some(server) = self.known(address) else { return };
        server.checking = false;
        match finding {
            Finding::Ready { took } => self.ready(now, address, took),
            Finding::Unwell { why } => {
                let since = server.failing_since().unwrap_or(now);
                self.failed(now, address, Health::Unwell { since, why });
            }
            Finding::Unreachable { why } => {
                let since = match server.health {
                    Health::Unreachable { since, .. } => since,
                    _ => now,
                };
                self.failed(now, address, Health::Unreachable { since, why });
            }
        }
        self.promote(now);
        let healthy = self.servers.iter().filter(|server| server.is_healthy() && server.removed.is_none());
        if let Some(nearest) = healthy.filter_map(|server| server.distance.latency).min() {
            for server in &mut self.servers {
                server.distance.compare(now, nearest, times.dwell);
            }
        }
    }

    fn ready(&mut self, now: Duration, address: SocketAddr, took: Duration) {
        let times = self.times;
        let Some(server) = self.known(address) else { return };
        server.distance.measured(took);
        server.streak = server.streak.saturating_add(1);
        server.answered = Some(now);
        server.doubted = false;
        match server.health {
            Health::Healthy { since } if now >= since + times.steady => server.falls = 0,
            Health::Healthy { .. } => {}
            Health::Untried => self.rise(now, address),
            _ if server.streak >= RETURN && now >= server.held => self.rise(now, address),
            _ => {}
        }
        if let Some(server) = self.known(address) {
            server.due = now + if server.is_healthy() { times.check } else { times.check_again };
        }
    }

    fn failed(&mut self, now: Duration, address: SocketAddr, health: Health) {
        let times = self.times;
        let Some(server) = self.known(address) else { return };
        server.streak = 0;
        server.failed = now;
        server.due = now + times.check_again;
        let fell = server.is_healthy();
        if fell {
            server.falls = server.falls.saturating_add(1);
            let doubled = times.hold.saturating_mul(1 << (server.falls - 1).min(16));
            server.held = now + doubled.min(times.longest_hold);
        }
        let news = (server.health.word() != health.word()).then(|| words(address, &health, server.connections));
        server.health = health;
        if fell || news.is_some() {
            // Whether the others still serve decides what becomes of its connections.
            for other in self.servers.iter_mut().filter(|other| other.address != address) {
                other.due = other.due.min(now);
            }
        }
        self.said.extend(news);
    }

    fn rise(&mut self, now: Duration, address: SocketAddr) {
        if let Some(server) = self.known(address) {
            server.health = Health::Healthy { since: now };
            self.said.push(format!("the API server {address} is ready"));
        }
    }

    /// Where no server of the list is healthy, one that answered is, whatever it did before.
    fn promote(&mut self, now: Duration) {
        if self.servers.iter().any(|server| server.removed.is_none() && server.is_healthy()) {
            return;
        }
        let answering = self.servers.iter().filter(|server| server.removed.is_none() && server.streak > 0);
        for address in answering.map(|server| server.address).collect::<Vec<_>>() {
            self.rise(now, address);
        }
    }

    /// What is to be done now. Checks that are asked for here count as begun.
    pub fn act(&mut self, now: Duration) -> Vec<Action> {
        let mut actions: Vec<Action> = std::mem::take(&mut self.said).into_iter().map(Action::Say).collect();
        let lost: Vec<(SocketAddr, u32)> = self
            .servers
            .iter()
            .filter(|server| server.connections > 0 && self.is_lost(now, server))
            .map(|server| (server.address, server.connections))
            .collect();
        for (address, count) in lost {
            actions.push(Action::Say(format!("{count} connections to {address} are cut; their clients connect anew")));
            actions.push(Action::Cut(address));
        }
        let gone = |server: &Server| server.removed.is_some() && server.connections == 0;
        actions.extend(self.servers.iter().filter(|server| gone(server)).map(|server| Action::Forget(server.address)));
        self.servers.retain(|server| !gone(server));
        for server in self.servers.iter_mut().filter(|server| !server.checking && now >= server.due) {
            server.checking = true;
            server.asked = Some(now);
            actions.push(Action::Check(server.address));
        }
        actions
    }

    fn is_lost(&self, now: Duration, server: &Server) -> bool {
        if server.removed.is_some_and(|removed| now >= removed + self.times.drain) {
            return true;
        }
        let (Some(from), Some(failing)) = (server.lost_from(&self.times), server.failing_since()) else { return false };
        let serves = |other: &Server| match other.health {
            // One that was down itself, as all are when this machine has no network, is worth a cut only if this server
            // has failed once more since.
            Health::Healthy { since } => {
                let answers = other.answered.is_some_and(|answered| answered > failing);
                answers && other.removed.is_none() && (since <= failing || server.failed > since)
            }
            _ => false,
        };
        now >= from && self.servers.iter().any(|other| other.address != server.address && serves(other))
    }

    /// When [`Balancer::act`], which was just called, has something to do next, if nothing happens before.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        let checks = self.servers.iter().filter(|server| !server.checking).map(|server| server.due);
        let used = self.servers.iter().filter(|server| server.connections > 0);
        let ends = used.flat_map(|server| {
            [server.removed.map(|removed| removed + self.times.drain), server.lost_from(&self.times)]
        });
        // What has passed, and could not be acted on as no other server serves, wakes nobody.
        checks.chain(ends.flatten().filter(|end| *end > now)).min()
    }

    /// What it thinks.
    pub fn view(&self) -> View {
        let preferred = self.pick(&[]);
        let seen = |server: &Server| view::Seen {
            address: server.address.to_string(),
            health: server.health.word().to_owned(),
            why: match &server.health {
                Health::Unwell { why, .. } | Health::Unreachable { why, .. } => Some(why.clone()),
                _ => None,
            },
            preferred: preferred == Some(server.address),
            far: server.distance.far,
            draining: server.removed.is_some(),
        };
        View { format: View::FORMAT, servers: self.servers.iter().map(seen).collect() }
    }

    fn known(&mut self, address: SocketAddr) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.address == address)
    }
}

fn words(address: SocketAddr, health: &Health, connections: u32) -> String {
    match health {
        Health::Unwell { why, .. } => format!("the API server {address} is not ready: {why}"),
        Health::Unreachable { why, .. } => {
            format!("the API server {address} can't be reached: {why}; {connections} connections to it are open")
        }
        Health::Untried | Health::Healthy { .. } => format!("the API server {address} is ready"),
    }
}

/// A server's place in this process's own order: FNV-1a over salt and address, then mixed, so that neighbours part.
fn rank(salt: u64, address: SocketAddr) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in salt.to_be_bytes().into_iter().chain(address.to_string().into_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}
