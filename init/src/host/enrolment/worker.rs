//! A worker's part on enrolment's port: it serves operators, by the same server as control planes, and takes no machine in.

use std::sync::Arc;

use super::channel::Times;
use super::{issue, server};
use crate::enrolment::decision::{Admission, Found, Site, Sought};
use crate::enrolment::gate::Limits;
use crate::enrolment::message::{Founded, Grant};
use crate::enrolment::objects::unhex;
use crate::enrolment::server::{As, Issue, Setup, Taken};
use crate::enrolment::statement::Statement;
use crate::enrolment::transcript::Exporter;
use crate::enrolment::{Keys, PORT, Sign as _};
use crate::host::keys::Ed25519;
use crate::host::mesh::{Watch, disk};
use crate::host::node::ThisNode;
use crate::host::operators::answers::Answers;
use crate::host::operators::output::Programs;
use crate::host::operators::worker::{Known, WorkersDesk};
use crate::host::root::Root;
use crate::host::{files, random};
use crate::paths;
use crate::settings::Cidr;
use crate::token::Joiner;

/// A worker that serves operators. Holds its node key: no Debug.
pub struct Worker {
    root: Root,
    name: String,
    founded: Founded,
    site: Site,
    node_key: Ed25519,
    desk: WorkersDesk,
}

/// Whether a key is an operator's, as the mesh has the records of control planes.
pub fn by_the_mesh(root: &Root, this: &ThisNode, mesh: Option<Watch>) -> Result<Box<Known>, String> {
    let cluster = unhex(&this.cluster.id).ok_or_else(|| format!("{} is damaged: its id is none", paths::CLUSTER))?;
    let (root, identity, on_disk) = (root.clone(), this.cluster.identity(), disk::Kept::default());
    Ok(Box::new(move |key| {
        let kept = || on_disk.operators(&root, &cluster, &identity);
        let known = match &mesh {
            Some(mesh) => mesh.operators(kept),
            None => kept().map(Arc::new),
        };
        let known =
            known.ok_or("no control plane's word about who is an operator is known here that still has force")?;
        Ok(known.roll.admits(key))
    }))
}

impl Worker {
    /// Reads what it needs. `known` says who is an operator.
    ///
    /// # Errors
    /// In words: a file that is missing or damaged.
    pub fn new(root: &Root, this: &ThisNode, programs: Programs, known: Box<Known>) -> Result<Self, String> {
        let release = this.seat.version.parse().map_err(|error: crate::release::VersionError| error.to_string())?;
        let cluster = &this.settings.cluster;
        let name = this.node.name.clone();
        Ok(Worker {
            root: root.clone(),
            founded: Founded::of(&this.cluster)?,
            site: Site {
                founded: this.cluster.founded,
                oldest: release,
                newest: release,
                ranges: vec![cluster.pod_cidr, cluster.service_cidr],
            },
            node_key: issue::key(root, paths::NODE_KEY)?,
            desk: WorkersDesk::new(root, &name, &this.settings.join, programs, known),
            name,
        })
    }

    /// The cluster's word about this worker, if there is one: read each time, because it is renewed.
    fn statement(&self) -> Option<Statement> {
        let file = files::read_optional(&self.root.path(paths::STATEMENT)).ok().flatten()?;
        // One that is another's or damaged proves nothing; the agent's next renewal replaces it.
        Statement::parse(&file)
            .ok()
            .filter(|statement| statement.is_of(Joiner::Worker, &self.name, &self.node_key.public()))
    }

    /// Serves from now on, until the process ends.
    ///
    /// # Errors
    /// In words: the port is in use.
    pub fn serve(self) -> Result<(), String> {
        let listener =
            server::listen(PORT).map_err(|error| format!("operators can't be served on port {PORT}: {error}"))?;
        let log = Box::new(|line: &str| println!("{line}"));
        server::start(listener, Arc::new(self), Limits::default(), Times::default(), log)
    }
}

/// What is answered where only a control plane could do it. The exchange ends before it comes to that.
fn not_here<T>() -> Result<T, String> {
    Err("this is a worker, which takes no machine in".to_owned())
}

impl server::Cluster for Worker {
    fn key(&self) -> &(dyn Keys + Send + Sync) {
        &self.node_key
    }

    fn setup(&self, exporter: Exporter) -> Setup {
        let serves = As::Worker(self.statement().map(Box::new));
        Setup { serves, cluster: self.founded.clone(), site: self.site.clone(), exporter, nonce: random::bytes() }
    }

    fn strangers(&self) -> Vec<Cidr> {
        self.site.ranges.clone()
    }

    fn look(&self, _: &Sought) -> Result<Found, String> {
        not_here()
    }

    fn take(&self, _: &Admission) -> Result<Taken, String> {
        not_here()
    }

    fn issue(&self, _: &Admission, _: &[Issue]) -> Result<Grant, String> {
        not_here()
    }

    fn desk(&self) -> Option<&dyn Answers> {
        Some(&self.desk)
    }
}
