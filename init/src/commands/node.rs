//! `kubeboot node`: removes nodes from the cluster.

use std::io::Write as _;
use std::time::Duration;

use super::Output;
use super::boot::Stop;
use crate::exit::Exit;
use crate::host::node_removal::{Removal, report};
use crate::host::root::Root;
use crate::node_removal::{Step, plan};
use crate::words::{Block, Paint};

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    kubeboot node remove w-7        on a control plane, for a worker or another control plane")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Remove a node: its pods move, its key and certificates open nothing any more, its name is free
    #[command(after_help = "Examples:\n  \
        kubeboot node remove w-7                          a worker\n  \
        kubeboot node remove cp-3                         a control plane, lost or not\n  \
        kubeboot node remove w-7 --without-drain          its pods end where they are\n  \
        kubeboot node remove w-7 --output json | jq .     for programs\n\n\
        A control plane is removed only if those that are left can decide without it. A machine that still runs goes on\n\
        running its pods until it is switched off, or given to something else by: kubeboot reset\n\
        A removal that was interrupted goes on when it is asked for again.")]
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
struct Remove {
    /// The node's name, as kubectl get nodes has it
    name: String,
    /// Leave its pods where they are: they end with it
    #[arg(long)]
    without_drain: bool,
    /// How long its pods may take to move, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86400),
        conflicts_with = "without_drain")]
    drain_timeout: u64,
    /// How to answer
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    let Command::Remove(args) = &args.command;
    match remove(&Root::system(), args) {
        Ok(()) => Exit::Success,
        Err(stop) => {
            match args.output {
                Output::Text => eprint!("{}", stop.block.text(Paint::Plain)),
                Output::Json => println!("{:#}", serde_json::json!({"error": stop.json("node remove")})),
            }
            stop.exit
        }
    }
}

fn remove(root: &Root, args: &Remove) -> Result<(), Stop> {
    let what = format!("The node {} was not removed", args.name);
    let failed = |why: String, state: String| {
        let fix = vec!["when the cause is gone, ask for it again: it goes on from there.".to_owned()];
        Stop { exit: Exit::Failure, block: Block { what: what.clone(), why: vec![why], state, fix } }
    };
    let removal = Removal::look(root, &args.name).map_err(|why| failed(why, "Nothing was changed.".to_owned()))?;
    let steps = plan(removal.found(), !args.without_drain);
    let steps = steps.map_err(|block| Stop { exit: Exit::Refused, block })?;
    let mut done: Vec<&'static str> = Vec::new();
    for step in &steps {
        let taken = removal.take(step, Duration::from_secs(args.drain_timeout));
        taken.map_err(|why| {
            let state = match done.is_empty() {
                true => "Nothing was changed.".to_owned(),
                false => format!("So far: {}.", done.join("; ")),
            };
            failed(why, state)
        })?;
        done.push(step.done());
        if args.output == Output::Text {
            println!("{}: {}", args.name, step.done());
        }
    }
    let text = match args.output {
        Output::Text => after(&args.name, &steps),
        Output::Json => format!("{:#}\n", report(&args.name, &steps)),
    };
    // Nobody is left to tell when the terminal is gone.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// What follows for whoever removed it.
fn after(name: &str, steps: &[Step]) -> String {
    let role = match steps.iter().any(|step| matches!(step, Step::LeaveEtcd { .. })) {
        true => "control-plane",
        false => "worker",
    };
    format!(
        "\n{name} is removed. If the machine still runs, switch it off, or empty it with: kubeboot reset\n\
         A new machine may take its name. Its token: kubeboot token create --role {role}\n"
    )
}
