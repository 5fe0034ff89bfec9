//! Runs programs of the build machine, and says what they said when they fail.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// How many of its last lines a failed program is quoted with.
const QUOTED_LINES: usize = 40;

/// Runs `command` to its end with its output captured.
///
/// # Errors
/// The program cannot be started, or its status says failure: then the error quotes the end of its output.
/// `purpose` completes the sentence "Cannot …".
pub fn run(command: &mut Command, purpose: &str) -> Result<()> {
    output(command, purpose).map(drop)
}

/// Like [`run`], and returns what the program wrote to its standard output.
///
/// # Errors
/// As [`run`]; also when the output is not UTF-8.
pub fn output(command: &mut Command, purpose: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let result = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("Cannot {purpose}: the program `{program}` does not start"))?;
    if !result.status.success() {
        bail!("Cannot {purpose}: `{program}` ended with {}\n{}", result.status, quote(&result));
    }
    String::from_utf8(result.stdout)
        .with_context(|| format!("Cannot {purpose}: the output of `{program}` is not UTF-8"))
}

/// The last lines of both streams.
fn quote(result: &Output) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&result.stdout), String::from_utf8_lossy(&result.stderr));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(QUOTED_LINES)..].iter().map(|line| format!("  | {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_purpose_program_and_last_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "seq 1 50; echo last words >&2; exit 3"]);
        let error = run(&mut command, "test it").expect_err("status 3").to_string();
        assert!(error.starts_with("Cannot test it: `sh` ended with exit status: 3"), "{error}");
        assert!(error.ends_with("| last words\n"), "{error}");
        assert!(!error.contains("| 11\n") && error.contains("| 12\n"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("kubeboot-no-such-program"), "test it").expect_err("missing").to_string();
        assert_eq!(error, "Cannot test it: the program `kubeboot-no-such-program` does not start");
    }
}
