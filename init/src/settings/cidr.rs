//! Address blocks, in text as CIDR notation (RFC 4632).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address block such as `10.244.0.0/16`; the address is the block's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cidr {
    /// First address of the block.
    pub address: IpAddr,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

impl Cidr {
    /// Whether `address` lies in the block.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (bits(self.address), bits(address)) {
            ((ours, width), (theirs, other)) if width == other => {
                mask(ours, self.prefix, width) == mask(theirs, self.prefix, width)
            }
            _ => false,
        }
    }

    /// Whether the blocks share an address.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// The `n`th address of the block, counted from 0; none when the block is shorter.
    pub fn nth(&self, n: u32) -> Option<IpAddr> {
        let (first, width) = bits(self.address);
        let address = first.checked_add(u128::from(n))?;
        (mask(address, self.prefix, width) == first).then_some(())?;
        Some(match self.address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(address).ok()?.into()),
            IpAddr::V6(_) => IpAddr::V6(address.into()),
        })
    }

    /// The first of the blocks that it divides into, with a prefix of so many bits; itself when it is no longer block.
    #[must_use]
    pub fn first(&self, prefix: u8) -> Cidr {
        Cidr { address: self.address, prefix: prefix.max(self.prefix) }
    }
}

/// The address as a number, and its width in bits.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

fn mask(address: u128, prefix: u8, width: u8) -> u128 {
    let host = u32::from(width - prefix.min(width));
    if host >= 128 { 0 } else { address >> host << host }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Cidr {
    /// What would have been right.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || "an address block such as 10.244.0.0/16".to_owned();
        let (address, prefix) = text.split_once('/').ok_or_else(shape)?;
        let address: IpAddr = address.parse().map_err(|_| shape())?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(shape());
        }
        let prefix: u8 = prefix.parse().map_err(|_| shape())?;
        let (number, width) = bits(address);
        if prefix > width {
            return Err(format!("a prefix of at most {width} bits"));
        }
        let first = mask(number, prefix, width);
        if first != number {
            let first = Cidr { address: with_bits(address, first), prefix };
            return Err(format!("the block's first address: {first}"));
        }
        Ok(Cidr { address, prefix })
    }
}

fn with_bits(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or_default().into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_block_is_never_larger_than_the_whole() {
        let first = |text: &str, prefix| text.parse::<Cidr>().unwrap().first(prefix).to_string();
        assert_eq!(first("10.244.0.0/16", 24), "10.244.0.0/24");
        assert_eq!(first("10.244.3.0/26", 24), "10.244.3.0/26");
        assert_eq!(first("fd00:1::/56", 64), "fd00:1::/64");
    }
    use proptest::prelude::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect(text)
    }

    #[test]
    fn a_block_that_does_not_begin_at_its_first_address_is_refused_with_the_right_one() {
        assert_eq!("10.244.1.0/16".parse::<Cidr>(), Err("the block's first address: 10.244.0.0/16".into()));
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
        assert!("10.0.0.0/+8".parse::<Cidr>().is_err());
        assert!("10.0.0.0".parse::<Cidr>().is_err());
    }

    #[test]
    fn overlap_and_members() {
        assert!(cidr("10.0.0.0/8").overlaps(&cidr("10.96.0.0/16")));
        assert!(!cidr("10.244.0.0/16").overlaps(&cidr("10.96.0.0/16")));
        assert!(!cidr("::/0").overlaps(&cidr("0.0.0.0/0")));
        assert_eq!(cidr("10.96.0.0/16").nth(10), Some("10.96.0.10".parse().expect("address")));
        assert_eq!(cidr("10.96.0.0/30").nth(4), None);
        assert_eq!(cidr("fd00::/112").nth(1), Some("fd00::1".parse().expect("address")));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(number: u128, prefix in 0u8..=128, four: bool) {
            let width = if four { 32 } else { 128 };
            let prefix = prefix % (width + 1);
            let first = mask(if four { number & u128::from(u32::MAX) } else { number }, prefix, width);
            let like: IpAddr = if four { "0.0.0.0".parse().expect("v4") } else { "::".parse().expect("v6") };
            let block = Cidr { address: with_bits(like, first), prefix };
            prop_assert_eq!(block.to_string().parse::<Cidr>(), Ok(block));
            prop_assert!(block.contains(block.address));
        }
    }
}
