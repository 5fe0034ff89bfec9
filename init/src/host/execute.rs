//! Does what a plan says: one match over [`Step`], no decisions.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use zeroize::Zeroizing;

use super::batch::Batch;
use super::joining::Granted;
use super::keys::{self, KeyError, Signer};
use super::mesh::disk;
use super::root::Root;
use super::{clock, files, random};
use crate::certificates::{Authority, Form, Leaf, Unix, check};
use crate::enrolment::objects::FoundingTokens;
use crate::facts::EARLIEST;
use crate::kubernetes::{encryption, kubeconfig};
use crate::mesh::stored;
use crate::paths;
use crate::plan::Step;
use crate::plan::founder::{SERVICE_ACCOUNT_KEY, SERVICE_ACCOUNT_PUBLIC_KEY};
use crate::plan::record::{Cluster, Endpoints};
use crate::token::{Seed, Token};

/// A step that failed. What was in place before still is; the next boot goes on from there.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {reason}. What was on disk before still is; the next boot goes on from there")]
pub struct Failed {
    /// The step, in words.
    pub step: String,
    /// Why it failed.
    pub reason: Reason,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The file system.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// Keys and certificates.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Something that an earlier step should have left is not there.
    #[error("{0}")]
    State(String),
}

/// What acting needs beside the plan.
pub struct Executor<'a> {
    root: &'a Root,
    now: Unix,
    image: Unix,
    server: String,
    seed: Option<Seed>,
    granted: Option<&'a Granted>,
    batch: Batch,
    signers: BTreeMap<Authority, Signer>,
    identity: Option<Zeroizing<String>>,
}

impl<'a> Executor<'a> {
    /// `server` is the API server's URL in kubeconfigs, `seed` the one that the operator gave.
    pub fn new(root: &'a Root, now: Unix, server: String, seed: Option<Seed>) -> Self {
        let (batch, signers) = (Batch::default(), BTreeMap::new());
        let image = clock::image(root).max(EARLIEST);
        Executor { root, now, image, server, seed, granted: None, batch, signers, identity: None }
    }

    /// What a control plane has granted, for the steps that write it.
    #[must_use]
    pub fn with(mut self, granted: &'a Granted) -> Self {
        self.granted = Some(granted);
        self
    }

    /// Tests: cuts the power after so many file operations.
    #[cfg(test)]
    pub(crate) fn cut_after(mut self, operations: u32) -> Self {
        self.batch.until_cut = Some(operations);
        self
    }

    /// Takes every step in order; `done` hears of each with its duration.
    ///
    /// # Errors
    /// The first step that fails.
    pub fn run(&mut self, plan: &[Step], mut done: impl FnMut(&Step, Duration)) -> Result<(), Failed> {
        for step in plan {
            let start = clock::monotonic();
            self.step(step).map_err(|reason| Failed { step: step.to_string(), reason })?;
            done(step, clock::monotonic().saturating_sub(start));
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Reason> {
        #[cfg(test)]
        self.batch.power().map_err(at("a step"))?;
        match step {
            Step::Remove { path, .. } => files::remove(&self.root.path(path)).map_err(at(path)),
            Step::Directory { path, mode } => self.directory(path, *mode),
            Step::Mode { path, mode } => files::set_mode(&self.root.path(path), *mode).map_err(at(path)),
            Step::Write { path, mode, contents, .. } => self.stage(path, contents.as_bytes(), *mode),
            Step::Seed => self.seed(),
            Step::Identity => self.identity(),
            Step::Cluster => self.cluster(),
            Step::Authority { authority, .. } => self.authority(*authority),
            Step::ServiceAccountKey { .. } => {
                let pair = keys::ecdsa()?;
                self.stage(SERVICE_ACCOUNT_KEY, pair.key.as_bytes(), 0o600)?;
                self.stage(SERVICE_ACCOUNT_PUBLIC_KEY, pair.public.as_bytes(), 0o600)
            }
            Step::ServiceAccountPublicKey { .. } => {
                let public = keys::public_half(&self.read(SERVICE_ACCOUNT_KEY)?)?;
                self.stage(SERVICE_ACCOUNT_PUBLIC_KEY, public.as_bytes(), 0o600)
            }
            Step::EncryptionKey { .. } => {
                let key = Zeroizing::new(random::bytes::<{ encryption::KEY }>());
                self.stage(encryption::PATH, encryption::config(&key).as_bytes(), 0o600)
            }
            Step::Issue { leaf, request, .. } => {
                let now = self.now;
                let pair = self.signer(request.authority)?.issue(request, now)?;
                self.keep(*leaf, request.authority, &pair)
            }
            Step::Operator { public, .. } => {
                let now = self.now;
                let pem = self.signer(Authority::Cluster)?.issue_for(&public.request(), &public.spki, now)?;
                self.stage(&public.path(), pem.as_bytes(), 0o644)
            }
            Step::NodeKey { .. } => {
                let key = keys::ed25519()?;
                self.stage(paths::NODE_KEY, key.as_bytes(), 0o600)
            }
            Step::Join { .. } => {
                let granted = self.granted()?;
                self.stage(paths::CLUSTER, granted.enrolled.cluster.text().as_bytes(), 0o600)?;
                self.take_keys(granted)?;
                // A control plane issues its own by the keys that it was just given.
                let leaves = if granted.enrolled.grant.keys.is_empty() { &Leaf::OF_EVERY_NODE[..] } else { &[] };
                self.take(granted, leaves)
            }
            Step::Return { leaves, .. } => self.take(self.granted()?, leaves),
            Step::Freeze { .. } => {
                let granted = self.granted()?;
                self.stage(paths::FROZEN, granted.frozen.text().as_bytes(), 0o600)
            }
            Step::Flush => self.batch.commit().map_err(at("the staged files")),
        }
    }

    fn granted(&self) -> Result<&'a Granted, Reason> {
        self.granted.ok_or_else(|| Reason::State("no control plane was asked".to_owned()))
    }

    /// Stages what a control plane has granted: authorities, API servers, the mesh key if it is newer than the one that is
    /// there, what the cluster says of a worker, and of the certificates `leaves`.
    fn take(&mut self, granted: &Granted, leaves: &[Leaf]) -> Result<(), Reason> {
        let grant = &granted.enrolled.grant;
        for (authority, certificate) in &grant.authorities {
            self.stage(authority.certificate(), certificate.as_bytes(), 0o644)?;
        }
        let endpoints = Endpoints::of(grant.endpoints.iter().copied());
        self.stage(paths::ENDPOINTS, endpoints.text().as_bytes(), 0o644)?;
        if disk::lacks_mesh_key(self.root, &grant.mesh_key) {
            self.stage(paths::MESH_KEY, &stored::key_bytes(&grant.mesh_key), 0o600)?;
        }
        if let Some(statement) = &grant.statement {
            let file = statement.file().map_err(|why| Reason::State(format!("{}: {why}", paths::STATEMENT)))?;
            self.stage(paths::STATEMENT, &file, 0o600)?;
        }
        let pairs = Leaf::OF_EVERY_NODE.into_iter().zip(&grant.certificates).zip(&granted.keys);
        for ((leaf, certificate), key) in pairs.filter(|((leaf, _), _)| leaves.contains(leaf)) {
            let pair = keys::Pair { public: certificate.clone(), key: key.clone() };
            self.keep(leaf, Authority::Cluster, &pair)?;
        }
        Ok(())
    }

    /// Stages the secrets that every control plane holds: a worker is granted none.
    fn take_keys(&mut self, granted: &Granted) -> Result<(), Reason> {
        granted.enrolled.grant.keys.iter().try_for_each(|(key, secret)| self.stage(key.path(), secret, 0o600))
    }

    fn directory(&self, path: &str, mode: u32) -> Result<(), Reason> {
        let place = self.root.path(path);
        files::make_folder(&place, mode).and_then(|()| files::set_mode(&place, mode)).map_err(at(path))
    }

    fn seed(&mut self) -> Result<(), Reason> {
        let seed = Seed::new(random::bytes());
        self.stage(paths::SEED, seed.text().as_bytes(), 0o600)?;
        self.seed = Some(seed);
        Ok(())
    }

    fn identity(&mut self) -> Result<(), Reason> {
        let key = keys::ed25519()?;
        self.stage(paths::IDENTITY_KEY, key.as_bytes(), 0o600)?;
        self.identity = Some(key);
        Ok(())
    }

    /// The founding key certifies the identity key, once, and is forgotten with the seed.
    fn cluster(&mut self) -> Result<(), Reason> {
        let seed = match self.seed.take() {
            Some(seed) => seed,
            None => match Token::parse(&String::from_utf8_lossy(&self.read(paths::SEED)?)) {
                Ok(Token::Seed(seed)) => seed,
                _ => return Err(Reason::State(format!("{}: expected a seed", paths::SEED))),
            },
        };
        let identity = match self.identity.take() {
            Some(key) => key.as_bytes().to_vec(),
            None => self.read(paths::IDENTITY_KEY)?.to_vec(),
        };
        let identity = check::ed25519_public_half(&Zeroizing::new(identity));
        let identity: [u8; 32] = identity
            .ok()
            .and_then(|public| public.try_into().ok())
            .ok_or_else(|| Reason::State(format!("{}: expected an Ed25519 key", paths::IDENTITY_KEY)))?;
        let founding = seed.founding_key();
        let mut record = Cluster::unsigned(random::bytes(), self.now, &founding.public(), &identity);
        record.certify(&founding.sign(&record.certified()));
        // In place before the record is: what follows from the seed can't be made once the record stands.
        self.stage(paths::FOUNDING_TOKENS, FoundingTokens::of(&seed).text().as_bytes(), 0o600)?;
        self.stage(paths::CLUSTER, record.text().as_bytes(), 0o600)
    }

    fn authority(&mut self, which: Authority) -> Result<(), Reason> {
        let (pair, signer) = keys::authority(which, self.now, self.image)?;
        self.stage(which.key(), pair.key.as_bytes(), 0o600)?;
        self.stage(which.certificate(), pair.public.as_bytes(), 0o644)?;
        self.signers.insert(which, signer);
        Ok(())
    }

    /// The authority that this run made, or the one on disk.
    fn signer(&mut self, which: Authority) -> Result<&Signer, Reason> {
        if !self.signers.contains_key(&which) {
            let signer = Signer::load(&self.read(which.certificate())?, &self.read(which.key())?)?;
            self.signers.insert(which, signer);
        }
        self.signers.get(&which).ok_or_else(|| Reason::State(format!("no authority {which}")))
    }

    /// Stages a certificate and its key in the form that the leaf has.
    fn keep(&mut self, leaf: Leaf, authority: Authority, pair: &keys::Pair) -> Result<(), Reason> {
        match leaf.form() {
            Form::Pair { certificate, key } => {
                self.stage(key, pair.key.as_bytes(), 0o600)?;
                self.stage(certificate, pair.public.as_bytes(), 0o644)
            }
            Form::Joined { path } => {
                let joined = Zeroizing::new(format!("{}{}", pair.public, pair.key.as_str()));
                self.stage(path, joined.as_bytes(), 0o600)
            }
            Form::Kubeconfig { path } => {
                let ca = self.signer(authority)?.certificate.clone();
                let (public, key) = (pair.public.as_bytes(), pair.key.as_bytes());
                let text = kubeconfig::embedded(leaf, &self.server, ca.as_bytes(), public, key);
                self.stage(path, text.as_bytes(), 0o600)
            }
        }
    }

    fn stage(&mut self, path: &str, contents: &[u8], mode: u32) -> Result<(), Reason> {
        self.batch.stage(&self.root.path(path), contents, mode).map_err(at(path))
    }

    fn read(&self, path: &str) -> Result<Zeroizing<Vec<u8>>, Reason> {
        std::fs::read(self.root.path(path)).map(Zeroizing::new).map_err(at(path))
    }
}

fn at(path: &str) -> impl FnOnce(io::Error) -> Reason {
    let path = path.to_owned();
    move |error| Reason::File { path, error }
}
