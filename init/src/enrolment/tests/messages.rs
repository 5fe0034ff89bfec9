//! Every message is read back as it was written, and in no other way.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::world::bytes;
use crate::certificates::Authority;
use crate::enrolment::message::{
    Ask, Founded, Grant, Hello, Key, Message, Operator, Presented, Proof, Purpose, Refusal, Versions, WorkerProof,
    announced, most, prefix,
};
use crate::enrolment::statement::Statement;
use crate::enrolment::wire::Malformed;
use crate::mesh::MeshKey;
use crate::release::Version;
use crate::token::Joiner;

/// A message as bytes, after a look at whether they are read as that message.
fn written(message: &Message) -> Vec<u8> {
    let bytes = message.encode().unwrap().to_vec();
    let read = Message::decode(&bytes).map_err(|malformed| malformed.to_string()).unwrap();
    let same = match (message, &read) {
        (Message::Hello(one), Message::Hello(other)) => one == other,
        (Message::Proof(one), Message::Proof(other)) => one == other,
        (Message::Ask(one), Message::Ask(other)) => one == other,
        (Message::Operator(one), Message::Operator(other)) => one == other,
        (Message::Grant(one), Message::Grant(other)) => same_grant(one, other),
        (Message::Admitted, Message::Admitted) => true,
        (Message::Refusal(one), Message::Refusal(other)) => one == other,
        (Message::WorkerProof(one), Message::WorkerProof(other)) => one == other,
        _ => false,
    };
    assert!(same, "a {} is read as another {}", message.name(), read.name());
    bytes
}

/// A grant has no comparison of its own: nobody should compare secrets.
fn same_grant(one: &Grant, other: &Grant) -> bool {
    one.role == other.role
        && one.mesh_key.epoch == other.mesh_key.epoch
        && one.mesh_key.secret() == other.mesh_key.secret()
        && one.endpoints == other.endpoints
        && one.settings == other.settings
        && one.authorities == other.authorities
        && one.certificates == other.certificates
        && one.keys == other.keys
        && one.statement == other.statement
}

fn versions() -> impl Strategy<Value = Versions> {
    (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Versions { oldest: a.min(b), newest: a.max(b) })
}

fn signature() -> impl Strategy<Value = [u8; 64]> {
    (any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|pair| [pair.0, pair.1].concat().try_into().unwrap())
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
        .prop_map(|address| address.to_canonical())
}

fn release() -> impl Strategy<Value = Version> {
    any::<[u32; 4]>().prop_map(|[major, minor, patch, build]| Version { major, minor, patch, build })
}

fn purpose() -> impl Strategy<Value = Purpose> {
    prop::sample::select(&Purpose::ALL[..])
}

fn hello() -> impl Strategy<Value = Vec<u8>> {
    (versions(), purpose(), any::<[u8; 32]>(), any::<[u8; 16]>())
        .prop_map(|(versions, purpose, nonce, hint)| written(&Message::Hello(Hello { versions, purpose, nonce, hint })))
}

fn founded() -> impl Strategy<Value = Founded> {
    (any::<[u8; 16]>(), any::<u64>(), any::<[u8; 32]>(), any::<[u8; 32]>(), signature()).prop_map(
        |(id, founded, founding_key, identity_key, certificate)| Founded {
            id,
            founded,
            founding_key,
            identity_key,
            certificate,
        },
    )
}

fn statement() -> impl Strategy<Value = Statement> {
    let role = prop::sample::select(&[Joiner::Worker, Joiner::ControlPlane][..]);
    (role, "[!-~]{0,63}", any::<[u8; 32]>(), any::<u64>(), signature())
        .prop_map(|(role, name, key, not_after, signature)| Statement { role, name, key, not_after, signature })
}

fn workers_proof() -> impl Strategy<Value = Vec<u8>> {
    (versions(), any::<[u8; 32]>(), any::<u64>(), founded(), statement(), signature()).prop_map(
        |(versions, nonce, time, cluster, statement, signature)| {
            let proof = WorkerProof { versions, nonce, time, cluster, statement, signature };
            written(&Message::WorkerProof(proof))
        },
    )
}

fn proof() -> impl Strategy<Value = Vec<u8>> {
    (versions(), any::<[u8; 32]>(), any::<u64>(), founded(), signature()).prop_map(
        |(versions, nonce, time, cluster, signature)| {
            written(&Message::Proof(Proof { versions, nonce, time, cluster, signature }))
        },
    )
}

fn ask(request: usize) -> impl Strategy<Value = Vec<u8>> {
    let presented = (any::<[u8; 16]>(), signature()).prop_map(|(id, signature)| Presented { id, signature });
    let request = prop::collection::vec(any::<u8>(), 0..=request);
    (
        any::<u64>(),
        "[!-~]{0,63}",
        address(),
        release(),
        any::<[u8; 32]>(),
        [request.clone(), request.clone(), request.clone(), request],
        signature(),
        prop::option::of(presented),
    )
        .prop_map(|(time, name, address, release, node_key, requests, node_signature, token)| {
            let ask = Ask { time, name, address, release, node_key, requests, node_signature, token };
            written(&Message::Ask(ask))
        })
}

fn operator(size: usize) -> impl Strategy<Value = Vec<u8>> {
    let blob = prop::collection::vec(any::<u8>(), 0..=size);
    (blob.clone(), blob).prop_map(|(key, signature)| written(&Message::Operator(Operator { key, signature })))
}

fn grant(size: usize) -> impl Strategy<Value = Vec<u8>> {
    let text =
        move || prop::collection::vec(prop::char::ranges(vec!['\n'..='\n', ' '..='~', 'à'..='ü'].into()), 0..=size / 2);
    let text = move || text().prop_map(|characters| characters.into_iter().collect::<String>());
    let secret = prop::collection::vec(any::<u8>(), 0..=size).prop_map(Zeroizing::new);
    (
        prop::sample::select(&[Joiner::Worker, Joiner::ControlPlane][..]),
        (1..=u64::MAX, any::<[u8; 32]>()),
        prop::collection::vec((address(), any::<u16>()).prop_map(SocketAddr::from), 0..=16),
        text(),
        prop::sample::subsequence(&Authority::ALL[..], 0..=4),
        [text(), text(), text(), text(), text()],
        prop::sample::subsequence(&Key::ALL[..], 0..=7),
        secret,
        prop::option::of(statement()),
    )
        .prop_map(|(role, mesh_key, endpoints, settings, authorities, texts, keys, secret, statement)| {
            let [authority, certificates @ ..] = texts;
            written(&Message::Grant(Grant {
                role,
                mesh_key: MeshKey::new(mesh_key.0, Zeroizing::new(mesh_key.1)),
                endpoints,
                settings,
                authorities: authorities.into_iter().map(|one| (one, authority.clone())).collect(),
                certificates,
                keys: keys.into_iter().map(|key| (key, secret.clone())).collect(),
                statement,
            }))
        })
}

fn refusal() -> impl Strategy<Value = Vec<u8>> {
    let plain = [
        Refusal::OtherCluster,
        Refusal::Malformed,
        Refusal::NotAccepted,
        Refusal::WindowClosed,
        Refusal::NameTaken,
        Refusal::OtherNode,
        Refusal::Removed,
        Refusal::Address,
        Refusal::Clock,
        Refusal::Busy,
    ];
    prop_oneof![
        prop::sample::select(plain.to_vec()),
        versions().prop_map(Refusal::Versions),
        (release(), release()).prop_map(|(oldest, newest)| Refusal::Skew { oldest, newest }),
    ]
    .prop_map(|refusal| written(&Message::Refusal(refusal)))
}

/// The bytes of any message whose variable fields have at most so many bytes.
fn message(size: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        hello(),
        proof(),
        ask(size.min(1024)),
        operator(size.min(512)),
        grant(size),
        Just(written(&Message::Admitted)),
        refusal(),
        workers_proof()
    ]
}

/// What the bytes are read as, said as what it would be written as.
fn again(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    Message::decode(bytes).map(|message| message.encode().unwrap().to_vec())
}

proptest! {
    #[test]
    fn every_message_is_read_back(bytes in message(600)) {
        prop_assert_eq!(again(&bytes), Ok(bytes));
    }

    #[test]
    fn no_truncation_and_no_extension_is_a_message(bytes in message(20), more: u8) {
        for length in 0..bytes.len() {
            prop_assert!(Message::decode(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
        }
        let longer = [&bytes[..], &[more]].concat();
        prop_assert_eq!(Message::decode(&longer).err(), Some(Malformed::Trailing(1)));
    }

    /// There is one encoding: changed bytes are refused, or are another message's one encoding.
    #[test]
    fn what_is_read_was_written_the_one_way(mut bytes in message(40), at: prop::sample::Index, to: u8) {
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(written) = again(&bytes) {
            prop_assert_eq!(written, bytes);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(kind in 0u8..11, rest: Vec<u8>) {
        let bytes = [&[1, kind][..], &rest].concat();
        if let Ok(written) = again(&bytes) {
            prop_assert_eq!(written, bytes);
        }
    }
}

fn full_grant() -> Grant {
    let text = |size: usize| "x".repeat(size);
    Grant {
        role: Joiner::ControlPlane,
        mesh_key: MeshKey::new(1, Zeroizing::new(bytes("mesh"))),
        endpoints: vec!["[2001:db8::1]:6443".parse().unwrap(); 16],
        settings: text(8192),
        authorities: Authority::ALL.map(|one| (one, text(4096))).to_vec(),
        certificates: [text(4096), text(4096), text(4096), text(4096)],
        keys: Key::ALL.map(|key| (key, Zeroizing::new(vec![0; 4096]))).to_vec(),
        statement: Some(full_statement()),
    }
}

fn full_statement() -> Statement {
    let (name, key) = ("n".repeat(63), bytes("node"));
    Statement { role: Joiner::Worker, name, key, not_after: 1, signature: [0; 64] }
}

fn full_ask() -> Ask {
    Ask {
        time: 1,
        name: "n".repeat(63),
        address: "2001:db8::1".parse().unwrap(),
        release: "1.37.2-4".parse().unwrap(),
        node_key: bytes("node"),
        requests: [const { Vec::new() }; 4].map(|_: Vec<u8>| vec![0; 1024]),
        node_signature: [0; 64],
        token: Some(Presented { id: [0; 16], signature: [0; 64] }),
    }
}

/// A buffer that is allocated once never has to grow, and the specification's figures are the code's.
#[test]
fn the_longest_message_of_each_kind_is_as_long_as_is_said() {
    let sizes = [
        ("hello", most::HELLO),
        ("proof", most::PROOF),
        ("ask", most::ASK),
        ("operator", most::OPERATOR),
        ("grant", most::GRANT),
        ("refusal", most::REFUSAL),
        ("worker's proof", most::WORKER_PROOF),
    ];
    let length = |message: Message| message.encode().unwrap().len();
    assert_eq!(length(Message::Ask(full_ask())), most::ASK);
    assert_eq!(length(Message::Grant(full_grant())), most::GRANT);
    let cluster =
        Founded { id: [1; 16], founded: 1, founding_key: [2; 32], identity_key: [3; 32], certificate: [4; 64] };
    let (versions, nonce, time, statement, signature) = (Versions::OF_A_WORKER, [5; 32], 1, full_statement(), [6; 64]);
    let proof = WorkerProof { versions, nonce, time, cluster, statement, signature };
    assert_eq!(length(Message::WorkerProof(proof)), most::WORKER_PROOF);
    let blob = vec![0; 512];
    assert_eq!(length(Message::Operator(Operator { key: blob.clone(), signature: blob })), most::OPERATOR);
    let release = "1.37.2-4".parse().unwrap();
    assert_eq!(length(Message::Refusal(Refusal::Skew { oldest: release, newest: release })), most::REFUSAL);
    let document = include_str!("../../../../docs/enrolment.md");
    for (name, size) in sizes {
        let figure = format!("| `{name}` | {size} |");
        assert!(document.contains(&figure), "docs/enrolment.md lacks {figure:?}");
    }
}

#[test]
fn what_is_too_much_is_refused_by_the_side_that_writes_it() {
    let long = |field, most, found| Some(Malformed::Long { field, most, found });
    let ask = |change: fn(&mut Ask)| {
        let mut ask = full_ask();
        change(&mut ask);
        Message::Ask(ask).encode().err()
    };
    assert_eq!(ask(|ask| ask.name.push('n')), long("name", 63, 64));
    assert_eq!(ask(|ask| ask.requests[3].push(0)), long("certificate request", 1024, 1025));
    assert_eq!(ask(|ask| ask.name = "two words".into()), Some(Malformed::Form("name")));
    let grant = |change: fn(&mut Grant)| {
        let mut grant = full_grant();
        change(&mut grant);
        Message::Grant(grant).encode().err()
    };
    assert_eq!(grant(|grant| grant.endpoints.extend(grant.endpoints.clone())), long("list of endpoints", 16, 32));
    assert_eq!(grant(|grant| grant.settings = "x".repeat(70_000)), long("settings", 8192, 70_000));
    assert_eq!(grant(|grant| grant.settings = "\u{1b}[2J".into()), Some(Malformed::Form("settings")));
    assert_eq!(grant(|grant| grant.keys[0].1.extend([0])), long("key", 4096, 4097));
}

#[test]
fn lists_have_one_order_and_no_member_twice() {
    let refused = |change: fn(&mut Grant), field| {
        let mut grant = full_grant();
        change(&mut grant);
        let bytes = Message::Grant(grant).encode().unwrap();
        assert_eq!(Message::decode(&bytes).err(), Some(Malformed::Form(field)));
    };
    refused(|grant| grant.authorities.swap(0, 1), "list of authorities");
    refused(|grant| grant.authorities[1].0 = Authority::Cluster, "list of authorities");
    refused(|grant| grant.keys.swap(5, 6), "list of keys");
    refused(|grant| grant.keys[6].0 = Key::Encryption, "list of keys");
}

#[test]
fn an_address_has_one_spelling() {
    let mut ask = full_ask();
    ask.address = "::ffff:192.0.2.1".parse().unwrap();
    ask.name.clear();
    let bytes = Message::Ask(ask).encode().unwrap();
    // Behind form, kind, time and the empty name: family 4.
    assert_eq!(bytes[12..17], [4, 192, 0, 2, 1]);
    let mapped = [&bytes[..12], &[6], &[0; 10], &[255, 255, 192, 0, 2, 1], &bytes[17..]].concat();
    assert_eq!(Message::decode(&mapped).err(), Some(Malformed::Form("address")));
}

#[test]
fn no_more_is_read_than_may_come() {
    assert_eq!(announced(prefix(&[0; 53]), most::HELLO), Ok(53));
    let field = "message";
    assert_eq!(announced([0, 0, 0, 54], most::HELLO), Err(Malformed::Long { field, most: 53, found: 54 }));
    assert!(announced([255; 4], most::GRANT).is_err());
    assert!(announced([0, 0, 0, 1], 0).is_err());
}

#[test]
fn versions_agree_on_the_newest_that_both_speak() {
    let range = |oldest, newest| Versions { oldest, newest };
    assert_eq!(range(1, 3).agreed(range(2, 5)), Some(3));
    assert_eq!(range(2, 5).agreed(range(1, 3)), Some(3));
    assert_eq!(range(1, 1).agreed(range(2, 5)), None);
}
