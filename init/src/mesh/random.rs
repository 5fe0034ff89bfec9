//! Choices and challenges from one seed that the host passes in: the room itself has no source of randomness.

use aws_lc_rs::digest;
use zeroize::Zeroizing;

/// A seed's two streams: quick numbers for choices and jitter, and bytes that nobody can foresee.
pub(super) struct Random {
    seed: Zeroizing<[u8; 32]>,
    drawn: u64,
    quick: u64,
}

impl Random {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        let mut random = Random { seed: Zeroizing::new(seed), drawn: 0, quick: 0 };
        let [a, b, c, d, e, f, g, h, ..] = random.secret::<16>();
        random.quick = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        random
    }

    /// SplitMix64: for what may be foreseen.
    pub(super) fn number(&mut self) -> u64 {
        self.quick = self.quick.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.quick)
    }

    /// A number below `bound`, zero if there is none.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.number()) * bound as u128;
        (wide >> 64) as usize
    }

    /// `base` and up to a quarter of it more.
    pub(super) fn jittered(&mut self, base: u64) -> u64 {
        base + self.number() % (base / 4 + 1)
    }

    /// Bytes that can't be foreseen without the seed: SHA-256 over it and a counter.
    pub(super) fn secret<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= 32) };
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"kubeboot mesh random 1");
        context.update(self.seed.as_ref());
        context.update(&self.drawn.to_be_bytes());
        self.drawn += 1;
        *context.finish().as_ref().first_chunk().expect("at most the 32 bytes of SHA-256")
    }
}

/// A bijection of 64 bits that looks like noise (SplitMix64's last step).
pub(super) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
