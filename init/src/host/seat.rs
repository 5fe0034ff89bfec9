//! Opening a release file and mounting it as the seat.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use super::{mounts, process};
use crate::release::manifest::Verity;

/// Name of the device mapper's target for a release on `/var`.
const MAPPER: &str = "kubeboot-slot";
/// How long a loop device or a dm-verity target may take to be made.
const SETUP: Duration = Duration::from_secs(30);

/// Mounts the erofs that starts `release`, by the file itself where the kernel can (6.12 and later), else by a loop
/// device. Only for a file whose every read is verified below it: the factory release, in the image's verity root.
///
/// # Errors
/// Those of mount(2) and, for the loop device, mount(8).
pub fn mount_file(release: &Path, seat: &Path) -> io::Result<()> {
    match mounts::read_only(release, seat, "erofs") {
        // ENOTBLK: this kernel mounts block devices only.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOTBLK) => mount_loop(release, seat),
        result => result,
    }
}

fn mount_loop(release: &Path, seat: &Path) -> io::Result<()> {
    let (release, seat) = (text(release)?, text(seat)?);
    let arguments = ["-t", "erofs", "-o", "loop,ro,nodev,nosuid", release, seat];
    process::run("mount", &arguments, SETUP).map(drop).map_err(io::Error::other)
}

/// Mounts the erofs that starts `release` through dm-verity: every block is checked against the signed root hash when
/// it is read.
///
/// # Errors
/// Those of veritysetup and of mount(2); nothing stays set up then.
pub fn mount_verity(release: &Path, verity: &Verity, seat: &Path) -> io::Result<()> {
    close_verity();
    let release = text(release)?;
    let (blocks, offset) = (verity.data_blocks.to_string(), verity.hash_offset.to_string());
    let (salt, root_hash) = (verity.salt.to_string(), verity.root_hash.to_string());
    let options =
        ["--no-superblock", "--format=1", "--hash=sha256", "--data-block-size=4096", "--hash-block-size=4096"];
    let mut arguments = vec!["open"];
    arguments.extend(options);
    arguments.extend(["--data-blocks", &blocks, "--hash-offset", &offset, "--salt", &salt]);
    arguments.extend([release, MAPPER, release, &root_hash]);
    process::run("veritysetup", &arguments, SETUP).map_err(io::Error::other)?;
    let device = Path::new("/dev/mapper").join(MAPPER);
    mounts::read_only(&device, seat, "erofs").inspect_err(|_| close_verity())
}

/// Takes down what an earlier run left, if anything.
fn close_verity() {
    if super::files::exists(&Path::new("/dev/mapper").join(MAPPER)) {
        let _ = process::run("veritysetup", &["close", MAPPER], SETUP);
    }
}

fn text(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "expected a path in UTF-8"))
}
