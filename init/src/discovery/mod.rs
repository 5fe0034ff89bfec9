//! How machines find a cluster's control planes on the local network, and how two clusters of one seed are noticed
//! (`docs/discovery.md`): messages, their sealing, decisions and words. `host/discovery` has the sockets.
//!
//! An answer proves nothing. What it leads to is the exchange of [`crate::enrolment`], which does.

mod answering;
mod found;
mod message;
mod watch;
pub mod words;

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use answering::Answering;
pub use found::{Found, MOST, MOST_OF_ONE};
pub use message::{Answer, BODY, Key, MESSAGE, Query, QueryBody};
pub use watch::{News, Watch};

/// The UDP port of queries, and the one that answers come from.
pub const PORT: u16 = 7442;
/// Where queries go by IPv4: of the administratively scoped block, local scope (RFC 2365 §6.1). Sent with a TTL of 1.
pub const GROUP_IPV4: Ipv4Addr = Ipv4Addr::new(239, 255, 74, 42);
/// Where queries go by IPv6: a transient group of link-local scope (RFC 4291 §2.7), `kubeboot` in ASCII.
pub const GROUP_IPV6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0x6b75, 0x6265, 0x626f, 0x6f74);

/// A cluster's id.
pub type ClusterId = [u8; 16];
