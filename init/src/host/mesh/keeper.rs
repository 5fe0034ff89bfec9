//! What the agent does for the mesh, in its own thread: says where to look for it, publishes what the cluster says, has a
//! new key made after a removal, and gets the key by enrolment when the mesh does not give it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Config, Handle, Order, Standing, disk, start};
use crate::enrolment::objects;
use crate::enrolment::seeking::Host;
use crate::enrolment::taking::{Answer, Call};
use crate::host::enrolment::store::Objects;
use crate::host::node::ThisNode;
use crate::host::root::Root;
use crate::host::{clock, joining, renewal};
use crate::mesh::publish::Wanted;
use crate::mesh::rekeying::{self, Mine, Next, Rekeying};
use crate::mesh::{NodeId, PORT};
use crate::plan::record::Endpoints;

/// How long nobody is heard before the key is asked for by enrolment, and between the first two times.
const ALONE: Duration = Duration::from_secs(60);
/// Longest pause between them: a cluster's nodes that are all alone must not keep its control planes busy.
const ALONE_LAST: Duration = Duration::from_secs(900);

/// The agent's part in the mesh.
pub struct Keeper {
    root: Root,
    this: ThisNode,
    handle: Handle,
    /// Where the mesh was told to look.
    seeds: Vec<SocketAddr>,
    /// A key that this control plane makes.
    mine: Option<Mine>,
    /// When the key is asked for next, and the pause after that.
    ask_at: Duration,
    pause: Duration,
}

impl Keeper {
    /// Starts the mesh's thread.
    ///
    /// # Errors
    /// In words: the cluster's record is damaged, or there is no thread.
    pub fn new(root: &Root, this: &ThisNode) -> Result<Self, String> {
        let log = Box::new(|line: &str| println!("{line}"));
        let handle = start(Config::of(root, this)?, log)?;
        let (root, this, seeds) = (root.clone(), this.clone(), Vec::new());
        let mut keeper = Keeper { root, this, handle, seeds, mine: None, ask_at: Duration::ZERO, pause: ALONE };
        keeper.look(None);
        Ok(keeper)
    }

    /// How the mesh stands.
    pub fn standing(&self) -> Standing {
        self.handle.standing()
    }

    /// Does what is due. `servers` are the API servers, `objects` those of the cluster; both only a control plane has.
    ///
    /// # Errors
    /// In words: a call of the API, or an object that is damaged.
    pub fn tend(&mut self, servers: Option<&Endpoints>, objects: Option<&dyn Objects>) -> Result<(), String> {
        self.look(servers);
        self.return_by_enrolment(servers);
        match objects {
            Some(objects) => self.publish(servers, objects),
            None => Ok(()),
        }
    }

    /// Tells the mesh where control planes are, when they are others than before.
    fn look(&mut self, servers: Option<&Endpoints>) {
        let own = SocketAddr::new(self.this.node.address, PORT);
        let addresses = self.hosts(servers).into_iter().flat_map(|host| joining::addresses(&host));
        let seeds: BTreeSet<SocketAddr> = addresses.map(|address| SocketAddr::new(address, PORT)).collect();
        let seeds: Vec<SocketAddr> = seeds.into_iter().filter(|seed| *seed != own).collect();
        // Who finds no address of any name keeps those that it had.
        if !seeds.is_empty() && seeds != self.seeds {
            self.seeds.clone_from(&seeds);
            self.handle.order(Order::Join(seeds));
        }
    }

    /// The control planes that this node knows of.
    fn hosts(&self, servers: Option<&Endpoints>) -> Vec<Host> {
        let mut hosts = joining::known_hosts(&self.root, &self.this.settings.join);
        let servers = servers.map(|record| record.servers.as_slice()).unwrap_or_default();
        for server in servers.iter().map(|server| Host::at(server.ip())) {
            if !hosts.contains(&server) {
                hosts.push(server);
            }
        }
        hosts
    }

    /// A node that hears nobody, or heard that there is a newer key, asks a control plane by its node key.
    fn return_by_enrolment(&mut self, servers: Option<&Endpoints>) {
        let (standing, now) = (self.handle.standing(), clock::monotonic());
        let alone = now.saturating_sub(standing.heard) >= ALONE;
        if !alone && !standing.behind || standing.silent.is_some() {
            (self.ask_at, self.pause) = (Duration::ZERO, ALONE);
            return;
        }
        if now < self.ask_at {
            return;
        }
        self.ask_at = now + self.pause;
        self.pause = (self.pause * 2).min(ALONE_LAST);
        let own = Host::at(self.this.node.address);
        let hosts: Vec<Host> = self.hosts(servers).into_iter().filter(|host| *host != own).collect();
        if hosts.is_empty() {
            return;
        }
        let why = if alone { "nobody of the mesh is heard" } else { "the mesh has a newer key" };
        match self.ask(hosts) {
            Ok(()) => println!("mesh: {why}: a control plane said which key is the newest"),
            Err(error) => println!("mesh: {why}, and no control plane said which key is the newest: {error}"),
        }
        self.handle.order(Order::LookAtKey);
    }

    fn ask(&self, hosts: Vec<Host>) -> Result<(), String> {
        if !self.this.is_control_plane() {
            return renewal::ask_where(&self.root, &self.this);
        }
        let key = renewal::mesh_key(&self.root, &self.this, hosts)?;
        if disk::lacks_mesh_key(&self.root, &key) { disk::write_mesh_key(&self.root, &key) } else { Ok(()) }
    }

    /// A control plane's: what the cluster's API says, the mesh is to say too.
    fn publish(&mut self, servers: Option<&Endpoints>, objects: &dyn Objects) -> Result<(), String> {
        let removed = removed(objects)?;
        self.handle.order(Order::Publish(Wanted { endpoints: servers.cloned(), removed: removed.clone() }));
        self.rekey(&removed, objects)
    }

    /// Sees that every removal is followed by a new mesh key, made once.
    fn rekey(&mut self, removed: &BTreeSet<NodeId>, objects: &dyn Objects) -> Result<(), String> {
        let held = self.handle.standing().key_epoch;
        if held == 0 {
            return Ok(());
        }
        let found = match objects.call(&Call::Get(rekeying::NAME.to_owned()))? {
            Answer::Object(Some(object)) => Rekeying::read(&object)?,
            _ => Rekeying::default(),
        };
        let write = |rekeying: &Rekeying| {
            let (object, made) = (rekeying.object(), rekeying.version.is_some());
            let call = if made { Call::Update(object) } else { Call::Create(object) };
            objects.call(&call).map(|answer| answer != Answer::Conflict)
        };
        match rekeying::next(&found, removed, held, self.mine.as_ref(), clock::unix()) {
            Next::Nothing | Next::Wait => {}
            Next::Settle(settled) => {
                if write(&settled)? {
                    self.mine = None;
                }
            }
            Next::Claim(claim) => {
                if write(&claim)? {
                    println!("mesh: nodes were removed; the mesh gets a new key, of epoch {}", claim.epoch);
                    self.mine = Some(Mine { epoch: claim.epoch, removed: removed.clone() });
                    self.handle.order(Order::Rekey(claim.epoch));
                }
            }
        }
        Ok(())
    }
}

/// Whose node keys the cluster says are removed. An object whose name is none of kubeboot's says nothing.
fn removed(objects: &dyn Objects) -> Result<BTreeSet<NodeId>, String> {
    match objects.call(&Call::Labelled(objects::KIND, objects::REMOVED.to_owned()))? {
        Answer::List(list) => Ok(list.iter().filter_map(objects::removed).map(NodeId).collect()),
        _ => Ok(BTreeSet::new()),
    }
}
