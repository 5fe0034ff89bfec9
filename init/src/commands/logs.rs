//! `kubeboot logs`: the journal of this machine or of any node.

use super::Output;
use super::answer;
use super::place::{Needs, There};
use crate::exit::Exit;
use crate::operators::Request;

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot --node 10.0.0.21 logs kubelet\n  \
    kubeboot --node 10.0.0.10 logs -f kubeboot-agent\n  \
    kubeboot logs --lines 1000\n\n\
    What looks like a secret is taken out. Following ends after an hour.")]
pub struct Args {
    /// Of this unit alone
    #[arg(value_name = "UNIT")]
    unit: Option<String>,
    /// Go on with what is written from now on
    #[arg(long, short)]
    follow: bool,
    /// The last so many lines
    #[arg(long, short = 'n', default_value_t = 200)]
    lines: u32,
}

/// Runs the command.
pub fn run(args: &Args, there: &There) -> Exit {
    let request = Request::Logs { unit: args.unit.clone(), follow: args.follow, lines: args.lines };
    answer::end("logs", Output::Text, there.open(Needs::Machine).and_then(|open| open.print(&request)))
}
