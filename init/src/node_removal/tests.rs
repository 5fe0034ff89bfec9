use serde_json::{Value, json};

use super::*;
use crate::token::Joiner;
use crate::words::Paint;

fn record(role: Joiner) -> NodeRecord {
    NodeRecord { name: "two".into(), role, key: [2; 32], address: [10, 0, 0, 12].into() }
}

fn worker() -> Found {
    Found {
        name: "two".into(),
        own: false,
        node: Some(true),
        record: Some(record(Joiner::Worker)),
        member: None,
        quorum: Ok(()),
    }
}

#[test]
fn a_worker_is_drained_barred_and_forgotten_in_this_order() {
    let all = [Step::Cordon, Step::Drain, Step::Bar, Step::Unregister, Step::Forget];
    assert_eq!(plan(&worker(), true).unwrap(), all);
    let undrained = [Step::Cordon, Step::Bar, Step::Unregister, Step::Forget];
    assert_eq!(plan(&worker(), false).unwrap(), undrained);
    assert_eq!(plan(&Found { node: Some(false), ..worker() }, true).unwrap(), undrained, "who is lost moves nothing");
}

#[test]
fn a_control_plane_leaves_etcd_after_it_is_barred() {
    let found = Found { record: Some(record(Joiner::ControlPlane)), member: Some(7), node: Some(false), ..worker() };
    let steps = [Step::Cordon, Step::BarControlPlane, Step::LeaveEtcd { id: 7 }, Step::Unregister, Step::Forget];
    assert_eq!(plan(&found, true).unwrap(), steps);
}

#[test]
fn a_removal_that_was_cut_short_goes_on() {
    assert_eq!(plan(&Found { node: None, ..worker() }, true).unwrap(), [Step::Bar, Step::Forget]);
    assert_eq!(plan(&Found { record: None, ..worker() }, false).unwrap(), [Step::Cordon, Step::Unregister]);
    let member_alone = Found { node: None, record: None, member: Some(7), ..worker() };
    assert_eq!(plan(&member_alone, true).unwrap(), [Step::LeaveEtcd { id: 7 }]);
}

#[test]
fn what_is_refused_says_why_and_the_way_out() {
    let refused = [
        Found { node: None, record: None, ..worker() },
        Found { own: true, ..worker() },
        Found { member: Some(7), quorum: Err("it is etcd's only voting member".into()), ..worker() },
    ];
    let texts: Vec<String> =
        refused.iter().map(|found| plan(found, true).expect_err("refused").text(Paint::Plain)).collect();
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn pods_that_can_not_move_stay() {
    let pod = |name: &str, metadata: Value, phase: &str| {
        let mut pod =
            json!({"metadata": {"namespace": "default", "name": name, "uid": name}, "status": {"phase": phase}});
        for (key, value) in metadata.as_object().into_iter().flatten() {
            pod["metadata"][key] = value.clone();
        }
        pod
    };
    let owner = |kind: &str| json!({"ownerReferences": [{"kind": kind, "controller": true}]});
    let list = json!({"items": [
        pod("web", owner("ReplicaSet"), "Running"),
        pod("alone", json!({}), "Pending"),
        pod("agent", owner("DaemonSet"), "Running"),
        pod("etcd-two", json!({"annotations": {"kubernetes.io/config.mirror": "x"}}), "Running"),
        pod("job", owner("Job"), "Succeeded"),
    ]});
    let names: Vec<String> = to_evict(&list).into_iter().map(|pod| pod.name).collect();
    assert_eq!(names, ["web", "alone"]);
    let web = &to_evict(&list)[0];
    assert_eq!(web.eviction_path(), "/api/v1/namespaces/default/pods/web/eviction");
    assert_eq!(eviction(web)["deleteOptions"]["preconditions"]["uid"], "web");
}
