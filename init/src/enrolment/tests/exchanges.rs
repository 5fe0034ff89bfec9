//! How honest exchanges end: what is given, what is written down, and what is never sent.

use super::attacks::{attempt, changing, recorded};
use super::world::*;
use crate::enrolment::decision::{Found, Sought};
use crate::enrolment::failure::Failure;
use crate::enrolment::joiner::Credential;
use crate::enrolment::message::{Grant, Message, Refusal};
use crate::enrolment::note::Outcome;
use crate::enrolment::reason::{Reason, TokenFault};
use crate::enrolment::server::{Effect, Event, Server, Taken};
use crate::plan::record::Cluster;
use crate::token::{Joiner as Role, Kind, SECRET, Seed, Token};

#[test]
fn an_honest_exchange_takes_two_round_trips_and_gives_each_role_what_it_needs() {
    let mut world = World::new();
    for (role, name, number, keys) in [(Role::Worker, "w-1", 21, 0), (Role::ControlPlane, "cp-2", 22, 7)] {
        let token = world.seed.join_token(role);
        let ended = join(&mut world, name, number, token);
        assert_eq!(ended.sent.len(), 4, "two messages each way");
        assert!(ended.admitted());
        let enrolled = ended.joiner.unwrap();
        assert_eq!(enrolled.grant.keys.len(), keys, "{name}");
        assert!(enrolled.cluster.is_identity(&world.cluster.identity_key));
        // The record is whole: it is what the node keeps on disk.
        let text = enrolled.cluster.text();
        assert_eq!(Cluster::parse(text.as_bytes()), Ok(enrolled.cluster));
        assert_eq!(world.nodes.last().unwrap().name, name);
    }
}

#[test]
fn a_removed_node_comes_back_neither_by_its_key_nor_with_a_token() {
    let mut world = World::new();
    let token = world.seed.join_token(Role::Worker);
    assert!(join(&mut world, "w-1", 21, token.clone()).joiner.is_ok());
    assert!(come_back(&mut world, "w-1", 21).joiner.is_ok());
    world.nodes.retain(|node| node.name != "w-1");
    world.removed.push(key(21).public());
    for ended in [come_back(&mut world, "w-1", 21), join(&mut world, "w-1", 21, token.clone())] {
        assert!(matches!(ended.failure(), Failure::Refused { refusal: Refusal::Removed, .. }));
        assert_eq!(ended.notes[0].outcome, Outcome::Refused(Reason::Removed));
    }
    // The name is free for a new machine.
    assert!(join(&mut world, "w-1", 23, token).joiner.is_ok());
}

/// A machine that lost its grant on the way asks again, and a use is taken once.
#[test]
fn an_exchange_that_was_cut_is_repeated_without_a_second_use() {
    let mut world = World::new();
    let token = world.create(Role::ControlPlane, 9, NOW + HOUR, Some(1));
    let mut wire = |way, turn, message| ((way, turn) != (Way::ToJoiner, 1)).then_some(message);
    let credential = Credential::Token(token.clone());
    let ended = Attempt::new(machine("cp-2", 22), credential, key(22), &mut wire).run(&mut world);
    assert_eq!(ended.failure(), &Failure::Ended { proven: true });
    assert_eq!(world.tokens.last().unwrap().uses_left, Some(0));
    assert!(join(&mut world, "cp-2", 22, token.clone()).joiner.is_ok());
    let other = join(&mut world, "cp-3", 23, token);
    assert_eq!(other.notes[0].outcome, Outcome::Refused(Reason::Token(TokenFault::UsedUp)));
}

/// Two control planes serve the last use at once: the second writes nothing, looks again, and refuses.
#[test]
fn who_loses_the_race_for_a_use_decides_anew_a_few_times() {
    let mut world = World::new();
    let token = world.seed.join_token(Role::Worker);
    world.conflicts = 3;
    let ended = join(&mut world, "w-1", 21, token.clone());
    assert!(ended.joiner.is_ok());
    assert_eq!(world.count("look"), 4);
    world.conflicts = 9;
    let ended = join(&mut world, "w-2", 22, token);
    assert!(matches!(ended.failure(), Failure::Refused { refusal: Refusal::Busy, .. }));
    assert_eq!(ended.notes[0].outcome, Outcome::Refused(Reason::Contended));
    assert_eq!(world.conflicts, 5);
}

#[test]
fn a_worker_is_never_sent_a_control_planes_keys() {
    let mut world = World::new();
    let said = recorded(&mut world, "tls");
    let identity = world.identity();
    let mut server = Server::new(world.setup(bytes("tls")), &identity);
    world.serve(&mut server, Event::Message(&said[0].1));
    // The host carries the effects out, up to the grant, which it gets wrong.
    server.handle(NOW, Event::Message(&said[2].1));
    let found = world.look(&Sought {
        token: Some(world.tokens[0].id()),
        name: "w-1".into(),
        node_key: key(21).public(),
        address: [192, 0, 2, 21].into(),
    });
    server.handle(NOW, Event::Found(Box::new(found)));
    let effects = server.handle(NOW, Event::Taken(Taken::Done));
    let [Effect::Issue { certificates, .. }] = &effects[..] else { panic!("no issue") };
    let mut wrong = world.grant(&node("w-1", Role::ControlPlane, 21), certificates);
    wrong.role = Role::Worker;
    let effects = server.handle(NOW, Event::Issued(Box::new(wrong)));
    let sent = effects.iter().find_map(|effect| match effect {
        Effect::Send(message) => Some(message.to_vec()),
        _ => None,
    });
    assert!(matches!(decode(&sent.unwrap()), Message::Refusal(Refusal::Busy)));
}

/// The joiner looks at what it was given: a grant with another's certificate, authority or role is refused.
#[test]
fn a_grant_that_is_not_for_this_machine_is_refused() {
    let mut world = World::new();
    let with_grant = |message: &[u8], change: &dyn Fn(&mut Grant)| {
        let Message::Grant(mut grant) = decode(message) else { panic!("no grant") };
        change(&mut grant);
        Message::Grant(grant).encode().unwrap().to_vec()
    };
    let other = recorded(&mut world, "tls").pop().unwrap().1;
    let Message::Grant(other) = decode(&other) else { panic!("no grant") };
    type Change<'a> = &'a dyn Fn(&mut Grant);
    let changes: [(Change<'_>, &str); 5] = [
        (&|grant| grant.certificates[0] = other.certificates[0].clone(), "kubelet-client: it is for another key"),
        (&|grant| grant.certificates.swap(0, 1), "kubelet-client: it is for another key"),
        (
            &|grant| grant.authorities[0].1 = grant.authorities[1].1.clone(),
            "kubelet-client: not signed by this cluster's authority",
        ),
        (&|grant| grant.role = Role::ControlPlane, "it is not what a machine of this role gets"),
        (&|grant| grant.endpoints.clear(), "it is not what a machine of this role gets"),
    ];
    for (change, expected) in changes {
        let mut wire = changing(Way::ToJoiner, 1, |message| with_grant(message, change));
        let ended = attempt(&mut world, ("tls", "tls"), &mut wire);
        assert_eq!(ended.failure(), &Failure::BadGrant(expected.to_owned()));
        world.nodes.retain(|node| node.name != "w-1");
    }
}

#[test]
fn a_token_of_another_kind_is_refused_before_anything_is_sent() {
    let seed = Seed::new([7; SECRET]);
    let worker = || Token::Join(seed.join_token(Role::Worker));
    assert!(Credential::of(Role::Worker, worker()).is_ok());
    let failed = |role, token| Credential::of(role, token).err();
    let (role, found) = (Role::ControlPlane, Kind::Worker);
    assert_eq!(failed(role, worker()), Some(Failure::TokenKind { role, found }));
    assert_eq!(failed(role, Token::Seed(seed.clone())), Some(Failure::TokenKind { role, found: Kind::Seed }));
}

/// A look-up that answers with somebody else's records makes nobody a node.
#[test]
fn a_record_is_what_its_key_says() {
    let mut world = World::new();
    let said = recorded(&mut world, "tls");
    let others = [
        Found { keyed: Some(node("w-1", Role::Worker, 22)), ..Found::default() },
        Found { token: Some(world.tokens[1].clone()), ..Found::default() },
    ];
    for found in others {
        let identity = world.identity();
        let mut server = Server::new(world.setup(bytes("tls")), &identity);
        world.serve(&mut server, Event::Message(&said[0].1));
        server.handle(NOW, Event::Message(&said[2].1));
        let effects = server.handle(NOW, Event::Found(Box::new(found)));
        let [Effect::Log(note), Effect::Send(_), Effect::Close] = &effects[..] else { panic!("not refused") };
        assert_eq!(note.outcome, Outcome::Refused(Reason::Token(TokenFault::Unknown)));
    }
}
