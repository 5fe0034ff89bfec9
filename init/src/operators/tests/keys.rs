//! ssh keys in files and agents, and lines of them.

use proptest::prelude::*;

use super::*;
use crate::enrolment::ssh;
use crate::operators::agent::{Useless, identities, keys, sign, signature};
use crate::operators::key::OperatorLine;
use crate::operators::key_file::Unusable;

/// Made with `ssh-keygen -t ed25519 -N '' -C test` for this test, and used nowhere.
const MADE: &str = include_str!("made_by_ssh_keygen");
const MADE_PUBLIC: &str = include_str!("made_by_ssh_keygen.pub");
const ENCRYPTED: &str = include_str!("made_by_ssh_keygen_with_passphrase");

#[test]
fn what_ssh_keygen_writes_is_read_and_signs() {
    let line = OperatorLine::parse(MADE_PUBLIC).unwrap();
    let key = FileKey::parse(MADE).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(key.public(), line.key);
    assert_eq!((line.kind, line.comment.as_str()), ("ssh-ed25519", "test"));
    assert_eq!(line.text(), MADE_PUBLIC.trim_end());
    // As an operator's key signs: the wrapping of what is said.
    let message = b"what was said";
    assert_eq!(ssh::verify(key.public(), message, &key.sign(&ssh::wrapped(message))), Ok(()));
    match FileKey::parse(ENCRYPTED).err().unwrap() {
        Unusable::Encrypted(public) => assert!(ssh::kind(&public).is_ok()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_is_not_whole_or_not_of_one_key_is_refused() {
    assert!(FileKey::parse(&private_key(1)).is_ok());
    let whole = blob(1, b"none", 1);
    for length in 0..whole.len() {
        assert!(FileKey::parse(&armoured(&whole[..length])).is_err(), "{length}");
    }
    assert!(matches!(FileKey::parse(&armoured(&blob(1, b"none", 2))), Err(Unusable::Form)));
    assert!(matches!(FileKey::parse(&armoured(&blob(1, b"aes256-ctr", 1))), Err(Unusable::Encrypted(_))));
    assert!(matches!(FileKey::parse(""), Err(Unusable::Form)));
    assert!(matches!(FileKey::parse(&"x".repeat(20_000)), Err(Unusable::Form)));
    // The public half of another's: it would sign what nobody takes.
    let mixed = [&whole[..whole.len() / 3], &blob(2, b"none", 1)[whole.len() / 3..]].concat();
    assert!(FileKey::parse(&armoured(&mixed)).is_err());
}

#[test]
fn a_line_is_a_key_of_a_kind_that_is_taken_and_says_its_own() {
    let line = public_line(1, "ada  at\u{7} home");
    assert_eq!(OperatorLine::parse(&line).unwrap().comment, "ada at home");
    let fido = strings(&[b"sk-ssh-ed25519@openssh.com", &[1; 32], b"ssh:"]);
    let fido = format!("sk-ssh-ed25519@openssh.com {}", STANDARD.encode(fido));
    assert_eq!(OperatorLine::parse(&fido).unwrap().kind, "sk-ssh-ed25519@openssh.com");
    for bad in [
        "",
        "ssh-ed25519",
        "ssh-ed25519 ???",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB bob",
        &line.replace("ssh-ed25519 ", "ecdsa-sha2-nistp256 "),
        &format!("command=\"x\" {line}"),
        &line[..40],
        &"x ".repeat(2000),
    ] {
        assert!(OperatorLine::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_agent_is_believed_only_what_is_an_answer() {
    let held = answer(&identities(), &[1, 2]);
    let found = keys(&held).unwrap();
    assert_eq!(found.len(), 2, "the RSA key is passed over");
    let signed = answer(&sign(&found[0], b"message"), &[1, 2]);
    assert!(signature(&signed).is_ok());
    assert_eq!(signature(&answer(&sign(&found[0], b"message"), &[2])), Err(Useless::Refused));
    assert_eq!(keys(&signed), Err(Useless::Nonsense));
    for length in 1..held.len() {
        assert_eq!(keys(&held[..length]), Err(Useless::Nonsense), "{length}");
    }
    // It announces more keys than it has.
    assert_eq!(keys(&[12, 255, 255, 255, 255]), Err(Useless::Nonsense));
}

proptest! {
    #[test]
    fn no_file_line_or_answer_makes_it_panic(bytes: Vec<u8>, text: String) {
        let _ = FileKey::parse(&text);
        let _ = FileKey::parse(&armoured(&[b"openssh-key-v1\0", &bytes[..]].concat()));
        let _ = OperatorLine::parse(&text);
        let _ = OperatorLine::parse(&format!("ssh-ed25519 {}", STANDARD.encode(&bytes)));
        let _ = keys(&[&[12][..], &bytes].concat());
        let _ = signature(&[&[14][..], &bytes].concat());
    }

    /// Whatever is changed in a file: what it still is, is the same key.
    #[test]
    fn a_changed_file_is_no_other_key(at: prop::sample::Index, byte: u8) {
        let mut changed = blob(1, b"none", 1);
        let at = at.index(changed.len());
        changed[at] = byte;
        if let Ok(key) = FileKey::parse(&armoured(&changed)) {
            let own = FileKey::parse(&private_key(1)).map_err(|_| ()).unwrap();
            prop_assert_eq!(key.public(), own.public());
        }
    }
}
