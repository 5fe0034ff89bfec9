//! The eight messages, their encoding and their bounds (`docs/enrolment.md` has them as a table).
//!
//! A message is a version byte, a kind byte and its fields; on the stream it stands behind its length (32 bits). What is
//! decoded was encoded the one way there is: encoding it again gives the same bytes, which signatures rely on.

mod ask;
mod grant;
mod hello;
mod refusal;

pub use ask::{Ask, Operator, Presented};
pub use grant::{Grant, Held, Key};
pub use hello::{Founded, Hello, Proof, Purpose, STATEMENTS, Versions, WorkerProof};
pub(super) use hello::{joiner_code, read_joiner};
pub use refusal::Refusal;

use zeroize::Zeroizing;

use super::statement::Statement;
use super::transcript::HINT;
use super::wire::{Malformed, Reader, Writer};
use crate::facts::NAME;
use crate::release::Version;
use crate::token::SECRET;

/// The form of messages, their first byte.
const FORM: u8 = 1;
/// Bytes in front of the fields: form and kind.
const HEAD: usize = 2;
/// Bytes of an Ed25519 public key, of a nonce, and of an exporter.
pub(super) const KEY: usize = 32;
/// Bytes of an Ed25519 signature.
pub(super) const SIGNATURE: usize = 64;
/// Bytes of an address at most: the family and 128 bits.
const ADDRESS: usize = 17;
/// Bytes of a certificate request at most.
const SIGNING_REQUEST: usize = 1024;
/// Bytes of an ssh public key, and of an ssh signature, at most.
const SSH: usize = 512;
/// The kind of an operator's message, which its signature covers.
const KIND_OPERATOR: u8 = 4;
/// The kind of a grant with a statement.
const KIND_STATED: u8 = 9;

/// Any message.
pub enum Message {
    /// Kind 1.
    Hello(Hello),
    /// Kind 2.
    Proof(Proof),
    /// Kind 3.
    Ask(Ask),
    /// Kind 4.
    Operator(Operator),
    /// Kind 5; with a statement 9. A kind of its own, so that no grant is the beginning of another.
    Grant(Grant),
    /// Kind 6: an operator is admitted, and the connection is theirs.
    Admitted,
    /// Kind 7.
    Refusal(Refusal),
    /// Kind 8.
    WorkerProof(WorkerProof),
}

/// Longest messages of each kind, in bytes, form and kind included. None can be exceeded by fields within their bounds.
pub mod most {
    use super::{ADDRESS, HEAD, HINT, KEY, NAME, SECRET, SIGNATURE, SIGNING_REQUEST, SSH, Statement};

    /// [`super::Hello`]
    pub const HELLO: usize = HEAD + 2 + 1 + KEY + HINT;
    /// [`super::Proof`]
    pub const PROOF: usize = HEAD + 2 + KEY + 8 + (16 + 8 + KEY + KEY + SIGNATURE) + SIGNATURE;
    /// [`super::Ask`]
    pub const ASK: usize =
        HEAD + 8 + (2 + NAME) + ADDRESS + 16 + KEY + 4 * (2 + SIGNING_REQUEST) + (1 + SECRET) + SIGNATURE + SIGNATURE;
    /// [`super::Operator`]
    pub const OPERATOR: usize = HEAD + 2 * (2 + SSH);
    /// [`super::Grant`]
    pub const GRANT: usize = HEAD + super::grant::MOST;
    /// [`super::Refusal`]
    pub const REFUSAL: usize = HEAD + 1 + 32;
    /// [`super::WorkerProof`]
    pub const WORKER_PROOF: usize = PROOF + Statement::MOST;
    /// What a node says to an operator's hello.
    pub const TO_OPERATOR: usize = if WORKER_PROOF > TO_HELLO { WORKER_PROOF } else { TO_HELLO };
    /// What the server says to a hello.
    pub const TO_HELLO: usize = if PROOF > REFUSAL { PROOF } else { REFUSAL };
    /// What the server says to a request.
    pub const TO_ASK: usize = if GRANT > REFUSAL { GRANT } else { REFUSAL };
}

/// The length that stands in front of a message on the stream.
pub fn prefix(message: &[u8]) -> [u8; 4] {
    u32::try_from(message.len()).expect("messages are bounded").to_be_bytes()
}

/// How many bytes follow a prefix, when the longest message that may come now has `most`.
///
/// # Errors
/// [`Malformed::Long`]: then nothing more is read.
pub fn announced(prefix: [u8; 4], most: usize) -> Result<usize, Malformed> {
    let found = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if found > most { Err(Malformed::Long { field: "message", most, found }) } else { Ok(found) }
}

impl Message {
    /// The bytes, without the length in front. Wiped when dropped.
    ///
    /// # Errors
    /// A field is out of its bounds.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        let (kind, most) = match self {
            Message::Hello(_) => (1, most::HELLO),
            Message::Proof(_) => (2, most::PROOF),
            Message::Ask(_) => (3, most::ASK),
            Message::Operator(_) => (KIND_OPERATOR, most::OPERATOR),
            Message::Grant(grant) if grant.statement.is_some() => (KIND_STATED, most::GRANT),
            Message::Grant(_) => (5, most::GRANT),
            Message::Admitted => (6, HEAD),
            Message::Refusal(_) => (7, most::REFUSAL),
            Message::WorkerProof(_) => (8, most::WORKER_PROOF),
        };
        let mut to = Writer::new(most);
        to.array(&[FORM, kind]);
        match self {
            Message::Hello(hello) => hello.write(&mut to),
            Message::Proof(proof) => proof.write(&mut to),
            Message::Ask(ask) => ask.write(&mut to)?,
            Message::Operator(operator) => operator.write(&mut to)?,
            Message::Grant(grant) => grant.write(&mut to)?,
            Message::Admitted => {}
            Message::Refusal(refusal) => refusal.write(&mut to),
            Message::WorkerProof(proof) => proof.write(&mut to)?,
        }
        to.end()
    }

    /// Reads what [`Message::encode`] wrote, and nothing else.
    ///
    /// # Errors
    /// What is wrong with the bytes; never what stands in them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        let form = from.byte("form")?;
        if form != FORM {
            return Err(Malformed::Unknown { field: "form", found: form });
        }
        let message = match from.byte("kind")? {
            1 => Message::Hello(Hello::read(&mut from)?),
            2 => Message::Proof(Proof::read(&mut from)?),
            3 => Message::Ask(Ask::read(&mut from)?),
            KIND_OPERATOR => Message::Operator(Operator::read(&mut from)?),
            5 => Message::Grant(Grant::read(&mut from, false)?),
            6 => Message::Admitted,
            7 => Message::Refusal(Refusal::read(&mut from)?),
            8 => Message::WorkerProof(WorkerProof::read(&mut from)?),
            KIND_STATED => Message::Grant(Grant::read(&mut from, true)?),
            found => return Err(Malformed::Unknown { field: "kind", found }),
        };
        from.end()?;
        Ok(message)
    }

    /// Its name, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello(_) => "hello",
            Message::Proof(_) => "proof",
            Message::Ask(_) => "ask",
            Message::Operator(_) => "operator",
            Message::Grant(_) => "grant",
            Message::Admitted => "admitted",
            Message::Refusal(_) => "refusal",
            Message::WorkerProof(_) => "a worker's proof",
        }
    }
}

fn write_version(version: Version, to: &mut Writer) {
    for number in [version.major, version.minor, version.patch, version.build] {
        to.u32(number);
    }
}

fn read_version(from: &mut Reader<'_>) -> Result<Version, Malformed> {
    Ok(Version {
        major: from.u32("release")?,
        minor: from.u32("release")?,
        patch: from.u32("release")?,
        build: from.u32("release")?,
    })
}
