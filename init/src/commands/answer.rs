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
            print!("{}", *json_text(&json!({"error": stop.json(command)})));
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
    print(&json_text(value))
}

/// A JSON document as it is printed. What drives terminals is escaped: JSON itself asks that of C0 alone (RFC 8259, 7), and
/// DEL and C1 may come from a node in other hands.
fn json_text(value: &Value) -> Zeroizing<String> {
    let text = Zeroizing::new(format!("{value:#}\n"));
    let mut out = Zeroizing::new(String::with_capacity(text.len() + 1024));
    for character in text.chars() {
        match character {
            '\u{7f}'..='\u{9f}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_drives_no_terminal_and_means_the_same() {
        let value = json!({"name\u{84}": "w-1\u{9b}31m\u{7f}\u{1b}[0m\u{a0}\u{e9}"});
        let text = json_text(&value);
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
        assert!(text.contains(r"w-1\u009b31m\u007f") && text.contains('\u{e9}'));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
