//! What is on disk, as a value: `host::observe` fills it, the plan reads it.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

/// What was found at one path.
#[derive(Clone, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Missing,
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// All of it.
        contents: Zeroizing<Vec<u8>>,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
        /// What it leads to; none when that can't be read.
        contents: Option<Zeroizing<Vec<u8>>>,
    },
    /// Something that could not be read, with the reason.
    Unreadable(String),
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Missing => f.write_str("Missing"),
            Entry::File { mode, contents } => write!(f, "File({mode:o}, {} bytes)", contents.len()),
            Entry::Directory { mode } => write!(f, "Directory({mode:o})"),
            Entry::Link { target, .. } => write!(f, "Link({target})"),
            Entry::Unreadable(reason) => write!(f, "Unreadable({reason})"),
        }
    }
}

/// How much there is of a part of etcd's data, in bytes: nothing and empty are the same. Or why that can't be told.
pub type Amount = Result<u64, String>;

/// How much there is of etcd's data. What it holds is etcd's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// The database.
    pub database: Amount,
    /// The write-ahead log, all files of it.
    pub log: Amount,
}

/// What was found at every path that was looked at. A path that was not counts as missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    entries: BTreeMap<String, Entry>,
    etcd: Etcd,
}

impl Default for Sight {
    fn default() -> Self {
        Sight { entries: BTreeMap::new(), etcd: Etcd { database: Ok(0), log: Ok(0) } }
    }
}

impl Sight {
    /// Notes what is at `path`.
    pub fn note(&mut self, path: &str, entry: Entry) {
        self.entries.insert(path.to_owned(), entry);
    }

    /// Notes how much there is of etcd's data.
    pub fn note_etcd(&mut self, etcd: Etcd) {
        self.etcd = etcd;
    }

    /// How much there is of etcd's data.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// What is at `path`.
    pub fn at(&self, path: &str) -> &Entry {
        self.entries.get(path).unwrap_or(&Entry::Missing)
    }

    /// Whether anything is at `path`.
    pub fn exists(&self, path: &str) -> bool {
        !matches!(self.at(path), Entry::Missing)
    }

    /// The contents of the file at `path`, through a symbolic link too.
    pub fn contents(&self, path: &str) -> Option<&[u8]> {
        match self.at(path) {
            Entry::File { contents, .. } | Entry::Link { contents: Some(contents), .. } => Some(contents),
            _ => None,
        }
    }

    /// Every path at which there is something.
    pub fn present(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, entry)| **entry != Entry::Missing).map(|(path, _)| path.as_str())
    }
}
