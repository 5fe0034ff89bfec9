//! The mesh: the gossip group of all enrolled nodes. Its specification is `docs/mesh.md`.
//!
//! Sans-IO: [`Mesh::handle`] takes what happened, with the time, and returns what to do. It has no socket, no clock and
//! no source of randomness; two meshes that are told the same do the same.
//!
//! The failure detector is SWIM with suspicion, written here. `foca` was measured for it and left: it looks each packet's
//! sender up by going through its list of members (18 µs a packet at 5,000 members, of a budget of 25 µs a second), tells
//! neither of suspicions nor of objections (so digests can't be kept up with it, nor can be shown who suspects whom), and
//! puts both identities into every packet, where the envelope has them already.

pub mod announcement;
pub mod envelope;
pub mod keys;
mod machine;
pub mod members;
pub mod packet;
pub mod publish;
mod random;
pub mod record;
pub mod rekeying;
pub mod returning;
pub mod roll;
pub mod store;
pub mod stored;
pub mod sync;
pub mod view;
pub(crate) mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

pub use announcement::{Announcement, Handle, Life, Node, NodeId};
pub use keys::MeshKey;
pub use machine::{Counts, Mesh, Queues, Suspicion};
pub use members::State;
pub use record::{Record, Refused};
pub use roll::Roll;
pub use wire::Malformed;

use crate::certificates::check;

/// UDP: the mesh's packets.
pub const PORT: u16 = crate::enrolment::PORT;
/// TCP: the mesh's streams, beside enrolment's port.
pub const STREAM_PORT: u16 = PORT + 1;

/// Where a node takes streams that takes packets there: at the next port.
pub fn stream_address(packets: SocketAddr) -> SocketAddr {
    SocketAddr::new(packets.ip(), packets.port().saturating_add(1))
}

/// Microseconds of a clock that only rises. What is passed in may start anywhere.
pub type Time = u64;
/// A second of it.
pub const SECOND: Time = 1_000_000;
/// A thousandth of one.
pub const MILLISECOND: Time = 1_000;

/// A stream for a push-pull. The mesh numbers those that it opens from 2⁶³ upwards, the host those that it accepts below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What happened.
#[derive(Clone, Copy)]
pub enum Event<'a> {
    /// The time of the last [`Action::Wake`] has come.
    Tick,
    /// A packet came in on UDP.
    Packet {
        /// From where; only a hello is answered there.
        from: SocketAddr,
        /// The packet.
        bytes: &'a [u8],
    },
    /// A stream that was asked for is there, and its other end proved the asked node key.
    Opened(StreamId),
    /// Another node opened a stream, and proved its node key.
    Accepted {
        /// Its number.
        stream: StreamId,
        /// Who.
        peer: NodeId,
    },
    /// A whole message came in on a stream.
    Message {
        /// On which.
        stream: StreamId,
        /// The message, of at most [`sync::MAX_MESSAGE`] bytes.
        bytes: &'a [u8],
    },
    /// A stream ended, or could not be opened.
    Closed(StreamId),
    /// Look for the mesh at these addresses, at most 16 of them.
    Join(&'a [SocketAddr]),
    /// A record that was signed on this node.
    Publish(&'a [u8]),
    /// A mesh key that was made on this node, after its record was published.
    Key(&'a MeshKey),
}

/// What to do, in the order in which it stands.
pub enum Action {
    /// Send a packet by UDP.
    Send {
        /// Where to.
        to: SocketAddr,
        /// The packet.
        packet: Vec<u8>,
    },
    /// Call with [`Event::Tick`] at this time; replaces what was said before.
    Wake(Time),
    /// Open a stream to a node, which has to prove that node key.
    Connect {
        /// The stream's number from now on.
        stream: StreamId,
        /// To whom.
        peer: NodeId,
        /// Where it listens.
        address: SocketAddr,
    },
    /// Send a message on a stream.
    Transmit {
        /// On which.
        stream: StreamId,
        /// The message. It may hold a key.
        bytes: Zeroizing<Vec<u8>>,
    },
    /// End a stream.
    Close(StreamId),
    /// A member is thought of in another way, or is new.
    Member {
        /// Who.
        id: NodeId,
        /// What is thought of it now.
        state: State,
    },
    /// A record holds now: write it down, so that it holds after a restart.
    Record(Arc<Record>),
    /// A member was removed for good: end what it has with this node.
    Evicted(NodeId),
    /// The newest mesh key changed: write it down.
    Key(MeshKey),
    /// Write this generation down before anything that follows is done.
    Generation(u32),
    /// Another process uses this node's key and did not give way: this one is silent from now on.
    Displaced {
        /// Where the other listens.
        by: SocketAddr,
    },
    /// This node was removed from the cluster: it is silent from now on.
    Removed,
}

/// Who judges signatures: a value with the cluster's identity, which may remember what it judged.
pub trait Verifier {
    /// The announcement, if its node signed it.
    fn announcement(&self, announcement: Announcement) -> Option<Arc<Announcement>>;

    /// The record, if a control plane of this cluster signed it.
    ///
    /// # Errors
    /// What is wrong with it.
    fn record(&self, record: Record) -> Result<Arc<Record>, Refused>;
}

/// The verifier of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Authority {
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// Its identity's public half.
    pub identity: [u8; 32],
}

impl Verifier for Authority {
    fn announcement(&self, announcement: Announcement) -> Option<Arc<Announcement>> {
        let signed = announcement.signed(&self.cluster);
        check::ed25519_verifies(&announcement.key, &signed, &announcement.signature).then(|| Arc::new(announcement))
    }

    fn record(&self, record: Record) -> Result<Arc<Record>, Refused> {
        record.verify(&self.cluster, &self.identity)?;
        Ok(Arc::new(record))
    }
}

/// Makes the node key's signature.
pub type Sign = Box<dyn Fn(&[u8]) -> [u8; 64] + Send>;

/// What a mesh starts with.
pub struct Setup {
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// This node.
    pub node: Node,
    /// One more than at the last start, and already written down.
    pub generation: u32,
    /// 32 random bytes.
    pub seed: [u8; 32],
    /// The newest mesh key that was written down.
    pub key: MeshKey,
    /// Signs with the node key.
    pub sign: Sign,
    /// Judges signatures.
    pub verifier: Box<dyn Verifier + Send>,
    /// The records that were written down.
    pub records: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests;
