#![no_main]
//! What discovery reads from anybody: datagrams, and the bodies of those that were sealed. The first byte chooses. There
//! is one encoding of a body; and nobody without the fingerprint is answered or believed.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use kubeboot::discovery::{Answer, Answering, BODY, Key, Query, QueryBody};

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 21));

/// A body of the right length.
fn body(data: &[u8]) -> [u8; BODY] {
    let mut body = [0; BODY];
    let length = data.len().min(BODY);
    body[..length].copy_from_slice(&data[..length]);
    body
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    match choice % 4 {
        0 => {
            if let Ok(answer) = Answer::parse(&body(data)) {
                assert_eq!(answer.bytes(), body(data));
                let ip = answer.address.ip();
                assert!(!ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified());
            }
        }
        1 => {
            if let Ok(query) = QueryBody::parse(&body(data)) {
                assert_eq!(query.bytes(), body(data));
            }
        }
        2 => assert_eq!(Query::new(&Key::of(&[1; 16]), [2; 32]).open(data), None),
        _ => {
            let me = Answer { cluster: [3; 16], address: ([192, 0, 2, 10], 7440).into() };
            let mut answering = Answering::new(me, &[4; 32], &[5; 32]);
            assert_eq!(answering.answer(Duration::ZERO, FROM, data, &[6; 32]), None);
        }
    }
});
