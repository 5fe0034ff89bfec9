//! What is signed, byte by byte: the relay is stopped by the hint already, so these hold what stands behind it.

use aws_lc_rs::digest;
use proptest::prelude::*;

use super::world::bytes;
use crate::enrolment::message::Purpose;
use crate::enrolment::transcript::{Label, Transcript, hint, is_meant};
use crate::token::{Joiner, SECRET};

const LABELS: [Label; 9] = [
    Label::Server,
    Label::Token(Joiner::Worker),
    Label::Token(Joiner::ControlPlane),
    Label::Node(Purpose::Join(Joiner::Worker)),
    Label::Node(Purpose::Join(Joiner::ControlPlane)),
    Label::Node(Purpose::Return),
    Label::Operator,
    Label::Worker,
    Label::OperatorOfWorker,
];

#[test]
fn every_signer_has_a_label_of_its_own_that_ends_in_its_only_zero_byte() {
    let document = include_str!("../../../../docs/enrolment.md");
    for (at, label) in LABELS.iter().enumerate() {
        let zeros: Vec<usize> = (0..label.bytes().len()).filter(|at| label.bytes()[*at] == 0).collect();
        assert_eq!(zeros, [label.bytes().len() - 1], "{label:?}");
        assert!(LABELS[..at].iter().all(|other| other.bytes() != label.bytes()), "{label:?}");
        let text = std::str::from_utf8(label.bytes()).unwrap().trim_end_matches('\0');
        let short = text.replace("kubeboot enrolment 1 ", "… ").replace("kubeboot enrolment 2 ", "… ");
        let said = [text, &short].iter().any(|text| document.contains(&format!("`{text}\\0`")));
        assert!(said, "docs/enrolment.md lacks {text:?}");
    }
}

#[test]
fn what_is_signed_is_label_exporter_and_transcript() {
    let mut transcript = Transcript::new();
    transcript.add(b"hello");
    let whole = b"kubeboot enrolment 1 transcript\0\0\0\0\x05hello\0\0\0\x02is";
    let hash = digest::digest(&digest::SHA256, whole);
    let expected = [b"kubeboot enrolment 1 server\0", &bytes("tls")[..], hash.as_ref()].concat();
    assert_eq!(transcript.signed(b"is", Label::Server, &bytes("tls")), expected);
}

/// What later releases must still compute to speak to today's.
#[test]
fn a_known_hint() {
    let known: String = hint(&[7; SECRET], &[1; 32]).iter().map(|byte| format!("{byte:02x}")).collect();
    // HMAC-SHA-256, computed with another program (openssl mac).
    assert_eq!(known, "abedeb5058a039f9d0130936a2522017");
    assert!(is_meant(&hint(&[7; SECRET], &[1; 32]), &[[8; SECRET], [7; SECRET]], &[1; 32]));
    assert!(!is_meant(&hint(&[7; SECRET], &[1; 32]), &[[8; SECRET], [9; SECRET]], &[1; 32]));
    assert!(!is_meant(&hint(&[7; SECRET], &[1; 32]), &[[7; SECRET]], &[2; 32]));
}

proptest! {
    /// Neither where a message ends, nor who signs, nor on which connection, can be read in two ways.
    #[test]
    fn two_exchanges_are_never_signed_alike(
        one in prop::collection::vec(prop::collection::vec(0u8..3, 0..4), 1..4),
        other in prop::collection::vec(prop::collection::vec(0u8..3, 0..4), 1..4),
        labels in (0usize..7, 0usize..7),
        exporters in (0u8..2, 0u8..2),
    ) {
        let signed = |messages: &[Vec<u8>], label: usize, exporter| {
            let (last, before) = messages.split_last().unwrap();
            let mut transcript = Transcript::new();
            before.iter().for_each(|message| transcript.add(message));
            transcript.signed(last, LABELS[label], &[exporter; 32])
        };
        let same = one == other && labels.0 == labels.1 && exporters.0 == exporters.1;
        prop_assert_eq!(signed(&one, labels.0, exporters.0) == signed(&other, labels.1, exporters.1), same);
    }
}
