//! Real drivers on loopback: sockets, TLS, files and threads.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::json;
use zeroize::Zeroizing;

use super::publisher::Publisher;
use super::*;
use crate::enrolment::Sign as _;
use crate::enrolment::objects;
use crate::enrolment::taking::{Answer, Call};
use crate::host::enrolment::store::Objects as _;
use crate::host::enrolment::tests::InMemory;
use crate::host::files;
use crate::host::keys::{self, Ed25519};
use crate::mesh::rekeying::{self, Rekeying};
use crate::mesh::view::View;
use crate::mesh::{MeshKey, NodeId};
use crate::operators::key::OperatorLine;
use crate::operators::objects::OperatorObject;
use crate::operators::tests::public_line;

const CLUSTER: [u8; 16] = [5; 16];
/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// A machine's disk and, while it runs, its mesh.
struct Machine {
    _folder: tempfile::TempDir,
    root: Root,
    name: &'static str,
    address: SocketAddr,
    identity: [u8; 32],
    control_plane: bool,
    log: Arc<Mutex<Vec<String>>>,
    handle: Option<Handle>,
}

/// An address of loopback that no other test has: so every machine has the real ports.
fn address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::new(Ipv4Addr::new(127, NEXT.fetch_add(1, Ordering::Relaxed), high, low).into(), PORT)
}

impl Machine {
    /// A worker, or with the identity key (PEM) a control plane; on its disk is the cluster's first mesh key.
    fn new(name: &'static str, identity: [u8; 32], identity_key: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for folder in [paths::STATE, paths::RUN] {
            std::fs::create_dir_all(root.path(folder)).unwrap();
        }
        let write = |path: &str, text: &str| files::write_atomic(&root.path(path), text.as_bytes(), 0o600).unwrap();
        write(paths::NODE_KEY, &keys::ed25519().unwrap());
        if let Some(key) = identity_key {
            write(paths::IDENTITY_KEY, key);
        }
        disk::write_mesh_key(&root, &first_key()).unwrap();
        let control_plane = identity_key.is_some();
        let (address, log) = (address(), Arc::default());
        Machine { _folder: folder, root, name, address, identity, control_plane, log, handle: None }
    }

    fn start(&mut self, seeds: &[SocketAddr]) {
        self.start_with(seeds, |_| {});
    }

    /// Starts with something that sees each line of the log.
    fn start_with(&mut self, seeds: &[SocketAddr], sees: impl Fn(&str) + Send + Sync + 'static) {
        let config = Config {
            root: self.root.clone(),
            cluster: CLUSTER,
            identity: self.identity,
            name: self.name.to_owned(),
            address: self.address,
            control_plane: self.control_plane,
            members: self.root.path(paths::MEMBERS_SOCKET),
        };
        let log = self.log.clone();
        let hear = move |line: &str| {
            sees(line);
            log.lock().unwrap().push(line.to_owned());
        };
        let handle = start(config, Box::new(hear)).unwrap();
        handle.seek(seeds.to_vec());
        self.handle = Some(handle);
    }

    /// The process dies: it says nothing more, and its ports are free.
    fn crash(&mut self) {
        self.handle = None;
        self.until("the mesh's thread to end", |_| match members::ask(&self.root) {
            Err(members::Unanswered::NoAgent) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    fn id(&self) -> NodeId {
        let pem = files::read_optional(&self.root.path(paths::NODE_KEY)).unwrap().unwrap();
        NodeId::of(&Ed25519::load(&pem).unwrap().public())
    }

    fn order(&self, order: Order) {
        self.handle.as_ref().unwrap().order(order);
    }

    fn standing(&self) -> Standing {
        self.handle.as_ref().unwrap().standing()
    }

    fn until(&self, what: &str, look: impl Fn(&Self) -> Result<(), String>) {
        let found = wait::until(what, LIMIT, PAUSE, || look(self));
        found.unwrap_or_else(|late| panic!("{}: {late}; log: {:#?}", self.name, self.log.lock().unwrap()));
    }

    /// Waits until `kubeboot members` says of each of these what is said here.
    fn sees(&self, expected: &[(&str, &str)]) {
        self.until(&format!("{expected:?}"), |this| {
            let view: View = members::ask(&this.root).map_err(|error| error.to_string())?;
            let mut found: Vec<(&str, &str)> =
                view.members.iter().map(|member| (member.name.as_str(), member.state.as_str())).collect();
            found.sort_unstable();
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }

    fn has_key(&self, epoch: u64) {
        self.until(&format!("the mesh key of epoch {epoch}, on disk too"), |this| {
            let (held, kept) = (this.standing().key_epoch, disk::mesh_key(&this.root)?.epoch);
            if (held, kept) == (epoch, epoch) { Ok(()) } else { Err(format!("{held} in use, {kept} on disk")) }
        });
    }
}

fn first_key() -> MeshKey {
    MeshKey::new(1, Zeroizing::new([8; 32]))
}

#[test]
fn three_nodes_find_each_other_see_a_crash_and_get_a_new_key_after_a_removal() {
    let identity_key = keys::ed25519().unwrap();
    let identity = Ed25519::load(identity_key.as_bytes()).unwrap().public();
    let mut one = Machine::new("one", identity, Some(&identity_key));
    let (mut two, mut three) = (Machine::new("two", identity, None), Machine::new("three", identity, None));
    assert!(matches!(members::ask(&one.root), Err(members::Unanswered::NoAgent)));
    one.start(&[]);
    let seeds = [one.address];
    two.start(&seeds);
    three.start(&seeds);
    for machine in [&one, &two, &three] {
        machine.sees(&[("one", "alive"), ("three", "alive"), ("two", "alive")]);
    }

    let endpoints = Endpoints::of([SocketAddr::new(one.address.ip(), 6443)]);
    one.order(Order::Publish(Wanted { endpoints: Some(endpoints.clone()), removed: BTreeSet::new(), operators: None }));
    three.until("the API servers", |this| match this.standing().endpoints {
        Some(found) if found == endpoints => Ok(()),
        other => Err(format!("{other:?}")),
    });

    two.crash();
    for machine in [&one, &three] {
        machine.sees(&[("one", "alive"), ("three", "alive"), ("two", "down")]);
    }

    let removed = BTreeSet::from([two.id()]);
    one.order(Order::Publish(Wanted { endpoints: Some(endpoints), removed, operators: None }));
    one.order(Order::Rekey(2));
    for machine in [&one, &three] {
        machine.has_key(2);
        machine.sees(&[("one", "alive"), ("three", "alive")]);
    }

    // Away while the key was replaced, without what it knew of the mesh: it is remembered, and brought the key.
    three.crash();
    std::fs::remove_dir_all(three.root.path(paths::MESH)).unwrap();
    disk::write_mesh_key(&three.root, &first_key()).unwrap();
    three.start(&seeds);
    three.has_key(2);
    three.sees(&[("one", "alive"), ("three", "alive")]);

    // The removed node comes back with its old key. It is told by a stream that it was removed, or the operators are told of
    // it, whichever comes first: at once, or a minute after they were told of something else.
    let heard = one.log.lock().unwrap().len();
    two.start(&seeds);
    let told = wait::until("the removed node to be told, or told of", 2 * LIMIT, PAUSE, || {
        let silent = two.standing().silent;
        let log = one.log.lock().unwrap();
        let told = silent.as_ref().is_some_and(|why| why.contains("was removed from the cluster"));
        let told_of = log.iter().skip(heard).any(|line| line.contains("that a removed node"));
        if told || told_of { Ok(()) } else { Err(format!("{silent:?}; {log:#?}")) }
    });
    told.unwrap_or_else(|late| panic!("{late}"));
    // A further key goes to the others, and none to it.
    one.order(Order::Rekey(3));
    for machine in [&one, &three] {
        machine.has_key(3);
    }
    one.sees(&[("one", "alive"), ("three", "alive")]);
    assert_eq!(disk::mesh_key(&two.root).unwrap().epoch, 1, "who was removed got the new key");
}

#[test]
fn what_strangers_send_is_dropped_and_told_once() {
    let mut one = Machine::new("one", [1; 32], None);
    one.start(&[]);
    one.sees(&[("one", "alive")]);
    let stranger = std::net::UdpSocket::bind((one.address.ip(), 0)).unwrap();
    let told = |this: &Machine| {
        this.log.lock().unwrap().iter().filter(|line| line.contains("packets that no member made")).count()
    };
    for _ in 0..3 {
        stranger.send_to(&[7; 300], one.address).unwrap();
        one.until("a line about it", |this| if told(this) > 0 { Ok(()) } else { Err("none".into()) });
    }
    // The first answer may come in the very turn in which the last packet is taken, before that turn's end, which tells.
    one.sees(&[("one", "alive")]);
    one.sees(&[("one", "alive")]);
    assert_eq!(told(&one), 1);
}

#[test]
fn a_port_in_use_is_said_once_and_waited_for() {
    let identity = [1; 32];
    let mut one = Machine::new("one", identity, None);
    let taken = std::net::UdpSocket::bind(one.address).unwrap();
    one.start(&[]);
    one.until("a line", |this| match this.log.lock().unwrap().as_slice() {
        [line] if line.contains("listen on UDP") && line.contains("in use") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    drop(taken);
    one.has_key(1);
    assert_eq!(one.log.lock().unwrap().len(), 1);
}

#[test]
fn a_newer_key_on_disk_begins_the_mesh_anew_and_an_older_one_does_not() {
    let mut one = Machine::new("one", [1; 32], None);
    one.start(&[]);
    one.has_key(1);
    one.order(Order::LookAtKey);
    disk::write_mesh_key(&one.root, &MeshKey::new(3, Zeroizing::new([3; 32]))).unwrap();
    one.order(Order::LookAtKey);
    one.has_key(3);
    disk::write_mesh_key(&one.root, &MeshKey::new(2, Zeroizing::new([2; 32]))).unwrap();
    one.order(Order::LookAtKey);
    one.has_key(3);
    one.until("the next generation", |this| {
        let view = members::ask(&this.root).map_err(|error| error.to_string())?;
        let generation = view.members.first().map(|member| member.generation);
        if generation == Some(2) { Ok(()) } else { Err(format!("{generation:?}")) }
    });
}

/// The log stands for anything in the thread that may panic.
#[test]
fn a_panic_begins_the_mesh_anew_and_ends_nothing_else() {
    let identity_key = keys::ed25519().unwrap();
    let identity = Ed25519::load(identity_key.as_bytes()).unwrap().public();
    let mut one = Machine::new("one", identity, Some(&identity_key));
    one.start_with(&[], |line| assert!(!line.contains("its key is that of epoch"), "as a fault would"));
    one.has_key(1);
    one.order(Order::Rekey(2));
    one.until("the next generation", |this| match members::ask(&this.root) {
        Ok(view) if view.members.iter().any(|member| member.generation == 2) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    one.has_key(1);
    assert!(one.log.lock().unwrap().iter().any(|line| line.contains("a fault of kubeboot's own")));
}

#[test]
fn the_sockets_file_is_roots_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mut one = Machine::new("one", [1; 32], None);
    one.start(&[]);
    one.sees(&[("one", "alive")]);
    let mode = std::fs::metadata(one.root.path(paths::MEMBERS_SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_removal_that_two_control_planes_see_is_followed_by_one_new_key() {
    let identity_key = keys::ed25519().unwrap();
    let identity = Ed25519::load(identity_key.as_bytes()).unwrap().public();
    let mut planes = ["one", "two"].map(|name| Machine::new(name, identity, Some(&identity_key)));
    let mut removed = Machine::new("three", identity, None);
    let seeds = [planes[0].address];
    planes.iter_mut().for_each(|machine| machine.start(&seeds));
    removed.start(&seeds);
    let all = [("one", "alive"), ("three", "alive"), ("two", "alive")];
    planes.iter().for_each(|machine| machine.sees(&all));

    let objects = InMemory::new();
    let metadata = |name: String| json!({"name": name, "labels": {objects::KIND: objects::REMOVED}});
    let name = format!("removed-{}", objects::hex(&removed.id().0));
    for name in [name, "removed-by-hand".to_owned()] {
        objects.call(&Call::Create(json!({"metadata": metadata(name)}))).unwrap();
    }
    let servers = Endpoints::of([SocketAddr::new(planes[0].address.ip(), 6443)]);
    let publishers = Mutex::new([Publisher::default(), Publisher::default()]);
    let round = || {
        for (machine, publisher) in planes.iter().zip(publishers.lock().unwrap().iter_mut()) {
            publisher.publish(machine.handle.as_ref().unwrap(), Some(&servers), &[], &objects).unwrap();
        }
        match objects.call(&Call::Get(rekeying::NAME.to_owned())).unwrap() {
            Answer::Object(Some(object)) => Rekeying::read(&object).unwrap(),
            _ => Rekeying::default(),
        }
    };
    planes[0].until("the removal to be settled", |_| {
        let found = round();
        if found.removed.contains(&removed.id()) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    planes.iter().for_each(|machine| machine.has_key(2));
    planes.iter().for_each(|machine| machine.sees(&[("one", "alive"), ("two", "alive")]));
    let settled = round();
    assert_eq!((settled.epoch, settled.claimed), (2, None));
    assert_eq!(round(), settled);
}

#[test]
fn who_is_an_operator_reaches_a_node_that_cant_ask_the_cluster_and_stays_on_its_disk() {
    let identity_key = keys::ed25519().unwrap();
    let identity = Ed25519::load(identity_key.as_bytes()).unwrap().public();
    let (mut plane, mut worker) =
        (Machine::new("one", identity, Some(&identity_key)), Machine::new("two", identity, None));
    plane.start(&[]);
    worker.start(&[plane.address]);
    let lines = [1, 2, 3].map(|number| public_line(number, "somebody"));
    let [ada, bob, carl] = lines.each_ref().map(|line| OperatorLine::parse(line).unwrap());
    let object = |line: &OperatorLine, listed| {
        let (line, by) = (line.clone(), "ada".to_owned());
        OperatorObject { line, listed, by, since: 1, version: None }.object()
    };
    // Settings name ada and carl; bob is on record, and so is that carl was removed.
    let objects = InMemory::new();
    for made in [object(&bob, true), object(&carl, false)] {
        objects.call(&Call::Create(made)).unwrap();
    }
    let settings = [lines[0].clone(), lines[2].clone()];
    let publisher = Mutex::new(Publisher::default());
    let admits = |machine: &Machine, settings: &[String], expected: [bool; 3]| {
        machine.until("the operators", |this| {
            let handle = plane.handle.as_ref().unwrap();
            publisher.lock().unwrap().publish(handle, None, settings, &objects).unwrap();
            let known = this.handle.as_ref().unwrap().watch().operators(|| None);
            let found = known.as_ref().map(|known| [&ada, &bob, &carl].map(|line| known.roll.admits(&line.key)));
            if found == Some(expected) { Ok(()) } else { Err(format!("{found:?}")) }
        });
    };
    admits(&worker, &settings, [true, true, false]);
    // Another start of the settings' control plane names nobody.
    admits(&worker, &[], [false, true, false]);
    let kept = disk::operators(&worker.root, &CLUSTER, &identity, clock::unix()).unwrap().roll;
    assert!(kept.admits(&bob.key) && kept.has_removed(&carl.key) && !kept.admits(&ada.key));
    assert!(disk::operators(&worker.root, &CLUSTER, &[9; 32], clock::unix()).is_none(), "by another identity's word");
}
