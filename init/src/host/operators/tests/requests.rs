//! What operators ask for, end to end.

use super::*;
use crate::certificates::{Authority, DAY, check};
use crate::enrolment::decision::NodeRecord;
use crate::host::api::Api;
use crate::host::enrolment::store::Store;
use crate::host::keys;
use crate::host::operators::kept;
use crate::host::operators::store::People;
use crate::kubernetes::kubeconfig;
use crate::operators::key::OperatorLine;
use crate::operators::objects::{Listed, UserListed};
use crate::operators::request::{Admits, Bytes};
use crate::operators::user::{self, Issued, Revoked, Role, Wanted};
use crate::token::{JoinToken, Joiner};

fn bob(role: Role) -> Wanted {
    let (name, groups) = ("bob".to_owned(), vec!["dev".to_owned()]);
    Wanted { name, groups, ttl: 30 * DAY, role, namespace: None, reserved: false }
}

/// Asks for a user, and gives what was issued with the private key.
fn create(world: &World, wanted: &Wanted) -> Result<Issued, Trouble> {
    let (der, _) = keys::signing_request(&wanted.request()).unwrap();
    let request = Request::UserCreate { user: wanted.clone(), certificate_request: Bytes(der) };
    world.ask(ADA, &request).map(|(text, _)| serde_json::from_str(&text).unwrap())
}

#[test]
fn an_operator_gets_a_kubeconfig_whose_key_was_never_sent() {
    let world = World::new();
    let (der, key) = keys::signing_request(&user::asked_by_operator()).unwrap();
    let request = Request::Kubeconfig { certificate_request: Bytes(der), ttl: 7 * DAY };
    let issued: Issued = world.value(ADA, &request);
    let found = check::inspect(issued.certificate.as_bytes()).unwrap();
    let authority = check::inspect(issued.authority.as_bytes()).unwrap();
    let who = crate::enrolment::ssh::fingerprint(&wire(ADA));
    let expected = user::of_operator(&who, 7 * DAY);
    assert_eq!(check::leaf(&found, &authority, &expected, clock::unix()), Ok(()));
    assert_eq!(check::public_half(key.as_bytes()), Ok(found.public_key.clone()));
    assert_eq!(issued.user, format!("operator:{}", &who["SHA256:".len()..][..12]));
    assert_eq!(found.organizations, ["kubeadm:cluster-admins"]);

    // kubectl's and our own client read it; one context for each control plane.
    let servers: Vec<String> = issued.servers.iter().map(|server| format!("https://{server}")).collect();
    let (ca, certificate) = (issued.authority.as_bytes(), issued.certificate.as_bytes());
    let text = kubeconfig::of_person(&issued.user, &servers, ca, certificate, key.as_bytes());
    let path = world.folder.path().join("kubeconfig");
    std::fs::write(&path, text.as_bytes()).unwrap();
    assert_eq!(Api::from_kubeconfig(&path).unwrap().server(), "https://10.0.0.11:6443");
    assert_eq!(text.matches("client-key-data").count(), 1);
    assert!(text.contains("kubernetes-10.0.0.12-6443\"\n"), "{}", text.as_str());

    let line = world.logged(": kubeconfig: done");
    assert!(line.contains(&who) && line.contains("127.0.0.1"), "{line}");
    assert!(!line.contains("PRIVATE"));
    // A private key in a request's place, or too long a life, is refused before anything is signed.
    for (der, ttl) in [(b"-----BEGIN PRIVATE KEY-----".to_vec(), DAY), (Vec::new(), DAY)] {
        let request = Request::Kubeconfig { certificate_request: Bytes(der), ttl };
        assert_eq!(world.ask(ADA, &request).unwrap_err().exit, 2);
    }
}

#[test]
fn the_first_time_a_fingerprint_is_said_and_then_it_is_known() {
    let world = World::new();
    let status = Request::Status { why: true, json: true };
    let mut remote = world.remote(ADA);
    remote.fingerprint = None;
    let trouble = remote.open().err().unwrap();
    assert_eq!(trouble.exit, 2);
    assert!(trouble.fix[0].contains("--fingerprint"), "{trouble:?}");
    assert!(!world.known().exists());

    assert_eq!(world.ask(ADA, &status).unwrap(), ("status --why --output=json\n".to_owned(), 0));
    assert_eq!(mode(&world.known()), 0o600);
    let known = std::fs::read_to_string(world.known()).unwrap();
    assert!(known.contains(&format!("{} {}", world.address, world.plane.this.cluster.id)), "{known}");
    assert!(remote.open().is_ok());
    // By a token's fingerprint, which is the founding key's, the identity's is learned.
    std::fs::remove_file(world.known()).unwrap();
    let founding = Founded::of(&world.plane.this.cluster).unwrap().founding_key;
    let by_token = Remote { fingerprint: Some(fingerprint(&founding)), ..remote.clone() };
    assert!(by_token.open().is_ok());
    assert_eq!(std::fs::read_to_string(world.known()).unwrap(), known);
}

#[test]
fn operators_are_added_listed_and_removed_for_good() {
    let world = World::new();
    let trouble = world.ask(BOB, &Request::OperatorList {}).unwrap_err();
    assert_eq!((trouble.exit, trouble.why[0].as_str()), (7, "this ssh key is no operator's of the cluster"));
    world.add(BOB, "bob@example");
    let rows: Vec<Listed> = world.value(BOB, &Request::OperatorList {});
    let seen: Vec<_> = rows.iter().map(|row| (row.comment.as_str(), row.from.as_str())).collect();
    assert_eq!(seen, [("ada", "settings"), ("bob@example", "cluster")]);
    let again: Value = world.value(BOB, &Request::OperatorAdd { key: public_line(BOB, "another comment") });
    assert_eq!(again["added"], json!(false));

    // Bob removes Ada, although the settings name her.
    let remove = |key: &str, last| Request::OperatorRemove { key: key.to_owned(), last };
    let removed: Value = world.value(BOB, &remove(&rows[0].fingerprint, false));
    assert_eq!(removed["left"], json!(1));
    assert_eq!(world.ask(ADA, &Request::OperatorList {}).unwrap_err().exit, 7);
    // This machine's next boot knows it, too, and makes her no certificate.
    let mut settings = world.plane.this.settings.clone();
    kept::apply(&Root::at(world.folder.path().join("root")), &mut settings);
    assert_eq!(settings.operator, [] as [String; 0]);
    // He can't remove himself by mistake, and can if he means it; by the key, too.
    let trouble = world.ask(BOB, &remove(&public_line(BOB, ""), false)).unwrap_err();
    assert!(trouble.exit == 2 && trouble.fix[0].contains("--yes-remove-the-last"), "{trouble:?}");
    assert!(world.ask(BOB, &Request::OperatorList {}).is_ok());
    let removed: Value = world.value(BOB, &remove(&rows[1].fingerprint, true));
    assert_eq!(removed["left"], json!(0));
    assert_eq!(world.ask(BOB, &Request::OperatorList {}).unwrap_err().exit, 7);
    // Root on a control plane is the way back.
    let mut answer = Vec::new();
    let add = Request::OperatorAdd { key: public_line(ADA, "ada") };
    assert_eq!(world.plane.desk.answer(&here(&world), &add, clock::unix(), &mut answer).unwrap(), 0);
    assert!(world.ask(ADA, &Request::OperatorList {}).is_ok());
    let mut settings = world.plane.this.settings.clone();
    kept::apply(&Root::at(world.folder.path().join("root")), &mut settings);
    assert_eq!(settings.operator, world.plane.this.settings.operator);
    let trouble = world.ask(ADA, &remove("SHA256:nobody", false)).unwrap_err();
    assert!(trouble.why[0].contains("no such operator"));
    // Who is none yet can be removed all the same, by the whole key: another control plane's settings may name it.
    let carl = public_line(CARL, "carl");
    let removed: Value = world.value(ADA, &remove(&carl, false));
    assert_eq!(removed["left"], json!(1));
    let people = People::new(world.objects.clone());
    assert_eq!(people.adopt_operator(&OperatorLine::parse(&carl).unwrap(), "the settings of two", 4), Ok(false));
    let trouble = world.ask(ADA, &remove(&carl, false)).unwrap_err();
    assert!(trouble.why[0].contains("no such operator"), "it is removed already: {trouble:?}");
}

/// Whoever is lost later: one that joined and whose API server does not serve yet, too.
#[test]
fn a_kubeconfig_has_every_control_plane_on_record() {
    let world = World::new();
    let store = Store::new(world.objects.clone());
    for (name, role, last) in
        [("cp-2", Joiner::ControlPlane, 12), ("cp-3", Joiner::ControlPlane, 13), ("w-1", Joiner::Worker, 14)]
    {
        let record = NodeRecord { name: name.into(), role, key: [last; 32], address: [10, 0, 0, last].into() };
        store.record(&record, 1).unwrap();
    }
    let (der, _) = keys::signing_request(&user::asked_by_operator()).unwrap();
    let issued: Issued = world.value(ADA, &Request::Kubeconfig { certificate_request: Bytes(der), ttl: DAY });
    let servers: Vec<String> = issued.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.0.11:6443", "10.0.0.12:6443", "10.0.0.13:6443"]);
}

#[test]
fn operators_of_the_settings_are_put_on_record_once() {
    let world = World::new();
    let rows = || -> Vec<Listed> { world.value(ADA, &Request::OperatorList {}) };
    assert_eq!(rows()[0].from, "settings");
    world.plane.desk.adopt(1).unwrap();
    let first = rows();
    let seen: Vec<_> = first.iter().map(|row| [&row.comment, &row.from, &row.by].map(String::as_str)).collect();
    assert_eq!(seen, [["ada", "cluster", "the settings of one"]]);
    world.plane.desk.adopt(2).unwrap();
    assert_eq!(rows(), first, "nothing is left to do");
    // Who is removed is not put on record again, though the settings name her.
    world.add(BOB, "bob");
    let _: Value = world.value(BOB, &Request::OperatorRemove { key: first[0].fingerprint.clone(), last: false });
    world.plane.desk.adopt(3).unwrap();
    assert_eq!(world.ask(ADA, &Request::OperatorList {}).unwrap_err().exit, 7);
    // Nor by who has looked before she was removed.
    let people = People::new(world.objects.clone());
    let line = OperatorLine::parse(&public_line(ADA, "another comment")).unwrap();
    assert_eq!(people.adopt_operator(&line, "the settings of one", 4), Ok(false));
    assert!(people.operator(&line.key).unwrap().is_some_and(|ada| !ada.listed));
}

#[test]
fn a_user_is_made_bound_and_revoked_with_honest_words() {
    let world = World::new();
    let issued = create(&world, &bob(Role::View)).unwrap();
    let found = check::inspect(issued.certificate.as_bytes()).unwrap();
    let ca = check::inspect(issued.authority.as_bytes()).unwrap();
    assert_eq!(check::leaf(&found, &ca, &bob(Role::View).request(), clock::unix()), Ok(()));
    assert_eq!((issued.user.as_str(), issued.servers.len(), issued.notes.len()), ("bob", 2, 0));
    let bindings = || world.bindings.0.lock().unwrap().clone();
    insta::assert_json_snapshot!(bindings());

    // Another role takes another binding; in a namespace, it leaves none behind in the cluster.
    let in_shop = Wanted { namespace: Some("shop".into()), ttl: DAY, ..bob(Role::Edit) };
    assert_eq!(create(&world, &in_shop).unwrap().notes, [] as [String; 0]);
    let now: Vec<String> = bindings().into_keys().collect();
    assert_eq!(now, ["/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings/kubeboot:user:bob"]);
    let edit = create(&world, &bob(Role::Edit)).unwrap();
    assert!(edit.notes[0].contains("can make itself the cluster's administrator"));

    let rows: Vec<UserListed> = world.value(ADA, &Request::UserList {});
    assert_eq!((rows.len(), rows[0].role, rows[0].revoked), (1, Role::Edit, false));
    // Somebody bound him by hand.
    let by_hand = json!({"metadata": {"name": "by-hand"}, "roleRef": {"name": "admin"},
        "subjects": [{"kind": "User", "name": "bob"}]});
    world.bindings.apply(&by_hand).unwrap();
    let revoked: Revoked = world.value(ADA, &Request::UserRevoke { name: "bob".into() });
    assert_eq!(revoked.left, ["clusterrolebinding by-hand"]);
    assert_eq!(revoked.certificate_until, Some(rows[0].expires.clone()), "the longest-lived of his certificates");
    let text = revoked.text();
    assert!(text.contains("Kubernetes can't take it back") && text.contains("dev"), "{text}");
    assert_eq!(bindings().len(), 1);
    let rows: Vec<UserListed> = world.value(ADA, &Request::UserList {});
    assert!(rows[0].revoked);
    let nobody = world.ask(ADA, &Request::UserRevoke { name: "eve".into() }).unwrap_err();
    assert!(nobody.why[0].contains("nobody is known as eve"));
}

#[test]
fn nobody_becomes_a_part_of_kubernetes_by_its_name() {
    let world = World::new();
    let node = Wanted { name: "system:node:one".into(), groups: vec!["system:nodes".into()], ..bob(Role::View) };
    for wanted in [
        node.clone(),
        Wanted { name: "system:admin".into(), ..bob(Role::View) },
        Wanted { groups: vec!["system:masters".into()], ..bob(Role::View) },
        Wanted { groups: vec!["kubeadm:cluster-admins".into()], ..bob(Role::View) },
        Wanted { name: "operator:5C+RSPN3nlxu".into(), ..bob(Role::View) },
        Wanted { name: "../bob".into(), ..bob(Role::View) },
        Wanted { name: String::new(), ..bob(Role::View) },
    ] {
        // By the client's own check, and by the server's where a client has none.
        let trouble = create(&world, &wanted).unwrap_err();
        assert_eq!(trouble.exit, 2, "{wanted:?}");
        let (der, _) = keys::signing_request(&wanted.request()).unwrap();
        let request = Request::UserCreate { user: wanted, certificate_request: Bytes(der) };
        let answered = world.plane.desk.answer(&here(&world), &request, clock::unix(), &mut Vec::new());
        assert!(matches!(answered, Err(Halt::Trouble(trouble)) if trouble.exit == 2));
    }
    assert!(world.bindings.0.lock().unwrap().is_empty());
    assert!(create(&world, &Wanted { reserved: true, ..node }).is_ok());
    // What is certified is what was asked for in words, not what the certificate request says.
    let (der, _) = keys::signing_request(&bob(Role::View).request()).unwrap();
    let eve = Wanted { name: "eve".into(), ..bob(Role::View) };
    let request = Request::UserCreate { user: eve, certificate_request: Bytes(der) };
    assert!(world.ask(ADA, &request).unwrap_err().why[0].contains("expected the subject"));
}

#[test]
fn a_token_is_made_where_it_is_asked_for_and_its_public_half_alone_is_sent() {
    let world = World::new();
    let link = world.open(ADA);
    let identity = Founded::of(&link.cluster).unwrap().identity_key;
    let token = JoinToken::new(Joiner::Worker, [3; SECRET], &identity);
    let key = Bytes(token.join_key().public().to_vec());
    let request = Request::TokenCreate { role: Admits::Worker, key, ttl: DAY, uses: Some(2) };
    assert_eq!(link.ask(&request, &mut Vec::new()).unwrap(), 0);
    let listed: Value = world.value(ADA, &Request::TokenList {});
    let row = &listed["tokens"][0];
    assert_eq!((row["uses-left"].as_u64(), row["role"].as_str()), (Some(2), Some("worker")));
    assert!(row["from"].as_str().unwrap().starts_with("SHA256:"), "{row}");
    let id = row["id"].as_str().unwrap().to_owned();
    assert_eq!(world.value::<Value>(ADA, &Request::TokenRevoke { id: id.clone() })["revoked"], json!(id));
    assert!(world.ask(ADA, &Request::TokenRevoke { id }).unwrap_err().why[0].contains("there is no token"));
    assert_eq!(world.ask(ADA, &Request::TokenRevoke { id: "../node-one".into() }).unwrap_err().exit, 2);
}

#[test]
fn logs_are_asked_of_journalctl_and_a_unit_is_no_option() {
    let world = World::new();
    let logs = |unit: Option<&str>| Request::Logs { unit: unit.map(str::to_owned), follow: false, lines: 5 };
    let (text, _) = world.ask(ADA, &logs(Some("kubelet"))).unwrap();
    assert_eq!(text, "--no-pager --quiet --output=short-iso --lines=5 --unit=kubelet\n");
    for unit in ["--file=/etc/kubernetes/pki/ca.key", "a b", "", "*", "a/b"] {
        assert_eq!(world.ask(ADA, &logs(Some(unit))).unwrap_err().exit, 2, "{unit}");
    }
}

#[test]
fn who_is_removed_while_following_hears_no_more() {
    // It goes on and on.
    let journalctl = ["sh", "-c", "yes"].map(str::to_owned).into();
    let world = World::with(Programs { journalctl, ..programs() });
    world.add(BOB, "bob");
    let followed = Request::Logs { unit: None, follow: true, lines: 1 };
    std::thread::scope(|scope| {
        let following = scope.spawn(|| world.ask(BOB, &followed));
        world.logged(&format!("admitted operator {}", crate::enrolment::ssh::fingerprint(&wire(BOB))));
        let remove = Request::OperatorRemove { key: public_line(BOB, ""), last: false };
        let _: Value = world.value(ADA, &remove);
        let trouble = following.join().unwrap().unwrap_err();
        assert_eq!(trouble.exit, 7);
    });
    world.logged("logs: not done");
}

#[test]
fn a_support_bundle_has_no_secret_in_it() {
    let world = World::new();
    let root = Root::at(world.folder.path().join("root"));
    let secrets =
        ["/etc/kubernetes/pki/ca.key", "/etc/kubernetes/pki/sa.key", paths::IDENTITY_KEY, "/etc/kubernetes/admin.conf"];
    // Somebody logged what he should not have.
    let event = "{\"what\": \"kubeboot.token=kb1w-00000-00000-00000-00000\"}\n";
    std::fs::write(root.path(paths::EVENTS), event).unwrap();
    let mut packed = Vec::new();
    assert_eq!(world.open(ADA).ask(&Request::SupportBundle {}, &mut packed).unwrap(), 0);
    let mut bundle = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[..]), &mut bundle).unwrap();
    for name in
        ["var/lib/kubeboot/cluster.json", "status.json", "journal.txt", "nodes.json", "run/kubeboot/events.jsonl"]
    {
        assert!(bundle.contains(&format!("kubeboot/{name}\0")), "{name} is missing");
    }
    assert!(bundle.contains("[redacted]") && !bundle.contains("kb1w-00000"));
    assert!(!bundle.contains("PRIVATE KEY"));
    for path in secrets {
        let secret = std::fs::read_to_string(root.path(path)).unwrap();
        let line = secret.lines().find(|line| line.len() > 40 && !line.contains("-----")).unwrap();
        assert!(!bundle.contains(line.trim()), "{path}");
    }
    assert!(Authority::ALL.iter().all(|authority| !bundle.contains(authority.key())));
}

#[test]
fn while_the_api_is_down_logs_are_served_and_nothing_is_issued() {
    let world = World::new();
    world.add(BOB, "bob");
    *world.objects.down.lock().unwrap() = true;
    assert!(world.ask(BOB, &Request::Status { why: false, json: false }).is_ok());
    let (der, _) = keys::signing_request(&user::asked_by_operator()).unwrap();
    let request = Request::Kubeconfig { certificate_request: Bytes(der), ttl: DAY };
    assert!(world.ask(BOB, &request).unwrap_err().why[0].contains("no API server answers"));
    // Who was removed before it went down stays so.
    *world.objects.down.lock().unwrap() = false;
    let _: Value = world.value(ADA, &Request::OperatorRemove { key: public_line(BOB, ""), last: false });
    assert_eq!(world.ask(BOB, &Request::OperatorList {}).unwrap_err().exit, 7);
    *world.objects.down.lock().unwrap() = true;
    assert_eq!(world.ask(BOB, &Request::Status { why: false, json: false }).unwrap_err().exit, 7);
}
