//! Two servers of one cluster behind a real etcd and a real kube-apiserver.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::host::api::Api;
use crate::host::enrolment::cluster::Enrolment;
use crate::host::enrolment::store::InApi;
use crate::host::founder::{act, look};
use crate::host::node::ThisNode;
use crate::host::root::Root;
use crate::host::{files, wait};
use crate::kubernetes;
use crate::paths;
use crate::plan::{self, Founder};
use crate::settings::frozen::Frozen;

/// Where the API server listens here: the machine may have one of its own.
pub(crate) const API: u16 = 16443;
const ETCD: &str = "http://127.0.0.1:16379";
pub(crate) const SEED: [u8; SECRET] = [5; SECRET];

/// A process that goes with the test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &Path, arguments: &[String], log: &Path) -> Process {
    let log = std::fs::File::create(log).unwrap();
    let command = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(log).spawn();
    Process(command.unwrap_or_else(|error| panic!("{}: {error}", program.display())))
}

/// A founder's files, from a seed that was given, where the API server listens on loopback.
pub(crate) fn found(root: &Root) -> ThisNode {
    found_at(root, [127, 0, 0, 1].into())
}

/// A founder's files, of a machine with this address.
pub(super) fn found_at(root: &Root, address: IpAddr) -> ThisNode {
    for path in ["/etc/kubernetes", "/run/kubeboot", "/var"] {
        std::fs::create_dir_all(root.path(path)).unwrap();
    }
    let settings = kubernetes::sample::settings();
    let frozen = Frozen { format: 1, settings: settings.clone(), origins: BTreeMap::new() };
    let node = plan::record::Node { address, ..kubernetes::sample::node() };
    let given = Some(Seed::new(SEED).founding_key().public());
    let founder = Founder { settings: settings.clone(), node, given, frozen: frozen.text() };
    let steps = plan::plan(&founder, &look(root, &founder), clock::unix()).unwrap();
    act(root, &founder, &steps, Some(Seed::new(SEED)), |_, _| {}).unwrap();
    let seat = serde_json::json!({
        "seat": "factory", "why": "", "version": "1.37.2-4", "kubernetes": "1.37.2", "erofs_sha256": "", "root_hash": "",
        "signed_by": "", "checked_by": "image", "boot": 1, "passed_over": [],
    });
    files::write_atomic(&root.path(paths::SEAT_FACTS), seat.to_string().as_bytes(), 0o644).unwrap();
    ThisNode::load(root).unwrap()
}

/// What every API server is told: by the founder's keys, and that nobody else looks after the Service `kubernetes`.
pub(crate) fn server_flags(root: &Root) -> Vec<String> {
    let pki = |name: &str| root.path(format!("{}/{name}", paths::PKI)).display().to_string();
    vec![
        "--authorization-mode=Node,RBAC".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
    ]
}

/// The end of a log, for who looks for what went wrong.
pub(crate) fn end_of(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    log[log.floor_char_boundary(log.len().saturating_sub(3000))..].to_owned()
}

/// etcd and an API server with the founder's keys.
pub(crate) fn run_api(root: &Root, programs: &[PathBuf; 2], folder: &Path) -> [Process; 2] {
    let etcd = [
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:16380".to_owned(),
        "--unsafe-no-fsync".to_owned(),
    ];
    let own = [format!("--etcd-servers={ETCD}"), "--bind-address=127.0.0.1".to_owned(), format!("--secure-port={API}")];
    let server = [&own[..], &server_flags(root)].concat();
    let [etcd_program, server_program] = programs;
    [
        start(etcd_program, &etcd, &folder.join("etcd.log")),
        start(server_program, &server, &folder.join("kube-apiserver.log")),
    ]
}

/// The administrator's client, at the port of this test.
pub(crate) fn client(root: &Root) -> Arc<Api> {
    let config = std::fs::read_to_string(root.path("/etc/kubernetes/super-admin.conf")).unwrap();
    let path = root.path("/run/kubeboot/admin.conf");
    std::fs::write(&path, config.replace(":6443", &format!(":{API}"))).unwrap();
    Arc::new(Api::from_kubeconfig(&path).unwrap())
}

pub(crate) fn await_api(api: &Api, folder: &Path) {
    let ready = wait::until("the API server", Duration::from_secs(120), Duration::from_millis(200), || {
        match api.text("/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    ready.unwrap_or_else(|late| {
        panic!("{late}\n{}", end_of(&folder.join("kube-apiserver.log")));
    });
}

/// As the agent does once the API server has answered.
pub(crate) fn open(enrolment: Enrolment) -> Enrolment {
    enrolment.open();
    enrolment
}

pub(crate) fn serve(enrolment: &Arc<Enrolment>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    server::start(listener, enrolment.clone(), limits(), Times::default(), Box::new(|line| println!("{line}")))
        .unwrap();
    address
}

/// `ETCD=PATH KUBE_APISERVER=PATH cargo test -p kubeboot --lib enrolment::tests::real -- --ignored --nocapture`
#[test]
#[ignore = "needs etcd and kube-apiserver, and half a minute"]
fn two_servers_behind_a_real_api_server() {
    let program = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("expected {name}")));
    let folder = tempfile::tempdir().unwrap();
    let root = Root::at(folder.path().join("root"));
    let this = found(&root);
    let _api = run_api(&root, &[program("ETCD"), program("KUBE_APISERVER")], folder.path());
    let api = client(&root);
    await_api(&api, folder.path());
    let enrolments = [0, 1].map(|_| Arc::new(open(Enrolment::new(&root, &this, client(&root), None).unwrap())));
    let store = Store::new(Arc::new(InApi::new(api)));

    // The founder's record and the founding window's tokens: once.
    for enrolment in &enrolments {
        enrolment.prepare().unwrap();
    }
    assert!(!root.path(paths::FOUNDING_TOKENS).exists());
    let mut damaged = Vec::new();
    let names = |store: &Store, damaged: &mut Vec<String>| {
        let nodes = store.nodes(damaged).unwrap();
        nodes.into_iter().map(|node| node.record.name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&store, &mut damaged), "one");
    let tokens = store.tokens(&mut damaged).unwrap();
    assert_eq!(tokens.iter().filter(|token| token.record.origin == Origin::Founding).count(), 2);
    let seed = Seed::new(SEED);
    let control_plane = tokens.iter().find(|token| token.record.kind == Role::ControlPlane).unwrap();
    assert!(store.delete_token(&control_plane.name()).unwrap() && !store.delete_token(&control_plane.name()).unwrap());
    enrolments[0].prepare().unwrap();
    assert_eq!(store.tokens(&mut damaged).unwrap().len(), 1, "a deleted token does not come back");

    // With the seed's token, by real keys.
    let addresses = enrolments.each_ref().map(serve);
    let begun = Instant::now();
    let enrolled =
        join(&addresses[0], "w-1", 11, seed.join_token(Role::Worker)).unwrap_or_else(|why| panic!("{why:?}"));
    println!("the whole exchange took {:?}", begun.elapsed());
    assert_eq!(enrolled.grant.endpoints, ["127.0.0.1:6443".parse().unwrap()]);
    assert!(crate::settings::shared::read(&enrolled.grant.settings).is_ok());
    assert_eq!(names(&store, &mut damaged), "one w-1");
    assert!(is_enrolled(&enrolments[1].store, "w-1"));
    assert!(join(&addresses[1], "w-1", 11, seed.join_token(Role::Worker)).is_ok(), "again, through the other");
    let taken = join(&addresses[1], "one", 12, seed.join_token(Role::Worker));
    assert!(matches!(taken, Err(Failure::Refused { refusal: Refusal::NameTaken, .. })));

    // The last uses, at both servers at once.
    let token = JoinToken::new(Role::Worker, [3; SECRET], &Founded::of(&this.cluster).unwrap().identity_key);
    let record = TokenRecord {
        kind: Role::Worker,
        key: token.join_key().public(),
        expires: clock::unix() + 3600,
        uses_left: Some(5),
        origin: Origin::Created { by: "one".into() },
    };
    assert!(store.create_token(record.clone()).unwrap() && !store.create_token(record).unwrap());
    let joins: Vec<_> = (0..16_u8)
        .map(|number| {
            let (address, token) = (addresses[usize::from(number % 2)], token.clone());
            thread::spawn(move || join(&address, &format!("many-{number}"), 20 + number, token).is_ok())
        })
        .collect();
    let joined = joins.into_iter().filter_map(|join| join.join().ok()).filter(|joined| *joined).count();
    let nodes = store.nodes(&mut damaged).unwrap();
    assert_eq!(joined, 5);
    assert_eq!(nodes.iter().filter(|node| node.enrolled).count(), 7);
    assert_eq!(nodes.len(), 7, "half an admission was left");
    let used = store.tokens(&mut damaged).unwrap().into_iter().find(|one| one.record.uses_left == Some(5)).unwrap();
    assert_eq!((used.uses_left(None), used.taken.len()), (Some(0), 5));

    // A control plane's token by hand, and what comes with it.
    let key = JoinToken::new(Role::ControlPlane, [4; SECRET], &Founded::of(&this.cluster).unwrap().identity_key);
    let record = TokenRecord {
        kind: Role::ControlPlane,
        key: key.join_key().public(),
        expires: clock::unix() + 3600,
        uses_left: Some(1),
        origin: Origin::Created { by: "one".into() },
    };
    assert!(store.create_token(record).unwrap());
    let enrolled = join(&addresses[0], "cp-2", 60, key).unwrap_or_else(|why| panic!("{why:?}"));
    assert_eq!((enrolled.grant.keys.len(), enrolled.grant.authorities.len()), (7, 4));
    assert_eq!(damaged, [] as [String; 0]);
    many(&addresses[0], &seed.join_token(Role::Worker));
}

/// Two hundred machines at once through one server.
fn many(address: &SocketAddr, token: &JoinToken) {
    let begun = Instant::now();
    let joins: Vec<_> = (0..200_u8)
        .map(|number| {
            let (address, token) = (*address, token.clone());
            let joins = move || {
                let begun = Instant::now();
                let joined = join_from(&address, &format!("crowd-{number}"), [10, 0, 0, number].into(), token);
                joined.map(|_| begun.elapsed()).map_err(|why| format!("{why:?}"))
            };
            thread::spawn(joins)
        })
        .collect();
    let took: Result<Vec<Duration>, String> = joins.into_iter().map(|join| join.join().unwrap()).collect();
    let mut took = took.unwrap();
    took.sort();
    println!("200 at once: {:?} in all, each {:?} (median) to {:?}", begun.elapsed(), took[100], took[199]);
}
