//! gzip (RFC 1952), with a bound on what comes out.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use zeroize::Zeroizing;

use super::{Bytes, LIMIT};

/// Whether the bytes begin as gzip does.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// Unpacks. Fails with what was found instead; a stream that grows beyond [`LIMIT`] is not unpacked further.
pub fn unpack(bytes: &[u8]) -> Result<Bytes, String> {
    let mut out = Zeroizing::new(Vec::new());
    let bound = u64::try_from(LIMIT).unwrap_or(u64::MAX) + 1;
    MultiGzDecoder::new(bytes)
        .take(bound)
        .read_to_end(&mut out)
        .map_err(|error| format!("gzip data that can't be unpacked: {error}"))?;
    if out.len() > LIMIT {
        return Err(format!("gzip data that unpacks to more than {LIMIT} bytes"));
    }
    Ok(out)
}
