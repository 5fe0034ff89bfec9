//! Where the API servers are, by the API itself, by the mesh, and by whoever takes machines in.

use super::{Agent, LOST};
use crate::host::api::ApiError;
use crate::host::etcd::{self, Word};
use crate::host::mesh::keeper::Keeper;
use crate::host::{clock, reconcile, renewal};
use crate::plan::record::Endpoints;

impl Agent<'_> {
    pub(super) fn endpoints(&mut self) -> Result<(), String> {
        let found = reconcile::api_servers(&self.api);
        match &found {
            Err(ApiError::Unreachable { .. }) => self.find_servers(),
            _ => self.heard = clock::monotonic(),
        }
        // An answer that names nobody says nothing of where they are: what was known before stays.
        match found.map_err(|error| error.to_string())? {
            Some(record) => self.keep_servers(&record),
            None => Ok(()),
        }
    }

    /// Writes down where the API servers are, for the balancer, which follows the file.
    pub(super) fn keep_servers(&self, record: &Endpoints) -> Result<(), String> {
        if etcd::keep_endpoints(self.root, record)? {
            println!("{}", record.words());
        }
        Ok(())
    }

    /// A node whose API servers have not answered for long asks the control planes themselves: all that it knows may have
    /// gone while it was off. A control plane that knows of no other has nobody to ask.
    pub(super) fn find_servers(&mut self) {
        let is_control_plane = self.this.is_control_plane();
        if is_control_plane && etcd::others(self.root, self.this.node.address).is_empty() {
            return;
        }
        self.servers_of_the_mesh();
        if clock::monotonic().saturating_sub(self.heard) < LOST {
            return;
        }
        let said = match is_control_plane {
            true => match self.ask_control_planes() {
                Word::Yes(_) => "a control plane said where the API servers are".to_owned(),
                Word::Later(why) => why,
                Word::No(block) => block.line(),
            },
            false => match renewal::ask_where(self.root, &self.this) {
                Ok(()) => "a control plane said where the API servers are".to_owned(),
                Err(error) => error,
            },
        };
        // An outage may last; what comes of it each minute is the same.
        if said != self.found {
            println!("{said}");
        }
        self.found = said;
        self.heard = clock::monotonic();
    }

    /// The mesh may know better where the API servers are, without asking anybody.
    pub(super) fn servers_of_the_mesh(&mut self) {
        if let Some(record) = self.mesh.as_mut().and_then(Keeper::new_servers)
            && let Err(error) = self.keep_servers(&record)
        {
            eprintln!("kubeboot: {error}");
        }
    }

    /// Asks the control planes, as a node that comes back, and keeps where the API servers are.
    pub(super) fn ask_control_planes(&self) -> Word {
        let word = renewal::is_node(self.root, &self.this);
        if let Word::Yes(record) = &word
            && let Err(error) = self.keep_servers(record)
        {
            eprintln!("kubeboot: {error}");
        }
        word
    }

    pub(super) fn tend_mesh(&mut self) -> Result<(), String> {
        self.serve();
        let Some(mesh) = &mut self.mesh else { return Ok(()) };
        // Before it is open the API server has not answered yet.
        let open = self.enrolment.as_ref().filter(|enrolment| enrolment.is_open());
        let objects = open.map(|enrolment| enrolment.objects());
        let servers = objects.as_ref().map_or(Ok(None), |_| reconcile::api_servers(&self.api));
        let tended = mesh.tend(servers.as_ref().ok().and_then(Option::as_ref), objects.as_deref());
        servers.map_err(|error| error.to_string()).and(tended)
    }
}
