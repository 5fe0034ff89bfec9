//! Two control planes' desks behind a real etcd and a real API server, and what becomes of what they issue.

use std::process::Command;

use super::*;
use crate::certificates::{DAY, Request as Certificate};
use crate::host::api::Api;
use crate::host::enrolment::cluster::Enrolment;
use crate::host::keys;
use crate::kubernetes::kubeconfig;
use crate::operators::objects::{Listed, UserListed};
use crate::operators::request::{Admits, Bytes};
use crate::operators::user::{self, Issued, Revoked, Role, Wanted};

/// The cluster's control planes, by the addresses of their ports, and people with ssh keys.
struct Cluster {
    folder: TempDir,
    planes: [SocketAddr; 2],
    fingerprint: [u8; SECRET],
    admin: Arc<Api>,
}

impl Cluster {
    fn open(&self, plane: usize, number: u8) -> Result<Link, Trouble> {
        let file = self.folder.path().join(format!("id-{number}"));
        std::fs::write(&file, private_key(number).as_bytes()).unwrap();
        let remote = Remote {
            host: self.planes[plane].to_string().parse().unwrap(),
            cluster: None,
            fingerprint: Some(self.fingerprint),
            keys: Keys { file: Some(file), ..Keys::default() },
            known: self.folder.path().join("known_clusters"),
        };
        remote.open()
    }

    fn ask(&self, plane: usize, number: u8, request: &Request) -> Result<String, Trouble> {
        let mut answer = Vec::new();
        match self.open(plane, number)?.ask(request, &mut answer) {
            Ok(_) => Ok(String::from_utf8(answer).unwrap()),
            Err(Halt::Trouble(trouble)) => Err(trouble),
            Err(Halt::Gone) => panic!("nobody took the answer"),
        }
    }

    fn value<T: serde::de::DeserializeOwned>(&self, plane: usize, number: u8, request: &Request) -> T {
        let text = self.ask(plane, number, request).unwrap_or_else(|trouble| panic!("{request}: {trouble:?}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// A client with what is issued for a key that is made here, at the port of this test.
    fn certified(&self, plane: usize, says: &Certificate, request: impl FnOnce(Bytes) -> Request) -> (Issued, Api) {
        let (der, key) = keys::signing_request(says).unwrap();
        let issued: Issued = self.value(plane, ADA, &request(Bytes(der)));
        let server = format!("https://127.0.0.1:{}", fixture::API);
        let (ca, certificate) = (issued.authority.as_bytes(), issued.certificate.as_bytes());
        let text = kubeconfig::of_person(&issued.user, &[server], ca, certificate, key.as_bytes());
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, text.as_bytes()).unwrap();
        (issued, Api::from_kubeconfig(&path).unwrap())
    }
}

/// Waits until the API server, which hears of a binding a moment later, answers with this status; 200: it is done.
fn answers(what: &str, status: u16, ask: impl Fn() -> Result<(), Option<u16>>) {
    let answered = wait::until(what, LIMIT, Duration::from_millis(50), || {
        let found = ask().err().map_or(Some(200), |status| status);
        if found == Some(status) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    answered.unwrap_or_else(|late| panic!("{late}"));
}

const PODS: &str = "/api/v1/namespaces/default/pods";

fn get(api: &Api, path: &str) -> Result<(), Option<u16>> {
    api.get(path).map(drop).map_err(|error| error.status())
}

/// `ETCD=PATH KUBE_APISERVER=PATH cargo test -p kubeboot --lib operators::tests::real -- --ignored --nocapture`
#[test]
#[ignore = "needs etcd and kube-apiserver, and half a minute"]
fn operators_command_two_control_planes_behind_a_real_api_server() {
    let program = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("expected {name}")));
    let folder = tempfile::tempdir().unwrap();
    let root = Root::at(folder.path().join("root"));
    let mut this = fixture::found(&root);
    this.settings.operator = vec![public_line(ADA, "ada")];
    let _api = fixture::run_api(&root, &[program("ETCD"), program("KUBE_APISERVER")], folder.path());
    let admin = fixture::client(&root);
    fixture::await_api(&admin, folder.path());
    // The second has the first one's keys, as if it had joined; its other files are its own.
    let second = Root::at(folder.path().join("second"));
    let copied = Command::new("cp").arg("-a").arg(root.path("/")).arg(second.path("/")).status().unwrap();
    assert!(copied.success());
    let mut joined = this.clone();
    joined.settings.role = Some(crate::settings::Role::ControlPlane);
    // Only the founder's settings name her: the cluster has her on record.
    joined.settings.operator.clear();
    let planes = [(&root, &this), (&second, &joined)]
        .map(|(root, this)| Arc::new(fixture::open(Enrolment::new(root, this, fixture::client(root), None).unwrap())));
    planes.iter().for_each(|plane| plane.prepare().and_then(|()| plane.adopt_operators()).unwrap());
    let cluster = Cluster {
        planes: planes.each_ref().map(fixture::serve),
        fingerprint: fingerprint(&this.cluster.identity()),
        folder,
        admin,
    };
    operators_come_and_go(&cluster);
    tokens_are_the_clusters(&cluster);
    an_operator_is_an_administrator(&cluster);
    a_user_may_what_the_role_says(&cluster);
}

fn operators_come_and_go(cluster: &Cluster) {
    let add = Request::OperatorAdd { key: public_line(BOB, "bob") };
    let remove = |number, last| Request::OperatorRemove { key: public_line(number, ""), last };
    assert_eq!(cluster.ask(1, BOB, &Request::OperatorList {}).unwrap_err().exit, 7);
    assert_eq!(cluster.value::<Value>(0, ADA, &add)["added"], json!(true));
    assert_eq!(cluster.value::<Value>(1, ADA, &add)["added"], json!(false), "the other knows it already");
    let rows: [Vec<Listed>; 2] = [0, 1].map(|plane| cluster.value(plane, BOB, &Request::OperatorList {}));
    let by_settings = |row: &Listed| row.by == "the settings of one";
    let mut known: Vec<_> = rows[0].iter().map(|row| (row.comment.as_str(), by_settings(row))).collect();
    known.sort_unstable();
    assert_eq!(known, [("ada", true), ("bob", false)]);
    assert_eq!(format!("{:?}", rows[0]), format!("{:?}", rows[1]));
    assert_eq!(cluster.value::<Value>(1, ADA, &remove(BOB, false))["left"], json!(1));
    for plane in [0, 1] {
        assert_eq!(cluster.ask(plane, BOB, &Request::OperatorList {}).unwrap_err().exit, 7);
    }
    let last = cluster.ask(0, ADA, &remove(ADA, false)).unwrap_err();
    assert!(last.exit == 2 && last.why[0].contains("it is the last"), "{last:?}");
    assert!([0, 1].iter().all(|plane| cluster.ask(*plane, ADA, &Request::OperatorList {}).is_ok()));
    // At both at once, each removes the other: one of them is left.
    for _ in 0..10 {
        let both: [Value; 2] = [cluster.value(0, ADA, &add), json!(null)];
        assert!(both[0]["fingerprint"].is_string());
        let ended: Vec<bool> = std::thread::scope(|scope| {
            let asked = [(0, ADA, BOB), (1, BOB, ADA)].map(|(plane, number, other)| {
                scope.spawn(move || cluster.ask(plane, number, &remove(other, false)).is_ok())
            });
            asked.map(|asked| asked.join().unwrap()).into()
        });
        let listed = [ADA, BOB].map(|number| cluster.ask(0, number, &Request::OperatorList {}).is_ok());
        assert!(listed.contains(&true), "nobody is left: {ended:?}");
        // Whoever is left takes the other back.
        let (left, other) = if listed[0] { (ADA, BOB) } else { (BOB, ADA) };
        let back = Request::OperatorAdd { key: public_line(other, if other == ADA { "ada" } else { "bob" }) };
        let _: Value = cluster.value(0, left, &back);
    }
    let _: Value = cluster.value(0, ADA, &remove(BOB, false));
}

fn tokens_are_the_clusters(cluster: &Cluster) {
    let create = Request::TokenCreate { role: Admits::Worker, key: Bytes(vec![9; 32]), ttl: DAY, uses: Some(2) };
    assert!(cluster.value::<Value>(0, ADA, &create)["expires"].is_string());
    assert!(cluster.ask(1, ADA, &create).unwrap_err().why[0].contains("there is a token of its id"));
    let listed = |plane| -> Vec<Value> {
        let list: Value = cluster.value(plane, ADA, &Request::TokenList {});
        list["tokens"].as_array().unwrap().clone()
    };
    assert_eq!(listed(0), listed(1));
    let id = listed(1).iter().find(|row| row["uses-left"] == json!(2)).unwrap()["id"].as_str().unwrap().to_owned();
    let revoke = Request::TokenRevoke { id };
    let _: Value = cluster.value(1, ADA, &revoke);
    assert!(listed(0).iter().all(|row| row["uses-left"] != json!(2)));
    assert!(cluster.ask(0, ADA, &revoke).unwrap_err().why[0].contains("there is no token"));
}

fn an_operator_is_an_administrator(cluster: &Cluster) {
    // kubeadm's binding, which the add-ons make.
    let bound = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "kubeadm:cluster-admins"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "kubeadm:cluster-admins"}],
    });
    cluster.admin.apply(&bound).unwrap();
    let (issued, api) = cluster.certified(0, &user::asked_by_operator(), |certificate_request| Request::Kubeconfig {
        certificate_request,
        ttl: DAY,
    });
    assert!(!issued.servers.is_empty(), "{issued:?}");
    answers("an operator to see every secret", 200, || get(&api, "/api/v1/secrets"));
}

/// Puts the rules into the roles `view` and `edit`: in a cluster, the controller manager does.
fn aggregate(admin: &Api) {
    let path = |name: &str| format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}");
    let mut rules = Vec::new();
    for role in ["view", "edit"] {
        let more = admin.get(&path(&format!("system:aggregate-to-{role}"))).unwrap();
        rules.extend(more["rules"].as_array().unwrap().clone());
        admin.merge(&path(role), &json!({"rules": rules})).unwrap();
    }
}

fn a_user_may_what_the_role_says(cluster: &Cluster) {
    aggregate(&cluster.admin);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "default"},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "main", "image": "busybox"}]},
    });
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": "default"}});
    cluster.admin.apply(&account).unwrap();
    cluster.admin.apply(&pod).unwrap();
    let wanted = |name: &str, role, namespace: Option<&str>| Wanted {
        name: name.to_owned(),
        groups: vec!["dev".to_owned()],
        ttl: DAY,
        role,
        namespace: namespace.map(str::to_owned),
        reserved: false,
    };
    let certified = |plane, user: Wanted| {
        let says = user.request();
        cluster.certified(plane, &says, |certificate_request| Request::UserCreate { user, certificate_request }).1
    };
    let delete = |api: &Api, path: &str| api.delete(path).map(drop).map_err(|error| error.status());
    let bob = certified(0, wanted("bob", Role::View, None));
    answers("bob to see pods", 200, || get(&bob, PODS));
    for forbidden in ["/api/v1/secrets", "/api/v1/nodes"] {
        assert_eq!(get(&bob, forbidden), Err(Some(403)), "{forbidden}");
    }
    assert_eq!(delete(&bob, &format!("{PODS}/one")), Err(Some(403)));
    // In one namespace he may more, by another control plane, and nothing outside it any more.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    cluster.admin.apply(&namespace).unwrap();
    let bob = certified(1, wanted("bob", Role::Edit, Some("shop")));
    answers("bob to see pods in the shop", 200, || get(&bob, "/api/v1/namespaces/shop/pods"));
    answers("bob to see no pods elsewhere", 403, || get(&bob, PODS));
    assert_eq!(delete(&bob, "/api/v1/namespaces/shop/pods/none"), Ok(()));
    let eve = certified(1, wanted("eve", Role::ClusterAdmin, None));
    answers("eve to see everything", 200, || get(&eve, "/api/v1/secrets"));

    let rows: [Vec<UserListed>; 2] = [0, 1].map(|plane| cluster.value(plane, ADA, &Request::UserList {}));
    assert_eq!(format!("{:?}", rows[0]), format!("{:?}", rows[1]));
    assert_eq!(
        rows[0].iter().map(|row| (row.role, row.revoked)).collect::<Vec<_>>(),
        [(Role::Edit, false), (Role::ClusterAdmin, false)]
    );
    let revoke = |name: &str| Request::UserRevoke { name: name.to_owned() };
    let revoked: Revoked = cluster.value(0, ADA, &revoke("bob"));
    assert!(revoked.deleted.len() == 1 && revoked.left.is_empty(), "{revoked:?}");
    answers("bob to be refused", 403, || get(&bob, "/api/v1/namespaces/shop/pods"));
    let _: Revoked = cluster.value(1, ADA, &revoke("eve"));
    answers("eve to be refused", 403, || get(&eve, "/api/v1/secrets"));
    let rows: Vec<UserListed> = cluster.value(1, ADA, &Request::UserList {});
    assert!(rows.iter().all(|row| row.revoked), "{rows:?}");
    // The viewer's own pod is still there.
    assert!(cluster.admin.get(&format!("{PODS}/one")).is_ok());
}
