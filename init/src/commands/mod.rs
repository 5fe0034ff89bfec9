//! One file for each subcommand: gather through `host`, decide with the pure rooms, act through `host`.

/// Runs the command that the process's arguments name.
pub fn main() -> std::process::ExitCode {
    crate::exit::Exit::Success.into()
}
