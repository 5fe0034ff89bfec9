//! One file for each subcommand: gather through `host`, decide with the pure rooms, act through `host`.

use clap::{Parser, Subcommand};

mod etc;

/// Turns a booted machine into a Kubernetes node, and swaps its signed releases.
#[derive(Debug, Parser)]
#[command(name = "kubeboot", version, propagate_version = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands, in the order in which a boot runs them.
#[derive(Debug, Subcommand)]
enum Command {
    /// In the initrd: make /etc writable for this boot and give the machine its id
    #[command(hide = true)]
    Etc(etc::Args),
}

/// Runs the command that the process's arguments name.
pub fn main() -> std::process::ExitCode {
    match CommandLine::parse().command {
        Command::Etc(args) => etc::run(&args),
    }
    .into()
}
