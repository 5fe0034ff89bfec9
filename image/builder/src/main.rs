//! The command behind `image/build` and `image/boot`.
#![allow(clippy::disallowed_methods, reason = "a build tool is effects")]

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use image_builder::cache::Cache;
use image_builder::components::{Source, components};
use image_builder::keys::KeyName;
use image_builder::release::{Inputs, release, table};
use kubeboot::release::Version;
use kubeboot::release::date::Moment;

/// Builds kubeboot's components, signed releases and disk images, and boots them.
#[derive(Debug, Parser)]
#[command(name = "image-builder")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds the binaries that a release is made of, or finds them in the cache
    Components(SourceArgs),
    /// Makes a signed release file, or finds it in the cache
    Release(ReleaseArgs),
}

#[derive(Debug, Args)]
struct SourceArgs {
    /// Version of Kubernetes, one of image/components/versions.toml
    #[arg(long, value_name = "VERSION")]
    kubernetes: Option<String>,
    /// Folder with official binaries (kubelet, kube-apiserver, etcd, runc …), used instead of building them
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Build every binary once more from nothing, and compare (takes long)
    #[arg(long)]
    long: bool,
}

#[derive(Debug, Args)]
struct ReleaseArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Which build of this version of Kubernetes
    #[arg(long, default_value_t = 1)]
    build: u32,
    /// When it stops being staged [default: a year after upstream's tag]
    #[arg(long, value_name = "YYYY-MM-DDTHH:MM:SSZ")]
    expires: Option<Moment>,
    /// Lowest version that may be upgraded to it [default: the first release of the minor version before]
    #[arg(long, value_name = "VERSION")]
    minimum: Option<Version>,
    /// Lowest version that may follow it [default: the first release of its minor version]
    #[arg(long, value_name = "VERSION")]
    floor: Option<Version>,
    /// Which of the two development keys signs
    #[arg(long, value_enum, default_value = "a")]
    key: KeyName,
}

impl From<SourceArgs> for Source {
    fn from(args: SourceArgs) -> Self {
        Self { kubernetes: args.kubernetes, from: args.from, rebuild: args.long }
    }
}

impl From<ReleaseArgs> for Inputs {
    fn from(args: ReleaseArgs) -> Self {
        let ReleaseArgs { source, build, expires, minimum, floor, key } = args;
        Self { source: source.into(), build, expires, minimum, floor, key }
    }
}

fn main() -> Result<()> {
    let cache = Cache::open()?;
    match Cli::parse().command {
        Command::Components(args) => {
            let found = components(&cache, &args.into())?;
            for (place, file) in &found.files {
                println!("{place}\t{}", file.display());
            }
        }
        Command::Release(args) => {
            let made = release(&cache, &args.into())?;
            print!("{}", table(&made)?);
            println!("{}", made.path.display());
        }
    }
    Ok(())
}
