//! `kubeboot plan`: exactly the steps that `kubeboot boot` would take now. Changes nothing.

use std::io::Write as _;

use serde_json::json;

use super::Output;
use super::boot::{Patience, Situation, Stop, Told, failed, in_force, role};
use crate::exit::Exit;
use crate::host::root::Root;
use crate::kubernetes;
use crate::paths;
use crate::plan::Step;
use crate::words::{Block, Paint};

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot plan                          what would change on this machine\n  \
    kubeboot plan --output json | jq .     for programs\n\n\
    An empty plan means that the machine is as it should be. Of a machine that joins these are the steps until it has: what a\n\
    control plane has beside them follows from the keys that it is granted. With --output json the answer is a JSON document in any\n\
    case: {\"error\": …} where no plan can be made.")]
pub struct Args {
    /// How to answer
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    let root = Root::system();
    match made(&root) {
        Ok(Some((steps, rendered))) => {
            let text = match args.output {
                Output::Text => text(&steps, &rendered),
                Output::Json => format!("{:#}\n", json!({"steps": steps, "rendered": rendered})),
            };
            match std::io::stdout().write_all(text.as_bytes()) {
                Ok(()) => Exit::Success,
                Err(_) => Exit::Failure,
            }
        }
        Ok(None) => {
            let what = "This machine was given no role, so there is nothing to do".to_owned();
            let fix =
                vec!["give it one: kubeboot init or kubeboot join, or kubeboot.role= at its next start.".to_owned()];
            let block = Block { what, why: Vec::new(), state: String::new(), fix };
            refused(&Stop { exit: Exit::NoRole, block }, args.output)
        }
        Err(stop) => refused(&stop, args.output),
    }
}

fn refused(stop: &Stop, output: Output) -> Exit {
    match output {
        Output::Text => eprint!("{}", stop.block.text(Paint::Plain)),
        Output::Json => println!("{:#}", json!({"error": stop.json("plan")})),
    }
    stop.exit
}

/// The steps, and the paths of what each boot renders.
type Made = (Vec<Step>, Vec<String>);

/// None when no role was given.
fn made(root: &Root) -> Result<Option<Made>, Stop> {
    let mut told = Told::nobody("plan");
    let force = in_force(root, &mut told)?;
    let Some(role) = role(&force)? else { return Ok(None) };
    let situation = Situation::gather(root, &mut told, &force, role, Patience::None)?;
    let steps = situation.plan(root).map_err(|why| Stop::damaged(&why))?;
    let site = situation.site(root, "").map_err(|why| failed(&why))?;
    let steps = steps.into_iter().map(unsaid).collect();
    let renders = kubernetes::renders(&site).into_iter().chain(kubernetes::later(&site));
    let rendered = renders.map(|one| one.path).collect();
    Ok(Some((steps, rendered)))
}

/// A step without what is to be kept from logs: the settings may hold a proxy's password.
fn unsaid(step: Step) -> Step {
    match step {
        Step::Write { path, mode, because, .. } if path == paths::FROZEN => {
            Step::Write { path, mode, contents: "(the settings: kubeboot status --why)\n".to_owned(), because }
        }
        step => step,
    }
}

fn text(steps: &[Step], rendered: &[String]) -> String {
    let mut out = String::new();
    if steps.is_empty() {
        out.push_str("Nothing to do: what outlives a power-off is as it should be.\n");
    }
    for (number, step) in steps.iter().enumerate() {
        let because = step.because();
        let because = if because.is_empty() { String::new() } else { format!(" ({because})") };
        out.push_str(&format!("{:>3}. {step}{because}\n", number + 1));
    }
    out.push_str(&format!("\nRendered at each boot: {} files\n", rendered.len()));
    for path in rendered {
        out.push_str(&format!("     {path}\n"));
    }
    out
}
