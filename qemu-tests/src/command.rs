//! Running programs of the host with something on their standard input.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs to the end with `input` on standard input, and gives standard output.
///
/// # Errors
/// The program can't be started, or ends with another status than 0: the message holds what it said.
pub fn output_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().with_context(|| format!("can't start {program}"))?;
    let pipe = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            // A program that ends before it has read everything says why by its status.
            let _ = pipe.map(|mut pipe| pipe.write_all(input));
        });
        child.wait_with_output().with_context(|| format!("can't wait for {program}"))
    })?;
    if !output.status.success() {
        bail!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_reaches_the_program_however_long_it_is() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(output_with_input(&mut Command::new("cat"), &input).unwrap().len(), 1 << 20);
    }

    #[test]
    fn a_failure_names_the_program_and_what_it_said() {
        let mut command = Command::new("sh");
        let error = output_with_input(command.args(["-c", "echo reason >&2; exit 3"]), b"").unwrap_err().to_string();
        assert!(error.contains("sh ended with") && error.contains("reason"), "{error}");
    }
}
