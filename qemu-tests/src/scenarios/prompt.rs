//! No role given: the console offers to found a cluster, and does it.

use anyhow::Result;

use crate::scenario::{Needs, ONE, Scenario, Stage, TO_SPEAK};

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "A machine without a role offers a prompt, and init there makes a founder",
    needs: Needs { keyboard: true, ..ONE },
    long: false,
    run: founded_at_the_prompt,
}];

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
