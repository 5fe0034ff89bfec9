#![no_main]
//! Enrolment: messages, what a server makes of them, a worker's too, statements, ssh signatures, certificate requests. The
//! first byte chooses.

use kubeboot::certificates::{profile, signing_request};
use kubeboot::enrolment::decision::{Found, NodeRecord, Site};
use kubeboot::enrolment::joiner::{Credential, Joiner, Machine};
use kubeboot::enrolment::message::{Founded, Message};
use kubeboot::enrolment::operator::Operator;
use kubeboot::enrolment::server::{As, Effect, Event, Server, Setup};
use kubeboot::enrolment::statement::Statement;
use kubeboot::enrolment::{joiner, operator, ssh};
use kubeboot::plan::record::Cluster;
use kubeboot::token::{Joiner as Role, Seed, SigningKey, fingerprint};

const EXPORTER: [u8; 32] = [1; 32];
const NOW: u64 = 1_800_000_000;

fn founded(founding: &SigningKey, identity: &SigningKey) -> Founded {
    let record = Cluster::unsigned([1; 16], NOW, &founding.public(), &identity.public());
    Founded {
        id: [1; 16],
        founded: NOW,
        founding_key: founding.public(),
        identity_key: identity.public(),
        certificate: founding.sign(&record.certified()),
    }
}

/// Who serves, and whom.
#[derive(Clone, Copy, PartialEq)]
enum Serves {
    Joiner,
    Operator,
    OperatorAtWorker,
}

/// A server that has proven itself gets these bytes: whatever they are, it grants nothing that nobody signed for.
fn served(data: &[u8], who: Serves) {
    let (seed, identity, node) =
        (Seed::new([7; 16]), Seed::new([8; 16]).founding_key(), Seed::new([9; 16]).founding_key());
    let cluster = founded(&seed.founding_key(), &identity);
    let release = "1.37.2-4".parse().expect("a version");
    let site = Site { founded: NOW, oldest: release, newest: release, ranges: Vec::new() };
    let known = fingerprint(&identity.public());
    let (serves, key) = match who {
        Serves::OperatorAtWorker => {
            let address = [192, 0, 2, 21].into();
            let record = NodeRecord { name: "w-1".into(), role: Role::Worker, key: node.public(), address };
            (As::Worker(Some(Box::new(Statement::of(&[1; 16], &record, NOW, &identity)))), &node)
        }
        _ => (As::ControlPlane, &identity),
    };
    let mut server = Server::new(Setup { serves, cluster, site, exporter: EXPORTER, nonce: [2; 32] }, key);
    let hello = if who != Serves::Joiner {
        Operator::start(NOW, b"key".to_vec(), known, EXPORTER, [3; 32]).1
    } else {
        let requests = [const { Vec::new() }; 4];
        let machine = Machine { name: "w-1".into(), address: [192, 0, 2, 21].into(), release, requests };
        let token = Credential::Token(seed.join_token(Role::Worker));
        Joiner::start(machine, token, &node, EXPORTER, [3; 32]).1
    };
    assert!(matches!(&server.handle(NOW, Event::Message(&hello))[..], [Effect::Send(_)]));
    let mut effects = server.handle(NOW, Event::Message(data));
    if matches!(&effects[..], [Effect::Look(_)]) {
        effects = server.handle(NOW, Event::Found(Box::new(Found::default())));
    }
    for effect in &effects {
        match effect {
            Effect::Send(message) => assert!(matches!(Message::decode(message), Ok(Message::Refusal(_)))),
            Effect::Log(note) => assert!(!note.to_string().chars().any(char::is_control)),
            Effect::Close => {}
            _ => panic!("something was granted"),
        }
    }
    assert!(server.most() == 0 && server.handle(NOW, Event::Message(data)).is_empty());
}

/// A joiner gets these bytes as the answer to its hello: it believes nobody.
fn answered(data: &[u8]) {
    let node = Seed::new([9; 16]).founding_key();
    let requests = [const { Vec::new() }; 4];
    let release = "1.37.2-4".parse().expect("a version");
    let machine = Machine { name: "w-1".into(), address: [192, 0, 2, 21].into(), release, requests };
    let token = Credential::Token(Seed::new([7; 16]).join_token(Role::Worker));
    let (mut one, _) = Joiner::start(machine, token, &node, EXPORTER, [3; 32]);
    assert!(matches!(one.handle(NOW, &joiner::Event::Message(data)), joiner::Step::Failed(_)));
    // So does an operator, of a worker too: no key signs for these bytes.
    let known = fingerprint(&Seed::new([8; 16]).founding_key().public());
    let (mut one, _) = Operator::start(NOW, b"key".to_vec(), known, EXPORTER, [3; 32]);
    assert!(matches!(one.handle(&operator::Event::Message(data)), operator::Step::Failed(_)));
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    match choice % 8 {
        0 => {
            if let Ok(message) = Message::decode(data) {
                let again = message.encode().expect("what was read can be written");
                assert_eq!(again.as_slice(), data, "a second encoding");
            }
        }
        1 => served(data, Serves::Joiner),
        2 => served(data, Serves::Operator),
        3 => answered(data),
        4 => {
            let (key, signature) = data.split_at(data.len().min(51));
            assert!(ssh::verify(key, b"message", signature).is_err(), "a signature that nobody made");
        }
        6 => served(data, Serves::OperatorAtWorker),
        7 => {
            if let Ok(statement) = Statement::parse(data) {
                assert_eq!(statement.file().expect("what was read can be written"), data, "a second encoding");
                let identity = Seed::new([8; 16]).founding_key().public();
                assert!(statement.verify(&[1; 16], &identity, NOW).is_err(), "a statement that nobody signed");
            }
        }
        _ => {
            let [(_, client), ..] = profile::of_every_node("one", [192, 0, 2, 11].into(), &[7; 32]);
            if let Ok(key) = signing_request::check(data, &client) {
                assert_eq!(key.len(), 91);
            }
        }
    }
});
