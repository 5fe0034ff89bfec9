//! Reads what a machine reports on its second serial port, as it grows.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kubeboot::timeline::{Event, parse};

/// A report file that is followed.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    position: u64,
    partial: Vec<u8>,
}

impl Follower {
    /// Follows `path` from its beginning. It may not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), position: 0, partial: Vec::new() }
    }

    /// The events that came since the last call. Lines that are no events are left out: firmware may write to any
    /// serial port.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn poll(&mut self) -> Result<Vec<Event>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened.with_context(|| format!("Cannot open {}", self.path.display()))?,
        };
        file.seek(SeekFrom::Start(self.position)).with_context(|| format!("Cannot read {}", self.path.display()))?;
        let read = file.read_to_end(&mut self.partial);
        self.position += read.with_context(|| format!("Cannot read {}", self.path.display()))? as u64;
        let whole = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.partial.drain(..whole).collect();
        Ok(parse(&String::from_utf8_lossy(&lines)).0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use kubeboot::timeline::What;

    #[test]
    fn half_a_line_waits_for_its_other_half() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report");
        let mut follower = Follower::new(&path);
        assert_eq!(follower.poll().unwrap(), []);
        let mut file = File::create(&path).unwrap();
        file.write_all(b"noise of a firmware\n{\"t\":1.5,\"event\":\"pha").unwrap();
        assert_eq!(follower.poll().unwrap(), []);
        file.write_all(b"se\",\"name\":\"x\"}\n").unwrap();
        assert_eq!(follower.poll().unwrap(), [Event { t: 1.5, what: What::Phase { name: "x".into() } }]);
        assert_eq!(follower.poll().unwrap(), []);
    }
}
