//! From binaries to an erofs image with its hash tree.

use std::collections::btree_map::Entry;
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
    /// A file on this machine. Places with the same one, by path or by hard link, are hard links in the release.
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

    /// Each place that is a hard link, and the first place of the same file.
    pub fn links(&self) -> Result<Vec<String>> {
        let mut first = BTreeMap::new();
        let mut links = Vec::new();
        for (place, source) in &self.0 {
            if let Contents::File(path) = source {
                match first.entry(identity(path)?.0) {
                    Entry::Occupied(first) => links.push(format!("{place} = {}", first.get())),
                    Entry::Vacant(free) => drop(free.insert(place)),
                }
            }
        }
        Ok(links)
    }

    /// Path and length of each file; of hard links the first.
    pub fn contents(&self) -> Result<Vec<(String, u64)>> {
        let mut seen = BTreeSet::new();
        let mut contents = Vec::new();
        for (place, source) in &self.0 {
            match source {
                Contents::Bytes(bytes) => contents.push((place.clone(), bytes.len() as u64)),
                Contents::File(path) => {
                    let (identity, length) = identity(path)?;
                    if seen.insert(identity) {
                        contents.push((place.clone(), length));
                    }
                }
            }
        }
        Ok(contents)
    }

    /// Lays the tree out in an empty folder.
    fn write(&self, folder: &Path) -> Result<()> {
        let mut placed = BTreeMap::new();
        for (place, contents) in &self.0 {
            let to = folder.join(place);
            let parent = to.parent().unwrap_or(folder);
            fs::create_dir_all(parent).with_context(|| format!("Cannot make {}", parent.display()))?;
            let written = match contents {
                Contents::Bytes(bytes) => fs::write(&to, bytes).and_then(|()| mode(&to, 0o444)),
                Contents::File(from) => match placed.entry(identity(from)?.0) {
                    Entry::Occupied(first) => fs::hard_link(first.get(), &to),
                    Entry::Vacant(free) => {
                        free.insert(to.clone());
                        fs::copy(from, &to).and_then(|_| mode(&to, 0o555))
                    }
                },
            };
            written.with_context(|| format!("Cannot write {}", to.display()))?;
        }
        set_folder_modes(folder)
    }
}

/// What makes two paths one file (device and inode), and its length.
fn identity(path: &Path) -> Result<((u64, u64), u64)> {
    let metadata = fs::metadata(path).with_context(|| format!("Cannot examine {}", path.display()))?;
    Ok(((metadata.dev(), metadata.ino()), metadata.len()))
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

#[cfg(test)]
mod tests {
    use kubeboot::release::manifest::{FORMAT, Image, Manifest, OsRange, Verity};
    use kubeboot::release::{Keys, read};

    use super::*;
    use crate::cache::Cache;
    use crate::keys::{KeyName, KeyStore};

    /// A tree of two hard links, an executable of its own and a text.
    fn tree(folder: &Path) -> Tree {
        fs::write(folder.join("kube"), "one program\n".repeat(9000)).unwrap();
        fs::hard_link(folder.join("kube"), folder.join("kubelet")).unwrap();
        fs::write(folder.join("etcd"), "another").unwrap();
        let file = |name: &str| Contents::File(folder.join(name));
        Tree(BTreeMap::from([
            ("bin/kube".to_owned(), file("kube")),
            ("bin/kubelet".to_owned(), file("kubelet")),
            ("bin/kubectl".to_owned(), file("kube")),
            ("bin/etcd".to_owned(), file("etcd")),
            ("images/x".to_owned(), Contents::Bytes(b"text".to_vec())),
        ]))
    }

    fn created() -> Moment {
        "2026-10-27T12:01:04Z".parse().unwrap()
    }

    fn manifest(assembled: &Assembled) -> Manifest {
        Manifest {
            format: FORMAT,
            kubernetes: "1.37.2".into(),
            build: 1,
            version: "1.37.2-1".parse().unwrap(),
            created: created(),
            expires: created(),
            minimum: "1.36.0-0".parse().unwrap(),
            floor: "1.37.0-0".parse().unwrap(),
            os: OsRange { min: 1, max: 1 },
            erofs: Image { length: assembled.length, sha256: assembled.sha256 },
            verity: Verity {
                algorithm: "sha256".into(),
                root_hash: assembled.tree.root,
                salt: SALT,
                data_block_size: 4096,
                hash_block_size: 4096,
                data_blocks: assembled.data_blocks(),
                hash_offset: assembled.data_blocks() * 4096,
            },
            components: BTreeMap::new(),
        }
    }

    #[test]
    fn a_release_is_read_back_and_its_files_are_what_went_in() {
        prepare_host().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let keys = KeyStore::open(&Cache::at(folder.join("cache")).unwrap()).unwrap();
        let assembled = twice(&tree(folder), folder, created()).unwrap();
        let manifest = manifest(&assembled);
        let bytes = manifest.to_bytes().unwrap();
        let path = folder.join("test.release");
        assembled.finish(&path, &bytes, &keys.sign(KeyName::B, &bytes, "test").unwrap()).unwrap();

        let mut file = File::open(&path).unwrap();
        let trusted = Keys::parse(&keys.public_keys().unwrap()).unwrap();
        let envelope = read(&mut file, &trusted).unwrap();
        assert_eq!(envelope.manifest, manifest);
        envelope.check_image(&mut file).unwrap();

        let out = folder.join("out");
        let mut fsck = Command::new("fsck.erofs");
        fsck.arg(format!("--extract={}", out.display())).arg(&path);
        command::run(&mut fsck, "extract the image").unwrap();
        assert_eq!(fs::read_to_string(out.join("bin/etcd")).unwrap(), "another");
        assert_eq!(fs::read_to_string(out.join("images/x")).unwrap(), "text");
        assert_eq!(fs::read_to_string(out.join("bin/kubelet")).unwrap(), "one program\n".repeat(9000));
        let facts = |place: &str| {
            let metadata = fs::metadata(out.join(place)).unwrap();
            (metadata.mode() & 0o7777, metadata.mtime())
        };
        let time = i64::try_from(created().unix()).unwrap();
        assert_eq!([facts("bin/kube"), facts("images/x"), facts("bin")].map(|(_, mtime)| mtime), [time; 3]);
        assert_eq!([facts("bin/kube"), facts("images/x"), facts("bin")].map(|(mode, _)| mode), [0o555, 0o444, 0o755]);
    }

    #[test]
    fn one_program_under_three_names_is_stored_and_counted_once() {
        prepare_host().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tree = tree(folder.path());
        let contents = tree.contents().unwrap();
        assert_eq!(contents, [("bin/etcd".into(), 7), ("bin/kube".into(), 108_000), ("images/x".into(), 4)]);
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        tree.write(&out).unwrap();
        let links = |place: &str| fs::metadata(out.join(place)).unwrap().nlink();
        assert_eq!([links("bin/kube"), links("bin/kubelet"), links("bin/kubectl"), links("bin/etcd")], [3, 3, 3, 1]);
    }

    #[test]
    fn links_and_copies_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let tree = tree(folder.path());
        assert_eq!(tree.links().unwrap(), ["bin/kubectl = bin/kube", "bin/kubelet = bin/kube"]);
        fs::remove_file(folder.path().join("kubelet")).unwrap();
        fs::copy(folder.path().join("kube"), folder.path().join("kubelet")).unwrap();
        assert_eq!(tree.links().unwrap(), ["bin/kubectl = bin/kube"]);
    }

    #[test]
    fn the_salt_says_what_it_is() {
        assert_eq!(&SALT.0[..16], b"kubeboot release");
        assert_eq!(SALT.0[16..], [0; 16]);
    }
}
