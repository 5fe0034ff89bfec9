//! Volumes that are plugged into machines: user-data as clouds and people give it, and images for pods.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use image_builder::command::run;
use image_builder::host;

use crate::command::output_with_input;

/// A kind of file system for user-data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A stick, or what a hypervisor makes of a floppy.
    Vfat,
    /// A CD-ROM image.
    Iso9660,
}

/// Makes a volume with a label and some files (path and contents), in `folder`.
///
/// # Errors
/// The host's tools can't be installed or refuse.
pub fn user_data(folder: &Path, format: Format, label: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    let tree = tree(folder, label, files)?;
    let volume = folder.join(format!("{label}.img"));
    match format {
        Format::Vfat => {
            host::host_packages(&["dosfstools", "mtools"])?;
            let mut make = Command::new("mkfs.vfat");
            run(make.args(["-C", "-n", &label.to_uppercase()]).arg(&volume).arg("8192"), "make a vfat volume")?;
            let mut copy = Command::new("mcopy");
            copy.arg("-s").arg("-i").arg(&volume).args(top(&tree)?).arg("::/");
            run(&mut copy, "copy files to a vfat volume")?;
        }
        Format::Iso9660 => {
            host::host_packages(&["xorriso"])?;
            let mut make = Command::new("xorriso");
            make.args(["-as", "mkisofs", "-quiet", "-J", "-R", "-V", label, "-o"]).args([&volume, &tree]);
            run(&mut make, "make an ISO 9660 volume")?;
        }
    }
    Ok(volume)
}

/// Makes a volume labelled `kubeboot-images` with OCI archives.
///
/// # Errors
/// As for [`user_data`].
pub fn images(folder: &Path, archives: &[PathBuf]) -> Result<PathBuf> {
    host::host_packages(&["e2fsprogs"])?;
    let tree = tree(folder, "kubeboot-images", &[])?;
    for archive in archives {
        let name = archive.file_name().context("an image archive without a name")?;
        fs::copy(archive, tree.join(name)).with_context(|| format!("can't copy {}", archive.display()))?;
    }
    let volume = folder.join("kubeboot-images.img");
    let mut make = Command::new("mkfs.ext4");
    make.args(["-q", "-F", "-L", "kubeboot-images", "-d"]).args([&tree, &volume]).arg("64M");
    run(&mut make, "make a volume with images")?;
    Ok(volume)
}

/// Makes a disk of 64 MiB whose one partition has a GPT label and an empty ext4 file system.
///
/// # Errors
/// As for [`user_data`].
pub fn labelled(folder: &Path, label: &str) -> Result<PathBuf> {
    host::host_packages(&["e2fsprogs", "fdisk"])?;
    let disk = folder.join(format!("{label}.raw"));
    let file = fs::File::create(&disk).with_context(|| format!("can't make {}", disk.display()))?;
    file.set_len(64 << 20).with_context(|| format!("can't enlarge {}", disk.display()))?;
    let table = format!("label: gpt\nstart=2048, size=126976, name={label}\n");
    output_with_input(Command::new("sfdisk").arg("-q").arg(&disk), table.as_bytes())?;
    let mut make = Command::new("mkfs.ext4");
    make.args(["-q", "-F", "-E", "offset=1048576", "-L", label]).arg(&disk).arg("62M");
    run(&mut make, "make a file system in a partition")?;
    Ok(disk)
}

/// A folder with the files.
fn tree(folder: &Path, name: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    let tree = folder.join(format!("{name}.files"));
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("can't clear {}", tree.display()))?;
    }
    fs::create_dir_all(&tree).with_context(|| format!("can't make {}", tree.display()))?;
    for (path, contents) in files {
        let path = tree.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("can't make {}", parent.display()))?;
        }
        fs::write(&path, contents).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(tree)
}

fn top(tree: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(tree).with_context(|| format!("can't list {}", tree.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(volume: &Path) -> String {
        let mut blkid = Command::new("blkid");
        image_builder::command::output(blkid.args(["-p", "-o", "export"]).arg(volume), "look at a volume").unwrap()
    }

    #[test]
    fn volumes_carry_their_label_and_format() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("user-data", "#cloud-config\n"), ("openstack/latest/user_data", "x")];
        let vfat = user_data(folder.path(), Format::Vfat, "cidata", &files).unwrap();
        assert!(label(&vfat).contains("LABEL=CIDATA\n") && label(&vfat).contains("TYPE=vfat\n"));
        let iso = user_data(folder.path(), Format::Iso9660, "config-2", &files).unwrap();
        assert!(label(&iso).contains("LABEL=config-2\n") && label(&iso).contains("TYPE=iso9660\n"));
        let disk = labelled(folder.path(), "kubeboot-var").unwrap();
        assert!(label(&disk).contains("PTTYPE=gpt\n"));
        let images = images(folder.path(), &[]).unwrap();
        assert!(label(&images).contains("LABEL=kubeboot-images\n"));
    }
}
