//! A control plane whose API server has not answered since it started: what is known on its disk counts, and nothing is
//! issued.

use super::*;
use crate::enrolment::failure::Failure;
use crate::enrolment::message::Refusal;
use crate::host::enrolment::cluster::Enrolment;
use crate::host::enrolment::tests::join;
use crate::operators::request::{Admits, Bytes};
use crate::token::{Joiner, Seed};

fn status() -> Request {
    Request::Status { why: false, json: false }
}

/// The agent has started again, and the API does not answer.
fn started_again(world: &World) -> Desk {
    *world.objects.down.lock().unwrap() = true;
    let root = Root::at(world.folder.path().join("root"));
    Desk::over(&root, &world.plane.this, world.objects.clone(), world.bindings.clone(), programs())
}

fn caller(number: u8) -> Caller {
    Caller { name: format!("{number}"), key: Some(wire(number)) }
}

fn ask(desk: &Desk, number: u8, request: &Request) -> Result<u8, Trouble> {
    match desk.answer(&caller(number), request, clock::unix(), &mut Vec::new()) {
        Ok(code) => Ok(code),
        Err(Halt::Trouble(trouble)) => Err(trouble),
        Err(Halt::Gone) => panic!("nobody took the answer"),
    }
}

#[test]
fn operators_that_were_seen_last_look_at_the_machine_and_get_nothing_issued() {
    let world = World::new();
    world.add(BOB, "bob");
    let desk = started_again(&world);
    assert_eq!(desk.is_operator(&wire(ADA)), Ok(true), "whom the settings name");
    assert_eq!(desk.is_operator(&wire(BOB)), Ok(true), "whom the cluster had on record");
    assert_eq!(desk.is_operator(&wire(3)), Ok(false));
    let logs = Request::Logs { unit: None, follow: false, lines: 5 };
    for request in [status(), logs, Request::SupportBundle {}] {
        assert_eq!(ask(&desk, BOB, &request), Ok(0), "{request}");
    }
    let (der, _) = crate::host::keys::signing_request(&crate::operators::user::asked_by_operator()).unwrap();
    let create = Request::TokenCreate { role: Admits::Worker, key: Bytes(vec![7; 32]), ttl: 60, uses: None };
    let kubeconfig = Request::Kubeconfig { certificate_request: Bytes(der), ttl: 60 };
    for request in [create, kubeconfig, Request::OperatorAdd { key: public_line(3, "carl") }, Request::TokenList {}] {
        let trouble = ask(&desk, ADA, &request).unwrap_err();
        assert!(trouble.exit == 1 && trouble.why[0].contains("no API server answers"), "{trouble:?}");
    }
}

#[test]
fn who_was_removed_stays_so_without_an_api() {
    let world = World::new();
    world.add(BOB, "bob");
    let remove = |key: String| Request::OperatorRemove { key, last: false };
    let _: Value = world.value(BOB, &remove(public_line(ADA, "")));
    let desk = started_again(&world);
    assert_eq!(desk.is_operator(&wire(ADA)), Ok(false), "although the settings name her");
    assert_eq!(ask(&desk, ADA, &status()).unwrap_err().exit, 7);
    assert_eq!(desk.is_operator(&wire(BOB)), Ok(true));
    // Once the API answers, it alone says.
    *world.objects.down.lock().unwrap() = false;
    let _: Value = world.value(BOB, &Request::OperatorAdd { key: public_line(ADA, "ada") });
    assert_eq!(desk.is_operator(&wire(ADA)), Ok(true));
    assert_eq!(mode(&world.folder.path().join("root/var/lib/kubeboot/listed-operators")), 0o600);
}

#[test]
fn no_machine_is_taken_in_before_the_api_server_has_answered() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::at(folder.path());
    let this = fixture::found(&root);
    let enrolment = Arc::new(Enrolment::new(&root, &this, fixture::client(&root), None).unwrap());
    assert!(!enrolment.is_open());
    let address = fixture::serve(&enrolment);
    let token = || Seed::new(fixture::SEED).join_token(Joiner::Worker);
    let joined = join(&address, "w-1", 21, token());
    assert!(
        matches!(joined, Err(Failure::Refused { refusal: Refusal::Busy, .. })),
        "it was taken in, or refused for ever"
    );
    enrolment.open();
    assert!(enrolment.is_open());
}
