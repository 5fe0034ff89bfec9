//! Every state of a token × every state of a name × every purpose, through whole exchanges, as a reviewed table.

use std::fmt::Write;

use super::world::*;
use crate::enrolment::decision::{Admission, Found, Origin, Site, TokenRecord, WINDOW, decide};
use crate::enrolment::failure::Failure;
use crate::enrolment::joiner::Credential;
use crate::enrolment::message::{Ask, Message, Purpose};
use crate::enrolment::reason::Reason;
use crate::release::Version;
use crate::token::{JoinToken, Joiner as Role, SECRET};

/// What a token can be.
#[derive(Debug, Clone, Copy)]
enum TokenState {
    Unknown,
    WrongSignature,
    CreatedForAnyNumber,
    CreatedForOne,
    Expired,
    UsedUp,
    FoundingOpen,
    FoundingOver,
    FoundingFull,
    /// The record was edited to live longer than the window.
    FoundingProlonged,
    OfTheOtherRole,
}

/// What a name and a node key can be.
#[derive(Debug, Clone, Copy)]
enum NameState {
    Free,
    Mine,
    MineInTheOtherRole,
    Anothers,
    ImAnother,
    Removed,
    /// Removed, and its record not deleted yet.
    RemovedAndMine,
}

const TOKENS: [TokenState; 11] = [
    TokenState::Unknown,
    TokenState::WrongSignature,
    TokenState::CreatedForAnyNumber,
    TokenState::CreatedForOne,
    TokenState::Expired,
    TokenState::UsedUp,
    TokenState::FoundingOpen,
    TokenState::FoundingOver,
    TokenState::FoundingFull,
    TokenState::FoundingProlonged,
    TokenState::OfTheOtherRole,
];

const NAMES: [NameState; 7] = [
    NameState::Free,
    NameState::Mine,
    NameState::MineInTheOtherRole,
    NameState::Anothers,
    NameState::ImAnother,
    NameState::Removed,
    NameState::RemovedAndMine,
];

fn other(role: Role) -> Role {
    match role {
        Role::Worker => Role::ControlPlane,
        Role::ControlPlane => Role::Worker,
    }
}

fn prepare(world: &mut World, role: Role, token: TokenState, name: NameState) -> JoinToken {
    let soon = NOW + HOUR;
    let founding = |world: &mut World, change: &dyn Fn(&mut TokenRecord)| {
        world.tokens.iter_mut().filter(|token| token.kind == role).for_each(change);
        world.seed.join_token(role)
    };
    let long_ago = NOW - 2 * WINDOW;
    let token = match token {
        TokenState::Unknown => JoinToken::new(role, [9; SECRET], &world.cluster.identity_key),
        TokenState::WrongSignature | TokenState::CreatedForOne => world.create(role, 9, soon, Some(1)),
        TokenState::CreatedForAnyNumber => world.create(role, 9, soon, None),
        TokenState::Expired => world.create(role, 9, NOW, Some(1)),
        TokenState::UsedUp => world.create(role, 9, soon, Some(0)),
        TokenState::FoundingOpen => founding(world, &|token| token.uses_left = Some(2)),
        TokenState::FoundingFull => founding(world, &|token| token.uses_left = Some(0)),
        TokenState::FoundingOver => {
            world.site.founded = long_ago;
            founding(world, &|token| token.expires = long_ago + WINDOW)
        }
        TokenState::FoundingProlonged => {
            world.site.founded = long_ago;
            founding(world, &|token| token.expires = soon)
        }
        TokenState::OfTheOtherRole => {
            let token = world.create(role, 9, soon, Some(1));
            world.tokens.last_mut().unwrap().kind = other(role);
            token
        }
    };
    let taken = node("n", role, 21);
    match name {
        NameState::Free => {}
        NameState::Mine => world.nodes.push(taken),
        NameState::MineInTheOtherRole => world.nodes.push(node("n", other(role), 21)),
        NameState::Anothers => world.nodes.push(node("n", role, 22)),
        NameState::ImAnother => world.nodes.push(node("m", role, 21)),
        NameState::Removed => world.removed.push(taken.key),
        NameState::RemovedAndMine => {
            world.removed.push(taken.key);
            world.nodes.push(taken);
        }
    }
    token
}

/// One exchange: what the joiner was answered, whether a use was taken, and what was logged.
fn exchange(purpose: Purpose, token: TokenState, name: NameState) -> String {
    let mut world = World::new();
    let role = if let Purpose::Join(role) = purpose { role } else { Role::Worker };
    let secret = prepare(&mut world, role, token, name);
    let before = world.tokens.clone();
    let ended = match purpose {
        Purpose::Join(_) => {
            let mut wire = |way, turn, message: Vec<u8>| match (token, way, turn) {
                (TokenState::WrongSignature, Way::ToServer, 1) => Some(spoilt(&message)),
                _ => Some(message),
            };
            Attempt::new(machine("n", 21), Credential::Token(secret), key(21), &mut wire).run(&mut world)
        }
        _ => come_back(&mut world, "n", 21),
    };
    let took = if before == world.tokens { "" } else { ", a use is taken" };
    match &ended.joiner {
        Ok(enrolled) => format!("Grant as {:?}{took}", enrolled.grant.role),
        Err(Failure::Refused { refusal, .. }) => {
            let logged = ended.logged();
            let (_, why) = logged.split_once(": ").unwrap();
            format!("{refusal:?}{took}; logged: {why}")
        }
        Err(other) => panic!("{purpose:?} {token:?} {name:?}: {other:?}"),
    }
}

fn spoilt(message: &[u8]) -> Vec<u8> {
    let Message::Ask(mut ask) = decode(message) else { panic!("no request") };
    ask.token.as_mut().unwrap().signature[7] ^= 1;
    Message::Ask(ask).encode().unwrap().to_vec()
}

/// Names with the same outcome share a line.
fn lines(table: &mut String, purpose: Purpose, token: TokenState) {
    let mut rows: Vec<(String, Vec<NameState>)> = Vec::new();
    for name in NAMES {
        let outcome = exchange(purpose, token, name);
        match rows.iter_mut().find(|(row, _)| *row == outcome) {
            Some((_, names)) => names.push(name),
            None => rows.push((outcome, vec![name])),
        }
    }
    for (outcome, names) in rows {
        writeln!(table, "  {names:?}: {outcome}").unwrap();
    }
}

#[test]
fn every_token_and_name_has_its_answer() {
    let mut table = String::new();
    for role in [Role::Worker, Role::ControlPlane] {
        for token in TOKENS {
            writeln!(table, "{role:?} with a token {token:?}").unwrap();
            lines(&mut table, Purpose::Join(role), token);
        }
    }
    writeln!(table, "Return").unwrap();
    lines(&mut table, Purpose::Return, TokenState::Unknown);
    insta::assert_snapshot!(table);
}

fn ask() -> Ask {
    Ask {
        time: NOW,
        name: "w-1".into(),
        address: [192, 0, 2, 21].into(),
        release: "1.37.2-4".parse().unwrap(),
        node_key: key(21).public(),
        requests: [const { Vec::new() }; 4],
        node_signature: [0; 64],
        token: None,
    }
}

fn found(role: Role) -> Found {
    let (key, origin) = (key(9).public(), Origin::Created { by: "ada".into() });
    let token = TokenRecord { kind: role, key, expires: NOW + HOUR, uses_left: Some(1), origin };
    Found { token: Some(token), ..Found::default() }
}

fn decided(role: Role, change: impl FnOnce(&mut Site, &mut Ask, &mut Found)) -> Result<Admission, Reason> {
    let world = World::new();
    let (mut site, mut ask, mut found) = (world.site, ask(), found(role));
    change(&mut site, &mut ask, &mut found);
    decide(&site, NOW, Purpose::Join(role), &ask, true, &found)
}

#[test]
fn minors_go_together_as_kubernetes_has_it() {
    let mut table = String::new();
    let version = |minor: u32| Version { major: 1, minor, patch: 2, build: 4 };
    for role in [Role::Worker, Role::ControlPlane] {
        for (oldest, newest) in [(37, 37), (36, 37)] {
            let good: Vec<u32> = (30..40)
                .filter(|minor| {
                    let decided = decided(role, |site, ask, _| {
                        site.oldest = version(oldest);
                        site.newest = version(newest);
                        ask.release = version(*minor);
                    });
                    decided.is_ok()
                })
                .collect();
            writeln!(table, "{role:?} with API servers 1.{oldest} to 1.{newest}: {good:?}").unwrap();
        }
    }
    insta::assert_snapshot!(table, @r"
    Worker with API servers 1.37 to 1.37: [34, 35, 36, 37]
    Worker with API servers 1.36 to 1.37: [34, 35, 36]
    ControlPlane with API servers 1.37 to 1.37: [37]
    ControlPlane with API servers 1.36 to 1.37: [36, 37]
    ");
    // A worker that returns runs already.
    let returning = |minor| {
        let (mut site, mut asked) = (World::new().site, ask());
        (site.oldest, site.newest, asked.release) = (version(36), version(37), version(minor));
        let record = crate::enrolment::decision::NodeRecord {
            name: asked.name.clone(),
            role: Role::Worker,
            key: asked.node_key,
            address: asked.address,
        };
        let found = Found { named: Some(record.clone()), keyed: Some(record), ..Found::default() };
        decide(&site, NOW, Purpose::Return, &asked, false, &found).is_ok()
    };
    assert_eq!((30..40).filter(|minor| returning(*minor)).collect::<Vec<_>>(), [34, 35, 36, 37]);
    let next = decided(Role::Worker, |_, ask, _| ask.release.major = 2);
    assert!(matches!(next, Err(Reason::Skew { .. })));
}

#[test]
fn clocks_may_differ_by_ten_minutes() {
    for (time, good) in [(NOW - 600, true), (NOW + 600, true), (NOW - 601, false), (NOW + 601, false), (0, false)] {
        let decided = decided(Role::Worker, |_, ask, _| ask.time = time);
        assert_eq!(decided.is_ok(), good, "{time}");
        assert!(good || matches!(decided, Err(Reason::Clock { .. })));
    }
}

#[test]
fn an_address_is_a_machines_own() {
    let asked = |text: &str| decided(Role::Worker, |_, ask, _| ask.address = text.parse().unwrap());
    for bad in [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "169.254.0.1",
        "fe80::1",
        "255.255.255.255",
        "10.96.0.1",
        "10.244.3.4",
    ] {
        assert_eq!(asked(bad), Err(Reason::Address(bad.parse().unwrap())), "{bad}");
    }
    assert!(asked("2001:db8::1").is_ok());
    let taken = decided(Role::Worker, |_, _, found| found.address_of = Some("cp-1".into()));
    assert!(matches!(taken, Err(Reason::AddressTaken { by, .. }) if by == "cp-1"));
}

#[test]
fn a_worker_may_move_and_a_control_plane_may_not() {
    for role in [Role::Worker, Role::ControlPlane] {
        let moved = decided(role, |_, ask, found| {
            let mut node = node("w-1", role, 21);
            found.named = Some(node.clone());
            ask.address = [192, 0, 2, 99].into();
            node.address = [192, 0, 2, 21].into();
            found.keyed = Some(node);
        });
        match role {
            Role::Worker => assert_eq!(moved.unwrap().node.address, std::net::IpAddr::from([192, 0, 2, 99])),
            Role::ControlPlane => assert!(matches!(moved, Err(Reason::Moved { .. }))),
        }
    }
}

#[test]
fn a_new_name_is_one_that_kubernetes_takes() {
    for bad in ["", "Upper", "under_score", "-hyphen", "two..dots"] {
        let decided = decided(Role::Worker, |_, ask, _| ask.name = bad.into());
        assert!(matches!(decided, Err(Reason::Name(_))), "{bad}");
    }
}

/// Who has no token learns nothing of names, addresses, versions or clocks.
#[test]
fn a_bad_token_is_all_that_is_said() {
    let decided = decided(Role::Worker, |_, ask, found| {
        ask.time = 0;
        ask.release.minor = 1;
        ask.address = [127, 0, 0, 1].into();
        ask.name = "cp-1".into();
        found.named = Some(node("cp-1", Role::ControlPlane, 10));
        found.token = None;
    });
    assert!(matches!(decided, Err(Reason::Token(_))));
}
