//! The encoding of packets, messages and records: fixed fields in a fixed order, big-endian numbers, byte strings behind
//! their length. There is one encoding of a value, and it is the only one that is read.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Why bytes are none of what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its {0} is malformed")]
pub struct Malformed(pub &'static str);

/// Bytes that are read from the front.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ends the reading: nothing may be left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("end")) }
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed(field))?;
        self.0 = rest;
        Ok(*array)
    }

    pub(crate) fn byte(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub(crate) fn take(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed(field))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A byte string of at most `most` bytes behind its length.
    pub(crate) fn bytes(&mut self, field: &'static str, most: usize) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.u16(field)?);
        if length > most { Err(Malformed(field)) } else { self.take(field, length) }
    }

    /// An address and port. One that is IPv4 in IPv6 form would be a second spelling of it, and is refused.
    pub(crate) fn address(&mut self, field: &'static str) -> Result<SocketAddr, Malformed> {
        let address = match self.byte(field)? {
            4 => IpAddr::from(self.array::<4>(field)?),
            6 => IpAddr::from(Ipv6Addr::from(self.array::<16>(field)?)),
            _ => return Err(Malformed(field)),
        };
        if address.to_canonical() != address {
            return Err(Malformed(field));
        }
        Ok(SocketAddr::new(address, self.u16(field)?))
    }
}

/// Appends a byte string behind its length. Callers have bounded it.
pub(crate) fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("bounded by the caller");
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(bytes);
}

/// Appends an address and port in its one spelling.
pub(crate) fn put_address(to: &mut Vec<u8>, address: SocketAddr) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            to.push(4);
            to.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            to.push(6);
            to.extend_from_slice(&ip.octets());
        }
    }
    to.extend_from_slice(&address.port().to_be_bytes());
}
