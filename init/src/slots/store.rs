//! `slots.json`: the table on disk, with its format number and a checksum over the rest, so that a half-written or
//! flipped table is noticed and never half believed.
//!
//! A reader that does not know a field computes another checksum, so every change of the table's fields raises
//! [`FORMAT`]. It is looked at before the rest: an older kubeboot, after a rollback of the OS image, says that the table
//! is of a later one, and leaves it alone.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Slots;

/// The format that this version writes, and the only one that it reads.
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
pub enum Unbelievable {
    /// Half-written, flipped, or no table at all.
    Damaged(String),
    /// Whole, for all that this version can tell, but written by a later one.
    Later {
        /// Its format.
        format: u32,
    },
}

impl fmt::Display for Unbelievable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = crate::paths::SLOTS;
        match self {
            Unbelievable::Damaged(how) => write!(f, "{path} is damaged: {how}"),
            Unbelievable::Later { format } => {
                write!(f, "{path} was written by a later kubeboot: expected format {FORMAT}, found {format}")
            }
        }
    }
}

impl std::error::Error for Unbelievable {}

/// Reads the file's bytes.
///
/// # Errors
/// [`Unbelievable`], which says how: no JSON of this shape, a later format, or a checksum that does not fit.
pub fn read(bytes: &[u8]) -> Result<Slots, Unbelievable> {
    #[derive(Deserialize)]
    struct OnlyFormat {
        format: u32,
    }
    let no_table = |error| Unbelievable::Damaged(format!("expected a slot table of format {FORMAT}, found {error}"));
    let OnlyFormat { format } = serde_json::from_slice(bytes).map_err(no_table)?;
    if format > FORMAT {
        return Err(Unbelievable::Later { format });
    }
    if format < FORMAT {
        return Err(Unbelievable::Damaged(format!("expected format {FORMAT}, found {format}")));
    }
    let file: File = serde_json::from_slice(bytes).map_err(no_table)?;
    let expected = checksum(&file.table);
    if file.sha256 != expected {
        return Err(Unbelievable::Damaged(format!("expected the checksum {expected}, found {}", file.sha256)));
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
