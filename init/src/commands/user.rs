//! `kubeboot user`: access for people who are no operators, by certificates of the cluster's and Kubernetes' own roles.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::answer::{self, print, print_json};
use super::boot::Stop;
use super::place::{Needs, There};
use super::{Output, person, token};
use crate::exit::Exit;
use crate::operators::Request;
use crate::operators::objects::UserListed;
use crate::operators::user::{Revoked, Role, Wanted};
use crate::words::table;

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot --node 10.0.0.10 user create bob -o kubeconfig-bob\n  \
    kubeboot --node 10.0.0.10 user list\n  \
    kubeboot --node 10.0.0.10 user revoke bob")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a kubeconfig for somebody; again, under the same name, to make a new one
    #[command(after_help = "Examples:\n  \
        kubeboot --node 10.0.0.10 user create bob -o kubeconfig-bob\n  \
        kubeboot --node 10.0.0.10 user create bob --role edit --namespace shop --group dev -o kubeconfig-bob\n\n\
        The key is made here and is in the file only. A certificate can't be taken back before it ends.")]
    Create(Create),
    /// Show the users that were made
    #[command(after_help = "Example:\n  kubeboot --node 10.0.0.10 user list --output json")]
    List {
        /// How to answer
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Take a user's role away
    #[command(after_help = "Example:\n  kubeboot --node 10.0.0.10 user revoke bob")]
    Revoke {
        /// The name
        name: String,
        /// How to answer
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The user's name
    name: String,
    /// A group that the user is in; may be given more than once
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// What the user may do
    #[arg(long, value_enum, default_value_t)]
    role: Role,
    /// Only in this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// How long the certificate is good: a number with s, m, h or d
    #[arg(long, default_value = "30d", value_parser = token::lifetime)]
    ttl: u64,
    /// Take names and groups to which Kubernetes itself gives rights (system:…, kubeadm:…)
    #[arg(long)]
    allow_reserved: bool,
    /// Where the kubeconfig is written, mode 0600, in place of what is there; standard output if nothing is said
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How to answer
    #[arg(long, value_enum, default_value_t, requires_if("json", "out"))]
    output: Output,
}

/// Runs the command.
pub fn run(args: &Args, there: &There) -> Exit {
    let (command, output, answer) = match &args.what {
        What::Create(args) => ("user create", args.output, create(args, there)),
        What::List { output } => ("user list", *output, list(there, *output)),
        What::Revoke { name, output } => ("user revoke", *output, revoke(name, there, *output)),
    };
    answer::end(command, output, answer)
}

fn create(args: &Create, there: &There) -> Result<Exit, Stop> {
    let user = Wanted {
        name: args.name.clone(),
        groups: args.groups.clone(),
        ttl: args.ttl,
        role: args.role,
        namespace: args.namespace.clone(),
        reserved: args.allow_reserved,
    };
    user.check().map_err(|(why, fix)| answer::stop(Exit::BadInput, "No user was made", why, fix))?;
    let open = there.open(Needs::Cluster)?;
    let certificate = user.request();
    let person =
        person::ask(open, &certificate, |certificate_request| Request::UserCreate { user, certificate_request })?;
    person.keep(args.out.as_deref())?;
    let Some(path) = args.out.as_ref().map(|path| path.display().to_string()) else { return Ok(Exit::Success) };
    let issued = &person.issued;
    let place = args.namespace.as_ref().map_or("the cluster".to_owned(), |namespace| format!("namespace {namespace}"));
    match args.output {
        Output::Text => print(&format!(
            "{path}: {} may {} {place} until {}; it has a context for each of {} control planes\n",
            issued.user,
            args.role,
            issued.expires,
            issued.servers.len()
        ))?,
        Output::Json => print_json(&json!({
            "kubeconfig": path, "user": issued.user, "groups": args.groups, "role": args.role,
            "namespace": args.namespace, "expires": issued.expires, "servers": issued.servers, "notes": issued.notes,
        }))?,
    }
    Ok(Exit::Success)
}

fn list(there: &There, output: Output) -> Result<Exit, Stop> {
    let rows: Vec<UserListed> = there.open(Needs::Cluster)?.value(&Request::UserList {})?;
    match output {
        Output::Json => print_json(&json!(rows))?,
        Output::Text if rows.is_empty() => print("There are no users. To make one: kubeboot user create\n")?,
        Output::Text => {
            let cells = rows.iter().map(|row| {
                let role = match (&row.namespace, row.revoked) {
                    (_, true) => "revoked".to_owned(),
                    (None, _) => row.role.to_string(),
                    (Some(namespace), _) => format!("{} in {namespace}", row.role),
                };
                let expires = if row.expired { "expired".to_owned() } else { row.expires.clone() };
                [row.name.clone(), role, expires, row.by.clone(), row.groups.join(" ")]
            });
            print(&table::text(["NAME", "ROLE", "CERTIFICATE UNTIL", "BY", "GROUPS"], cells))?;
        }
    }
    Ok(Exit::Success)
}

fn revoke(name: &str, there: &There, output: Output) -> Result<Exit, Stop> {
    let request = Request::UserRevoke { name: name.to_owned() };
    request.check()?;
    let revoked: Revoked = there.open(Needs::Cluster)?.value(&request)?;
    match output {
        Output::Text => print(&revoked.text())?,
        Output::Json => print_json(&json!(revoked))?,
    }
    Ok(Exit::Success)
}
