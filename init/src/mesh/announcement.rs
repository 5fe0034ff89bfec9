//! What a node says of itself, under its node key's signature: which process it is, and where it listens.

use std::net::SocketAddr;

use super::wire::{Malformed, Reader, put_address, put_bytes};
use crate::token::fingerprint;

/// Longest encoded announcement, in bytes.
pub const MAX_ANNOUNCEMENT: usize = 32 + 4 + 16 + 19 + 1 + 2 + MAX_NAME + 64;
/// Longest name: a DNS label, as the kubelet's node names are bounded here.
const MAX_NAME: usize = 63;

/// Who a node is: its node key's fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// The node with this public node key.
    pub fn of(key: &[u8; 32]) -> Self {
        NodeId(fingerprint(key))
    }

    /// The first half: what packets name a node by. Two node keys that share it would take 2⁶⁴ tries to make for one
    /// that exists; who made both itself gains nothing, the second is not admitted beside the first.
    pub fn handle(&self) -> Handle {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        Handle(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// Half of a [`NodeId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

/// One process of a node: its generation, and the first bytes of its salt for two that claim one generation (a clone of
/// the machine's state). A greater one replaces a smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life(pub u64);

impl Life {
    /// What the node counted.
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Its node key's public half (Ed25519).
    pub key: [u8; 32],
    /// How often this node has started, persisted before it is said.
    pub generation: u32,
    /// Random, anew for each process and generation.
    pub salt: [u8; 16],
    /// Where it takes packets, by UDP; streams by TCP at [`super::stream_address`].
    pub address: SocketAddr,
    /// Whether it says that it is a control plane.
    pub control_plane: bool,
    /// The name that it says it has.
    pub name: Box<str>,
    /// By the node key over [`Announcement::signed`].
    pub signature: [u8; 64],
    /// From the key.
    pub id: NodeId,
}

impl Announcement {
    /// Says so, with the node key's signature from `sign`.
    ///
    /// # Errors
    /// The name is too long, or has characters that a DNS label has not.
    pub fn new(
        cluster: &[u8; 16],
        node: &Node,
        generation: u32,
        salt: [u8; 16],
        sign: &dyn Fn(&[u8]) -> [u8; 64],
    ) -> Result<Self, Malformed> {
        let mut announcement = Announcement {
            key: node.key,
            generation,
            salt,
            address: SocketAddr::new(node.address.ip().to_canonical(), node.address.port()),
            control_plane: node.control_plane,
            name: node.name.clone(),
            signature: [0; 64],
            id: NodeId::of(&node.key),
        };
        if !name_fits(announcement.name.as_bytes()) {
            return Err(Malformed("name"));
        }
        announcement.signature = sign(&announcement.signed(cluster));
        Ok(announcement)
    }

    /// Which process this is.
    pub fn life(&self) -> Life {
        let [a, b, c, d, ..] = self.salt;
        Life(u64::from(self.generation) << 32 | u64::from(u32::from_be_bytes([a, b, c, d])))
    }

    /// What the node key signs: a label, the cluster, and every field.
    pub fn signed(&self, cluster: &[u8; 16]) -> Vec<u8> {
        let mut out = b"kubeboot mesh announcement 1".to_vec();
        out.extend_from_slice(cluster);
        self.fields(&mut out);
        out
    }

    /// As it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAX_ANNOUNCEMENT);
        self.fields(&mut out);
        out.extend_from_slice(&self.signature);
        out
    }

    fn fields(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.salt);
        put_address(out, self.address);
        out.push(u8::from(self.control_plane));
        put_bytes(out, self.name.as_bytes());
    }

    /// Reads one. The signature is not checked here.
    ///
    /// # Errors
    /// The first field that is not as it should be.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        let key = from.array("node key")?;
        let generation = from.u32("generation")?;
        let salt = from.array("salt")?;
        let address = from.address("address")?;
        let control_plane = match from.byte("role")? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("role")),
        };
        let name = from.bytes("name", MAX_NAME)?;
        if !name_fits(name) {
            return Err(Malformed("name"));
        }
        let name = String::from_utf8_lossy(name).into_owned().into_boxed_str();
        let signature = from.array("signature")?;
        from.end()?;
        let id = NodeId::of(&key);
        Ok(Announcement { key, generation, salt, address, control_plane, name, signature, id })
    }
}

/// Lower-case letters, digits and hyphens: what a label of a node's name has. Nothing else gets into a log or table.
fn name_fits(name: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    (1..=MAX_NAME).contains(&name.len()) && name.iter().all(plain)
}

/// What a node knows of itself when it starts.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its node key's public half.
    pub key: [u8; 32],
    /// Where others reach it.
    pub address: SocketAddr,
    /// Whether it is a control plane.
    pub control_plane: bool,
    /// Its name.
    pub name: Box<str>,
}
