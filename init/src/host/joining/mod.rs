//! Asks control planes to make this machine a node, or to renew what it has as one: the driver of
//! [`crate::enrolment::joiner`].

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use zeroize::Zeroizing;

use super::enrolment::channel::{Broken, Channel, Times};
use super::enrolment::tls;
use super::etcd::Word;
use super::keys::{self, Ed25519};
use super::root::Root;
use super::{clock, discovery, files, random, systemd, wait};
use crate::certificates::Unix;
use crate::certificates::profile::of_every_node;
use crate::discovery::{Found, Key, words as found};
use crate::enrolment::Sign as _;
use crate::enrolment::failure::Failure;
use crate::enrolment::joiner::{Credential, Enrolled, Event, Joiner, Machine, Step};
use crate::enrolment::message::Purpose;
use crate::enrolment::objects;
use crate::enrolment::seeking::{self, ADDRESSES, About, HOSTS, Host, Trouble};
use crate::paths;
use crate::plan::record::{Cluster, Endpoints, Node};
use crate::release::Version;
use crate::settings::frozen::{Difference, Frozen};
use crate::settings::shared;
use crate::token::{JoinToken, SECRET, fingerprint};
use crate::words::{self, Block};

/// Pauses between rounds: from this…
const FIRST: Duration = Duration::from_secs(1);
/// …doubled up to this; with jitter 15 s.
const LAST: Duration = Duration::from_secs(12);
/// How long a machine listens for all control planes of the local network, and for those of another cluster.
const SEARCH: Duration = Duration::from_secs(1);
/// Texts that are remembered as said, at most.
const SAID: usize = 16;
/// Messages that a joiner sends in one exchange, at most.
const MESSAGES: usize = 2;

/// By what a machine is admitted.
pub enum By {
    /// A token: it is no node yet.
    Token(JoinToken),
    /// Its node key: it is a node of this cluster.
    NodeKey(Cluster),
}

impl By {
    fn credential(&self) -> Credential {
        match self {
            By::Token(token) => Credential::Token(token.clone()),
            By::NodeKey(_) => Credential::Node { fingerprint: self.fingerprint() },
        }
    }

    /// Of the key that vouches for the cluster.
    fn fingerprint(&self) -> [u8; SECRET] {
        match self {
            By::Token(token) => *token.fingerprint(),
            By::NodeKey(cluster) => fingerprint(&cluster.identity()),
        }
    }

    fn purpose(&self) -> Purpose {
        match self {
            By::Token(token) => Purpose::Join(token.joiner()),
            By::NodeKey(_) => Purpose::Return,
        }
    }
}

/// What a control plane has granted. Holds secrets: no Debug.
pub struct Granted {
    /// Who the cluster is, and what it gives.
    pub enrolled: Box<Enrolled>,
    /// The private keys of its certificates, PEM, in their order.
    pub keys: [Zeroizing<String>; 4],
    /// The settings to freeze: the machine's own, and those that the cluster's nodes share.
    pub frozen: Frozen,
    /// What of its own does not hold.
    pub differences: Vec<Difference>,
}

/// Who knows a key; or why that can't be found out.
type Search = Box<dyn Fn(&Key) -> Result<Found, String>>;

/// A machine that asks. Holds secrets: no Debug.
pub struct Asker {
    by: By,
    node: Node,
    release: Version,
    hosts: Vec<Host>,
    /// Looks on the local network for who knows a key.
    search: Search,
    own: Frozen,
    node_key: Ed25519,
    requests: [Vec<u8>; 4],
    keys: [Zeroizing<String>; 4],
    tls: Arc<ClientConfig>,
    times: Times,
    /// Pauses between rounds: the first, and the longest before jitter.
    pauses: (Duration, Duration),
    clock: fn() -> Unix,
}

impl Asker {
    /// Prepares to ask for the node. Its key is on disk already. `own` are the machine's settings. Without hosts, and for a
    /// node whose hosts do not answer, it looks on the local network, except where the settings say whom to join through.
    ///
    /// # Errors
    /// In words: the node key can't be read, or no key or TLS configuration can be made.
    pub fn new(
        root: &Root,
        by: By,
        node: &Node,
        release: Version,
        hosts: Vec<Host>,
        own: Frozen,
    ) -> Result<Self, String> {
        let pem = files::read_optional(&root.path(paths::NODE_KEY));
        let pem = pem.map_err(|error| format!("read {}: {error}", paths::NODE_KEY))?.map(Zeroizing::new);
        let pem = pem.ok_or_else(|| format!("{} is missing", paths::NODE_KEY))?;
        let node_key = Ed25519::load(&pem).map_err(|error| format!("{}: {error}", paths::NODE_KEY))?;
        let (mut requests, mut keys) = (<[Vec<u8>; 4]>::default(), <[Zeroizing<String>; 4]>::default());
        for (index, (_, request)) in of_every_node(&node.name, node.address, &node_key.public()).iter().enumerate() {
            (requests[index], keys[index]) = keys::signing_request(request).map_err(|error| error.to_string())?;
        }
        let tls = tls::client().map_err(|error| error.to_string())?;
        let (node, times, pauses, clock) = (node.clone(), Times::default(), (FIRST, LAST), clock::unix);
        let address = node.address;
        let search: Search = Box::new(move |key| discovery::look(address, key, SEARCH));
        Ok(Asker { by, node, release, hosts, search, own, node_key, requests, keys, tls, times, pauses, clock })
    }

    fn about(&self) -> About<'_> {
        About { purpose: self.by.purpose(), name: &self.node.name, release: self.release }
    }

    /// Asks until a control plane admits the machine, as long as it takes. `say` hears of each new reason for waiting.
    ///
    /// # Errors
    /// What a control plane refuses for good, for people.
    pub fn ask(self, mut say: impl FnMut(&Block)) -> Result<Granted, Block> {
        let mut backoff = wait::Backoff::new(self.pauses.0, self.pauses.1);
        let mut said: Vec<String> = Vec::new();
        loop {
            let troubles = match self.round() {
                Ok(admitted) => return self.granted(admitted),
                Err(troubles) => troubles,
            };
            let block = seeking::block(&troubles, &self.about());
            if seeking::is_final(&troubles) {
                return Err(block);
            }
            let line = block.line();
            if !said.iter().any(|before| words::same_but_for_figures(before, &line)) {
                said.truncate(SAID - 1);
                said.insert(0, line);
                say(&block);
            }
            backoff.pause();
        }
    }

    /// Asks every control plane once.
    ///
    /// # Errors
    /// Why none has admitted the machine, for people.
    pub fn ask_once(self) -> Result<Granted, Block> {
        match self.round() {
            Ok(admitted) => self.granted(admitted),
            Err(troubles) => Err(seeking::block(&troubles, &self.about())),
        }
    }

    /// Every host; where that leads nowhere and none was named by hand, those on the local network.
    fn round(&self) -> Result<Admitted, Vec<Trouble>> {
        let mut troubles = match self.hosts.is_empty() {
            true => Vec::new(),
            false => match self.ask_all(&self.hosts) {
                Ok(admitted) => return Ok(admitted),
                Err(troubles) => troubles,
            },
        };
        if !self.own.settings.join.is_empty() || !troubles.iter().all(Trouble::is_silence) {
            return Err(troubles);
        }
        match self.found() {
            Ok(hosts) => self.ask_all(&hosts),
            // For a node that nobody answers is the news, not that nobody else does.
            Err(_) if !troubles.is_empty() => Err(troubles),
            Err(trouble) => {
                troubles.push(trouble);
                Err(troubles)
            }
        }
    }

    /// The control planes on the local network.
    fn found(&self) -> Result<Vec<Host>, Trouble> {
        systemd::alive();
        let (place, own) = (found::place(self.node.address), self.node.address.to_string());
        let mut found = match (self.search)(&Key::of(&self.by.fingerprint())) {
            Ok(found) => found,
            Err(why) => return Err(Trouble::Unfound { place, why: Some(why) }),
        };
        // A node knows its cluster: whoever else answers is of no account.
        if let By::NodeKey(cluster) = &self.by
            && let Some(id) = objects::unhex(&cluster.id)
        {
            found.retain(|cluster| *cluster == id);
        }
        match found.clusters().len() {
            0 => Err(Trouble::Unfound { place, why: None }),
            // A control plane that comes back hears itself.
            1 => match found.hosts().into_iter().filter(|host| host.name != own).collect::<Vec<_>>() {
                hosts if hosts.is_empty() => Err(Trouble::Unfound { place, why: None }),
                hosts => Ok(hosts),
            },
            _ => Err(Trouble::Several { clusters: found.words() }),
        }
    }

    /// Asks every control plane once whether the machine is a node of the cluster, and where the API servers are.
    pub fn is_node(self) -> Word {
        match self.round() {
            Ok(admitted) => Word::Yes(Endpoints::of(admitted.enrolled.grant.endpoints.iter().copied())),
            Err(troubles) => {
                let block = seeking::block(&troubles, &self.about());
                if seeking::is_final(&troubles) { Word::No(block) } else { Word::Later(block.line()) }
            }
        }
    }

    /// Every address of every host, each once, until one admits the machine.
    fn ask_all(&self, hosts: &[Host]) -> Result<Admitted, Vec<Trouble>> {
        let mut troubles = Vec::new();
        for host in hosts.iter().take(HOSTS) {
            // Each name and each exchange is bounded; all of them together may take longer than the agent's watchdog allows.
            systemd::alive();
            let addresses = match resolve(host) {
                Ok(addresses) => addresses,
                Err(why) => {
                    troubles.push(Trouble::Unresolved { name: host.name.clone(), why });
                    continue;
                }
            };
            for address in addresses {
                systemd::alive();
                match self.exchange(&address) {
                    Ok(enrolled) => return Ok(Admitted { server: address.to_string(), enrolled }),
                    Err(trouble) => troubles.push(trouble),
                }
            }
        }
        Err(troubles)
    }

    /// One exchange with one server.
    fn exchange(&self, address: &SocketAddr) -> Result<Box<Enrolled>, Trouble> {
        let server = address.to_string();
        let unreachable = |broken: Broken| Trouble::Unreachable { server: server.clone(), why: broken.to_string() };
        let mut channel = Channel::connect(address, self.tls.clone(), self.times).map_err(unreachable)?;
        let machine = Machine {
            name: self.node.name.clone(),
            address: self.node.address,
            release: self.release,
            requests: self.requests.clone(),
        };
        let exporter = channel.exporter();
        let (mut joiner, hello) =
            Joiner::start(machine, self.by.credential(), &self.node_key, exporter, random::bytes());
        let mut message = Zeroizing::new(hello);
        for _ in 0..MESSAGES {
            let answer = channel.send(&message).and_then(|()| channel.receive(joiner.most()));
            let event = match &answer {
                Ok(bytes) => Event::Message(bytes),
                Err(Broken::TimedOut) => Event::TimedOut,
                Err(Broken::Long(malformed)) => {
                    return Err(Trouble::Failed { server, failure: Failure::Nonsense(*malformed) });
                }
                Err(Broken::Closed | Broken::Failed(_)) => Event::Closed,
            };
            match joiner.handle((self.clock)(), &event) {
                Step::Send(next) => message = next,
                Step::Enrolled(enrolled) => {
                    channel.close();
                    return Ok(enrolled);
                }
                Step::Failed(failure) => return Err(Trouble::Failed { server, failure }),
            }
        }
        let failure = Failure::Unexpected { expected: "grant", found: "one message more" };
        Err(Trouble::Failed { server, failure })
    }

    /// What was granted, with the settings that hold from now on.
    fn granted(self, admitted: Admitted) -> Result<Granted, Block> {
        let Admitted { server, enrolled } = admitted;
        let shared = shared::read(&enrolled.grant.settings)
            .map_err(|why| seeking::block(&[Trouble::Unusable { server, why }], &self.about()))?;
        let (frozen, differences) = shared.over(&self.own);
        Ok(Granted { enrolled, keys: self.keys, frozen, differences })
    }
}

/// Who admitted the machine, and what it gave.
struct Admitted {
    server: String,
    enrolled: Box<Enrolled>,
}

/// The addresses of a host. How long a name server may take is the resolver's to bound (resolv.conf(5)).
pub(crate) fn resolve(host: &Host) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, host.port)]);
    }
    let found = (host.name.as_str(), host.port).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.take(ADDRESSES * 4) {
        if !addresses.contains(&address) && addresses.len() < ADDRESSES {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err("it has none".to_owned()) } else { Ok(addresses) }
}

/// The addresses of a host; none when its name leads nowhere now.
pub fn addresses(host: &Host) -> Vec<IpAddr> {
    systemd::alive();
    resolve(host).unwrap_or_default().iter().map(SocketAddr::ip).collect()
}

/// Whom a node asks that comes back: the control planes that it knows of, then those that it was told to join through.
pub fn known_hosts(root: &Root, join: &[String]) -> Vec<Host> {
    let bytes = files::read_optional(&root.path(paths::ENDPOINTS)).ok().flatten().unwrap_or_default();
    // A record that can't be read names nobody; the next answer of a control plane replaces it.
    let servers = Endpoints::parse(&bytes).map(|record| record.servers).unwrap_or_default();
    let known = servers.iter().map(|server| Host::at(server.ip()));
    let mut hosts: Vec<Host> = Vec::new();
    for host in known.chain(hosts_of(join)) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

/// Whom a node asks that comes back, for people: `hosts`, and where they are sought if none was named by hand.
pub fn whom(hosts: &[Host], join: &[String], own: IpAddr) -> String {
    let mut names: Vec<String> = hosts.iter().take(HOSTS).map(ToString::to_string).collect();
    if join.is_empty() {
        names.push(found::place(own));
    }
    names.join(", ")
}

/// The hosts of the setting `join`.
pub fn hosts_of(join: &[String]) -> Vec<Host> {
    join.iter().map(|text| text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {})).collect()
}

#[cfg(test)]
pub(crate) mod real;
#[cfg(test)]
mod tests;
