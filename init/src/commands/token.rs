//! `kubeboot token generate`: a seed, made offline.

use std::io::Write as _;

use clap::Subcommand;

use crate::exit::Exit;
use crate::host::random;
use crate::token::Seed;

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot token generate                  a seed for a new cluster's founder\n  \
    kubeboot token generate > seed.token     kept in a file, for a systemd credential or user-data")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print a new seed: the founder's token. Needs no network and no cluster; keep it secret
    Generate,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    match args.what {
        What::Generate => {}
    }
    let seed = Seed::new(random::bytes());
    match writeln!(std::io::stdout(), "{}", seed.text().as_str()) {
        Ok(()) => Exit::Success,
        Err(_) => Exit::Failure,
    }
}
