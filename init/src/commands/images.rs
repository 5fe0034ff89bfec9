//! `kubeboot images`: gives containerd the one local image, and with `--volume` the archives that an operator brought.
//!
//! The local image is on the way to Ready, so this starts one program and no more. Archives are not: they are imported
//! by a unit of its own, beside the kubelet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::archive::{Contents, Image};
use crate::exit::Exit;
use crate::host::console::Console;
use crate::host::oci;
use crate::host::report::Report;
use crate::host::root::Root;
use crate::host::{clock, files, mounts, process};
use crate::paths;
use crate::settings::quoted;
use crate::timeline::{Outcome, What};
use crate::words;

/// The image that every pod of kubeboot's runs in, and that keeps every pod's namespaces.
const LOCAL: &str = "kubeboot.local/pause:1";
/// Keeps the kubelet's image garbage collection away (containerd's CRI plugin).
const PINNED: &str = "io.cri-containerd.pinned=pinned";
/// Registry of kubeboot's own images, which no volume may replace: every pod's namespaces hang on them.
const OWN: &str = "kubeboot.local/";
/// File systems that such a volume may have: those that the image is tested with, not every parser of the kernel.
const FILE_SYSTEMS: [(&str, Option<&str>); 3] = [("iso9660", None), ("vfat", Some("utf8")), ("ext4", None)];
/// File system label of a volume with archives.
const LABEL: &str = "kubeboot-images";
/// The same, for file systems whose labels are short and in capitals (vfat: 11 characters).
const SHORT_LABEL: &str = "KB-IMAGES";
/// Where such a volume is mounted.
const VOLUME: &str = "/run/kubeboot/images";
/// Most archives taken from a volume.
const ARCHIVES: usize = 128;
/// Longest name of an image, in bytes.
const NAME: usize = 512;
/// How long containerd may take for a question.
const ANSWER: Duration = Duration::from_secs(60);
/// How long it may take for one archive.
const IMPORT: Duration = Duration::from_secs(600);

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Import the *.tar archives of the volume labelled kubeboot-images instead of the node's own image
    #[arg(long)]
    volume: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    let root = Root::system();
    let start = clock::monotonic();
    match if args.volume { import_volume(&root) } else { import_local(&root) } {
        Ok((outcome, step)) => {
            let took = clock::monotonic().saturating_sub(start);
            match outcome {
                // Nothing to do is nothing to tell a person of.
                Outcome::Skipped => println!("{step}"),
                _ => Console::open(&root).say(|paint| words::step(outcome, &step, took, paint)),
            }
            Report::open(&root).emit(What::Step { step, outcome, seconds: took.as_secs_f64() });
            Exit::Success
        }
        Err(error) => {
            eprintln!("kubeboot: {error}");
            Exit::Failure
        }
    }
}

/// What was done, and in which words.
type Told = (Outcome, String);

fn import_local(root: &Root) -> Result<Told, String> {
    let archive = root.path(paths::SEAT).join("images/kubeboot.tar");
    let images = oci::images(&archive).map_err(|error| format!("{}: {error}", archive.display()))?.images;
    let image = images.first().ok_or_else(|| format!("{} holds no image", archive.display()))?;
    if there(root, image)? {
        return Ok((Outcome::Skipped, format!("{LOCAL} is there")));
    }
    import(root, &archive, &["--label", PINNED])?;
    Ok((Outcome::Done, format!("import image {LOCAL}")))
}

fn import_volume(root: &Root) -> Result<Told, String> {
    let mut devices = [LABEL, SHORT_LABEL].map(|label| root.path("/dev/disk/by-label").join(label)).into_iter();
    let Some(device) = devices.find(|device| files::exists(device)) else {
        return Ok((Outcome::Skipped, format!("no volume is labelled {LABEL} or {SHORT_LABEL}")));
    };
    let target = root.path(VOLUME);
    files::make_folder(&target, 0o755)
        .and_then(|()| mounts::foreign(&device, &target, &FILE_SYSTEMS))
        .map_err(|error| format!("can't mount the volume labelled {LABEL}: {error}"))?;
    let result = import_archives(root, &target).and_then(|told| keep_own(root).map(|()| told));
    if let Err(error) = mounts::unmount(&target, false) {
        eprintln!("kubeboot: can't unmount {}: {error}", target.display());
    }
    result
}

fn import_archives(root: &Root, folder: &Path) -> Result<Told, String> {
    let mut archives: Vec<PathBuf> = files::list(folder)
        .map_err(|error| format!("can't list the volume labelled {LABEL}: {error}"))?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar")))
        .collect();
    archives.sort();
    let beyond = archives.len().saturating_sub(ARCHIVES);
    archives.truncate(ARCHIVES);
    let (mut imported, mut known, mut failed) = (0, 0, Vec::new());
    for archive in &archives {
        match import_archive(root, archive) {
            Ok(true) => imported += 1,
            Ok(false) => known += 1,
            Err(error) => failed.push(format!("{}: {error}", archive.display())),
        }
    }
    if beyond > 0 {
        failed.push(format!("{beyond} archives are more than the {ARCHIVES} that are taken from a volume"));
    }
    if failed.is_empty() {
        let outcome = if imported > 0 { Outcome::Done } else { Outcome::Skipped };
        Ok((outcome, format!("import {imported} archives of the volume labelled {LABEL} ({known} were there)")))
    } else {
        Err(format!(
            "imported {imported} of {} archives of the volume labelled {LABEL}. Not imported: {}. Fix: write archives \
             with `skopeo copy … oci-archive:NAME.tar:REGISTRY/IMAGE:TAG` or `ctr images export`",
            archives.len(),
            failed.join("; ")
        ))
    }
}

/// Puts the node's own image back, should an import have replaced it all the same: a device can show containerd other
/// bytes than it showed us.
fn keep_own(root: &Root) -> Result<(), String> {
    match import_local(root)? {
        (Outcome::Skipped, _) => Ok(()),
        _ => Err(format!(
            "{LOCAL} was another image after the import, and was put back. Fix: remove the volume labelled {LABEL}, \
             which changes while it is read"
        )),
    }
}

/// False when containerd has every image of the archive by name and digest.
fn import_archive(root: &Root, archive: &Path) -> Result<bool, String> {
    let contents = oci::images(archive).map_err(|error| error.to_string())?;
    importable(&contents)?;
    let mut all_there = true;
    for image in &contents.images {
        all_there &= there(root, image)?;
    }
    if !all_there {
        import(root, archive, &[])?;
    }
    Ok(!all_there)
}

/// Refuses an archive whose images can't be told by name, or that would replace an image of kubeboot's own.
fn importable(contents: &Contents) -> Result<(), String> {
    if contents.images.is_empty() {
        return Err("found an archive without images, expected at least one".to_owned());
    }
    for image in contents.images.iter().chain(&contents.others) {
        match image.name.as_deref() {
            None => return Err("found an image without a name, expected REGISTRY/IMAGE:TAG".to_owned()),
            Some(name) if !name.bytes().all(|byte| byte.is_ascii_graphic()) || name.len() > NAME => {
                return Err(format!("found an image named {}, expected REGISTRY/IMAGE:TAG", quoted(name)));
            }
            Some(name) if name.starts_with(OWN) => {
                return Err(format!("{name} is kubeboot's own and is not replaced"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Whether containerd has an image, by name and digest. Of Docker's form that can't be told.
fn there(root: &Root, image: &Image) -> Result<bool, String> {
    match (&image.name, &image.digest) {
        // A digest that containerd has never stored needs no question.
        (Some(name), Some(digest)) if stored(root, digest) => Ok(present(root, name)?.as_ref() == Some(digest)),
        _ => Ok(false),
    }
}

/// Whether containerd's content store has the blob.
fn stored(root: &Root, digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        let blobs = "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256";
        hex.len() == 64
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
            && files::exists(&root.path(blobs).join(hex))
    })
}

/// Digest of the image that containerd knows by this name.
fn present(root: &Root, name: &str) -> Result<Option<String>, String> {
    let listing = ctr(root, &["images", "ls", &format!("name=={name}")], ANSWER)?;
    Ok(listing_digest(&listing, name))
}

/// From `ctr images ls`: a heading, then REF, TYPE, DIGEST, … in columns.
fn listing_digest(listing: &str, name: &str) -> Option<String> {
    let row = listing.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    row.filter(|columns| columns.first() == Some(&name)).find_map(|columns| columns.get(2).map(ToString::to_string))
}

fn import(root: &Root, archive: &Path, options: &[&str]) -> Result<(), String> {
    let archive = archive.display().to_string();
    // Without --local the daemon's transfer service would do the same work with more round trips.
    let arguments = [&["images", "import", "--local"], options, &[&archive]].concat();
    ctr(root, &arguments, IMPORT).map(drop)
}

fn ctr(root: &Root, arguments: &[&str], limit: Duration) -> Result<String, String> {
    let program = root.path(paths::SEAT).join("bin/ctr").display().to_string();
    let arguments = [&["--namespace", "k8s.io"], arguments].concat();
    process::run(&program, &arguments, limit).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_third_column_of_the_images_row() {
        let listing = "REF TYPE DIGEST SIZE PLATFORMS LABELS \nkubeboot.local/pause:1 \
                       application/vnd.oci.image.manifest.v1+json sha256:ab 1.0 KiB linux/amd64 \
                       io.cri-containerd.pinned=pinned \n";
        assert_eq!(listing_digest(listing, LOCAL).as_deref(), Some("sha256:ab"));
        assert_eq!(listing_digest(listing, "kubeboot.local/pause:2"), None);
    }

    #[test]
    fn no_volume_replaces_an_image_of_kubeboots_own() {
        let images = |names: &[Option<&str>]| -> Vec<Image> {
            names.iter().map(|name| Image { name: name.map(ToOwned::to_owned), digest: None }).collect()
        };
        let judged = |names: &[Option<&str>], others: &[Option<&str>]| {
            importable(&Contents { images: images(names), others: images(others) })
        };
        let good = Some("example.org/app:1");
        assert_eq!(judged(&[good], &[good]), Ok(()));
        assert!(judged(&[good, Some(LOCAL)], &[]).is_err_and(|error| error.contains(LOCAL)));
        assert!(judged(&[good], &[Some(LOCAL)]).is_err_and(|error| error.contains(LOCAL)));
        assert!(judged(&[None], &[]).is_err_and(|error| error.contains("without a name")));
        assert!(judged(&[Some("a/b:1\u{1b}[2J")], &[]).is_err_and(|error| !error.contains('\u{1b}')));
        assert!(judged(&[], &[]).is_err());
    }

    #[test]
    fn a_digest_that_is_a_path_is_never_looked_up() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!stored(&Root::at(folder.path()), "sha256:../../../../../../../etc/passwd"));
    }
}
