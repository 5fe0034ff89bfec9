//! `kubeboot prompt`: on the console of a machine that was given no role, says what to do and offers to do it.

use zeroize::Zeroizing;

use super::{init, join};
use crate::exit::Exit;
use crate::host::console::Console;
use crate::host::root::Root;
use crate::host::{files, releases, sources};
use crate::paths;
use crate::words;

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
    let shell = releases::has_shell(&root);
    console.say(|paint| words::no_role(shell, paint));
    if shell {
        // The debug image's shell is on this console, and has the same commands.
        return Exit::Success;
    }
    for _ in 0..ANSWERS {
        let Ok(Some(line)) = console.ask("kubeboot> ") else { return Exit::NoRole };
        match answer(&line) {
            Answer::Nothing => {}
            Answer::Unknown => console.say(|paint| words::prompt_help(false, paint)),
            // What was wrong has been told: it can be put right, and tried again.
            Answer::Init(token) => {
                if init::found(&root, &mut console, token, &[]) == Exit::Success {
                    return Exit::Success;
                }
            }
            Answer::Join(address, token) => {
                let token = match token {
                    Some(token) => token,
                    None => match console.ask_secret("Token (kb1w-…), which is not shown: ") {
                        Ok(Some(line)) => Zeroizing::new(line.trim().to_owned()),
                        _ => return Exit::NoRole,
                    },
                };
                if join::join(&root, &mut console, address.as_deref(), token, &[]) == Exit::Success {
                    return Exit::Success;
                }
            }
        }
    }
    Exit::NoRole
}

/// What a line asks for.
enum Answer {
    Nothing,
    Unknown,
    Init(Option<Zeroizing<String>>),
    /// Where, if not whoever answers on the local network; and the token.
    Join(Option<String>, Option<Zeroizing<String>>),
}

/// `init [TOKEN]` or `join [ADDR] [TOKEN]`, with or without `kubeboot` before it.
fn answer(line: &str) -> Answer {
    let mut words = line.split_whitespace().peekable();
    words.next_if_eq(&"kubeboot");
    let secret = |token: Option<&str>| token.map(|token| Zeroizing::new(token.to_owned()));
    match (words.next(), words.next(), words.next(), words.next()) {
        (None, ..) => Answer::Nothing,
        (Some("init"), token, None, _) => Answer::Init(secret(token)),
        (Some("join"), None, ..) => Answer::Join(None, None),
        // A token in a host's place is one: it must not become a name that everybody is asked for.
        (Some("join"), token @ Some(word), None, _) if word.starts_with("kb1") => Answer::Join(None, secret(token)),
        (Some("join"), Some(address), token, None) => Answer::Join(Some(address.to_owned()), secret(token)),
        _ => Answer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(line: &str) -> String {
        match answer(line) {
            Answer::Nothing => "nothing".to_owned(),
            Answer::Unknown => "unknown".to_owned(),
            Answer::Init(token) => format!("init {}", token.as_ref().map_or("-", |token| token.as_str())),
            Answer::Join(address, token) => {
                let address = address.as_deref().unwrap_or("-");
                format!("join {address} {}", token.as_ref().map_or("-", |token| token.as_str()))
            }
        }
    }

    #[test]
    fn the_prompt_takes_init_and_join_with_their_tokens_and_nothing_else() {
        for (line, expected) in [
            ("", "nothing"),
            ("  ", "nothing"),
            ("kubeboot", "nothing"),
            ("init", "init -"),
            ("kubeboot init", "init -"),
            (" init kb1s-0 ", "init kb1s-0"),
            ("init a b", "unknown"),
            ("join", "join - -"),
            ("join kb1w-0", "join - kb1w-0"),
            ("join 10.0.0.10", "join 10.0.0.10 -"),
            ("kubeboot join cp-1 kb1w-0", "join cp-1 kb1w-0"),
            ("join cp-1 kb1w-0 x", "unknown"),
            ("ls", "unknown"),
        ] {
            assert_eq!(is(line), expected, "{line}");
        }
    }
}
