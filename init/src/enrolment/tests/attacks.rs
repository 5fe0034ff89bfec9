//! Who sits on the network: relays, reflects, replays, cuts, changes, poses. Each is refused, and each by the check that
//! is meant for it.
//!
//! An attacker with two TLS connections is two exporters. Where both sides have the same one, it is for the sake of the
//! argument: then TLS itself is broken, and what is shown is that the transcript holds on its own.

use std::net::IpAddr;

use proptest::prelude::*;
use rcgen::SanType;

use super::world::*;
use crate::certificates::profile::{self, Request};
use crate::certificates::sample::signing_request;
use crate::enrolment::failure::{Failure, Impostor};
use crate::enrolment::joiner::{Credential, Joiner};
use crate::enrolment::message::{Ask, Hello, Message, Proof, Purpose, Refusal, Versions, prefix};
use crate::enrolment::note::Outcome;
use crate::enrolment::reason::{Reason, TokenFault};
use crate::enrolment::server::{Event, Server, Setup};
use crate::enrolment::transcript::{Exporter, Label, Transcript, hint};
use crate::plan::record::Cluster;
use crate::token::{Joiner as Role, SECRET, fingerprint};

/// Runs an honest `w-1` with the founding window's worker token against whoever has the wire.
pub fn attempt(world: &mut World, exporters: (&str, &str), wire: Wire<'_>) -> Ended {
    let token = Credential::Token(world.seed.join_token(Role::Worker));
    let exporters = (bytes(exporters.0), bytes(exporters.1));
    Attempt { exporters, ..Attempt::new(machine("w-1", 21), token, key(21), wire) }.run(world)
}

/// What an honest attempt says, message by message.
pub fn recorded(world: &mut World, exporter: &str) -> Vec<(Way, Vec<u8>)> {
    let ended = attempt(world, (exporter, exporter), &mut honest);
    assert!(ended.joiner.is_ok());
    world.nodes.retain(|node| node.name != "w-1");
    ended.sent
}

/// A server of the world's cluster on a connection, which was sent these messages; why it refused.
fn told(world: &mut World, exporter: &str, messages: &[&[u8]]) -> Option<Reason> {
    let identity = world.identity();
    let mut server = Server::new(world.setup(bytes(exporter)), &identity);
    let mut notes = Vec::new();
    for message in messages {
        notes.extend(world.serve(&mut server, Event::Message(message)).notes);
    }
    assert!(notes.len() <= 1, "an exchange ends once");
    match notes.pop()?.outcome {
        Outcome::Refused(reason) => Some(reason),
        Outcome::Admitted => None,
    }
}

/// A hello with something changed.
pub fn with_hello(message: &[u8], change: impl FnOnce(&mut Hello)) -> Vec<u8> {
    let Message::Hello(mut hello) = decode(message) else { panic!("no hello") };
    change(&mut hello);
    Message::Hello(hello).encode().unwrap().to_vec()
}

/// A proof with something changed.
pub fn with_proof(message: &[u8], change: impl FnOnce(&mut Proof)) -> Vec<u8> {
    let Message::Proof(mut proof) = decode(message) else { panic!("no proof") };
    change(&mut proof);
    Message::Proof(proof).encode().unwrap().to_vec()
}

/// A request with something changed.
pub fn with_ask(message: &[u8], change: impl FnOnce(&mut Ask)) -> Vec<u8> {
    let Message::Ask(mut ask) = decode(message) else { panic!("no request") };
    change(&mut ask);
    Message::Ask(ask).encode().unwrap().to_vec()
}

/// The wire of who changes the n-th message on the one way.
pub fn changing(
    way: Way,
    turn: usize,
    change: impl Fn(&[u8]) -> Vec<u8>,
) -> impl FnMut(Way, usize, Vec<u8>) -> Option<Vec<u8>> {
    move |on, at, message| Some(if (on, at) == (way, turn) { change(&message) } else { message })
}

#[test]
fn a_relay_between_two_connections_learns_nothing_and_is_noticed_by_both() {
    let mut world = World::new();
    let ended = attempt(&mut world, ("joiner's", "server's"), &mut honest);
    assert_eq!(ended.failure(), &Failure::Unproven(Refusal::OtherCluster));
    assert_eq!(ended.notes[0].outcome, Outcome::Refused(Reason::OtherCluster));
    // The server said that it will not speak, and nothing of the cluster.
    let (_, answer) = &ended.sent[1];
    assert_eq!(answer.len(), 3);
}

/// A relay that knows the fingerprint, because it holds a token of the same kind, makes the hint right on its own
/// connection. Then the signature is for the wrong one.
#[test]
fn a_relay_that_knows_the_fingerprint_can_not_pass_on_the_servers_proof() {
    let mut world = World::new();
    let known = *world.seed.join_token(Role::Worker).fingerprint();
    let mut wire =
        changing(Way::ToServer, 0, |hello| with_hello(hello, |hello| hello.hint = hint(&known, &bytes("server's"))));
    let ended = attempt(&mut world, ("joiner's", "server's"), &mut wire);
    assert_eq!(ended.failure(), &Failure::Impostor(Impostor::Signature));
    assert_eq!(ended.sent.iter().filter(|(way, _)| *way == Way::ToServer).count(), 1, "the joiner sent its hello only");
    assert!(ended.notes.is_empty() && world.nodes.len() == 1);
}

/// Were a joiner's request got hold of by other means, it is good on its own connection only.
#[test]
fn a_request_from_another_connection_is_refused() {
    let mut world = World::new();
    let known = *world.seed.join_token(Role::Worker).fingerprint();
    let said = recorded(&mut world, "joiner's");
    let hello = with_hello(&said[0].1, |hello| hello.hint = hint(&known, &bytes("server's")));
    assert_eq!(told(&mut world, "server's", &[&hello, &said[2].1]), Some(Reason::NodeSignature));
    // With a node key of the attacker's own the node's signature is right, and the token's is not.
    let identity = world.identity();
    let mut server = Server::new(world.setup(bytes("server's")), &identity);
    let proof = world.serve(&mut server, Event::Message(&hello)).sent.remove(0);
    let stolen = signed_anew(&said[2].1, &hello, &proof, &bytes("server's"));
    let notes = world.serve(&mut server, Event::Message(&stolen)).notes;
    assert_eq!(notes[0].outcome, Outcome::Refused(Reason::Token(TokenFault::Signature)));
}

/// A request with the attacker's node key and a right signature by it, and the token's signature as it was.
pub fn signed_anew(ask: &[u8], hello: &[u8], proof: &[u8], exporter: &Exporter) -> Vec<u8> {
    let attacker = key(66);
    let draft = with_ask(ask, |ask| ask.node_key = attacker.public());
    let Message::Ask(parsed) = decode(&draft) else { panic!("no request") };
    let mut transcript = Transcript::new();
    transcript.add(hello);
    transcript.add(proof);
    let label = Label::Node(Purpose::Join(Role::Worker));
    let signed = transcript.signed(parsed.signed_part(&draft), label, exporter);
    with_ask(&draft, |ask| ask.node_signature = attacker.sign(&signed))
}

#[test]
fn what_a_side_said_is_no_answer_to_it() {
    let mut world = World::new();
    // The joiner's own hello comes back to it.
    let mut said = Vec::new();
    let mut wire = |way, _, message: Vec<u8>| {
        if way == Way::ToServer {
            said = message.clone();
        }
        Some(if way == Way::ToJoiner { said.clone() } else { message })
    };
    let ended = attempt(&mut world, ("tls", "tls"), &mut wire);
    assert_eq!(ended.failure(), &Failure::Unexpected { expected: "proof", found: "hello" });
    // The server's own proof comes back to it, as a message and as signatures.
    let said = recorded(&mut world, "tls");
    let (hello, proof, ask) = (&said[0].1, &said[1].1, &said[2].1);
    assert_eq!(told(&mut world, "tls", &[hello, proof]), Some(Reason::Unexpected { expected: "ask", found: "proof" }));
    let Message::Proof(own) = decode(proof) else { panic!("no proof") };
    let reflected = with_ask(ask, |ask| {
        ask.node_key = own.cluster.identity_key;
        ask.node_signature = own.signature;
    });
    assert_eq!(told(&mut world, "tls", &[hello, &reflected]), Some(Reason::NodeSignature));
    let reflected = with_ask(ask, |ask| ask.token.as_mut().unwrap().signature = own.signature);
    assert_eq!(told(&mut world, "tls", &[hello, &reflected]), Some(Reason::Token(TokenFault::Signature)));
    // The node's signature does not serve as the token's, nor the other way round.
    let swapped = with_ask(ask, |ask| {
        std::mem::swap(&mut ask.node_signature, &mut ask.token.as_mut().unwrap().signature);
    });
    assert_eq!(told(&mut world, "tls", &[hello, &swapped]), Some(Reason::NodeSignature));
    let twice = with_ask(ask, |ask| ask.token.as_mut().unwrap().signature = ask.node_signature);
    assert_eq!(told(&mut world, "tls", &[hello, &twice]), Some(Reason::Token(TokenFault::Signature)));
}

#[test]
fn a_role_is_not_changed_on_the_way_nor_by_who_holds_the_token() {
    let mut world = World::new();
    for purpose in [Purpose::Join(Role::ControlPlane), Purpose::Return, Purpose::Operate] {
        let mut wire = changing(Way::ToServer, 0, |hello| with_hello(hello, |hello| hello.purpose = purpose));
        let ended = attempt(&mut world, ("tls", "tls"), &mut wire);
        assert_eq!(ended.failure(), &Failure::Impostor(Impostor::Signature), "{purpose:?}");
    }
    // A worker's signatures under a control plane's hello.
    let said = recorded(&mut world, "tls");
    let hello = with_hello(&said[0].1, |hello| hello.purpose = Purpose::Join(Role::ControlPlane));
    assert_eq!(told(&mut world, "tls", &[&hello, &said[2].1]), Some(Reason::NodeSignature));
    let hello = with_hello(&said[0].1, |hello| hello.purpose = Purpose::Return);
    assert_eq!(told(&mut world, "tls", &[&hello, &said[2].1]), Some(Reason::Form));
    let hello = with_hello(&said[0].1, |hello| hello.purpose = Purpose::Operate);
    let unexpected = Reason::Unexpected { expected: "an operator's key", found: "ask" };
    assert_eq!(told(&mut world, "tls", &[&hello, &said[2].1]), Some(unexpected));
}

/// Who holds a worker's token may write his own joiner that signs as a control plane with the worker's key.
#[test]
fn a_workers_key_that_signs_as_a_control_plane_is_refused() {
    let mut world = World::new();
    let token = world.seed.join_token(Role::Worker);
    let said = recorded(&mut world, "tls");
    let hello = with_hello(&said[0].1, |hello| hello.purpose = Purpose::Join(Role::ControlPlane));
    let identity = world.identity();
    let mut server = Server::new(world.setup(bytes("tls")), &identity);
    let proof = world.serve(&mut server, Event::Message(&hello)).sent.remove(0);
    let mut transcript = Transcript::new();
    transcript.add(&hello);
    transcript.add(&proof);
    let Message::Ask(ask) = decode(&said[2].1) else { panic!("no request") };
    let part = ask.signed_part(&said[2].1);
    let signed = |label| transcript.signed(part, label, &bytes("tls"));
    let forged = with_ask(&said[2].1, |ask| {
        ask.node_signature = key(21).sign(&signed(Label::Node(Purpose::Join(Role::ControlPlane))));
        ask.token.as_mut().unwrap().signature = token.join_key().sign(&signed(Label::Token(Role::ControlPlane)));
    });
    let notes = world.serve(&mut server, Event::Message(&forged)).notes;
    assert_eq!(notes[0].outcome, Outcome::Refused(Reason::Token(TokenFault::Kind(Role::Worker))));
}

#[test]
fn messages_out_of_turn_and_cut_messages_end_the_exchange() {
    let mut world = World::new();
    let said = recorded(&mut world, "tls");
    let (hello, proof, ask) = (&said[0].1[..], &said[1].1[..], &said[2].1[..]);
    let unexpected = |expected, found| Some(Reason::Unexpected { expected, found });
    assert_eq!(told(&mut world, "tls", &[ask]), unexpected("hello", "ask"));
    assert_eq!(told(&mut world, "tls", &[hello, hello]), unexpected("ask", "hello"));
    assert_eq!(told(&mut world, "tls", &[proof]), unexpected("hello", "proof"));
    // What comes after the end is not looked at.
    assert_eq!(told(&mut world, "tls", &[ask, hello, ask]), unexpected("hello", "ask"));
    assert_eq!(world.nodes.len(), 1);
    for (turn, length) in [(0, 1), (0, 40), (0, proof.len() - 1)] {
        let mut wire = changing(Way::ToJoiner, turn, |message| message[..length].to_vec());
        let ended = attempt(&mut world, ("tls", "tls"), &mut wire);
        assert!(matches!(ended.failure(), Failure::Nonsense(_)), "{:?}", ended.failure());
    }
    let mut wire = changing(Way::ToServer, 0, |message| [&prefix(message)[..], message].concat());
    assert!(matches!(attempt(&mut world, ("tls", "tls"), &mut wire).failure(), Failure::Unproven(Refusal::Malformed)));
    let mut wire = |way, turn, message| ((way, turn) != (Way::ToJoiner, 1)).then_some(message);
    assert_eq!(attempt(&mut world, ("tls", "tls"), &mut wire).failure(), &Failure::Ended { proven: true });
}

#[test]
fn a_session_can_not_be_played_again() {
    let mut world = World::new();
    let said = recorded(&mut world, "then");
    let (hello, proof, ask) = (said[0].1.clone(), said[1].1.clone(), said[2].1.clone());
    // To the server, on a new connection: already the hello is for the old one.
    assert_eq!(told(&mut world, "now", &[&hello, &ask]), Some(Reason::OtherCluster));
    // Even were the exporter the same, the server's nonce is not.
    let identity = world.identity();
    let setup = Setup { nonce: bytes("another"), ..world.setup(bytes("then")) };
    let mut server = Server::new(setup, &identity);
    world.serve(&mut server, Event::Message(&hello));
    let notes = world.serve(&mut server, Event::Message(&ask)).notes;
    assert_eq!(notes[0].outcome, Outcome::Refused(Reason::NodeSignature));
    // To the joiner: the old proof, on a new connection, and on the old one against the joiner's new nonce.
    for (exporter, nonce) in [("now", "joiner"), ("then", "another")] {
        let token = Credential::Token(world.seed.join_token(Role::Worker));
        let mut wire = changing(Way::ToJoiner, 0, |_| proof.clone());
        let exporters = (bytes(exporter), bytes(exporter));
        let fresh = Attempt::new(machine("w-1", 21), token, key(21), &mut wire);
        let ended = Attempt { exporters, nonce: bytes(nonce), ..fresh }.run(&mut world);
        assert_eq!(ended.failure(), &Failure::Impostor(Impostor::Signature), "{exporter}");
    }
}

/// Certificate requests by the node key of a machine of this name and address that are another's: each with its place among
/// the four. They are those of another worker and of a control plane, an administrator's, and such with a further or another
/// name: a foreign address, a URI, the API server's name, the loopback's, the Service's.
pub(crate) fn requests_of_others(name: &str, address: IpAddr, node_key: &[u8; 32]) -> Vec<(usize, Vec<u8>)> {
    let own = profile::of_every_node(name, address, node_key);
    let of = |name: &str, number: u8| profile::of_every_node(name, [192, 0, 2, number].into(), node_key);
    let plain = |request: &Request| signing_request(request, |_| {});
    let [(_, client), (_, serving), ..] = &own;
    let names =
        |change: &dyn Fn(&mut Vec<SanType>)| signing_request(serving, |params| change(&mut params.subject_alt_names));
    let address = |text: &str| SanType::IpAddress(text.parse().unwrap());
    vec![
        (0, plain(&of("w-2", 22)[0].1)),
        (0, plain(&of("cp-1", 10)[0].1)),
        (0, plain(&Request { organizations: vec!["system:masters".into()], ..client.clone() })),
        (1, plain(&of("cp-1", 10)[1].1)),
        (1, names(&|names| names.push(address("192.0.2.10")))),
        (1, names(&|names| names.push(SanType::URI("spiffe://cluster/admin".try_into().unwrap())))),
        (1, names(&|names| names.push(SanType::DnsName("kubernetes.default.svc".try_into().unwrap())))),
        (1, names(&|names| names[1] = address("127.0.0.1"))),
        (1, names(&|names| names[1] = address("10.96.0.1"))),
    ]
}

/// Who has a token and asks for certificates that are another's gets none at all, and takes no use of it.
#[test]
fn a_token_gets_no_certificate_for_anothers_name_or_address() {
    let mut world = World::new();
    for (place, request) in requests_of_others("w-1", machine("w-1", 21).address, &key(21).public()) {
        let mut liar = machine("w-1", 21);
        liar.requests[place] = request;
        let token = Credential::Token(world.seed.join_token(Role::Worker));
        let ended = Attempt::new(liar, token, key(21), &mut honest).run(&mut world);
        let Outcome::Refused(reason @ Reason::Request(_)) = &ended.notes[0].outcome else {
            panic!("request {place} was answered: {:?}", ended.notes);
        };
        assert!(ended.joiner.is_err() && world.nodes.iter().all(|node| node.name != "w-1"));
        assert!(reason.to_string().starts_with("its certificate request is not what it may ask for: "), "{reason}");
    }
    let token = world.seed.join_token(Role::Worker);
    assert!(join(&mut world, "w-1", 21, token).joiner.is_ok(), "the honest one is not kept out");
}

/// Who holds a worker's token knows the fingerprint and the join key; and, having joined once, the cluster's record.
#[test]
fn a_rogue_server_with_a_worker_token_can_not_pose_as_the_cluster() {
    let mut world = World::new();
    let rogue = key(66);
    let sign = |hello: &[u8], proof: &mut Proof| {
        let draft = Message::Proof(proof.clone()).encode().unwrap();
        let mut transcript = Transcript::new();
        transcript.add(hello);
        proof.signature = rogue.sign(&transcript.signed(Proof::signed_part(&draft), Label::Server, &bytes("tls")));
    };
    type Change<'a> = &'a dyn Fn(&mut Proof);
    let attacks: [(&str, Change<'_>, Impostor); 4] = [
        ("the cluster's record, by a key of its own", &|_| {}, Impostor::Signature),
        (
            "an identity that no founder certified",
            &|proof| proof.cluster.identity_key = rogue.public(),
            Impostor::Certificate,
        ),
        (
            "a cluster of its own",
            &|proof| {
                let (cluster, public) = (&mut proof.cluster, rogue.public());
                let record = Cluster::unsigned(cluster.id, cluster.founded, &public, &public);
                cluster.founding_key = public;
                cluster.identity_key = public;
                cluster.certificate = rogue.sign(&record.certified());
            },
            Impostor::Fingerprint,
        ),
        ("another founding", &|proof| proof.cluster.founded += 1, Impostor::Certificate),
    ];
    for (what, change, expected) in attacks {
        let mut heard = Vec::new();
        let mut wire = |way, _, message: Vec<u8>| match way {
            Way::ToServer => {
                heard = message.clone();
                Some(message)
            }
            Way::ToJoiner => Some(with_proof(&message, |proof| {
                change(proof);
                sign(&heard, proof);
            })),
        };
        let ended = attempt(&mut world, ("tls", "tls"), &mut wire);
        assert_eq!(ended.failure(), &Failure::Impostor(expected), "{what}");
        let heard: Vec<_> = ended.sent.iter().filter(|(way, _)| *way == Way::ToServer).collect();
        assert_eq!(heard.len(), 1, "{what}: the joiner said more than hello");
        let token = world.seed.join_token(Role::Worker);
        for secret in [&fingerprint(&token.join_key().public()), token.fingerprint()] {
            assert!(!heard[0].1.windows(SECRET).any(|part| part == secret), "{what}: the hello tells the token");
        }
    }
}

/// As in the design: who knows the seed can pose to a machine that still boots with a token of it, and to no other.
#[test]
fn a_seed_poses_to_tokens_of_the_seed_only() {
    let mut real = World::new();
    let later = real.create(Role::Worker, 9, NOW + HOUR, Some(1));
    let (thief, seeds) = (key(66), real.seed.founding_key());
    let mut posing = World::new();
    let record = Cluster::unsigned([9; 16], NOW, &seeds.public(), &thief.public());
    posing.cluster.id = [9; 16];
    posing.cluster.founded = NOW;
    posing.cluster.identity_key = thief.public();
    posing.cluster.certificate = seeds.sign(&record.certified());
    for (token, believed) in [(real.seed.join_token(Role::Worker), true), (later, false)] {
        let mut server = Server::new(posing.setup(bytes("tls")), &thief);
        let (machine, node) = (machine("w-1", 21), key(21));
        let credential = Credential::Token(token);
        let (_, hello) = Joiner::start(machine, credential, &node, bytes("tls"), bytes("n"));
        let answer = posing.serve(&mut server, Event::Message(&hello)).sent.remove(0);
        assert_eq!(matches!(decode(&answer), Message::Proof(_)), believed);
    }
}

#[test]
fn a_version_is_not_talked_down() {
    let mut world = World::new();
    let both = Versions { oldest: 1, newest: 2 };
    let run = |world: &mut World, versions, wire: Wire<'_>| {
        let token = Credential::Token(world.seed.join_token(Role::Worker));
        Attempt { versions, ..Attempt::new(machine("w-1", 21), token, key(21), wire) }.run(world)
    };
    let mut lower = changing(Way::ToServer, 0, |hello| with_hello(hello, |hello| hello.versions.newest = 1));
    assert_eq!(run(&mut world, (both, both), &mut lower).failure(), &Failure::Impostor(Impostor::Signature));
    let mut lower = changing(Way::ToJoiner, 0, |proof| with_proof(proof, |proof| proof.versions.newest = 1));
    assert_eq!(run(&mut world, (both, both), &mut lower).failure(), &Failure::Impostor(Impostor::Signature));
    // Without a common version the server says so, and a proof that claims another is not believed either.
    let later = Versions { oldest: 3, newest: 4 };
    let ended = run(&mut world, (later, Versions::SPOKEN), &mut honest);
    assert_eq!(ended.failure(), &Failure::Unproven(Refusal::Versions(Versions::SPOKEN)));
    assert_eq!(ended.notes[0].outcome, Outcome::Refused(Reason::Versions { ours: Versions::SPOKEN, theirs: later }));
    let mut raise = changing(Way::ToServer, 0, |hello| with_hello(hello, |hello| hello.versions = both));
    let ended = run(&mut world, (later, Versions::SPOKEN), &mut raise);
    assert_eq!(ended.failure(), &Failure::Unproven(Refusal::Versions(Versions::SPOKEN)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is changed in what is signed, even on one and the same connection: nobody joins.
    #[test]
    fn no_changed_byte_before_the_grant_goes_unnoticed(turn in 0usize..3, at: prop::sample::Index, by in 1u8..) {
        let mut world = World::new();
        let place = [(Way::ToServer, 0), (Way::ToJoiner, 0), (Way::ToServer, 1)][turn];
        let mut wire = |way, turn, mut message: Vec<u8>| {
            if (way, turn) == place {
                let at = at.index(message.len());
                message[at] ^= by;
            }
            Some(message)
        };
        let ended = attempt(&mut world, ("tls", "tls"), &mut wire);
        prop_assert!(ended.joiner.is_err() && !ended.admitted() && world.nodes.len() == 1, "{}", ended.logged());
    }
}
