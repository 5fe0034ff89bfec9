//! What the machine was told, from every place that it can be told in: bytes → fragments → merged inputs.
//!
//! `host::sources` reads the bytes, bounded; everything here is pure.

pub mod by_hand;
mod cloud_config;
mod command_line;
mod credentials;
mod gzip;
mod metadata;
mod mime;
pub(crate) mod network;
pub mod reset;
mod schema;
mod tree;
mod user_data;

use zeroize::Zeroizing;

use crate::settings::{Fragment, Inputs, Origin, Problem, Source};

/// Longest source that is read, in bytes; also the most that a compressed one may grow to.
pub const LIMIT: usize = 1 << 20;

/// Bytes that may hold a token.
pub type Bytes = Zeroizing<Vec<u8>>;

/// Everything that was found, not yet understood.
#[derive(Default)]
pub struct Gathered {
    /// `/run/kubeboot/by-hand.toml`: what `kubeboot init` or the prompt was given.
    pub by_hand: Option<Bytes>,
    /// systemd credentials whose names begin with `kubeboot.`, by name.
    pub credentials: Vec<(String, Bytes)>,
    /// `/proc/cmdline`
    pub command_line: Bytes,
    /// Volumes with user-data, in the order in which they win.
    pub volumes: Vec<Volume>,
    /// `/usr/lib/kubeboot/kubeboot.toml`
    pub baked: Option<Bytes>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// Which layout a volume has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// cloud-init's NoCloud, label `cidata`.
    NoCloud,
    /// OpenStack's ConfigDrive, label `config-2`.
    ConfigDrive,
}

/// The files of a volume that matter; a missing one is none.
pub struct Volume {
    /// The layout.
    pub layout: Layout,
    /// For messages, such as `cidata volume /dev/vdb`.
    pub name: String,
    /// NoCloud `user-data`; ConfigDrive `openstack/latest/user_data`.
    pub user_data: Option<Bytes>,
    /// NoCloud `meta-data`; ConfigDrive `openstack/latest/meta_data.json`.
    pub meta_data: Option<Bytes>,
    /// NoCloud `network-config`; ConfigDrive `openstack/latest/network_data.json`.
    pub network: Option<Bytes>,
}

impl Volume {
    fn source(&self, file: &str) -> Source {
        Source::UserData { file: format!("{}, {file}", self.name) }
    }
}

/// Understands and merges everything that was found. Never fails: what is wrong is among the inputs' problems.
pub fn parse(gathered: &Gathered) -> Inputs {
    let mut fragments = Vec::new();
    fragments.extend(gathered.by_hand.as_ref().map(|bytes| toml(Source::ByHand, bytes)));
    fragments.extend(credentials::parse(&gathered.credentials));
    fragments.push(command_line::parse(&gathered.command_line));
    for volume in &gathered.volumes {
        fragments.extend(from_volume(volume));
    }
    fragments.extend(gathered.baked.as_ref().map(|bytes| toml(Source::Baked, bytes)));
    let mut inputs = Inputs::merge(fragments);
    inputs.problems.splice(0..0, gathered.problems.iter().cloned());
    inputs
}

fn from_volume(volume: &Volume) -> Vec<Fragment> {
    let names = match volume.layout {
        Layout::NoCloud => ["user-data", "meta-data", "network-config"],
        Layout::ConfigDrive => ["user_data", "meta_data.json", "network_data.json"],
    };
    let [user, meta, network] = names.map(|name| volume.source(name));
    let mut fragments = Vec::new();
    fragments.extend(volume.user_data.as_ref().map(|bytes| user_data::parse(user, bytes)));
    fragments.extend(volume.meta_data.as_ref().map(|bytes| metadata::parse(meta, volume.layout, bytes)));
    fragments.extend(volume.network.as_ref().map(|bytes| network::parse(network, volume.layout, bytes)));
    fragments
}

/// A whole source in TOML.
fn toml(source: Source, bytes: &[u8]) -> Fragment {
    let mut fragment = Fragment::empty(source);
    toml_into(&mut fragment, bytes);
    fragment
}

fn toml_into(fragment: &mut Fragment, bytes: &[u8]) {
    if let Some(text) = text(fragment, bytes) {
        match tree::toml(text) {
            Ok(node) => schema::read(fragment, &node),
            Err(error) => unreadable(fragment, error, "TOML"),
        }
    }
}

/// The bytes as text; a problem when they are none, or too many.
fn text<'a>(fragment: &mut Fragment, bytes: &'a [u8]) -> Option<&'a str> {
    let origin = Origin::whole(fragment.source.clone());
    if bytes.len() > LIMIT {
        let found = format!("{} bytes", bytes.len());
        fragment.problems.push(Problem::source(origin, found, format!("at most {LIMIT} bytes")));
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let found = format!("bytes that are no text (UTF-8), from byte {}", error.valid_up_to());
            fragment.problems.push(Problem::source(origin, found, "text"));
            None
        }
    }
}

fn unreadable(fragment: &mut Fragment, error: tree::Unreadable, language: &str) {
    let origin = Origin::at(&fragment.source, error.line);
    let found = format!("{language} that can't be read: {}", error.message);
    fragment.problems.push(Problem::source(origin, found, format!("valid {language}")));
}

#[cfg(test)]
mod tests;
