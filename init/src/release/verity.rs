//! dm-verity's hash tree: format 1, SHA-256, blocks of 4096 bytes, no superblock, the salt before each block.
//! Source: the kernel's Documentation/admin-guide/device-mapper/verity.rst; checked against veritysetup.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::manifest::Digest;

/// Length of data and hash blocks, in bytes.
pub const BLOCK: usize = 4096;
/// Digests that fit a hash block.
const FANOUT: u64 = (BLOCK / 32) as u64;

/// A hash tree as it lies on disk, top level first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The digest of the top block: what has to be known to trust everything below.
    pub root: Digest,
    /// The tree's blocks.
    pub blocks: Vec<u8>,
}

/// The number of blocks of the tree over `data_blocks` blocks.
#[must_use]
pub fn tree_blocks(data_blocks: u64) -> u64 {
    let (mut level, mut total) = (data_blocks, 0);
    while level > 1 {
        level = level.div_ceil(FANOUT);
        total += level;
    }
    total
}

/// Reads exactly `data_blocks` blocks and builds their tree.
///
/// # Errors
/// The data cannot be read, or ends early.
pub fn tree(data: &mut impl Read, data_blocks: u64, salt: &[u8]) -> io::Result<Tree> {
    let mut block = vec![0; BLOCK];
    let mut digests = Vec::new();
    for _ in 0..data_blocks {
        data.read_exact(&mut block)?;
        digests.extend_from_slice(&hash(salt, &block));
    }
    let mut levels = Vec::new();
    while digests.len() > 32 {
        digests.resize(digests.len().next_multiple_of(BLOCK), 0);
        let above = digests.chunks_exact(BLOCK).flat_map(|block| hash(salt, block)).collect();
        levels.push(std::mem::replace(&mut digests, above));
    }
    let mut root = [0; 32];
    root[..digests.len()].copy_from_slice(&digests);
    levels.reverse();
    Ok(Tree { root: Digest(root), blocks: levels.concat() })
}

fn hash(salt: &[u8], block: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(block).finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Block n is the number n, little-endian, 1024 times.
    fn data(blocks: u32) -> Vec<u8> {
        (0..blocks).flat_map(|n| n.to_le_bytes().repeat(BLOCK / 4)).collect()
    }

    /// The salt that releases have.
    const SALT: &[u8; 32] = b"kubeboot release\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

    /// Root hash and SHA-256 of the tree as `veritysetup format --no-superblock --hash=sha256` (cryptsetup 2.6.1)
    /// made them of the same data, for trees of one, two and three levels, full and nearly empty.
    #[test]
    fn trees_are_those_of_veritysetup() {
        for (blocks, root, tree_sha256) in [
            (
                2,
                "1f79f20b2c17c7f835bd11aa882dc0af525a6c41fa9f96486b96d97cff5a7228",
                "934fe2ce38568b01bd95caecfba6ccb469ffa661921e1228606e6b653d2281b6",
            ),
            (
                128,
                "f93190b7d5ee10f9f63ba3c9a3251fa3802248237b6a95cbc3557fe5208d5e8b",
                "91d9696734d51074cace354cd9af54b8e7ca51257494f8b6dc21751629c6bb8d",
            ),
            (
                129,
                "bef222be23ff68d03534de1cc88da7b2c518b8a487af155c1d949c955bb1a252",
                "6a6830bdea57732d9edd2e5cf26e7c90e7549056f2a8dc248c52f7780135f08f",
            ),
            (
                300,
                "4b923d9dd3571815fab0fcad14a81b7782b6fe2a5d5eaa4f795bf03bcd89eff8",
                "33b45cafc9f84c1b7886e8f0bea6b6092627b86fdb5503d35c51ead9e5d4f2ea",
            ),
            (
                16385,
                "ada45232456ad5cf926be33b4aebd4ef6d15018debe3deaf21ffb1e4d808ec9b",
                "99d34e17c9c419b3a615eff892b764706bfbb7092c440326718e2d25b12054f2",
            ),
        ] {
            let tree = tree(&mut data(blocks).as_slice(), blocks.into(), SALT).unwrap();
            assert_eq!(tree.root.to_string(), root, "{blocks}");
            assert_eq!(Digest(Sha256::digest(&tree.blocks).into()).to_string(), tree_sha256, "{blocks}");
        }
    }

    #[test]
    fn one_block_is_its_own_tree() {
        let tree = tree(&mut data(1).as_slice(), 1, SALT).unwrap();
        assert_eq!(tree.root.to_string(), "505dd59627f8c68e0c3c4bf4cfb002a2a0459af9b18ba8e52ec24519e06e217a");
        assert!(tree.blocks.is_empty());
    }

    #[test]
    fn data_that_ends_early_is_an_error() {
        let error = tree(&mut data(3).as_slice(), 4, SALT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn the_length_is_known_beforehand(blocks in 1..600_u32) {
            let tree = tree(&mut data(blocks).as_slice(), blocks.into(), &[]).unwrap();
            prop_assert_eq!(tree.blocks.len() as u64, tree_blocks(blocks.into()) * BLOCK as u64);
        }
    }
}
