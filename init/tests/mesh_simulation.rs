//! The mesh, simulated: a virtual clock and network, and real state machines with real seals and signatures.
//!
//! A run is made by its seed alone. One that fails prints the command that replays it:
//! `MESH_SEED=7 MESH_SEEDS=1 MESH_NODES=30 cargo test -p kubeboot --test mesh_simulation many_seeds -- --ignored`.
//! At 2,000 and 5,000 nodes, with optimisation: `MESH_SEEDS=1 MESH_NODES=5000 … many_seeds`, and the figures:
//! `MESH_NODES=5000 … figures -- --ignored --nocapture`.
#![allow(clippy::disallowed_methods, reason = "a test that is told its seed by the environment")]

#[path = "mesh_simulation/chaos.rs"]
mod chaos;
#[path = "mesh_simulation/figures.rs"]
mod figures;
#[path = "mesh_simulation/invariants.rs"]
mod invariants;
#[path = "mesh_simulation/machines.rs"]
mod machines;
#[path = "mesh_simulation/scenarios.rs"]
mod scenarios;
#[path = "mesh_simulation/world.rs"]
mod world;

use std::str::FromStr;

use kubeboot::mesh::SECOND;

fn given<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn five_nodes_survive_what_happens_to_machines() {
    for seed in 0..6 {
        chaos::run(seed, 5);
    }
}

#[test]
fn thirty_nodes_survive_what_happens_to_machines() {
    for seed in 100..102 {
        chaos::run(seed, 30);
    }
}

#[test]
fn a_hundred_nodes_survive_what_happens_to_machines() {
    chaos::run(1000, 100);
}

/// What was wrong is in `scenarios.rs`, too: a seed is another run once chaos has another misfortune.
#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    for seed in [169, 206, 228, 385, 394, 405, 487, 614, 1289, 1545, 1884, 2805] {
        chaos::run(seed, 5);
    }
    chaos::run(200_078, 100);
}

#[test]
fn one_seed_twice_is_one_run() {
    assert_eq!(chaos::run(42, 5), chaos::run(42, 5));
}

#[test]
#[ignore = "takes minutes: MESH_SEEDS from MESH_SEED on"]
fn many_seeds() {
    let first = given("MESH_SEED").unwrap_or(0);
    let nodes = given("MESH_NODES").unwrap_or(5);
    (first..first + given::<u64>("MESH_SEEDS").unwrap_or(100)).for_each(|seed| {
        let (packets, _, agreed) = chaos::run(seed, nodes);
        println!("seed {seed}, {nodes} nodes: all agree after {} s of calm, {packets} packets", agreed / SECOND);
    });
}

#[test]
#[ignore = "takes minutes and gigabytes: MESH_NODES"]
fn figures() {
    figures::measure(given("MESH_SEED").unwrap_or(1), given("MESH_NODES").unwrap_or(500));
}
