//! A control plane that joins while its disk is full, or whose power is cut: wherever that happens, nothing torn is left in
//! place, and the boot after that goes on. Of a full disk no secret is left beside what is in place, and the words say what
//! helps.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::look_at;
use crate::certificates::signing_request::check_node;
use crate::certificates::{Authority, Leaf, Request, check};
use crate::enrolment::joiner::Enrolled;
use crate::enrolment::message::{Grant, Key};
use crate::etcd::{Member, Membership};
use crate::host::execute::{Executor, Failed};
use crate::host::files::space;
use crate::host::joining::Granted;
use crate::host::keys::{self, Signer};
use crate::host::root::Root;
use crate::host::sample::{NOW, files, machine};
use crate::host::{etcd, founder};
use crate::kubernetes::{self, sample};
use crate::mesh::MeshKey;
use crate::plan::record::{Cluster, Endpoints, Node};
use crate::plan::worker::split;
use crate::plan::{self, Founder, Worker, control_plane};
use crate::settings::Role;
use crate::settings::frozen::Frozen;
use crate::token::Joiner;
use crate::{paths, words};

/// The parts of a boot that write many files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Asks,
    IsGranted,
    Makes,
}

/// When the power is cut: in which part, after how many operations on files.
#[derive(Debug, Clone, Copy)]
struct Cut {
    part: Part,
    operations: u32,
}

/// A cluster that was founded on another machine.
struct FoundedCluster {
    _folder: tempfile::TempDir,
    root: Root,
}

fn frozen(role: Role) -> Frozen {
    let mut settings = sample::settings();
    settings.role = Some(role);
    Frozen { format: 1, settings, origins: BTreeMap::new() }
}

fn as_founder(role: Role, node: &Node) -> Founder {
    let frozen = frozen(role);
    Founder { settings: frozen.settings.clone(), node: node.clone(), given: None, frozen: frozen.text() }
}

fn second() -> Node {
    Node { name: "two".into(), address: "192.0.2.12".parse().unwrap(), ..sample::node() }
}

fn read(root: &Root, path: &str) -> Vec<u8> {
    std::fs::read(root.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl FoundedCluster {
    fn new() -> Self {
        let (folder, root) = machine();
        let founding = as_founder(Role::Init, &sample::node());
        let steps = plan::plan(&founding, &founder::look(&root, &founding), NOW).unwrap();
        Executor::new(&root, NOW, kubernetes::server(sample::node().address), None).run(&steps, |_, _| {}).unwrap();
        FoundedCluster { _folder: folder, root }
    }

    /// What a control plane with this node key is granted.
    fn grant(&self, key: &[u8; 32]) -> Granted {
        let (worker, text) =
            (Worker { node: second() }, |path: &str| String::from_utf8(read(&self.root, path)).unwrap());
        let made = worker.leaves(key).map(|(_, request)| keys::signing_request(&request).unwrap());
        let requests = made.each_ref().map(|(der, _)| der.clone());
        let checked = check_node(&requests, &worker.node.name, worker.node.address, key).unwrap();
        let issue = |(_, request, spki): (Leaf, Request, Vec<u8>)| {
            let which = request.authority;
            let signer = Signer::load(&read(&self.root, which.certificate()), &read(&self.root, which.key())).unwrap();
            signer.issue_for(&request, &spki, NOW).unwrap()
        };
        let certificates: Vec<String> = checked.into_iter().map(issue).collect();
        let grant = Grant {
            role: Joiner::ControlPlane,
            mesh_key: MeshKey::new(2, Zeroizing::new([3; 32])),
            endpoints: vec!["192.0.2.10:6443".parse().unwrap()],
            settings: String::new(),
            statement: None,
            authorities: Authority::ALL.map(|which| (which, text(which.certificate()))).into(),
            certificates: certificates.try_into().unwrap(),
            keys: Key::ALL.map(|key| (key, Zeroizing::new(read(&self.root, key.path())))).into(),
        };
        let cluster = Cluster::parse(&read(&self.root, paths::CLUSTER)).unwrap();
        Granted {
            enrolled: Box::new(Enrolled { cluster, grant }),
            keys: made.map(|(_, key)| key),
            frozen: frozen(Role::ControlPlane),
            differences: Vec::new(),
        }
    }

    /// One boot of the control plane, as `commands/boot` has it: it joins, makes what is its own, and keeps its membership.
    fn boot(&self, root: &Root) -> Result<(), String> {
        self.boot_until(root, None)
    }

    /// The same, whose power is cut.
    fn boot_until(&self, root: &Root, cut: Option<Cut>) -> Result<(), String> {
        let worker = Worker { node: second() };
        let executor = |part: Part| {
            let executor = Executor::new(root, NOW, kubernetes::server(second().address), None);
            match cut {
                Some(cut) if cut.part == part => executor.cut_after(cut.operations),
                _ => executor,
            }
        };
        let words = |error: Failed| error.to_string();
        if !root.path(paths::FROZEN).exists() {
            let steps = control_plane::plan(&worker, &look_at(root, &control_plane::paths(&worker)), NOW).unwrap();
            let (before, after) = split(&steps).unwrap();
            executor(Part::Asks).run(before, |_, _| {}).map_err(words)?;
            let key = check::ed25519_public_half(&read(root, paths::NODE_KEY)).unwrap().try_into().unwrap();
            executor(Part::IsGranted).with(&self.grant(&key)).run(after, |_, _| {}).map_err(words)?;
        }
        let own = as_founder(Role::ControlPlane, &second());
        let steps = plan::plan(&own, &founder::look(root, &own), NOW).unwrap();
        executor(Part::Makes).run(&steps, |_, _| {}).map_err(words)?;
        let (one, two) = ("192.0.2.10:6443".parse().unwrap(), "192.0.2.11:6443".parse().unwrap());
        etcd::keep_endpoints(root, &Endpoints::of([one, two]))?;
        let url = || vec!["https://192.0.2.10:2380".to_owned()];
        let member = Member { id: 1, name: "one".into(), peers: url(), clients: url(), learner: false };
        etcd::keep(root, &Membership::learner(7, "two", "https://192.0.2.12:2380", &[member]))
    }
}

#[test]
fn wherever_the_room_ends_nothing_is_left_of_what_was_written_and_the_next_boot_joins() {
    let cluster = FoundedCluster::new();
    let mut failures = 0;
    for room in (0..).step_by(1009) {
        let (_folder, root) = machine();
        let Err(why) = space::only(room, || cluster.boot(&root)) else { break };
        failures += 1;
        assert!(why.contains("No space left on device"), "{why}");
        assert!(why.contains("still is"), "it says what state it left: {why}");
        assert!(words::disk_fix(&why).is_some(), "it says what helps: {why}");
        let left = files(&root);
        let strays: Vec<&String> = left.keys().filter(|path| path.ends_with(".kubeboot-new")).collect();
        assert!(strays.is_empty(), "with room for {room} bytes: {strays:?}");
        // What is in place is whole: of the cluster's keys what the cluster has.
        for key in Key::ALL.map(Key::path) {
            assert!(left.get(key).is_none_or(|found| *found == read(&cluster.root, key)), "{key}: {room} bytes");
        }
        let node_key = left.get(paths::NODE_KEY).cloned();
        cluster.boot(&root).unwrap_or_else(|why| panic!("after {room} bytes: {why}"));
        assert!(node_key.is_none_or(|key| key == read(&root, paths::NODE_KEY)), "asking again takes no second use");
        let own = as_founder(Role::ControlPlane, &second());
        assert_eq!(plan::plan(&own, &founder::look(&root, &own), NOW).unwrap(), [], "after {room} bytes");
        assert_eq!(etcd::membership(&root).unwrap().map(|membership| membership.id), Some(7));
    }
    assert!(failures > 10, "only {failures} boots failed");
}

#[test]
fn after_a_power_cut_at_any_operation_the_next_boot_joins_as_the_same_control_plane() {
    let cluster = FoundedCluster::new();
    let mut cuts = 0;
    for part in [Part::Asks, Part::IsGranted, Part::Makes] {
        for operations in 0.. {
            let (_folder, root) = machine();
            let cut = Cut { part, operations };
            let whole = cluster.boot_until(&root, Some(cut)).is_ok();
            let left = files(&root);
            for key in Key::ALL.map(Key::path) {
                assert!(left.get(key).is_none_or(|found| *found == read(&cluster.root, key)), "{key}: {cut:?}");
            }
            // Who is a node has every key of the cluster: the founder's plan would make those that are missing.
            let has_all = Key::ALL.iter().all(|key| left.contains_key(key.path()));
            assert!(has_all || !left.contains_key(paths::FROZEN), "settings without keys: {cut:?}");
            let node_key = left.get(paths::NODE_KEY).cloned();
            cluster.boot(&root).unwrap_or_else(|why| panic!("after {cut:?}: {why}"));
            assert!(node_key.is_none_or(|key| key == read(&root, paths::NODE_KEY)), "another node key after {cut:?}");
            assert!(!files(&root).keys().any(|path| path.ends_with(".kubeboot-new")), "torn files after {cut:?}");
            let own = as_founder(Role::ControlPlane, &second());
            assert_eq!(plan::plan(&own, &founder::look(&root, &own), NOW).unwrap(), [], "after {cut:?}");
            for key in Key::ALL.map(Key::path) {
                assert_eq!(read(&root, key), read(&cluster.root, key), "{key}: {cut:?}");
            }
            if whole {
                break;
            }
            cuts += 1;
        }
    }
    assert!(cuts > 100, "the power was cut {cuts} times only");
}
