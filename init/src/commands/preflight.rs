//! `kubeboot preflight`: whether this machine can become, or go on being, a node. Writes nothing but the probe file.

use std::io::Write as _;

use clap::ValueEnum;
use serde_json::json;

use super::Output;
use super::boot::{self, Stop};
use crate::exit::Exit;
use crate::host::facts::{self, Probe};
use crate::host::files;
use crate::host::root::Root;
use crate::host::sources;
use crate::paths;
use crate::preflight;
use crate::settings::{Role, Settings, frozen::Frozen};
use crate::words::{self, Paint};

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot preflight                          as what this machine is set to become\n  \
    kubeboot preflight --role worker            could it be a worker?\n  \
    kubeboot preflight --output json | jq .     for programs\n\n\
    Exits with 3 if there is an error. With --output json the answer is a JSON document in any case: {\"error\": …} where the\n\
    settings can't be read.")]
pub struct Args {
    /// What the machine is to become [default: as it was told, else init]
    #[arg(long, value_enum)]
    role: Option<Wanted>,
    /// How to answer
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// A role on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Wanted {
    /// Founds the cluster
    Init,
    /// A further control plane
    ControlPlane,
    /// A worker
    Worker,
}

impl From<Wanted> for Role {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Init => Role::Init,
            Wanted::ControlPlane => Role::ControlPlane,
            Wanted::Worker => Role::Worker,
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    let root = Root::system();
    let settings = match settings(&root) {
        Ok(settings) => settings,
        Err(stop) => {
            match args.output {
                Output::Text => eprint!("{}", stop.block.text(Paint::Plain)),
                Output::Json => println!("{:#}", json!({"error": stop.json("preflight")})),
            }
            return stop.exit;
        }
    };
    let role = args.role.map(Role::from).or(settings.role).unwrap_or(Role::Init);
    let report = preflight::run(&facts::gather_with(&root, Probe::Always), &settings, role);
    let text = match args.output {
        Output::Text => report.table(),
        Output::Json => report.json(),
    };
    match (std::io::stdout().write_all(text.as_bytes()), report.passed) {
        (Err(_), _) => Exit::Failure,
        (Ok(()), true) => Exit::Success,
        (Ok(()), false) => Exit::Preflight,
    }
}

/// The settings in force: those frozen at the first success, else what the sources say now.
fn settings(root: &Root) -> Result<Settings, Stop> {
    match files::read_optional(&root.path(paths::FROZEN)) {
        Ok(None) => sources::read(root)
            .map(|validated| validated.settings)
            .map_err(|problems| Stop { exit: Exit::BadInput, block: words::bad_settings(&problems) }),
        Ok(Some(text)) => Frozen::parse(&String::from_utf8_lossy(&text))
            .map(|frozen| frozen.settings)
            .map_err(|why| boot::damaged_settings(&why)),
        Err(error) => Err(boot::damaged_settings(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_settings_are_no_bad_input() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for path in ["/proc", "/var", "/var/lib", paths::STATE] {
            files::make_folder(&root.path(path), 0o755).unwrap();
        }
        files::write_volatile(&root.path("/proc/cmdline"), b"kubeboot.rloe=init", 0o600).unwrap();
        assert_eq!(settings(&root).map_err(|stop| stop.exit), Err(Exit::BadInput));
        files::write_volatile(&root.path(paths::FROZEN), b"{", 0o600).unwrap();
        let stop = settings(&root).unwrap_err();
        assert_eq!((stop.exit, stop.json("preflight")["exit"].as_u64()), (Exit::Damaged, Some(4)));
    }
}
