//! Whole release files: made, read, damaged.

use std::io::Cursor;

use minisign::KeyPair;
use proptest::prelude::*;

use super::manifest::ManifestError;
use super::sample::{file, keys, manifest, pairs, sign};
use super::signature::SignatureError;
use super::trailer::{Extent, TrailerError};
use super::*;

fn good() -> Vec<u8> {
    sample::release(&manifest())
}

fn open(file: &[u8]) -> Result<Envelope, ReadError> {
    read(&mut Cursor::new(file), &keys())
}

#[test]
fn the_manifest_looks_like_this() {
    insta::assert_snapshot!(String::from_utf8(manifest().to_bytes().unwrap()).unwrap());
}

#[test]
fn a_good_file_is_read_with_either_key() {
    let bytes = manifest().to_bytes().unwrap();
    for pair in [0, 1] {
        let file = file(&bytes, &sign(pair, &bytes));
        let envelope = open(&file).unwrap();
        assert_eq!((envelope.manifest.clone(), envelope.length), (manifest(), file.len() as u64));
        assert_eq!(envelope.key, keys().ids()[pair]);
        envelope.check_image(&mut Cursor::new(&file)).unwrap();
    }
}

#[test]
fn a_damaged_image_is_found_by_its_digest() {
    let mut file = good();
    file[4999] ^= 1;
    let envelope = open(&file).unwrap();
    assert!(matches!(envelope.check_image(&mut Cursor::new(&file)), Err(ReadError::Image { .. })));
}

#[test]
fn a_stranger_s_release_is_refused_before_its_manifest_is_looked_at() {
    let stranger = KeyPair::generate_unencrypted_keypair().unwrap();
    let signature = minisign::sign(None, &stranger.sk, Cursor::new(b"{"), None, None).unwrap().into_string();
    let error = open(&file(b"{", &signature)).unwrap_err();
    assert!(matches!(error, ReadError::Signature(SignatureError::UnknownKey { .. })), "{error}");
}

#[test]
fn a_changed_manifest_is_refused() {
    let bytes = manifest().to_bytes().unwrap();
    let changed = Manifest { expires: "9999-01-01T00:00:00Z".parse().unwrap(), ..manifest() }.to_bytes().unwrap();
    let error = open(&file(&changed, &sign(0, &bytes))).unwrap_err();
    assert!(matches!(error, ReadError::Signature(SignatureError::Mismatch)), "{error}");
}

#[test]
fn a_file_that_was_cut_off_is_no_release() {
    let file = good();
    for length in [0, 1, 63, 64, 5000, file.len() - 1] {
        let error = open(&file[..length]).unwrap_err();
        assert!(matches!(error, ReadError::Trailer(TrailerError::NoMagic)), "{length}: {error}");
    }
}

#[test]
fn signed_nonsense_is_refused_with_the_field() {
    type Harm = fn(&mut Manifest);
    let cases: [(&str, Harm); 10] = [
        ("kubernetes", |m| m.kubernetes = "1.37.1".into()),
        ("build", |m| m.build = 4),
        ("verity.algorithm", |m| m.verity.algorithm = "sha1".into()),
        ("verity.data_block_size", |m| m.verity.data_block_size = 512),
        ("verity.hash_block_size", |m| m.verity.hash_block_size = 0),
        ("erofs.length", |m| m.erofs.length = 0),
        ("verity.data_blocks", |m| m.verity.data_blocks = 1),
        ("verity.hash_offset", |m| m.verity.hash_offset = 4096),
        ("minimum", |m| m.minimum = "1.37.2-4".parse().unwrap()),
        ("os.min", |m| m.os.min = 3),
    ];
    for (field, harm) in cases {
        let mut harmed = manifest();
        harm(&mut harmed);
        let bytes = harmed.to_bytes().unwrap();
        let error = open(&file(&bytes, &sign(0, &bytes))).unwrap_err();
        let ReadError::Manifest(ManifestError::Contradiction { field: found, .. }) = error else {
            panic!("{field}: {error}")
        };
        assert_eq!(found, field);
    }
}

#[test]
fn a_tree_that_does_not_end_at_the_manifest_is_refused() {
    let mut long = manifest();
    long.erofs.length = 129 * 4096;
    (long.verity.data_blocks, long.verity.hash_offset) = (129, 129 * 4096);
    let bytes = long.to_bytes().unwrap();
    let error = open(&file(&bytes, &sign(0, &bytes))).unwrap_err().to_string();
    assert_eq!(
        error,
        "the release's manifest contradicts the file: verity.hash_offset + the tree's length is 540672. Expected 12288"
    );
}

#[test]
fn a_later_format_asks_for_an_upgrade_whatever_else_it_holds() {
    let bytes = br#"{"format": 2, "erofs": "moved"}"#;
    let error = open(&file(bytes, &sign(0, bytes))).unwrap_err();
    assert!(matches!(error, ReadError::Manifest(ManifestError::Format(2))), "{error}");
}

#[test]
fn fields_of_the_future_are_ignored() {
    let text = String::from_utf8(manifest().to_bytes().unwrap()).unwrap();
    let text = text.replacen('{', "{\"later\": [1],", 1);
    assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), manifest());
}

#[test]
fn a_key_file_has_keys_and_comments_and_nothing_else() {
    let line = pairs()[0].pk.to_base64();
    let commented = format!("# first\n\nuntrusted comment: minisign public key\n  {line}  \n");
    assert_eq!(Keys::parse(&commented).unwrap().ids().len(), 1);
    assert_eq!(Keys::parse("# none\n").unwrap_err(), SignatureError::KeyCount { found: 0 });
    assert_eq!(Keys::parse(&format!("{line}\n{}", &line[1..])).unwrap_err(), SignatureError::BadKey { line: 2 });
    let many = format!("{line}\n").repeat(17);
    assert_eq!(Keys::parse(&many).unwrap_err(), SignatureError::KeyCount { found: 17 });
}

#[test]
fn a_release_is_staged_only_where_it_fits() {
    let here = rules::Here {
        now: "2027-01-01T00:00:00Z".parse().unwrap(),
        os: 1,
        running: "1.36.3-1".parse().unwrap(),
        floor: "1.36.0-0".parse().ok(),
    };
    assert_eq!(rules::stage(&manifest(), &here), []);
    assert_eq!(rules::stage(&manifest(), &rules::Here { now: manifest().expires, os: 2, ..here }), []);
    let bad = rules::Here {
        now: manifest().expires.plus_days(1),
        os: 3,
        running: "1.35.9-9".parse().unwrap(),
        floor: "1.38.0-0".parse().ok(),
    };
    let all: Vec<String> = rules::stage(&manifest(), &bad).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn an_expired_release_is_still_seated_and_one_for_another_os_or_below_the_floor_is_not() {
    let version = |text: &str| text.parse::<Version>().unwrap();
    assert_eq!(rules::seat(&manifest(), 2, None), []);
    assert_eq!(rules::seat(&manifest(), 2, Some(version("1.37.2-3"))), []);
    assert_eq!(rules::seat(&manifest(), 0, None).len(), 1);
    assert!(matches!(
        rules::seat(&manifest(), 2, Some(version("1.37.2-4")))[..],
        [rules::Refusal::BelowFloor { floor, .. }] if floor == version("1.37.2-4")
    ));
}

/// What another OS image could use is not the release's own fault: it may be a later one that this image can't read.
#[test]
fn only_what_no_machine_could_use_is_a_releases_own_fault() {
    let own = |file: &[u8]| open(file).unwrap_err().is_own_fault();
    let bytes = manifest().to_bytes().unwrap();
    let stranger = KeyPair::generate_unencrypted_keypair().unwrap();
    let by_stranger = minisign::sign(None, &stranger.sk, Cursor::new(&bytes), None, None).unwrap().into_string();
    let later_manifest = br#"{"format": 2}"#;
    let mut later_trailer = good();
    let format = later_trailer.len() - trailer::LENGTH + 16;
    later_trailer[format] = 2;
    assert!(!own(&file(&bytes, &by_stranger)), "signed with a key that another image may trust");
    assert!(!own(&file(later_manifest, &sign(0, later_manifest))), "a manifest of a later format");
    assert!(!own(&later_trailer), "a file of a later format");
    assert!(!ReadError::Io(std::io::ErrorKind::PermissionDenied.into()).is_own_fault(), "a disk in trouble");
    assert!(own(&file(b"{", &sign(0, b"{"))), "signed nonsense");
    assert!(own(&file(&bytes, &sign(0, b"another"))), "signed for another");
    assert!(own(&file(&bytes, "no signature")), "no signature");
    assert!(own(&good()[1..]), "a manifest that does not fit the file");
    assert!(own(b"no release"), "another kind of file");
}

proptest! {
    /// Whatever one byte after the image becomes, the file is refused. (Within image and tree dm-verity and
    /// `check_image` notice.) The first line of a signature is a comment that is not signed, by minisign's design.
    #[test]
    fn any_changed_byte_is_noticed(at in 0_usize..2000, change in 1..=u8::MAX) {
        let bytes = manifest().to_bytes().unwrap();
        let signature = sign(0, &bytes);
        let mut file = file(&bytes, &signature);
        let start = 3 * verity::BLOCK;
        let at = start + at % (file.len() - start);
        let comment = start + bytes.len();
        let unsigned = comment..comment + "untrusted comment: test".len();
        prop_assume!(!unsigned.contains(&at));
        file[at] ^= change;
        prop_assert!(open(&file).is_err());
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), file: u64) {
        let _ = Trailer::parse(&bytes, file);
        let _ = Manifest::parse(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = Keys::parse(&text);
        let _ = keys().verify(&bytes, &text);
        prop_assert!(open(&bytes).is_err());
    }

    /// Numbers at their limits neither overflow nor get past the checks.
    #[test]
    fn any_numbers_in_a_signed_manifest_are_survived(length: u64, blocks: u64, offset: u64, size: u64) {
        let mut harmed = manifest();
        harmed.erofs.length = length;
        harmed.verity.data_blocks = blocks;
        harmed.verity.hash_offset = offset;
        harmed.verity.data_block_size = size;
        let parsed = Manifest::parse(&harmed.to_bytes().unwrap());
        prop_assert!(parsed.is_err());
    }

    /// Nor do consistent ones of any size, for a file that is not that size.
    #[test]
    fn consistent_numbers_must_fit_the_file(length in 8193..u64::MAX) {
        let mut harmed = manifest();
        harmed.erofs.length = length;
        harmed.verity.data_blocks = length.div_ceil(4096);
        harmed.verity.hash_offset = harmed.verity.data_blocks.wrapping_mul(4096);
        let bytes = harmed.to_bytes().unwrap();
        let refused = match Manifest::parse(&bytes) {
            Err(_) => true,
            Ok(manifest) => {
                let extent = Extent { offset: 12288, length: 1000 };
                manifest.check_layout(&Trailer { manifest: extent, signature: extent }).is_err()
            }
        };
        prop_assert!(refused);
    }
}
