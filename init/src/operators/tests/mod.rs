//! Frames, requests, keys, known clusters, users, redaction: what is read is what was written, and nothing else is.

mod frames;
mod keys;
mod rules;

use std::io::{Read, Write};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::agent;
use super::key_file::FileKey;
use crate::enrolment::ssh::{Fields, strings};

const KIND: &[u8] = b"ssh-ed25519";

fn pair(number: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap()
}

/// A person's public key, by number, as a line of `authorized_keys`.
pub(crate) fn public_line(number: u8, comment: &str) -> String {
    let key = strings(&[KIND, pair(number).public_key().as_ref()]);
    format!("ssh-ed25519 {} {comment}", STANDARD.encode(key)).trim_end().to_owned()
}

/// The blob of a private key's file: `PROTOCOL.key`.
fn blob(number: u8, cipher: &[u8], count: u32) -> Vec<u8> {
    let half = pair(number).public_key().as_ref().to_vec();
    let both = [&[number; 32][..], &half].concat();
    let mut private = [&[7; 8][..], &strings(&[KIND, &half, &both, b"a comment"])].concat();
    private.extend((1..).take(private.len().next_multiple_of(8) - private.len()));
    let public = strings(&[KIND, &half]);
    [b"openssh-key-v1\0", &strings(&[cipher, b"none", b""])[..], &count.to_be_bytes(), &strings(&[&public, &private])]
        .concat()
}

fn armoured(blob: &[u8]) -> String {
    let encoded = STANDARD.encode(blob);
    let lines: Vec<&str> = encoded.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n", lines.join("\n"))
}

/// A person's private key, by number, as `ssh-keygen` writes it.
pub(crate) fn private_key(number: u8) -> String {
    armoured(&blob(number, b"none", 1))
}

/// ssh-agent, for one connection: it holds the keys of these people.
pub(crate) fn agent(mut stream: impl Read + Write, numbers: &[u8]) {
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut message = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut message).unwrap();
        let answer = answer(&message, numbers);
        stream.write_all(&strings(&[&answer])).unwrap();
    }
}

fn answer(message: &[u8], numbers: &[u8]) -> Vec<u8> {
    let keys = numbers.iter().map(|number| FileKey::parse(&private_key(*number)).unwrap());
    if message == agent::identities() {
        let rsa = strings(&[&strings(&[b"ssh-rsa", b"e", b"n"]), b"of a kind that is not taken"]);
        let listed: Vec<u8> = keys.flat_map(|key| strings(&[key.public(), b"comment"])).collect();
        let count = u32::try_from(numbers.len() + 1).unwrap().to_be_bytes();
        return [&[12][..], &count, &rsa, &listed].concat();
    }
    let mut fields = Fields(&message[1..]);
    let (key, data) = (fields.string().unwrap(), fields.string().unwrap());
    assert_eq!((message[0], fields.0), (13, &[0; 4][..]));
    match keys.into_iter().find(|held| held.public() == key) {
        Some(held) => [&[14][..], &strings(&[&held.sign(data)])].concat(),
        None => vec![5],
    }
}
