//! `kubeboot node`: removes nodes from the cluster.

use std::io::Write as _;

use super::Output;
use super::answer::{self, print, print_json};
use super::boot::Stop;
use super::place::{Needs, There};
use crate::exit::Exit;
use crate::host::operators::output::Lines;
use crate::node_removal::{Progress, after, report};
use crate::operators::Request;
use crate::operators::request::LONGEST_DRAIN;
use crate::words::one_line;

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
        kubeboot --node 10.0.0.10 node remove w-7         from anywhere, by a control plane\n  \
        kubeboot node remove w-7 --output json | jq .     for programs\n\n\
        A control plane is removed only if those that are left can decide without it. It knew the cluster's keys, and its\n\
        removal replaces none of them: what that means is said at the end.\n\
        A machine that still runs goes on running its pods until it is switched off, or given to something else by:\n\
        kubeboot reset\n\
        A removal that is interrupted while pods move stops there. By --node, what comes after that goes on to its end.\n\
        Either way: asked for again, it goes on.")]
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
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=LONGEST_DRAIN),
        conflicts_with = "without_drain")]
    drain_timeout: u64,
    /// How to answer
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub fn run(args: &Args, there: &There) -> Exit {
    let Command::Remove(args) = &args.command;
    answer::end("node remove", args.output, remove(args, there))
}

fn remove(args: &Remove, there: &There) -> Result<Exit, Stop> {
    let drain = (!args.without_drain).then_some(args.drain_timeout);
    let request = Request::NodeRemove { name: args.name.clone(), drain };
    // Before anything is asked: the name stands in what is printed, too.
    request.check()?;
    let mut steps = Vec::new();
    let mut told = Lines::new(|line| {
        let progress = serde_json::from_str::<Progress>(line);
        if args.output == Output::Text {
            // A control plane of a later release may take steps that this one has no words for.
            let words = progress.as_ref().map_or_else(|_| one_line(line), |known| known.words().to_owned());
            writeln!(std::io::stdout(), "{}: {words}", args.name)?;
        }
        if let Ok(Progress::Taken(step)) = progress {
            steps.push(step);
        }
        Ok(())
    });
    let exit = there.open(Needs::Cluster)?.ask(&request, &mut told)?;
    match args.output {
        Output::Text => print(&after(&args.name, &steps))?,
        Output::Json => print_json(&report(&args.name, &steps))?,
    }
    Ok(exit)
}
