use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

const MESSAGE: &[u8] = b"what the two sides said";

/// What `ssh-keygen -Y sign -n enrolment-1@kubeboot` made of [`MESSAGE`] by keys that were made for this test and
/// deleted: the key's fingerprint by `ssh-keygen -l`, and the signature file without its armour.
const MADE: [(&str, &str); 3] = [
    (
        "SHA256:OkQFFFnPCN9n1K25UUbPl/hqbjv/o41Lv5AWOdm/I0E",
        "U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgSo/zDm/Ha1EIPnOHdqN4Z8KgVPhzQYXV+c0UPZdQxRsAAAAUZW5yb2xtZW50LTFAa3ViZWJvb3QAAAAAAAAABnNoYTUxMgAAAFMAAAALc3NoLWVkMjU1MTkAAABA1Wy/EpTCE+Syop4mJmgZDs1CIEkSwWH1VADwVDDQSVf6PmdSpFqVSJPq9vO043X1w7Gj9L7Ax9D69LaWDEo2Dw==",
    ),
    (
        "SHA256:nlnFsC2zN/9+Ku2NEdcR8zg7HNs5Ec2sfulA0+XYGb0",
        "U1NIU0lHAAAAAQAAAGgAAAATZWNkc2Etc2hhMi1uaXN0cDI1NgAAAAhuaXN0cDI1NgAAAEEEasPRWCF2czInLGaMufoPlR2AtQ1KHE+tHAEIP94whKD+XMn39JvaLJ2o0+93zYmNKkLzpSk9NSFt5f0PfOlcWgAAABRlbnJvbG1lbnQtMUBrdWJlYm9vdAAAAAAAAAAGc2hhNTEyAAAAYwAAABNlY2RzYS1zaGEyLW5pc3RwMjU2AAAASAAAACBnHeYrozsInjCAfOTclO/ZZbgWfNO0p4gHkRD7kCBTPgAAACAm056qHAoOf0dDwEXB2DdhvHsoH2h6+42LHN/F6Ecmdg==",
    ),
    (
        "SHA256:lz9T7/S05S9dCz/su3ITghVfYaFBGdURi6KgXPqD2nQ",
        "U1NIU0lHAAAAAQAAAIgAAAATZWNkc2Etc2hhMi1uaXN0cDM4NAAAAAhuaXN0cDM4NAAAAGEEK+clRMmnls4KP37HcIFCskSNL4nqPWbhhe/6KSAAgMJy7EQv8j+o5RqV/7QYdA7J/yoXsGich1ZtMXdbvmY7ougxVbR2/RnWiLxsCpOhMSaDD92oAPlrdCBNe2teh7ywAAAAFGVucm9sbWVudC0xQGt1YmVib290AAAAAAAAAAZzaGE1MTIAAACDAAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAABoAAAAMB5Atz9gR3v+CaW3jF7FeUxNsRwcvBOzn8xgnWTFFif3Vmz76Ivk6sJPqEXCsZE0XQAAADB391Fi453nI7spzvNkljHMZgCSWuxlf6CaeIMRGcVbs7uf/lnHjT0HA3wWl414RYQ=",
    ),
];

/// Key and signature, each in wire form, of a signature file (`PROTOCOL.sshsig`, "Blob format").
fn made(file: &str) -> (Vec<u8>, Vec<u8>) {
    let bytes = STANDARD.decode(file).unwrap();
    let mut fields = Fields(bytes.strip_prefix(b"SSHSIG\0\0\0\x01").unwrap());
    let key = fields.string().unwrap().to_vec();
    assert_eq!(fields.string(), Some(NAMESPACE.as_bytes()));
    assert_eq!((fields.string(), fields.string()), (Some(&b""[..]), Some(&b"sha512"[..])));
    (key, fields.last().unwrap().to_vec())
}

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&u32::try_from(part.len()).unwrap().to_be_bytes(), *part].concat()).collect()
}

/// A FIDO token's key and signature, made as `PROTOCOL.u2f` says.
fn fido(flags: u8, counter: u32, message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
    let kind = b"sk-ssh-ed25519@openssh.com";
    let sha = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes);
    let told = [&[flags][..], &counter.to_be_bytes()].concat();
    let covered = [sha(b"ssh:").as_ref(), &told, sha(&wrapped(message)).as_ref()].concat();
    let key = strings(&[kind, pair.public_key().as_ref(), b"ssh:"]);
    (key, [strings(&[kind, pair.sign(&covered).as_ref()]), told].concat())
}

#[test]
fn what_ssh_keygen_signs_is_verified() {
    for (printed, file) in MADE {
        let (key, signature) = made(file);
        assert_eq!(fingerprint(&key), printed);
        assert_eq!(verify(&key, MESSAGE, &signature), Ok(()), "{printed}");
        assert_eq!(verify(&key, b"another message", &signature), Err(SshFault::Wrong));
    }
}

#[test]
fn a_fido_key_signs_when_somebody_touched_it() {
    let (key, signature) = fido(1, 7, MESSAGE);
    assert_eq!(verify(&key, MESSAGE, &signature), Ok(()));
    let (_, untouched) = fido(0, 8, MESSAGE);
    assert_eq!(verify(&key, MESSAGE, &untouched), Err(SshFault::NotPresent));
    let mut claimed = untouched;
    let flags = claimed.len() - 5;
    claimed[flags] = 1;
    assert_eq!(verify(&key, MESSAGE, &claimed), Err(SshFault::Wrong));
    let mut counted = signature.clone();
    *counted.last_mut().unwrap() += 1;
    assert_eq!(verify(&key, MESSAGE, &counted), Err(SshFault::Wrong));
    assert_eq!(verify(&key, MESSAGE, &signature[..signature.len() - 1]), Err(SshFault::Form));
}

/// A login (RFC 4252 §7) is signed without SSHSIG's wrapping, and so is nothing here.
#[test]
fn a_plain_signature_over_the_message_is_none() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
    let key = strings(&[b"ssh-ed25519", pair.public_key().as_ref()]);
    let sign = |message: &[u8]| strings(&[b"ssh-ed25519", pair.sign(message).as_ref()]);
    assert_eq!(verify(&key, MESSAGE, &sign(MESSAGE)), Err(SshFault::Wrong));
    assert_eq!(verify(&key, MESSAGE, &sign(&wrapped(MESSAGE))), Ok(()));
}

#[test]
fn other_kinds_and_mixed_kinds_are_refused() {
    let (ed25519, signature) = made(MADE[0].1);
    let (ecdsa, other) = made(MADE[1].1);
    assert_eq!(verify(&ed25519, MESSAGE, &other), Err(SshFault::Form));
    assert_eq!(verify(&ecdsa, MESSAGE, &signature), Err(SshFault::Form));
    let rsa = strings(&[b"ssh-rsa", b"\x01\x00\x01", b"n"]);
    assert_eq!(verify(&rsa, MESSAGE, &strings(&[b"ssh-rsa", b"s"])), Err(SshFault::Kind));
    assert_eq!(verify(b"", MESSAGE, &signature), Err(SshFault::Key));
    assert_eq!(verify(&[&ed25519[..], b"\0"].concat(), MESSAGE, &signature), Err(SshFault::Key));
    assert_eq!(verify(&ed25519, MESSAGE, &[&signature[..], b"\0"].concat()), Err(SshFault::Form));
}

#[test]
fn numbers_have_one_spelling() {
    let pair = |r: &[u8], s: &[u8]| fixed::<4>(&strings(&[r, s]));
    assert_eq!(pair(&[1], &[0, 0x80, 0]), Some(vec![0, 0, 0, 1, 0, 0, 0x80, 0]));
    assert_eq!(pair(&[1, 2, 3, 4], &[0, 0xff, 2, 3, 4]), Some(vec![1, 2, 3, 4, 0xff, 2, 3, 4]));
    for bad in [&[][..], &[0], &[0, 1], &[0x80], &[1, 2, 3, 4, 5], &[0, 0, 0x80]] {
        assert_eq!(pair(bad, &[1]), None, "{bad:?}");
        assert_eq!(pair(&[1], bad), None, "{bad:?}");
    }
    assert_eq!(fixed::<4>(&strings(&[&[1], &[1], &[1]])), None);
}

proptest! {
    #[test]
    fn no_changed_byte_of_a_signature_or_key_is_good(which in 0usize..4, at: prop::sample::Index, to: u8, of_key: bool) {
        let (mut key, mut signature) = if which < 3 { made(MADE[which].1) } else { fido(1, 7, MESSAGE) };
        let changed = if of_key { &mut key } else { &mut signature };
        let at = at.index(changed.len());
        prop_assume!(changed[at] != to);
        changed[at] = to;
        prop_assert!(verify(&key, MESSAGE, &signature).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(key: Vec<u8>, signature: Vec<u8>) {
        prop_assert!(verify(&key, MESSAGE, &signature).is_err());
        let key = strings(&[b"sk-ssh-ed25519@openssh.com", &key]);
        prop_assert!(verify(&key, MESSAGE, &strings(&[b"sk-ssh-ed25519@openssh.com", &signature])).is_err());
    }
}
