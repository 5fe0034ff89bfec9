//! A worker and an operator: the cluster's word about the worker, who may use it, and as what.

use super::world::*;
use crate::certificates::DAY;
use crate::certificates::expiry::Standing;
use crate::enrolment::failure::{Failure, Impostor};
use crate::enrolment::joiner::{Credential, Joiner};
use crate::enrolment::message::{Message, Purpose, Refusal, Versions, WorkerProof};
use crate::enrolment::note::Outcome;
use crate::enrolment::operator::{self, Operator, Peer};
use crate::enrolment::reason::Reason;
use crate::enrolment::server::{As, Event, Server};
use crate::enrolment::ssh::strings;
use crate::enrolment::statement::{Fault, LIFE, Statement};
use crate::enrolment::transcript::hint;
use crate::token::{Joiner as Role, SigningKey, fingerprint};

/// The node key of the worker that is meant here, by its number.
const WORKER: u8 = 21;

fn stated(world: &World, number: u8, role: Role) -> Statement {
    Statement::of(&world.cluster.id, &node("w-1", role, number), NOW, &key(8))
}

fn of_the_worker(world: &World) -> Statement {
    stated(world, WORKER, Role::Worker)
}

/// An operator's key: what it signs is looked at elsewhere.
fn ssh_key() -> Vec<u8> {
    strings(&[b"ssh-ed25519", &[7; 32]])
}

fn operator(world: &World, exporter: &str) -> (Operator, Vec<u8>) {
    let known = fingerprint(&world.cluster.identity_key);
    Operator::start(NOW, ssh_key(), known, bytes(exporter), bytes("operator"))
}

/// What a machine with that node key and statement says to a hello on a connection, and what its log says.
fn served(
    world: &World,
    exporter: &str,
    key: &SigningKey,
    statement: Option<Statement>,
    hello: &[u8],
) -> (Vec<u8>, Reason) {
    let serves = As::Worker(statement.map(Box::new));
    let setup = crate::enrolment::server::Setup { serves, ..world.setup(bytes(exporter)) };
    let mut server = Server::new(setup, key);
    let (mut sent, mut reason) = (Vec::new(), Reason::TimedOut);
    for effect in server.handle(NOW, Event::Message(hello)) {
        match effect {
            crate::enrolment::server::Effect::Send(message) => sent = message.to_vec(),
            crate::enrolment::server::Effect::Log(note) => {
                if let Outcome::Refused(why) = note.outcome {
                    reason = why;
                }
            }
            _ => {}
        }
    }
    (sent, reason)
}

/// What an operator makes of the answer to its hello: nothing is signed but for who has proven itself.
fn judged(operator: &mut Operator, answer: &[u8]) -> Result<Vec<u8>, Failure> {
    match operator.handle(&operator::Event::Message(answer)) {
        operator::Step::Sign(wrapped) => Ok(wrapped),
        operator::Step::Failed(failure) => Err(failure),
        _ => panic!("neither believed nor refused"),
    }
}

/// How an operator judges who shows that statement and signs by that key.
fn meets(world: &World, key: &SigningKey, statement: Statement) -> Result<Vec<u8>, Failure> {
    let (mut operator, hello) = operator(world, "tls");
    let (answer, _) = served(world, "tls", key, Some(statement), &hello);
    judged(&mut operator, &answer)
}

#[test]
fn a_statement_is_good_for_one_cluster_key_name_and_role_until_it_ends() {
    let world = World::new();
    let (statement, identity) = (of_the_worker(&world), world.cluster.identity_key);
    let judge = |statement: &Statement, now| statement.verify(&world.cluster.id, &identity, now);
    assert_eq!(judge(&statement, NOW), Ok(()));
    assert_eq!(judge(&statement, NOW + LIFE), Ok(()));
    assert_eq!(judge(&statement, NOW + LIFE + 9), Err(Fault::Ended { ago: 9 }));
    assert_eq!(judge(&statement, NOW - DAY), Ok(()), "clocks that are behind do no harm");
    assert_eq!(judge(&statement, NOW - DAY - 1), Err(Fault::Future));
    assert_eq!(statement.verify(&[2; 16], &identity, NOW), Err(Fault::Forged), "another cluster's");
    assert_eq!(statement.verify(&world.cluster.id, &key(9).public(), NOW), Err(Fault::Forged));
    let changes: [fn(&mut Statement); 5] = [
        |statement| statement.name = "w-2".into(),
        |statement| statement.key[0] ^= 1,
        |statement| statement.not_after += 1,
        |statement| statement.role = Role::ControlPlane,
        |statement| statement.signature[63] ^= 1,
    ];
    for change in changes {
        let mut changed = statement.clone();
        change(&mut changed);
        assert_eq!(judge(&changed, NOW), Err(Fault::Forged), "{changed:?}");
    }
    assert_eq!(judge(&stated(&world, WORKER, Role::ControlPlane), NOW), Err(Fault::Role));
    // Renewed as certificates are that came with it.
    assert_eq!(statement.standing(NOW), Standing::Good);
    assert_eq!(statement.standing(NOW + 5 * DAY), Standing::Due);
    assert_eq!(statement.standing(NOW + LIFE + 1), Standing::Expired);
    assert!(statement.is_of(Role::Worker, "w-1", &key(WORKER).public()));
    assert!(!statement.is_of(Role::Worker, "w-1", &key(22).public()));
}

#[test]
fn a_statements_file_has_one_form() {
    let statement = of_the_worker(&World::new());
    let file = statement.file().unwrap();
    assert_eq!(Statement::parse(&file).as_ref(), Ok(&statement));
    for length in 0..file.len() {
        assert!(Statement::parse(&file[..length]).is_err(), "{length}");
    }
    assert!(Statement::parse(&[&file[..], &[0]].concat()).is_err());
    assert!(Statement::parse(&[&[2], &file[1..]].concat()).is_err());
    assert!(Statement { name: "two words".into(), ..statement }.file().is_err());
}

#[test]
fn a_worker_gets_its_statement_with_the_grant_and_proves_itself_with_it() {
    let mut world = World::new();
    let token = world.seed.join_token(Role::Worker);
    let statement = join(&mut world, "w-1", WORKER, token).joiner.ok().unwrap().grant.statement.unwrap();
    assert_eq!(statement, of_the_worker(&world));
    let again = come_back(&mut world, "w-1", WORKER).joiner.ok().unwrap();
    assert_eq!(again.grant.statement, Some(statement.clone()), "and again whenever it comes back");
    let (mut operator, hello) = operator(&world, "tls");
    let (answer, _) = served(&world, "tls", &key(WORKER), Some(statement), &hello);
    let wrapped = judged(&mut operator, &answer).unwrap();
    // Signed as for a worker, and to nobody else of any use.
    let is_there = |label: &[u8]| wrapped.windows(label.len()).any(|part| part == label);
    assert!(!is_there(b"operator\0") && !wrapped.is_empty());
    let admitted = Message::Admitted.encode().unwrap();
    let step = operator.handle(&operator::Event::Signed(b"signature"));
    assert!(matches!(step, operator::Step::Send(_)));
    let step = operator.handle(&operator::Event::Message(&admitted));
    let operator::Step::Admitted(cluster, Peer::Worker { name }) = step else { panic!("not admitted") };
    assert!(cluster.is_identity(&world.cluster.identity_key) && name == "w-1");
}

/// A release before statements reads no field more, and says which version it speaks.
#[test]
fn who_speaks_the_first_version_alone_gets_no_statement_and_no_workers_proof() {
    let mut world = World::new();
    let old = Versions { oldest: 1, newest: 1 };
    let token = Credential::Token(world.seed.join_token(Role::Worker));
    let mut wire = honest;
    let attempt = Attempt::new(machine("w-1", WORKER), token, key(WORKER), &mut wire);
    let ended = Attempt { versions: (old, Versions::SPOKEN), ..attempt }.run(&mut world);
    assert_eq!(ended.joiner.ok().unwrap().grant.statement, None);
    let (_, hello) = operator(&world, "tls");
    let Message::Hello(mut hello) = decode(&hello) else { panic!("no hello") };
    hello.versions = old;
    let hello = Message::Hello(hello).encode().unwrap();
    let (answer, reason) = served(&world, "tls", &key(WORKER), Some(of_the_worker(&world)), &hello);
    assert!(matches!(decode(&answer), Message::Refusal(Refusal::Versions(Versions { oldest: 2, newest: 2 }))));
    assert_eq!(reason, Reason::Versions { ours: Versions::OF_A_WORKER, theirs: old });
}

#[test]
fn nobody_is_believed_to_be_a_worker_by_another_word_than_the_clusters_about_him() {
    let world = World::new();
    let good = of_the_worker(&world);
    assert!(meets(&world, &key(WORKER), good.clone()).is_ok());
    // Another machine has caught the statement, which everybody may who asks the worker.
    let posing = Err(Failure::Impostor(Impostor::Signature));
    assert_eq!(meets(&world, &key(22), good.clone()), posing);
    // It signs one for itself, by whatever key it has.
    for identity in [key(22), world.seed.founding_key()] {
        let own = Statement::of(&world.cluster.id, &node("w-1", Role::Worker, 22), NOW, &identity);
        assert_eq!(meets(&world, &key(22), own), Err(Failure::Impostor(Impostor::Statement(Fault::Forged))));
    }
    // Of another cluster, whose identity is the same key.
    let other = Statement::of(&[2; 16], &node("w-1", Role::Worker, WORKER), NOW, &key(8));
    assert_eq!(meets(&world, &key(WORKER), other), Err(Failure::Impostor(Impostor::Statement(Fault::Forged))));
    // A control plane's, had there ever been one.
    let role = stated(&world, WORKER, Role::ControlPlane);
    assert_eq!(meets(&world, &key(WORKER), role), Err(Failure::Impostor(Impostor::Statement(Fault::Role))));
}

#[test]
fn a_worker_with_a_word_that_ended_does_not_show_it_and_is_not_believed_if_it_does() {
    let world = World::new();
    let ended = Statement::of(&world.cluster.id, &node("w-1", Role::Worker, WORKER), NOW - LIFE - 60, &key(8));
    let (mut operator, hello) = operator(&world, "tls");
    for statement in [None, Some(ended.clone())] {
        let (answer, reason) = served(&world, "tls", &key(WORKER), statement, &hello);
        assert!(matches!(decode(&answer), Message::Refusal(Refusal::Busy)));
        assert_eq!(reason, Reason::NoStatement);
    }
    // A removed worker whose owner does not let it know the time.
    let (answer, _) = served(&world, "tls", &key(WORKER), Some(of_the_worker(&world)), &hello);
    let Message::WorkerProof(proof) = decode(&answer) else { panic!("no proof") };
    let shown = Message::WorkerProof(WorkerProof { statement: ended, ..proof }).encode().unwrap();
    let failure = Failure::Stated { name: "w-1".into(), fault: Fault::Ended { ago: 60 } };
    assert_eq!(judged(&mut operator, &shown), Err(failure));
}

#[test]
fn a_worker_takes_no_machine_in_and_is_no_control_plane_to_any() {
    let mut world = World::new();
    let statement = of_the_worker(&world);
    let credentials = || {
        let known = fingerprint(&world.cluster.identity_key);
        [
            Credential::Token(world.seed.join_token(Role::Worker)),
            Credential::Token(world.seed.join_token(Role::ControlPlane)),
            Credential::Node { fingerprint: known },
        ]
    };
    for credential in credentials() {
        let own = key(30);
        let (mut joiner, hello) = Joiner::start(machine("w-9", 30), credential, &own, bytes("tls"), bytes("n"));
        let (answer, reason) = served(&world, "tls", &key(WORKER), Some(statement.clone()), &hello);
        assert!(matches!(decode(&answer), Message::Refusal(Refusal::NotAccepted)));
        assert_eq!(reason, Reason::Worker);
        let step = joiner.handle(NOW, &crate::enrolment::joiner::Event::Message(&answer));
        let crate::enrolment::joiner::Step::Failed(failure) = step else { panic!("it goes on") };
        assert_eq!(failure, Failure::Unproven(Refusal::NotAccepted));
        assert!(failure.may_pass(), "what anybody may say ends no machine's waiting");
    }
    // One that was broken into shows machines its worker's proof, which they take for nothing.
    for credential in credentials() {
        let own = key(30);
        let (mut joiner, hello) = Joiner::start(machine("w-9", 30), credential, &own, bytes("tls"), bytes("n"));
        let Message::Hello(mut as_operator) = decode(&hello) else { panic!("no hello") };
        as_operator.purpose = Purpose::Operate;
        let as_operator = Message::Hello(as_operator).encode().unwrap();
        let (answer, _) = served(&world, "tls", &key(WORKER), Some(statement.clone()), &as_operator);
        let step = joiner.handle(NOW, &crate::enrolment::joiner::Event::Message(&answer));
        let expected = Failure::Unexpected { expected: "proof", found: "a worker's proof" };
        assert!(matches!(step, crate::enrolment::joiner::Step::Failed(failure) if failure == expected));
    }
    // Nor does its node key serve for the cluster's in a control plane's proof.
    let thief = key(WORKER);
    let mut server = Server::new(world.setup(bytes("tls")), &thief);
    let (mut operator, hello) = operator(&world, "tls");
    let answer = world.serve(&mut server, Event::Message(&hello)).sent.remove(0);
    assert_eq!(judged(&mut operator, &answer), Err(Failure::Impostor(Impostor::Signature)));
}

#[test]
fn who_stands_between_an_operator_and_a_worker_gets_no_signature() {
    let world = World::new();
    let statement = of_the_worker(&world);
    // He passes the hello on: to the worker it means nobody on this connection.
    let (mut operator, hello) = operator(&world, "operator's");
    let (answer, reason) = served(&world, "worker's", &key(WORKER), Some(statement.clone()), &hello);
    assert_eq!(reason, Reason::OtherCluster);
    assert_eq!(judged(&mut operator, &answer), Err(Failure::Unproven(Refusal::OtherCluster)));
    // He knows the fingerprint, and makes a hint of his own: the worker's proof is for his connection with the worker.
    let (mut operator, hello) = self::operator(&world, "operator's");
    let Message::Hello(mut relayed) = decode(&hello) else { panic!("no hello") };
    relayed.hint = hint(&fingerprint(&world.cluster.identity_key), &bytes("worker's"));
    let relayed = Message::Hello(relayed).encode().unwrap();
    let (answer, _) = served(&world, "worker's", &key(WORKER), Some(statement), &relayed);
    assert_eq!(judged(&mut operator, &answer), Err(Failure::Impostor(Impostor::Signature)));
}

#[test]
fn what_an_operator_signs_for_a_worker_no_control_plane_takes_and_the_other_way() {
    let mut world = World::new();
    let (identity, node_key) = (world.identity(), key(WORKER));
    let (mut to_worker, hello) = operator(&world, "tls");
    let (answer, _) = served(&world, "tls", &node_key, Some(of_the_worker(&world)), &hello);
    let for_worker = judged(&mut to_worker, &answer).unwrap();
    let (mut to_control_plane, hello) = operator(&world, "tls");
    let mut server = Server::new(world.setup(bytes("tls")), &identity);
    let answer = world.serve(&mut server, Event::Message(&hello)).sent.remove(0);
    let for_control_plane = judged(&mut to_control_plane, &answer).unwrap();
    // Although it is one connection's exporter and one hello.
    assert_ne!(for_worker, for_control_plane);
}
