use super::*;

const PEER: &str = "https://10.0.0.12:2380";

fn own() -> Own {
    Own { name: "two".into(), peer: PEER.into(), has_log: false }
}

fn member(id: u64, name: &str, peer: &str, learner: bool) -> Member {
    let clients = if name.is_empty() { Vec::new() } else { vec![peer.replace("2380", "2379")] };
    Member { id, name: name.into(), peers: vec![peer.into()], clients, learner }
}

fn founder() -> Member {
    member(1, "one", "https://10.0.0.11:2380", false)
}

#[test]
fn an_answer_of_etcds_gateway_is_read_and_one_of_another_form_is_not() {
    let answer = json!({"header": {"member_id": "1"}, "members": [
        {"ID": "10501334649042878790", "name": "one", "peerURLs": ["https://10.0.0.11:2380"],
         "clientURLs": ["https://10.0.0.11:2379"]},
        {"ID": "7", "peerURLs": [PEER], "isLearner": true},
    ]});
    let members = Member::list(&answer).unwrap();
    assert_eq!(members, [Member { id: 10_501_334_649_042_878_790, ..founder() }, member(7, "", PEER, true)]);
    assert_eq!((members[0].label(), members[1].label()), ("one".to_owned(), PEER.to_owned()));
    assert!(Member::list(&json!({"members": [{"ID": 7}]})).unwrap_err().starts_with("expected a member"));
    assert!(Member::list(&json!({"error": "x"})).is_err());
}

#[test]
fn a_machine_asks_for_the_place_and_takes_it() {
    assert_eq!(next(&[founder()], &own()), Next::Add);
    let members = [founder(), member(7, "", PEER, true)];
    let Next::Take(membership) = next(&members, &own()) else { panic!("the place is its own") };
    assert_eq!((membership.id, membership.voter), (7, false));
    let expected = [("one", "https://10.0.0.11:2380"), ("two", PEER)];
    assert_eq!(membership.initial_cluster, expected.map(|(name, url)| (name.to_owned(), url.to_owned())).into());
    assert_eq!(Membership::parse(membership.text().as_bytes()), Ok(membership));
}

#[test]
fn one_at_a_time() {
    let other = member(8, "three", "https://10.0.0.13:2380", true);
    assert_eq!(next(&[founder(), other.clone()], &own()), Next::Wait(other));
}

#[test]
fn what_an_interrupted_try_left_is_cleaned_up() {
    // The place was given back meanwhile, or another had it since: the data belongs to nobody.
    let with_log = Own { has_log: true, ..own() };
    assert_eq!(next(&[founder()], &with_log), Next::Discard);
    assert_eq!(next(&[founder(), member(7, "", PEER, true)], &with_log), Next::Discard);
    // A learner that ran, and whose disk is gone.
    assert_eq!(next(&[founder(), member(7, "two", PEER, true)], &own()), Next::Replace(7));
}

#[test]
fn a_member_that_votes_is_not_replaced_unasked() {
    let dead = member(2, "two", PEER, false);
    assert_eq!(next(&[founder(), dead.clone()], &own()), Next::Taken(dead.clone()));
    let with_log = Own { has_log: true, ..own() };
    let Next::Take(membership) = next(&[founder(), dead.clone()], &with_log) else {
        panic!("its record alone was lost")
    };
    assert_eq!((membership.id, membership.voter), (2, true));
    let moved = member(2, "two", "https://10.0.0.99:2380", false);
    assert_eq!(next(&[founder(), moved.clone()], &own()), Next::Taken(moved));
    let renamed = member(2, "other", PEER, false);
    assert_eq!(next(&[founder(), renamed.clone()], &Own { has_log: true, ..own() }), Next::Taken(renamed));
}

#[test]
fn what_a_member_is_to_the_others() {
    let members = [founder(), member(7, "two", PEER, true)];
    assert_eq!([1, 7, 8].map(|id| standing(&members, id)), [Standing::Votes, Standing::Learns, Standing::Gone]);
}

#[test]
fn no_removal_leaves_a_cluster_that_can_not_decide() {
    let three: Vec<Member> =
        (1..=3).map(|id| member(id, &format!("cp-{id}"), &format!("https://10.0.0.1{id}:2380"), false)).collect();
    assert_eq!(removal(&three, 3, &[1, 2]), Ok(()), "the dead one of three");
    assert_eq!(removal(&three, 3, &[1, 2, 3]), Ok(()));
    let refused = removal(&three, 1, &[1, 2]).unwrap_err();
    assert!(refused.contains("2 have to answer and 1 do (cp-3 does not)"), "{refused}");
    assert!(removal(&three[..1], 1, &[1]).is_err(), "the only one");
    assert_eq!(removal(&three[..2], 2, &[1]), Ok(()), "the dead one of two, once the other decides again");
    assert_eq!(removal(&[founder(), member(7, "", PEER, true)], 7, &[]), Ok(()), "a learner decides nothing");
    assert_eq!(removal(&three, 9, &[]), Ok(()), "who is gone is gone");
}
