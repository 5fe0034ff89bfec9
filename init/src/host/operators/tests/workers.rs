//! A worker's desk on loopback: who is served there, what, and who poses as one.

use std::sync::Mutex;

use super::attacks::{connect, failed, refusal};
use super::*;
use crate::enrolment::decision::{NodeRecord, Site as Place};
use crate::enrolment::joiner::{self, Credential, Joiner, Machine};
use crate::enrolment::message::{Message, Refusal, most};
use crate::enrolment::operator::{Event, Operator, Peer, Step};
use crate::enrolment::statement::Statement;
use crate::host::enrolment::tests::man_in_the_middle;
use crate::host::enrolment::tls;
use crate::host::enrolment::worker::{Worker, by_the_mesh};
use crate::host::mesh::disk;
use crate::host::{files, keys};
use crate::mesh::publish::{self, People};
use crate::mesh::store::Store;
use crate::mesh::{NodeId, Roll};
use crate::operators::exchange::parts;
use crate::operators::frame::{self, Frame};
use crate::operators::key::OperatorLine;
use crate::operators::key_file::FileKey;
use crate::operators::objects::OperatorObject;
use crate::operators::request::{Admits, Bytes};
use crate::plan::record::Endpoints;
use crate::settings::Role;
use crate::token::{Joiner as Joins, Seed};

/// A control plane, and a worker of its cluster that serves operators.
struct Site {
    /// The control plane's.
    world: World,
    /// The worker's files.
    root: Root,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

/// The worker as a node.
fn worker_of(this: &ThisNode) -> ThisNode {
    let mut worker = this.clone();
    worker.settings.role = Some(Role::Worker);
    worker.settings.operator = Vec::new();
    worker.node.name = "w-1".to_owned();
    worker
}

/// Serves, as the agent does, at a port of its own.
fn served(cluster: Arc<dyn server::Cluster>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, log) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let lines = log.clone();
    let hear = Box::new(move |line: &str| lines.lock().unwrap().push(line.to_owned()));
    let limits = Limits { of_one: 256, burst: 100_000, ..Limits::default() };
    server::start(listener, cluster, limits, Times::default(), hear).unwrap();
    (address, log)
}

fn logged(log: &Mutex<Vec<String>>, part: &str) -> String {
    let line = wait::until(&format!("a line with {part:?}"), LIMIT, Duration::from_millis(2), || {
        let lines = log.lock().unwrap();
        lines.iter().find(|line| line.contains(part)).cloned().ok_or_else(|| format!("{lines:#?}"))
    });
    line.unwrap_or_else(|late| panic!("{late}"))
}

impl Site {
    /// With [`ADA`] as the operator whom the control plane's settings name, and the worker's statement on disk.
    fn new() -> Self {
        let world = World::new();
        let root = Root::at(world.folder.path().join("worker"));
        std::fs::create_dir_all(root.path(paths::MESH)).unwrap();
        let key = keys::ed25519().unwrap();
        files::write_atomic(&root.path(paths::NODE_KEY), key.as_bytes(), 0o600).unwrap();
        let this = worker_of(&world.plane.this);
        let known = by_the_mesh(&root, &this, None).unwrap();
        let worker = Worker::new(&root, &this, programs(), known).unwrap();
        let (address, log) = served(Arc::new(worker));
        let site = Site { world, root, address, log };
        site.publish(&[]);
        site.state(clock::unix());
        site
    }

    fn node_key(&self) -> Ed25519 {
        issue::key(&self.root, paths::NODE_KEY).unwrap()
    }

    /// What a control plane says of the worker at `now`.
    fn stated(&self, now: u64) -> Statement {
        let (name, key) = ("w-1".to_owned(), crate::enrolment::Sign::public(&self.node_key()));
        let node = NodeRecord { name, role: Joins::Worker, key, address: [192, 0, 2, 21].into() };
        let cluster = Founded::of(&self.world.plane.this.cluster).unwrap();
        Statement::of(&cluster.id, &node, now, &self.world.plane.identity)
    }

    /// The worker comes back to a control plane.
    fn state(&self, now: u64) {
        let file = self.stated(now).file().unwrap();
        files::write_atomic(&self.root.path(paths::STATEMENT), &file, 0o600).unwrap();
    }

    /// The control plane's records reach the worker's disk, where its mesh keeps them.
    fn publish(&self, on_record: &[OperatorObject]) {
        let cluster = Founded::of(&self.world.plane.this.cluster).unwrap();
        let (identity, now, me) = (&self.world.plane.identity, clock::unix(), NodeId([5; 16]));
        let record_key = Ed25519::load(keys::ed25519().unwrap().as_bytes()).unwrap();
        let public = crate::enrolment::Sign::public(&record_key);
        let certificate = publish::certify(&cluster.id, me, public, now, identity);
        let mut held = Store::default();
        for bytes in disk::records(&self.root).unwrap() {
            held.accept(Arc::new(crate::mesh::Record::parse(&bytes).unwrap())).unwrap();
        }
        let of_settings = Roll::of_settings([wire(ADA)], on_record);
        let people = People { on_record: Roll::on_record(on_record), of_settings };
        let wanted = publish::Wanted { operators: Some(people), ..Default::default() };
        for draft in publish::due(&held, &wanted, me, now) {
            disk::write_record(&self.root, &draft.sign(&cluster.id, certificate, now, &record_key)).unwrap();
        }
    }

    fn remote(&self, number: u8) -> Remote {
        Remote { host: self.address.to_string().parse().unwrap(), ..self.world.remote(number) }
    }

    fn ask(&self, number: u8, request: &Request) -> Result<(String, u8), Trouble> {
        let mut answer = Vec::new();
        match self.remote(number).open()?.ask(request, &mut answer) {
            Ok(code) => Ok((String::from_utf8_lossy(&answer).into_owned(), code)),
            Err(Halt::Trouble(trouble)) => Err(trouble),
            Err(Halt::Gone) => panic!("nobody took the answer"),
        }
    }

    fn logged(&self, part: &str) -> String {
        logged(&self.log, part)
    }

    /// Whether anything was logged that has this in it.
    fn has_logged(&self, part: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(part))
    }
}

fn object(number: u8, listed: bool) -> OperatorObject {
    let line = OperatorLine::parse(&public_line(number, "somebody")).unwrap();
    OperatorObject { line, listed, by: "ada".into(), since: 1, version: None }
}

fn status() -> Request {
    Request::Status { why: false, json: false }
}

/// A connection on which a person goes through the exchange with a worker, up to being admitted.
fn admitted(site: &Site, number: u8) -> crate::host::enrolment::channel::Channel {
    let mut channel = connect(&site.address);
    let key = FileKey::parse(&private_key(number)).unwrap();
    let known = site.world.fingerprint();
    let (mut operator, hello) =
        Operator::start(clock::unix(), key.public().to_vec(), known, channel.exporter(), random::bytes());
    channel.send(&hello).unwrap();
    let proof = channel.receive(most::TO_OPERATOR).unwrap();
    let Step::Sign(wrapped) = operator.handle(&Event::Message(&proof)) else { panic!("no proof") };
    let Step::Send(message) = operator.handle(&Event::Signed(&key.sign(&wrapped))) else { panic!("not signed") };
    channel.send(&message).unwrap();
    assert!(matches!(Message::decode(&channel.receive(most::REFUSAL).unwrap()), Ok(Message::Admitted)));
    channel
}

#[test]
fn an_operator_is_served_by_a_worker_and_sees_which_it_is() {
    let site = Site::new();
    let link = site.remote(ADA).open().unwrap_or_else(|trouble| panic!("{trouble:?}"));
    assert_eq!(link.peer, Peer::Worker { name: "w-1".into() });
    drop(link);
    assert_eq!(site.ask(ADA, &status()).unwrap(), ("status\n".to_owned(), 0));
    let logs = Request::Logs { unit: Some("kubelet".into()), follow: true, lines: 5 };
    assert!(site.ask(ADA, &logs).unwrap().0.contains("--unit=kubelet --follow"));
    let (bundle, code) = site.ask(ADA, &Request::SupportBundle {}).unwrap();
    assert!(code == 0 && !bundle.is_empty());
    // No agent of this test has a mesh that runs.
    let members = site.ask(ADA, &Request::Members {}).unwrap_err();
    assert!(members.what.contains("members of the mesh"), "{members:?}");
    let line = site.logged(": status: done");
    assert!(line.contains("SHA256:") && line.contains("127.0.0.1"), "{line}");
    // The cluster is known from then on, by a worker too; and nothing else was kept of it.
    let known = std::fs::read_to_string(site.world.known()).unwrap();
    assert!(known.contains(&format!("{} {}", site.address, site.world.plane.this.cluster.id)), "{known}");
    let remote = Remote { fingerprint: None, ..site.remote(ADA) };
    assert!(remote.open().is_ok());
}

#[test]
fn a_stranger_is_refused_by_a_worker_and_logged() {
    let site = Site::new();
    let trouble = site.ask(BOB, &status()).unwrap_err();
    assert_eq!(trouble.exit, 7);
    assert!(trouble.why[0].contains("to the worker w-1 this ssh key is no operator's"), "{trouble:?}");
    let line = site.logged("its ssh key is no operator's");
    assert!(line.contains(&crate::enrolment::ssh::fingerprint(&wire(BOB))), "{line}");
    assert!(!site.has_logged("status"));
}

#[test]
fn an_operator_is_one_at_a_worker_as_long_as_the_records_say_so() {
    let site = Site::new();
    site.publish(&[object(BOB, true)]);
    assert!(site.ask(BOB, &status()).is_ok() && site.ask(ADA, &status()).is_ok());
    // A connection that was open when the word came is not good for a request after it.
    let mut open = admitted(&site, BOB);
    site.publish(&[object(BOB, false)]);
    open.send(&Frame::Request(status().text()).encode().unwrap()).unwrap();
    assert_eq!(failed(&mut open).exit, 7);
    assert_eq!(site.ask(BOB, &status()).unwrap_err().exit, 7);
    // Whom the settings name is removed by the same record.
    site.publish(&[object(BOB, true), object(ADA, false)]);
    assert_eq!(site.ask(ADA, &status()).unwrap_err().exit, 7);
    assert!(site.ask(BOB, &status()).is_ok());
}

#[test]
fn a_worker_that_knows_no_operators_says_so_and_serves_nobody() {
    let site = Site::new();
    std::fs::remove_dir_all(site.root.path(paths::MESH)).unwrap();
    let trouble = site.ask(ADA, &status()).unwrap_err();
    assert_eq!(trouble.exit, 1);
    assert!(trouble.why[0].contains("w-1 can't tell now who is an operator"), "{trouble:?}");
    assert!(site.logged("no control plane's word").contains("SHA256:"));
}

#[test]
fn without_a_good_statement_a_worker_proves_nothing_and_with_a_new_one_it_does() {
    let site = Site::new();
    let file = site.root.path(paths::STATEMENT);
    let states: [&dyn Fn(); 3] =
        [&|| std::fs::remove_file(&file).unwrap(), &|| std::fs::write(&file, b"damaged").unwrap(), &|| {
            site.state(clock::unix() - crate::enrolment::statement::LIFE - 60)
        }];
    for state in states {
        state();
        let trouble = site.ask(ADA, &status()).unwrap_err();
        assert_eq!(trouble.exit, 1, "{trouble:?}");
        assert!(trouble.why[0].contains("can't prove now that it is of the cluster"), "{trouble:?}");
    }
    assert!(site.logged("it has no statement").contains("127.0.0.1"));
    assert!(!site.has_logged("admitted"));
    site.state(clock::unix());
    assert!(site.ask(ADA, &status()).is_ok());
}

#[test]
fn a_worker_is_sent_nothing_that_workers_do_not_do_and_does_nothing_of_it() {
    let site = Site::new();
    let servers = Endpoints::of(["10.0.0.11:6443", "10.0.0.12:6443"].map(|server| server.parse().unwrap()));
    files::write_atomic(&site.root.path(paths::ENDPOINTS), servers.text().as_bytes(), 0o644).unwrap();
    let create = Request::TokenCreate { role: Admits::Worker, key: Bytes(vec![7; 32]), ttl: 60, uses: Some(1) };
    let remove = Request::NodeRemove { name: "w-2".into(), drain: None };
    let (der, _) = keys::signing_request(&crate::operators::user::asked_by_operator()).unwrap();
    let kubeconfig = Request::Kubeconfig { certificate_request: Bytes(der), ttl: 60 };
    let forbidden = [
        (create, "token create --uses 1"),
        (remove, "node remove w-2 --without-drain"),
        (kubeconfig, "kubeconfig"),
        (Request::OperatorList {}, "operator list"),
        (Request::OperatorAdd { key: public_line(BOB, "bob") }, "operator add 'ssh-ed25519"),
    ];
    for (request, command) in &forbidden {
        let expected = format!("ask a control plane: kubeboot --node 10.0.0.11 {command}");
        // The client sends a worker nothing of it, and says where to ask.
        let trouble = site.ask(ADA, request).unwrap_err();
        assert!(trouble.exit == 2 && trouble.fix[0].starts_with(&expected), "{trouble:?}");
        assert!(trouble.fix[1].contains("kubeboot --node 10.0.0.12 "), "{trouble:?}");
        assert!(!site.has_logged(&format!("{request}:")), "{request} was sent");
        // Another client does, and hears the same.
        let mut channel = admitted(&site, ADA);
        channel.send(&Frame::Request(request.text()).encode().unwrap()).unwrap();
        let told = failed(&mut channel);
        assert!(told.exit == 2 && told.fix[0].starts_with(&expected), "{told:?}");
        assert!(told.why[0].starts_with("w-1 is a worker"), "{told:?}");
        assert!(site.logged(&format!("{request}: not done")).contains("is a worker"));
    }
    // Where no control plane is known the fix says what to put there.
    std::fs::remove_file(site.root.path(paths::ENDPOINTS)).unwrap();
    let trouble = site.ask(ADA, &Request::TokenList {}).unwrap_err();
    assert!(trouble.fix[0].ends_with("kubeboot --node CONTROL-PLANE token list"), "{trouble:?}");
    // What is of the control plane stays there, although one and the same client asks both.
    assert!(site.world.ask(ADA, &Request::OperatorList {}).is_ok());
}

#[test]
fn who_ends_tls_on_both_sides_gets_no_signature_for_a_worker() {
    let site = Site::new();
    let host = man_in_the_middle(site.address).to_string().parse().unwrap();
    let trouble = Remote { host, ..site.remote(ADA) }.open().err().unwrap();
    assert_eq!(trouble.exit, 7);
    assert!(!site.world.known().exists());
    site.logged("somebody stands between");
    assert!(!site.has_logged("admitted"));
}

/// A machine that shows a worker's statement, or the cluster's identity, and signs by a key of its own.
struct Thief {
    key: Ed25519,
    cluster: Founded,
    shows: As,
}

impl server::Cluster for Thief {
    fn key(&self) -> &(dyn IdentityKeys + Send + Sync) {
        &self.key
    }

    fn setup(&self, exporter: Exporter) -> Setup {
        let release = "1.37.2-4".parse().unwrap();
        let site = Place { founded: 0, oldest: release, newest: release, ranges: Vec::new() };
        Setup { serves: self.shows.clone(), cluster: self.cluster.clone(), site, exporter, nonce: random::bytes() }
    }

    fn strangers(&self) -> Vec<crate::settings::Cidr> {
        Vec::new()
    }

    fn look(&self, _: &Sought) -> Result<Found, String> {
        Err("nothing is looked up here".to_owned())
    }

    fn take(&self, _: &Admission) -> Result<Taken, String> {
        Err("nothing is taken here".to_owned())
    }

    fn issue(&self, _: &Admission, _: &[Issue]) -> Result<Grant, String> {
        Err("nothing is issued here".to_owned())
    }
}

#[test]
fn a_workers_statement_is_of_no_use_to_another_machine() {
    let site = Site::new();
    let cluster = Founded::of(&site.world.plane.this.cluster).unwrap();
    let stolen = As::Worker(Some(Box::new(site.stated(clock::unix()))));
    // Another machine's key; or the worker's own, in a control plane's place.
    let other = Ed25519::load(keys::ed25519().unwrap().as_bytes()).unwrap();
    for (key, shows) in [(other, stolen), (site.node_key(), As::ControlPlane)] {
        let (address, log) = served(Arc::new(Thief { key, cluster: cluster.clone(), shows }));
        let remote = Remote { host: address.to_string().parse().unwrap(), ..site.remote(ADA) };
        let trouble = remote.open().err().unwrap();
        assert_eq!(trouble.exit, 7);
        assert!(trouble.why[0].contains("poses as the cluster"), "{trouble:?}");
        // It got a hello and nothing more.
        assert!(!log.lock().unwrap().iter().any(|line| line.contains("SHA256:")), "{log:?}");
    }
    assert!(!site.world.known().exists());
    // A worker that has another's statement on its disk does not even show it.
    let key = keys::ed25519().unwrap();
    files::write_atomic(&site.root.path(paths::NODE_KEY), key.as_bytes(), 0o600).unwrap();
    let this = worker_of(&site.world.plane.this);
    let known = by_the_mesh(&site.root, &this, None).unwrap();
    let (address, log) = served(Arc::new(Worker::new(&site.root, &this, programs(), known).unwrap()));
    let remote = Remote { host: address.to_string().parse().unwrap(), ..site.remote(ADA) };
    assert_eq!(remote.open().err().unwrap().exit, 1);
    logged(&log, "it has no statement");
}

#[test]
fn a_machine_that_asks_a_worker_to_take_it_in_is_refused_like_any() {
    let site = Site::new();
    let seed = Seed::new(fixture::SEED);
    let known = site.world.fingerprint();
    for credential in [Credential::Token(seed.join_token(Joins::Worker)), Credential::Node { fingerprint: known }] {
        let mut channel =
            crate::host::enrolment::channel::Channel::connect(&site.address, tls::client().unwrap(), Times::default())
                .unwrap();
        let (own, requests) = (seed.founding_key(), [const { Vec::new() }; 4]);
        let (name, address, release) = ("w-9".to_owned(), [192, 0, 2, 30].into(), "1.37.2-4".parse().unwrap());
        let machine = Machine { name, address, release, requests };
        let (mut joiner, hello) = Joiner::start(machine, credential, &own, channel.exporter(), random::bytes());
        channel.send(&hello).unwrap();
        let answer = channel.receive(joiner.most()).unwrap();
        assert!(matches!(Message::decode(&answer), Ok(Message::Refusal(Refusal::NotAccepted))));
        let step = joiner.handle(clock::unix(), &joiner::Event::Message(&answer));
        assert!(matches!(step, joiner::Step::Failed(failure) if failure.may_pass()));
    }
    assert!(site.logged("this is a worker").contains("refused worker"));
}

#[test]
fn what_comes_to_a_worker_is_bounded_and_of_its_form_as_elsewhere() {
    let site = Site::new();
    let mut channel = admitted(&site, ADA);
    channel.send(&vec![1; frame::most::REQUEST + 1]).unwrap();
    assert!(failed(&mut channel).why[0].contains("at most 16386"));
    let mut stranger = connect(&site.address);
    stranger.send(&[9; 53]).unwrap();
    assert_eq!(refusal(&mut stranger), Refusal::Malformed);
    let mut channel = admitted(&site, ADA);
    channel.send(&parts(b"no request").next().unwrap().encode().unwrap()).unwrap();
    assert_eq!(failed(&mut channel).exit, 2);
}
