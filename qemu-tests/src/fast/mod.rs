//! Checks that need no machine: the code's form, its own tests, its dependencies, its unit files.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use image_builder::cache::Cache;
use image_builder::components::{Source, components, test_go};
use image_builder::kubeboot_binary::kubeboot_binary;
use image_builder::release::{Inputs, release};
use image_builder::{command, host, repository};
use tempfile::TempDir;

use crate::runner::Count;

mod units;

/// One check: a sentence that is true when it passes, and how it is made. It counts what it checked.
pub struct Check {
    /// The sentence.
    pub name: &'static str,
    /// Whether only `--long` makes it.
    pub long: bool,
    /// Whether it needs the release's programs, which take long to build once: `--fast` leaves it out.
    pub programs: bool,
    run: fn() -> Result<Count>,
}

const fn check(name: &'static str, run: fn() -> Result<Count>) -> Check {
    Check { name, long: false, programs: false, run }
}

/// Every check.
pub const CHECKS: &[Check] = &[
    check("The code is formatted", formatted),
    check("Clippy has nothing to say", clippy),
    check("Every crate's own tests pass", tests),
    check("Dependencies have allowed licences and sources, and only one crypto provider", dependencies),
    check("systemd understands the unit files", units::understood),
    check("Fuzzing the parsers of outside input finds nothing", fuzzed),
    check("The Go code's own tests pass", go_tests),
    check("OpenSSH's agent signs for operators", with_a_real_agent),
    Check {
        name: "Machines join behind a real etcd and a real API server",
        programs: true,
        ..check("", behind_a_real_api_server)
    },
    Check {
        name: "The agent withstands who attacks it from another network namespace",
        programs: true,
        ..check("", attacked)
    },
    Check {
        name: "Whichever of three control planes is lost, the API answers again behind the balancer",
        programs: true,
        ..check("", lost)
    },
    Check { name: "The mesh survives a hundred seeds of misfortune", long: true, ..check("", many_seeds) },
    Check { name: "The mesh survives misfortune among two thousand nodes", long: true, ..check("", crowd) },
    Check { name: "Five thousand nodes form a mesh within its figures", long: true, ..check("", figures) },
    Check {
        name: "Every binary of the release is the same when built again without caches",
        long: true,
        programs: true,
        ..check("", rebuilt)
    },
];

const ONE: Count = Count { passed: 1, failed: 0 };

/// Makes the checks that are wanted, prints a line for each, and counts.
#[must_use]
pub fn run(wanted: impl Fn(&Check) -> bool) -> Count {
    let mut total = Count::default();
    for check in CHECKS.iter().filter(|check| wanted(check)) {
        let start = Instant::now();
        let (count, word, text) = match (check.run)() {
            Ok(count) if count.failed == 0 => (count, "pass", String::new()),
            Ok(count) => (count, "FAIL", format!("\n       {count}")),
            Err(error) => {
                let text = format!("\n{error:#}").replace('\n', "\n       ");
                (Count { passed: 0, failed: 1 }, "FAIL", text)
            }
        };
        println!("[{word}] {:>4} s  {}{text}", start.elapsed().as_secs(), check.name);
        total += count;
    }
    total
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(repository()).args(arguments);
    cargo
}

fn formatted() -> Result<Count> {
    command::run(&mut cargo(&["fmt", "--all", "--check"]), "check the formatting").map(|()| ONE)
}

fn clippy() -> Result<Count> {
    let arguments = ["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    command::run(&mut cargo(&arguments), "check the code with clippy").map(|()| ONE)
}

fn tests() -> Result<Count> {
    // A test reads a partition table.
    host::host_packages(&["fdisk"])?;
    // The profile that this very program was built with: its libraries are not built a second time.
    tested(&mut cargo(&["test", "--locked", "--profile", "tools", "--workspace", "--no-fail-fast"]))
}

/// Go's tests count as one for each group that has any.
fn go_tests() -> Result<Count> {
    test_go().map(|passed| Count { passed, failed: 0 })
}

/// Ignored tests of kubeboot's, with what they need: the rest of cargo's command line, and variables.
fn ignored(which: &[&str], variables: &[(&str, &str)]) -> Result<Count> {
    let mut cargo = cargo(&["test", "--locked", "--profile", "tools", "--package", "kubeboot"]);
    // One after the other: they share ports, or are measured. What they print is captured, so that it stands with the failures,
    // and shown, for it may be a report.
    cargo.args(which).args(["--", "--ignored", "--show-output", "--test-threads=1"]).envs(variables.iter().copied());
    let count = tested(&mut cargo)?;
    ensure!(count.passed + count.failed > 0, "no ignored test is called {}", which.join(" "));
    Ok(count)
}

/// The release's own etcd and API server, by links in a folder.
struct Programs {
    _folder: TempDir,
    etcd: String,
    api_server: String,
}

impl Programs {
    fn of_the_release(cache: &Cache) -> Result<Self> {
        let built = components(cache, &Source::default())?;
        let folder = tempfile::tempdir().context("can't make a temporary folder")?;
        let program = |name: &str| {
            let file = built.files.get(&format!("bin/{name}")).with_context(|| format!("the release has no {name}"))?;
            // A multi-call binary goes by the name that it is called by.
            let path = folder.path().join(name);
            symlink(file, &path).with_context(|| format!("can't make {}", path.display()))?;
            Ok::<_, anyhow::Error>(path.display().to_string())
        };
        let (etcd, api_server) = (program("etcd")?, program("kube-apiserver")?);
        Ok(Programs { _folder: folder, etcd, api_server })
    }

    fn variables(&self) -> [(&str, &str); 2] {
        [("ETCD", &self.etcd), ("KUBE_APISERVER", &self.api_server)]
    }
}

fn behind_a_real_api_server() -> Result<Count> {
    let programs = Programs::of_the_release(&Cache::open()?)?;
    ignored(&["--lib", "::real::"], &programs.variables())
}

fn attacked() -> Result<Count> {
    apart("enrolment::tests::agent::")
}

fn lost() -> Result<Count> {
    apart("balancer::tests::loss::")
}

/// In namespaces of its own, and with the release's own kubeboot too.
fn apart(test: &str) -> Result<Count> {
    host::host_packages(&["iproute2", "util-linux"])?;
    let cache = Cache::open()?;
    let (programs, kubeboot) = (Programs::of_the_release(&cache)?, kubeboot_binary(&cache)?.display().to_string());
    let variables = [&programs.variables()[..], &[("KUBEBOOT", &kubeboot)]].concat();
    ignored(&["--lib", test], &variables)
}

fn with_a_real_agent() -> Result<Count> {
    host::host_packages(&["openssh-client"])?;
    ignored(&["--lib", "a_real_agent"], &[])
}

fn many_seeds() -> Result<Count> {
    ignored(&["--test", "mesh_simulation", "many_seeds"], &[("MESH_SEEDS", "100")])
}

/// With optimisation: unoptimised, it would take an hour, and the figures would be the debug build's.
const OPTIMISED: (&str, &str) = ("CARGO_PROFILE_TOOLS_OPT_LEVEL", "3");

fn crowd() -> Result<Count> {
    let variables = [OPTIMISED, ("MESH_NODES", "2000"), ("MESH_SEEDS", "1")];
    ignored(&["--test", "mesh_simulation", "many_seeds"], &variables)
}

fn figures() -> Result<Count> {
    ignored(&["--test", "mesh_simulation", "figures"], &[OPTIMISED, ("MESH_NODES", "5000")])
}

fn tested(cargo: &mut Command) -> Result<Count> {
    let output = cargo.output().context("cargo does not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let count = counted(&text);
    if !output.status.success() && count.failed == 0 {
        bail!("cargo test ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    for line in reports(&text).chain(both_ends(&failures(&text))) {
        println!("       {line}");
    }
    Ok(count)
}

/// What tests want a person to see, whatever came of them: figures that no test can judge.
fn reports(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix("report: "))
}

/// Most lines of failed tests' output that are shown.
const SHOWN: usize = 100;

/// What failed tests printed: cargo puts it between `failures:` and the list of their names, which repeats the word.
fn failures(text: &str) -> Vec<&str> {
    let mut within = false;
    let heading = |line: &&str| *line == "failures:";
    let lines = text.lines().filter(|line| {
        within = (within || heading(line)) && !line.starts_with("test result: ");
        within && !heading(line) && !line.is_empty()
    });
    lines.collect()
}

/// The first lines and the last: a simulation that fails tells its story, and only then what was wrong and how to replay it.
fn both_ends<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    if lines.len() <= SHOWN {
        return lines.to_vec();
    }
    [&lines[..SHOWN / 2], &["…"], &lines[lines.len() - SHOWN / 2..]].concat()
}

/// The sum of cargo's result lines: `test result: ok. 3 passed; 0 failed; …`.
fn counted(text: &str) -> Count {
    let mut count = Count::default();
    for line in text.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        let number = |word: &str| {
            let before = line.split_once(word).map_or("", |(before, _)| before);
            before.split_whitespace().last().and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        count += Count { passed: number(" passed"), failed: number(" failed") };
    }
    count
}

/// Each target for a few seconds; `init/fuzz/run SECONDS` takes longer.
fn fuzzed() -> Result<Count> {
    command::run(Command::new(repository().join("init/fuzz/run")).arg("5"), "fuzz the parsers").map(|()| ONE)
}

/// cargo-deny, installed into the cache. The advisory database is asked for only where it can be reached.
fn dependencies() -> Result<Count> {
    let root = Cache::open()?.root().join("cargo-tools");
    let deny = root.join("bin/cargo-deny");
    if !deny.is_file() {
        let mut install = cargo(&["install", "--quiet", "--locked", "cargo-deny", "--root"]);
        command::run(install.arg(&root), "install cargo-deny")?;
    }
    let check = |what: &[&str]| {
        let mut check = Command::new(&deny);
        check
            .current_dir(repository())
            .args(["--offline", "--workspace", "check", "--hide-inclusion-graph"])
            .args(what);
        command::run(&mut check, &format!("check the dependencies' {}", what.join(", ")))
    };
    check(&["bans", "licenses", "sources"])?;
    let mut fetch = Command::new(&deny);
    let fetched = command::run(fetch.current_dir(repository()).args(["fetch", "db"]), "fetch the advisory database");
    match fetched {
        Ok(()) => check(&["advisories"])?,
        Err(_) => println!("       The advisory database can't be reached from here; advisories were not checked"),
    }
    Ok(ONE)
}

/// Go's programs without Go's cache, kubeboot and its libraries into an empty folder: about a quarter of an hour.
fn rebuilt() -> Result<Count> {
    let source = Source { rebuild: true, ..Source::default() };
    release(&Cache::open()?, &Inputs { source, ..Inputs::default() }).map(|_| ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_crates_are_added() {
        let text = "running 2 tests\ntest result: ok. 19 passed; 0 failed; 0 ignored\n\
                    test result: FAILED. 3 passed; 2 failed; 1 ignored\n";
        assert_eq!(counted(text), Count { passed: 22, failed: 2 });
    }

    #[test]
    fn what_a_test_reports_is_shown() {
        let text = "running 1 test\n  joined in 1 s\n  report: 2 ms\ntest a ... ok\n";
        assert_eq!(reports(text).collect::<Vec<_>>(), ["2 ms"]);
    }

    #[test]
    fn what_a_failed_test_printed_is_shown() {
        let text = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nno sfdisk\n\nfailures:\n    b\n\n\
                    test result: FAILED. 1 passed; 1 failed\nrunning 1 test\ntest c ... ok\n";
        assert_eq!(failures(text), ["---- b stdout ----", "no sfdisk", "    b"]);
    }

    #[test]
    fn of_what_many_lines_say_both_ends_are_shown() {
        let numbers: Vec<String> = (0..3 * SHOWN).map(|number| number.to_string()).collect();
        let lines: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let shown = both_ends(&lines);
        assert_eq!((shown.len(), shown.first(), shown.last()), (SHOWN + 1, lines.first(), lines.last()));
        assert_eq!(both_ends(&lines[..SHOWN]), lines[..SHOWN]);
    }
}
