//! Seeded choices, so that a failing run can be repeated: SplitMix64 (Steele, Lea, Flood 2014).

use std::io::Read;
use std::ops::Range;

use anyhow::{Context, Result};

/// A stream of choices that only its seed decides.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of the range, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.bits() % (range.end - range.start)
    }

    /// One of all, of which there must be some.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.within(0..all.len() as u64) as usize]
    }

    /// Brings all into some order, each as likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for place in (1..all.len()).rev() {
            all.swap(place, self.within(0..place as u64 + 1) as usize);
        }
    }
}

/// A seed that nobody chose: 32 bits, short enough to be typed again.
///
/// # Errors
/// The host's random source can't be read.
pub fn fresh_seed() -> Result<u64> {
    let mut bytes = [0; 4];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("can't read /dev/urandom for a seed")?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_stream() {
        // First value of the reference implementation for seed 0.
        assert_eq!(Random::new(0).bits(), 0xe220_a839_7b1d_cdaf);
        let numbers: Vec<_> = (0..9).map(|_| Random::new(7).within(10..20)).collect();
        assert!(numbers.iter().all(|number| (10..20).contains(number) && *number == numbers[0]));
    }

    #[test]
    fn every_order_comes_and_nothing_is_lost() {
        let mut random = Random::new(1);
        let orders: std::collections::BTreeSet<_> = (0..200)
            .map(|_| {
                let mut order = [0, 1, 2];
                random.shuffle(&mut order);
                order
            })
            .collect();
        assert_eq!(orders.len(), 6);
        assert!(orders.iter().all(|order| [0, 1, 2].iter().all(|one| order.contains(one))));
        assert!((0..100).map(|_| random.one_of(&[4, 5])).collect::<std::collections::BTreeSet<_>>().len() == 2);
    }
}
