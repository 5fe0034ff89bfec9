//! The parts one by one. How they do together is seen in `init/tests/mesh_simulation.rs`.

use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::envelope::{Header, MAX_BODY, MAX_PACKET, Sealer, Session, open_hello, seal_hello};
use super::keys::{GRACE, Ring, SWITCH_AFTER};
use super::members::{Claim, Members, Outcome};
use super::packet::{Body, Hello, Message, Update, Why};
use super::random::Random;
use super::record::{Certificate, Kind};
use super::store::Store;
use super::*;
use crate::token::{Joiner, Seed, SigningKey};

const CLUSTER: [u8; 16] = [1; 16];

fn signer(number: u8) -> SigningKey {
    Seed::new([number; 16]).join_token(Joiner::Worker).join_key()
}

fn announcement(number: u8, generation: u32, salt: u8) -> Arc<Announcement> {
    let key = signer(number);
    let address = SocketAddr::from(([10, 0, 0, number], 7440));
    let node = Node { key: key.public(), address, control_plane: false, name: format!("node-{number}").into() };
    let sign = |message: &[u8]| key.sign(message);
    Arc::new(Announcement::new(&CLUSTER, &node, generation, [salt; 16], &sign).expect("a good name"))
}

fn key(epoch: u64) -> MeshKey {
    MeshKey::new(epoch, Zeroizing::new([epoch as u8; 32]))
}

fn open(
    ring: &Ring,
    now: Time,
    session: &mut Session,
    from: &Announcement,
    to: &Announcement,
    packet: &[u8],
) -> Option<Vec<u8>> {
    let header = Header::read(ring, now, packet).filter(|header| header.accepted)?;
    assert_eq!(header.handle, from.id.handle());
    session.open(ring, &header, from, to, packet)
}

#[test]
fn a_packet_opens_once_and_only_where_it_was_meant_for() {
    let ring = Ring::new(key(1));
    let (from, to) = (announcement(1, 1, 1), announcement(2, 1, 2));
    let (restarted, other) = (announcement(2, 2, 3), announcement(3, 1, 4));
    let packet = Sealer::new().seal((&ring, 0), &from, (&to, 0), b"body").expect("a counter");
    for elsewhere in [&restarted, &other, &from] {
        assert_eq!(open(&ring, 0, &mut Session::new(), &from, elsewhere, &packet), None);
    }
    let mut session = Session::new();
    assert_eq!(open(&ring, 0, &mut session, &from, &to, &packet).as_deref(), Some(&b"body"[..]));
    assert_eq!(open(&ring, 0, &mut session, &from, &to, &packet), None);
    let longest = Sealer::new().seal((&ring, 0), &from, (&to, 0), &[0; MAX_BODY]).expect("a counter");
    assert_eq!(longest.len(), MAX_PACKET);
}

#[test]
fn no_changed_bit_of_a_packet_opens() {
    let ring = Ring::new(key(1));
    let (from, to) = (announcement(1, 1, 1), announcement(2, 1, 2));
    let packet = Sealer::new().seal((&ring, 0), &from, (&to, 0), b"body").expect("a counter");
    for bit in 0..packet.len() * 8 {
        let mut changed = packet.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let header = Header::read(&ring, 0, &changed);
        let opened = header.and_then(|header| Session::new().open(&ring, &header, &from, &to, &changed));
        assert_eq!(opened, None, "bit {bit}");
    }
}

#[test]
fn two_packets_of_one_body_share_no_block() {
    let ring = Ring::new(key(1));
    let (from, to) = (announcement(1, 1, 1), announcement(2, 1, 2));
    let mut sealer = Sealer::new();
    let [one, two] = [0; 2].map(|_| sealer.seal((&ring, 0), &from, (&to, 0), &[0; 64]).expect("a counter"));
    for (one, two) in one.chunks(16).zip(two.chunks(16)) {
        assert_ne!(one, two);
    }
}

#[test]
fn late_packets_open_within_the_window_and_not_behind_it() {
    let ring = Ring::new(key(1));
    let (from, to) = (announcement(1, 1, 1), announcement(2, 1, 2));
    let mut sealer = Sealer::new();
    let packets: Vec<Vec<u8>> =
        (0..300).map(|_| sealer.seal((&ring, 0), &from, (&to, 0), b"").expect("a counter")).collect();
    let mut session = Session::new();
    let mut opens = |at: usize| open(&ring, 0, &mut session, &from, &to, &packets[at]).is_some();
    assert!(opens(0) && opens(200) && opens(73) && opens(199));
    assert!(!opens(72) && !opens(73) && !opens(0) && !opens(200));
    assert!(opens(299) && !opens(100) && opens(298));
}

#[test]
fn an_old_key_has_its_grace_but_none_after_a_removal() {
    let (from, to) = (announcement(1, 1, 1), announcement(2, 1, 2));
    let old = Ring::new(key(1));
    let packet = Sealer::new().seal((&old, 0), &from, (&to, 0), b"body").expect("a counter");
    let opens = |ring: &Ring, now| open(ring, now, &mut Session::new(), &from, &to, &packet).is_some();

    let mut graceful = Ring::new(key(1));
    assert!(
        graceful.install(0, key(2), true) && !graceful.install(0, key(2), true) && !graceful.install(0, key(1), true)
    );
    assert_eq!((graceful.sending(SWITCH_AFTER - 1, 1).epoch, graceful.sending(SWITCH_AFTER, 1).epoch), (1, 2));
    assert_eq!(graceful.sending(0, 2).epoch, 2, "who showed the new key is spoken to with it");
    assert!(opens(&graceful, GRACE) && !opens(&graceful, GRACE + 1));

    let mut removal = Ring::new(key(1));
    assert!(removal.install(5, key(2), false));
    assert_eq!(removal.sending(5, 1).epoch, 2);
    assert!(!opens(&removal, 5), "no grace");
    assert!(Header::read(&removal, 5, &packet).is_some_and(|header| !header.accepted), "recognised");

    let mut skipped = Ring::new(key(1));
    assert!(skipped.install(5, key(3), true));
    assert!(!opens(&skipped, 5), "the key between may have had none");
}

#[test]
fn a_hello_opens_with_the_key_only_and_all_are_of_one_length() {
    let ring = Ring::new(key(1));
    let announcement = announcement(1, 1, 1).bytes();
    let hello = Hello { why: Why::Ask, challenge: [7; 8], announcement: &announcement };
    let packet = seal_hello((&ring, 0), 0, &[9; 22], &hello.bytes());
    let header = Header::read(&ring, 0, &packet).expect("a header");
    assert!(header.is_hello());
    let body = open_hello(&ring, &header, &packet).expect("a hello");
    assert_eq!(Hello::parse(&body), Ok(hello));
    assert_eq!(packet.len(), seal_hello((&ring, 0), 0, &[8; 22], &[0; 9]).len());
    let other = Ring::new(MeshKey::new(1, Zeroizing::new([2; 32])));
    let seen = Header::read(&other, 0, &packet);
    assert!(seen.is_none_or(|header| !header.is_hello() && open_hello(&other, &header, &packet).is_none()));
}

struct ControlPlane {
    key: SigningKey,
    certificate: Certificate,
}

fn control_plane(number: u8) -> ControlPlane {
    let (identity, key) = (signer(200), signer(number));
    let (id, public) = (NodeId([number; 16]), key.public());
    let signature = identity.sign(&Certificate::signed(&CLUSTER, &id, &public, 1000));
    ControlPlane { key, certificate: Certificate { signer: id, key: public, not_after: 1000, signature } }
}

impl ControlPlane {
    fn record(&self, kind: Kind, subject: &[u8], epoch: u64, body: &[u8]) -> Record {
        self.signed(Record {
            kind,
            cluster: CLUSTER,
            subject: subject.to_vec(),
            epoch,
            issued: 500,
            expiry: if kind == Kind::Removal { u64::MAX } else { 900 },
            body: body.to_vec(),
            certificate: self.certificate,
            signature: [0; 64],
        })
    }

    fn signed(&self, record: Record) -> Record {
        Record { signature: self.key.sign(&record.signed()), ..record }
    }
}

fn verified(record: &Record) -> Result<(), Refused> {
    let parsed = Record::parse(&record.bytes())?;
    assert_eq!(parsed, *record);
    Authority { cluster: CLUSTER, identity: signer(200).public() }.record(parsed).map(|_| ())
}

#[test]
fn only_what_a_control_plane_of_this_cluster_signed_is_a_record() {
    let signer = control_plane(1);
    let good = signer.record(Kind::Endpoints, &[], 1, b"here");
    assert_eq!(verified(&good), Ok(()));
    assert_eq!(verified(&Record { cluster: [2; 16], ..good.clone() }), Err(Refused::Foreign));
    for changed in [Record { epoch: 2, ..good.clone() }, Record { body: b"there".to_vec(), ..good.clone() }] {
        assert_eq!(verified(&changed), Err(Refused::Forged));
    }
    let longer = Certificate { not_after: 2000, ..signer.certificate };
    assert_eq!(verified(&signer.signed(Record { certificate: longer, ..good.clone() })), Err(Refused::Uncertified));
    assert_eq!(verified(&signer.signed(Record { issued: 1001, expiry: 2000, ..good.clone() })), Err(Refused::Dates));
    assert_eq!(verified(&signer.signed(Record { issued: 901, ..good.clone() })), Err(Refused::Dates));
    assert!(good.in_force(899) && !good.in_force(900));
    let passing = signer.signed(Record { expiry: 900, ..signer.record(Kind::Removal, &[3; 16], 1, b"") });
    assert_eq!(verified(&passing), Err(Refused::Malformed(Malformed("expiry"))), "a removal is for good");
}

#[test]
fn the_store_never_goes_back() {
    let signer = control_plane(1);
    let record = |epoch, body: &[u8]| Arc::new(signer.record(Kind::Endpoints, &[], epoch, body));
    let mut store = Store::default();
    assert_eq!(store.accept(record(2, b"two")), Ok(()));
    assert_eq!(store.accept(record(1, b"one")), Err(Refused::Stale { found: 1, held: 2 }));
    assert_eq!(store.accept(record(2, b"two")), Err(Refused::Stale { found: 2, held: 2 }));
    assert_eq!(store.accept(record(3, b"three")), Ok(()));
    assert_eq!(store.get(Kind::Endpoints, &[]).map(|record| record.body.clone()), Some(b"three".to_vec()));
    assert_eq!(store.len(), 1);
}

#[test]
fn the_store_holds_so_many_of_a_kind() {
    let signer = control_plane(1);
    let record = |number: usize| signer.record(Kind::Verdict, &number.to_be_bytes(), 1, b"");
    let mut store = Store::default();
    let most = Kind::Verdict.most();
    (0..most).for_each(|number| assert_eq!(store.accept(Arc::new(record(number))), Ok(())));
    assert_eq!(store.accept(Arc::new(record(most))), Err(Refused::Full { most }));
    assert_eq!(store.accept(Arc::new(signer.record(Kind::Verdict, &0usize.to_be_bytes(), 2, b""))), Ok(()));
}

/// Two control planes' records, the removal of one of them, and two that used one epoch at once.
fn some_records() -> Vec<Record> {
    let (one, two) = (control_plane(1), control_plane(2));
    vec![
        one.record(Kind::Endpoints, &[], 1, b"a"),
        two.record(Kind::Endpoints, &[], 2, b"b"),
        one.record(Kind::CaBundle, &[], 4, b"c"),
        two.record(Kind::CaBundle, &[], 4, b"d"),
        two.record(Kind::Verdict, b"release", 1, b"e"),
        two.record(Kind::Removal, &[9; 16], 1, b""),
        one.record(Kind::Removal, &[2; 16], 1, b""),
    ]
}

fn stored(order: &[usize]) -> Store {
    let (records, mut store) = (some_records(), Store::default());
    for at in order {
        let _ = store.accept(Arc::new(records[*at].clone()));
    }
    store
}

#[test]
fn what_a_removed_control_plane_signed_goes_but_for_removals() {
    let store = stored(&[0, 1, 4, 5, 6]);
    assert!(store.get(Kind::Verdict, b"release").is_none() && store.get(Kind::Endpoints, &[]).is_none());
    assert!(store.is_removed(&NodeId([2; 16])) && store.is_removed(&NodeId([9; 16])));
    assert!(store.is_removed_handle(NodeId([9; 16]).handle()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_stores_that_saw_the_same_in_any_order_come_to_the_same(
        one in Just((0..7usize).collect::<Vec<_>>()).prop_shuffle(),
        two in Just((0..7usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (mut one, mut two) = (stored(&one), stored(&two));
        let give = |from: &Store, to: &mut Store| {
            from.records().cloned().for_each(|record| {
                let _ = to.accept(record);
            });
        };
        give(&one, &mut two);
        give(&two, &mut one);
        prop_assert_eq!(one.digest(), two.digest());
        prop_assert_eq!(one.parts(), two.parts());
        let by_removed = |r: &Arc<Record>| r.kind != Kind::Removal && r.certificate.signer == NodeId([2; 16]);
        prop_assert!(!one.records().any(by_removed));
    }

    #[test]
    fn claims_come_to_the_same_in_any_order(claims in prop::collection::vec((0u32..3, 0u8..3), 1..12), seed: u64) {
        let state = |number| [State::Alive, State::Suspect, State::Down][usize::from(number)];
        let run = |claims: &[(u32, u8)]| {
            let mut random = Random::new([7; 32]);
            let (me, other) = (announcement(1, 1, 1), announcement(2, 1, 2));
            let mut members = Members::new(me, &mut random);
            let first = Claim { life: other.life(), incarnation: 0, state: State::Alive };
            assert_eq!(members.learn(other.clone(), first, 0, &mut random), Outcome::Held(None));
            for (incarnation, number) in claims {
                let claim = Claim { life: other.life(), incarnation: *incarnation, state: state(*number) };
                members.apply(other.id.handle(), claim, 0, &mut random);
            }
            let claim = members.get(other.id.handle()).map(|member| member.claim());
            (claim, members.digest(), members.live())
        };
        let mut shuffled = claims.clone();
        let mut random = Random::new([seed as u8; 32]);
        (1..shuffled.len()).for_each(|at| shuffled.swap(at, random.below(at + 1)));
        prop_assert_eq!(run(&claims), run(&shuffled));
    }

    #[test]
    fn what_is_written_is_read(number: u32, digest: u64, incarnation: u32, age: u16, state in 0usize..3) {
        let state = [State::Alive, State::Suspect, State::Down][state];
        let whole = announcement(3, incarnation, 5).bytes();
        let claim = Claim { life: Life(digest), incarnation, state };
        let accuser = (state == State::Suspect).then_some((Handle(7), age));
        let updates = vec![
            Update::Full { incarnation, state, announcement: &whole },
            Update::Brief { member: Handle(digest), claim, accuser },
            Update::Record(b"record"),
        ];
        for message in [Message::Ping(number), Message::Ack(number), Message::PingFor(number, Handle(1)), Message::AckFor(number), Message::Gossip] {
            let body = Body { message, digest, updates: updates.clone() };
            let bytes = body.bytes();
            prop_assert_eq!(Body::parse(&bytes), Ok(body));
        }
    }
}

/// A node that knows itself, in the cluster whose identity is that of [`control_plane`].
fn mesh(number: u8, key: MeshKey) -> Mesh {
    let (node, sign) = (signer(number), signer(number));
    let setup = Setup {
        cluster: CLUSTER,
        node: Node {
            key: node.public(),
            address: SocketAddr::from(([10, 0, 0, number], 7440)),
            control_plane: false,
            name: format!("node-{number}").into(),
        },
        generation: 1,
        seed: [number; 32],
        key,
        sign: Box::new(move |message| sign.sign(message)),
        verifier: Box::new(Authority { cluster: CLUSTER, identity: signer(200).public() }),
        records: Vec::new(),
    };
    Mesh::new(0, setup).expect("a good name")
}

/// Who has a mesh key can seal in anybody's name, so what others say is advice. A removal ends that.
#[test]
fn a_removed_member_seals_in_anybodys_name_until_it_is_removed() {
    let (mut mesh, old) = (mesh(1, key(1)), Ring::new(key(1)));
    let [member, removed, unknown] = [2, 3, 4].map(|number| announcement(number, 1, number));
    let from = SocketAddr::from(([10, 0, 0, 3], 7440));
    let ask = |mesh: &mut Mesh, now: Time, who: &Announcement| {
        let hello = Hello { why: Why::Ask, challenge: [7; 8], announcement: &who.bytes() };
        let packet = seal_hello((&old, 0), 0, &[who.id.0[0]; 22], &hello.bytes());
        mesh.handle(now, Event::Packet { from, bytes: &packet });
    };
    ask(&mut mesh, 0, &member);
    ask(&mut mesh, 0, &removed);
    let mut sealer = Sealer::new();
    let mut gossip = |mesh: &mut Mesh, now: Time, about: &Announcement| {
        let claim = Claim { life: about.life(), incarnation: 0, state: State::Down };
        let updates = vec![Update::Brief { member: about.id.handle(), claim, accuser: None }];
        let body = Body { message: Message::Gossip, digest: 0, updates }.bytes();
        let packet = sealer.seal((&old, 0), &member, (&mesh.me().clone(), 0), &body).expect("a counter");
        mesh.handle(now, Event::Packet { from, bytes: &packet });
        (mesh.counts().accepted, mesh.member(&about.id).map(|member| member.state))
    };
    assert_eq!(gossip(&mut mesh, 0, &removed), (1, Some(State::Down)), "in the name of another member, of whomever");

    let signer = control_plane(5);
    let commitment = [key(2).commitment().as_slice(), &[0]].concat();
    for record in
        [signer.record(Kind::Removal, &removed.id.0, 1, b""), signer.record(Kind::MeshKey, &[], 2, &commitment)]
    {
        mesh.handle(0, Event::Publish(&record.bytes()));
    }
    mesh.handle(0, Event::Key(&key(2)));
    let before = mesh.digest();
    assert_eq!(gossip(&mut mesh, SECOND, &member), (1, Some(State::Alive)));
    let refused = mesh.counts().refused;
    ask(&mut mesh, SECOND, &removed);
    ask(&mut mesh, SECOND, &unknown);
    assert_eq!(mesh.counts().refused, refused + 2, "the operators hear of both");
    ask(&mut mesh, SECOND, &member);
    assert_eq!(mesh.counts().refused, refused + 2, "a member may lack the new key");
    assert!(mesh.member(&removed.id).is_none() && mesh.member(&unknown.id).is_none());
    assert_eq!((mesh.digest(), mesh.counts().accepted, mesh.key_epoch()), (before, 1, 2));
}

/// Anybody can make a node key, and so open a stream.
#[test]
fn a_stranger_on_a_stream_gets_nothing_and_brings_only_what_was_signed() {
    let mut mesh = mesh(1, key(2));
    let (stream, peer) = (StreamId(1), NodeId::of(&signer(2).public()));
    let announced = announcement(3, 1, 3).bytes();
    mesh.handle(0, Event::Accepted { stream, peer });
    let mut answer = |message: &sync::Message<'_>| {
        let actions = mesh.handle(0, Event::Message { stream, bytes: &message.bytes() });
        let said = actions.into_iter().find_map(|action| match action {
            Action::Transmit { bytes, .. } => Some(bytes),
            _ => None,
        });
        (said, mesh.members().known())
    };
    let (members, records) = (Box::new([1; members::PARTS]), Box::new([1; store::PARTS]));
    let (said, _) = answer(&sync::Message::Summary(sync::Summary { key_epoch: 0, members, records }));
    let said = said.expect("a page");
    let Ok(sync::Message::Versions(page)) = sync::Message::parse(&said) else { panic!("expected a page") };
    assert!(page.members.is_empty() && page.records.is_empty() && page.done);
    let news = vec![Update::Full { incarnation: 0, state: State::Alive, announcement: &announced }];
    let exchange = sync::Exchange { news, members: vec![signer_handle(1)], records: Vec::new(), key: None };
    let (said, known) = answer(&sync::Message::Exchange(exchange));
    let said = said.expect("an answer");
    let Ok(sync::Message::Exchange(given)) = sync::Message::parse(&said) else { panic!("expected an exchange") };
    assert!(given.news.is_empty() && given.key.is_none());
    assert_eq!(known, 1, "whom a stranger names is no member");
    for (number, closed) in [(2, 0), (3, 0), (4, 0), (5, 1)] {
        let (stream, peer) = (StreamId(number), NodeId([number as u8; 16]));
        let actions = mesh.handle(0, Event::Accepted { stream, peer });
        let ends = |action: &&Action| matches!(action, Action::Close(id) if *id == stream);
        assert_eq!(actions.iter().filter(ends).count(), closed, "strangers leave room for members");
    }
}

fn signer_handle(number: u8) -> Handle {
    NodeId::of(&signer(number).public()).handle()
}

#[test]
fn what_was_dropped_is_told_by_its_kind_and_since_when_it_was_told_last() {
    let before = Counts { accepted: 1, noise: 2, refused: 3, held: 4, forged: 5 };
    assert_eq!(Counts { accepted: 9, held: 9, ..before }.complaint(&before), None);
    let now = Counts { noise: 4, forged: 6, ..before };
    let told = now.complaint(&before);
    let expected = "dropped 2 packets that no member made, 1 records that no control plane of this cluster signed";
    assert_eq!(told.as_deref(), Some(expected));
    assert!(
        Counts { refused: 4, ..before }
            .complaint(&before)
            .is_some_and(|told| told.contains("1 packets that were sent again"))
    );
}
