//! `kubeboot kubeconfig`: an operator's own access for kubectl.

use std::path::PathBuf;

use serde_json::json;

use super::answer::{self, print, print_json};
use super::boot::Stop;
use super::place::{Needs, There};
use super::{Output, person, token};
use crate::exit::Exit;
use crate::operators::{Request, user};

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot --node 10.0.0.10 kubeconfig -o kubeconfig\n  \
    kubeboot --node 10.0.0.10 --fingerprint 0f3a…9c kubeconfig -o kubeconfig    the first time\n  \
    kubeboot kubeconfig > admin.conf    on a control plane, as root\n\n\
    The key is made here; the certificate makes its holder the cluster's administrator, and can't be taken back before it ends.")]
pub struct Args {
    /// Where it is written, mode 0600, in place of what is there; standard output if nothing is said
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How long it is good: a number with s, m, h or d; at most 30d
    #[arg(long, default_value = "7d", value_parser = token::lifetime)]
    ttl: u64,
    /// How to answer
    #[arg(long, value_enum, default_value_t, requires_if("json", "out"))]
    output: Output,
}

/// Runs the command.
pub fn run(args: &Args, there: &There) -> Exit {
    answer::end("kubeconfig", args.output, make(args, there))
}

fn make(args: &Args, there: &There) -> Result<Exit, Stop> {
    let open = there.open(Needs::Cluster)?;
    let request = |certificate_request| Request::Kubeconfig { certificate_request, ttl: args.ttl };
    let person = person::ask(open, &user::asked_by_operator(), request)?;
    person.keep(args.out.as_deref())?;
    let Some(path) = args.out.as_ref().map(|path| path.display().to_string()) else { return Ok(Exit::Success) };
    let issued = &person.issued;
    match args.output {
        Output::Text => print(&format!(
            "{path}: {} until {}, with a context for each of {} control planes\n",
            issued.user,
            issued.expires,
            issued.servers.len()
        ))?,
        Output::Json => print_json(&json!({
            "kubeconfig": path, "user": issued.user, "expires": issued.expires, "servers": issued.servers,
            "notes": issued.notes,
        }))?,
    }
    Ok(Exit::Success)
}
