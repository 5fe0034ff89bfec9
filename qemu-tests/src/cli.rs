//! What `qemu-tests/run` was asked to do, and doing it.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use image_builder::cache::Cache;
use image_builder::host;

use crate::janitor::Janitor;
use crate::lab::{Lab, Labs};
use crate::machine::Backend;
use crate::qemu::Qemu;
use crate::random::{Random, fresh_seed};
use crate::runner::{self, Count, Job, Room};
use crate::scenarios::{self, POWER_CUT};
use crate::subject::Release;
use crate::uml::{self, Uml};
use crate::{benchmark, fast, subject};

/// Tests kubeboot: the code, and the image on real machines
///
/// Machines run in user-mode Linux where that serves, else in QEMU, as many at once as there are processors and memory.
/// The first run builds everything (half an hour on two cores); later ones build what changed.
#[derive(Debug, Parser)]
#[command(name = "qemu-tests/run", after_help = EXAMPLES)]
pub struct Options {
    /// Only what needs no machine
    #[arg(long, conflicts_with = "long")]
    fast: bool,
    /// Also what takes long: builds without caches, an older Kubernetes, official binaries, twenty power cuts
    #[arg(long)]
    long: bool,
    /// Only checks and scenarios whose name contains this, in any case; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// The seed of every choice of every scenario; a fresh one each if not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Only machines of this kind
    #[arg(long, value_enum)]
    backend: Option<Kind>,
    /// Test this image (its folder in the cache) instead of building the default one
    #[arg(long, value_name = "FOLDER")]
    image: Option<PathBuf>,
    /// Measure instead of testing
    #[arg(long, value_enum, conflicts_with_all = ["fast", "long", "only"])]
    bench: Option<Bench>,
    /// Only list what would run, a name a line
    #[arg(long)]
    list: bool,
}

const EXAMPLES: &str = "\
Examples:
  ./qemu-tests/run                                what a change must pass
  ./qemu-tests/run --fast                         without machines
  ./qemu-tests/run --list --long                  every name
  ./qemu-tests/run --only preflight               every scenario about preflight
  ./qemu-tests/run --only 'power cut' --seed 7    that one power cut again
  ./qemu-tests/run --bench ready --backend uml    how long a boot takes

Exit status: 0 if everything passed, 1 if something failed, 2 if the run could not be made.
Of a machine that failed, logs, journal and timeline are kept below ${XDG_CACHE_HOME:-~/.cache}/kubeboot/failures.
Ctrl-C ends a run at once, machines included, and leaves nothing behind.";

/// The exit status of a run that could not be made.
pub const NOT_RUN: u8 = 2;

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

/// Bytes that must be free where the cache is: for what changed, and for a first run.
const SPACE: (u64, u64) = (4 << 30, 20 << 30);

/// How many power cuts a run makes, and how many with `--long`.
const CUTS: (usize, usize) = (3, 20);

/// Does what was asked, prints what came of it, and says whether everything passed.
///
/// # Errors
/// The run can't be made at all: no root, no image, no such name.
pub fn run(options: &Options) -> Result<bool> {
    options.check_names()?;
    if options.list {
        // Who reads it may have read enough.
        let _ = std::io::stdout().write_all(options.list().as_bytes());
        return Ok(true);
    }
    if let Some(Bench::Ready) = options.bench {
        let seed = options.seed.map_or_else(fresh_seed, Ok)?;
        let run = Run::start()?;
        let lab = run.lab(options, Release::Default)?;
        let backend = lab.backends.first().context("no backend may be used")?;
        benchmark::ready(&lab, &**backend, seed)?;
        return Ok(true);
    }
    let jobs = if options.fast { Vec::new() } else { options.jobs(options.seed.map_or_else(fresh_seed, Ok)?) };
    if !jobs.is_empty() {
        // Before the checks, which take minutes.
        able()?;
    }
    let mut count = fast::run(|check| options.wants_check(check));
    if !jobs.is_empty() {
        count += machines(options, jobs)?;
    }
    if count == Count::default() {
        bail!("nothing of what was chosen can run on this kind of machine. Fix: leave --backend out");
    }
    println!("{count}");
    Ok(count.failed == 0)
}

impl Options {
    /// Whether a check or scenario is to run.
    fn wants(&self, name: &str, long: bool) -> bool {
        if self.only.is_empty() { self.long || !long } else { self.only.iter().any(|part| contains(name, part)) }
    }

    /// The same of a check: what takes long to build has no place in a fast run, unless it is named.
    fn wants_check(&self, check: &fast::Check) -> bool {
        self.wants(check.name, check.long) && !(self.fast && self.only.is_empty() && check.programs)
    }

    /// Fails when a part of a name is no part of any.
    fn check_names(&self) -> Result<()> {
        for part in &self.only {
            let check = fast::CHECKS.iter().any(|check| contains(check.name, part));
            let scenario = scenarios::all().iter().any(|scenario| contains(scenario.name, part));
            ensure!(check || scenario, "nothing has {part:?} in its name. Fix: see ./qemu-tests/run --list --long");
            ensure!(check || !self.fast, "what has {part:?} in its name needs a machine. Fix: leave --fast out");
        }
        Ok(())
    }

    /// The names of what would run, a line each.
    fn list(&self) -> String {
        let checks = fast::CHECKS.iter().filter(|check| self.wants_check(check)).map(|check| (check.name, check.long));
        let scenarios = scenarios::all().into_iter().map(|scenario| (scenario.name, scenario.long));
        let scenarios = scenarios.filter(|(name, long)| !self.fast && self.wants(name, *long));
        checks.chain(scenarios).map(|(name, long)| format!("{name}{}\n", if long { " (--long)" } else { "" })).collect()
    }

    /// The scenarios to run, each with its seed. A seed that was given is used as it is, so that a failure repeats.
    fn jobs(&self, seed: u64) -> Vec<Job> {
        let mut random = Random::new(seed);
        let mut jobs = Vec::new();
        for scenario in scenarios::all().into_iter().filter(|scenario| self.wants(scenario.name, scenario.long)) {
            let cuts = if self.long { CUTS.1 } else { CUTS.0 };
            let times = if scenario.name == POWER_CUT && self.seed.is_none() { cuts } else { 1 };
            for _ in 0..times {
                // 32 bits, short enough to be typed again.
                let seed = if self.seed.is_some() { seed } else { random.bits() >> 32 };
                jobs.push(Job { scenario, seed });
            }
        }
        jobs
    }
}

/// Whether a name has a text in it, in any case.
fn contains(name: &str, part: &str) -> bool {
    name.to_lowercase().contains(&part.to_lowercase())
}

/// Fails unless this process may run machines, and there is room for what they need.
fn able() -> Result<()> {
    host::require_root("run machines on networks of their own")?;
    let cache = Cache::open()?;
    let state = nix::sys::statvfs::statvfs(cache.root()).context("can't ask how much room the cache has")?;
    let free = state.blocks_available() * state.fragment_size();
    let needed = if cache.root().join("image").exists() { SPACE.0 } else { SPACE.1 };
    ensure!(
        free >= needed,
        "only {} MiB are free for {}; a run needs {}. Fix: free some, or set XDG_CACHE_HOME to a folder on another disk",
        free >> 20,
        cache.root().display(),
        needed >> 20
    );
    Ok(())
}

fn machines(options: &Options, jobs: Vec<Job>) -> Result<Count> {
    let run = Run::start()?;
    let releases: BTreeSet<_> = jobs.iter().flat_map(|job| job.scenario.needs.releases()).collect();
    let labs: Labs = releases
        .into_iter()
        .map(|release| run.lab(options, release).map(|lab| (release, lab)))
        .collect::<Result<_>>()?;
    let (jobs, left): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| runner::place(&labs, job.scenario).is_ok());
    for job in left {
        println!("[left]         {}: not on this kind of machine", job.scenario.name);
    }
    let room = Room::of_host();
    println!("{} scenarios, {} processors, {} MiB for machines", jobs.len(), room.processors, room.memory);
    Ok(runner::run(&labs, jobs, room))
}

/// A run of machines: its folder, and what removes it at the end.
struct Run {
    cache: Cache,
    folder: PathBuf,
    _janitor: Janitor,
}

impl Run {
    fn start() -> Result<Self> {
        able()?;
        host::host_packages(&["curl", "ethtool", "fdisk", "iproute2", "systemd", "util-linux"])?;
        let cache = Cache::open()?;
        let folder = disks(cache.root()).join(std::process::id().to_string());
        let janitor = Janitor::hire(&folder)?;
        Ok(Self { cache, folder, _janitor: janitor })
    }

    /// Everything that machines with a release need.
    fn lab(&self, options: &Options, release: Release) -> Result<Lab> {
        let given = options.image.clone().filter(|_| release == Release::Default);
        let subject = subject::get(&self.cache, release, given)?;
        let mut backends: Vec<Box<dyn Backend>> = Vec::new();
        // The quicker first: a scenario gets the first backend that offers what it needs.
        if options.backend != Some(Kind::Qemu) {
            let (initrd, cmdline) = (subject.image.initrd(), subject.image.command_line()?);
            backends.push(Box::new(Uml { program: uml::kernel::program()?, initrd, cmdline }));
        }
        if options.backend != Some(Kind::Uml) {
            backends.push(Box::new(Qemu::new(&self.cache, subject.tools.clone(), subject.image.clone())?));
        }
        Lab::new(&subject, backends, self.folder.join(release.name()))
    }
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
        let jobs = parse(&["--only", POWER_CUT, "--seed", "7"]).jobs(7);
        assert_eq!(jobs.iter().map(|job| job.seed).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn fresh_power_cuts_have_different_seeds() {
        let mut seeds: Vec<_> = parse(&["--only", POWER_CUT]).jobs(1).iter().map(|job| job.seed).collect();
        seeds.dedup();
        assert_eq!(seeds.len(), CUTS.0);
        assert_eq!(parse(&["--only", POWER_CUT, "--long"]).jobs(1).len(), CUTS.1);
    }

    #[test]
    fn only_long_runs_test_other_releases_unless_they_are_named() {
        let releases = |arguments: &[&str]| -> BTreeSet<Release> {
            parse(arguments).jobs(1).iter().flat_map(|job| job.scenario.needs.releases()).collect()
        };
        assert_eq!(releases(&[]), [Release::Default].into());
        assert_eq!(releases(&["--long"]), [Release::Default, Release::Older, Release::Separate].into());
        assert_eq!(releases(&["--only", "OLDER kubernetes"]), [Release::Older].into());
        assert_eq!(releases(&["--only", "a minor older than"]), [Release::Default, Release::Older].into());
    }

    #[test]
    fn several_names_are_a_choice() {
        let options = parse(&["--only", "clippy", "--only", "FORMATTED"]);
        assert!(options.wants("Clippy has nothing to say", false) && options.wants("The code is formatted", false));
        assert!(!options.wants("Every crate's own tests pass", false));
    }

    #[test]
    fn a_name_that_nothing_has_is_an_error() {
        let error = run(&parse(&["--only", "clippy", "--only", "nonsense"])).unwrap_err().to_string();
        assert!(error.contains("\"nonsense\"") && error.contains("--list"), "{error}");
        let error = run(&parse(&["--fast", "--only", POWER_CUT])).unwrap_err().to_string();
        assert!(error.contains("needs a machine"), "{error}");
    }
}
