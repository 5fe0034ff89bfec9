//! What the agent does for the mesh, in its own thread: says where to look for it, has a control plane publish what the
//! cluster says, and gets the key by enrolment when the mesh does not give it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::publisher::Publisher;
use super::{Config, Handle, Order, Standing, Watch, disk, start};
use crate::enrolment::seeking::Host;
use crate::host::enrolment::store::Objects;
use crate::host::node::ThisNode;
use crate::host::root::Root;
use crate::host::{clock, joining, random, renewal};
use crate::mesh::PORT;
use crate::mesh::returning::{Returning, is_alone};
use crate::operators::key::of_settings;
use crate::plan::record::Endpoints;

/// How often names of control planes are looked up while somebody is heard: who is in the mesh needs none.
const LOOK: Duration = Duration::from_secs(300);
/// How often while nobody is.
const LOOK_SOON: Duration = Duration::from_secs(10);
/// The agent's part in the mesh.
pub struct Keeper {
    root: Root,
    this: ThisNode,
    handle: Handle,
    /// Where the mesh was told to look.
    seeds: Vec<SocketAddr>,
    /// When it was looked where control planes are.
    looked: Option<Duration>,
    /// The API servers that it said last.
    servers: Option<Endpoints>,
    publisher: Publisher,
    returning: Returning,
}

impl Keeper {
    /// Starts the mesh's thread.
    ///
    /// # Errors
    /// In words: the cluster's record is damaged, or there is no thread.
    pub fn new(root: &Root, this: &ThisNode) -> Result<Self, String> {
        let log = Box::new(|line: &str| println!("{line}"));
        let handle = start(Config::of(root, this)?, log)?;
        let mut keeper = Keeper {
            root: root.clone(),
            this: this.clone(),
            handle,
            seeds: Vec::new(),
            looked: None,
            servers: None,
            publisher: Publisher::default(),
            returning: Returning::default(),
        };
        keeper.look(None);
        Ok(keeper)
    }

    /// A look at how the mesh stands, for others.
    pub fn watch(&self) -> Watch {
        self.handle.watch()
    }

    /// The API servers, as the mesh's record has them: once for each record, and only while somebody is heard. A node that
    /// is cut off has an old record, which must not take the place of what a control plane said since.
    pub fn new_servers(&mut self) -> Option<Endpoints> {
        let Standing { heard, met, endpoints, .. } = self.handle.standing();
        let servers = endpoints.filter(|_| met && !is_alone(clock::monotonic(), heard))?;
        if self.servers.as_ref() == Some(&servers) {
            return None;
        }
        self.servers = Some(servers.clone());
        Some(servers)
    }

    /// Does what is due. `servers` are the API servers, `objects` those of the cluster; both only a control plane has.
    ///
    /// # Errors
    /// In words: a call of the API, or an object that is damaged.
    pub fn tend(&mut self, servers: Option<&Endpoints>, objects: Option<&dyn Objects>) -> Result<(), String> {
        self.look(servers);
        self.return_by_enrolment(servers);
        match objects {
            Some(objects) => self.publisher.publish(&self.handle, servers, &of_settings(&self.this.settings), objects),
            None => Ok(()),
        }
    }

    /// Tells the mesh where control planes are, when they are others than before.
    fn look(&mut self, servers: Option<&Endpoints>) {
        let now = clock::monotonic();
        // A control plane knows of others only once the API server answers.
        let soon = self.seeds.is_empty() || is_alone(now, self.handle.standing().heard);
        let pause = if soon { LOOK_SOON } else { LOOK };
        if self.looked.is_some_and(|looked| now.saturating_sub(looked) < pause) {
            return;
        }
        self.looked = Some(now);
        let own = SocketAddr::new(self.this.node.address, PORT);
        let addresses = self.hosts(servers).into_iter().flat_map(|host| joining::addresses(&host));
        let seeds: BTreeSet<SocketAddr> = addresses.map(|address| SocketAddr::new(address, PORT)).collect();
        let seeds: Vec<SocketAddr> = seeds.into_iter().filter(|seed| *seed != own).collect();
        // Who finds no address of any name keeps those that it had.
        if !seeds.is_empty() && seeds != self.seeds {
            self.seeds.clone_from(&seeds);
            self.handle.seek(seeds);
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
        let [jitter] = random::bytes();
        let due = self.returning.due(now, standing.heard, standing.behind, jitter);
        let Some(why) = due.filter(|_| standing.silent.is_none()) else { return };
        let own = Host::at(self.this.node.address);
        let hosts: Vec<Host> = self.hosts(servers).into_iter().filter(|host| *host != own).collect();
        if hosts.is_empty() {
            return;
        }
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
}
