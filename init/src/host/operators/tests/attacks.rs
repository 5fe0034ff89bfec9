//! Who is no operator, and who stands between.

use std::os::unix::net::UnixListener;
use std::thread;

use super::*;
use crate::enrolment::message::{Message, Operator as Proof, Refusal, most};
use crate::enrolment::operator::{Event, Operator, Step};
use crate::host::enrolment::channel::{Broken, Channel};
use crate::host::enrolment::tests::man_in_the_middle;
use crate::host::enrolment::tests::real::Process;
use crate::host::enrolment::tls;
use crate::operators::frame::{self, Frame};
use crate::operators::key_file::FileKey;
use crate::operators::tests::agent;

pub(super) fn connect(address: &SocketAddr) -> Channel {
    Channel::connect(address, tls::client().unwrap(), Times::default()).unwrap()
}

/// Goes through the exchange up to the operator's own message, which is given back and not sent.
fn signed(world: &World, channel: &mut Channel, number: u8) -> Vec<u8> {
    let key = FileKey::parse(&private_key(number)).unwrap();
    let (mut operator, hello) =
        Operator::start(clock::unix(), key.public().to_vec(), world.fingerprint(), channel.exporter(), random::bytes());
    channel.send(&hello).unwrap();
    let proof = channel.receive(most::TO_OPERATOR).unwrap();
    let Step::Sign(wrapped) = operator.handle(&Event::Message(&proof)) else { panic!("no proof") };
    let Step::Send(message) = operator.handle(&Event::Signed(&key.sign(&wrapped))) else { panic!("not signed") };
    message
}

/// A connection on which [`ADA`] was admitted, and nothing asked.
fn admitted(world: &World) -> Channel {
    let mut channel = connect(&world.address);
    let message = signed(world, &mut channel, ADA);
    channel.send(&message).unwrap();
    assert!(matches!(Message::decode(&channel.receive(most::REFUSAL).unwrap()), Ok(Message::Admitted)));
    channel
}

pub(super) fn refusal(channel: &mut Channel) -> Refusal {
    match Message::decode(&channel.receive(most::REFUSAL).unwrap()) {
        Ok(Message::Refusal(refusal)) => refusal,
        _ => panic!("not refused"),
    }
}

pub(super) fn failed(channel: &mut Channel) -> Trouble {
    match Frame::decode(&channel.receive(frame::most::ANSWER).unwrap()) {
        Ok(Frame::Failed(trouble)) => trouble,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_signature_that_was_caught_is_worth_nothing_on_another_connection() {
    let world = World::new();
    let mut caught = connect(&world.address);
    let message = signed(&world, &mut caught, ADA);
    // Somebody who has caught it, and knows the fingerprint, goes through an exchange of his own and sends it there.
    let mut thief = connect(&world.address);
    signed(&world, &mut thief, BOB);
    thief.send(&message).unwrap();
    assert_eq!(refusal(&mut thief), Refusal::NotAccepted);
    assert!(world.logged("its ssh signature is not good").contains("it is not by this key over this exchange"));
    // Nor under another key's name.
    let mut borrower = connect(&world.address);
    let Ok(Message::Operator(own)) = Message::decode(&signed(&world, &mut borrower, BOB)) else { panic!("no proof") };
    let borrowed = Message::Operator(Proof { key: wire(ADA), ..own }).encode().unwrap();
    borrower.send(&borrowed).unwrap();
    assert_eq!(refusal(&mut borrower), Refusal::NotAccepted);
    // On its own connection it is good.
    caught.send(&message).unwrap();
    assert!(matches!(Message::decode(&caught.receive(most::REFUSAL).unwrap()), Ok(Message::Admitted)));
}

#[test]
fn another_cluster_gets_no_signature_and_a_known_address_is_not_taken_over() {
    let (world, other) = (World::new(), World::new());
    let meant = Remote { host: other.address.to_string().parse().unwrap(), ..world.remote(ADA) };
    let trouble = meant.open().err().unwrap();
    assert_eq!(trouble.exit, 7);
    assert!(trouble.why[0].contains("does not serve the cluster that is meant"), "{trouble:?}");
    assert!(other.logged("refused").contains("it means another cluster"));

    // At an address that is known for one cluster, another is refused whatever fingerprint is said.
    assert!(world.remote(ADA).open().is_ok());
    let line = std::fs::read_to_string(world.known()).unwrap();
    let moved = line.replace(&world.address.to_string(), &other.address.to_string());
    std::fs::write(world.known(), moved).unwrap();
    let said = Remote { fingerprint: Some(other.fingerprint()), ..meant.clone() };
    let trouble = said.open().err().unwrap();
    assert!(trouble.exit == 7 && trouble.why[0].starts_with("WARNING"), "{trouble:?}");
    let named = Remote { cluster: Some("0".repeat(32)), ..meant };
    assert!(named.open().err().unwrap().why[0].contains("not of 000"));
}

#[test]
fn who_ends_tls_on_both_sides_gets_no_signature() {
    let world = World::new();
    let host = man_in_the_middle(world.address).to_string().parse().unwrap();
    let trouble = Remote { host, ..world.remote(ADA) }.open().err().unwrap();
    assert_eq!(trouble.exit, 7);
    assert!(!world.known().exists(), "nothing is learned of who has not proven itself");
    world.logged("somebody stands between");
    assert!(!world.log.lock().unwrap().iter().any(|line| line.contains("admitted")));
}

#[test]
fn without_an_operators_key_nothing_is_read_and_nothing_done() {
    let world = World::new();
    let request = Frame::Request(Request::OperatorList {}.text()).encode().unwrap();
    // Before anything, and in the operator's place.
    let mut stranger = connect(&world.address);
    stranger.send(&request[..53.min(request.len())]).unwrap();
    assert_eq!(refusal(&mut stranger), Refusal::Malformed);
    let mut stranger = connect(&world.address);
    signed(&world, &mut stranger, BOB);
    stranger.send(&request).unwrap();
    assert_eq!(refusal(&mut stranger), Refusal::Malformed);
    // After a refusal the connection is nobody's.
    let mut removed = connect(&world.address);
    let message = signed(&world, &mut removed, BOB);
    removed.send(&message).unwrap();
    assert_eq!(refusal(&mut removed), Refusal::NotAccepted);
    let _ = removed.send(&request);
    assert_eq!(removed.receive(frame::most::ANSWER).map(drop), Err(Broken::Closed));
    assert!(world.logged("its ssh key is no operator's").contains("SHA256:"));
}

#[test]
fn a_removed_operator_does_not_come_back_by_a_connection_that_was_open() {
    let world = World::new();
    world.add(BOB, "bob");
    let mut channel = admitted(&world);
    let remove = Request::OperatorRemove { key: public_line(ADA, ""), last: false };
    let _: Value = world.value(BOB, &remove);
    let back = Request::OperatorAdd { key: public_line(ADA, "") };
    channel.send(&Frame::Request(back.text()).encode().unwrap()).unwrap();
    assert_eq!(failed(&mut channel).exit, 7);
    assert_eq!(world.ask(ADA, &Request::OperatorList {}).unwrap_err().exit, 7);
}

#[test]
fn requests_are_bounded_whole_and_of_their_form() {
    let world = World::new();
    let mut channel = admitted(&world);
    channel.send(&vec![1; frame::most::REQUEST + 1]).unwrap();
    assert!(failed(&mut channel).why[0].contains("at most 16386"));
    assert_eq!(channel.receive(frame::most::ANSWER).map(drop), Err(Broken::Closed));

    for bytes in [
        &[][..],
        &[1],
        &[1, 1],
        &[2, 1, b'{', b'}'],
        &[1, 2],
        &[1, 9],
        b"\x01\x01{\"request\":\"token-list\"",
        b"\x01\x01{\"request\":\"shut-down\"}",
        b"\x01\x01{\"request\":\"token-list\",\"more\":1}",
        b"\x01\x01[]",
    ] {
        let mut channel = admitted(&world);
        channel.send(bytes).unwrap();
        let trouble = failed(&mut channel);
        assert_eq!(trouble.exit, 2, "{bytes:?}");
    }
    // One request a connection.
    let mut channel = admitted(&world);
    let request = Frame::Request(Request::UserList {}.text()).encode().unwrap();
    channel.send(&request).unwrap();
    let _ = channel.send(&request);
    let answers = std::iter::from_fn(|| channel.receive(frame::most::ANSWER).ok()).map(|bytes| Frame::decode(&bytes));
    let names: Vec<_> = answers.map(|frame| frame.unwrap().name()).collect();
    assert_eq!(names, ["data", "done"]);
    // Who goes away within a request, or says nothing, leaves nothing.
    drop(admitted(&world));
    assert!(world.logged("asked for nothing").contains("closed the connection"));
    assert!(world.ask(ADA, &Request::UserList {}).is_ok());
}

#[test]
fn an_agent_signs_for_a_key_that_no_file_has_and_others_are_passed_over() {
    let world = World::new();
    let socket = world.folder.path().join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            agent(stream.unwrap(), &[BOB, ADA]);
        }
    });
    let keys = Keys { agent: Some(socket), home: Some(world.folder.path().to_owned()), file: None };
    let remote = Remote { keys: keys.clone(), ..world.remote(ADA) };
    // Bob's is tried first, and is no operator's.
    assert!(remote.open().is_ok());
    assert!(world.logged("its ssh key is no operator's").contains("SHA256:"));
    // By its public key, one of the agent's alone.
    let public = world.folder.path().join("bob.pub");
    std::fs::write(&public, public_line(BOB, "bob")).unwrap();
    let named = Remote { keys: Keys { file: Some(public), ..keys }, ..remote };
    assert_eq!(named.open().err().unwrap().exit, 7);
    let nothing = Remote { keys: Keys::default(), ..named };
    let trouble = nothing.open().err().unwrap();
    assert!(trouble.exit == 2 && trouble.why[0].contains("SSH_AUTH_SOCK is not set"), "{trouble:?}");
}

/// Made by `qemu-tests/run`, which installs what it needs.
#[test]
#[ignore = "needs OpenSSH's ssh-agent, ssh-add and ssh-keygen"]
fn a_real_agent_signs_with_keys_of_every_kind_that_it_can_have_without_a_token() {
    use std::process::Command;

    let world = World::new();
    let (socket, folder) = (world.folder.path().join("agent"), world.folder.path());
    let mut agent = Command::new("ssh-agent");
    let agent = agent.arg("-D").arg("-a").arg(&socket).stdout(std::process::Stdio::null()).spawn().unwrap();
    let _ends_with_the_test = Process(agent);
    let there = || socket.exists().then_some(()).ok_or("no socket".to_owned());
    wait::until("ssh-agent", LIMIT, Duration::from_millis(5), there).unwrap();
    for kind in ["ed25519", "ecdsa -b 256", "ecdsa -b 384"] {
        let file = folder.join(kind.replace(' ', ""));
        let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
        run(Command::new("ssh-keygen").args(["-q", "-N", "", "-t"]).args(kind.split(' ')).arg("-f").arg(&file));
        run(Command::new("ssh-add").arg("-q").arg(&file).env("SSH_AUTH_SOCK", &socket));
        let public = file.with_extension("pub");
        let key = std::fs::read_to_string(&public).unwrap();
        let _: Value = world.value(ADA, &Request::OperatorAdd { key });
        let keys = Keys { file: Some(public), agent: Some(socket.clone()), home: None };
        let opened = Remote { keys, ..world.remote(ADA) }.open();
        assert!(opened.is_ok(), "{kind}: {:?}", opened.err());
    }
}

#[test]
fn an_operator_who_asks_for_too_much_at_once_is_told_so_and_others_wait_for_nobody() {
    let world = World::new();
    let places: Vec<_> = std::iter::from_fn(|| world.plane.desk.enter()).collect();
    assert_eq!(places.len(), crate::operators::AT_ONCE);
    let trouble = world.ask(ADA, &Request::UserList {}).unwrap_err();
    assert!(trouble.exit == 1 && trouble.fix[0].contains("another node"), "{trouble:?}");
    drop(places);
    assert!(world.ask(ADA, &Request::UserList {}).is_ok());
}

/// Whatever two who remove each other at once see of each other, somebody is left.
#[test]
fn two_who_remove_each_other_at_once_do_not_leave_nobody() {
    let world = World::new();
    world.add(BOB, "bob");
    for _ in 0..200 {
        thread::scope(|scope| {
            for (number, other) in [(ADA, BOB), (BOB, ADA)] {
                let (desk, key) = (&world.plane.desk, public_line(other, ""));
                let who = Caller { name: format!("{number}"), key: Some(wire(number)) };
                let remove = Request::OperatorRemove { key, last: false };
                scope.spawn(move || desk.answer(&who, &remove, clock::unix(), &mut Vec::new()).is_ok());
            }
        });
        let listed = |number| world.plane.desk.is_operator(&wire(number)).unwrap();
        assert!(listed(ADA) || listed(BOB));
        for number in [ADA, BOB] {
            let add = Request::OperatorAdd { key: public_line(number, "") };
            assert_eq!(world.plane.desk.answer(&here(&world), &add, clock::unix(), &mut Vec::new()).unwrap(), 0);
        }
    }
}
