//! Opening a release file and mounting it as the seat.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;

use super::{mounts, process};
use crate::release::manifest::Verity;
use crate::release::verity::BLOCK;
use crate::slots::Unusable;

/// Name of the device mapper's target for a release on `/var`.
const MAPPER: &str = "kubeboot-slot";
/// How long a loop device or a dm-verity target may take to be made.
const SETUP: Duration = Duration::from_secs(30);
/// How much is read at once, in bytes: several requests' worth, whose blocks the kernel checks on all processors.
const CHUNK: usize = 4 << 20;

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
/// it is read. All of them are read once before, so that a bad one is found while there is another release to go to,
/// not when a program of this one is started.
///
/// # Errors
/// [`Unusable::Mount`] and [`Unusable::Block`]; nothing stays set up then.
pub fn mount_verity(release: &Path, verity: &Verity, seat: &Path) -> Result<(), Unusable> {
    let path = release.display().to_string();
    let failed = |error: io::Error| Unusable::Mount { path: path.clone(), error };
    let device = open_verity(release, verity).map_err(failed)?;
    let length = verity.data_blocks * BLOCK as u64;
    let result = read_device(&device, length)
        .map_err(|Ended { offset, error }| Unusable::Block { path: path.clone(), offset, length, error })
        .and_then(|()| mounts::read_only(&device, seat, "erofs").map_err(failed));
    if result.is_err() {
        close_verity();
    }
    result
}

fn open_verity(release: &Path, verity: &Verity) -> io::Result<PathBuf> {
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
    Ok(Path::new("/dev/mapper").join(MAPPER))
}

/// Where a reading ended before its time.
#[derive(Debug)]
struct Ended {
    /// In bytes, from the start; a multiple of [`CHUNK`].
    offset: u64,
    /// Why.
    error: io::Error,
}

/// Reads a block device whole. Past its own cache, which erofs would not use: the pages of the release's file, below
/// the loop device, are what stays in memory, and are what the seat's programs are read from next.
fn read_device(device: &Path, length: u64) -> Result<(), Ended> {
    let mut device = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(device)
        .map_err(|error| Ended { offset: 0, error })?;
    read_whole(&mut device, length)
}

/// Reads exactly `length` bytes, [`CHUNK`] at a time, into memory that starts at a block as `O_DIRECT` wants it.
fn read_whole(device: &mut impl Read, length: u64) -> Result<(), Ended> {
    let mut memory = vec![0; CHUNK + BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let chunk = &mut memory[start..start + CHUNK];
    let mut offset = 0;
    while offset < length {
        let wanted = usize::try_from(length - offset).map_or(CHUNK, |left| left.min(CHUNK));
        device.read_exact(&mut chunk[..wanted]).map_err(|error| Ended { offset, error })?;
        offset += wanted as u64;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A device with a block that can't be read, and a count of the bytes that were.
    struct Device {
        length: u64,
        bad: Option<u64>,
        read: u64,
    }

    impl Read for Device {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            assert_eq!(into.as_ptr().align_offset(BLOCK), 0, "the kernel refuses other memory for O_DIRECT");
            assert_eq!(into.len() % BLOCK, 0, "and parts of blocks");
            // As a kernel does, a short answer first: up to the bad block, or the end.
            let end = self.bad.filter(|bad| *bad >= self.read).unwrap_or(self.length).min(self.length);
            let answer = (end - self.read).min(into.len() as u64);
            if answer == 0 && self.bad == Some(self.read) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            self.read += answer;
            Ok(usize::try_from(answer).unwrap())
        }
    }

    const LENGTH: u64 = 2 * CHUNK as u64 + 5 * BLOCK as u64;

    #[test]
    fn every_byte_is_read() {
        let mut device = Device { length: LENGTH, bad: None, read: 0 };
        read_whole(&mut device, LENGTH).unwrap();
        assert_eq!(device.read, LENGTH);
    }

    #[test]
    fn a_bad_block_anywhere_ends_the_reading() {
        for bad in [0, 7 * BLOCK as u64, CHUNK as u64, LENGTH - BLOCK as u64] {
            let mut device = Device { length: LENGTH, bad: Some(bad), read: 0 };
            let ended = read_whole(&mut device, LENGTH).unwrap_err();
            assert_eq!(ended.error.raw_os_error(), Some(libc::EIO));
            assert!((ended.offset..ended.offset + CHUNK as u64).contains(&bad), "{bad}: {}", ended.offset);
        }
    }

    #[test]
    fn a_device_that_is_too_short_is_not_whole() {
        let mut device = Device { length: LENGTH - BLOCK as u64, bad: None, read: 0 };
        assert_eq!(read_whole(&mut device, LENGTH).unwrap_err().error.kind(), ErrorKind::UnexpectedEof);
    }
}
