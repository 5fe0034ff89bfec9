//! The real agent as a process on a machine of its own, behind a real etcd and a real API server; and who attacks it from
//! another network namespace.

mod attacks;
mod crowd;
mod discovery;
mod machine;
mod network;
mod timing;

use std::path::Path;

use super::*;
use crate::host::{apart, joining};
use crowd::Crowd;
use machine::TheMachine;
use network::Sources;

/// `ETCD=PATH KUBE_APISERVER=PATH KUBEBOOT=PATH cargo test -p kubeboot --lib enrolment::tests::agent -- --ignored
/// --nocapture`; all three linked statically, as in a release.
#[test]
#[ignore = "needs etcd, kube-apiserver and kubeboot, and half a minute"]
fn the_agent_withstands_who_attacks_it_over_a_network() {
    let name = "host::enrolment::tests::agent::the_agent_withstands_who_attacks_it_over_a_network";
    apart::run(name, |folder| {
        let machine = TheMachine::start(&folder);
        network::many_files();
        let mut sources = Sources::default();
        an_honest_machine_joins(&machine, &folder, "w-1", 1);
        attacks::all_fail(&machine, &mut sources);
        discovery::answers_each_query_once(&machine);
        let mut sources = honest_machines_join_through_a_crowd(&machine, &folder, sources);
        timing::report(&machine.identity(), &mut sources);
        nothing_came_of_it(&machine);
        two_hundred_machines_join_at_once(&machine, &mut sources);
    });
}

/// The joiner's own code, as at a boot: tries again after a second. Few attempts may be in vain.
fn an_honest_machine_joins(machine: &TheMachine, folder: &Path, name: &str, attempts: u32) {
    let (begun, mut attempt) = (Instant::now(), 0);
    let root = joining::real::machine(&folder.join("machines").join(name));
    let joined = wait::until(&format!("{name} to join"), Duration::from_secs(60), Duration::from_secs(1), || {
        attempt += 1;
        let by = joining::By::Token(Seed::new(real::SEED).join_token(Role::Worker));
        joining::real::join(&root, by, &joining::real::node(name), &network::agent()).map_err(|block| block.line())
    });
    joined.map(drop).unwrap_or_else(|late| panic!("{late}"));
    println!("report: {name}, told where its cluster is, joined in {:.2?}, at its attempt {attempt}", begun.elapsed());
    println!("    {}", machine.heard(network::OUTSIDE, &format!("admitted worker {name} ")));
    assert!(attempt <= attempts, "{name} joined only at its attempt {attempt}");
}

fn honest_machines_join_through_a_crowd(machine: &TheMachine, folder: &Path, sources: Sources) -> Sources {
    let crowd = Crowd::gather(sources);
    println!("{}", crowd.words());
    for name in ["w-3", "w-4", "w-5", "w-6", "w-7"] {
        an_honest_machine_joins(machine, folder, name, 3);
    }
    println!("{}", crowd.words());
    let sources = crowd.leave();
    println!("    {}", machine.heard_anywhere("no TLS connection: its place was given to a newcomer"));
    sources
}

/// The agent has gone on, no fault of its own is in its log, and nobody is on record but the honest.
fn nothing_came_of_it(machine: &TheMachine) {
    assert_eq!(machine.ended(), None);
    let log = machine.log();
    let faults: Vec<_> =
        log.iter().filter(|line| line.contains("fault of kubeboot") || line.contains("panicked")).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let mut damaged = Vec::new();
    let nodes = machine.store().nodes(&mut damaged).unwrap();
    let names: Vec<&str> = nodes.iter().map(|node| node.record.name.as_str()).collect();
    assert_eq!(names, ["one", "w-1", "w-2", "w-3", "w-4", "w-5", "w-6", "w-7", "w-8"]);
    assert!(nodes.iter().all(|node| node.enrolled) && damaged.is_empty(), "{damaged:?}");
}

/// Through this one control plane, each at its first attempt.
fn two_hundred_machines_join_at_once(machine: &TheMachine, sources: &mut Sources) {
    let begun = Instant::now();
    let joins: Vec<_> = (0..200_u8)
        .map(|number| {
            let from = sources.next();
            thread::spawn(move || {
                let (begun, name) = (Instant::now(), format!("crowd-{number}"));
                let channel = network::channel(from).map_err(|broken| format!("{name}: {broken:?}"))?;
                let token = Seed::new(real::SEED).join_token(Role::Worker);
                let joined = exchange(channel, super::machine(&name, [10, 0, 0, number].into()), token);
                joined.map(|_| begun.elapsed()).map_err(|why| format!("{name}: {why:?}"))
            })
        })
        .collect();
    let ended: Vec<Result<Duration, String>> = joins.into_iter().map(|join| join.join().unwrap()).collect();
    let failed: Vec<_> = ended.iter().filter_map(|one| one.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of 200 failed: {failed:#?}", failed.len());
    let mut took: Vec<Duration> = ended.into_iter().flatten().collect();
    took.sort();
    let all = begun.elapsed();
    println!(
        "report: 200 machines joined at once through one agent in {all:.1?}, each in {:.1?} (median) to {:.1?}",
        took[100], took[199]
    );
    assert_eq!(machine.ended(), None);
}
