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
