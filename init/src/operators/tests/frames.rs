//! Frames and requests.

use std::time::Duration;

use proptest::prelude::*;

use crate::certificates::DAY;
use crate::enrolment::Malformed;
use crate::exit::Exit;
use crate::operators::exchange::{Asking, Broken, Event, Step, asked, parts};
use crate::operators::frame::{Frame, most};
use crate::operators::request::{Admits, Bytes, LONGEST, LONGEST_DRAIN, LONGEST_OPERATOR};
use crate::operators::user::{Role, Wanted};
use crate::operators::{Request, SESSION, Trouble};

fn every() -> Vec<Request> {
    let user = Wanted {
        name: "bob".into(),
        groups: vec!["dev".into()],
        ttl: 30 * DAY,
        role: Role::ClusterAdmin,
        namespace: Some("shop".into()),
        reserved: false,
    };
    vec![
        Request::Kubeconfig { certificate_request: Bytes(vec![48; 300]), ttl: DAY },
        Request::Status { why: true, json: false },
        Request::Logs { unit: Some("kubelet.service".into()), follow: true, lines: 10 },
        Request::SupportBundle {},
        Request::TokenCreate { role: Admits::ControlPlane, key: Bytes(vec![7; 32]), ttl: DAY, uses: Some(1) },
        Request::TokenList {},
        Request::TokenRevoke { id: "3f9a1c0b7e".into() },
        Request::OperatorAdd { key: super::public_line(1, "ada") },
        Request::OperatorRemove { key: "SHA256:5C+RSPN3nlxuQnSYrL963odKVePs0jLcRwhfsuwNN18".into(), last: true },
        Request::OperatorList {},
        Request::UserCreate { user, certificate_request: Bytes(vec![48; 300]) },
        Request::UserList {},
        Request::UserRevoke { name: "bob".into() },
        Request::Members {},
        Request::NodeRemove { name: "w-7".into(), drain: Some(300) },
        Request::NodeRemove { name: "w-7".into(), drain: None },
    ]
}

#[test]
fn every_request_arrives_as_it_was_meant() {
    let mut seen = String::new();
    for request in every() {
        let (_, frame) = Asking::start(&request, 0).unwrap();
        assert_eq!(asked(&frame), Ok(request.clone()));
        // What is not known is not left out.
        let mut value: serde_json::Value = serde_json::from_slice(&request.text()).unwrap();
        value["more"] = serde_json::json!(1);
        let more = Frame::Request(value.to_string().into_bytes()).encode().unwrap();
        assert_eq!(asked(&more).unwrap_err().exit, Exit::BadInput.code(), "{value}");
        for length in 0..frame.len() {
            assert!(asked(&frame[..length]).is_err(), "{request:?} cut to {length}");
        }
        seen += &format!("{request}\n{}\n", String::from_utf8(request.text()).unwrap());
    }
    insta::assert_snapshot!(seen);
}

#[test]
fn what_is_out_of_bounds_is_refused_with_a_fix() {
    let token = |role, uses, ttl, key| Request::TokenCreate { role, key: Bytes(vec![7; key]), ttl, uses };
    let remove = |name: &str, drain| Request::NodeRemove { name: name.to_owned(), drain };
    let logs = |unit: &str, lines| Request::Logs { unit: Some(unit.to_owned()), follow: false, lines };
    let bad = [
        Request::Kubeconfig { certificate_request: Bytes(vec![48; 1025]), ttl: DAY },
        Request::Kubeconfig { certificate_request: Bytes(vec![48]), ttl: LONGEST_OPERATOR + 1 },
        Request::Kubeconfig { certificate_request: Bytes(vec![48]), ttl: 0 },
        token(Admits::Worker, None, LONGEST + 1, 32),
        token(Admits::Worker, Some(0), DAY, 32),
        token(Admits::Worker, Some(10_001), DAY, 32),
        token(Admits::ControlPlane, None, DAY, 32),
        token(Admits::ControlPlane, Some(2), DAY, 32),
        token(Admits::Worker, None, DAY, 31),
        logs("-f", 1),
        logs("kubelet", 1_000_001),
        Request::TokenRevoke { id: "3F9A1C0B7E".into() },
        Request::OperatorAdd { key: "ssh-rsa AAAA bob".into() },
        Request::OperatorRemove { key: "x".repeat(2049), last: false },
        Request::UserRevoke { name: "../bob".into() },
        remove("../w-7", None),
        remove("w-7", Some(0)),
        remove("w-7", Some(LONGEST_DRAIN + 1)),
    ];
    for request in bad {
        let trouble = request.check().unwrap_err();
        assert!(
            trouble.exit == 2 && !trouble.fix[0].is_empty() && trouble.state == "Nothing was changed.",
            "{request:?}"
        );
    }
}

#[test]
fn a_connection_lasts_as_long_as_what_it_carries() {
    for request in every() {
        let more = match request {
            Request::NodeRemove { drain: Some(seconds), .. } => seconds,
            _ => 0,
        };
        assert_eq!(request.session(), SESSION + Duration::from_secs(more), "{request}");
    }
}

#[test]
fn who_asks_takes_parts_up_to_a_bound_and_one_end() {
    let start = |most| Asking::start(&Request::UserList {}, most).unwrap().0;
    let data = |length: usize| Frame::Data(vec![b'x'; length]).encode().unwrap();
    let mut asking = start(5);
    assert_eq!(asking.most(), most::ANSWER);
    assert_eq!(asking.handle(&Event::Message(&data(3))), Step::Part(b"xxx".to_vec()));
    assert_eq!(asking.handle(&Event::Message(&data(0))), Step::Part(Vec::new()));
    assert_eq!(asking.handle(&Event::Message(&data(2))), Step::Part(b"xx".to_vec()));
    assert_eq!(asking.handle(&Event::Message(&data(1))), Step::Broken(Broken::Long(5)));
    assert_eq!((asking.most(), asking.handle(&Event::Message(&data(1)))), (0, Step::Broken(Broken::Ended)));

    let mut done = start(5);
    assert_eq!(done.handle(&Event::Message(&Frame::Done(6).encode().unwrap())), Step::Done(6));
    assert_eq!(done.handle(&Event::Closed), Step::Broken(Broken::Ended));
    let trouble = Trouble::new(Exit::Failure, "what", "why", "fix");
    let failed = Frame::Failed(trouble.clone()).encode().unwrap();
    assert_eq!(start(5).handle(&Event::Message(&failed)), Step::Failed(trouble));
    let request = Frame::Request(b"{}".to_vec()).encode().unwrap();
    assert_eq!(start(5).handle(&Event::Message(&request)), Step::Broken(Broken::Unexpected("request")));
    assert_eq!(start(5).handle(&Event::TimedOut), Step::Broken(Broken::TimedOut));
    assert_eq!(start(5).handle(&Event::Closed), Step::Broken(Broken::Ended));
}

#[test]
fn frames_are_no_longer_than_their_kind_may_be() {
    assert!(Frame::Data(vec![0; most::DATA_BODY]).encode().is_ok());
    let long = Frame::Data(vec![0; most::DATA_BODY + 1]).encode();
    assert!(matches!(long, Err(Malformed::Long { most: most::DATA, .. })));
    let request = [&[1, 1][..], &vec![b' '; most::REQUEST - 1]].concat();
    assert!(matches!(Frame::decode(&request), Err(Malformed::Long { most: most::REQUEST, .. })));
    assert!(Frame::decode(&[1, 3]).is_err() && Frame::decode(&[1, 3, 0, 0]).is_err());
    // However long its texts are, a trouble arrives.
    let endless = "ü".repeat(5000);
    let trouble = Trouble { why: vec![endless.clone(); 20], ..Trouble::new(Exit::Failure, &endless, "why", "fix") };
    let cut = Frame::decode(&Frame::Failed(trouble).encode().unwrap_or_default());
    assert!(matches!(cut, Ok(Frame::Failed(_))), "{cut:?}");
}

proptest! {
    #[test]
    fn an_answer_arrives_whole(bytes in prop::collection::vec(any::<u8>(), 0..100_000)) {
        let (mut asking, _) = Asking::start(&Request::SupportBundle {}, 100_000).unwrap();
        let mut got = Vec::new();
        for frame in parts(&bytes) {
            match asking.handle(&Event::Message(&frame.encode().unwrap())) {
                Step::Part(part) => got.extend(part),
                step => prop_assert!(false, "{step:?}"),
            }
        }
        prop_assert_eq!(got, bytes);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = Frame::decode(&bytes);
        let _ = asked(&[&[1, 1][..], &bytes].concat());
        if let Ok(frame) = Frame::decode(&bytes) && !matches!(frame, Frame::Failed(_)) {
            prop_assert_eq!(frame.encode(), Ok(bytes));
        }
    }

    #[test]
    fn what_is_logged_of_a_request_drives_no_terminal(text: String) {
        for request in [
            Request::OperatorRemove { key: text.clone(), last: false },
            Request::Logs { unit: Some(text.clone()), follow: false, lines: 1 },
            Request::UserRevoke { name: text.clone() },
        ] {
            prop_assert!(!request.to_string().chars().any(char::is_control));
        }
    }
}
