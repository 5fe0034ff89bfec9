//! Writes tar archives in which nothing depends on the machine: ustar headers, owner root, time 0.
//! Source: POSIX.1-2017, pax, "ustar Interchange Format".

use anyhow::{Result, ensure};

/// An archive in memory.
#[derive(Debug, Default)]
pub struct Tar(Vec<u8>);

const BLOCK: usize = 512;

impl Tar {
    /// Adds a file.
    ///
    /// # Errors
    /// The name is longer than 100 bytes, or the file longer than 8 GiB.
    pub fn file(&mut self, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
        self.entry(name, mode, b'0', contents)
    }

    /// Adds a folder.
    ///
    /// # Errors
    /// The name is longer than 100 bytes.
    pub fn folder(&mut self, name: &str, mode: u32) -> Result<()> {
        self.entry(&format!("{name}/"), mode, b'5', &[])
    }

    /// The finished archive: two blocks of zeroes end it.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK]);
        self.0
    }

    fn entry(&mut self, name: &str, mode: u32, kind: u8, contents: &[u8]) -> Result<()> {
        ensure!(name.len() <= 100, "Cannot archive {name}: its name is longer than 100 bytes");
        ensure!(contents.len() < 1 << 33, "Cannot archive {name}: it is longer than 8 GiB");
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}\0"));
        put(108, "0000000\0"); // owner
        put(116, "0000000\0"); // group
        put(124, &format!("{:011o}\0", contents.len()));
        put(136, "00000000000\0"); // time
        put(148, "        "); // the checksum counts as blanks while it is computed
        put(257, "ustar\x0000");
        header[156] = kind;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(contents);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_itself_reads_it() {
        let mut archive = Tar::default();
        archive.folder("tmp", 0o1777).unwrap();
        archive.file("bin/pause", 0o755, &[b'x'; 700]).unwrap();
        archive.file("empty", 0o644, &[]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive.tar");
        std::fs::write(&path, archive.finish()).unwrap();
        let listing = Command::new("tar").args(["--utc", "--numeric-owner", "-tvf"]).arg(&path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&listing.stderr), "");
        let listing = String::from_utf8(listing.stdout).unwrap();
        let lines: Vec<String> =
            listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "drwxrwxrwt 0/0 0 1970-01-01 00:00 tmp/",
                "-rwxr-xr-x 0/0 700 1970-01-01 00:00 bin/pause",
                "-rw-r--r-- 0/0 0 1970-01-01 00:00 empty",
            ]
        );
        let contents = Command::new("tar").arg("-xOf").arg(&path).arg("bin/pause").output().unwrap();
        assert_eq!(contents.stdout, [b'x'; 700]);
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        assert!(Tar::default().file(&"n".repeat(101), 0o644, &[]).is_err());
        assert!(Tar::default().file(&"n".repeat(100), 0o644, &[]).is_ok());
    }
}
