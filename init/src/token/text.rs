//! The text form: Crockford base32 in groups of five, with a Reed-Solomon code as its checksum.
//!
//! A token is one block (seed) or two (join token) of 16 bytes. A block is a code word over GF(32) of 31 symbols: one
//! that is not written and stands for the token's kind and the block's place, 26 of data (128 bits and two zero bits)
//! and 4 of checksum. The code's distance is 5, so any four wrong characters of a block are noticed, hence every single
//! substitution and every adjacent transposition; and the place of one such slip can be told.

use std::fmt;

use zeroize::{Zeroize as _, Zeroizing};

use super::{Kind, SECRET};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUP: usize = 5;
const DATA: usize = 26;
const CHECK: usize = 4;
/// Characters of a block.
const BLOCK: usize = DATA + CHECK;
/// Longest text that is looked at, in bytes: twice a join token's.
const LONGEST: usize = 160;

/// Where the slip is, when one slip explains what is wrong. Counted from 1, groups of five, the prefix not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typo {
    /// One character is wrong.
    Character {
        /// Group.
        group: usize,
        /// Character within the group.
        place: usize,
    },
    /// This character and the next changed places.
    Swapped {
        /// Group of the first of them.
        group: usize,
        /// The first's place within its group.
        place: usize,
    },
    /// The letter after `kb1` does not belong to the rest.
    Prefix,
}

/// Why a text is no token. Never holds any part of the text but its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// It does not begin as tokens do.
    NotAToken,
    /// A later kubeboot's.
    Version(u32),
    /// A character that tokens do not have.
    Character {
        /// Group, counted from 1.
        group: usize,
        /// Character within the group, counted from 1.
        place: usize,
    },
    /// Characters are missing or too many.
    Length {
        /// How many there should be after the prefix, hyphens not counted.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The checksum does not match.
    Checksum(Option<Typo>),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TokenError::NotAToken => f.write_str(
                "a text that is no token: tokens begin with kb1s- (seed), kb1c- (control plane) or kb1w- (worker)",
            ),
            TokenError::Version(version) => {
                write!(f, "a token of version {version}; this release reads version 1")
            }
            TokenError::Character { group, place } => {
                write!(f, "a token with a character that tokens do not have: character {place} of group {group}")
            }
            TokenError::Length { expected, found } => {
                write!(f, "a token with {found} characters after its prefix instead of {expected}")
            }
            TokenError::Checksum(Some(Typo::Character { group, place })) => {
                write!(f, "a token with a typing error: character {place} of group {group} is wrong")
            }
            TokenError::Checksum(Some(Typo::Swapped { group, place })) => write!(
                f,
                "a token with a typing error: character {place} of group {group} and the next have changed places"
            ),
            TokenError::Checksum(Some(Typo::Prefix)) => {
                f.write_str("a token whose prefix does not belong to the rest of it")
            }
            TokenError::Checksum(None) => f.write_str("a token with more than one typing error"),
        }
    }
}

impl std::error::Error for TokenError {}

type Block = Zeroizing<[u8; SECRET]>;

/// The text of a token.
pub(super) fn encode(kind: Kind, blocks: &[&[u8; SECRET]]) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(5 + blocks.len() * (BLOCK + BLOCK / GROUP)));
    out.push_str("kb1");
    out.push(letter(kind));
    for (place, block) in blocks.iter().enumerate() {
        let mut symbols = spread(block);
        let mut check = remainder(virtual_symbol(kind, place), &symbols);
        for (count, symbol) in symbols.iter().chain(&check).enumerate() {
            if count % GROUP == 0 {
                out.push('-');
            }
            out.push(char::from(ALPHABET[usize::from(*symbol)]));
        }
        symbols.zeroize();
        check.zeroize();
    }
    out
}

/// A token's kind and blocks: one for a seed, two for a join token.
pub(super) fn decode(text: &str) -> Result<(Kind, Vec<Block>), TokenError> {
    let text = text.trim_ascii();
    let (kind, rest) = prefix(text)?;
    let symbols = symbols(rest)?;
    let count = blocks(kind);
    if symbols.len() != count * BLOCK {
        return Err(TokenError::Length { expected: count * BLOCK, found: symbols.len() });
    }
    let mut out = Vec::with_capacity(count);
    for (place, chunk) in symbols.chunks_exact(BLOCK).enumerate() {
        let mut word = Zeroizing::new([0; BLOCK]);
        word.copy_from_slice(chunk);
        if !valid(virtual_symbol(kind, place), &word) {
            return Err(TokenError::Checksum(locate(kind, place, &word)));
        }
        out.push(gather(&word).ok_or(TokenError::Checksum(None))?);
    }
    Ok((kind, out))
}

fn letter(kind: Kind) -> char {
    match kind {
        Kind::Seed => 's',
        Kind::ControlPlane => 'c',
        Kind::Worker => 'w',
    }
}

fn blocks(kind: Kind) -> usize {
    match kind {
        Kind::Seed => 1,
        Kind::ControlPlane | Kind::Worker => 2,
    }
}

/// The symbol that is not written: it ties a block to its kind and its place.
fn virtual_symbol(kind: Kind, place: usize) -> u8 {
    match (kind, place) {
        (Kind::Seed, _) => 1,
        (Kind::ControlPlane, 0) => 2,
        (Kind::ControlPlane, _) => 3,
        (Kind::Worker, 0) => 4,
        (Kind::Worker, _) => 5,
    }
}

/// Splits `kb1s-…` into the kind and what follows the hyphen.
fn prefix(text: &str) -> Result<(Kind, &str), TokenError> {
    if text.len() > LONGEST {
        return Err(TokenError::NotAToken);
    }
    let (head, rest) = text.split_once('-').ok_or(TokenError::NotAToken)?;
    let head = head.to_ascii_lowercase();
    let tail = head.strip_prefix("kb").ok_or(TokenError::NotAToken)?;
    let digits = tail.trim_end_matches(|c: char| !c.is_ascii_digit());
    let version: u32 = digits.parse().map_err(|_| TokenError::NotAToken)?;
    if version != 1 || digits.len() != 1 {
        return Err(TokenError::Version(version));
    }
    let kind = match &tail[digits.len()..] {
        "s" => Kind::Seed,
        "c" => Kind::ControlPlane,
        "w" => Kind::Worker,
        _ => return Err(TokenError::NotAToken),
    };
    Ok((kind, rest))
}

fn symbols(text: &str) -> Result<Zeroizing<Vec<u8>>, TokenError> {
    let mut out = Zeroizing::new(Vec::with_capacity(LONGEST));
    for character in text.chars().filter(|c| *c != '-') {
        let place = out.len();
        let symbol =
            symbol(character).ok_or(TokenError::Character { group: place / GROUP + 1, place: place % GROUP + 1 })?;
        out.push(symbol);
    }
    Ok(out)
}

/// Crockford's reading of a character.
fn symbol(character: char) -> Option<u8> {
    let upper = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let byte = u8::try_from(upper).ok()?;
    ALPHABET.iter().position(|letter| *letter == byte).and_then(|at| u8::try_from(at).ok())
}

/// 128 bits as 26 symbols of five bits, most significant first; the last two bits are zero.
fn spread(block: &[u8; SECRET]) -> [u8; DATA] {
    let number = u128::from_be_bytes(*block);
    let mut out = [0; DATA];
    for (at, symbol) in out.iter_mut().enumerate() {
        let shift = 5 * (DATA - 1 - at);
        // 130 bits: the number followed by two zero bits.
        let bits = if shift >= 2 { number >> (shift - 2) } else { number << (2 - shift) };
        *symbol = (bits & 31) as u8;
    }
    out
}

/// The inverse of [`spread`]; none when the two last bits are set.
fn gather(word: &[u8; BLOCK]) -> Option<Block> {
    let mut number: u128 = 0;
    for symbol in &word[..DATA - 1] {
        number = (number << 5) | u128::from(*symbol);
    }
    let last = word[DATA - 1];
    number = (number << 3) | u128::from(last >> 2);
    (last & 3 == 0).then(|| Zeroizing::new(number.to_be_bytes()))
}

/// Product in GF(32) with the primitive polynomial x⁵+x²+1.
fn times(a: u8, b: u8) -> u8 {
    let mut product = 0;
    let mut shifted = a;
    for bit in 0..5 {
        if b >> bit & 1 == 1 {
            product ^= shifted;
        }
        shifted <<= 1;
        if shifted & 32 != 0 {
            shifted ^= 0b10_0101;
        }
    }
    product
}

/// Coefficients, highest first and without the leading one, of (x−α)(x−α²)(x−α³)(x−α⁴) with α = 2.
const GENERATOR: [u8; CHECK] = [30, 6, 9, 17];

/// The checksum: the remainder of the data, shifted by the checksum's length, divided by the generator.
fn remainder(first: u8, data: &[u8; DATA]) -> [u8; CHECK] {
    let mut rest = [0; CHECK];
    for symbol in std::iter::once(&first).chain(data) {
        let factor = symbol ^ rest[0];
        for at in 0..CHECK {
            let next = rest.get(at + 1).copied().unwrap_or(0);
            rest[at] = next ^ times(factor, GENERATOR[at]);
        }
    }
    rest
}

fn valid(first: u8, word: &[u8; BLOCK]) -> bool {
    let mut data = [0; DATA];
    data.copy_from_slice(&word[..DATA]);
    let matches = remainder(first, &data) == word[DATA..];
    data.zeroize();
    matches
}

/// The one slip that explains a word: at most 30 × 31 + 29 + 5 trials.
fn locate(kind: Kind, block: usize, word: &[u8; BLOCK]) -> Option<Typo> {
    let first = virtual_symbol(kind, block);
    let mut tried = Zeroizing::new(*word);
    let spot = |at: usize| {
        let at = block * BLOCK + at;
        (at / GROUP + 1, at % GROUP + 1)
    };
    for at in 0..BLOCK {
        for other in 1..32 {
            tried[at] = word[at] ^ other;
            if valid(first, &tried) {
                let (group, place) = spot(at);
                return Some(Typo::Character { group, place });
            }
        }
        tried[at] = word[at];
    }
    for at in 0..BLOCK - 1 {
        tried.swap(at, at + 1);
        if valid(first, &tried) {
            let (group, place) = spot(at);
            return Some(Typo::Swapped { group, place });
        }
        tried.swap(at, at + 1);
    }
    (1..=5).any(|other| other != first && valid(other, word)).then_some(Typo::Prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_has_the_first_four_powers_of_alpha_as_its_roots() {
        let mut alpha = 1;
        for _ in 0..CHECK {
            alpha = times(alpha, 2);
            let value = GENERATOR.iter().fold(1, |sum, coefficient| times(sum, alpha) ^ coefficient);
            assert_eq!(value, 0);
        }
    }

    #[test]
    fn alpha_generates_the_field() {
        let mut seen = [false; 32];
        let mut power = 1;
        for _ in 0..31 {
            assert!(!seen[usize::from(power)]);
            seen[usize::from(power)] = true;
            power = times(power, 2);
        }
        assert_eq!(power, 1);
    }
}
