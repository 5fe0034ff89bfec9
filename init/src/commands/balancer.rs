//! `kubeboot balancer`: passes connections of this machine's programs to an API server that answers.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::exit::Exit;
use crate::host::balancer::{Files, Pace, Shell, listener};
use crate::host::systemd;
use crate::paths;

/// Longest pause of the loop.
const TURN: Duration = Duration::from_secs(10);

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The list of API servers
    #[arg(long, value_name = "FILE", default_value = paths::ENDPOINTS)]
    endpoints: PathBuf,
    /// The cluster's certificate authority
    #[arg(long, value_name = "FILE", default_value = paths::CLUSTER_CA)]
    authority: PathBuf,
    /// Where to write what it thinks
    #[arg(long, value_name = "FILE", default_value = paths::BALANCER)]
    view: PathBuf,
}

/// Runs the command. Ends only by a signal or by an error that waiting does not mend.
pub fn run(args: &Args) -> Exit {
    let Err(error) = serve(args);
    eprintln!("kubeboot: the balancer has ended: {error}");
    Exit::Failure
}

fn serve(args: &Args) -> io::Result<Infallible> {
    let Args { endpoints, authority, view } = args;
    let files = Files { endpoints: endpoints.clone(), authority: authority.clone(), view: view.clone() };
    let mut shell = Shell::new(listener()?, files, Pace::REAL)?;
    systemd::ready("connections are taken");
    loop {
        shell.turn(TURN)?;
    }
}
