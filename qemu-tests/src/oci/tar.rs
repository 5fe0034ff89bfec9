//! Writing tar archives: as much of POSIX.1-1988 ustar as an OCI image needs, always the same bytes for the same files.

use anyhow::{Result, ensure};

const BLOCK: usize = 512;

/// An archive in memory. Owner 0:0, time 0.
#[derive(Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// Adds a regular file.
    ///
    /// # Errors
    /// The path is longer than 100 bytes.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
        self.header(path, mode, contents.len(), b'0', "")?;
        self.bytes.extend_from_slice(contents);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// As for [`Tar::file`].
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.header(&format!("{path}/"), mode, 0, b'5', "")
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// The path or the target is longer than 100 bytes.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.header(path, 0o777, 0, b'2', target)
    }

    /// The whole archive, closed by two empty blocks.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, kind: u8, target: &str) -> Result<()> {
        ensure!(path.len() <= 100 && target.len() <= 100, "{path:?} → {target:?} is too long for a tar header");
        let mut header = [0; BLOCK];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[148..156].copy_from_slice(b"        ");
        header[156] = kind;
        header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.bytes.extend_from_slice(&header);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    use crate::command::output_with_input;

    #[test]
    fn the_hosts_tar_reads_it_back() {
        let mut tar = Tar::default();
        tar.directory("bin", 0o755).unwrap();
        tar.file("bin/tool", 0o755, &[b'x'; 700]).unwrap();
        tar.link("bin/sh", "tool").unwrap();
        let listed = output_with_input(Command::new("tar").args(["-tvf", "-"]), &tar.finish()).unwrap();
        let lines: Vec<_> = listed.lines().collect();
        assert_eq!(lines.len(), 3, "{listed}");
        assert!(lines[0].starts_with("drwxr-xr-x 0/0") && lines[0].ends_with("bin/"), "{listed}");
        assert!(lines[1].starts_with("-rwxr-xr-x 0/0") && lines[1].contains(" 700 "), "{listed}");
        assert!(lines[2].ends_with("bin/sh -> tool"), "{listed}");
    }
}
