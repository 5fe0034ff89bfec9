//! What is tested: the image that this repository makes now, and the kubectl of the release in it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use image_builder::cache::Cache;
use image_builder::components::components;
use image_builder::image::{self, Image, Platform};
use image_builder::progress::Progress;
use image_builder::release::Inputs;
use image_builder::tools::Tools;

/// An image and what goes with it.
pub struct Subject {
    /// The image.
    pub image: Image,
    /// The program that is kubectl when it is called so.
    pub kube: PathBuf,
    /// QEMU and more.
    pub tools: Tools,
}

/// Builds the image (unless one is given as its folder in the cache) and what goes with it, or finds them in the cache.
///
/// # Errors
/// Something can't be built.
pub fn get(cache: &Cache, image: Option<PathBuf>) -> Result<Subject> {
    let mut progress = Progress::start();
    let tools = Tools::ensure(cache)?;
    progress.done("tools tree");
    let inputs = Inputs::default();
    let image = match image {
        Some(folder) => Image::at(folder),
        None => image::of_release(cache, &tools, &inputs, Platform::Vm, false, &mut progress)?,
    };
    let components = components(cache, &inputs.source)?;
    let kube = components.files.get("bin/kubectl").context("the components have no kubectl")?.clone();
    Ok(Subject { image, kube, tools })
}
