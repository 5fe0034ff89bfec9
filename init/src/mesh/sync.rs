//! Anti-entropy: the messages of a push-pull between two nodes whose digests differ.
//!
//! They go over a stream that is mutually authenticated by node keys. The node that opened it asks, the other answers,
//! one message for one message, each of at most [`MAX_MESSAGE`] bytes; so neither holds more than a page of the other's.
//!
//! ```text
//! Summary    digests of all parts, key epoch    →
//!            ← Versions   which parts differ; what is held there, as claims and ranks, one page
//! More       after the last of the page         →           (until the last page)
//!            ← Versions
//! Exchange   what the other lacks, what is wanted →         (until neither is left)
//!            ← Exchange   what was wanted
//! ```

use zeroize::Zeroizing;

use super::announcement::Handle;
use super::members::{self, Claim};
use super::packet::{Update, put_claim, read_claim};
use super::record::{About, Rank};
use super::store;
use super::wire::{Malformed, Reader};

/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Claims and ranks in a page of versions.
pub const PAGE: usize = 1500;
/// Members or records asked for, or given, in one message.
pub const BATCH: usize = 128;
/// Bytes of news in one message: a whole batch of members and one record of any length, and with the rest it stays below
/// [`MAX_MESSAGE`].
pub(super) const NEWS: usize = 48 * 1024;

/// Which parts of members and records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    /// A bit for each part of the members.
    pub members: [u64; 4],
    /// A bit for each part of the records.
    pub records: u64,
}

impl Parts {
    pub(super) fn member(&self, handle: Handle) -> bool {
        let part = members::part(handle);
        self.members[part / 64] >> (part % 64) & 1 == 1
    }

    pub(super) fn record(&self, about: About) -> bool {
        self.records >> store::part(about) & 1 == 1
    }

    /// Where two sets of digests differ.
    pub(super) fn differing(
        summary: &Summary,
        members: &[u64; members::PARTS],
        records: &[u64; store::PARTS],
    ) -> Parts {
        let mut parts = Parts::default();
        for (part, (ours, theirs)) in members.iter().zip(summary.members.iter()).enumerate() {
            parts.members[part / 64] |= u64::from(ours != theirs) << (part % 64);
        }
        for (part, (ours, theirs)) in records.iter().zip(summary.records.iter()).enumerate() {
            parts.records |= u64::from(ours != theirs) << part;
        }
        parts
    }
}

/// Digests of everything that a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Of its newest mesh key.
    pub key_epoch: u64,
    /// Of each part of its members.
    pub members: Box<[u64; members::PARTS]>,
    /// Of each part of its records.
    pub records: Box<[u64; store::PARTS]>,
}

/// Where a page begins: after this member, then after this record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Last member of the page before; none at the first.
    pub member: Option<Handle>,
    /// Last record of the page before; none while members are not through.
    pub record: Option<About>,
    /// Whether members are through.
    pub members_done: bool,
}

/// A page of what is held in the parts that differ, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Versions {
    /// Of the newest mesh key.
    pub key_epoch: u64,
    /// Which parts differ: in every page the same.
    pub parts: Parts,
    /// Claims about members.
    pub members: Vec<(Handle, Claim)>,
    /// Ranks of records.
    pub records: Vec<(About, Rank)>,
    /// Whether all members have been said.
    pub members_done: bool,
    /// Whether all records have been said, too.
    pub done: bool,
}

/// What is given and asked for.
#[derive(Default)]
pub struct Exchange<'a> {
    /// Members and records that the other lacks.
    pub news: Vec<Update<'a>>,
    /// Members that are wanted.
    pub members: Vec<Handle>,
    /// Records that are wanted.
    pub records: Vec<About>,
    /// The newest mesh key, for who has an older one.
    pub key: Option<(u64, Zeroizing<[u8; 32]>)>,
}

/// A message of a push-pull.
pub enum Message<'a> {
    /// Opens it.
    Summary(Summary),
    /// The next page.
    More(Cursor),
    /// A page.
    Versions(Versions),
    /// The contents.
    Exchange(Exchange<'a>),
}

fn put(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("bounded by the caller");
    out.extend_from_slice(&count.to_be_bytes());
}

fn numbers<const N: usize>(from: &mut Reader<'_>, field: &'static str) -> Result<[u64; N], Malformed> {
    let mut out = [0; N];
    for number in &mut out {
        *number = from.u64(field)?;
    }
    Ok(out)
}

fn list<T>(
    from: &mut Reader<'_>,
    field: &'static str,
    most: usize,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = usize::from(from.u16(field)?);
    if count > most { Err(Malformed(field)) } else { (0..count).map(|_| read(from)).collect() }
}

fn flag(from: &mut Reader<'_>, field: &'static str) -> Result<bool, Malformed> {
    match from.byte(field)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed(field)),
    }
}

impl<'a> Message<'a> {
    /// Writes it.
    pub fn bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(MAX_MESSAGE));
        match self {
            Message::Summary(summary) => {
                out.push(1);
                put(&mut out, [summary.key_epoch]);
                put(&mut out, summary.members.iter().copied());
                put(&mut out, summary.records.iter().copied());
            }
            Message::More(cursor) => {
                out.push(2);
                out.push(u8::from(cursor.member.is_some()));
                put(&mut out, cursor.member.map(|member| member.0));
                out.push(u8::from(cursor.record.is_some()));
                put(&mut out, cursor.record.map(|record| record.0));
                out.push(u8::from(cursor.members_done));
            }
            Message::Versions(versions) => versions.write(&mut out),
            Message::Exchange(exchange) => exchange.write(&mut out),
        }
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// The first field that is not as it should be.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_MESSAGE {
            return Err(Malformed("length"));
        }
        let mut from = Reader::new(bytes);
        let message = match from.byte("message")? {
            1 => Message::Summary(Summary {
                key_epoch: from.u64("key epoch")?,
                members: Box::new(numbers(&mut from, "digests")?),
                records: Box::new(numbers(&mut from, "digests")?),
            }),
            2 => {
                let member = flag(&mut from, "cursor")?.then(|| from.u64("member")).transpose()?.map(Handle);
                let record = flag(&mut from, "cursor")?.then(|| from.u64("record")).transpose()?.map(About);
                Message::More(Cursor { member, record, members_done: flag(&mut from, "cursor")? })
            }
            3 => Message::Versions(Versions::read(&mut from)?),
            4 => Message::Exchange(Exchange::read(&mut from)?),
            _ => return Err(Malformed("message")),
        };
        from.end()?;
        Ok(message)
    }
}

impl Versions {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(3);
        put(out, [self.key_epoch]);
        put(out, self.parts.members);
        put(out, [self.parts.records]);
        put_count(out, self.members.len());
        self.members.iter().for_each(|(member, claim)| put_claim(out, *member, *claim));
        put_count(out, self.records.len());
        put(out, self.records.iter().flat_map(|(about, rank)| [about.0, rank.epoch, rank.hash]));
        out.push(u8::from(self.members_done));
        out.push(u8::from(self.done));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Versions {
            key_epoch: from.u64("key epoch")?,
            parts: Parts { members: numbers(from, "parts")?, records: from.u64("parts")? },
            members: list(from, "members", PAGE, read_claim)?,
            records: list(from, "records", PAGE, |from| {
                let about = About(from.u64("record")?);
                Ok((about, Rank { epoch: from.u64("epoch")?, hash: from.u64("hash")? }))
            })?,
            members_done: flag(from, "end")?,
            done: flag(from, "end")?,
        })
    }
}

impl<'a> Exchange<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(4);
        put_count(out, self.members.len());
        put(out, self.members.iter().map(|member| member.0));
        put_count(out, self.records.len());
        put(out, self.records.iter().map(|record| record.0));
        out.push(u8::from(self.key.is_some()));
        if let Some((epoch, secret)) = &self.key {
            put(out, [*epoch]);
            out.extend_from_slice(secret.as_ref());
        }
        self.news.iter().for_each(|update| update.write(out));
    }

    fn read(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let members = list(from, "wants", BATCH, |from| Ok(Handle(from.u64("member")?)))?;
        let records = list(from, "wants", BATCH, |from| Ok(About(from.u64("record")?)))?;
        let key = match flag(from, "key")? {
            true => Some((from.u64("key epoch")?, Zeroizing::new(from.array("key")?))),
            false => None,
        };
        let mut news = Vec::new();
        while !from.is_empty() {
            news.push(Update::read(from)?);
        }
        Ok(Exchange { news, members, records, key })
    }
}
