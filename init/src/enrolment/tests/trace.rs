//! Whatever is wrong with a token, the server does the same work in the same order and says the same.

use super::world::*;
use crate::enrolment::joiner::Credential;
use crate::enrolment::message::Message;
use crate::token::{JoinToken, Joiner as Role, SECRET};

/// What the server did, with keys and otherwise; and every byte that it said.
fn trace(prepare: impl FnOnce(&mut World) -> JoinToken, spoil: bool) -> (Vec<String>, Vec<Vec<u8>>, String) {
    let mut world = World::new();
    let token = prepare(&mut world);
    let mut wire = |way, turn, message: Vec<u8>| match decode(&message) {
        Message::Ask(mut ask) if spoil && (way, turn) == (Way::ToServer, 1) => {
            ask.token.as_mut().unwrap().signature[0] ^= 1;
            Some(Message::Ask(ask).encode().unwrap().to_vec())
        }
        _ => Some(message),
    };
    let ended = Attempt::new(machine("w-1", 21), Credential::Token(token), key(21), &mut wire).run(&mut world);
    assert!(!ended.admitted());
    let logged = ended.logged();
    (
        world.trace.take(),
        ended.sent.into_iter().filter(|(way, _)| *way == Way::ToJoiner).map(|(_, said)| said).collect(),
        logged,
    )
}

#[test]
fn wrong_unknown_expired_and_used_up_tokens_take_the_same_operations_and_get_the_same_answer() {
    let soon = NOW + HOUR;
    let unknown = |world: &mut World| JoinToken::new(Role::Worker, [9; SECRET], &world.cluster.identity_key);
    let traces = [
        trace(unknown, false),
        trace(|world| world.create(Role::Worker, 9, soon, Some(1)), true),
        trace(|world| world.create(Role::Worker, 9, NOW, None), false),
        trace(|world| world.create(Role::Worker, 9, soon, Some(0)), false),
    ];
    let (did, said, _) = &traces[0];
    for (others, answers, why) in &traces[1..] {
        assert_eq!(others, did, "{why}");
        assert_eq!(answers, said, "{why}");
    }
    // And the log tells them apart.
    let logged: Vec<_> = traces.iter().map(|(_, _, logged)| logged.as_str()).collect();
    insta::assert_snapshot!(format!("{}\n\n{}", did.join("\n"), logged.join("\n")));
}

/// What stands in for an unknown token's key is one by which nobody outside can sign.
#[test]
fn no_key_of_a_joiners_choice_is_ever_verified_for_a_token() {
    let mut world = World::new();
    world.tokens.clear();
    let token = JoinToken::new(Role::Worker, [9; SECRET], &world.cluster.identity_key);
    let ended = join(&mut world, "w-1", 21, token);
    assert!(ended.joiner.is_err());
    assert_eq!(world.count("verify"), 2, "one of the node's, one of the token's");
}
