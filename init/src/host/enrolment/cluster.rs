//! This control plane's part in enrolment: what it serves, and what it puts on record of itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::channel::Times;
use super::store::{InApi, Objects, Store};
use super::{issue, server};
use crate::certificates::Unix;
use crate::enrolment::decision::{Admission, Found, NodeRecord, Site, Sought, WINDOW};
use crate::enrolment::gate::Limits;
use crate::enrolment::message::{Founded, Grant};
use crate::enrolment::objects::FoundingTokens;
use crate::enrolment::releases::{self, Releases};
use crate::enrolment::server::{As, Issue, Setup, Taken};
use crate::enrolment::transcript::Exporter;
use crate::enrolment::{Keys, PORT, Sign};
use crate::host::api::Api;
use crate::host::keys::Ed25519;
use crate::host::mesh::Watch;
use crate::host::node::ThisNode;
use crate::host::operators::answers::Answers;
use crate::host::operators::desk::Desk;
use crate::host::root::Root;
use crate::host::{clock, files, random};
use crate::paths;
use crate::release::Version;
use crate::settings::{Cidr, Role};
use crate::token::Joiner;

/// A control plane that serves operators, and takes machines in once it is open.
pub struct Enrolment {
    root: Root,
    this: ThisNode,
    api: Arc<InApi>,
    /// Tokens and nodes.
    pub store: Store,
    identity: Ed25519,
    founded: Founded,
    /// This machine's.
    release: Version,
    /// Those of the cluster's API servers, as [`Enrolment::prepare`] saw them last.
    releases: RwLock<Releases>,
    desk: Desk,
    open: AtomicBool,
}

impl Enrolment {
    /// Reads what it needs. Takes nobody in yet. `mesh` says who the operators are while no API server has answered.
    ///
    /// # Errors
    /// In words: a file that is missing or damaged.
    pub fn new(root: &Root, this: &ThisNode, api: Arc<Api>, mesh: Option<Watch>) -> Result<Self, String> {
        let release: Version =
            this.seat.version.parse().map_err(|error: crate::release::VersionError| error.to_string())?;
        let api = Arc::new(InApi::new(api));
        let desk = Desk::new(root, this, api.clone());
        Ok(Enrolment {
            root: root.clone(),
            this: this.clone(),
            store: Store::new(api.clone()),
            desk: match mesh {
                Some(mesh) => desk.beside(mesh),
                None => desk,
            },
            api,
            open: AtomicBool::new(false),
            identity: issue::key(root, paths::IDENTITY_KEY)?,
            founded: Founded::of(&this.cluster)?,
            release,
            releases: RwLock::new(Releases::of_one(release)),
        })
    }

    /// Another client from now on: a certificate was renewed.
    pub fn renew(&self, api: Arc<Api>) {
        self.api.renew(api);
    }

    /// The cluster's objects.
    pub fn objects(&self) -> Arc<dyn Objects> {
        self.api.clone()
    }

    /// Takes machines in from now on.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Whether machines are taken in.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Refuses machines before that: nothing is looked up, written or issued.
    fn opened(&self) -> Result<(), String> {
        match self.is_open() {
            true => Ok(()),
            false => Err("no machine is taken in before this control plane's API server has answered".to_owned()),
        }
    }

    /// What has to be there before any machine is taken in: the namespace, the mesh's key, the control planes'
    /// releases, this machine on record, and the founding window's tokens. Done again at each round; what is there already
    /// stays.
    ///
    /// # Errors
    /// In words: the first thing that fails.
    pub fn prepare(&self) -> Result<(), String> {
        self.api.prepare().map_err(|error| error.to_string())?;
        self.desk.refresh()?;
        issue::ensure_mesh_key(&self.root)?;
        self.look_at_releases()?;
        if self.this.settings.role == Some(Role::Init) {
            let key = issue::ensure_node_key(&self.root)?.public();
            let node = &self.this.node;
            let record = NodeRecord { name: node.name.clone(), role: Joiner::ControlPlane, key, address: node.address };
            self.store.record(&record, clock::unix())?;
        }
        self.founding_tokens(clock::unix())
    }

    /// Puts the operators of this machine's settings on record, once its objects are [prepared](Self::prepare).
    ///
    /// # Errors
    /// In words: the first that can't be.
    pub fn adopt_operators(&self) -> Result<(), String> {
        self.desk.adopt(clock::unix())
    }

    /// Looks which releases the control planes have: a machine whose kubelet is newer than the oldest API server is refused.
    fn look_at_releases(&self) -> Result<(), String> {
        let (selector, most) = (releases::CONTROL_PLANE.replace('/', "%2F"), releases::MOST);
        let path = format!("/api/v1/nodes?labelSelector={selector}&limit={most}");
        let nodes = self.api.api().get(&path).map_err(|error| error.to_string())?;
        let (own, name) = (self.release, &self.this.node.name);
        let others = releases::others(own, name, &nodes);
        let found = Releases::of(own, &others);
        let mut known = self.releases.write().unwrap_or_else(PoisonError::into_inner);
        if *known != found {
            let words = releases::words(own, name, &others);
            println!("machines that join have to go with the control planes' releases: {words}");
            *known = found;
        }
        Ok(())
    }

    /// Makes the objects of the founding window's tokens, once: what says them goes when they are made, so that one that
    /// was deleted does not come back.
    fn founding_tokens(&self, now: Unix) -> Result<(), String> {
        let path = self.root.path(paths::FOUNDING_TOKENS);
        let failed = |error: std::io::Error| format!("{}: {error}", paths::FOUNDING_TOKENS);
        let Some(bytes) = files::read_optional(&path).map_err(failed)? else { return Ok(()) };
        let cluster = &self.this.cluster;
        let fix = "Machines join with a token from: kubeboot token create";
        if now >= cluster.founded.saturating_add(WINDOW) {
            println!("the founding window ended before the cluster had its tokens. {fix}");
            return files::remove(&path).map_err(failed);
        }
        match FoundingTokens::records(&bytes, &cluster.founding_key, cluster.founded, self.this.settings.expect) {
            Ok(records) => {
                for record in records {
                    self.store.create_token(record)?;
                }
            }
            Err(why) => eprintln!("kubeboot: {} is damaged: {why}. {fix}", paths::FOUNDING_TOKENS),
        }
        files::remove(&path).map_err(failed)
    }

    /// Serves from now on, until the process ends.
    ///
    /// # Errors
    /// In words: the port is in use.
    pub fn serve(self: &Arc<Self>) -> Result<(), String> {
        let listener =
            server::listen(PORT).map_err(|error| format!("enrolment can't listen on port {PORT}: {error}"))?;
        let log = Box::new(|line: &str| println!("{line}"));
        server::start(listener, self.clone(), Limits::default(), Times::default(), log)
    }
}

impl server::Cluster for Enrolment {
    fn key(&self) -> &(dyn Keys + Send + Sync) {
        &self.identity
    }

    fn setup(&self, exporter: Exporter) -> Setup {
        let Releases { oldest, newest } = *self.releases.read().unwrap_or_else(PoisonError::into_inner);
        let site = Site { founded: self.this.cluster.founded, oldest, newest, ranges: self.strangers() };
        Setup { serves: As::ControlPlane, cluster: self.founded.clone(), site, exporter, nonce: random::bytes() }
    }

    fn strangers(&self) -> Vec<Cidr> {
        let cluster = &self.this.settings.cluster;
        vec![cluster.pod_cidr, cluster.service_cidr]
    }

    fn look(&self, sought: &Sought) -> Result<Found, String> {
        self.opened()?;
        self.store.look(sought)
    }

    fn take(&self, admission: &Admission) -> Result<Taken, String> {
        self.opened()?;
        self.store.take(admission, clock::unix())
    }

    fn desk(&self) -> Option<&dyn Answers> {
        Some(&self.desk)
    }

    fn issue(&self, admission: &Admission, certificates: &[Issue]) -> Result<Grant, String> {
        self.opened()?;
        let api = self.api.api();
        issue::grant(&self.root, &self.this, &api, &admission.node, certificates, clock::unix())
    }
}
