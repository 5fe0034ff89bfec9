//! The clusters that a person has spoken with, as ssh's `known_hosts` has hosts: a line for each address,
//! `HOST:PORT CLUSTER-ID FINGERPRINT`.
//!
//! Nobody is trusted because he answered first: a control plane shows who it is only to who names the cluster's fingerprint.
//! So the first time somebody has to say it, and from then on it stands here.

use crate::plan::record::Cluster;
use crate::token::{SECRET, fingerprint};

/// Lines of the file at most.
const LINES: usize = 4096;

/// An address and the cluster behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `HOST:PORT`, as it was given.
    pub host: String,
    /// The cluster's id, 32 hexadecimal digits.
    pub cluster: String,
    /// Of its identity key.
    pub fingerprint: [u8; SECRET],
}

/// What is known of the cluster that is meant, before anybody is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    /// Of its identity key or, if somebody took it from a token, of its founding key.
    pub fingerprint: [u8; SECRET],
    /// Its id, which it has to show.
    pub cluster: Option<String>,
    /// Of its identity key, where that is known. Who has a seed could certify an identity of his own by its founding key:
    /// to who has spoken with the cluster before, that is no proof.
    pub identity: Option<[u8; SECRET]>,
}

/// What is shown is not the cluster that is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Other {
    /// Another id.
    #[error("it is the cluster {found}; expected {expected}")]
    Cluster {
        /// The one that is meant.
        expected: String,
        /// The one that it is.
        found: String,
    },
    /// Another identity than before.
    #[error("its identity is not the one that was seen at this address before")]
    Identity,
}

impl Meant {
    /// Whether the cluster that has proven itself is the one that is meant.
    ///
    /// # Errors
    /// [`Other`].
    pub fn is(&self, cluster: &Cluster) -> Result<(), Other> {
        let identity = fingerprint(&cluster.identity());
        match &self.cluster {
            Some(expected) if *expected != cluster.id => {
                Err(Other::Cluster { expected: expected.clone(), found: cluster.id.clone() })
            }
            _ if self.identity.is_some_and(|known| known != identity) => Err(Other::Identity),
            _ => Ok(()),
        }
    }
}

/// Why it is not known which cluster is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Nothing is known of the address.
    #[error("nothing is known yet of the cluster at {0}")]
    Host(String),
    /// No cluster of that id is known.
    #[error("no cluster with the id {0} is known here")]
    Cluster(String),
    /// The address is another cluster's.
    #[error("the control plane at {host} is known as one of the cluster {known}, not of {wanted}")]
    Other {
        /// The address.
        host: String,
        /// The cluster it is known for.
        known: String,
        /// The cluster that was asked for.
        wanted: String,
    },
}

impl Unknown {
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Unknown::Host(_) | Unknown::Cluster(_) => {
                "say its fingerprint once, with --fingerprint. It stands in every token of the cluster (kubeboot token inspect), \
                 on the founder's console, and in kubeboot status on a control plane."
            }
            Unknown::Other { .. } => {
                "name a control plane of that cluster; or, if the address is its own now, remove the address's line from the file \
                 of known clusters (~/.config/kubeboot/known_clusters)."
            }
        }
    }
}

/// The file's contents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Its lines, in their order.
    pub lines: Vec<Line>,
}

impl Known {
    /// Reads the file's text. Empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// The number of the line that can't be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                _ if lines.len() >= LINES => return Err(format!("more than {LINES} lines")),
                [host, cluster, hex] => {
                    let read = is_id(cluster).then(|| read_fingerprint(hex)).flatten();
                    let fingerprint = read.ok_or_else(|| format!("line {} can't be read", number + 1))?;
                    lines.push(Line { host: (*host).to_owned(), cluster: (*cluster).to_owned(), fingerprint });
                }
                _ => return Err(format!("line {} can't be read", number + 1)),
            }
        }
        Ok(Known { lines })
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut out = "# Clusters that kubeboot --node has spoken with: address, cluster id, fingerprint.\n".to_owned();
        for Line { host, cluster, fingerprint } in &self.lines {
            out += &format!("{host} {cluster} {}\n", fingerprint_text(fingerprint));
        }
        out
    }

    /// Which cluster is meant by an address, by what was said of it.
    ///
    /// # Errors
    /// [`Unknown`].
    pub fn meant(
        &self,
        host: &str,
        cluster: Option<&str>,
        fingerprint: Option<[u8; SECRET]>,
    ) -> Result<Meant, Unknown> {
        let here = self.lines.iter().find(|line| line.host == host);
        let of = |line: &Line| Meant {
            fingerprint: line.fingerprint,
            cluster: Some(line.cluster.clone()),
            identity: Some(line.fingerprint),
        };
        match (fingerprint, here, cluster) {
            (_, Some(line), Some(wanted)) if line.cluster != wanted => {
                Err(Unknown::Other { host: host.to_owned(), known: line.cluster.clone(), wanted: wanted.to_owned() })
            }
            (Some(fingerprint), here, cluster) => {
                let cluster = cluster.map(str::to_owned).or_else(|| here.map(|line| line.cluster.clone()));
                let before = here.or_else(|| self.lines.iter().find(|line| Some(&line.cluster) == cluster.as_ref()));
                Ok(Meant { fingerprint, identity: before.map(|line| line.fingerprint), cluster })
            }
            (None, Some(line), _) => Ok(of(line)),
            (None, None, Some(wanted)) => match self.lines.iter().find(|line| line.cluster == wanted) {
                Some(line) => Ok(of(line)),
                None => Err(Unknown::Cluster(wanted.to_owned())),
            },
            // Of one cluster alone another control plane can be asked without a word; what it shows has to be that one's.
            (None, None, None) => match self.lines.split_first() {
                Some((first, rest)) if rest.iter().all(|line| line.cluster == first.cluster) => Ok(of(first)),
                _ => Err(Unknown::Host(host.to_owned())),
            },
        }
    }

    /// Remembers who proved to be at an address. False if that is known.
    pub fn learn(&mut self, host: &str, cluster: &str, fingerprint: [u8; SECRET]) -> bool {
        let line = Line { host: host.to_owned(), cluster: cluster.to_owned(), fingerprint };
        if self.lines.contains(&line) || self.lines.len() >= LINES {
            return false;
        }
        self.lines.retain(|other| other.host != host);
        self.lines.push(line);
        true
    }
}

/// Whether this is a cluster's id.
pub fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A fingerprint as people write it: 32 hexadecimal digits.
pub fn read_fingerprint(text: &str) -> Option<[u8; SECRET]> {
    is_id(&text.to_ascii_lowercase()).then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)).flatten()
}

/// A fingerprint as people read it.
pub fn fingerprint_text(fingerprint: &[u8; SECRET]) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
}
