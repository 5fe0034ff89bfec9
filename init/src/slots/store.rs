//! `slots.json`: the table on disk, with its format number and a checksum over the rest, so that a half-written or
//! flipped table is noticed and never half believed.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Slots;

/// The format that this version writes, and the highest that it reads.
pub const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    sha256: String,
    table: Slots,
}

/// A table that can't be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged(String);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged: {}", crate::paths::SLOTS, self.0)
    }
}

impl std::error::Error for Damaged {}

/// Reads the file's bytes.
///
/// # Errors
/// [`Damaged`], which says how: no JSON of this shape, a later format, or a checksum that does not fit.
pub fn read(bytes: &[u8]) -> Result<Slots, Damaged> {
    let file: File = serde_json::from_slice(bytes)
        .map_err(|error| Damaged(format!("expected a slot table of format {FORMAT}, found {error}")))?;
    if file.format != FORMAT {
        return Err(Damaged(format!("expected format {FORMAT}, found {}", file.format)));
    }
    let expected = checksum(&file.table);
    if file.sha256 != expected {
        return Err(Damaged(format!("expected the checksum {expected}, found {}", file.sha256)));
    }
    Ok(file.table)
}

/// The file's bytes, readable by a person.
pub fn write(slots: &Slots) -> Vec<u8> {
    let file = File { format: FORMAT, sha256: checksum(slots), table: slots.clone() };
    let mut bytes = serde_json::to_vec_pretty(&file).expect("the table has only strings and numbers");
    bytes.push(b'\n');
    bytes
}

/// SHA-256 over the table's compact JSON, whose maps are sorted: one table, one text.
fn checksum(slots: &Slots) -> String {
    let text = serde_json::to_vec(slots).expect("the table has only strings and numbers");
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
