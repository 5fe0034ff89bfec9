//! The mesh on a real machine: one thread of the agent drives the protocol of [`crate::mesh`] with UDP, TLS streams and
//! files. What goes wrong in it, a panic too, begins it anew and ends nothing else.

pub mod disk;
mod driver;
pub mod keeper;
pub mod members;
mod publisher;
mod signer;
mod stream;
mod streams;
mod tls;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use self::driver::{Driver, Ended};
use super::node::ThisNode;
use super::root::Root;
use super::{clock, wait};
use crate::mesh::PORT;
use crate::mesh::publish::{Operators, Wanted};
use crate::paths;
use crate::plan::record::Endpoints;

/// Orders that wait at most; a further one is left out, and comes again with the agent's next round.
const ORDERS: usize = 32;
/// Pauses before it begins anew: from this…
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// …doubled up to this.
const AGAIN_LAST: Duration = Duration::from_secs(15);
/// The thread's stack: TLS with ML-KEM is what takes most of it.
const STACK: usize = 1 << 20;

/// What the mesh is driven with.
pub struct Config {
    /// Where the machine's files are.
    pub root: Root,
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// The cluster identity's public half.
    pub identity: [u8; 32],
    /// The node's name.
    pub name: String,
    /// Where it takes packets. Streams it takes at the next port.
    pub address: SocketAddr,
    /// Whether it is a control plane, which signs records.
    pub control_plane: bool,
    /// Where members are asked for.
    pub members: PathBuf,
}

impl Config {
    /// This node's.
    ///
    /// # Errors
    /// In words: the cluster's id is none.
    pub fn of(root: &Root, this: &ThisNode) -> Result<Self, String> {
        let cluster = crate::enrolment::objects::unhex(&this.cluster.id);
        Ok(Config {
            root: root.clone(),
            cluster: cluster.ok_or_else(|| format!("{} is damaged: its id is none", paths::CLUSTER))?,
            identity: this.cluster.identity(),
            name: this.node.name.clone(),
            address: SocketAddr::new(this.node.address, PORT),
            control_plane: this.is_control_plane(),
            members: root.path(paths::MEMBERS_SOCKET),
        })
    }
}

/// What the agent asks of the mesh.
pub enum Order {
    /// Sign and publish what of this the mesh does not say. A control plane's.
    Publish(Wanted),
    /// Make the mesh key of this epoch and publish it, without grace for the one before. A control plane's.
    Rekey(u64),
    /// There may be a newer mesh key on disk.
    LookAtKey,
}

/// How the mesh stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// When somebody was heard last, or the agent started: on the monotonic clock.
    pub heard: Duration,
    /// Whether the mesh that runs now has heard anybody.
    pub met: bool,
    /// Epoch of the mesh key that is in use; 0 before there is one.
    pub key_epoch: u64,
    /// Whether somebody has a newer one and did not give it.
    pub behind: bool,
    /// The API servers, as the mesh's record has them while it has force.
    pub endpoints: Option<Endpoints>,
    /// The operators, as the mesh's records have them while they have force.
    pub operators: Option<Arc<Operators>>,
    /// Why the node takes no part any more.
    pub silent: Option<String>,
}

/// What the mesh's thread shares with the agent.
struct Shared {
    standing: Mutex<Standing>,
    /// Where to look for the mesh: kept here, so that a mesh that begins anew looks there too.
    seeds: Mutex<Vec<SocketAddr>>,
    wake: EventFd,
    log: Box<dyn Fn(&str) + Send + Sync>,
}

impl Shared {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seeds(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.seeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, line: &str) {
        (self.log)(line);
    }
}

/// A look at how the mesh stands, for other threads of the agent. Does not keep the mesh's thread from ending.
#[derive(Clone)]
pub struct Watch(Arc<Shared>);

impl Watch {
    /// The operators, as the mesh's records have them while they have force. A mesh that has not begun says nothing: then
    /// it is what it kept on disk.
    pub fn operators(&self, kept: impl FnOnce() -> Option<Operators>) -> Option<Arc<Operators>> {
        let standing = self.0.standing().clone();
        let found = if standing.key_epoch > 0 { standing.operators } else { kept().map(Arc::new) };
        // The mesh's thread looks now and then, and may be waiting to begin anew.
        found.filter(|found| clock::unix() < found.until)
    }

    /// At a mesh that says this.
    #[cfg(test)]
    pub(super) fn saying(operators: Operators) -> Self {
        let standing = Standing { key_epoch: 1, operators: Some(Arc::new(operators)), ..Standing::default() };
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).expect("an eventfd");
        Watch(Arc::new(Shared { standing: Mutex::new(standing), seeds: Mutex::default(), wake, log: Box::new(|_| {}) }))
    }
}

/// The agent's hold on the mesh's thread, which ends when this is dropped.
pub struct Handle {
    orders: Option<SyncSender<Order>>,
    shared: Arc<Shared>,
}

impl Handle {
    /// Orders something. What finds no room is left out: orders are said again at each round.
    pub fn order(&self, order: Order) {
        if self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok()) {
            let _ = self.shared.wake.write(1);
        }
    }

    /// Where to look for the mesh from now on.
    pub fn seek(&self, seeds: Vec<SocketAddr>) {
        *self.shared.seeds() = seeds;
        let _ = self.shared.wake.write(1);
    }

    /// A look at it for others.
    pub fn watch(&self) -> Watch {
        Watch(self.shared.clone())
    }

    /// How the mesh stands.
    pub fn standing(&self) -> Standing {
        self.shared.standing().clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.shared.wake.write(1);
    }
}

/// Runs the mesh in a thread of its own, as long as the handle is held.
///
/// # Errors
/// There is no thread, or no descriptor to wake it; in words.
pub fn start(config: Config, log: Box<dyn Fn(&str) + Send + Sync>) -> Result<Handle, String> {
    let failed = |error: std::io::Error| format!("start a thread for the mesh: {error}");
    let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
    let wake = wake.map_err(|error| failed(error.into()))?;
    let standing = Mutex::new(Standing { heard: clock::monotonic(), ..Standing::default() });
    let shared = Arc::new(Shared { standing, seeds: Mutex::default(), wake, log });
    let (orders, taken) = sync_channel(ORDERS);
    let thread = std::thread::Builder::new().name("mesh".to_owned()).stack_size(STACK);
    let theirs = shared.clone();
    thread.spawn(move || supervise(&config, &taken, &theirs)).map_err(failed)?;
    Ok(Handle { orders: Some(orders), shared })
}

/// Drives the mesh, and begins anew after what may pass by itself.
fn supervise(config: &Config, orders: &Receiver<Order>, shared: &Arc<Shared>) {
    let mut backoff = wait::Backoff::new(AGAIN_FIRST, AGAIN_LAST);
    let mut said = String::new();
    loop {
        let drive = || Driver::start(config, shared.clone()).and_then(|driver| driver.run(orders));
        let why = match catch_unwind(AssertUnwindSafe(drive)) {
            Ok(Ok(Ended::Left)) => return,
            Ok(Ok(Ended::NewerKey)) => {
                shared.log("mesh: it begins anew with the newer mesh key that enrolment gave");
                backoff.reset();
                continue;
            }
            Ok(Err(why)) => why,
            // The panic has said on standard error where it was.
            Err(_) => "a fault of kubeboot's own".to_owned(),
        };
        // What lasts is said once.
        if why != said {
            shared.log(&format!("mesh: it waits and begins anew: {why}"));
        }
        said = why;
        backoff.pause();
    }
}
