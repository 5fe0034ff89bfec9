//! Release files for tests: a small one, made and signed anew.

use std::io::Cursor;
use std::sync::OnceLock;

use minisign::KeyPair;

use super::manifest::{Digest, FORMAT, Image, OsRange, Verity};
use super::trailer::Extent;
use super::{Keys, Manifest, Trailer, verity};

/// Two key pairs; making them takes no time worth saving, but the same ones make failures repeatable in a run.
pub(crate) fn pairs() -> &'static [KeyPair; 2] {
    static PAIRS: OnceLock<[KeyPair; 2]> = OnceLock::new();
    PAIRS.get_or_init(|| [(); 2].map(|()| KeyPair::generate_unencrypted_keypair().unwrap()))
}

pub(crate) fn keys() -> Keys {
    Keys::parse(&key_file()).unwrap()
}

/// The public halves, as an image has them.
pub(crate) fn key_file() -> String {
    pairs().iter().map(|pair| pair.pk.to_base64() + "\n").collect()
}

pub(crate) fn sign(pair: usize, message: &[u8]) -> String {
    minisign::sign(None, &pairs()[pair].sk, Cursor::new(message), Some("test"), Some("test")).unwrap().into_string()
}

/// An "image" of 5000 bytes: not whole blocks, so there is padding.
fn image() -> Vec<u8> {
    (0..5000_u32).map(|n| (n % 251) as u8).collect()
}

pub(crate) fn manifest() -> Manifest {
    let image = image();
    let mut padded = image.clone();
    padded.resize(2 * verity::BLOCK, 0);
    let tree = verity::tree(&mut padded.as_slice(), 2, &[7; 32]).unwrap();
    Manifest {
        format: FORMAT,
        kubernetes: "1.37.2".into(),
        build: 3,
        version: "1.37.2-3".parse().unwrap(),
        created: "2026-10-27T12:01:04Z".parse().unwrap(),
        expires: "2027-10-27T12:01:04Z".parse().unwrap(),
        minimum: "1.36.0-0".parse().unwrap(),
        floor: "1.37.0-0".parse().unwrap(),
        os: OsRange { min: 1, max: 2 },
        erofs: Image { length: 5000, sha256: Digest(<sha2::Sha256 as sha2::Digest>::digest(&image).into()) },
        verity: Verity {
            algorithm: "sha256".into(),
            root_hash: tree.root,
            salt: Digest([7; 32]),
            data_block_size: 4096,
            hash_block_size: 4096,
            data_blocks: 2,
            hash_offset: 8192,
        },
        components: [("kube".to_owned(), "1.37.2".to_owned())].into(),
    }
}

/// A release file with that manifest and that signature.
pub(crate) fn file(manifest: &[u8], signature: &str) -> Vec<u8> {
    let mut file = image();
    file.resize(2 * verity::BLOCK, 0);
    let tree = verity::tree(&mut file.as_slice(), 2, &[7; 32]).unwrap();
    file.extend_from_slice(&tree.blocks);
    let manifest_extent = Extent { offset: file.len() as u64, length: manifest.len() as u64 };
    file.extend_from_slice(manifest);
    let signature_extent = Extent { offset: file.len() as u64, length: signature.len() as u64 };
    file.extend_from_slice(signature.as_bytes());
    file.extend_from_slice(&Trailer { manifest: manifest_extent, signature: signature_extent }.to_bytes());
    file
}

/// A good release file with that manifest.
pub(crate) fn release(manifest: &Manifest) -> Vec<u8> {
    let bytes = manifest.to_bytes().unwrap();
    file(&bytes, &sign(0, &bytes))
}
