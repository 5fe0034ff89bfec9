//! The mesh key and what is derived from it, and its rotation.

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::digest;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use zeroize::Zeroizing;

use super::announcement::NodeId;
use super::{SECOND, Time};

/// How long after a rotation packets are still sealed with the old key, but for who showed that it has the new one.
pub const SWITCH_AFTER: Time = 60 * SECOND;
/// How long after a rotation packets under the old key are accepted.
pub const GRACE: Time = 180 * SECOND;
/// How long the senders of packets under a key that is accepted no more are recognised, to be given the new one.
const RECOGNISED: Time = 600 * SECOND;
/// Keys that are held at once.
const HELD: usize = 3;

/// One mesh key: 256 random bits. Wiped when dropped, no Debug.
#[derive(Clone)]
pub struct MeshKey {
    /// Counted from 1 by the control planes.
    pub epoch: u64,
    secret: Zeroizing<[u8; 32]>,
    root: Prk,
}

impl MeshKey {
    /// The key of an epoch.
    pub fn new(epoch: u64, secret: Zeroizing<[u8; 32]>) -> Self {
        let root = Salt::new(HKDF_SHA256, b"kubeboot mesh 1").extract(secret.as_ref());
        MeshKey { epoch, secret, root }
    }

    /// The secret itself, to be handed to a member over an authenticated stream or written to a file of mode 0600.
    pub fn secret(&self) -> &Zeroizing<[u8; 32]> {
        &self.secret
    }

    /// What a control plane's record says of a key, so that nobody can hand out another one.
    pub fn commitment(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"kubeboot mesh key commitment 1");
        context.update(&self.epoch.to_be_bytes());
        context.update(self.secret.as_ref());
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// The key with which one process of one node seals.
    pub(super) fn sender(&self, id: &NodeId, salt: &[u8; 16]) -> Zeroizing<[u8; 32]> {
        self.expand(&[b"sender", &id.0, salt])
    }

    /// The key of one hello.
    pub(super) fn hello(&self, random: &[u8; 16]) -> Zeroizing<[u8; 32]> {
        self.expand(&[b"hello", random])
    }

    fn expand(&self, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut out = Zeroizing::new([0; 32]);
        self.root.expand(info, Bytes).and_then(|okm| okm.fill(out.as_mut())).expect("HKDF-SHA256 gives 32 bytes");
        out
    }
}

struct Bytes;

impl KeyType for Bytes {
    fn len(&self) -> usize {
        32
    }
}

/// A key with its header cipher: AES-256 on the one block that begins each packet. No two blocks under one key are the
/// same (they hold sender and counter), so a block cipher alone makes them look like noise.
struct Held {
    key: MeshKey,
    hide: EncryptingKey,
    show: DecryptingKey,
    accepted_until: Time,
    recognised_until: Time,
}

impl Held {
    fn new(key: MeshKey) -> Self {
        let header = key.expand(&[b"header"]);
        let unbound = || UnboundCipherKey::new(&AES_256, header.as_ref()).expect("AES-256 has 32 bytes of key");
        Held {
            hide: EncryptingKey::ecb(unbound()).expect("AES-256 in ECB mode exists"),
            show: DecryptingKey::ecb(unbound()).expect("AES-256 in ECB mode exists"),
            key,
            accepted_until: Time::MAX,
            recognised_until: Time::MAX,
        }
    }
}

/// The keys of a process: the newest, and those before it that are not yet forgotten.
pub struct Ring {
    /// Newest first.
    held: Vec<Held>,
    switch_at: Time,
}

/// A packet's first block, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    /// The block as it was before it was hidden.
    pub(super) block: [u8; 16],
    /// The key's epoch.
    pub(super) epoch: u64,
    /// Whether packets under that key are accepted now.
    pub(super) accepted: bool,
}

impl Ring {
    /// A ring of one key.
    pub fn new(key: MeshKey) -> Self {
        Ring { held: vec![Held::new(key)], switch_at: 0 }
    }

    /// The newest key.
    pub fn newest(&self) -> &MeshKey {
        &self.held[0].key
    }

    /// Takes a newer key. With `grace` the old one is sent with for a while and accepted a while longer; without, both
    /// end now. False if the key is not newer.
    pub fn install(&mut self, now: Time, key: MeshKey, grace: bool) -> bool {
        if key.epoch <= self.newest().epoch {
            return false;
        }
        // A key that was skipped may have been one without grace.
        let grace = grace && key.epoch == self.newest().epoch + 1;
        for old in &mut self.held {
            let until = if grace { now + GRACE } else { 0 };
            old.accepted_until = old.accepted_until.min(until);
            old.recognised_until = old.recognised_until.min(now + GRACE + RECOGNISED);
        }
        self.held.insert(0, Held::new(key));
        self.held.truncate(HELD);
        self.switch_at = if grace { now + SWITCH_AFTER } else { now };
        true
    }

    /// Forgets what is recognised no more.
    pub(super) fn prune(&mut self, now: Time) {
        self.held.retain(|held| now <= held.recognised_until);
    }

    /// The key to seal with for who showed that it has the key of an epoch, of which the last 16 bits are told.
    pub fn sending(&self, now: Time, shown: u16) -> &MeshKey {
        &self.sender(now, shown).key
    }

    fn sender(&self, now: Time, shown: u16) -> &Held {
        let newest = &self.held[0];
        match self.held.get(1) {
            Some(old) if shown != newest.key.epoch as u16 && now < self.switch_at && now <= old.accepted_until => old,
            _ => newest,
        }
    }

    /// The held key of an epoch.
    pub(super) fn of(&self, epoch: u64) -> Option<&MeshKey> {
        self.held.iter().map(|held| &held.key).find(|key| key.epoch == epoch)
    }

    /// Makes a packet's first block look like noise, with the key that is sent with.
    pub(super) fn hide(&self, now: Time, shown: u16, block: &mut [u8; 16]) {
        self.sender(now, shown).hide.encrypt(block).expect("one whole block");
    }

    /// Reads a packet's first block: with the first key whose epoch stands in it. What was sealed with none of them
    /// passes for a block by chance one time in 65,536 for each key.
    pub(super) fn show(&self, now: Time, hidden: &[u8; 16]) -> Option<Shown> {
        self.held.iter().find_map(|held| {
            let mut block = *hidden;
            held.show.decrypt(&mut block, DecryptionContext::None).ok()?;
            let epoch = u16::from_be_bytes([block[8], block[9]]);
            let accepted = now <= held.accepted_until;
            (epoch == held.key.epoch as u16).then_some(Shown { block, epoch: held.key.epoch, accepted })
        })
    }
}
