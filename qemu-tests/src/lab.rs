//! What all scenarios of a run share that test one release: the image, the backends, the operator, and a founded
//! machine's disk.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::machine::Backend;
use crate::subject::{Release, Subject};
use image_builder::operator::Operator;

/// A lab for each release that a run tests.
pub type Labs = BTreeMap<Release, Lab>;

/// What a run has for one release.
pub struct Lab {
    /// The disk image under test.
    pub image: PathBuf,
    /// The version of Kubernetes in it: `1.37.2`.
    pub kubernetes: String,
    /// The machines it can run on.
    pub backends: Vec<Box<dyn Backend>>,
    /// The person who commands every cluster of the run.
    pub operator: Operator,
    /// kubectl of the release under test.
    pub kubectl: PathBuf,
    /// The kubeboot of this repository, for those who command clusters over the network.
    pub kubeboot: PathBuf,
    /// Where machines live while they run; removed at the end.
    pub folder: PathBuf,
    /// The disk of a machine that was founded, was Ready and was shut down; made when first asked for.
    ready: Mutex<Option<PathBuf>>,
}

impl Lab {
    /// A lab whose folder is made.
    ///
    /// # Errors
    /// The folder or the operator's key can't be made.
    pub fn new(subject: &Subject, backends: Vec<Box<dyn Backend>>, folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let kubectl = folder.join("kubectl");
        symlink(&subject.kube, &kubectl).with_context(|| format!("can't make {}", kubectl.display()))?;
        let (image, kubernetes) = (subject.image.disk(), subject.kubernetes.clone());
        let operator = Operator::generate()?;
        let kubeboot = subject.kubeboot.clone();
        Ok(Self { image, kubernetes, backends, operator, kubectl, kubeboot, folder, ready: Mutex::new(None) })
    }

    /// The disk of a founded machine, to be copied; `found` makes it if nobody did. Others wait meanwhile.
    ///
    /// # Errors
    /// `found` failed; the next who asks tries again.
    pub fn ready_disk(&self, found: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(disk) = &*ready {
            return Ok(disk.clone());
        }
        let disk = self.folder.join("ready.raw");
        found(&disk).context("can't make the founded machine that scenarios start from")?;
        *ready = Some(disk.clone());
        Ok(disk)
    }
}
