//! Brings a control plane's files to what they should be: looks, lets the plan decide, acts, renders. Boot and the
//! agent's renewals are the same thing at different times.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::batch::Batch;
use super::execute::{Executor, Failed};
use super::root::Root;
use super::{clock, files, observe};
use crate::certificates::expiry::Listed;
use crate::certificates::{Authority, OperatorKey, Unix, operators};
use crate::kubernetes::{self, Render, Site, static_pods};
use crate::paths;
use crate::plan::{self, Damaged, Founder, Sight, Step};
use crate::timeline::What;
use crate::token::Seed;

/// Held by whoever changes a node's files: boot and the agent never do so at once.
const LOCK: &str = "/run/kubeboot/files.lock";

/// Holds the node's files until dropped. Waits for another holder.
///
/// # Errors
/// `/run/kubeboot` is missing.
pub fn lock(root: &Root) -> io::Result<Flock<std::fs::File>> {
    let file = std::fs::File::options().create(true).append(true).open(root.path(LOCK))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// What is on disk of all that the founder's plan wants to know.
pub fn look(root: &Root, founder: &Founder) -> Sight {
    let mut paths = founder.paths();
    // Those of operators who are no longer named too.
    let kept = files::list(&root.path(operators::DIRECTORY)).unwrap_or_default();
    let name =
        |path: std::path::PathBuf| path.file_name()?.to_str().map(|name| format!("{}/{name}", operators::DIRECTORY));
    paths.extend(kept.into_iter().filter_map(name));
    let mut sight = observe::look(root, paths.iter().map(String::as_str));
    sight.note_etcd(observe::etcd(root));
    sight
}

/// Does what a plan says. `seed` is the one that the operator gave; `done` hears of each step.
///
/// # Errors
/// The first step that fails.
pub fn act(
    root: &Root,
    founder: &Founder,
    steps: &[Step],
    seed: Option<Seed>,
    done: impl FnMut(&Step, Duration),
) -> Result<(), Failed> {
    let server = kubernetes::server(founder.node.address);
    Executor::new(root, clock::unix(), server, seed).run(steps, done)
}

/// Why a node's files could not be brought to what they should be.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// Something can't be made again.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// A step failed.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The lock could not be taken.
    #[error("can't lock {LOCK}: {0}")]
    Lock(io::Error),
}

/// Renews what is due on a machine that was founded: the same plan as at boot. Returns the steps that were taken.
///
/// # Errors
/// [`Unfinished`].
pub fn renew(root: &Root, founder: &Founder) -> Result<Vec<Step>, Unfinished> {
    let _lock = lock(root).map_err(Unfinished::Lock)?;
    let mut steps = plan::plan(founder, &look(root, founder), clock::unix())?;
    // etcd may be making its database just now. Only a boot, before etcd runs, can tell that from what a power cut left.
    steps.retain(|step| !matches!(step, Step::Remove { path, .. } if path == paths::ETCD_DATABASE));
    act(root, founder, &steps, None, |_, _| {})?;
    Ok(steps)
}

/// Every certificate of the node and its operators, for `kubeboot status` and for the agent's timer.
pub fn certificates(root: &Root, founder: &Founder) -> (Vec<Listed>, Unix) {
    let now = clock::unix();
    (plan::certificates(founder, &look(root, founder), now), now)
}

/// For each static pod, a digest of the files that it reads only when it starts.
pub fn inputs(root: &Root) -> BTreeMap<&'static str, String> {
    let digest = |name: &'static str| {
        let mut hash = Sha256::new();
        for path in static_pods::inputs(name) {
            // A file that is missing or can't be read digests as nothing: the pod then says so itself.
            hash.update(std::fs::read(root.path(path)).unwrap_or_default());
            hash.update([0]);
        }
        (name, hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    };
    static_pods::NAMES.into_iter().filter(|name| !static_pods::inputs(name).is_empty()).map(digest).collect()
}

/// Whether the machine has a directory of certificate authorities for programs.
pub fn host_authorities(root: &Root) -> bool {
    root.path("/etc/ssl/certs").is_dir()
}

/// Writes what differs of what is rendered at each boot, and returns what was written.
///
/// # Errors
/// In words: the file, and what the system said.
pub fn render(root: &Root, site: &Site<'_>, renders: &[Render]) -> Result<Vec<String>, String> {
    let failed = |path: &str, error: io::Error| format!("write {path}: {error}");
    for (path, mode) in kubernetes::directories(site) {
        files::make_folder(&root.path(&path), mode).map_err(|error| failed(&path, error))?;
    }
    let mut written = Vec::new();
    let mut batch = Batch::default();
    for Render { path, mode, contents } in renders {
        let place = root.path(path);
        if std::fs::read(&place).is_ok_and(|found| found == contents.as_bytes()) {
            continue;
        }
        batch.stage(&place, contents.as_bytes(), *mode).map_err(|error| failed(path, error))?;
        written.push(path.clone());
    }
    batch.commit_volatile().map_err(|error| failed("rendered files", error))?;
    Ok(written)
}

/// For each operator whose certificate is on disk, the event that carries it: public data only.
pub fn operators(root: &Root, founder: &Founder) -> Vec<What> {
    let text = |path: &str| std::fs::read_to_string(root.path(path)).ok();
    let Some(ca) = text(Authority::Cluster.certificate()) else { return Vec::new() };
    let server = kubernetes::server(founder.node.address);
    let event = |key: OperatorKey| {
        let certificate = text(&key.path())?;
        Some(What::Operator { key: key.fingerprint(), certificate, ca: ca.clone(), server: server.clone() })
    };
    founder.operators().into_iter().filter_map(event).collect()
}

/// The seed that the founder made itself, as long as it is kept.
pub fn own_seed(root: &Root) -> Option<zeroize::Zeroizing<String>> {
    std::fs::read_to_string(root.path(paths::SEED)).ok().map(zeroize::Zeroizing::new)
}

#[cfg(test)]
mod tests;
