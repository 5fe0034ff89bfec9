//! The command behind `image/build` and `image/boot`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a build tool is effects")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use image_builder::boot;
use image_builder::cache::Cache;
use image_builder::components::{Source, components};
use image_builder::image::{self, Image, Platform};
use image_builder::keys::KeyName;
use image_builder::progress::Progress;
use image_builder::release::{Inputs, release, table};
use image_builder::tools::{self, Tools};
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
    /// Makes the tools tree (mkosi, QEMU), or finds it in the cache
    Tools,
    /// Makes the disk image, or finds it in the cache
    #[command(after_help = "Examples:\n  \
        image/build                                               the image for virtual machines, in the cache\n  \
        image/build --platform metal --output kubeboot.raw        for bare metal, as a file to write to a disk\n  \
        image/build --profile debug --format qcow2 --output k.qcow2")]
    Image(BuildArgs),
    /// Boots the disk image and waits until its node is Ready
    #[command(after_help = "Examples:\n  \
        image/boot kubeboot.role=init                             a cluster of one, with a kubeconfig\n  \
        image/boot --once --json result.json kubeboot.role=init   stop after Ready; for programs\n  \
        image/boot --profile debug                                a shell; `kubeboot init` in it founds the cluster")]
    Boot(BootArgs),
}

#[derive(Debug, Clone, Args)]
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

#[derive(Debug, Args)]
struct ImageArgs {
    /// What machine the image is for
    #[arg(long, value_enum, default_value_t = Platform::Vm)]
    platform: Platform,
    /// `debug` adds a shell on the serial console and an ssh server
    #[arg(long, value_enum, value_name = "NAME")]
    profile: Option<Profile>,
    #[command(flatten)]
    release: ReleaseArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Profile {
    Debug,
}

#[derive(Debug, Args)]
struct BuildArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// The form of the disk image
    #[arg(long, value_enum, default_value = "raw")]
    format: Format,
    /// Where to put a copy of it; without, the raw image in the cache is named
    #[arg(long, value_name = "FILE", required_if_eq("format", "qcow2"))]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Raw,
    Qcow2,
}

#[derive(Debug, Args)]
struct BootArgs {
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    options: boot::Options,
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

fn main() -> ExitCode {
    if let Some(status) = tools::enter_if_asked() {
        return status;
    }
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("[fail] {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let cache = Cache::open()?;
    let mut progress = Progress::start();
    match command {
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
        Command::Tools => println!("{}", Tools::ensure(&cache)?.root().display()),
        Command::Image(args) => {
            let (tools, image) = make_image(&cache, args.image, &mut progress)?;
            let path = match (&args.output, args.format) {
                (None, _) => image.disk(),
                (Some(output), format) => {
                    image::export(&tools, &image, format == Format::Qcow2, output)?;
                    progress.done("copy of the disk image");
                    output.clone()
                }
            };
            println!("{}", path.display());
        }
        Command::Boot(args) => {
            // Before half an hour of building.
            boot::judge(&args.options.parameters)?;
            let source = args.image.release.source.clone().into();
            let (tools, image) = make_image(&cache, args.image, &mut progress)?;
            // The release's own kubectl serves who has none.
            let kubectl = components(&cache, &source)?.files.remove("bin/kubectl");
            boot::boot(&cache, &tools, &image, &args.options, kubectl.as_deref(), progress)?;
        }
    }
    Ok(())
}

fn make_image(cache: &Cache, args: ImageArgs, progress: &mut Progress) -> Result<(Tools, Image)> {
    let tools = Tools::ensure(cache)?;
    progress.done("tools tree");
    let debug = args.profile == Some(Profile::Debug);
    let image = image::of_release(cache, &tools, &args.release.into(), args.platform, debug, progress)?;
    Ok((tools, image))
}
