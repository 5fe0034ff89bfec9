//! Known clusters, objects, users, redaction, archives.

use proptest::prelude::*;
use serde_json::json;

use super::public_line;
use crate::certificates::DAY;
use crate::kubernetes::yaml;
use crate::operators::key::OperatorLine;
use crate::operators::known::{Known, Line, Meant, Unknown, fingerprint_text, read_fingerprint};
use crate::operators::objects::{OperatorObject, UserObject, operators, users};
use crate::operators::redact::{Redactor, redacted};
use crate::operators::tar;
use crate::operators::user::{Bound, Role, Wanted};
use crate::plan::record::Cluster;
use crate::token::fingerprint;

const NOW: u64 = 1_800_000_000;
const ONE: &str = "11111111111111111111111111111111";
const TWO: &str = "22222222222222222222222222222222";

fn known() -> Known {
    let line = |host: &str, cluster: &str, number| Line {
        host: host.to_owned(),
        cluster: cluster.to_owned(),
        fingerprint: [number; 16],
    };
    Known { lines: vec![line("10.0.0.10:7440", ONE, 1), line("cp-1.example:7440", TWO, 2)] }
}

#[test]
fn which_cluster_is_meant() {
    let meant = |known: &Known, host: &str, cluster: Option<&str>, said: Option<u8>| {
        known.meant(host, cluster, said.map(|number| [number; 16]))
    };
    let is = |number, cluster: Option<&str>, identity: Option<u8>| {
        let cluster = cluster.map(str::to_owned);
        Ok(Meant { fingerprint: [number; 16], cluster, identity: identity.map(|number| [number; 16]) })
    };
    let (known, new) = (known(), "10.0.0.99:7440");
    assert_eq!(meant(&known, "10.0.0.10:7440", None, None), is(1, Some(ONE), Some(1)));
    assert_eq!(meant(&known, new, Some(TWO), None), is(2, Some(TWO), Some(2)));
    assert_eq!(meant(&known, new, None, Some(9)), is(9, None, None));
    // What is said does not undo what is known: the identity stays the one that was seen.
    assert_eq!(meant(&known, "10.0.0.10:7440", None, Some(9)), is(9, Some(ONE), Some(1)));
    assert_eq!(meant(&known, new, Some(ONE), Some(9)), is(9, Some(ONE), Some(1)));
    assert_eq!(meant(&known, new, None, None), Err(Unknown::Host(new.into())));
    assert_eq!(meant(&known, new, Some(&"3".repeat(32)), None), Err(Unknown::Cluster("3".repeat(32))));
    assert!(matches!(meant(&known, "10.0.0.10:7440", Some(TWO), None), Err(Unknown::Other { .. })));
    // One cluster alone is meant by any address.
    let alone = Known { lines: known.lines[..1].to_vec() };
    assert_eq!(meant(&alone, new, None, None), is(1, Some(ONE), Some(1)));
    assert_eq!(meant(&Known::default(), new, None, None), Err(Unknown::Host(new.into())));
}

#[test]
fn what_is_shown_has_to_be_what_is_meant() {
    let cluster = Cluster::unsigned([0x11; 16], NOW, &[3; 32], &[4; 32]);
    let meant =
        |cluster: Option<&str>, identity| Meant { fingerprint: [0; 16], cluster: cluster.map(str::to_owned), identity };
    assert_eq!(meant(None, None).is(&cluster), Ok(()));
    assert_eq!(meant(Some(ONE), Some(fingerprint(&[4; 32]))).is(&cluster), Ok(()));
    assert!(meant(Some(TWO), None).is(&cluster).is_err());
    assert!(meant(Some(ONE), Some([9; 16])).is(&cluster).is_err());
}

#[test]
fn the_file_of_known_clusters_reads_back_and_learns() {
    let mut known = known();
    assert_eq!(Known::parse(&known.text()), Ok(known.clone()));
    insta::assert_snapshot!(known.text());
    assert!(!known.learn("10.0.0.10:7440", ONE, [1; 16]));
    assert!(known.learn("10.0.0.11:7440", ONE, [1; 16]));
    assert_eq!(known.lines.len(), 3);
    assert_eq!(Known::parse("\n# a comment\n"), Ok(Known::default()));
    for bad in ["a b", "a b c", &format!("a {ONE} xyz"), &format!("a {ONE} {ONE} d"), &format!("a 1 {ONE}")] {
        assert_eq!(Known::parse(bad), Err("line 1 can't be read".to_owned()), "{bad}");
    }
    assert_eq!(read_fingerprint(&fingerprint_text(&[0xab; 16]).to_uppercase()), Some([0xab; 16]));
    assert_eq!(read_fingerprint("+1111111111111111111111111111111"), None);
}

fn operator(number: u8, listed: bool) -> OperatorObject {
    let line = OperatorLine::parse(&public_line(number, "ada")).unwrap();
    OperatorObject { line, listed, by: "one".into(), since: NOW, version: Some("7".into()) }
}

fn wanted() -> Wanted {
    let groups = vec!["dev".to_owned()];
    Wanted { name: "bob".into(), groups, ttl: DAY, role: Role::Edit, namespace: Some("shop".into()), reserved: false }
}

#[test]
fn objects_are_what_kubectl_shows_and_read_back() {
    let user = UserObject::of(&wanted(), "one", NOW, None);
    let texts = [operator(1, true).object(), user.object(), wanted().binding()].map(|object| yaml::text(&object));
    insta::assert_snapshot!(texts.join("---\n"));
    for object in [operator(1, true), operator(2, false)] {
        assert_eq!(OperatorObject::read(&object.object()), Ok(object));
    }
    assert_eq!(UserObject::read(&user.object()), Ok(user.clone()));
    for field in ["key", "state", "by", "since"] {
        let mut changed = operator(1, true).object();
        changed["data"][field] = if field == "by" { json!(1) } else { json!("?") };
        assert!(OperatorObject::read(&changed).unwrap_err().contains(field), "{field}");
    }
    for field in ["name", "groups", "role", "state", "expires", "since"] {
        let mut changed = user.object();
        changed["data"][field] = json!("?");
        assert!(UserObject::read(&changed).unwrap_err().contains(field), "{field}");
    }
    // An object under another's name would outlive the removal of its own.
    let mut moved = operator(1, true).object();
    moved["metadata"]["name"] = operator(2, true).object()["metadata"]["name"].clone();
    assert!(OperatorObject::read(&moved).is_err());
}

#[test]
fn who_was_removed_is_none_whatever_the_settings_say() {
    let settings = [public_line(1, "ada"), public_line(2, "bob"), public_line(1, "twice"), "nonsense".to_owned()];
    let who = |objects: &[OperatorObject]| -> Vec<String> {
        operators(&settings, objects).into_iter().map(|(line, row)| format!("{} {}", row.from, line.key[50])).collect()
    };
    let last = |number| OperatorLine::parse(&public_line(number, "")).unwrap().key[50];
    assert_eq!(who(&[]), [format!("settings {}", last(1)), format!("settings {}", last(2))]);
    assert_eq!(who(&[operator(1, false)]), [format!("settings {}", last(2))]);
    let both = [operator(1, false), operator(3, true)];
    assert_eq!(who(&both), [format!("settings {}", last(2)), format!("cluster {}", last(3))]);
    assert_eq!(who(&[operator(1, true)]).len(), 2, "one that is in both is one");
}

#[test]
fn a_user_lives_as_long_as_the_longest_of_the_certificates() {
    let first = UserObject::of(&Wanted { ttl: 30 * DAY, ..wanted() }, "one", NOW, None);
    let other = Wanted { groups: vec!["ops".into()], ..wanted() };
    let second = UserObject::of(&other, "one", NOW + DAY, Some(&first));
    assert_eq!((second.expires, second.groups.clone()), (NOW + 30 * DAY, vec!["ops".to_owned(), "dev".to_owned()]));
    let later = UserObject::of(&other, "one", NOW + 31 * DAY, Some(&second));
    assert_eq!((later.expires, later.groups), (NOW + 32 * DAY, vec!["ops".to_owned()]));
    let revoked = UserObject { revoked: true, ..second };
    assert_eq!(users(std::slice::from_ref(&revoked), NOW).len(), 1);
    assert_eq!(users(&[revoked], NOW + 30 * DAY), [], "revoked, and no certificate is left");
}

#[test]
fn names_are_kept_from_what_kubernetes_means_by_them() {
    let check = |name: &str, group: &str| Wanted { name: name.into(), groups: vec![group.into()], ..wanted() }.check();
    assert!(check("bob@example.org", "oidc:dev").is_ok());
    for (name, group) in [
        ("system:admin", "dev"),
        ("bob", "system:masters"),
        ("bob", "kubeadm:cluster-admins"),
        ("operator:x", "dev"),
        ("kubeboot:x", "dev"),
        ("", "dev"),
        ("bob", ""),
        (".bob", "dev"),
        ("b/b", "dev"),
        ("b%2fb", "dev"),
        ("b b", "dev"),
        ("bob\n", "dev"),
        ("bøb", "dev"),
        (&"b".repeat(65), "dev"),
    ] {
        assert!(check(name, group).is_err(), "{name} {group}");
    }
    let with = |namespace: &str| Wanted { namespace: Some(namespace.into()), ..wanted() }.check();
    assert!(with("shop").is_ok() && with("../x").is_err() && with("a.b").is_err() && with("").is_err());
    assert!(Wanted { groups: vec!["a".into(); 2], ..wanted() }.check().is_err());
    assert!(Wanted { name: "system:x".into(), reserved: true, ..wanted() }.check().is_ok());
}

#[test]
fn only_what_kubeboot_made_for_a_user_is_its_own() {
    let mut hand_made = wanted().binding();
    hand_made["metadata"]["labels"] = json!({});
    let mut others = wanted().binding();
    others["subjects"][0]["name"] = json!("eve");
    let list = json!({"items": [wanted().binding(), hand_made, others, {"metadata": {"name": "empty"}}]});
    let found: Vec<(bool, String)> =
        Bound::among(&list, "bob").into_iter().map(|bound| (bound.own, bound.path())).collect();
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings/kubeboot:user:bob".to_owned();
    assert_eq!(found, [(true, path.clone()), (false, path)]);
    assert_eq!(Bound::among(&json!(null), "bob"), []);
}

#[test]
fn secrets_are_taken_out_of_lines_and_the_rest_stays() {
    let token = "kb1w-0abcd-0abcd-0abcd-0abcd";
    let gone = [
        format!("kubeboot.token={token} kubeboot.role=worker\n"),
        format!("joining with {token}.\n"),
        "Authorization: Bearer abc.def-ghi\n".to_owned(),
        "{\"password\": \"hunter2\", \"user\": \"bob\"}\n".to_owned(),
        "proxy http://bob:hunter2@proxy:3128/ is used\n".to_owned(),
        "eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl was sent\n".to_owned(),
        "KUBEBOOT_API_KEY=abcdef\n".to_owned(),
    ];
    insta::assert_snapshot!(gone.map(|line| redacted(&line)).concat());
    for plain in [
        "kubelet: node one is Ready (10.0.0.10)\n",
        "2027-01-15T08:00:00+0000 one systemd[1]: Started kubelet.service.\n",
        "GET https://10.0.0.10:6443/readyz answered 200\n",
        "no token is left\n",
    ] {
        let found = redacted(plain);
        assert!(found == plain || plain.contains("token"), "{found}");
    }
}

#[test]
fn a_private_key_is_taken_out_however_it_is_cut() {
    let text = "before\n-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\nByqGSM49\n-----END PRIVATE KEY-----\nafter\n";
    for cut in 0..text.len() {
        let mut redactor = Redactor::default();
        let mut out = redactor.take(&text.as_bytes()[..cut]);
        out.extend(redactor.take(&text.as_bytes()[cut..]));
        out.extend(redactor.end());
        assert_eq!(String::from_utf8(out).unwrap(), "before\n[redacted]\n[redacted]\nafter\n", "{cut}");
    }
}

#[test]
fn an_archive_is_what_tar_reads() {
    let archive = [tar::member("kubeboot/a", b"one\n", NOW), tar::end().to_vec()].concat();
    assert_eq!(archive.len(), 4 * 512);
    let sum: u32 = archive[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    assert_eq!(archive[148..154], *format!("{sum:06o}").as_bytes());
    assert_eq!(
        (&archive[..10], &archive[124..135], &archive[512..516]),
        (&b"kubeboot/a"[..], &b"00000000004"[..], &b"one\n"[..])
    );
    assert_eq!(tar::member(&"x".repeat(200), b"", u64::MAX).len(), 512);
}

proptest! {
    #[test]
    fn no_token_survives(before in "[ -~]{0,40}", digits in "[0-9a-z]{24}", after in "[ -~]{0,40}") {
        let line = format!("{before} kb1s-{digits} {after}");
        prop_assert!(!redacted(&line).contains(&digits));
    }

    #[test]
    fn no_text_makes_it_panic(text: String, bytes: Vec<u8>) {
        let _ = redacted(&text);
        let _ = Known::parse(&text);
        let mut redactor = Redactor::default();
        redactor.take(&bytes);
        redactor.end();
    }

    #[test]
    fn what_is_learned_is_read_back(host in "[a-z0-9.:-]{1,40}", fingerprint: [u8; 16]) {
        let mut known = known();
        known.learn(&host, ONE, fingerprint);
        prop_assert_eq!(Known::parse(&known.text()), Ok(known));
    }
}
