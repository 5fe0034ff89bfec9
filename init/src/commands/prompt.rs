//! `kubeboot prompt`: on the console of a machine that was given no role, says what to do and offers to do it.

use zeroize::Zeroizing;

use super::init;
use crate::exit::Exit;
use crate::host::console::Console;
use crate::host::files;
use crate::host::root::Root;
use crate::host::sources;
use crate::paths;
use crate::token::{Kind, Token};
use crate::words::{self, Tone};

/// Answers that are read before the prompt gives up: a serial line can be noise without end.
const ANSWERS: usize = 1000;

/// The command's arguments: none.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args) -> Exit {
    let root = Root::system();
    if files::exists(&root.path(paths::FROZEN)) {
        return Exit::Success;
    }
    match sources::read(&root) {
        Ok(read) if read.settings.role.is_none() => {}
        // A role was given, or what was given is wrong: `kubeboot boot` has said what is to be said.
        Ok(_) => return Exit::Success,
        Err(_) => return Exit::BadInput,
    }
    let mut console = Console::open(&root);
    console.say(words::no_role);
    for _ in 0..ANSWERS {
        let Some(answer) = ask(&mut console, "\nOr type it here. Role (init): ") else { return Exit::NoRole };
        match answer.as_str() {
            "" => continue,
            "init" | "kubeboot init" => {}
            _ => {
                console.say(|paint| words::note("This release knows the role init.", paint));
                continue;
            }
        }
        let Some(token) = ask_token(&mut console) else { return Exit::NoRole };
        match init::found(&root, &mut console, token.seed, &[]) {
            Exit::BadInput => {}
            other => return other,
        }
    }
    Exit::NoRole
}

fn ask(console: &mut Console, question: &str) -> Option<Zeroizing<String>> {
    console.ask(question).ok().flatten()
}

/// An answer to the question for a token: none is "make one".
struct Answer {
    seed: Option<Zeroizing<String>>,
}

fn ask_token(console: &mut Console) -> Option<Answer> {
    for _ in 0..ANSWERS {
        let text = ask(console, "Token (empty: the cluster makes its own): ")?;
        if text.is_empty() {
            return Some(Answer { seed: None });
        }
        let problem = match Token::parse(&text) {
            Ok(token) if token.kind() == Kind::Seed => return Some(Answer { seed: Some(text) }),
            Ok(_) => "a join token; a founder's token is a seed: kb1s-…".to_owned(),
            Err(error) => error.to_string(),
        };
        console.say(|paint| format!("{} This is {problem}.", paint.tone(Tone::Bad, "[no]")));
    }
    None
}
