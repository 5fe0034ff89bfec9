//! No role given: the console offers to found a cluster or to join one, and does it.

use anyhow::{Result, ensure};

use super::founder;
use super::join::{Tokens, WORKER, admitted, await_node, founder_of, worker_of};
use crate::machine::network::Network;
use crate::scenario::{Needs, ONE, Scenario, Stage, TO_SPEAK, stop_all};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "A machine without a role offers a prompt, and init there makes a founder",
        needs: Needs { keyboard: true, ..ONE },
        long: false,
        run: founded_at_the_prompt,
    },
    Scenario {
        name: "A machine without a role becomes a worker by join and a token at the prompt",
        needs: Needs { keyboard: true, machines: 2, ..ONE },
        long: false,
        run: joined_at_the_prompt,
    },
];

fn founded_at_the_prompt(stage: &mut Stage) -> Result<()> {
    let disk = stage.new_disk()?;
    let spec = stage.spec(&disk);
    let mut machine = stage.start(spec)?;
    machine.console().wait_for_text("kubeboot> ", TO_SPEAK)?;
    machine.type_line("ls")?;
    machine.console().wait_for("an answer to what is no command", TO_SPEAK, |text| {
        (text.matches("kubeboot> ").count() >= 2).then_some(())
    })?;
    machine.type_line("init")?;
    let founded = stage.ready(machine)?;
    founded.kubectl.run(&["get", "nodes"]).map(drop)
}

fn joined_at_the_prompt(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    let spec = founder_of(stage, &tokens, &images)?;
    let machine = stage.start(spec)?;
    let mut spec = worker_of(stage, &tokens, &images)?;
    spec.words.retain(|word| !["kubeboot.role=", "kubeboot.join="].iter().any(|key| word.starts_with(key)));
    spec.credentials.clear();
    let mut worker = stage.start(spec)?;
    let mut founded = stage.ready(machine)?;
    worker.console().wait_for_text("kubeboot> ", TO_SPEAK)?;
    worker.type_line(&format!("join {}", Network::address(0)))?;
    worker.console().wait_for_text("which is not shown: ", TO_SPEAK)?;
    worker.type_line(tokens.worker())?;
    await_node(&founded.kubectl, WORKER, &*worker)?;
    ensure!(!worker.console().text().contains(tokens.worker()), "the console shows the token that was typed");
    println!("       told where its cluster is, it had its certificates after {:.0} ms", admitted(&*worker)? * 1000.0);
    stop_all([&mut *worker, &mut *founded.machine])
}
