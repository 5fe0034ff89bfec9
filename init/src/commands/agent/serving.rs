//! Serves operators from the agent's start on, whatever else does not start: on every node.

use std::sync::Arc;
use std::time::Duration;

use super::Agent;
use crate::enrolment::PORT;
use crate::host::clock;
use crate::host::enrolment::cluster::Enrolment;
use crate::host::enrolment::worker::{Worker, by_the_mesh};
use crate::host::mesh::keeper::Keeper;
use crate::host::operators::output::Programs;

/// How long after it could not be begun it is tried again.
const AGAIN: Duration = Duration::from_secs(15);

impl Agent<'_> {
    /// Begins to serve operators, if that has not begun. What stands in the way is said, and tried again later.
    pub(super) fn serve(&mut self) {
        let now = clock::monotonic();
        if self.serve_at.is_none_or(|at| now < at) {
            return;
        }
        let begun = if self.this.is_control_plane() { self.serve_as_control_plane() } else { self.serve_as_worker() };
        self.serve_at = match begun {
            Ok(()) => {
                println!("operators are served on port {PORT}");
                None
            }
            Err(why) => {
                eprintln!("kubeboot: operators are not served: {why}. It is tried again");
                Some(now + AGAIN)
            }
        };
    }

    /// Machines are taken in later, when the API server has answered.
    fn serve_as_control_plane(&mut self) -> Result<(), String> {
        let api = self.this.api(self.root).map_err(|error| error.to_string())?;
        let mesh = self.mesh.as_ref().map(Keeper::watch);
        let enrolment = Arc::new(Enrolment::new(self.root, &self.this, Arc::new(api), mesh)?);
        enrolment.serve()?;
        self.enrolment = Some(enrolment);
        Ok(())
    }

    fn serve_as_worker(&self) -> Result<(), String> {
        let known = by_the_mesh(self.root, &self.this, self.mesh.as_ref().map(Keeper::watch))?;
        Worker::new(self.root, &self.this, Programs::default(), known)?.serve()
    }
}
