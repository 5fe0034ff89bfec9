//! What the sources said, before anything is judged: one [`Fragment`] per source, merged into [`Inputs`].

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::{NetworkFile, Origin, OsFile, Problem, Source, Warning};

/// A value as written, in the shape that its key has (`keys::Shape`).
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// One text.
    One(Zeroizing<String>),
    /// Texts in order.
    List(Vec<String>),
    /// Name to texts.
    Map(BTreeMap<String, Vec<String>>),
}

/// A value and where it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    /// Where.
    pub origin: Origin,
    /// What.
    pub value: Value,
}

/// What one source said. Everything is optional. No `Debug`: it may hold a token.
#[derive(Clone)]
pub struct Fragment {
    /// Which source.
    pub source: Source,
    /// Values by dotted key; only keys of `keys::KEYS`.
    pub values: BTreeMap<&'static str, Given>,
    /// What the cloud-config keys beside `kubeboot:` said.
    pub os: OsFragment,
    /// What could not be understood.
    pub problems: Vec<Problem>,
    /// What was understood and not applied.
    pub warnings: Vec<Warning>,
}

impl Fragment {
    /// A fragment that says nothing.
    pub fn empty(source: Source) -> Self {
        Fragment {
            source,
            values: BTreeMap::new(),
            os: OsFragment::default(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// What one source asks of the operating system; `None` is "said nothing".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsFragment {
    /// `hostname`, or the first label of `fqdn`, or the meta-data's `local-hostname`.
    pub hostname: Option<(Origin, String)>,
    /// `ssh_authorized_keys` of the document and of its users.
    pub ssh_authorized_keys: Option<(Origin, Vec<String>)>,
    /// `write_files`, decoded.
    pub write_files: Option<(Origin, Vec<OsFile>)>,
    /// `ntp.servers` and `ntp.pools`.
    pub ntp_servers: Option<(Origin, Vec<String>)>,
    /// `network-config`, rendered.
    pub network: Option<(Origin, Vec<NetworkFile>)>,
}

/// All sources merged: for each key the value of the highest source that has it. No `Debug`: it may hold a token.
pub struct Inputs {
    /// Values by dotted key.
    pub values: BTreeMap<&'static str, Given>,
    /// Requests to the operating system.
    pub os: OsFragment,
    /// The problems of all sources, in their order.
    pub problems: Vec<Problem>,
    /// The warnings of all sources, in their order.
    pub warnings: Vec<Warning>,
}

impl Inputs {
    /// Merges fragments by [`Source::rank`]; among equals the earlier wins. A key's value is taken whole from the highest
    /// source that has it: lists and maps of different sources are not joined. Only ssh keys are: user-data and the
    /// platform's own list name different people.
    pub fn merge(mut fragments: Vec<Fragment>) -> Inputs {
        fragments.sort_by_key(|fragment| fragment.source.rank());
        let mut merged =
            Inputs { values: BTreeMap::new(), os: OsFragment::default(), problems: Vec::new(), warnings: Vec::new() };
        for fragment in fragments {
            for (key, given) in fragment.values {
                merged.values.entry(key).or_insert(given);
            }
            let (ours, theirs) = (&mut merged.os, fragment.os);
            ours.hostname = ours.hostname.take().or(theirs.hostname);
            join_keys(&mut ours.ssh_authorized_keys, theirs.ssh_authorized_keys);
            ours.write_files = ours.write_files.take().or(theirs.write_files);
            ours.ntp_servers = ours.ntp_servers.take().or(theirs.ntp_servers);
            ours.network = ours.network.take().or(theirs.network);
            merged.problems.extend(fragment.problems);
            merged.warnings.extend(fragment.warnings);
        }
        merged
    }
}

/// Adds the keys that are not there yet.
fn join_keys(ours: &mut Option<(Origin, Vec<String>)>, theirs: Option<(Origin, Vec<String>)>) {
    match (ours.as_mut(), theirs) {
        (_, None) => {}
        (None, theirs) => *ours = theirs,
        (Some((_, keys)), Some((_, more))) => {
            let new: Vec<String> = more.into_iter().filter(|key| !keys.contains(key)).collect();
            keys.extend(new);
        }
    }
}
