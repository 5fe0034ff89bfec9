//! What is tested: the images that this repository makes now, and the kubectl of the release in each.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use image_builder::cache::Cache;
use image_builder::components::{Source, components, separate_kubernetes};
use image_builder::image::{self, Image, Platform};
use image_builder::kubeboot_binary::kubeboot_binary;
use image_builder::progress::Progress;
use image_builder::release::Inputs;
use image_builder::tools::Tools;

/// The factory release in the image of a scenario's machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// The one that `image/build` makes.
    Default,
    /// Kubernetes [`OLDER`].
    Older,
    /// Made with `--from`: Kubernetes' six programs are files of their own, as upstream publishes them. Upstream's own
    /// can't be downloaded everywhere, so they are built from the same sources.
    Separate,
}

/// The oldest version of Kubernetes that releases can be made of.
const OLDER: &str = "1.36.3";

impl Release {
    /// Its name, for files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Older => "older",
            Self::Separate => "separate",
        }
    }

    /// What it is made of.
    fn inputs(self, cache: &Cache) -> Result<Inputs> {
        let source = match self {
            Self::Default => Source::default(),
            Self::Older => Source { kubernetes: Some(OLDER.to_owned()), ..Source::default() },
            Self::Separate => Source { from: Some(separate_kubernetes(cache)?), ..Source::default() },
        };
        Ok(Inputs { source, ..Inputs::default() })
    }
}

/// An image and what goes with it.
pub struct Subject {
    /// The image.
    pub image: Image,
    /// The program that is kubectl when it is called so.
    pub kube: PathBuf,
    /// kubeboot, as it is in machines.
    pub kubeboot: PathBuf,
    /// The version of Kubernetes in the release: `1.37.2`.
    pub kubernetes: String,
    /// QEMU and more.
    pub tools: Tools,
}

/// Builds the image with a release (unless one is given as its folder in the cache) and what goes with it, or finds them
/// in the cache.
///
/// # Errors
/// Something can't be built, or the folder holds no image.
pub fn get(cache: &Cache, release: Release, image: Option<PathBuf>) -> Result<Subject> {
    let mut progress = Progress::start();
    let tools = Tools::ensure(cache)?;
    progress.done("tools tree");
    let inputs = release.inputs(cache)?;
    let image = match image {
        Some(folder) => {
            let image = Image::at(folder);
            let disk = image.disk();
            ensure!(
                disk.is_file(),
                "there is no {}. Fix: --image wants the folder of an image in the cache",
                disk.display()
            );
            image
        }
        None => image::of_release(cache, &tools, &inputs, Platform::Vm, false, &mut progress)?,
    };
    let components = components(cache, &inputs.source)?;
    let kube = components.files.get("bin/kubectl").context("the components have no kubectl")?.clone();
    let kubeboot = kubeboot_binary(cache)?;
    Ok(Subject { image, kube, kubeboot, kubernetes: components.kubernetes.version, tools })
}

#[cfg(test)]
mod tests {
    use image_builder::components::kubernetes;

    use super::*;

    #[test]
    fn the_older_kubernetes_is_pinned_and_not_the_default() {
        assert_eq!(kubernetes(Some(OLDER)).unwrap().version, OLDER);
        assert_ne!(kubernetes(None).unwrap().version, OLDER);
    }
}
