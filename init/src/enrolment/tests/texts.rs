//! Every failure has its text with the fix, and every reason its line in the server's log.

use crate::enrolment::failure::{Context, Failure, Impostor};
use crate::enrolment::message::{Purpose, Refusal, Versions};
use crate::enrolment::note::{Note, Outcome, Who};
use crate::enrolment::operator::Peer;
use crate::enrolment::reason::{Reason, TokenFault, Window};
use crate::enrolment::ssh::SshFault;
use crate::enrolment::statement::Fault;
use crate::enrolment::wire::Malformed;
use crate::facts::NameProblem;
use crate::token::{Joiner, Kind};
use crate::words::Paint;

const NOW: u64 = 1_800_000_000;

fn context(purpose: Purpose) -> Context<'static> {
    Context { purpose, server: "192.0.2.10:7440", name: "w-1", release: "1.33.0-1".parse().unwrap() }
}

fn refusals() -> Vec<Refusal> {
    let (oldest, newest) = ("1.36.1-2".parse().unwrap(), "1.37.2-4".parse().unwrap());
    vec![
        Refusal::OtherCluster,
        Refusal::Versions(Versions { oldest: 2, newest: 3 }),
        Refusal::Malformed,
        Refusal::NotAccepted,
        Refusal::WindowClosed,
        Refusal::NameTaken,
        Refusal::OtherNode,
        Refusal::Removed,
        Refusal::Address,
        Refusal::Clock,
        Refusal::Skew { oldest, newest },
        Refusal::Busy,
    ]
}

fn text(failure: &Failure, purpose: Purpose) -> String {
    failure.block(&context(purpose)).text(Paint::Plain)
}

#[test]
fn what_a_joiner_is_told() {
    let worker = Purpose::Join(Joiner::Worker);
    let refused = |refusal| Failure::Refused { refusal, ours: NOW - 3 * 60 * 60, theirs: NOW };
    let mut all: Vec<String> = refusals().into_iter().map(|refusal| text(&refused(refusal), worker)).collect();
    let (oldest, newest) = ("1.37.2-4".parse().unwrap(), "1.37.2-4".parse().unwrap());
    all.push(text(&refused(Refusal::Skew { oldest, newest }), Purpose::Join(Joiner::ControlPlane)));
    all.push(text(&refused(Refusal::NotAccepted), Purpose::Return));
    let others = [
        Failure::TokenKind { role: Joiner::Worker, found: Kind::ControlPlane },
        Failure::TokenKind { role: Joiner::ControlPlane, found: Kind::Seed },
        Failure::Impostor(Impostor::Certificate),
        Failure::Impostor(Impostor::Fingerprint),
        Failure::Impostor(Impostor::Signature),
        Failure::Unproven(Refusal::NotAccepted),
        Failure::Nonsense(Malformed::Unknown { field: "form", found: 72 }),
        Failure::Unexpected { expected: "proof", found: "hello" },
        Failure::BadGrant("kubelet-client: it is for another key".into()),
        Failure::Own(Malformed::Long { field: "name", most: 63, found: 64 }),
        Failure::Ended { proven: false },
        Failure::Ended { proven: true },
        Failure::TimedOut { proven: false },
        Failure::TimedOut { proven: true },
    ];
    all.extend(others.iter().map(|failure| text(failure, worker)));
    for text in &all {
        assert!(text.contains("Fix:"), "{text}");
    }
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn what_an_operator_is_told() {
    let refused = |by: &Peer, refusal| text(&Failure::NotAdmitted { refusal, by: by.clone() }, Purpose::Operate);
    let mut texts = Vec::new();
    for by in [Peer::ControlPlane, Peer::Worker { name: "w-1".into() }] {
        texts.extend([Refusal::NotAccepted, Refusal::Busy, Refusal::Malformed].map(|refusal| refused(&by, refusal)));
    }
    let name = "w-1".to_owned();
    let others = [
        Failure::Unproven(Refusal::OtherCluster),
        Failure::Unproven(Refusal::Busy),
        Failure::Impostor(Impostor::Statement(Fault::Forged)),
        Failure::Impostor(Impostor::Statement(Fault::Role)),
        Failure::Stated { name: name.clone(), fault: Fault::Ended { ago: 3 * 24 * 60 * 60 } },
        Failure::Stated { name, fault: Fault::Future },
        Failure::TimedOut { proven: true },
    ];
    texts.extend(others.iter().map(|failure| text(failure, Purpose::Operate)));
    insta::assert_snapshot!(texts.join("\n"));
}

/// An impostor can't stop a machine from waiting for its cluster, and the cluster's own no can.
#[test]
fn only_what_the_cluster_says_is_final() {
    for refusal in refusals() {
        let refused = Failure::Refused { refusal, ours: NOW, theirs: NOW };
        assert!(Failure::Unproven(refusal).may_pass());
        let stays = match refusal {
            Refusal::Busy | Refusal::Clock | Refusal::NameTaken | Refusal::Address | Refusal::Skew { .. } => false,
            Refusal::OtherCluster | Refusal::Versions(_) | Refusal::Malformed => true,
            Refusal::NotAccepted | Refusal::WindowClosed | Refusal::OtherNode | Refusal::Removed => true,
        };
        assert_eq!(refused.may_pass(), !stays, "{refusal:?}");
    }
    assert!(Failure::Impostor(Impostor::Signature).may_pass());
    assert!(Failure::TimedOut { proven: true }.may_pass());
}

fn reasons() -> Vec<Reason> {
    let address = [192, 0, 2, 10].into();
    let (oldest, newest) = ("1.36.1-2".parse().unwrap(), "1.37.2-4".parse().unwrap());
    let mut all: Vec<Reason> = [
        TokenFault::Unknown,
        TokenFault::Signature,
        TokenFault::Kind(Joiner::Worker),
        TokenFault::Expired { ago: 3 * 60 * 60 },
        TokenFault::UsedUp,
        TokenFault::NotSingle,
    ]
    .into_iter()
    .map(Reason::Token)
    .collect();
    all.extend([
        Reason::OtherCluster,
        Reason::Versions { ours: Versions::SPOKEN, theirs: Versions { oldest: 3, newest: 4 } },
        Reason::Worker,
        Reason::NoStatement,
        Reason::Message(Malformed::Short("nonce")),
        Reason::Unexpected { expected: "hello", found: "ask" },
        Reason::Form,
        Reason::NodeSignature,
        Reason::WindowClosed(Window::Time),
        Reason::WindowClosed(Window::Count),
        Reason::UnknownNode,
        Reason::Removed,
        Reason::OtherNode { name: "w-2".into(), role: Joiner::Worker },
        Reason::NameTaken { name: "w-1".into(), role: Joiner::ControlPlane, address },
        Reason::Name(NameProblem::Hyphen),
        Reason::Address([127, 0, 0, 1].into()),
        Reason::AddressTaken { address, by: "cp-1".into() },
        Reason::Moved { from: address, to: [192, 0, 2, 11].into() },
        Reason::Clock { ours: NOW, theirs: NOW - 3600 },
        Reason::Skew { role: Joiner::Worker, theirs: "1.33.0-1".parse().unwrap(), oldest, newest },
        Reason::Request("kubelet-client: expected no requested extensions, found\x1b[2Jsome".into()),
        Reason::OperatorSignature(SshFault::NotPresent),
        Reason::NotAnOperator,
        Reason::Contended,
        Reason::Host("etcd does not answer".into()),
        Reason::TimedOut,
    ]);
    all
}

#[test]
fn what_the_server_logs_and_what_it_says() {
    let who = Who {
        purpose: Some(Purpose::Join(Joiner::Worker)),
        node: Some(("w-1".into(), [192, 0, 2, 21].into())),
        token: Some([0xab; 16]),
        operator: None,
    };
    let line = |reason: Reason| {
        let public = reason.public().map_or("nothing".to_owned(), |refusal| format!("{refusal:?}"));
        let note = Note { who: who.clone(), outcome: Outcome::Refused(reason) };
        format!("{note}\n  says {}", public.split([' ', '(']).next().unwrap())
    };
    let mut lines: Vec<String> = reasons().into_iter().map(line).collect();
    lines.push(Note { who, outcome: Outcome::Admitted }.to_string());
    lines.push(Note { who: Who::default(), outcome: Outcome::Refused(Reason::TimedOut) }.to_string());
    let text = lines.join("\n");
    assert!(text.chars().all(|character| character == '\n' || !character.is_control()));
    insta::assert_snapshot!(text);
}
