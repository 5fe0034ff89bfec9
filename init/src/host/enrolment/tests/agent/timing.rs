//! How long the agent takes to refuse a token that it does not know, and one that it knows with a wrong signature. A
//! report: what a difference is worth, a person judges.

use super::network::{self, Sources};
use super::*;
use crate::enrolment::message::Message;
use crate::enrolment::tests::attacks::with_ask;
use crate::enrolment::tests::world::decode;
use crate::enrolment::transcript::{Label, Transcript};

/// Exchanges of each kind.
const EACH: usize = 250;

/// From the request to the refusal.
fn refused(sources: &mut Sources, machine: &Machine, token: JoinToken, signer: &SigningKey) -> Duration {
    let channel = network::channel(sources.next()).unwrap();
    let exporter = channel.exporter();
    let (mut transcript, mut asked, mut took) = (Transcript::new(), None, None);
    let mut wire = |way, turn, message: Vec<u8>| {
        match (way, turn) {
            (_, 0) => transcript.add(&message),
            (Way::ToServer, _) => {
                // Both kinds are signed by a key that is not the token's: what differs is whether the id is known.
                let Message::Ask(ask) = decode(&message) else { panic!("no request") };
                let signed = transcript.signed(ask.signed_part(&message), Label::Token(Role::Worker), &exporter);
                let message = with_ask(&message, |ask| ask.token.as_mut().unwrap().signature = signer.sign(&signed));
                asked = Some(Instant::now());
                return Some(message);
            }
            _ => took = asked.map(|asked: Instant| asked.elapsed()),
        }
        Some(message)
    };
    let ended = exchange_by(channel, machine.clone(), token, &mut wire);
    assert!(matches!(ended.err(), Some(Failure::Refused { refusal: Refusal::NotAccepted, .. })));
    took.unwrap()
}

/// Two hundred and more of each kind, in turns, so that whatever else the machine does befalls both.
pub(super) fn report(identity: &[u8; 32], sources: &mut Sources) {
    let known = Seed::new(real::SEED).join_token(Role::Worker);
    let unknown = JoinToken::new(Role::Worker, [66; SECRET], identity);
    let (machine, signer) = (machine("w-66", [192, 0, 2, 66].into()), key(66));
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..EACH {
        for turn in [round % 2, (round + 1) % 2] {
            let token = [&unknown, &known][turn].clone();
            times[turn].push(refused(sources, &machine, token, &signer));
        }
    }
    let quartiles = times.map(|mut times| {
        times.sort();
        [times[EACH / 4], times[EACH / 2], times[EACH * 3 / 4]]
    });
    for (what, [low, median, high]) in ["an unknown token id", "a wrong signature by a known one"].iter().zip(quartiles)
    {
        println!(
            "report: {EACH} times {what}: refused within {median:?} (median), {low:?} to {high:?} (the middle half)"
        );
    }
    let [unknown, known] = quartiles.map(|[_, median, _]| median.as_secs_f64() * 1e6);
    println!("report: the medians differ by {:.0} µs ({:+.1} %)", known - unknown, (known - unknown) / unknown * 100.0);
}
