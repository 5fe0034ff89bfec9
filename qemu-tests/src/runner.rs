//! Running scenarios: as many at once as the host has processors and memory for, and what is kept of those that fail.

use std::collections::VecDeque;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use image_builder::cache::Cache;

use crate::disk::Var;
use crate::lab::{Lab, Labs};
use crate::machine::{Backend, report};
use crate::scenario::{Scenario, Stage};
use crate::subject::Release;

/// How many failures are kept; the oldest go first.
const KEPT: usize = 20;

/// How many checks passed, and how many did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// One scenario with the seed it runs with.
#[derive(Clone, Copy)]
pub struct Job {
    /// The scenario.
    pub scenario: &'static Scenario,
    /// The seed of its choices.
    pub seed: u64,
}

/// What the host can spare for machines.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Processors.
    pub processors: usize,
    /// Memory in MiB.
    pub memory: u32,
}

impl Room {
    /// What this host has now, less what it needs itself.
    #[must_use]
    pub fn of_host() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let table = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kibibytes: u32 = available.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        Self { processors, memory: (kibibytes / 1024).saturating_sub(2048) }
    }

    /// What a scenario takes of it on a backend. More processors than there are means all of them.
    fn share(self, scenario: &Scenario, backend: &dyn Backend) -> Self {
        let machines = scenario.needs.machines;
        Self {
            processors: (backend.processors() * usize::from(machines)).min(self.processors),
            memory: (scenario.needs.memory * u32::from(machines)).min(self.memory),
        }
    }

    fn holds(self, share: Self) -> bool {
        share.processors <= self.processors && share.memory <= self.memory
    }
}

/// The lab for a scenario, and the first backend there that offers what it needs.
///
/// # Errors
/// None does.
pub fn place<'a>(labs: &'a Labs, scenario: &Scenario) -> Result<(&'a Lab, &'a dyn Backend)> {
    let needs = scenario.needs;
    let lab = labs.get(&needs.release).with_context(|| format!("there is no {} release", needs.release.name()))?;
    let fits = |backend: &&dyn Backend| {
        (backend.firmware() || !needs.firmware)
            && (backend.keyboard() || !needs.keyboard)
            && (backend.several() || needs.machines == 1)
    };
    match lab.backends.iter().map(|backend| &**backend).find(fits) {
        Some(backend) => Ok((lab, backend)),
        None => bail!("no backend that may be used offers what this needs: {needs:?}"),
    }
}

/// The lab of another release, and its backend of the same kind.
fn beside<'a>(labs: &'a Labs, release: Release, backend: &dyn Backend) -> Result<(&'a Lab, &'a dyn Backend)> {
    let lab = labs.get(&release).with_context(|| format!("there is no {} release", release.name()))?;
    let same = lab.backends.iter().map(|other| &**other).find(|other| other.name() == backend.name());
    Ok((lab, same.with_context(|| format!("no {} for the {} release", backend.name(), release.name()))?))
}

struct Queue {
    waiting: VecDeque<Job>,
    room: Room,
    count: Count,
}

/// Runs the jobs, prints a line for each, and counts.
#[must_use]
pub fn run(labs: &Labs, jobs: Vec<Job>, room: Room) -> Count {
    let workers = room.processors.min(jobs.len());
    let queue = Mutex::new(Queue { waiting: jobs.into(), room, count: Count::default() });
    let freed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((job, share)) = next(labs, &queue, &freed, room) {
                    let passed = play(labs, job);
                    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    queue.room.processors += share.processors;
                    queue.room.memory += share.memory;
                    queue.count += Count { passed: usize::from(passed), failed: usize::from(!passed) };
                    freed.notify_all();
                }
            });
        }
    });
    queue.into_inner().unwrap_or_else(PoisonError::into_inner).count
}

/// Takes the first job that there is room for; waits until there is; nothing when none is left.
fn next(labs: &Labs, queue: &Mutex<Queue>, freed: &Condvar, whole: Room) -> Option<(Job, Room)> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if queue.waiting.is_empty() {
            return None;
        }
        let room = queue.room;
        // One that no backend can play takes no room: playing it says why.
        let share = |job: &Job| match place(labs, job.scenario) {
            Ok((_, backend)) => whole.share(job.scenario, backend),
            Err(_) => Room { processors: 0, memory: 0 },
        };
        if let Some(index) = queue.waiting.iter().position(|job| room.holds(share(job))) {
            let job = queue.waiting.remove(index)?;
            let share = share(&job);
            queue.room.processors -= share.processors;
            queue.room.memory -= share.memory;
            return Some((job, share));
        }
        queue = freed.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Plays one job and prints how it went.
fn play(labs: &Labs, job: Job) -> bool {
    let start = Instant::now();
    let name = job.scenario.name;
    let (lab, backend) = match place(labs, job.scenario) {
        Ok(found) => found,
        Err(error) => {
            println!("[FAIL]    0 s  {name}\n       {error:#}");
            return false;
        }
    };
    let folder = lab.folder.join(format!("{}-{}", slug(name), job.seed));
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut stage = Stage::new(lab, backend, job.scenario.needs, folder.clone(), job.seed)?;
        stage.newcomers = job.scenario.needs.newcomers.map(|release| beside(labs, release, backend)).transpose()?;
        (job.scenario.run)(&mut stage).with_context(|| format!("on {}", backend.name()))
    }));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        bail!("the scenario panicked: {}", text.unwrap_or_else(|| "no message".into()))
    });
    let seconds = start.elapsed().as_secs();
    let passed = match result {
        Ok(()) => {
            println!("[pass] {seconds:>4} s  {name}");
            true
        }
        Err(error) => {
            let kept = keep(&folder, start.elapsed())
                .map_or_else(|error| format!("nothing could be kept: {error:#}"), |kept| kept.display().to_string());
            let only = if lab.backends.len() == 1 { format!("--backend {} ", backend.name()) } else { String::new() };
            println!(
                "[FAIL] {seconds:>4} s  {name}\n       {}\n       Kept: {kept}\n       Again: ./qemu-tests/run {only}--only '{name}' --seed {}",
                format!("{error:#}").replace('\n', "\n       "),
                job.seed
            );
            false
        }
    };
    // Machines are gone by now, and with them the use of their disks.
    let _ = fs::remove_dir_all(&folder);
    passed
}

/// Keeps what explains a failure: logs, reports, timelines, and the journal as far as it reached the disk.
fn keep(folder: &Path, after: Duration) -> Result<PathBuf> {
    let failures = Cache::open()?.root().join("failures");
    let name = folder.file_name().context("the stage has no name")?.to_string_lossy().into_owned();
    let kept = failures.join(&name);
    if kept.exists() {
        fs::remove_dir_all(&kept).with_context(|| format!("can't replace {}", kept.display()))?;
    }
    fs::create_dir_all(&kept).with_context(|| format!("can't make {}", kept.display()))?;
    fs::write(kept.join("after"), format!("{} s\n", after.as_secs()))?;
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name().to_string_lossy().starts_with("boot-") {
            keep_boot(&path, &kept.join(entry.file_name()))?;
        } else if path.extension().is_some_and(|end| end == "log") {
            fs::copy(&path, kept.join(entry.file_name()))?;
        } else if path.extension().is_some_and(|end| end == "raw") {
            // A disk that has no /var yet has no journal either.
            let _ = keep_journal(&path, &kept);
        }
    }
    forget_oldest(&failures)?;
    Ok(kept)
}

fn keep_boot(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.flatten() {
        let name = entry.file_name();
        let wanted = [".log", ".jsonl"].iter().any(|end| name.to_string_lossy().ends_with(end));
        if wanted && entry.path().is_file() {
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    let events = report::events(&fs::read_to_string(to.join("report.jsonl")).unwrap_or_default());
    let lines: Vec<_> = events.iter().map(|event| format!("{:>9.3} {:?}\n", event.t, event.what)).collect();
    fs::write(to.join("timeline"), lines.concat())?;
    Ok(())
}

/// The journal, as text, from the stopped machine's disk; named after it.
fn keep_journal(disk: &Path, to: &Path) -> Result<()> {
    let var = Var::read(disk)?;
    let mut journalctl = std::process::Command::new("journalctl");
    journalctl.args(["--no-pager", "-o", "short-monotonic", "-D"]).arg(var.path("/var/log/journal"));
    let text = image_builder::command::output(&mut journalctl, "read a machine's journal")?;
    let machine = disk.file_stem().unwrap_or_default().to_string_lossy();
    Ok(fs::write(to.join(format!("journal-{machine}.log")), text)?)
}

fn forget_oldest(failures: &Path) -> Result<()> {
    let mut kept: Vec<_> = fs::read_dir(failures)?
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    kept.sort();
    for (_, path) in kept.iter().rev().skip(KEPT) {
        fs::remove_dir_all(path).with_context(|| format!("can't remove {}", path.display()))?;
    }
    Ok(())
}

/// A name for files: lower case, words joined by hyphens, at most 40 characters.
fn slug(name: &str) -> String {
    let words = name.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("-").to_lowercase();
    slug.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_becomes_a_file_name() {
        assert_eq!(slug("A founder, started by UEFI, is Ready"), "a-founder-started-by-uefi-is-ready");
    }

    #[test]
    fn room_is_counted_in_processors_and_memory() {
        let room = Room { processors: 2, memory: 4096 };
        assert!(room.holds(Room { processors: 2, memory: 4096 }));
        assert!(!room.holds(Room { processors: 1, memory: 4097 }));
        assert!(!room.holds(Room { processors: 3, memory: 1 }));
    }
}
