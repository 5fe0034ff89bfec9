//! `kubeboot support-bundle`: what is needed to find a fault, without secrets, as one file.

use std::path::{Path, PathBuf};

use super::Output;
use super::answer::{self, print, stop};
use super::boot::Stop;
use super::place::{Needs, There};
use crate::exit::Exit;
use crate::host::operators::output::Printed;
use crate::operators::Request;

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot --node 10.0.0.10 support-bundle -o bundle.tar.gz\n  \
    kubeboot support-bundle -o - | tar tz\n\n\
    It has records, status, journal and what the cluster says of its nodes and pods. No file that holds a key is read, and\n\
    what looks like a secret is taken out; look through it all the same before you give it away.")]
pub struct Args {
    /// Where it is written, mode 0600; `-` is standard output
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args, there: &There) -> Exit {
    answer::end("support-bundle", Output::Text, make(args, there))
}

fn make(args: &Args, there: &There) -> Result<Exit, Stop> {
    let open = there.open(Needs::Machine)?;
    if args.out == Path::new("-") {
        return open.pass(&Request::SupportBundle {});
    }
    let unwritten = |error: std::io::Error| {
        let why = format!("{} can't be written: {error}", args.out.display());
        stop(Exit::Failure, "No support bundle was made", why, "give another file.")
    };
    let mut file = Printed::file(&args.out).map_err(unwritten)?;
    let exit = open.ask(&Request::SupportBundle {}, &mut file)?;
    file.keep().map_err(unwritten)?;
    print(&format!("{}: look through it before you give it away\n", args.out.display()))?;
    Ok(exit)
}
