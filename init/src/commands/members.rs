//! `kubeboot members`: who is in the mesh, as this node's agent sees it.

use serde_json::json;

use super::Output;
use super::boot::Stop;
use crate::exit::Exit;
use crate::host::files;
use crate::host::mesh::members::{Unanswered, ask};
use crate::host::root::Root;
use crate::mesh::view::View;
use crate::paths;
use crate::words::Paint;
use crate::words::members::{Nothing, nothing, text};

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kubeboot members\n  kubeboot members --output json | jq '.members[] | select(.state != \"alive\")'\n\n\
    A name and a role are what the node says of itself; whether it answers is what the nodes say of each other. For what\n\
    the cluster has on record: kubectl get nodes.\n\n\
    Exit status: 0 when they were shown, 1 when the agent does not answer, 6 when the machine is no node."
)]
pub struct Args {
    /// How to answer
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    match (view(&Root::system()), args.output) {
        (Ok(view), Output::Text) => print!("{}", text(&view)),
        (Ok(view), Output::Json) => println!("{}", serde_json::to_string_pretty(&view).unwrap_or_default()),
        (Err(stop), Output::Text) => {
            eprint!("{}", stop.block.text(Paint::Plain));
            return stop.exit;
        }
        (Err(stop), Output::Json) => {
            println!("{:#}", json!({"error": stop.json("members")}));
            return stop.exit;
        }
    }
    Exit::Success
}

fn view(root: &Root) -> Result<View, Stop> {
    ask(root).map_err(|unanswered| {
        let why = match unanswered {
            // Frozen settings say that a machine is a node. Who may not look at them is told to be root.
            Unanswered::NoAgent if !files::exists(&root.path(paths::FROZEN)) && is_readable(root) => Nothing::NoNode,
            Unanswered::NoAgent if !is_readable(root) => Nothing::NotRoot,
            Unanswered::NoAgent => Nothing::NoAgent,
            Unanswered::NotRoot => Nothing::NotRoot,
            Unanswered::Failed { .. } => Nothing::Failed(unanswered.to_string()),
        };
        let exit = if why == Nothing::NoNode { Exit::NoRole } else { Exit::Failure };
        Stop { exit, block: nothing(&why) }
    })
}

/// Whether kubeboot's state can be looked at, or is not there at all.
fn is_readable(root: &Root) -> bool {
    let folder = root.path(paths::STATE);
    !files::exists(&folder) || files::list(&folder).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_no_node_and_one_without_an_agent_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let stop = view(&root).unwrap_err();
        assert_eq!((stop.exit, stop.block), (Exit::NoRole, nothing(&Nothing::NoNode)));
        let frozen = root.path(paths::FROZEN);
        create_all(frozen.parent().unwrap());
        files::write_volatile(&frozen, b"{}", 0o600).unwrap();
        let stop = view(&root).unwrap_err();
        assert_eq!((stop.exit, stop.block), (Exit::Failure, nothing(&Nothing::NoAgent)));
    }

    fn create_all(folder: &std::path::Path) {
        let mut made: Vec<_> = folder.ancestors().collect();
        made.reverse();
        made.iter().for_each(|folder| files::make_folder(folder, 0o700).unwrap());
    }
}
