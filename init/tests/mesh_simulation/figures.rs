//! The figures at many nodes: how long until all know all, what it costs, and how long until all know of a crash.

use std::collections::BTreeSet;
use std::time::Duration;

use kubeboot::mesh::{NodeId, SECOND, State, Time};
use nix::time::{ClockId, clock_gettime};

use crate::chaos::Replay;
use crate::invariants::{Watch, check_in_full};
use crate::world::World;

/// From the last join until all know all, at most.
const VIEW: Time = 45 * SECOND;
/// Bytes that a node sends in a second when nothing happens, with IPv4 and UDP headers, at most.
const BYTES: f64 = 200.0;
/// Processor time of a node in a second when nothing happens, in microseconds, at most: of optimised code.
const CPU: f64 = 25.0;
/// Until all know of one crash, at most.
const CRASH: Time = 20 * SECOND;
/// Until all know of many at once, at most.
const CRASHES: Time = 120 * SECOND;

/// CPU time of this thread. The machine may be busy with other things; this is not.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).expect("a clock of each thread")
}

fn seconds(time: Time) -> f64 {
    time as f64 / SECOND as f64
}

/// How many machines know exactly so many live members.
fn knowing(world: &World, members: usize) -> usize {
    let full = |machine: &&crate::machines::Machine| {
        machine.process.as_ref().is_some_and(|process| process.mesh.members().live() + 1 == members)
    };
    world.machines.iter().filter(full).count()
}

/// All nodes join within 30 s of each other at three addresses, then 60 s of quiet, then one in twenty crash at once.
pub fn measure(seed: u64, nodes: usize) {
    let _replay = Replay { test: "figures", seed, nodes };
    let mut world = World::new(seed, nodes, Watch::new(false));
    let began = cpu();
    world.start(0, &[]);
    for machine in 1..nodes {
        let until = world.now + 30 * SECOND / nodes as Time;
        world.run_until(until);
        world.start(machine, &[0, 1 % machine, 2 % machine]);
    }
    let joined = world.now;
    while knowing(&world, nodes) < nodes {
        world.run_until(world.now + SECOND / 2);
        assert!(world.now < joined + VIEW, "a full view within 45 s: {} have it", knowing(&world, nodes));
    }
    println!("report: nodes                     {nodes}, seed {seed}, 1 % loss, joining within 30 s");
    println!("report: full view everywhere      {:.1} s after the last join", seconds(world.now - joined));
    println!("report: until then                {:.1} s of CPU in all", (cpu() - began).as_secs_f64());
    println!(
        "report: sent until then           {} B a node by UDP, {} B by streams",
        world.sent_bytes / nodes as u64,
        world.stream_bytes / nodes as u64
    );
    println!("report: wrongly down until then   {} statements", world.watch.downs.len());
    steady(&mut world, nodes);
    crash(&mut world, nodes);
}

fn steady(world: &mut World, nodes: usize) {
    world.run_until(world.now + 60 * SECOND);
    world.watch.calm_since = 0;
    let (packets, bytes, streams) = (world.sent_packets, world.sent_bytes, world.stream_bytes);
    let (downs, began, from) = (world.watch.downs.len(), cpu(), world.now);
    world.run_until(world.now + 60 * SECOND);
    let node_seconds = nodes as f64 * seconds(world.now - from);
    let spent = (cpu() - began).as_secs_f64() * 1e6 / node_seconds;
    let each = |sum: u64| sum as f64 / node_seconds;
    println!(
        "report: steady, 60 s              {:.2} packets, {:.0} B a node-second by UDP",
        each(world.sent_packets - packets),
        each(world.sent_bytes - bytes)
    );
    let with_headers = each(world.sent_bytes - bytes + 28 * (world.sent_packets - packets));
    println!("report:                           {with_headers:.0} B with IPv4 and UDP headers");
    assert!(with_headers <= BYTES, "{with_headers:.0} B a node-second");
    println!("report:                           {:.1} B a node-second by streams", each(world.stream_bytes - streams));
    println!("report:                           {spent:.1} µs CPU a node-second, the simulator's own included");
    assert!(spent <= CPU, "{spent:.1} µs CPU a node-second");
    println!("report: wrongly down              {} statements at 1 % loss", world.watch.downs.len() - downs);
    assert_eq!(world.watch.downs.len(), downs, "no false removal at 1 % loss");
}

fn crash(world: &mut World, nodes: usize) {
    let one: BTreeSet<NodeId> = [world.machines[nodes - 1].id].into();
    known(world, nodes - 1..nodes, &one, "one crash", CRASH);
    let crashing = nodes * 9 / 10..nodes * 9 / 10 + nodes / 20;
    let many: BTreeSet<NodeId> = world.machines[crashing.clone()].iter().map(|machine| machine.id).collect();
    known(world, crashing, &many, "5 % crash at once", CRASHES);
    check_in_full(&world.machines);
}

fn known(world: &mut World, crashing: std::ops::Range<usize>, ids: &BTreeSet<NodeId>, what: &str, within: Time) {
    let (at, downs) = (world.now, world.watch.downs.len());
    crashing.for_each(|machine| world.stop(machine));
    let knows = |machine: &crate::machines::Machine| {
        machine.process.as_ref().is_none_or(|process| {
            let down = |id: &NodeId| process.mesh.member(id).is_none_or(|member| member.state == State::Down);
            ids.iter().all(down)
        })
    };
    while !world.machines.iter().all(knows) {
        world.run_until(world.now + SECOND / 4);
        assert!(world.now < at + within, "{what} known everywhere within {:.0} s", seconds(within));
    }
    let wrong = world.watch.downs[downs..].iter().filter(|(_, _, id)| !ids.contains(id)).count();
    println!(
        "report: {what:<25} known everywhere after {:.1} s, {wrong} statements about others",
        seconds(world.now - at)
    );
}
