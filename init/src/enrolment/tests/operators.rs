//! A person with an ssh key: admitted when listed, and on one connection only.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use super::world::*;
use crate::enrolment::failure::{Failure, Impostor};
use crate::enrolment::message::{Message, Refusal};
use crate::enrolment::note::Outcome;
use crate::enrolment::operator::{Event, Operator, Peer, Step};
use crate::enrolment::reason::Reason;
use crate::enrolment::server::{self, Server};
use crate::enrolment::ssh::{self, SshFault, strings};
use crate::token::{SECRET, fingerprint};

/// An ssh key, by a number.
struct Ssh(Ed25519KeyPair);

impl Ssh {
    fn new(number: u8) -> Self {
        Ssh(Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap())
    }

    fn public(&self) -> Vec<u8> {
        strings(&[b"ssh-ed25519", self.0.public_key().as_ref()])
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        strings(&[b"ssh-ed25519", self.0.sign(message).as_ref()])
    }
}

/// How an operator's connection ended.
struct Visit {
    step: Step,
    notes: Vec<String>,
    outcome: Option<Outcome>,
    served: bool,
    /// The operator's second message.
    proof: Option<Vec<u8>>,
}

/// An operator with that key, who knows that fingerprint, visits; `wire` sees what goes to the server.
fn visit(
    world: &mut World,
    ssh: &Ssh,
    known: [u8; SECRET],
    exporters: (&str, &str),
    wire: &mut dyn FnMut(usize, Vec<u8>) -> Vec<u8>,
) -> Visit {
    world.trace.take();
    let identity = world.identity();
    let mut server = Server::new(world.setup(bytes(exporters.1)), &identity);
    let (mut operator, mut up) = Operator::start(NOW, ssh.public(), known, bytes(exporters.0), bytes("operator"));
    let mut visit =
        Visit { step: Step::Send(Vec::new()), notes: Vec::new(), outcome: None, served: false, proof: None };
    for turn in 0..2 {
        let served = world.serve(&mut server, server::Event::Message(&wire(turn, up)));
        visit.notes.extend(served.notes.iter().map(ToString::to_string));
        visit.outcome = served.notes.into_iter().next().map(|note| note.outcome);
        visit.served |= world.count("serve") > 0;
        let mut step = operator.handle(&Event::Message(&served.sent[0]));
        if let Step::Sign(wrapped) = step {
            step = operator.handle(&Event::Signed(&ssh.sign(&wrapped)));
        }
        match step {
            Step::Send(message) => {
                visit.proof = Some(message.clone());
                up = message;
            }
            step => {
                visit.step = step;
                return visit;
            }
        }
    }
    panic!("more round trips than there may be");
}

fn known(world: &World) -> [u8; SECRET] {
    fingerprint(&world.cluster.identity_key)
}

fn honest(_: usize, message: Vec<u8>) -> Vec<u8> {
    message
}

#[test]
fn a_listed_key_is_admitted_and_logged() {
    let mut world = World::new();
    let ada = Ssh::new(1);
    world.operators.push(ada.public());
    // By the identity's fingerprint, and by that in a token of the founding window.
    for fingerprint in [known(&world), fingerprint(&world.cluster.founding_key)] {
        let visit = visit(&mut world, &ada, fingerprint, ("tls", "tls"), &mut honest);
        let Step::Admitted(cluster, Peer::ControlPlane) = visit.step else { panic!("not admitted") };
        assert!(cluster.is_identity(&world.cluster.identity_key) && visit.served);
        assert_eq!(visit.notes, [format!("admitted operator {}", ssh::fingerprint(&ada.public()))]);
    }
}

#[test]
fn an_unknown_and_a_removed_key_are_refused_alike() {
    let mut world = World::new();
    let ada = Ssh::new(1);
    world.operators.push(ada.public());
    let fingerprint = known(&world);
    assert!(matches!(visit(&mut world, &ada, fingerprint, ("tls", "tls"), &mut honest).step, Step::Admitted(..)));
    world.operators.clear();
    for stranger in [ada, Ssh::new(2)] {
        let visit = visit(&mut world, &stranger, fingerprint, ("tls", "tls"), &mut honest);
        let Step::Failed(failure) = visit.step else { panic!("admitted") };
        assert_eq!(failure, Failure::NotAdmitted { refusal: Refusal::NotAccepted, by: Peer::ControlPlane });
        assert_eq!(visit.outcome, Some(Outcome::Refused(Reason::NotAnOperator)));
        assert!(!visit.served);
    }
}

#[test]
fn an_operators_signature_is_good_on_its_connection_only() {
    let mut world = World::new();
    let ada = Ssh::new(1);
    world.operators.push(ada.public());
    let fingerprint = known(&world);
    let proof = visit(&mut world, &ada, fingerprint, ("tls", "tls"), &mut honest).proof.unwrap();
    // Somebody else, who knows the fingerprint, on a connection of his own.
    let mut replay = |turn, message| if turn == 1 { proof.clone() } else { message };
    let replayed = visit(&mut world, &Ssh::new(2), fingerprint, ("other", "other"), &mut replay);
    let wrong = Outcome::Refused(Reason::OperatorSignature(SshFault::Wrong));
    assert_eq!(replayed.outcome, Some(wrong.clone()));
    // A key that is listed, under another's signature.
    let mut borrowed = |turn, message: Vec<u8>| match decode(&message) {
        Message::Operator(mut own) if turn == 1 => {
            own.key = Ssh::new(1).public();
            Message::Operator(own).encode().unwrap().to_vec()
        }
        _ => message,
    };
    assert_eq!(visit(&mut world, &Ssh::new(2), fingerprint, ("tls", "tls"), &mut borrowed).outcome, Some(wrong));
}

#[test]
fn an_operator_signs_nothing_for_another_cluster_or_a_relay() {
    let mut world = World::new();
    let ada = Ssh::new(1);
    world.operators.push(ada.public());
    let other = visit(&mut world, &ada, [5; SECRET], ("tls", "tls"), &mut honest);
    assert!(matches!(other.step, Step::Failed(Failure::Unproven(Refusal::OtherCluster))));
    assert!(other.proof.is_none());
    let fingerprint = known(&world);
    let mut relay = |_, message: Vec<u8>| {
        let Message::Hello(mut hello) = decode(&message) else { panic!("no hello") };
        hello.hint = crate::enrolment::transcript::hint(&fingerprint, &bytes("server's"));
        Message::Hello(hello).encode().unwrap().to_vec()
    };
    let relayed = visit(&mut world, &ada, fingerprint, ("operator's", "server's"), &mut relay);
    assert!(matches!(relayed.step, Step::Failed(Failure::Impostor(Impostor::Signature))));
    assert!(relayed.proof.is_none());
}

/// A removed operator, or an agent that gives up, ends the exchange on this side too.
#[test]
fn what_does_not_belong_to_the_state_ends_it() {
    let (mut operator, _) = Operator::start(NOW, Ssh::new(1).public(), [5; SECRET], bytes("tls"), bytes("operator"));
    assert!(matches!(operator.handle(&Event::Signed(b"")), Step::Failed(Failure::Ended { proven: false })));
    assert_eq!(operator.most(), 0);
    assert!(matches!(operator.handle(&Event::TimedOut), Step::Failed(Failure::TimedOut { .. })));
}
