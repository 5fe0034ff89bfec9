//! Founding on a folder that stands for a machine: power cuts at every operation, and damage to every file.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::certificates::{DAY, Leaf};
use crate::host::sample::{NOW, files, lines, machine};
use crate::kubernetes::sample;
use crate::plan::record::{Cluster, Node};
use crate::settings::frozen::Frozen;

const OPERATOR: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFtyLNW11EJMUPiwRcHaaW9KjV8Vl09jxBNwH+DyAUnb";

fn founder() -> Founder {
    let mut settings = sample::settings();
    settings.operator = vec![OPERATOR.into()];
    let frozen = Frozen { format: 1, settings: settings.clone(), origins: BTreeMap::new() }.text();
    Founder { settings, node: sample::node(), given: None, frozen }
}

fn planned(root: &Root, now: Unix) -> Result<Vec<Step>, Damaged> {
    plan::plan(&founder(), &look(root, &founder()), now)
}

fn executor(root: &Root, now: Unix) -> Executor<'_> {
    Executor::new(root, now, kubernetes::server(founder().node.address), None)
}

/// One boot: plan and act. True when it came to its end, false when the power was cut after `operations`.
fn boot(root: &Root, now: Unix, operations: Option<u32>) -> bool {
    let steps = planned(root, now).unwrap();
    let mut executor = executor(root, now);
    if let Some(operations) = operations {
        executor = executor.cut_after(operations);
    }
    executor.run(&steps, |_, _| {}).is_ok()
}

fn found(root: &Root, now: Unix) {
    assert!(boot(root, now, None));
    assert_eq!(planned(root, now).unwrap(), []);
}

/// Certificates and names are public; nothing else is.
fn expected_mode(path: &str) -> u32 {
    if path.ends_with(".crt") || path.ends_with("node.json") { 0o644 } else { 0o600 }
}

fn cluster_id(root: &Root) -> Option<String> {
    let record = std::fs::read(root.path(paths::CLUSTER)).ok()?;
    Some(Cluster::parse(&record).expect("a record is whole or not there").id)
}

#[test]
fn the_founders_plan_on_an_empty_machine() {
    let (_folder, root) = machine();
    let steps = planned(&root, NOW).unwrap();
    insta::assert_snapshot!(lines(&steps));
}

#[test]
fn a_finished_machine_has_an_empty_plan_and_no_key_is_readable_by_others() {
    let (_folder, root) = machine();
    found(&root, NOW);
    let before = files(&root);
    found(&root, NOW + DAY);
    assert_eq!(files(&root), before);
    for path in before.keys() {
        let mode = std::fs::metadata(root.path(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, expected_mode(path), "{path}");
    }
}

#[test]
fn after_a_power_cut_at_any_operation_the_next_boot_finishes_with_one_cluster() {
    for operations in 0.. {
        let (_folder, root) = machine();
        let whole = boot(&root, NOW, Some(operations));
        let (id, authority, frozen) = survivors(&root);
        found(&root, NOW + 60);
        assert!(id.is_none() || id == cluster_id(&root), "another cluster id after a cut at operation {operations}");
        if frozen {
            assert_eq!(authority, std::fs::read(root.path(Authority::Cluster.key())).ok(), "cut at {operations}");
        }
        assert!(!files(&root).keys().any(|path| path.ends_with(".kubeboot-new")), "cut at {operations}");
        if whole {
            assert!(operations > 100, "only {operations} operations were cut");
            break;
        }
    }
}

/// What a power cut left: the cluster's id, its authority's key, and whether the founding was complete.
fn survivors(root: &Root) -> (Option<String>, Option<Vec<u8>>, bool) {
    let key = std::fs::read(root.path(Authority::Cluster.key())).ok();
    (cluster_id(root), key, root.path(paths::FROZEN).exists())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn several_power_cuts_with_torn_files_end_in_one_cluster(
        cuts in proptest::collection::vec((0u32..160, 0usize..64), 1..5),
    ) {
        let (_folder, root) = machine();
        let mut id = None;
        for (operations, torn) in cuts {
            boot(&root, NOW, Some(operations));
            // What was written and never synced may be there in part.
            for (path, contents) in files(&root) {
                if path.ends_with(".kubeboot-new") {
                    std::fs::write(root.path(&path), &contents[..contents.len().min(torn)]).unwrap();
                }
            }
            id = id.or_else(|| cluster_id(&root));
        }
        found(&root, NOW + 60);
        prop_assert!(id.is_none() || id == cluster_id(&root));
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
fn every_damaged_file_is_named_and_only_what_can_be_made_again_is() {
    let (folder, root) = machine();
    found(&root, NOW);
    std::fs::create_dir(root.path("/var/lib/etcd/member")).unwrap();
    let whole = files(&root);
    let mut verdicts: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
    for (path, contents) in &whole {
        for (damage, left) in damages(contents) {
            put_back(&root, &whole);
            let place = folder.path().join(path.trim_start_matches('/'));
            match left {
                None => std::fs::remove_file(place).unwrap(),
                Some(left) => std::fs::write(place, left).unwrap(),
            }
            let verdict = match planned(&root, NOW) {
                Ok(steps) if steps.is_empty() => "not noticed".to_owned(),
                Ok(_) => {
                    found(&root, NOW);
                    "made again".to_owned()
                }
                Err(damaged) => {
                    let text = damaged.to_string();
                    assert!(text.contains(path.as_str()) || path.ends_with(".crt"), "{path} {damage}: {text}");
                    "refused".to_owned()
                }
            };
            verdicts.entry(path).or_default().insert(damage, verdict);
        }
    }
    let line = |(path, verdicts): (&&str, &BTreeMap<&str, String>)| {
        let same = verdicts.values().collect::<std::collections::BTreeSet<_>>();
        let verdict = if same.len() == 1 { verdicts["removed"].clone() } else { format!("{verdicts:?}") };
        format!("{path}: {verdict}")
    };
    insta::assert_snapshot!(verdicts.iter().map(line).collect::<Vec<_>>().join("\n"));
}

fn put_back(root: &Root, whole: &BTreeMap<String, Vec<u8>>) {
    for (path, contents) in whole {
        let place: PathBuf = root.path(path);
        if !std::fs::read(&place).is_ok_and(|found| found == *contents) {
            super::super::files::write_volatile(&place, contents, expected_mode(path)).unwrap();
        }
    }
}

#[test]
fn what_signs_and_identifies_survives_everything_that_is_made_again() {
    let (_folder, root) = machine();
    found(&root, NOW);
    let whole = files(&root);
    let lasting = |path: &&String| {
        ["ca.key", "ca.crt", "sa.key", "identity.key", "cluster.json", "config.yaml"]
            .iter()
            .any(|name| path.ends_with(name))
    };
    for path in whole.keys().filter(|path| !lasting(path) && !path.ends_with("settings.json")) {
        if path.ends_with("node.json") {
            continue;
        }
        std::fs::remove_file(root.path(path)).unwrap();
    }
    found(&root, NOW);
    let after = files(&root);
    for path in whole.keys().filter(lasting) {
        assert_eq!(whole[path], after[path], "{path}");
    }
}

#[test]
fn node_certificates_are_renewed_in_time_and_authorities_never() {
    let (_folder, root) = machine();
    found(&root, NOW);
    let issued = |now| -> Vec<String> {
        planned(&root, now)
            .unwrap()
            .iter()
            .filter_map(|step| match step {
                Step::Issue { leaf, because, .. } => Some(format!("{leaf}: {because}")),
                Step::Operator { because, .. } => Some(format!("operator: {because}")),
                Step::Authority { .. } => panic!("an authority is never made again"),
                _ => None,
            })
            .collect()
    };
    assert_eq!(issued(NOW + 4 * DAY), [] as [String; 0]);
    let due = ["kubelet-client", "kubelet-serving", "kube-proxy", "flannel"];
    let due = due.map(|name| format!("{name}: due for renewal"));
    assert_eq!(issued(NOW + 5 * DAY), due);
    assert!(issued(NOW + 8 * DAY).contains(&"kubelet-client: expired".to_owned()));
    assert!(issued(NOW + 21 * DAY).contains(&"operator: due for renewal".to_owned()));
    assert_eq!(issued(NOW + 364 * DAY).len(), 16);
    found(&root, NOW + 364 * DAY);
}

#[test]
fn a_clock_that_is_behind_stops_the_boot_instead_of_replacing_authorities() {
    let (_folder, root) = machine();
    stamp(&root, NOW - 90 * DAY);
    found(&root, NOW);
    assert!(matches!(planned(&root, NOW - 90 * DAY - 1), Err(Damaged::Clock { .. })));
}

/// An image that was made then.
fn stamp(root: &Root, made: Unix) {
    let path = root.path("/usr/lib/os-release");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(made)).unwrap();
}

#[test]
fn a_clock_that_a_time_server_sets_back_leaves_a_cluster_that_works() {
    let hour = 60 * 60;
    let (_folder, root) = machine();
    stamp(&root, NOW - 90 * DAY);
    found(&root, NOW + 14 * hour);
    assert_eq!(planned(&root, NOW).unwrap(), [], "a hardware clock on the local time of Kiritimati");
    // Far ahead: what has an end soon is made again, what can't be is valid.
    let (_folder, root) = machine();
    stamp(&root, NOW - 90 * DAY);
    found(&root, NOW + 60 * DAY);
    let steps = planned(&root, NOW).unwrap();
    let again = |step: &Step| matches!(step, Step::Issue { .. } | Step::Operator { .. } | Step::Flush);
    assert!(!steps.is_empty() && steps.iter().all(again), "{steps:?}");
    found(&root, NOW);
}

#[test]
fn the_kubelets_certificate_is_renewed_when_it_is_due_as_every_other_and_a_link_in_its_place_becomes_a_file() {
    let (_folder, root) = machine();
    found(&root, NOW);
    let issued = |now: u64| {
        let leaf = |step: &Step| matches!(step, Step::Issue { leaf, .. } if *leaf == Leaf::KubeletClient);
        planned(&root, now).unwrap().iter().any(leaf)
    };
    assert!(!issued(NOW + 3 * DAY));
    assert!(issued(NOW + 6 * DAY), "two thirds of a week are over");
    // What an earlier version left.
    let place = root.path(Leaf::KubeletClient.form().certificate());
    let before = place.with_file_name("kubelet-client-kubeboot.pem");
    std::fs::rename(&place, &before).unwrap();
    std::os::unix::fs::symlink("kubelet-client-kubeboot.pem", &place).unwrap();
    assert_eq!(planned(&root, NOW).unwrap(), []);
    found(&root, NOW + 6 * DAY);
    assert!(!place.is_symlink());
}

#[test]
fn settings_that_etcd_was_filled_under_are_never_frozen_anew() {
    let (_folder, root) = machine();
    found(&root, NOW);
    std::fs::remove_file(root.path(paths::FROZEN)).unwrap();
    std::fs::create_dir(root.path("/var/lib/etcd/member")).unwrap();
    assert!(planned(&root, NOW).unwrap_err().to_string().contains(paths::FROZEN));
}

/// etcd's data, with so many bytes in its database and its log; none means that the file is not there.
fn etcd(root: &Root, database: Option<usize>, log: Option<usize>) {
    let _ = std::fs::remove_dir_all(root.path("/var/lib/etcd/member"));
    let log_file = format!("{}/0.wal", paths::ETCD_LOG);
    for (path, bytes) in [(paths::ETCD_DATABASE, database), (log_file.as_str(), log)] {
        if let Some(bytes) = bytes {
            let place = root.path(path);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, vec![0; bytes]).unwrap();
        }
    }
}

#[test]
fn a_machine_that_was_ready_does_not_start_without_etcds_data() {
    let (_folder, root) = machine();
    found(&root, NOW);
    etcd(&root, Some(1 << 20), Some(1 << 10));
    std::fs::write(root.path(paths::WAS_READY), "").unwrap();
    assert_eq!(planned(&root, NOW).unwrap(), []);
    let before = files(&root).into_keys().filter(|path| !path.starts_with(paths::ETCD_DATA)).collect::<Vec<_>>();
    let losses = [
        (None, None, paths::ETCD_DATABASE),
        (Some(0), Some(9), paths::ETCD_DATABASE),
        (None, Some(9), paths::ETCD_DATABASE),
        (Some(9), None, paths::ETCD_LOG),
        (Some(9), Some(0), paths::ETCD_LOG),
    ];
    for (database, log, named) in losses {
        etcd(&root, database, log);
        let damaged = planned(&root, NOW).unwrap_err();
        assert!(damaged.to_string().starts_with(&format!("{named} (etcd's ")), "{damaged}");
        assert!(damaged.fix().concat().contains("restore /var/lib/etcd from a snapshot"), "{:?}", damaged.fix());
    }
    let after = files(&root).into_keys().filter(|path| !path.starts_with(paths::ETCD_DATA)).collect::<Vec<_>>();
    assert_eq!(after, before);
}

#[test]
fn what_a_machine_that_was_ready_has_is_never_founded_anew() {
    let (_folder, root) = machine();
    found(&root, NOW);
    std::fs::write(root.path(paths::WAS_READY), "").unwrap();
    etcd(&root, Some(1 << 20), Some(1 << 10));
    std::fs::remove_dir_all(root.path("/var/lib/etcd/member")).unwrap();
    std::fs::remove_file(root.path(paths::FROZEN)).unwrap();
    std::fs::remove_file(root.path(Authority::Cluster.key())).unwrap();
    assert!(planned(&root, NOW).is_err());
    etcd(&root, Some(1 << 20), Some(1 << 10));
    assert!(planned(&root, NOW).unwrap_err().to_string().contains("ca.key"));
}

#[test]
fn a_member_that_votes_does_not_start_without_etcds_data_either() {
    let (_folder, root) = machine();
    found(&root, NOW);
    let learner = crate::etcd::Membership::learner(7, "one", "https://192.0.2.10:2380", &[]);
    std::fs::write(root.path(paths::ETCD_MEMBERSHIP), learner.text()).unwrap();
    assert_eq!(planned(&root, NOW).unwrap(), [], "a learner has promised nothing");
    std::fs::write(root.path(paths::ETCD_MEMBERSHIP), learner.promoted().text()).unwrap();
    assert!(planned(&root, NOW).unwrap_err().to_string().starts_with(paths::ETCD_DATABASE));
}

#[test]
fn a_machine_that_was_joining_founds_nothing() {
    let (_folder, root) = machine();
    found(&root, NOW);
    std::fs::remove_file(root.path(paths::FROZEN)).unwrap();
    assert!(planned(&root, NOW).is_ok(), "a founding that was cut short goes on");
    // A machine that joins has the record and the keys, and never had the tokens of a founding.
    std::fs::remove_file(root.path(paths::FOUNDING_TOKENS)).unwrap();
    let damaged = planned(&root, NOW).unwrap_err();
    assert!(matches!(damaged, Damaged::Joining { .. }), "{damaged}");
    assert!(damaged.fix().concat().contains("kubeboot.role=control-plane"), "{:?}", damaged.fix());
}

#[test]
fn the_agent_leaves_etcds_database_alone() {
    let (_folder, root) = machine();
    found(&root, NOW);
    etcd(&root, Some(4 * 4096), None);
    let database = |step: &Step| matches!(step, Step::Remove { path, .. } if path == paths::ETCD_DATABASE);
    assert!(planned(&root, NOW).unwrap().iter().any(database), "a boot removes what a power cut left");
    assert!(!renew(&root, &founder()).unwrap().iter().any(database));
    assert!(root.path(paths::ETCD_DATABASE).exists(), "etcd may be making it just now");
}

#[test]
fn only_a_database_that_etcd_was_just_making_is_removed() {
    let (_folder, root) = machine();
    found(&root, NOW);
    let removed = |database, log| {
        etcd(&root, database, log);
        let steps = planned(&root, NOW).unwrap();
        let database = |step: &&Step| matches!(step, Step::Remove { path, .. } if path == paths::ETCD_DATABASE);
        assert_eq!(steps.iter().filter(|step| **step != Step::Flush).count(), steps.iter().filter(database).count());
        !steps.is_empty()
    };
    assert!(removed(Some(16384), None), "zeros, where the power went before they were replaced");
    assert!(removed(Some(1), None));
    assert!(!removed(None, None), "etcd never ran");
    assert!(!removed(Some(0), None), "etcd starts from an empty file");
    assert!(!removed(Some(16385), None), "something was committed");
    assert!(!removed(Some(16384), Some(64)), "there is a log to recover from");
    removed(Some(16384), None);
    found(&root, NOW);
    assert!(!root.path(paths::ETCD_DATABASE).exists());
}

#[test]
fn a_seed_that_is_given_after_an_interrupted_founding_is_the_clusters_only_one() {
    let cut = (0..200).map(|operations| {
        let (folder, root) = machine();
        boot(&root, NOW, Some(operations));
        (folder, root)
    });
    let mut half_founded = cut.filter(|(_, root)| root.path(paths::SEED).exists() && cluster_id(root).is_none());
    let (_folder, root) = half_founded.next().expect("a moment with a seed and no cluster");
    let given = Seed::new([7; 16]);
    let founder = Founder { given: Some(given.founding_key().public()), ..founder() };
    let steps = plan::plan(&founder, &look(&root, &founder), NOW).unwrap();
    act(&root, &founder, &steps, Some(given.clone()), |_, _| {}).unwrap();
    let record = Cluster::parse(&std::fs::read(root.path(paths::CLUSTER)).unwrap()).unwrap();
    let expected = Cluster::unsigned([0; 16], NOW, &given.founding_key().public(), &[0; 32]);
    assert_eq!(record.founding_key, expected.founding_key);
    assert!(own_seed(&root).is_none());
}

#[test]
fn a_key_that_others_could_read_gets_its_mode_back() {
    let (_folder, root) = machine();
    found(&root, NOW);
    super::super::files::set_mode(&root.path(Authority::Etcd.key()), 0o644).unwrap();
    let steps = planned(&root, NOW).unwrap();
    assert_eq!(steps[0], Step::Mode { path: Authority::Etcd.key().into(), mode: 0o600 });
    found(&root, NOW);
}

#[test]
fn rendering_twice_writes_nothing_the_second_time() {
    let (_folder, root) = machine();
    found(&root, NOW);
    std::fs::create_dir_all(root.path(paths::MANIFESTS)).unwrap();
    let founder = founder();
    let site = || Site { inputs: inputs(&root), ..sample::site(&founder.settings, &founder.node) };
    let all =
        |site: &Site<'_>| render(&root, site, &[kubernetes::renders(site), static_pods::later(site)].concat()).unwrap();
    assert!(!all(&site()).is_empty());
    assert_eq!(all(&site()), [] as [String; 0]);
    // A renewed certificate that a pod reads only when it starts changes that pod's manifest alone.
    std::fs::remove_file(root.path("/etc/kubernetes/scheduler.conf")).unwrap();
    found(&root, NOW);
    assert_eq!(all(&site()), ["/etc/kubernetes/manifests/kube-scheduler.yaml"]);
}

/// A boot of a machine that was given a seed, cut after so many operations.
fn boot_with(root: &Root, founder: &Founder, seed: &Seed, operations: Option<u32>) -> bool {
    let steps = plan::plan(founder, &look(root, founder), NOW).unwrap();
    let mut executor = Executor::new(root, NOW, kubernetes::server(founder.node.address), Some(seed.clone()));
    if let Some(operations) = operations {
        executor = executor.cut_after(operations);
    }
    executor.run(&steps, |_, _| {}).is_ok()
}

#[test]
fn another_seed_after_a_cut_founds_anew_and_the_same_one_never_does() {
    let with = |seed: &Seed| Founder { given: Some(seed.founding_key().public()), ..founder() };
    let (first, second) = (Seed::new([7; 16]), Seed::new([8; 16]));
    for operations in 0.. {
        let (_folder, root) = machine();
        let whole = boot_with(&root, &with(&first), &first, Some(operations));
        let before = cluster_id(&root);
        let complete = root.path(paths::FROZEN).exists();
        // The power may go at the second boot too; the third has the second's seed again.
        boot_with(&root, &with(&second), &second, Some(operations / 2));
        let between = cluster_id(&root);
        assert!(boot_with(&root, &with(&second), &second, None));
        let record = Cluster::parse(&std::fs::read(root.path(paths::CLUSTER)).unwrap()).unwrap();
        let seed = if complete { &first } else { &second };
        assert!(record.is_founded_by(&seed.founding_key().public()), "cut at {operations}");
        if complete || between != before {
            assert_eq!(between, Some(record.id), "one seed, one founding, one id: cut at {operations}");
        }
        assert_eq!(plan::plan(&with(seed), &look(&root, &with(seed)), NOW).unwrap(), []);
        if whole {
            break;
        }
    }
}

#[test]
fn a_seed_of_the_founders_own_gives_way_to_one_that_is_given_before_the_founding_is_complete() {
    let cut = (0..200).map(|operations| {
        let (folder, root) = machine();
        boot(&root, NOW, Some(operations));
        (folder, root)
    });
    let mut half_founded = cut.filter(|(_, root)| cluster_id(root).is_some() && !root.path(paths::FROZEN).exists());
    let (_folder, root) = half_founded.next().expect("a moment with a cluster and nothing frozen");
    let given = Seed::new([7; 16]);
    let founder = Founder { given: Some(given.founding_key().public()), ..founder() };
    assert!(boot_with(&root, &founder, &given, None));
    let record = Cluster::parse(&std::fs::read(root.path(paths::CLUSTER)).unwrap()).unwrap();
    assert!(record.is_founded_by(&given.founding_key().public()));
    assert!(own_seed(&root).is_none(), "it would be shown as the cluster's");
}

#[test]
fn an_address_that_moved_before_the_founding_was_complete_is_pinned_anew() {
    let moved = Founder { node: Node { address: "192.0.2.77".parse().unwrap(), ..sample::node() }, ..founder() };
    for operations in (0..).step_by(7) {
        let (_folder, root) = machine();
        let whole = boot(&root, NOW, Some(operations));
        let plan = plan::plan(&moved, &look(&root, &moved), NOW);
        if root.path(paths::FROZEN).exists() {
            assert!(plan.is_err_and(|error| error.to_string().contains(paths::NODE)), "cut at {operations}");
        } else {
            let server = kubernetes::server(moved.node.address);
            Executor::new(&root, NOW, server, None).run(&plan.unwrap(), |_, _| {}).unwrap();
            assert_eq!(plan::plan(&moved, &look(&root, &moved), NOW).unwrap(), [], "cut at {operations}");
        }
        if whole {
            break;
        }
    }
}

#[test]
fn an_operator_who_is_no_longer_named_loses_the_certificate() {
    let (_folder, root) = machine();
    found(&root, NOW);
    let mut later = founder();
    later.settings.operator.clear();
    let path = OperatorKey::parse(OPERATOR).unwrap().path();
    let steps = plan::plan(&later, &look(&root, &later), NOW).unwrap();
    assert!(matches!(&steps[..], [Step::Remove { path: gone, .. }, Step::Flush] if *gone == path), "{steps:?}");
    executor(&root, NOW).run(&steps, |_, _| {}).unwrap();
    assert!(!root.path(&path).exists());
    assert_eq!(plan::plan(&later, &look(&root, &later), NOW).unwrap(), []);
}
