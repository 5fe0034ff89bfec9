//! `kubeboot init`: founds a cluster on a machine that was started without a role, as if it had been started with these
//! parameters.

use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::host::console::Console;
use crate::host::root::Root;
use crate::host::sources::{self, Refused};
use crate::host::{files, systemd};
use crate::paths;
use crate::settings::Problem;
use crate::sources::by_hand;
use crate::words::{self, Block};

/// The unit that does what the sources say.
const UNIT: &str = "kubeboot.service";
/// How long that may take: waiting for a network address is the longest part.
const LIMIT: Duration = Duration::from_secs(300);

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot init                                  found a cluster; it makes its own seed and shows it\n  \
    kubeboot init --token-file /root/seed.token    with a seed from `kubeboot token generate --seed`\n  \
    kubeboot init name=cp-1 node.ip=192.168.1.10   with settings (docs/settings.md)\n\n\
    The result is the same as starting the machine with kubeboot.role=init.")]
pub struct Args {
    /// A file with the founder's seed; `-` is standard input. A token is no argument, because arguments can be seen
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Settings, as on the kernel command line without `kubeboot.`
    #[arg(value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    let root = Root::system();
    let mut console = Console::open(&root);
    let token = match args.token_file.as_deref().map(sources::token_file).transpose() {
        Ok(token) => token,
        Err(error) => {
            let what = "The token file can't be read".to_owned();
            return refuse(&mut console, what, error.to_string(), "give a file that holds one token.");
        }
    };
    found(&root, &mut console, token, &args.settings)
}

/// Takes `role=init`, the token and the settings, and starts the unit that acts on them.
pub fn found(root: &Root, console: &mut Console, token: Option<Zeroizing<String>>, settings: &[String]) -> Exit {
    match take(root, console, &["role=init".to_owned()], token, settings) {
        Ok(()) => {
            let text = "Founding a cluster. What happens is told here and by: kubeboot status";
            console.say(|paint| words::note(text, paint));
            start(console, LIMIT)
        }
        Err(exit) => exit,
    }
}

/// Keeps what was typed for this boot, as if the machine had been started with it. `given` is what the command itself says.
///
/// # Errors
/// How the command ends; why was told.
pub fn take(
    root: &Root,
    console: &mut Console,
    given: &[String],
    token: Option<Zeroizing<String>>,
    settings: &[String],
) -> Result<(), Exit> {
    if let Some(word) = settings.iter().find(|word| word.starts_with("token=") || word.starts_with("kubeboot.token=")) {
        let name = word.split('=').next().unwrap_or_default();
        let why = format!("{name} is an argument, which every process can see");
        let what = "The token was not taken".to_owned();
        return Err(refuse(console, what, why, "put it into a file, and use --token-file."));
    }
    let token = token.map(|token| Zeroizing::new(format!("token={}", token.as_str())));
    let given = given.iter().map(String::as_str);
    let words = given.chain(token.as_ref().map(|word| word.as_str())).chain(settings.iter().map(String::as_str));
    let document = by_hand::document(words).map_err(|problems| bad(console, &problems))?;
    let exit = match sources::take_by_hand(root, &document) {
        Ok(()) => {
            // Who has just asked is told what is wrong, although an attempt before has said the same.
            let _ = files::remove(&root.path(paths::LAST_ERROR));
            return Ok(());
        }
        Err(Refused::Problems(problems)) => bad(console, &problems),
        Err(Refused::SetUp) => {
            let why = "its settings are frozen since it became a node".to_owned();
            refuse(console, "This machine is set up already".to_owned(), why, "to start over: kubeboot reset.")
        }
        Err(Refused::Write(error)) => {
            let why = format!("{}: {error}", paths::BY_HAND);
            refuse(console, "What was typed can't be kept".to_owned(), why, "run it as root.")
        }
    };
    Err(exit)
}

/// Starts the unit that acts on what was typed, and waits at most for `limit`. One that is still at work then goes on.
pub fn start(console: &mut Console, limit: Duration) -> Exit {
    match systemd::restart(UNIT, limit) {
        Ok(()) => Exit::Success,
        Err(_) if systemd::starting(UNIT) => {
            console.say(|paint| words::note("It goes on in the background. See: kubeboot status", paint));
            Exit::Success
        }
        Err(error) => {
            let block = Block {
                what: "This machine did not become a node".to_owned(),
                why: vec![error.to_string()],
                state: String::new(),
                fix: vec![format!("see why: systemctl status {UNIT}")],
            };
            console.say(|paint| block.text(paint));
            Exit::Failure
        }
    }
}

fn bad(console: &mut Console, problems: &[Problem]) -> Exit {
    let block = words::bad_settings(problems);
    console.say(|paint| block.text(paint));
    Exit::BadInput
}

/// Says why nothing was done.
pub fn refuse(console: &mut Console, what: String, why: String, fix: &str) -> Exit {
    let state = "Nothing was changed on this machine.".to_owned();
    let block = Block { what, why: vec![why], state, fix: vec![fix.to_owned()] };
    console.say(|paint| block.text(paint));
    Exit::BadInput
}
