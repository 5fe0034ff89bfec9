//! What operators ask for, done on a worker: what it tells of itself, and nothing of the cluster's.

use std::net::IpAddr;

use super::answers::{Answers, Caller, Machine, Place, Places};
use super::output::{self, Halt, Programs, Sink};
use crate::certificates::Unix;
use crate::host::joining;
use crate::host::root::Root;
use crate::operators::elsewhere::not_by_a_worker;
use crate::operators::{Request, Trouble};

/// Whether an ssh public key (wire form) is an operator's, or why that is not known, in words.
pub type Known = dyn Fn(&[u8]) -> Result<bool, String> + Send + Sync;

/// A worker that does what operators ask.
pub struct WorkersDesk {
    machine: Machine,
    /// The worker's name.
    name: String,
    /// The setting `join`.
    join: Vec<String>,
    known: Box<Known>,
    places: Places,
}

impl WorkersDesk {
    /// At this machine, the worker `name`.
    pub fn new(root: &Root, name: &str, join: &[String], programs: Programs, known: Box<Known>) -> Self {
        let machine = Machine { root: root.clone(), programs };
        WorkersDesk { machine, name: name.to_owned(), join: join.to_owned(), known, places: Places::default() }
    }

    /// Where control planes are, as far as this worker knows.
    fn control_planes(&self) -> Vec<IpAddr> {
        // Names are left to who asks control planes: a name server that does not answer must not hold this up.
        let hosts = joining::known_hosts(&self.machine.root, &self.join);
        hosts.iter().filter_map(|host| host.name.parse().ok()).collect()
    }
}

impl Answers for WorkersDesk {
    /// As the mesh's records say: a worker may not read the cluster's.
    fn is_operator(&self, key: &[u8]) -> Result<bool, String> {
        (self.known)(key)
    }

    fn enter(&self) -> Option<Place<'_>> {
        self.places.enter()
    }

    fn answer(&self, who: &Caller, request: &Request, now: Unix, sink: &mut dyn Sink) -> Result<u8, Halt> {
        request.check()?;
        self.still(who)?;
        if *request == (Request::ControlPlanes {}) {
            return output::value(sink, &self.control_planes());
        }
        let nowhere = || -> Trouble { not_by_a_worker(&self.name, request, &self.control_planes()) };
        self.machine.answer(request, None, now, sink).unwrap_or_else(|| Err(nowhere().into()))
    }
}
