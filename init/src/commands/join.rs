//! `kubeboot join`: makes a machine that was started without a role a node of a cluster, as if it had been started with
//! these parameters. Its role is the one that the token is for.

use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::boot::unfit;
use super::init::{refuse, start, take};
use crate::enrolment::joiner::Credential;
use crate::exit::Exit;
use crate::host::console::Console;
use crate::host::root::Root;
use crate::host::sources;
use crate::token::{Joiner, Token};
use crate::words;

/// How long the command waits: the cluster may take longer, and the machine goes on asking without it.
const LIMIT: Duration = Duration::from_secs(120);

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot join                                             asks for the token; finds the cluster on this network\n  \
    kubeboot join 10.0.0.10                                   asks for the token\n  \
    kubeboot join 10.0.0.10 --token-file /root/worker.token   takes it from a file; - is standard input\n  \
    kubeboot join cp-1.example:7440 name=w-1                  with settings (docs/settings.md)\n\n\
    The token is made on a control plane: kubeboot token create. With a worker's (kb1w-…) the machine becomes a worker,\n\
    with a control plane's (kb1c-…) a further control plane. The result is the same as starting it with kubeboot.role=,\n\
    kubeboot.token= and kubeboot.join=.")]
pub struct Args {
    /// A control plane of the cluster: its name or address, with or without a port. Without it, whoever answers on the
    /// local network
    #[arg(value_name = "ADDR")]
    address: Option<String>,
    /// A file with the token; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The token itself. Every process of this machine can see it
    #[arg(long, value_name = "TOKEN")]
    token: Option<Secret>,
    /// Settings, as on the kernel command line without `kubeboot.`
    #[arg(value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// An argument that is in no message.
#[derive(Clone)]
struct Secret(Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Secret(Zeroizing::new(text.trim().to_owned())))
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    let root = Root::system();
    let mut console = Console::open(&root);
    // The first word may be a setting: the address can be given by `join=` too.
    let (address, first) = match &args.address {
        Some(word) if word.contains('=') => (None, Some(word.clone())),
        address => (address.clone(), None),
    };
    let settings: Vec<String> = first.into_iter().chain(args.settings.iter().cloned()).collect();
    match token(&mut console, args) {
        Ok(token) => join(&root, &mut console, address.as_deref(), token, &settings),
        Err(exit) => exit,
    }
}

fn token(console: &mut Console, args: &Args) -> Result<Zeroizing<String>, Exit> {
    if let Some(Secret(token)) = &args.token {
        let text = "every process can see arguments, and the token among them; --token-file is a better way";
        console.say(|paint| words::note(text, paint));
        return Ok(token.clone());
    }
    let what = "The token can't be read".to_owned();
    if let Some(file) = &args.token_file {
        let fix = "give a file that holds one token.";
        return sources::token_file(file).map_err(|error| refuse(console, what, error.to_string(), fix));
    }
    match console.ask_secret("Token (kb1w-… or kb1c-…), which is not shown: ") {
        Ok(Some(line)) if !line.trim().is_empty() => Ok(Zeroizing::new(line.trim().to_owned())),
        Ok(_) => Err(refuse(console, what, "none was given".to_owned(), "type it, or use --token-file.")),
        Err(error) => Err(refuse(console, what, error.to_string(), "use --token-file.")),
    }
}

/// Takes the token's role, the address, the token and the settings, and starts the unit that acts on them.
pub fn join(
    root: &Root,
    console: &mut Console,
    address: Option<&str>,
    token: Zeroizing<String>,
    settings: &[String],
) -> Exit {
    // A token that can be read and is for something else is said here: what can't be read, the reader of settings says.
    let parsed = Token::parse(&token);
    let joiner = match &parsed {
        Ok(Token::Join(token)) => token.joiner(),
        _ => Joiner::Worker,
    };
    if let Ok(parsed) = parsed
        && let Err(failure) = Credential::of(joiner, parsed)
    {
        let block = unfit(&failure, joiner);
        console.say(|paint| block.text(paint));
        return Exit::BadInput;
    }
    let role = match joiner {
        Joiner::Worker => "role=worker",
        Joiner::ControlPlane => "role=control-plane",
    };
    let given: Vec<String> =
        std::iter::once(role.to_owned()).chain(address.map(|address| format!("join={address}"))).collect();
    if let Err(exit) = take(root, console, &given, Some(token), settings) {
        return exit;
    }
    console.say(|paint| words::note("Joining a cluster. What happens is told here and by: kubeboot status", paint));
    start(console, LIMIT)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::host::{files, sample};

    const TOKEN: &str = "kb1w-secret";

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    /// What the command takes as its token, and what the console showed.
    fn taken(words: &[&str]) -> (Result<String, Exit>, String) {
        let (_folder, root) = sample::machine();
        files::write_volatile(&root.path("/dev/console"), b"", 0o600).unwrap();
        let args = Command::try_parse_from([&["join"], words].concat()).unwrap().args;
        assert!(!format!("{args:?}").contains(TOKEN));
        let token = token(&mut Console::on_screen(&root), &args).map(|token| token.as_str().to_owned());
        (token, String::from_utf8(sample::files(&root)["/dev/console"].clone()).unwrap())
    }

    #[test]
    fn an_argument_is_taken_and_warned_of() {
        let (token, shown) = taken(&["10.0.0.10", "--token", TOKEN]);
        assert_eq!(token.as_deref(), Ok(TOKEN));
        assert!(shown.contains("every process can see arguments") && !shown.contains(TOKEN), "{shown}");
    }

    #[test]
    fn a_file_is_read_without_its_newline_and_without_a_word() {
        let file = tempfile::NamedTempFile::new().unwrap();
        files::write_volatile(file.path(), format!("{TOKEN}\n").as_bytes(), 0o600).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        assert_eq!(taken(&["--token-file", &path]), (Ok(TOKEN.to_owned()), String::new()));
        drop(file);
        let (token, shown) = taken(&["--token-file", &path]);
        assert_eq!(token, Err(Exit::BadInput));
        assert!(shown.contains("The token can't be read") && shown.contains("give a file"), "{shown}");
    }

    #[test]
    fn who_gives_none_is_told_how() {
        // At the console's end nobody types.
        let (token, shown) = taken(&["10.0.0.10", "name=w-1"]);
        assert_eq!(token, Err(Exit::BadInput));
        assert!(shown.contains("none was given") && shown.contains("--token-file"), "{shown}");
    }

    #[test]
    fn one_way_is_enough() {
        assert!(Command::try_parse_from(["join", "--token", TOKEN, "--token-file", "-"]).is_err());
    }
}
