//! The table, walked exhaustively, and its invariants under any sequence of transitions.

use std::io;

use proptest::prelude::*;

use super::choice::Record;
use super::*;
use crate::release::ReadError;
use crate::release::manifest::ManifestError;
use crate::release::rules;
use crate::release::signature::SignatureError;

fn content(digest: &str, state: State) -> Content {
    Content { digest: digest.into(), version: "1.37.2-1".into(), state }
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn states() -> Vec<Option<State>> {
    let mut states =
        vec![None, Some(State::Staged), Some(State::Committed), Some(State::Bad { verdict: "slow".into() })];
    states.extend((0..=TRIES).map(|tries| Some(State::Trial { tries })));
    states
}

fn transitions() -> Vec<(&'static str, Transition)> {
    vec![
        ("stage", Transition::Stage { digest: "d2".into(), version: "2".into(), force: false }),
        ("begin", Transition::Begin),
        ("try", Transition::Try),
        ("commit", Transition::Commit { floor: version("1.37.0-0") }),
        ("condemn", Transition::Condemn { verdict: "hung".into() }),
        ("discard", Transition::Discard { damage: "rotted".into() }),
    ]
}

fn named(state: Option<&State>) -> String {
    match state {
        None => "empty".into(),
        Some(State::Staged) => "staged".into(),
        Some(State::Trial { tries }) => format!("trial({tries})"),
        Some(State::Committed) => "committed".into(),
        Some(State::Bad { verdict }) => format!("bad({verdict})"),
    }
}

#[test]
fn every_transition_from_every_state_is_as_the_table_says() {
    let mut table = String::new();
    for state in states() {
        for (name, transition) in transitions() {
            let mut slots = Slots::default();
            if let Some(state) = &state {
                slots.slots.insert(Slot::A, content("d1", state.clone()));
            }
            slots.current = (state == Some(State::Committed)).then_some(Slot::A);
            let before = slots.clone();
            let after = match slots.apply(Slot::A, transition) {
                Ok(()) => named(slots.state(Slot::A)),
                Err(refused) => {
                    assert_eq!(slots, before, "a refused transition changes nothing");
                    format!("refused: expected {}", refused.expected)
                }
            };
            table += &format!("{:<10} {name:<8} -> {after}\n", named(before.state(Slot::A)));
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn every_pair_of_slots_boots_in_this_order() {
    let mut table = String::new();
    for a in states() {
        for b in states() {
            let mut slots = Slots::default();
            a.iter().for_each(|state| _ = slots.slots.insert(Slot::A, content("a", state.clone())));
            b.iter().for_each(|state| _ = slots.slots.insert(Slot::B, content("b", state.clone())));
            let both_on_trial = matches!((&a, &b), (Some(State::Trial { .. }), Some(State::Trial { .. })));
            if both_on_trial {
                continue;
            }
            slots.current = Slot::ALL.into_iter().rfind(|slot| slots.state(*slot) == Some(&State::Committed));
            let choice = choose(&slots);
            let record = match choice.record {
                None => String::new(),
                Some((slot, Record::Try)) => format!("count a try of {slot}; "),
                Some((slot, Record::Exhausted)) => format!("condemn {slot}; "),
            };
            let order: Vec<_> = choice.order.iter().map(|(seat, why)| format!("{seat} ({why})")).collect();
            table += &format!("A {:<10} B {:<10} {record}{}\n", named(a.as_ref()), named(b.as_ref()), order.join(", "));
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn only_one_trial_at_a_time() {
    let mut slots = Slots::default();
    slots.slots.insert(Slot::A, content("a", State::Trial { tries: 1 }));
    slots.slots.insert(Slot::B, content("b", State::Staged));
    let refused = slots.apply(Slot::B, Transition::Begin).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "can't try slot B: expected no other trial, found slot A on trial; nothing was changed"
    );
}

#[test]
fn what_was_found_bad_is_staged_again_only_by_force() {
    let mut slots = Slots::default();
    slots.slots.insert(Slot::A, content("d2", State::Trial { tries: 2 }));
    slots.apply(Slot::A, Transition::Condemn { verdict: "etcd never started".into() }).unwrap();
    let stage = |force| Transition::Stage { digest: "d2".into(), version: "2".into(), force };
    assert!(slots.apply(Slot::B, stage(false)).unwrap_err().found.contains("etcd never started"));
    slots.apply(Slot::B, stage(true)).unwrap();
    assert_eq!(slots.state(Slot::B), Some(&State::Staged));
}

#[test]
fn a_flipped_bit_a_cut_and_a_later_format_are_named() {
    let mut slots = Slots::default();
    slots.slots.insert(Slot::A, content("aa", State::Committed));
    slots.current = Some(Slot::A);
    let bytes = write(&slots);
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert_eq!(read(&bytes), Ok(slots));
    let flipped = text.replace("\"aa\"", "\"ab\"");
    assert!(read(flipped.as_bytes()).unwrap_err().to_string().contains("expected the checksum"));
    let later = text.replace("\"format\": 1", "\"format\": 2");
    assert!(read(later.as_bytes()).unwrap_err().to_string().contains("expected format 1, found 2"));
    for length in 0..bytes.len() - 1 {
        assert!(read(&bytes[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn what_was_discarded_is_staged_again_without_force() {
    let mut slots = Slots::default();
    slots.slots.insert(Slot::A, content("d2", State::Committed));
    slots.current = Some(Slot::A);
    slots.apply(Slot::A, Transition::Discard { damage: "a block".into() }).unwrap();
    assert_eq!((slots.current, slots.verdicts.len()), (None, 0));
    slots.apply(Slot::A, Transition::Stage { digest: "d2".into(), version: "2".into(), force: false }).unwrap();
}

#[test]
fn a_commit_raises_the_floor_and_nothing_lowers_it() {
    let mut slots = Slots::default();
    for (floor, expected) in [("1.37.0-0", "1.37.0-0"), ("1.36.0-0", "1.37.0-0"), ("1.38.0-2", "1.38.0-2")] {
        slots.slots.insert(Slot::A, content("a", State::Trial { tries: 1 }));
        slots.apply(Slot::A, Transition::Commit { floor: version(floor) }).unwrap();
        assert_eq!(slots.floor, Some(version(expected)));
    }
    slots.slots.insert(Slot::A, content("a", State::Trial { tries: 0 }));
    slots.apply(Slot::A, Transition::Commit { floor: version("1.39.0-0") }).unwrap_err();
    assert_eq!(slots.floor, Some(version("1.38.0-2")), "a refused commit is none");
    assert_eq!(read(&write(&slots)), Ok(slots));
}

/// Every way to be unusable, with every state of the file: what becomes of the release.
#[test]
fn only_a_proof_takes_a_release_away() {
    let (path, error) = (|| "/f".to_owned(), || io::Error::from_raw_os_error(5));
    let refusal = rules::Refusal::BelowFloor { version: version("1.36.0-1"), floor: version("1.37.0-0") };
    let unusable = [
        ("no digest", Unusable::NoDigest),
        ("not readable", Unusable::Read { path: path(), error: ReadError::Io(error()) }),
        ("signed nonsense", Unusable::Read { path: path(), error: SignatureError::Mismatch.into() }),
        ("unknown key", Unusable::Read { path: path(), error: SignatureError::UnknownKey { trusted: vec![] }.into() }),
        ("later format", Unusable::Read { path: path(), error: ManifestError::Format(2).into() }),
        ("not for here", Unusable::Refused(refusal)),
        ("bad block", Unusable::Block { path: path(), offset: 0, length: 1, error: error() }),
        ("no mount", Unusable::Mount { path: path(), error: error() }),
        ("uncounted", Unusable::Uncounted("full".into())),
    ];
    let files = [None, Some(OnDisk::AsStaged), Some(OnDisk::Changed), Some(OnDisk::Gone), Some(OnDisk::Unreadable)];
    let mut table = String::new();
    for (name, unusable) in &unusable {
        for file in &files {
            let looked = if unusable.doubts_bytes() { "" } else { " (not looked at)" };
            let shown = file.as_ref().map_or("-".to_owned(), |file| format!("{file:?}"));
            table += &format!("{name:<16} {shown:<11}-> {:?}{looked}\n", unusable.fate(file.as_ref()));
        }
    }
    insta::assert_snapshot!(table);
}

fn any_transition() -> impl Strategy<Value = Transition> {
    prop_oneof![
        ("[a-c]", any::<bool>()).prop_map(|(digest, force)| Transition::Stage { digest, version: "v".into(), force }),
        Just(Transition::Begin),
        Just(Transition::Try),
        (0..4_u32).prop_map(|minor| Transition::Commit { floor: Version { major: 1, minor, patch: 0, build: 0 } }),
        "[a-z]{1,4}".prop_map(|damage| Transition::Discard { damage }),
        "[a-z]{1,4}".prop_map(|verdict| Transition::Condemn { verdict }),
    ]
}

proptest! {
    #[test]
    fn invariants_hold_after_any_sequence(steps in prop::collection::vec((any::<bool>(), any_transition()), 0..40)) {
        let mut slots = Slots::default();
        for (first, transition) in steps {
            let (committed, floor) = (slots.current, slots.floor);
            let slot = if first { Slot::A } else { Slot::B };
            let condemned = matches!(transition, Transition::Condemn { .. } | Transition::Discard { .. });
            let outcome = slots.apply(slot, transition);
            let trials = Slot::ALL.into_iter().filter(|slot| matches!(slots.state(*slot), Some(State::Trial { .. })));
            prop_assert!(trials.count() <= 1, "one trial at a time");
            if let Some(current) = slots.current {
                prop_assert_eq!(slots.state(current), Some(&State::Committed), "the current slot is committed");
            }
            if committed.is_some() && !(condemned && outcome.is_ok()) {
                prop_assert!(slots.current.is_some(), "a committed release is lost only by condemning it");
            }
            prop_assert!(slots.floor >= floor, "the floor never falls");
            let choice = choose(&slots);
            prop_assert_eq!(choice.order.last().map(|(seat, _)| *seat), Some(Seat::Factory), "the factory stands last");
            prop_assert_eq!(read(&write(&slots)), Ok(slots.clone()), "the table survives the disk");
        }
    }

    #[test]
    fn boots_in_a_row_end_at_a_committed_release(tries in 0..=TRIES) {
        let mut slots = Slots::default();
        slots.slots.insert(Slot::A, content("a", State::Committed));
        slots.current = Some(Slot::A);
        slots.slots.insert(Slot::B, content("b", State::Trial { tries }));
        for _ in 0..=TRIES {
            match choose(&slots).record {
                Some((slot, Record::Try)) => slots.apply(slot, Transition::Try).unwrap(),
                Some((slot, Record::Exhausted)) => {
                    slots.apply(slot, Transition::Condemn { verdict: "tries used up".into() }).unwrap();
                }
                None => break,
            }
        }
        prop_assert_eq!(choose(&slots).order[0].0, Seat::Slot(Slot::A));
    }
}
