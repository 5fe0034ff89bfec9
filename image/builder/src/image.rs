//! The OS image: mkosi run on a copy of `image/mkosi`, with the units, kubeboot and the factory release added.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, Check, Key};
use crate::keys::KeyStore;
use crate::kubeboot_binary::kubeboot_binary;
use crate::progress::Progress;
use crate::release::{Inputs, release};
use crate::tools::Tools;
use crate::{command, mirror, pe};

/// Debian's release that the image is made of; `image/mkosi/mkosi.conf` says the same.
const SUITE: &str = "trixie";
/// The largest image that is still called small.
const MOST_BYTES: u64 = 700 << 20;

/// What machine the image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Platform {
    /// Virtual machines: a small kernel without hardware drivers.
    Vm,
    /// Bare metal: the generic kernel.
    Metal,
}

/// What is built into an image.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What machine it is for.
    pub platform: Platform,
    /// With a shell on the serial console and an ssh server.
    pub debug: bool,
    /// The kubeboot program, statically linked: it also runs in the initrd.
    pub kubeboot: PathBuf,
    /// The factory release.
    pub release: PathBuf,
    /// The public keys that releases must be signed with, as the image's file has them.
    pub release_keys: String,
}

/// A finished image: a folder of the cache, to be read and copied, never changed.
#[derive(Debug, Clone)]
pub struct Image {
    folder: PathBuf,
}

impl Image {
    /// An image that was built before.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The whole disk: GPT with ESP, root and its hash tree. Raw, sparse.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk.raw")
    }

    /// The kernel, for a boot without firmware.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The initrd, for a boot without firmware.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }

    /// The kernel command line with the root's hash, for a boot without firmware.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn command_line(&self) -> Result<String> {
        let path = self.folder.join("cmdline");
        fs::read_to_string(&path).with_context(|| format!("Cannot read {}", path.display()))
    }

    /// The image's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Builds the image, or finds it in the cache when none of its inputs changed.
///
/// # Errors
/// mkosi failed (its last lines are quoted), or the result is too large.
pub fn build(cache: &Cache, tools: &Tools, recipe: &Recipe) -> Result<Image> {
    let repository = crate::repository();
    let key = Key::of("image 1")
        .input("tools", tools.key().as_str())
        .input("profiles", profiles(recipe).join(","))
        .files("mkosi", &repository.join("image/mkosi"))?
        .files("units", &repository.join("units"))?
        .files("kubeboot", &recipe.kubeboot)?
        .files("release", &recipe.release)?
        .input("release keys", &recipe.release_keys)
        .finish();
    let folder = cache.entry("image", &key, Check::Listing, |folder| make(cache, tools, recipe, folder))?;
    Ok(Image { folder })
}

/// Makes a release, and the image that carries it as its factory release.
///
/// # Errors
/// As [`release`](crate::release::release) and [`build`].
pub fn of_release(
    cache: &Cache,
    tools: &Tools,
    inputs: &Inputs,
    platform: Platform,
    debug: bool,
    progress: &mut Progress,
) -> Result<Image> {
    let release = release(cache, inputs)?;
    progress.done(&format!("release {}", release.manifest.version));
    let recipe = Recipe {
        platform,
        debug,
        kubeboot: kubeboot_binary(cache)?,
        release: release.path,
        release_keys: KeyStore::open(cache)?.public_keys()?,
    };
    let image = build(cache, tools, &recipe)?;
    progress.done("disk image");
    Ok(image)
}

/// Writes a copy of the image's disk to `target`: raw and sparse, or compressed qcow2.
///
/// # Errors
/// qemu-img failed.
pub fn export(tools: &Tools, image: &Image, qcow2: bool, target: &Path) -> Result<()> {
    let mut convert = tools.command("qemu-img");
    convert.args(["convert", "-f", "raw"]).args(if qcow2 { &["-O", "qcow2", "-c"][..] } else { &["-O", "raw"] });
    let target = std::path::absolute(target).context("Cannot name the target")?;
    command::run(convert.arg(image.disk()).arg(target), "write a copy of the disk image")
}

/// mkosi's profiles of a recipe.
fn profiles(recipe: &Recipe) -> Vec<&'static str> {
    let platform = match recipe.platform {
        Platform::Vm => "vm",
        Platform::Metal => "metal",
    };
    if recipe.debug { vec![platform, "debug"] } else { vec![platform] }
}

fn make(cache: &Cache, tools: &Tools, recipe: &Recipe, folder: &Path) -> Result<()> {
    let profiles = profiles(recipe);
    let work = cache.root().join("mkosi").join(profiles.join("-"));
    // mkosi's cache of one profile must not meet another run's.
    fs::create_dir_all(&work).with_context(|| format!("Cannot make {}", work.display()))?;
    let lock = fs::File::create(work.join("lock")).with_context(|| format!("Cannot lock {}", work.display()))?;
    lock.lock().with_context(|| format!("Cannot lock {}", work.display()))?;
    let project = work.join("project");
    stage(&project, recipe)?;
    let output = work.join("output");
    recreate(&output)?;
    let workspace = work.join("workspace");
    recreate(&workspace)?;
    let mut mkosi = tools.command("mkosi");
    mkosi.arg("--directory").arg(&project).args(profiles.iter().flat_map(|name| ["--profile", name]));
    for (option, folder) in [
        ("--package-cache-directory", cache.root().join("mkosi/packages")),
        ("--cache-directory", work.join("cache")),
        ("--workspace-directory", workspace),
        ("--output-directory", output.clone()),
    ] {
        fs::create_dir_all(&folder).with_context(|| format!("Cannot make {}", folder.display()))?;
        mkosi.arg(option).arg(folder);
    }
    // The release inside is compressed already, and the rest is read at boot under emulation: fast before small.
    mkosi.env("SYSTEMD_REPART_MKFS_OPTIONS_EROFS", "-zlz4hc,4 -C65536 -Efragments,dedupe");
    mkosi.env("SYSTEMD_REPART_MKFS_OPTIONS_VFAT", "-n ESP");
    mkosi.args(["--force", "build"]);
    command::run(&mut mkosi, "build the image with mkosi")?;
    collect(&output, folder)
}

/// Puts mkosi's results where [`Image`] finds them.
fn collect(output: &Path, folder: &Path) -> Result<()> {
    for (from, to) in [("kubeboot.raw", "disk.raw"), ("kubeboot.vmlinuz", "vmlinuz"), ("kubeboot.initrd", "initrd")] {
        let (from, to) = (output.join(from), folder.join(to));
        fs::rename(&from, &to).with_context(|| format!("Cannot rename {} to {}", from.display(), to.display()))?;
    }
    let uki = output.join("kubeboot.efi");
    let program = fs::read(&uki).with_context(|| format!("Cannot read {}", uki.display()))?;
    let line = pe::section(&program, ".cmdline").with_context(|| format!("{} has no .cmdline", uki.display()))?;
    let line = String::from_utf8_lossy(line);
    fs::write(folder.join("cmdline"), line.trim_end_matches('\0').trim()).context("Cannot write cmdline")?;
    let size = fs::metadata(folder.join("disk.raw")).context("Cannot examine disk.raw")?.len();
    fits(size)
}

/// Refuses an image that is too large.
fn fits(bytes: u64) -> Result<()> {
    if bytes > MOST_BYTES {
        bail!(
            "The image has {} MiB, and may have at most {}. Fix: leave out packages (image/mkosi/mkosi.conf) or files \
             (RemoveFiles= there)",
            bytes.div_ceil(1 << 20),
            MOST_BYTES >> 20
        );
    }
    Ok(())
}

/// Lays out mkosi's project: the repository's folder plus what it cannot hold.
fn stage(project: &Path, recipe: &Recipe) -> Result<()> {
    let repository = crate::repository();
    recreate(project)?;
    copy_tree(&repository.join("image/mkosi"), project)?;
    let root = project.join("mkosi.extra");
    let initrd = project.join("mkosi.images/initrd/mkosi.extra");
    // units/ is the image's /usr/lib, except units/initrd, which is the initrd's.
    let units = repository.join("units");
    copy_tree(&units, &root.join("usr/lib"))?;
    fs::remove_dir_all(root.join("usr/lib/initrd")).context("Cannot leave the initrd's units out of the image")?;
    copy_tree(&units.join("initrd"), &initrd.join("usr/lib"))?;
    install(&recipe.kubeboot, &root.join("usr/bin/kubeboot"), 0o755)?;
    install(&recipe.kubeboot, &initrd.join("usr/bin/kubeboot"), 0o755)?;
    install(&recipe.release, &root.join("usr/lib/kubeboot/factory.release"), 0o644)?;
    let keys = root.join("usr/lib/kubeboot/release-keys");
    fs::write(&keys, &recipe.release_keys).with_context(|| format!("Cannot write {}", keys.display()))?;
    if let Some(mirrors) = mirror::of_this_machine()? {
        // This very name: mkosi then writes no list of its own, which asks for archives that mirrors lack.
        let sources = project.join("mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources");
        let parent = sources.parent().context("a path without a parent")?;
        fs::create_dir_all(parent).with_context(|| format!("Cannot make {}", parent.display()))?;
        fs::write(&sources, mirrors.sources(SUITE)).with_context(|| format!("Cannot write {}", sources.display()))?;
    }
    Ok(())
}

/// Copies a file, making its folders.
fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let parent = to.parent().context("a path without a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("Cannot make {}", parent.display()))?;
    fs::copy(from, to).with_context(|| format!("Cannot copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
        .with_context(|| format!("Cannot set the mode of {}", to.display()))
}

/// Copies what is in `from` into `to`, over what is there; links stay links.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("Cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("Cannot list {}", from.display()))? {
        let entry = entry.with_context(|| format!("Cannot list {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().with_context(|| format!("Cannot examine {}", source.display()))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            let name = fs::read_link(&source).with_context(|| format!("Cannot read {}", source.display()))?;
            std::os::unix::fs::symlink(name, &target)
                .with_context(|| format!("Cannot make the link {}", target.display()))?;
        } else {
            fs::copy(&source, &target).with_context(|| format!("Cannot copy {}", source.display()))?;
        }
    }
    Ok(())
}

fn recreate(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("Cannot empty {}", folder.display()));
        }
        _ => {}
    }
    fs::create_dir_all(folder).with_context(|| format!("Cannot make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_above_its_limit_is_refused_with_both_numbers() {
        assert!(fits(MOST_BYTES).is_ok());
        let said = fits(MOST_BYTES + 1).unwrap_err().to_string();
        assert!(said.starts_with("The image has 701 MiB, and may have at most 700."), "{said}");
    }
}
