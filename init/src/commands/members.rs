//! `kubeboot members`: who is in the mesh, as this node's agent sees it, or any other's.

use serde_json::json;

use super::Output;
use super::answer::{self, print, print_json};
use super::boot::Stop;
use super::place::{Needs, There};
use crate::exit::Exit;
use crate::mesh::view::View;
use crate::operators::Request;
use crate::words::members::text;

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kubeboot members\n  kubeboot --node 10.0.0.10 members\n  \
    kubeboot members --output json | jq '.members[] | select(.state != \"alive\")'\n\n\
    A name and a role are what the node says of itself; whether it answers is what the nodes say of each other. For what\n\
    the cluster has on record: kubectl get nodes.\n\n\
    Exit status: 0 when they were shown, 1 when the agent does not answer, 6 when the machine is no node.")]
pub struct Args {
    /// How to answer
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub fn run(args: &Args, there: &There) -> Exit {
    answer::end("members", args.output, show(args.output, there))
}

fn show(output: Output, there: &There) -> Result<Exit, Stop> {
    let view: View = there.open(Needs::Machine)?.value(&Request::Members {})?;
    match output {
        Output::Text => print(&text(&view))?,
        Output::Json => print_json(&json!(view))?,
    }
    Ok(Exit::Success)
}
