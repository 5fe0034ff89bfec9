#![no_main]
//! Operators: frames, requests, answers, ssh keys in files and agents, known clusters, objects, redaction. The first byte
//! chooses.

use kubeboot::operators::exchange::{Asking, Event, Step, asked};
use kubeboot::operators::frame::{Frame, most};
use kubeboot::operators::key::OperatorLine;
use kubeboot::operators::key_file::FileKey;
use kubeboot::operators::known::Known;
use kubeboot::operators::objects::{OperatorObject, UserObject};
use kubeboot::operators::redact::{Redactor, redacted};
use kubeboot::operators::{Request, agent};
use kubeboot_fuzz::readable;

fn frame(data: &[u8]) {
    if let Ok(frame) = Frame::decode(data) {
        let again = frame.encode().expect("what was read can be written");
        match frame {
            Frame::Failed(_) => assert_eq!(Frame::decode(&again), Ok(frame), "a trouble is cut once"),
            _ => assert_eq!(again, data, "a second encoding"),
        }
    }
}

/// Whatever a request is: it is good or refused with a fix, and what is logged of it drives no terminal.
fn request(data: &[u8]) {
    match asked(&[&[1, 1], data].concat()) {
        Ok(request) => {
            assert_eq!(request.check(), Ok(()));
            assert!(!request.to_string().chars().any(char::is_control));
            assert_eq!(Request::read(&request.text()), Ok(request));
        }
        Err(trouble) => {
            assert!(trouble.exit == 2 && !trouble.fix.is_empty());
            readable(&trouble.block().line());
        }
    }
}

/// Frames one behind the other, each after its length in one byte: never more than was to be taken.
fn answers(mut data: &[u8]) {
    const MOST: u64 = 64;
    let Ok((mut asking, _)) = Asking::start(&Request::UserList {}, MOST) else { return };
    let mut taken = 0;
    while let Some((length, rest)) = data.split_first() {
        let (message, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        data = rest;
        match asking.handle(&Event::Message(message)) {
            Step::Part(part) => taken += part.len() as u64,
            Step::Failed(trouble) => {
                let text = trouble.block().line();
                assert!(!text.chars().any(char::is_control));
            }
            _ => {}
        }
        assert!(taken <= MOST && asking.most() <= most::ANSWER);
    }
}

fn objects(data: &[u8]) {
    let Ok(value) = serde_json::from_slice(data) else { return };
    if let Ok(operator) = OperatorObject::read(&value) {
        assert_eq!(OperatorObject::read(&operator.object()), Ok(operator));
    }
    if let Ok(user) = UserObject::read(&value) {
        assert_eq!(UserObject::read(&user.object()), Ok(user));
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(data);
    match choice % 8 {
        0 => frame(data),
        1 => request(data),
        2 => answers(data),
        3 => {
            if let Ok(key) = FileKey::parse(&text) {
                let signature = key.sign(b"message");
                assert!(!signature.is_empty() && !key.public().is_empty());
            }
        }
        4 => {
            let _ = agent::keys(data);
            let _ = agent::signature(data);
        }
        5 => {
            if let Ok(line) = OperatorLine::parse(&text) {
                assert_eq!(OperatorLine::parse(&line.text()), Ok(line));
            }
            if let Ok(known) = Known::parse(&text) {
                assert_eq!(Known::parse(&known.text()), Ok(known));
            }
        }
        6 => objects(data),
        _ => {
            let cut = data.len() / 2;
            let (mut one, mut two) = (Redactor::default(), Redactor::default());
            let whole = [one.take(data), one.end()].concat();
            let parts = [two.take(&data[..cut]), two.take(&data[cut..]), two.end()].concat();
            assert_eq!(whole, parts, "how it is cut changes what is taken out");
            let _ = redacted(&text);
        }
    }
});
