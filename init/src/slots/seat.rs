//! `seat.json`: which release sits at [`crate::paths::SEAT`], and why that one.

use serde::{Deserialize, Serialize};

use super::{Seat, Slot};

/// What `kubeboot slot` found out, for everyone after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatFacts {
    /// `A`, `B` or `factory`.
    pub seat: Seat,
    /// Why this seat, in words.
    pub why: String,
    /// The release's version, `1.37.2-1`.
    pub version: String,
    /// Kubernetes' version without a `v`, `1.37.2`.
    pub kubernetes: String,
    /// SHA-256 of the release's erofs image, as signed.
    pub erofs_sha256: String,
    /// Root hash of its dm-verity tree, as signed.
    pub root_hash: String,
    /// Name of the key that signed it.
    pub signed_by: String,
    /// What the kernel checks each read against: `image` (the OS image's own verity root) or `verity` (the release's).
    pub checked_by: CheckedBy,
    /// How often this machine has booted, this boot included.
    pub boot: u64,
    /// Seats that stood before this one and could not be used, with the reason.
    pub passed_over: Vec<PassedOver>,
}

/// What guards the seat's bytes while it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckedBy {
    /// The dm-verity of the OS image that carries the file.
    Image,
    /// The release's own dm-verity.
    Verity,
}

/// A seat that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// Which.
    pub seat: Seat,
    /// Why not.
    pub why: String,
}

impl From<Seat> for String {
    fn from(seat: Seat) -> Self {
        match seat {
            Seat::Slot(slot) => slot.to_string(),
            Seat::Factory => "factory".to_owned(),
        }
    }
}

impl TryFrom<String> for Seat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "A" => Ok(Seat::Slot(Slot::A)),
            "B" => Ok(Seat::Slot(Slot::B)),
            "factory" => Ok(Seat::Factory),
            _ => Err(format!("expected A, B or factory, found {text:?}")),
        }
    }
}
