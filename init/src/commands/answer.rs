//! How commands end that answer people or programs.

use std::io::Write as _;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Output;
use super::boot::Stop;
use crate::exit::Exit;
use crate::operators::Trouble;
use crate::words::{Block, Paint};

/// Ends a command: says why it did not do what was asked, for people on standard error, for programs as JSON.
pub fn end(command: &str, output: Output, answer: Result<Exit, Stop>) -> Exit {
    match (answer, output) {
        (Ok(exit), _) => exit,
        (Err(stop), Output::Text) => {
            eprint!("{}", stop.block.text(Paint::Plain));
            stop.exit
        }
        (Err(stop), Output::Json) => {
            println!("{:#}", json!({"error": stop.json(command)}));
            stop.exit
        }
    }
}

/// A stop that changed nothing.
pub fn stop(exit: Exit, what: &str, why: impl ToString, fix: &str) -> Stop {
    Trouble::new(exit, what, why, fix).into()
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        let block: Block = trouble.block();
        Stop { exit: Exit::of_code(trouble.exit), block }
    }
}

/// Prints, to standard output and nowhere else.
pub fn print(text: &str) -> Result<(), Stop> {
    let written = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
    written.map_err(|error| stop(Exit::Failure, "The answer could not be printed", error, "print it to a file."))
}

/// Prints a JSON document.
pub fn print_json(value: &Value) -> Result<(), Stop> {
    print(&Zeroizing::new(format!("{value:#}\n")))
}
