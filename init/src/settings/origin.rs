//! Where a value came from, in the order in which sources win.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place that settings are read from. [`Source::rank`] says which wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "source")]
pub enum Source {
    /// `kubeboot init …` or the console prompt.
    ByHand,
    /// A systemd credential.
    Credential {
        /// Its name, such as `kubeboot.role`.
        name: String,
    },
    /// `/proc/cmdline`.
    KernelCommandLine,
    /// A file of a NoCloud or ConfigDrive volume.
    UserData {
        /// Words for a person, such as `cidata volume /dev/vdb, user-data`.
        file: String,
    },
    /// `/usr/lib/kubeboot/kubeboot.toml`, part of the image.
    Baked,
    /// The cluster that the machine joined: what all its nodes share.
    Cluster,
    /// No source: what holds when nothing is given.
    Default,
}

impl Source {
    /// Priority: the source with the lower rank wins. The cluster's is merged by `shared`, not by rank.
    pub fn rank(&self) -> u8 {
        match self {
            Source::ByHand => 0,
            Source::Credential { .. } => 1,
            Source::KernelCommandLine => 2,
            Source::UserData { .. } => 3,
            Source::Baked => 4,
            Source::Cluster => 5,
            Source::Default => 6,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::ByHand => f.write_str("given by hand"),
            Source::Credential { name } => write!(f, "systemd credential {name}"),
            Source::KernelCommandLine => f.write_str("kernel command line"),
            Source::UserData { file } => f.write_str(file),
            Source::Baked => f.write_str("baked into the image (kubeboot.toml)"),
            Source::Cluster => f.write_str("the cluster, at joining"),
            Source::Default => f.write_str("the default"),
        }
    }
}

/// A source, and the line in it where that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Which source.
    #[serde(flatten)]
    pub source: Source,
    /// Line, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

impl Origin {
    /// The source as a whole.
    pub fn whole(source: Source) -> Self {
        Origin { source, line: None }
    }

    /// A line of the source.
    pub fn at(source: &Source, line: Option<u32>) -> Self {
        Origin { source: source.clone(), line }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was typed has no lines: the file that keeps it is our own.
        match self.line.filter(|_| self.source != Source::ByHand) {
            Some(line) => write!(f, "{} line {line}", self.source),
            None => write!(f, "{}", self.source),
        }
    }
}
