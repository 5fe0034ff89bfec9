//! Where the API servers are, by the API itself, by the mesh, and by whoever takes machines in.

use super::{Agent, LOST};
use crate::host::api::ApiError;
use crate::host::mesh::keeper::Keeper;
use crate::host::{clock, files, reconcile, renewal};
use crate::paths;
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
        let path = self.root.path(paths::ENDPOINTS);
        match files::ensure(&path, record.text().as_bytes(), 0o644) {
            Ok(false) => {}
            Ok(true) => {
                let servers: Vec<String> = record.servers.iter().map(ToString::to_string).collect();
                println!("the API servers are {}", servers.join(", "));
            }
            Err(error) => return Err(format!("write {}: {error}. What was there before still is", paths::ENDPOINTS)),
        }
        Ok(())
    }

    /// A worker whose API servers have not answered for long asks the control planes themselves: all that it knows may have
    /// gone while it was off.
    pub(super) fn find_servers(&mut self) {
        if self.this.is_control_plane() {
            return;
        }
        // The mesh may know better, without asking anybody.
        if let Some(record) = self.mesh.as_mut().and_then(Keeper::new_servers)
            && let Err(error) = self.keep_servers(&record)
        {
            eprintln!("kubeboot: {error}");
        }
        if clock::monotonic().saturating_sub(self.heard) < LOST {
            return;
        }
        match renewal::ask_where(self.root, &self.this) {
            Ok(()) => println!("a control plane said where the API servers are"),
            Err(error) => println!("{error}"),
        }
        self.heard = clock::monotonic();
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
