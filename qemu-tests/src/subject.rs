//! What is tested: the image that the repository makes now, or one that was made before.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image_builder::cache::Cache;
use image_builder::components::{Source, components};

/// An image, and the kubectl of the release in it.
pub struct Subject {
    /// The image.
    pub image: Image,
    /// kubectl.
    pub kubectl: PathBuf,
}

/// A folder with an image: `disk.raw`, `initrd`, `cmdline`, `vmlinuz`.
pub struct Image(PathBuf);

impl Image {
    /// The disk.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.0.join("disk.raw")
    }

    /// The initrd, for a start without firmware.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.0.join("initrd")
    }

    /// The image's own kernel command line.
    ///
    /// # Errors
    /// It can't be read.
    pub fn command_line(&self) -> Result<String> {
        let path = self.0.join("cmdline");
        std::fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
    }
}

/// Builds the image, or takes the one that was given.
///
/// # Errors
/// It can't be built.
pub fn get(folder: Option<&Path>) -> Result<Subject> {
    let cache = Cache::open()?;
    let source = Source { kubernetes: None, from: None, rebuild: false };
    let components = components(&cache, &source)?;
    let kubectl = components.files.get("bin/kubectl").context("the components have no kubectl")?.clone();
    let folder = folder.context("no image")?;
    Ok(Subject { image: Image(folder.to_owned()), kubectl })
}
