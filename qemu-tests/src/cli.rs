//! What `qemu-tests/run` was asked to do, and doing it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use image_builder::cache::Cache;
use image_builder::host;

use crate::lab::Lab;
use crate::machine::Backend;
use crate::qemu::Qemu;
use crate::random::{Random, fresh_seed};
use crate::runner::{self, Count, Job, Room};
use crate::scenario::Scenario;
use crate::scenarios::{self, POWER_CUT};
use crate::uml::{self, Uml};
use crate::{benchmark, fast, subject};

/// Tests kubeboot: the code, and the image on real machines
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    qemu-tests/run --fast                    what needs no machine\n  \
    qemu-tests/run --only 'power cut'        some of it\n  \
    qemu-tests/run --long --backend qemu     everything, with firmware\n  \
    qemu-tests/run --bench ready             how long a boot to Ready takes")]
pub struct Options {
    /// Only what needs no machine
    #[arg(long, conflicts_with = "long")]
    fast: bool,
    /// Also what takes long
    #[arg(long)]
    long: bool,
    /// Only checks and scenarios whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// The seed of every choice; a fresh one if not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Only machines of this kind
    #[arg(long, value_enum)]
    backend: Option<Kind>,
    /// Test this image (its folder in the cache) instead of building one
    #[arg(long, value_name = "FOLDER")]
    image: Option<PathBuf>,
    /// Measure instead of testing
    #[arg(long, value_enum, conflicts_with_all = ["fast", "long", "only"])]
    bench: Option<Bench>,
    /// Only list the scenarios
    #[arg(long)]
    list: bool,
}

/// A kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// QEMU: firmware, boot loader, everything as on a real machine
    Qemu,
    /// User-mode Linux: quick, several at once
    Uml,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Boot to Ready, divided by the floor of bare processes
    Ready,
}

/// Bytes in /dev/shm from which disks are kept there: two machines' disks and the one kept Ready.
const DISKS: u64 = 8 << 30;

/// How many power cuts a run makes, and how many with `--long`.
const CUTS: (usize, usize) = (5, 20);

/// Does what was asked, prints what came of it, and says whether everything passed.
///
/// # Errors
/// The run can't be made at all: no root, no image.
pub fn run(options: &Options) -> Result<bool> {
    if options.list {
        fast::list();
        for scenario in scenarios::all() {
            println!("{}{}", scenario.name, if scenario.long { " (--long)" } else { "" });
        }
        return Ok(true);
    }
    if let Some(Bench::Ready) = options.bench {
        let seed = options.seed.map_or_else(fresh_seed, Ok)?;
        let lab = lab(options)?;
        let backend = lab.backends.first().context("no backend may be used")?;
        benchmark::ready(&lab, &**backend, seed)?;
        return Ok(true);
    }
    let mut count = Count::default();
    let only = options.only.as_deref().unwrap_or_default();
    count += fast::run(only);
    if !options.fast {
        count += machines(options)?;
    }
    if count == Count::default() {
        bail!("nothing has {only:?} in its name. Fix: see ./qemu-tests/run --list");
    }
    println!("{count}");
    Ok(count.failed == 0)
}

fn machines(options: &Options) -> Result<Count> {
    let seed = options.seed.map_or_else(fresh_seed, Ok)?;
    let jobs = jobs(options, seed);
    if jobs.is_empty() {
        return Ok(Count::default());
    }
    let lab = lab(options)?;
    let (jobs, left): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| runner::backend(&lab, job.scenario).is_ok());
    for job in left {
        println!("[left]         {}: not on this kind of machine", job.scenario.name);
    }
    let room = Room::of_host();
    println!("{} scenarios, seed {seed}, {} processors, {} MiB for machines", jobs.len(), room.processors, room.memory);
    Ok(runner::run(&lab, jobs, room))
}

/// Everything that machines need.
fn lab(options: &Options) -> Result<Lab> {
    host::require_root("run machines on networks of their own")?;
    host::host_packages(&["curl", "fdisk", "iproute2", "systemd", "util-linux"])?;
    let cache = Cache::open()?;
    let subject = subject::get(&cache, options.image.clone())?;
    let mut backends: Vec<Box<dyn Backend>> = Vec::new();
    // The quicker first: a scenario gets the first backend that offers what it needs.
    if options.backend != Some(Kind::Qemu) {
        let (initrd, cmdline) = (subject.image.initrd(), subject.image.command_line()?);
        backends.push(Box::new(Uml { program: uml::kernel::program()?, initrd, cmdline }));
    }
    if options.backend != Some(Kind::Uml) {
        backends.push(Box::new(Qemu::new(&cache, subject.tools.clone(), subject.image.clone())?));
    }
    let folder = disks(cache.root()).join(std::process::id().to_string());
    Lab::new(subject.image.disk(), backends, &subject.kube, folder)
}

/// Where machines' disks lie: in memory where there is room. A guest's every flush would else wait for the host's disk,
/// for tenths of a second on a busy one, and etcd with it. The power that tests cut is the guest's, not the host's.
/// Folders of runs that were killed are removed first: they would hold the memory.
fn disks(cache: &Path) -> PathBuf {
    let memory = Path::new("/dev/shm/kubeboot-scenarios");
    for left in std::fs::read_dir(memory).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(left.file_name()).exists() {
            let _ = std::fs::remove_dir_all(left.path());
        }
    }
    let free =
        nix::sys::statvfs::statvfs("/dev/shm").map_or(0, |found| found.blocks_available() * found.fragment_size());
    if free >= DISKS { memory.to_owned() } else { cache.join("scenarios") }
}

/// The scenarios to run, each with its seed. A seed that was given is used as it is, so that a failure repeats.
fn jobs(options: &Options, seed: u64) -> Vec<Job> {
    let wanted = |scenario: &&Scenario| match &options.only {
        Some(name) => scenario.name.contains(name.as_str()),
        None => options.long || !scenario.long,
    };
    let mut random = Random::new(seed);
    let mut jobs = Vec::new();
    for scenario in scenarios::all().into_iter().filter(wanted) {
        let cuts = if options.long { CUTS.1 } else { CUTS.0 };
        let times = if scenario.name == POWER_CUT && options.seed.is_none() { cuts } else { 1 };
        for _ in 0..times {
            // 32 bits, short enough to be typed again.
            let seed = if options.seed.is_some() { seed } else { random.bits() >> 32 };
            jobs.push(Job { scenario, seed });
        }
    }
    jobs
}

/// The options of this process.
#[must_use]
pub fn options() -> Options {
    Options::parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Options {
        Options::parse_from(std::iter::once("run").chain(arguments.iter().copied()))
    }

    #[test]
    fn a_given_seed_is_used_as_it_is() {
        let jobs = jobs(&parse(&["--only", POWER_CUT, "--seed", "7"]), 7);
        assert_eq!(jobs.iter().map(|job| job.seed).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn fresh_power_cuts_have_different_seeds() {
        let mut seeds: Vec<_> = jobs(&parse(&["--only", POWER_CUT]), 1).iter().map(|job| job.seed).collect();
        seeds.dedup();
        assert_eq!(seeds.len(), CUTS.0);
        assert_eq!(jobs(&parse(&["--only", POWER_CUT, "--long"]), 1).len(), CUTS.1);
    }

    #[test]
    fn a_name_that_nothing_has_is_an_error() {
        let error = run(&parse(&["--fast", "--only", "nonsense"])).unwrap_err().to_string();
        assert!(error.contains("nonsense"), "{error}");
    }
}
