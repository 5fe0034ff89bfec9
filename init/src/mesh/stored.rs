//! What a node keeps of the mesh on its disk, byte for byte: the mesh key with its epoch, and the generation.

use zeroize::Zeroizing;

use super::keys::MeshKey;

/// Bytes of the key's file: the epoch, big-endian, and the secret.
const KEY: usize = 8 + 32;
/// The epoch of a cluster's first key.
pub const FIRST_EPOCH: u64 = 1;

/// The file of a mesh key.
pub fn key_bytes(key: &MeshKey) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(KEY));
    out.extend_from_slice(&key.epoch.to_be_bytes());
    out.extend_from_slice(key.secret().as_ref());
    out
}

/// Reads a mesh key's file. One of 32 bytes is of a release that knew no epochs: the cluster's first key.
///
/// # Errors
/// In words: it has another length, or the epoch that no key has.
pub fn read_key(bytes: &[u8]) -> Result<MeshKey, String> {
    let (epoch, secret) = match bytes.len() {
        32 => (FIRST_EPOCH, bytes),
        KEY => {
            let (epoch, secret) = bytes.split_at(8);
            (epoch.iter().fold(0, |epoch, byte| epoch << 8 | u64::from(*byte)), secret)
        }
        found => return Err(format!("expected {KEY} bytes, found {found}")),
    };
    if epoch < FIRST_EPOCH {
        return Err("its epoch is 0, and a cluster's first key has 1".to_owned());
    }
    let mut held = Zeroizing::new([0; 32]);
    held.copy_from_slice(secret);
    Ok(MeshKey::new(epoch, held))
}

/// The file of a generation.
pub fn generation_text(generation: u32) -> String {
    format!("{generation}\n")
}

/// Reads a generation's file. None if it is damaged: the node then begins anew, and hears from others which it had.
pub fn read_generation(bytes: &[u8]) -> Option<u32> {
    std::str::from_utf8(bytes).ok()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_with_its_epoch_and_an_older_releases_is_the_first() {
        let key = MeshKey::new(0x0102_0304_0506_0708, Zeroizing::new([9; 32]));
        let bytes = key_bytes(&key);
        assert_eq!(bytes.len(), KEY);
        let read = read_key(&bytes).expect("its own form");
        assert_eq!((read.epoch, read.commitment()), (key.epoch, key.commitment()));
        let old = read_key(&[9; 32]).expect("the older form");
        assert_eq!((old.epoch, old.secret().as_ref()), (1, &[9; 32][..]));
    }

    #[test]
    fn what_is_no_key_is_said() {
        let of = |bytes: &[u8]| read_key(bytes).err().expect("no key");
        assert_eq!(of(&[0; 39]), "expected 40 bytes, found 39");
        assert_eq!(of(&[0; 40]), "its epoch is 0, and a cluster's first key has 1");
    }

    #[test]
    fn a_generation_reads_back_and_noise_is_none() {
        assert_eq!(read_generation(generation_text(u32::MAX).as_bytes()), Some(u32::MAX));
        for noise in [&b""[..], b"-1", b"4294967296", b"\xff", b"1 2"] {
            assert_eq!(read_generation(noise), None);
        }
    }
}
