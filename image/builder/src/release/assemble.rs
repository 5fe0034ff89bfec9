//! From binaries to an erofs image with its hash tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use kubeboot::release::date::Moment;
use kubeboot::release::manifest::Digest;
use kubeboot::release::trailer::{Extent, Trailer};
use kubeboot::release::verity;

use crate::cache::sha256_file;
use crate::components::Components;
use crate::{command, host};

/// The salt of every release's hash tree, so that a tree depends on nothing but its image: "kubeboot release" and
/// zeroes. A salt guards against precomputed collisions, which SHA-256 has none of.
pub const SALT: Digest = {
    let mut salt = [0; 32];
    let text = b"kubeboot release";
    let mut i = 0;
    while i < text.len() {
        salt[i] = text[i];
        i += 1;
    }
    Digest(salt)
};

/// The file system's UUID: any fixed one.
const UUID: &str = "6b756265-626f-4f74-8000-72656c656173";
/// lz4hc is in every kernel that has erofs, and unpacks fastest. Level 9 packs as well as 12 (0.4 % apart on these
/// binaries) in a third of the time. Clusters of 64 KiB: 16 KiB ones take a tenth more room.
const MKFS: [&str; 5] = ["-zlz4hc,9", "-C65536", "--all-root", "--quiet", "-U"];

/// What a file of a release is made of.
#[derive(Debug)]
pub enum Contents {
    /// A file on this machine. Two places with the same one are hard links.
    File(PathBuf),
    /// Made just now.
    Bytes(Vec<u8>),
}

/// The files of a release, by their place in it.
#[derive(Debug)]
pub struct Tree(BTreeMap<String, Contents>);

impl Tree {
    /// Everything in its place: docs/architecture.md, "Inside a release".
    pub fn new(components: &Components, kubeboot: PathBuf, pause: Vec<u8>) -> Self {
        let mut files: BTreeMap<String, Contents> =
            components.files.iter().map(|(place, file)| (place.clone(), Contents::File(file.clone()))).collect();
        files.insert("bin/kubeboot".into(), Contents::File(kubeboot));
        files.insert("images/kubeboot.tar".into(), Contents::Bytes(pause));
        Self(files)
    }

    /// Each place and what is there.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &Contents)> {
        self.0.iter().map(|(place, contents)| (place.as_str(), contents))
    }

    /// Path and length of each file; of hard links the first.
    pub fn contents(&self) -> Result<Vec<(String, u64)>> {
        let mut seen = BTreeSet::new();
        let mut contents = Vec::new();
        for (place, source) in &self.0 {
            let length = match source {
                Contents::Bytes(bytes) => bytes.len() as u64,
                Contents::File(path) if seen.insert(path) => {
                    fs::metadata(path).with_context(|| format!("Cannot examine {}", path.display()))?.len()
                }
                Contents::File(_) => continue,
            };
            contents.push((place.clone(), length));
        }
        Ok(contents)
    }

    /// Lays the tree out in an empty folder.
    fn write(&self, folder: &Path) -> Result<()> {
        let mut placed: BTreeMap<&Path, PathBuf> = BTreeMap::new();
        for (place, contents) in &self.0 {
            let to = folder.join(place);
            let parent = to.parent().unwrap_or(folder);
            fs::create_dir_all(parent).with_context(|| format!("Cannot make {}", parent.display()))?;
            let written = match contents {
                Contents::Bytes(bytes) => fs::write(&to, bytes).and_then(|()| mode(&to, 0o444)),
                Contents::File(from) => match placed.get(from.as_path()) {
                    Some(first) => fs::hard_link(first, &to),
                    None => {
                        placed.insert(from, to.clone());
                        fs::copy(from, &to).and_then(|_| mode(&to, 0o555))
                    }
                },
            };
            written.with_context(|| format!("Cannot write {}", to.display()))?;
        }
        set_folder_modes(folder)
    }
}

fn mode(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Folders' modes must not depend on the umask.
fn set_folder_modes(folder: &Path) -> Result<()> {
    mode(folder, 0o755).with_context(|| format!("Cannot set the mode of {}", folder.display()))?;
    for entry in fs::read_dir(folder).with_context(|| format!("Cannot list {}", folder.display()))? {
        let path = entry.with_context(|| format!("Cannot list {}", folder.display()))?.path();
        if path.is_dir() {
            set_folder_modes(&path)?;
        }
    }
    Ok(())
}

/// An image with its tree, not signed yet.
pub struct Assembled {
    image: PathBuf,
    /// The image's length in bytes.
    pub length: u64,
    /// Of those bytes.
    pub sha256: Digest,
    /// Over the image, padded to whole blocks.
    pub tree: verity::Tree,
}

/// Installs what assembling needs.
pub fn prepare_host() -> Result<()> {
    host::host_packages(&["erofs-utils"])
}

/// Which mkfs.erofs makes images: its package's version and our options.
pub fn mkfs_identity() -> Result<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Version}", "erofs-utils"]);
    Ok(format!("{} {}", command::output(&mut query, "ask for the version of erofs-utils")?, MKFS.join(" ")))
}

/// Assembles the tree twice, each time from its own copy, at the same time, and compares the images. `created` is
/// the time of every file.
pub fn twice(tree: &Tree, folder: &Path, created: Moment) -> Result<Assembled> {
    let paths = [folder.join("first"), folder.join("second")];
    let images = std::thread::scope(|scope| {
        let second = scope.spawn(|| image(tree, &paths[1], created));
        let first = image(tree, &paths[0], created)?;
        let second = second.join().map_err(|_| anyhow::anyhow!("the second assembly panicked"))??;
        anyhow::Ok([first, second])
    })?;
    let [sha256, again] = [sha256_file(&images[0])?, sha256_file(&images[1])?];
    ensure!(
        sha256 == again,
        "Two assemblies of the same binaries differ: SHA-256 {sha256} and {again} (mkfs.erofs is not reproducible here)"
    );
    remove(&images[1])?;
    let [image, _] = images;
    pad(image, sha256.parse()?)
}

/// One copy of the tree, and its image.
fn image(tree: &Tree, path: &Path, created: Moment) -> Result<PathBuf> {
    let folder = path.with_extension("tree");
    fs::create_dir(&folder).with_context(|| format!("Cannot make {}", folder.display()))?;
    tree.write(&folder)?;
    let mut mkfs = Command::new("mkfs.erofs");
    mkfs.args(MKFS).arg(UUID).arg(format!("-T{}", created.unix())).arg(path).arg(&folder);
    command::run(&mut mkfs, "make the erofs image")?;
    fs::remove_dir_all(&folder).with_context(|| format!("Cannot remove {}", folder.display()))?;
    Ok(path.to_path_buf())
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("Cannot remove {}", path.display()))
}

/// Pads an image to whole blocks and computes its hash tree.
fn pad(image: PathBuf, sha256: Digest) -> Result<Assembled> {
    let open = || format!("Cannot pad {}", image.display());
    let mut file = File::options().read(true).write(true).open(&image).with_context(open)?;
    let length = file.metadata().with_context(open)?.size();
    if length == 0 {
        bail!("mkfs.erofs made an empty image");
    }
    let block = verity::BLOCK as u64;
    file.set_len(length.next_multiple_of(block)).with_context(open)?;
    file.seek(SeekFrom::Start(0)).with_context(open)?;
    let mut reader = std::io::BufReader::with_capacity(1 << 20, file);
    let tree = verity::tree(&mut reader, length.div_ceil(block), &SALT.0).context("Cannot compute the hash tree")?;
    Ok(Assembled { image, length, sha256, tree })
}

impl Assembled {
    /// Blocks of the padded image.
    pub fn data_blocks(&self) -> u64 {
        self.length.div_ceil(verity::BLOCK as u64)
    }

    /// Appends tree, manifest, signature and trailer, and gives the file its name.
    pub fn finish(self, path: &Path, manifest: &[u8], signature: &str) -> Result<()> {
        let offset = self.data_blocks() * verity::BLOCK as u64 + self.tree.blocks.len() as u64;
        let manifest_extent = Extent { offset, length: manifest.len() as u64 };
        let signature_extent = Extent { offset: offset + manifest_extent.length, length: signature.len() as u64 };
        let trailer = Trailer { manifest: manifest_extent, signature: signature_extent };
        let write = || {
            let mut file = File::options().append(true).open(&self.image)?;
            file.write_all(&self.tree.blocks)?;
            file.write_all(manifest)?;
            file.write_all(signature.as_bytes())?;
            file.write_all(&trailer.to_bytes())?;
            file.sync_all()?;
            mode(&self.image, 0o644)?;
            fs::rename(&self.image, path)
        };
        write().with_context(|| format!("Cannot write {}", path.display()))
    }
}
