//! What the two sides of a push-pull say: pages of what is held, what of it the other lacks, and the mesh key.

use super::Mesh;
use super::streams::{Phase, Stream, Wants};
use crate::mesh::Time;
use crate::mesh::announcement::Handle;
use crate::mesh::keys::MeshKey;
use crate::mesh::members::{Claim, State};
use crate::mesh::packet::Update;
use crate::mesh::record::{About, Rank};
use crate::mesh::sync::{BATCH, Cursor, Exchange, Message, NEWS, PAGE, Parts, Versions};

/// Records asked for in one message: they may be long.
pub(super) const RECORDS: usize = 8;

impl Mesh {
    /// A page of what this node holds in the parts that differ.
    pub(super) fn page(&self, parts: Parts, cursor: Cursor) -> Versions {
        let mut page = Versions { key_epoch: self.ring.newest().epoch, parts, ..Versions::default() };
        let mut members = Vec::new();
        if !cursor.members_done {
            members = self.claims_after(&parts, cursor.member);
        }
        page.members_done = members.len() <= PAGE;
        members.truncate(PAGE);
        let room = PAGE - members.len();
        page.members = members;
        if page.members_done {
            let records = self.store.ranks_after(cursor.record).filter(|(about, _)| parts.record(*about));
            let mut records: Vec<(About, Rank)> = records.take(room + 1).collect();
            page.done = records.len() <= room;
            records.truncate(room);
            page.records = records;
        }
        page
    }

    /// Claims about members above `after`, in order.
    fn claims_after(&self, parts: &Parts, after: Option<Handle>) -> Vec<(Handle, Claim)> {
        let all = self.members.iter().map(|member| (member.announcement.id.handle(), member.claim()));
        let wanted = all.filter(|(at, _)| parts.member(*at) && after.is_none_or(|after| *at > after));
        let mut members: Vec<(Handle, Claim)> = wanted.collect();
        members.sort_unstable_by_key(|(at, _)| *at);
        members
    }

    /// Compares a page with what this node holds. Says where the next one begins, if there is one.
    pub(super) fn compare(&mut self, now: Time, wants: &mut Wants, cursor: Cursor, page: &Versions) -> Option<Cursor> {
        wants.key_epoch = page.key_epoch;
        self.told_epoch = self.told_epoch.max(page.key_epoch);
        if !cursor.members_done {
            self.compare_members(now, wants, cursor, page);
        }
        let next_member = page.members.last().map(|(member, _)| *member).or(cursor.member);
        let next_record = page.records.last().map(|(about, _)| *about).or(cursor.record);
        if page.members_done {
            self.compare_records(wants, cursor, page);
        }
        let next = Cursor { member: next_member, record: next_record, members_done: page.members_done };
        // A page that does not lead on would be asked for again and again.
        (!page.done && next != cursor).then_some(next)
    }

    fn compare_members(&mut self, now: Time, wants: &mut Wants, cursor: Cursor, page: &Versions) {
        let last = page.members.last().map(|(member, _)| *member);
        let within = |at: Handle| page.members_done || last.is_some_and(|last| at <= last);
        let mine = self.claims_after(&page.parts, cursor.member);
        let mut theirs = page.members.iter().copied().peekable();
        let mut take = Vec::new();
        for (at, held) in mine.into_iter().filter(|(at, _)| within(*at)) {
            while let Some((other, claim)) = theirs.next_if(|(other, _)| *other < at) {
                take.push((other, claim, None));
            }
            match theirs.next_if(|(other, _)| *other == at) {
                Some((_, claim)) if claim > held => take.push((at, claim, Some(held))),
                Some((_, claim)) if claim == held => {}
                Some(_) => wants.give_members.push(at),
                None if held.state != State::Down => wants.give_members.push(at),
                None => {}
            }
        }
        take.extend(theirs.map(|(other, claim)| (other, claim, None)));
        for (at, claim, held) in take {
            match held {
                _ if self.store.is_removed_handle(at) => {}
                None if claim.state != State::Down => wants.members.push(at),
                Some(held) if held.life != claim.life => wants.members.push(at),
                Some(_) => {
                    let accuser = (claim.state == State::Suspect).then_some((Handle(0), 0));
                    self.take_update(now, &Update::Brief { member: at, claim, accuser }, None);
                    if at == self.me.id.handle() {
                        wants.give_members.push(at);
                    }
                }
                None => {}
            }
        }
    }

    fn compare_records(&self, wants: &mut Wants, cursor: Cursor, page: &Versions) {
        let last = page.records.last().map(|(about, _)| *about);
        let within = |about: About| page.done || last.is_some_and(|last| about <= last);
        let mine = self.store.ranks_after(cursor.record);
        for (about, rank) in mine.filter(|(about, _)| page.parts.record(*about) && within(*about)) {
            let theirs = page.records.binary_search_by_key(&about, |(about, _)| *about);
            if theirs.is_err() || theirs.is_ok_and(|at| page.records[at].1 < rank) {
                wants.give_records.push(about);
            }
        }
        let lacking = |(about, rank): &&(About, Rank)| self.store.rank(*about).is_none_or(|held| held < *rank);
        wants.records.extend(page.records.iter().filter(lacking));
    }

    /// Gives the next of what the other lacks and asks for the next of what is wanted. False when nothing is left.
    pub(super) fn exchange(&mut self, stream: &mut Stream, mut wants: Wants) -> bool {
        let ours = self.ring.newest().epoch;
        let keys = !wants.key_done && wants.key_epoch != ours;
        let nothing = wants.give_members.is_empty() && wants.give_records.is_empty();
        if nothing && wants.members.is_empty() && wants.records.is_empty() && !keys {
            return false;
        }
        wants.key_done = true;
        let give: Vec<Handle> = wants.give_members.drain(..BATCH.min(wants.give_members.len())).collect();
        let records: Vec<About> = wants.give_records.drain(..1.min(wants.give_records.len())).collect();
        let members: Vec<Handle> = wants.members.drain(..BATCH.min(wants.members.len())).collect();
        let asked = wants.records.iter().take(RECORDS).map(|(about, _)| *about).collect();
        let theirs = if keys { wants.key_epoch } else { u64::MAX };
        self.give(stream, give.into_iter(), records.into_iter(), (members, asked), theirs);
        stream.phase = Phase::Exchanging(wants);
        true
    }

    /// Sends members and records as far as they fit, wants, and the key if the other's is older.
    pub(super) fn give(
        &mut self,
        stream: &Stream,
        members: impl Iterator<Item = Handle>,
        records: impl Iterator<Item = About>,
        (want_members, want_records): (Vec<Handle>, Vec<About>),
        their_epoch: u64,
    ) {
        let (mut whole, mut size) = (Vec::new(), 0);
        for member in members.take(BATCH).filter_map(|member| self.members.get(member)) {
            let bytes = member.announcement.bytes();
            size += bytes.len() + 8;
            whole.push((member.claim(), bytes));
        }
        let mut signed = Vec::new();
        for record in records.filter_map(|about| self.store.by(about)) {
            let bytes = record.bytes();
            size += bytes.len() + 3;
            if size > NEWS {
                break;
            }
            signed.push(bytes);
        }
        let members = whole.iter().map(|(claim, announcement)| Update::Full {
            incarnation: claim.incarnation,
            state: claim.state,
            announcement,
        });
        let news = members.chain(signed.iter().map(|record| Update::Record(record))).collect();
        let newest = self.ring.newest();
        let key = (their_epoch < newest.epoch).then(|| (newest.epoch, newest.secret().clone()));
        let exchange = Exchange { news, members: want_members, records: want_records, key };
        let message = Message::Exchange(exchange);
        self.transmit(stream.id, &message);
    }

    pub(super) fn take_exchange(&mut self, now: Time, peer: Handle, exchange: &Exchange<'_>) {
        for update in &exchange.news {
            self.take_update(now, update, Some(peer));
        }
        if let Some((epoch, secret)) = &exchange.key {
            self.take_key(now, MeshKey::new(*epoch, secret.clone()));
        }
    }
}
