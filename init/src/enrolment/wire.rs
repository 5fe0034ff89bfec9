//! The encoding of messages: fixed fields in a fixed order, big-endian numbers, byte strings behind their length.
//!
//! There is one encoding of a value and it is the only one that is read: every length has a bound that is checked before
//! the bytes are touched, what is no known value is refused, and so is anything that follows the last field.

use std::net::{IpAddr, SocketAddr};

use zeroize::Zeroizing;

/// Why bytes are no message, or a value can't become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end before the field does.
    #[error("it ends within its {0}")]
    Short(&'static str),
    /// More of a field than there may be.
    #[error("its {field} is {found} long, expected at most {most}")]
    Long {
        /// The field.
        field: &'static str,
        /// The bound: bytes, or members of a list.
        most: usize,
        /// How many there are, or are announced.
        found: usize,
    },
    /// Bytes after the last field.
    #[error("{0} bytes follow its end")]
    Trailing(usize),
    /// A value that this field does not have.
    #[error("its {field} has the unknown value {found}")]
    Unknown {
        /// The field.
        field: &'static str,
        /// The value.
        found: u8,
    },
    /// A text with other characters than it may have, or a value in another form than the one it is written in.
    #[error("its {0} is not written as it should be")]
    Form(&'static str),
}

/// Bytes that are read from the front.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    /// Ends the reading: nothing may be left.
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Trailing(self.0.len())) }
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed::Short(field))?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn byte(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array(field).map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A byte string of at most `most` bytes.
    pub(super) fn bytes(&mut self, field: &'static str, most: usize) -> Result<&'a [u8], Malformed> {
        let found = usize::from(u16::from_be_bytes(self.array(field)?));
        if found > most {
            return Err(Malformed::Long { field, most, found });
        }
        let (bytes, rest) = self.0.split_at_checked(found).ok_or(Malformed::Short(field))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A text of at most `most` bytes, whose characters are none that drive a terminal but the line feed.
    pub(super) fn text(&mut self, field: &'static str, most: usize) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(self.bytes(field, most)?).map_err(|_| Malformed::Form(field))?;
        if text_fits(text) { Ok(text) } else { Err(Malformed::Form(field)) }
    }

    /// A name of at most `most` bytes: visible ASCII, so that it can stand in a log.
    pub(super) fn label(&mut self, field: &'static str, most: usize) -> Result<&'a str, Malformed> {
        let text = self.text(field, most)?;
        if label_fits(text) { Ok(text) } else { Err(Malformed::Form(field)) }
    }

    /// How many members follow, at most `most`.
    pub(super) fn count(&mut self, field: &'static str, most: usize) -> Result<usize, Malformed> {
        let found = usize::from(self.byte(field)?);
        if found > most { Err(Malformed::Long { field, most, found }) } else { Ok(found) }
    }

    /// An address: the family's number (4 or 6), then its bytes. An IPv4 address in IPv6 form is not taken: it would
    /// be a second spelling.
    pub(super) fn address(&mut self, field: &'static str) -> Result<IpAddr, Malformed> {
        match self.byte(field)? {
            4 => self.array::<4>(field).map(IpAddr::from),
            6 => {
                let address = IpAddr::from(self.array::<16>(field)?);
                if address.to_canonical() == address { Ok(address) } else { Err(Malformed::Form(field)) }
            }
            found => Err(Malformed::Unknown { field, found }),
        }
    }

    pub(super) fn socket(&mut self, field: &'static str) -> Result<SocketAddr, Malformed> {
        let address = self.address(field)?;
        Ok(SocketAddr::new(address, u16::from_be_bytes(self.array(field)?)))
    }
}

/// Whether a text may stand in a message.
fn text_fits(text: &str) -> bool {
    !text.chars().any(|character| character.is_control() && character != '\n')
}

/// Whether a text may stand in a message as a name.
fn label_fits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Bytes that grow at the end. Wiped when dropped; the room is taken at once, because growing would leave copies of
/// secrets behind.
pub(super) struct Writer {
    bytes: Zeroizing<Vec<u8>>,
    most: usize,
}

impl Writer {
    /// Room for a message of at most `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Writer { bytes: Zeroizing::new(Vec::with_capacity(most)), most }
    }

    pub(super) fn end(self) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        let found = self.bytes.len();
        if found > self.most {
            return Err(Malformed::Long { field: "message", most: self.most, found });
        }
        Ok(self.bytes)
    }

    pub(super) fn array(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(super) fn u32(&mut self, number: u32) {
        self.array(&number.to_be_bytes());
    }

    pub(super) fn u64(&mut self, number: u64) {
        self.array(&number.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, field: &'static str, most: usize, bytes: &[u8]) -> Result<(), Malformed> {
        let found = bytes.len();
        let length = u16::try_from(found).ok().filter(|_| found <= most);
        self.array(&length.ok_or(Malformed::Long { field, most, found })?.to_be_bytes());
        self.array(bytes);
        Ok(())
    }

    pub(super) fn text(&mut self, field: &'static str, most: usize, text: &str) -> Result<(), Malformed> {
        if !text_fits(text) {
            return Err(Malformed::Form(field));
        }
        self.bytes(field, most, text.as_bytes())
    }

    pub(super) fn label(&mut self, field: &'static str, most: usize, text: &str) -> Result<(), Malformed> {
        if label_fits(text) { self.text(field, most, text) } else { Err(Malformed::Form(field)) }
    }

    pub(super) fn count(&mut self, field: &'static str, most: usize, found: usize) -> Result<(), Malformed> {
        let count = u8::try_from(found).ok().filter(|_| found <= most);
        self.byte(count.ok_or(Malformed::Long { field, most, found })?);
        Ok(())
    }

    pub(super) fn address(&mut self, address: IpAddr) {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                self.byte(4);
                self.array(&address.octets());
            }
            IpAddr::V6(address) => {
                self.byte(6);
                self.array(&address.octets());
            }
        }
    }

    pub(super) fn socket(&mut self, socket: SocketAddr) {
        self.address(socket.ip());
        self.array(&socket.port().to_be_bytes());
    }
}
