//! Joining on a folder that stands for a machine: power cuts at every operation, and damage to every file.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;

use zeroize::Zeroizing;

use super::*;
use crate::certificates::signing_request::check_node;
use crate::certificates::{Authority, DAY, check};
use crate::enrolment::decision::NodeRecord;
use crate::enrolment::joiner::Enrolled;
use crate::enrolment::message::Grant;
use crate::enrolment::statement::Statement;
use crate::host::keys::{self, Signer};
use crate::host::mesh::disk;
use crate::host::sample::{NOW, files, lines, machine};
use crate::kubernetes::sample;
use crate::mesh::MeshKey;
use crate::paths;
use crate::plan::Damaged;
use crate::plan::record::{Cluster, Node};
use crate::plan::worker::{AUTHORITIES, When, plan, split};
use crate::settings::Role;
use crate::settings::frozen::Frozen;
use crate::token::{Joiner, Seed};

/// A cluster that admits the worker.
struct Canned {
    record: Cluster,
    signers: Vec<(Authority, Signer)>,
}

impl Canned {
    fn new() -> Self {
        let founding = Seed::new([7; 16]).founding_key();
        let mut record = Cluster::unsigned([1; 16], NOW, &founding.public(), &founding.public());
        record.certify(&founding.sign(&record.certified()));
        let signer = |which| (which, keys::authority(which, NOW, NOW - 90 * DAY).unwrap().1);
        Canned { record, signers: AUTHORITIES.map(signer).into() }
    }

    /// What is granted to the machine with this node key.
    fn grant(&self, key: &[u8; 32], now: Unix) -> Granted {
        let worker = worker();
        let made = worker.leaves(key).map(|(_, request)| keys::signing_request(&request).unwrap());
        let requests = made.each_ref().map(|(der, _)| der.clone());
        let checked = check_node(&requests, &worker.node.name, worker.node.address, key).unwrap();
        let signer = |which| &self.signers.iter().find(|(one, _)| *one == which).unwrap().1;
        let certificates: Vec<String> = checked
            .iter()
            .map(|(_, request, spki)| signer(request.authority).issue_for(request, spki, now).unwrap())
            .collect();
        let Node { name, address, .. } = worker.node.clone();
        let record = NodeRecord { name, role: Joiner::Worker, key: *key, address };
        let grant = Grant {
            role: Joiner::Worker,
            mesh_key: MeshKey::new(2, Zeroizing::new([3; 32])),
            endpoints: vec!["192.0.2.11:6443".parse().unwrap()],
            settings: String::new(),
            authorities: self.signers.iter().map(|(which, signer)| (*which, signer.certificate.clone())).collect(),
            certificates: certificates.try_into().unwrap(),
            keys: Vec::new(),
            statement: Some(Statement::of(&[1; 16], &record, now, &Seed::new([7; 16]).founding_key())),
        };
        let mut settings = sample::settings();
        settings.role = Some(Role::Worker);
        Granted {
            enrolled: Box::new(Enrolled { cluster: self.record.clone(), grant }),
            keys: made.map(|(_, key)| key),
            frozen: Frozen { format: 1, settings, origins: BTreeMap::new() },
            differences: Vec::new(),
        }
    }
}

fn worker() -> Worker {
    Worker { node: sample::node() }
}

fn planned(root: &Root, now: Unix, when: When) -> Result<Vec<Step>, Damaged> {
    plan(&worker(), &look(root, &worker()), now, when)
}

/// One boot: plan, and act with what is granted. True when it came to its end, false when the power was cut after
/// `operations`.
fn boot(root: &Root, canned: &Canned, now: Unix, operations: Option<u32>) -> bool {
    let steps = planned(root, now, When::Lost).unwrap();
    let (before, after) = split(&steps).unwrap_or((&steps, &[]));
    let granted;
    let mut executor = Executor::new(root, now, String::new(), None);
    if let Some(operations) = operations {
        executor = executor.cut_after(operations);
    }
    if executor.run(before, |_, _| {}).is_err() {
        return false;
    }
    granted = canned.grant(&node_key(root), now);
    executor.with(&granted).run(after, |_, _| {}).is_ok()
}

/// The public half of the machine's node key.
fn node_key(root: &Root) -> [u8; 32] {
    let key = std::fs::read(root.path(paths::NODE_KEY)).unwrap();
    check::ed25519_public_half(&key).unwrap().try_into().unwrap()
}

fn join(root: &Root, canned: &Canned, now: Unix) {
    assert!(boot(root, canned, now, None));
    assert_eq!(planned(root, now, When::Due).unwrap(), []);
}

/// Certificates, names and addresses are public; nothing else is.
fn expected_mode(path: &str) -> u32 {
    let public = [".crt", "node.json", "endpoints.json"].iter().any(|end| path.ends_with(end));
    if public { 0o644 } else { 0o600 }
}

#[test]
fn the_workers_plan_on_an_empty_machine() {
    let (_folder, root) = machine();
    let steps = planned(&root, NOW, When::Lost).unwrap();
    insta::assert_snapshot!(lines(&steps));
}

#[test]
fn a_worker_that_has_joined_has_an_empty_plan_and_no_key_is_readable_by_others() {
    let ((_folder, root), canned) = (machine(), Canned::new());
    join(&root, &canned, NOW);
    let before = files(&root);
    join(&root, &canned, NOW + DAY);
    assert_eq!(files(&root), before);
    for path in before.keys() {
        let mode = std::fs::metadata(root.path(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, expected_mode(path), "{path}");
    }
    insta::assert_snapshot!(before.keys().map(String::as_str).collect::<Vec<_>>().join("\n"));
}

#[test]
fn after_a_power_cut_at_any_operation_the_next_boot_joins_as_the_same_machine() {
    let canned = Canned::new();
    for operations in 0.. {
        let (_folder, root) = machine();
        let whole = boot(&root, &canned, NOW, Some(operations));
        let key = std::fs::read(root.path(paths::NODE_KEY)).ok();
        let asked = root.path(paths::CLUSTER).exists();
        assert!(key.is_some() || !asked, "asked before the node key was on disk, cut at {operations}");
        join(&root, &canned, NOW + 60);
        let after = std::fs::read(root.path(paths::NODE_KEY)).ok();
        assert!(key.is_none() || key == after, "another node key after a cut at operation {operations}");
        assert!(!files(&root).keys().any(|path| path.ends_with(".kubeboot-new")), "cut at {operations}");
        if whole {
            assert!(operations > 50, "only {operations} operations were cut");
            break;
        }
    }
}

#[test]
fn a_renewal_that_is_cut_at_any_operation_is_made_again() {
    let canned = Canned::new();
    for operations in 0.. {
        let (_folder, root) = machine();
        join(&root, &canned, NOW);
        let whole = boot(&root, &canned, NOW + 8 * DAY, Some(operations));
        join(&root, &canned, NOW + 8 * DAY + 60);
        if whole {
            assert!(operations > 20, "only {operations} operations were cut");
            break;
        }
    }
}

/// What may happen to a file.
fn damages(contents: &[u8]) -> [(&'static str, Option<Vec<u8>>); 4] {
    let mut flipped = contents.to_vec();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x15;
    let half = contents[..middle].to_vec();
    [("removed", None), ("emptied", Some(Vec::new())), ("cut in half", Some(half)), ("changed", Some(flipped))]
}

#[test]
fn every_damaged_file_is_named_and_only_what_can_be_got_again_is() {
    let ((_folder, root), canned) = (machine(), Canned::new());
    join(&root, &canned, NOW);
    let whole = files(&root);
    let mut verdicts: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
    // Without frozen settings it is a machine that joins; what is wrong with them the boot says before it plans.
    for (path, contents) in whole.iter().filter(|(path, _)| *path != paths::FROZEN) {
        // Any 32 bytes are a key: that it is another one, the cluster says when the node comes back.
        for (damage, left) in
            damages(contents).into_iter().filter(|(damage, _)| *path != paths::NODE_KEY || *damage != "changed")
        {
            for (path, contents) in &whole {
                crate::host::files::write_volatile(&root.path(path), contents, expected_mode(path)).unwrap();
            }
            match left {
                None => std::fs::remove_file(root.path(path)).unwrap(),
                Some(left) => std::fs::write(root.path(path), left).unwrap(),
            }
            let verdict = match planned(&root, NOW, When::Lost) {
                Ok(steps) if steps.is_empty() => "not noticed".to_owned(),
                Ok(_) => {
                    join(&root, &canned, NOW);
                    "got again".to_owned()
                }
                Err(damaged) => {
                    assert!(damaged.to_string().contains(path.as_str()), "{path} {damage}: {damaged}");
                    "refused".to_owned()
                }
            };
            verdicts.entry(path).or_default().insert(damage, verdict);
        }
    }
    let line = |(path, verdicts): (&&str, &BTreeMap<&str, String>)| {
        let same = verdicts.values().collect::<BTreeSet<_>>();
        let verdict = if same.len() == 1 { verdicts["removed"].clone() } else { format!("{verdicts:?}") };
        format!("{path}: {verdict}")
    };
    insta::assert_snapshot!(verdicts.iter().map(line).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_boot_waits_for_what_is_lost_and_the_agent_asks_for_what_is_due() {
    let ((_folder, root), canned) = (machine(), Canned::new());
    join(&root, &canned, NOW);
    let asked = |days, when| -> Vec<String> {
        let steps = planned(&root, NOW + days * DAY, when).unwrap();
        steps.iter().map(|step| format!("{step} ({})", step.because())).collect()
    };
    assert_eq!(asked(4, When::Due), [] as [String; 0]);
    assert_eq!(asked(5, When::Lost), [] as [String; 0]);
    insta::assert_snapshot!(asked(5, When::Due).join("\n"));
    insta::assert_snapshot!(asked(8, When::Lost).join("\n"));
}

#[test]
fn a_worker_with_a_new_address_asks_for_the_certificate_that_says_it() {
    let ((_folder, root), canned) = (machine(), Canned::new());
    join(&root, &canned, NOW);
    let moved = Worker { node: crate::plan::record::Node { address: [192, 0, 2, 77].into(), ..sample::node() } };
    let steps = plan(&moved, &look(&root, &moved), NOW, When::Lost).unwrap();
    insta::assert_snapshot!(lines(&steps));
    // Another name is no move.
    let other = Worker { node: crate::plan::record::Node { name: "two".into(), ..moved.node } };
    assert!(plan(&other, &look(&root, &other), NOW, When::Lost).is_err());
}

#[test]
fn a_clock_that_is_behind_stops_the_boot_instead_of_asking() {
    let ((_folder, root), canned) = (machine(), Canned::new());
    join(&root, &canned, NOW);
    assert!(matches!(planned(&root, NOW - 91 * DAY, When::Lost), Err(Damaged::Clock { .. })));
}

#[test]
fn certificates_are_listed_with_their_ends() {
    let ((_folder, root), canned) = (machine(), Canned::new());
    join(&root, &canned, NOW);
    let (listed, _) = certificates(&root, &worker());
    let names: Vec<&str> = listed.iter().filter(|one| one.validity.is_some()).map(|one| one.name.as_str()).collect();
    assert_eq!(
        names,
        ["kubernetes", "kubelet-serving-ca", "kubelet-client", "kubelet-serving", "kube-proxy", "flannel"]
    );
}

#[test]
fn a_granted_mesh_key_replaces_an_older_or_damaged_one_and_never_a_newer() {
    let ((_folder, root), canned) = (machine(), Canned::new());
    join(&root, &canned, NOW);
    let granted = canned.grant(&node_key(&root), NOW);
    let because = "the mesh has a newer key".to_owned();
    let steps = [Step::Return { leaves: Vec::new(), because }, Step::Flush];
    let held = || disk::mesh_key(&root).map(|key| key.epoch);
    let take_back = || Executor::new(&root, NOW, String::new(), None).with(&granted).run(&steps, |_, _| {}).unwrap();
    for (before, after) in [(1, 2), (2, 2), (3, 3)] {
        disk::write_mesh_key(&root, &MeshKey::new(before, Zeroizing::new([9; 32]))).unwrap();
        take_back();
        assert_eq!(held(), Ok(after));
    }
    std::fs::write(root.path(paths::MESH_KEY), "torn").unwrap();
    take_back();
    assert_eq!(held(), Ok(2));
}
