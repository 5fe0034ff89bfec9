//! The envelope of every UDP packet: who has not the mesh key sees noise of some length.
//!
//! ```text
//! sealed = AES-256(header key, handle 8 ‖ key epoch 2 ‖ counter 6) ‖ ChaCha20-Poly1305(sender key, counter, body) ‖ tag 16
//! hello  = AES-256(header key, zero 8 ‖ key epoch 2 ‖ random 6) ‖ random 16 ‖ ChaCha20-Poly1305(hello key, body) ‖ tag 16
//! ```
//!
//! A sealed packet's associated data is its first block in clear, and the receiver's id and salt: it opens only at the
//! process it was sealed for, hence never a second time elsewhere nor after a restart, and there the replay window ends it.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::Time;
use super::announcement::{Announcement, Handle, Life};
use super::keys::Ring;

/// Longest packet, in bytes: with the headers of IPv6 and UDP it passes wherever IPv6 does.
pub const MAX_PACKET: usize = 1200;
/// What a sealed packet has besides its body.
pub const OVERHEAD: usize = 32;
/// Longest body of a sealed packet.
pub const MAX_BODY: usize = MAX_PACKET - OVERHEAD;
/// A hello's body: every hello is of this length, so that no answer is longer than what asked for it.
pub const HELLO_BODY: usize = 256;
const HELLO: usize = 16 + 16 + HELLO_BODY + 16;
/// Counters end below this.
const COUNTERS: u64 = 1 << 48;

/// A packet's first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) handle: Handle,
    pub(super) epoch: u64,
    /// Whether its key is accepted; one that is only recognised tells who lacks the new one.
    pub(super) accepted: bool,
    pub(super) counter: u64,
    block: [u8; 16],
}

impl Header {
    /// Reads it. None for what no member sealed.
    pub(super) fn read(ring: &Ring, now: Time, packet: &[u8]) -> Option<Header> {
        if !(OVERHEAD..=MAX_PACKET).contains(&packet.len()) {
            return None;
        }
        let shown = ring.show(now, packet.first_chunk()?)?;
        let [handle @ .., _, _, _, _, _, _, _, _] = shown.block;
        let [_, _, _, _, _, _, _, _, _, _, counter @ ..] = shown.block;
        let [a, b, c, d, e, f] = counter;
        Some(Header {
            handle: Handle(u64::from_be_bytes(handle)),
            epoch: shown.epoch,
            accepted: shown.accepted,
            counter: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
            block: shown.block,
        })
    }

    /// Whether it begins a hello.
    pub(super) fn is_hello(&self) -> bool {
        self.handle == Handle(0)
    }
}

fn block(handle: Handle, epoch: u64, last: u64) -> [u8; 16] {
    let mut block = [0; 16];
    block[..8].copy_from_slice(&handle.0.to_be_bytes());
    block[8..10].copy_from_slice(&(epoch as u16).to_be_bytes());
    block[10..].copy_from_slice(&last.to_be_bytes()[2..]);
    block
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("ChaCha20 has 32 bytes of key"))
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn associated(block: &[u8; 16], to: &Announcement) -> [u8; 48] {
    let mut out = [0; 48];
    out[..16].copy_from_slice(block);
    out[16..32].copy_from_slice(&to.id.0);
    out[32..].copy_from_slice(&to.salt);
    out
}

/// What a process seals with: its counter only rises, so no nonce is used twice under one key.
pub(super) struct Sealer {
    counter: u64,
    cached: Option<(u64, LessSafeKey)>,
}

impl Sealer {
    pub(super) fn new() -> Self {
        Sealer { counter: 0, cached: None }
    }

    /// Seals a body of at most [`MAX_BODY`] bytes for one process, which showed the key of some epoch. None when the counter has come to its end.
    pub(super) fn seal(
        &mut self,
        (ring, now): (&Ring, Time),
        from: &Announcement,
        (to, shown): (&Announcement, u16),
        body: &[u8],
    ) -> Option<Vec<u8>> {
        debug_assert!(body.len() <= MAX_BODY);
        self.counter += 1;
        if self.counter >= COUNTERS {
            return None;
        }
        let key = ring.sending(now, shown);
        let stale = self.cached.as_ref().is_none_or(|(epoch, _)| *epoch != key.epoch);
        if stale {
            self.cached = Some((key.epoch, cipher(&key.sender(&from.id, &from.salt))));
        }
        let (_, sender) = self.cached.as_ref()?;
        let mut head = block(from.id.handle(), key.epoch, self.counter);
        let aad = Aad::from(associated(&head, to));
        let mut packet = Vec::with_capacity(body.len() + OVERHEAD);
        packet.extend_from_slice(&head);
        packet.extend_from_slice(body);
        let tag = sender.seal_in_place_separate_tag(nonce(self.counter), aad, &mut packet[16..]).ok()?;
        packet.extend_from_slice(tag.as_ref());
        ring.hide(now, shown, &mut head);
        packet[..16].copy_from_slice(&head);
        Some(packet)
    }
}

/// What is kept for one sender: its key, and which of its packets were seen.
pub(super) struct Session {
    life: Life,
    epoch: u64,
    key: Zeroizing<[u8; 32]>,
    window: Window,
}

impl Session {
    pub(super) fn new() -> Self {
        Session { life: Life(0), epoch: 0, key: Zeroizing::new([0; 32]), window: Window::default() }
    }

    /// Opens a packet that `from` sealed for `to`. None if it is another process's, was changed, or was seen before.
    pub(super) fn open(
        &mut self,
        ring: &Ring,
        header: &Header,
        from: &Announcement,
        to: &Announcement,
        packet: &[u8],
    ) -> Option<Vec<u8>> {
        let life = from.life();
        if self.life != life {
            *self = Session { life, ..Session::new() };
        }
        if self.epoch != header.epoch {
            self.key = ring.of(header.epoch)?.sender(&from.id, &from.salt);
            self.epoch = header.epoch;
        }
        if !self.window.is_new(header.counter) {
            return None;
        }
        let mut body = packet.get(16..)?.to_vec();
        let aad = Aad::from(associated(&header.block, to));
        let length = cipher(&self.key).open_in_place(nonce(header.counter), aad, &mut body).ok()?.len();
        body.truncate(length);
        self.window.mark(header.counter);
        Some(body)
    }

    /// Whether a packet of that process with that counter was opened, or is too old to tell.
    pub(super) fn has_seen(&self, life: Life, counter: u64) -> bool {
        self.life == life && !self.window.is_new(counter)
    }
}

/// Which counters were seen: the highest, and 128 up to it. What is older counts as seen.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Window {
    highest: u64,
    seen: u128,
}

impl Window {
    fn is_new(&self, counter: u64) -> bool {
        match self.highest.checked_sub(counter) {
            None => true,
            Some(behind) => behind < 128 && self.seen >> behind & 1 == 0,
        }
    }

    fn mark(&mut self, counter: u64) {
        match self.highest.checked_sub(counter) {
            Some(behind) => self.seen |= 1 << behind.min(127),
            None => {
                let ahead = counter - self.highest;
                self.seen = if ahead < 128 { self.seen << ahead } else { 0 } | 1;
                self.highest = counter;
            }
        }
    }
}

/// Seals a hello's body, which is padded to [`HELLO_BODY`] bytes. `random` is never used twice.
pub(super) fn seal_hello((ring, now): (&Ring, Time), shown: u16, random: &[u8; 22], body: &[u8]) -> Vec<u8> {
    let key = ring.sending(now, shown);
    let [a, b, c, d, e, f, random @ ..] = *random;
    let mut head = block(Handle(0), key.epoch, u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
    let mut packet = Vec::with_capacity(HELLO);
    packet.extend_from_slice(&head);
    packet.extend_from_slice(&random);
    packet.extend_from_slice(body);
    packet.resize(32 + HELLO_BODY, 0);
    let sealer = cipher(&key.hello(&random));
    let tag =
        sealer.seal_in_place_separate_tag(nonce(0), Aad::from(head), &mut packet[32..]).expect("far below 2³² bytes");
    packet.extend_from_slice(tag.as_ref());
    ring.hide(now, shown, &mut head);
    packet[..16].copy_from_slice(&head);
    packet
}

/// Opens a hello.
pub(super) fn open_hello(ring: &Ring, header: &Header, packet: &[u8]) -> Option<Vec<u8>> {
    if packet.len() != HELLO {
        return None;
    }
    let random: &[u8; 16] = packet[16..].first_chunk()?;
    let mut body = packet[32..].to_vec();
    let opener = cipher(&ring.of(header.epoch)?.hello(random));
    let length = opener.open_in_place(nonce(0), Aad::from(header.block), &mut body).ok()?.len();
    body.truncate(length);
    Some(body)
}
