//! `kubeboot operator`: whose ssh keys command the cluster.

use clap::Subcommand;
use serde::Deserialize;
use serde_json::json;

use super::Output;
use super::answer::{self, print, print_json, stop};
use super::boot::Stop;
use super::place::{Needs, There};
use crate::exit::Exit;
use crate::host::sources;
use crate::operators::Request;
use crate::operators::objects::Listed;
use crate::words::table;

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot --node 10.0.0.10 operator list\n  \
    kubeboot --node 10.0.0.10 operator add --key-file bob.pub\n  \
    kubeboot --node 10.0.0.10 operator remove SHA256:5C+RSPN3nlxuQnSYrL963odKVePs0jLcRwhfsuwNN18")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Let an ssh key command the cluster
    #[command(after_help = "Examples:\n  \
        kubeboot --node 10.0.0.10 operator add --key-file ~/.ssh/id_ed25519.pub\n  \
        kubeboot operator add 'ssh-ed25519 AAAA… bob'    on a control plane, as root")]
    Add {
        /// The public key
        #[arg(value_name = "KEY", conflicts_with = "key_file", required_unless_present = "key_file")]
        key: Option<String>,
        /// A file with it; `-` is standard input
        #[arg(long, value_name = "FILE")]
        key_file: Option<std::path::PathBuf>,
        /// How to answer
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Let an ssh key command the cluster no more
    #[command(after_help = "Example:\n  \
        kubeboot --node 10.0.0.10 operator remove SHA256:5C+RSPN3nlxuQnSYrL963odKVePs0jLcRwhfsuwNN18\n\n\
        It holds for keys of the settings, too. A kubeconfig that the operator has stays good until its certificate ends.")]
    Remove {
        /// Its fingerprint as `kubeboot operator list` has it, or the public key
        key: String,
        /// Although it is the last
        #[arg(long)]
        yes_remove_the_last: bool,
        /// How to answer
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Show whose ssh keys command the cluster
    #[command(after_help = "Example:\n  kubeboot --node 10.0.0.10 operator list --output json")]
    List {
        /// How to answer
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
}

/// Runs the command.
pub fn run(args: &Args, there: &There) -> Exit {
    let (command, output, answer) = match &args.what {
        What::Add { key, key_file, output } => {
            ("operator add", *output, add(key.as_deref(), key_file.as_deref(), there, *output))
        }
        What::Remove { key, yes_remove_the_last, output } => {
            ("operator remove", *output, remove(key, *yes_remove_the_last, there, *output))
        }
        What::List { output } => ("operator list", *output, list(there, *output)),
    };
    answer::end(command, output, answer)
}

#[derive(Deserialize)]
struct Added {
    fingerprint: String,
    added: bool,
}

fn add(key: Option<&str>, file: Option<&std::path::Path>, there: &There, output: Output) -> Result<Exit, Stop> {
    let key = match (key, file) {
        (Some(key), _) => key.to_owned(),
        (None, Some(file)) => sources::token_file(file).map(|text| text.as_str().to_owned()).map_err(|error| {
            let why = format!("{}: {error}", file.display());
            stop(Exit::BadInput, "No operator was added", why, "give a file with one public key.")
        })?,
        (None, None) => String::new(),
    };
    let request = Request::OperatorAdd { key };
    request.check()?;
    let Added { fingerprint, added } = there.open(Needs::Cluster)?.value(&request)?;
    match output {
        Output::Text if added => print(&format!("{fingerprint} commands the cluster from now on\n"))?,
        Output::Text => print(&format!("{fingerprint} commands the cluster already\n"))?,
        Output::Json => print_json(&json!({"fingerprint": fingerprint, "added": added}))?,
    }
    Ok(Exit::Success)
}

#[derive(Deserialize)]
struct Removed {
    fingerprint: String,
    left: usize,
}

fn remove(key: &str, last: bool, there: &There, output: Output) -> Result<Exit, Stop> {
    let request = Request::OperatorRemove { key: key.to_owned(), last };
    let Removed { fingerprint, left } = there.open(Needs::Cluster)?.value(&request)?;
    match output {
        Output::Text => print(&format!(
            "{fingerprint} commands the cluster no more, on any control plane; {left} operators are left.\nA kubeconfig that \
             this operator has is good until its certificate ends, 30 days from its making at most: Kubernetes can't take it \
             back.\n"
        ))?,
        Output::Json => print_json(&json!({"fingerprint": fingerprint, "left": left}))?,
    }
    Ok(Exit::Success)
}

fn list(there: &There, output: Output) -> Result<Exit, Stop> {
    let rows: Vec<Listed> = there.open(Needs::Cluster)?.value(&Request::OperatorList {})?;
    match output {
        Output::Json => print_json(&json!(rows))?,
        Output::Text if rows.is_empty() => {
            print("There are no operators. To add one: kubeboot operator add, on a control plane\n")?;
        }
        Output::Text => {
            let cells = rows.iter().map(|row| {
                [
                    row.fingerprint.clone(),
                    row.kind.clone(),
                    row.from.clone(),
                    row.since.clone(),
                    row.by.clone(),
                    row.comment.clone(),
                ]
            });
            print(&table::text(["FINGERPRINT", "KIND", "FROM", "SINCE", "BY", "COMMENT"], cells))?;
        }
    }
    Ok(Exit::Success)
}
