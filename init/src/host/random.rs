//! Randomness, from the one crypto provider's generator (seeded by getrandom(2)).

/// `N` random bytes, fit for secrets.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    aws_lc_rs::rand::fill(&mut out).expect("the kernel gives random bytes");
    out
}
