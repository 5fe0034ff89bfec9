//! Labels of partitions, from the GUID partition table itself (UEFI specification, 5.3). The kernel does not tell those
//! of partitions that were made since it looked at the disk, and at the first boot that is the one that is wanted.

use flate2::Crc;

/// Length of a header, in bytes.
pub const HEADER: usize = 92;
/// Longest list of partitions that is read, in bytes; the usual one has 16 KiB.
const LONGEST: u64 = 1 << 20;
/// Least length of a partition's entry, in bytes.
const ENTRY: usize = 128;

/// Where the list of partitions lies, from the table's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its first block, in the disk's own logical blocks.
    pub first_block: u64,
    /// Its length in bytes.
    pub bytes: usize,
    entry: usize,
    checksum: u32,
}

/// A partition that the table names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its number: the kernel gives it the same.
    pub number: u32,
    /// Its first block, in the disk's own logical blocks.
    pub first_block: u64,
    /// Its label.
    pub label: String,
}

/// Reads the header, which is the disk's second block.
///
/// # Errors
/// What is wrong with it, in words.
pub fn header(block: &[u8]) -> Result<Header, String> {
    if block.len() < HEADER || block[..8] != *b"EFI PART" {
        return Err("expected a GUID partition table, found none".to_owned());
    }
    let length = u32_at(block, 12) as usize;
    let Some(bytes) = block.get(..length).filter(|bytes| bytes.len() >= HEADER) else {
        return Err(format!("its header says that it has {length} bytes"));
    };
    // The checksum is taken with its own field as zeros.
    let bytes = [&bytes[..16], &[0; 4], &bytes[20..]].concat();
    if checksum(&bytes) != u32_at(block, 16) {
        return Err("the checksum of its header is wrong".to_owned());
    }
    let (count, entry) = (u32_at(block, 80), u32_at(block, 84));
    let whole = u64::from(count) * u64::from(entry);
    let (Ok(entry), Ok(bytes), true) = (usize::try_from(entry), usize::try_from(whole), whole <= LONGEST) else {
        return Err(format!("its header lists {count} partitions of {entry} bytes"));
    };
    if entry < ENTRY {
        return Err(format!("its entries have {entry} bytes, expected at least {ENTRY}"));
    }
    Ok(Header { first_block: u64_at(block, 72), bytes, entry, checksum: u32_at(block, 88) })
}

/// Reads the list of partitions.
///
/// # Errors
/// What is wrong with it, in words.
pub fn partitions(header: &Header, list: &[u8]) -> Result<Vec<Named>, String> {
    if list.len() != header.bytes || checksum(list) != header.checksum {
        return Err("the checksum of its list of partitions is wrong".to_owned());
    }
    let used = (1..).zip(list.chunks_exact(header.entry)).filter(|(_, entry)| entry[..16] != [0; 16]);
    Ok(used.map(|(number, entry)| Named { number, first_block: u64_at(entry, 32), label: label(entry) }).collect())
}

/// UTF-16 up to the first zero.
fn label(entry: &[u8]) -> String {
    let units = entry[56..ENTRY].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|one| one.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// A table for tests: header and list, as a disk has them.
#[cfg(test)]
pub fn sample(partitions: &[(u32, u64, &str)]) -> (Vec<u8>, Vec<u8>) {
    let mut list = vec![0; ENTRY * ENTRY];
    for (number, first_block, label) in partitions {
        let entry = &mut list[ENTRY * (*number as usize - 1)..][..ENTRY];
        entry[..16].fill(7);
        entry[32..40].copy_from_slice(&first_block.to_le_bytes());
        let name: Vec<u8> = label.encode_utf16().flat_map(u16::to_le_bytes).collect();
        entry[56..56 + name.len()].copy_from_slice(&name);
    }
    let mut block = vec![0; 512];
    block[..8].copy_from_slice(b"EFI PART");
    for (at, value) in [(12, HEADER as u32), (72, 2), (80, 128), (84, 128), (88, checksum(&list))] {
        block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let sum = checksum(&block[..HEADER]);
    block[16..20].copy_from_slice(&sum.to_le_bytes());
    (block, list)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What sfdisk wrote for one partition, `start=2048, size=2048, name=kubeboot-var`: the header, and the one entry that
    /// is not all zeros.
    const BY_SFDISK: [&str; 2] = [
        "4546492050415254000001005c0000000c7219a6000000000100000000000000ff3f0000000000000008000000000000de3f\
         0000000000004542554b4f42544f800000000000000102000000000000008000000080000000b03262be",
        "af3dc60f838472478e793d69d8477de44542554b4f42544f80000000000000020008000000000000ff0f0000000000000000\
         0000000000006b0075006200650062006f006f0074002d007600610072000000000000000000000000000000000000000000\
         00000000000000000000000000000000000000000000000000000000",
    ];

    #[test]
    fn a_table_of_sfdisks_is_read() {
        let [block, entry] = BY_SFDISK.map(|text| {
            let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
            (0..text.len()).step_by(2).map(digits).collect::<Vec<u8>>()
        });
        let header = header(&block).unwrap();
        let list = [entry, vec![0; header.bytes - ENTRY]].concat();
        let only = Named { number: 1, first_block: 2048, label: "kubeboot-var".into() };
        assert_eq!((header.first_block, partitions(&header, &list)), (2, Ok(vec![only])));
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let (block, list) = sample(&[(1, 2048, "esp"), (6, 9000, "kubeboot-var"), (7, 9999, "größe")]);
        let header = header(&block).unwrap();
        assert_eq!((header.first_block, header.bytes), (2, 16384));
        let named = |number, first_block, label: &str| Named { number, first_block, label: label.into() };
        let expected = [named(1, 2048, "esp"), named(6, 9000, "kubeboot-var"), named(7, 9999, "größe")];
        assert_eq!(partitions(&header, &list).unwrap(), expected);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let (block, list) = sample(&[(6, 9000, "kubeboot-var")]);
        let whole = header(&block).unwrap();
        for at in 0..HEADER {
            let mut changed = block.clone();
            changed[at] ^= 0x40;
            assert!(header(&changed).is_err(), "{at}");
        }
        for at in [0, 700, list.len() - 1] {
            let mut changed = list.clone();
            changed[at] ^= 0x40;
            assert!(partitions(&whole, &changed).is_err(), "{at}");
        }
        assert!(partitions(&whole, &list[..ENTRY]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, length: u32, count: u32, entry: u32) {
            prop_assert!(header(&bytes).is_err());
            let (mut block, list) = sample(&[(1, 2048, "x")]);
            for (at, value) in [(12, length), (80, count), (84, entry)] {
                block[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            let end = (length as usize).clamp(HEADER, block.len());
            block[16..20].fill(0);
            let sum = checksum(&block[..end]);
            block[16..20].copy_from_slice(&sum.to_le_bytes());
            if let Ok(header) = header(&block) {
                prop_assert!(header.bytes as u64 <= LONGEST);
                let _ = partitions(&header, &list);
            }
        }
    }
}
