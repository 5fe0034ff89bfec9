//! Who has the fingerprint finds, and nobody else learns anything.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::token::{SECRET, Seed, fingerprint};
use crate::words::Paint;

const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 21));
const NOW: Duration = Duration::from_secs(100);

fn founding() -> [u8; 32] {
    Seed::new([7; SECRET]).founding_key().public()
}

fn answer(cluster: u8, last: u8) -> Answer {
    Answer { cluster: [cluster; 16], address: SocketAddr::from(([192, 0, 2, last], 7440)) }
}

fn answering() -> Answering {
    Answering::new(answer(1, 10), &founding(), &[9; 32])
}

fn found(answers: &[(u8, u8)]) -> Found {
    let mut found = Found::default();
    answers.iter().for_each(|(cluster, last)| found.add(answer(*cluster, *last)));
    found
}

fn key(public: &[u8; 32]) -> Key {
    Key::of(&fingerprint(public))
}

#[test]
fn a_token_of_the_seed_and_a_later_one_both_find_the_cluster() {
    for (number, public) in [founding(), [9; 32]].iter().enumerate() {
        let query = Query::new(&key(public), [number as u8; 32]);
        let message = answering().answer(NOW, FROM, &query.message(), &[5; 32]).expect("an answer");
        assert_eq!(query.open(&message), Some(answer(1, 10)));
        assert_eq!((query.message().len(), message.len()), (MESSAGE, MESSAGE), "nobody is sent more than was asked");
    }
}

#[test]
fn who_has_another_key_is_not_answered_and_is_not_believed() {
    let stranger = Query::new(&key(&[8; 32]), [1; 32]);
    assert_eq!(answering().answer(NOW, FROM, &stranger.message(), &[5; 32]), None);
    let honest = Query::new(&key(&founding()), [2; 32]);
    let mut impostor = Answering::new(answer(2, 66), &[8; 32], &[8; 32]);
    let posed = impostor.answer(NOW, FROM, &stranger.message(), &[5; 32]).expect("an answer to its own key");
    assert_eq!(honest.open(&posed), None);
}

#[test]
fn a_replayed_answer_and_a_replayed_query_are_of_no_use() {
    let mut control_plane = answering();
    let [first, second] = [[1; 32], [2; 32]].map(|nonce| Query::new(&key(&founding()), nonce));
    let recorded = control_plane.answer(NOW, FROM, &first.message(), &[5; 32]).expect("an answer");
    assert_eq!(second.open(&recorded), None, "it is the answer to another query");
    assert_eq!(control_plane.complaint(NOW), None, "nothing is to be told");
    assert_eq!(control_plane.answer(NOW, FROM, &first.message(), &[6; 32]), None, "each query is answered once");
    let told = format!(
        "gave no answer to queries: 1 that were recorded and sent again, or came twice. The last says that it comes from {FROM}"
    );
    assert_eq!(control_plane.complaint(NOW).as_ref(), Some(&told));
    assert_eq!(control_plane.answer(NOW, FROM, &first.message(), &[6; 32]), None);
    assert_eq!(control_plane.complaint(NOW + Duration::from_secs(59)), None, "once a minute at most");
    assert_eq!(control_plane.complaint(NOW + Duration::from_secs(60)), Some(told));
    assert_eq!(second.open(&second.message()), None, "a query is no answer");
    assert_eq!(control_plane.answer(NOW, FROM, &recorded, &[6; 32]), None, "an answer is no query");
}

#[test]
fn every_cut_every_longer_message_and_every_changed_byte_is_refused() {
    let query = Query::new(&key(&founding()), [1; 32]);
    let asked = query.message();
    let answered = answering().answer(NOW, FROM, &asked, &[5; 32]).expect("an answer");
    for length in 0..MESSAGE {
        assert_eq!(answering().answer(NOW, FROM, &asked[..length], &[5; 32]), None);
        assert_eq!(query.open(&answered[..length]), None);
        let changed = |message: &[u8]| {
            let mut message = message.to_vec();
            message[length] ^= 1;
            message
        };
        assert_eq!(answering().answer(NOW, FROM, &changed(&asked), &[5; 32]), None);
        assert_eq!(query.open(&changed(&answered)), None);
    }
    let longer = |message: &[u8]| [message, &[0]].concat();
    assert_eq!(answering().answer(NOW, FROM, &longer(&asked), &[5; 32]), None);
    assert_eq!(query.open(&longer(&answered)), None);
}

#[test]
fn a_source_is_answered_at_a_pace_and_all_sources_together_too() {
    let mut control_plane = answering();
    let mut number = 0_u64;
    let mut asks = |now: u64, from: u32| {
        number += 1;
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        let query = Query::new(&key(&founding()), nonce).message();
        control_plane.answer(Duration::from_secs(now), IpAddr::V4(from.into()), &query, &[5; 32]).is_some()
    };
    assert_eq!((0..100).filter(|_| asks(0, 1)).count(), 16);
    assert_eq!((0..100).filter(|_| asks(1, 1)).count(), 2);
    assert_eq!((0..1000).filter(|from| asks(100, 10 + from)).count(), 64);
    assert_eq!((0..1000).filter(|from| asks(101, 5000 + from)).count(), 32);
}

#[test]
fn noise_in_a_machines_name_takes_nothing_from_it() {
    let mut control_plane = answering();
    for _ in 0..1000 {
        assert_eq!(control_plane.answer(NOW, FROM, &[0; MESSAGE], &[5; 32]), None);
    }
    let query = Query::new(&key(&founding()), [1; 32]);
    assert!(control_plane.answer(NOW, FROM, &query.message(), &[5; 32]).is_some());
}

#[test]
fn what_is_kept_has_a_bound_and_one_cluster_does_not_hide_another() {
    let many: Vec<(u8, u8)> = (0..100).map(|last| (1, last)).chain([(2, 7)]).collect();
    let kept = found(&many);
    assert_eq!((kept.hosts().len(), kept.clusters()), (MOST_OF_ONE + 1, vec![[1; 16], [2; 16]]));
    let many: Vec<(u8, u8)> = (0..100).map(|cluster| (cluster, 7)).collect();
    assert_eq!(found(&many).hosts().len(), MOST);
    let mut kept = found(&[(1, 10), (2, 11)]);
    kept.retain(|cluster| *cluster == [2; 16]);
    assert_eq!(kept, found(&[(2, 11)]));
}

#[test]
fn an_answer_sends_nobody_to_himself_to_many_or_to_another_network_card() {
    let addresses = [
        "127.0.0.1:1",
        "0.0.0.0:1",
        "239.0.0.1:1",
        "169.254.0.1:1",
        "192.0.2.1:0",
        "[::1]:1",
        "[ff02::1]:1",
        "[fe80::1]:1",
    ];
    for address in addresses {
        let posed = Answer { cluster: [1; 16], address: address.parse().unwrap() };
        assert!(Answer::parse(&posed.bytes()).is_err(), "{address}");
    }
}

#[test]
fn another_cluster_of_the_seed_is_said_once_again_after_a_while_and_when_it_is_gone() {
    let at = Duration::from_secs;
    let mut watch = Watch::new([1; 16], 1_800_000_000);
    assert_eq!((watch.concerns(&[1; 16]), watch.concerns(&[2; 16])), (false, true));
    assert_eq!(watch.heard(at(700), Found::default()), None);
    let Some(News::Two(first)) = watch.heard(at(730), found(&[(2, 20)])) else { panic!("it is news") };
    assert_eq!(watch.heard(at(760), found(&[(2, 20), (2, 21)])), None, "it was said");
    assert!(matches!(watch.heard(at(790), found(&[(3, 30)])), Some(News::Two(_))), "a third one is news");
    assert!(matches!(watch.heard(at(1390), found(&[(3, 30)])), Some(News::Two(_))), "it lasts");
    assert_eq!(watch.heard(at(1420), Found::default()), None, "one packet may be lost");
    assert_eq!(watch.heard(at(1450), Found::default()), None);
    let Some(News::Gone(gone)) = watch.heard(at(1480), Found::default()) else { panic!("it is gone") };
    assert!(!watch.has_twin());
    insta::assert_snapshot!(format!("{first}\n{gone}"));
}

#[test]
fn a_young_cluster_is_watched_closely_and_an_old_one_once_it_has_a_twin() {
    let founded = 1_800_000_000;
    let mut watch = Watch::new([1; 16], founded);
    let pauses = |watch: &Watch, now| [0, 255].map(|jitter| watch.pause(now, jitter).as_secs());
    assert_eq!(pauses(&watch, founded + 60), [30, 37], "within a minute");
    assert_eq!(pauses(&watch, founded + 24 * 3600), [600, 749]);
    assert_eq!(pauses(&watch, founded - 60), [30, 37], "a clock that was set back");
    watch.heard(NOW, found(&[(2, 20)]));
    assert_eq!(pauses(&watch, founded + 24 * 3600), [30, 37]);
}

#[test]
fn what_is_said_of_several_clusters() {
    let found = found(&[(1, 10), (1, 11), (2, 20)]);
    let founder = words::founded_already(&found).text(Paint::Plain);
    let place = ["192.0.2.21", "2001:db8::21"].map(|address| words::place(address.parse().unwrap())).join("\n");
    insta::assert_snapshot!(format!("{founder}\n{place}"));
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
    let v6 = any::<[u8; 16]>().prop_map(|octets| IpAddr::from(octets).to_canonical());
    (prop_oneof![v4, v6], any::<u16>()).prop_map(SocketAddr::from)
}

proptest! {
    #[test]
    fn an_answer_reads_back_as_it_was_or_not_at_all(cluster: [u8; 16], address in address()) {
        let answer = Answer { cluster, address };
        if let Ok(read) = Answer::parse(&answer.bytes()) {
            prop_assert_eq!(read, answer);
        }
    }

    #[test]
    fn there_is_one_encoding_of_an_answer(mut body: [u8; BODY], short: bool) {
        body[0] = 1;
        body[17] = if short { 4 } else { 6 };
        body[if short { 24 } else { 36 }..].fill(0);
        if let Ok(read) = Answer::parse(&body) {
            prop_assert_eq!(read.bytes(), body);
        }
        body[BODY - 1] = 1;
        prop_assert!(Answer::parse(&body).is_err());
    }

    #[test]
    fn noise_is_never_answered_nor_believed(noise in proptest::collection::vec(any::<u8>(), 0..256)) {
        prop_assert_eq!(answering().answer(NOW, FROM, &noise, &[5; 32]), None);
        prop_assert_eq!(Query::new(&key(&founding()), [1; 32]).open(&noise), None);
    }
}
