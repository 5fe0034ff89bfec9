//! What is in the envelope: a message of the failure detector, a digest, and news; or a hello.

use super::announcement::{Handle, Life, MAX_ANNOUNCEMENT};
use super::envelope::HELLO_BODY;
use super::members::{Claim, State};
use super::record::MAX_RECORD;
use super::wire::{Malformed, Reader, put_bytes};

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Answer me.
    Ping(u32),
    /// The answer, with the ping's number.
    Ack(u32),
    /// Ping that member for me.
    PingFor(u32, Handle),
    /// It answered me; with the number of the request.
    AckFor(u32),
    /// News only.
    Gossip,
}

/// A piece of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update<'a> {
    /// A claim with the announcement of the process that it is about.
    Full {
        /// The claim's incarnation.
        incarnation: u32,
        /// Its state.
        state: State,
        /// The announcement as its node signed it.
        announcement: &'a [u8],
    },
    /// A claim about a process that the receiver knows.
    Brief {
        /// Of which member.
        member: Handle,
        /// What is claimed.
        claim: Claim,
        /// Who got no answer, and how long ago that was in tenths of a second. For a suspicion only.
        accuser: Option<(Handle, u16)>,
    },
    /// A record as it was signed.
    Record(&'a [u8]),
}

impl Message {
    /// Writes a packet's body up to its news.
    pub(super) fn begin(self, digest: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let (tag, number) = match self {
            Message::Ping(number) => (1, number),
            Message::Ack(number) => (2, number),
            Message::PingFor(number, _) => (3, number),
            Message::AckFor(number) => (4, number),
            Message::Gossip => (5, 0),
        };
        out.push(tag);
        out.extend_from_slice(&digest.to_be_bytes());
        if self != Message::Gossip {
            out.extend_from_slice(&number.to_be_bytes());
        }
        if let Message::PingFor(_, target) = self {
            out.extend_from_slice(&target.0.to_be_bytes());
        }
        out
    }
}

/// A packet's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body<'a> {
    /// What it is for.
    pub message: Message,
    /// Of the members and records that the sender knows.
    pub digest: u64,
    /// News, in order.
    pub updates: Vec<Update<'a>>,
}

impl<'a> Body<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// The first field that is not as it should be.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        let tag = from.byte("message")?;
        let digest = from.u64("digest")?;
        let message = match tag {
            1 => Message::Ping(from.u32("number")?),
            2 => Message::Ack(from.u32("number")?),
            3 => Message::PingFor(from.u32("number")?, Handle(from.u64("target")?)),
            4 => Message::AckFor(from.u32("number")?),
            5 => Message::Gossip,
            _ => return Err(Malformed("message")),
        };
        let mut updates = Vec::new();
        while !from.is_empty() {
            updates.push(Update::read(&mut from)?);
        }
        Ok(Body { message, digest, updates })
    }

    /// Writes it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.message.begin(self.digest);
        self.updates.iter().for_each(|update| update.write(&mut out));
        out
    }
}

pub(super) fn put_claim(out: &mut Vec<u8>, member: Handle, claim: Claim) {
    out.extend_from_slice(&member.0.to_be_bytes());
    out.extend_from_slice(&claim.life.0.to_be_bytes());
    out.extend_from_slice(&claim.incarnation.to_be_bytes());
    out.push(claim.state as u8);
}

pub(super) fn read_claim(from: &mut Reader<'_>) -> Result<(Handle, Claim), Malformed> {
    let member = Handle(from.u64("member")?);
    let life = Life(from.u64("life")?);
    let incarnation = from.u32("incarnation")?;
    Ok((member, Claim { life, incarnation, state: read_state(from)? }))
}

fn read_state(from: &mut Reader<'_>) -> Result<State, Malformed> {
    match from.byte("state")? {
        0 => Ok(State::Alive),
        1 => Ok(State::Suspect),
        2 => Ok(State::Down),
        _ => Err(Malformed("state")),
    }
}

impl<'a> Update<'a> {
    /// Appends it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Update::Full { incarnation, state, announcement } => {
                out.push(1);
                out.extend_from_slice(&incarnation.to_be_bytes());
                out.push(*state as u8);
                put_bytes(out, announcement);
            }
            Update::Brief { member, claim, accuser } => {
                out.push(2);
                put_claim(out, *member, *claim);
                if let Some((accuser, age)) = accuser {
                    out.extend_from_slice(&accuser.0.to_be_bytes());
                    out.extend_from_slice(&age.to_be_bytes());
                }
            }
            Update::Record(record) => {
                out.push(3);
                put_bytes(out, record);
            }
        }
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        match from.byte("news")? {
            1 => {
                let incarnation = from.u32("incarnation")?;
                let state = read_state(from)?;
                let announcement = from.bytes("announcement", MAX_ANNOUNCEMENT)?;
                Ok(Update::Full { incarnation, state, announcement })
            }
            2 => {
                let (member, claim) = read_claim(from)?;
                let accuser = match claim.state {
                    State::Suspect => Some((Handle(from.u64("accuser")?), from.u16("age")?)),
                    State::Alive | State::Down => None,
                };
                Ok(Update::Brief { member, claim, accuser })
            }
            3 => Ok(Update::Record(from.bytes("record", MAX_RECORD)?)),
            _ => Err(Malformed("news")),
        }
    }
}

/// Why a hello is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Who are you? This is me.
    Ask,
    /// The answer, with the question's challenge.
    Tell,
    /// What I know of you is newer than what you say of yourself: this.
    Newer,
}

/// A hello: the only packet that is not sealed for one process, because the sender does not know it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Why.
    pub why: Why,
    /// Chosen by who asks, returned by who tells.
    pub challenge: [u8; 8],
    /// The sender's announcement; for [`Why::Newer`] the receiver's.
    pub announcement: &'a [u8],
}

impl<'a> Hello<'a> {
    /// Writes it; the envelope pads it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HELLO_BODY);
        out.push(match self.why {
            Why::Ask => 1,
            Why::Tell => 2,
            Why::Newer => 3,
        });
        out.extend_from_slice(&self.challenge);
        put_bytes(&mut out, self.announcement);
        out
    }

    /// Reads a padded one.
    ///
    /// # Errors
    /// The first field that is not as it should be.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        let why = match from.byte("hello")? {
            1 => Why::Ask,
            2 => Why::Tell,
            3 => Why::Newer,
            _ => return Err(Malformed("hello")),
        };
        let challenge = from.array("challenge")?;
        let announcement = from.bytes("announcement", MAX_ANNOUNCEMENT)?;
        while !from.is_empty() {
            if from.byte("padding")? != 0 {
                return Err(Malformed("padding"));
            }
        }
        Ok(Hello { why, challenge, announcement })
    }
}
