//! Packages of the build machine: installed when they are missing, and only those.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// Makes sure that the named Debian packages are installed.
///
/// # Errors
/// The build machine has no dpkg, or packages are missing and cannot be installed: then the error has the command
/// that a person would use.
pub fn host_packages(names: &[&str]) -> Result<()> {
    let listing = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(names)
        .output()
        .context("Cannot look for installed packages: `dpkg-query` does not start. Build on Debian or Ubuntu")?;
    // A package that dpkg never heard of makes the status 1; the others are listed all the same.
    let missing = missing(names, &String::from_utf8_lossy(&listing.stdout));
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("Installing on this machine: {}", missing.join(" "));
    if install(&missing).is_ok() {
        return Ok(());
    }
    // The package lists of a fresh machine are often missing or stale.
    command::run(apt_get().arg("update"), "refresh the package lists")
        .and_then(|()| install(&missing))
        .with_context(|| format!("Packages are missing. Fix: sudo apt-get install {}", missing.join(" ")))
}

/// The names that `listing` (dpkg-query's) does not call installed.
fn missing<'a>(names: &[&'a str], listing: &str) -> Vec<&'a str> {
    let installed = |name: &str| {
        listing.lines().any(|line| line.split_once(' ').is_some_and(|(n, status)| n == name && status == "installed"))
    };
    names.iter().copied().filter(|name| !installed(name)).collect()
}

fn install(names: &[&str]) -> Result<()> {
    let mut command = apt_get();
    command.args(["install", "--yes", "--no-install-recommends"]).args(names);
    command::run(&mut command, "install packages")
}

/// apt-get, as root; it waits for another apt-get at most three minutes.
fn apt_get() -> Command {
    let root = is_root();
    let mut command = Command::new(if root { "apt-get" } else { "sudo" });
    if !root {
        command.args(["--non-interactive", "apt-get"]);
    }
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=180"]);
    command
}

/// Fails with the fix unless the process is root, which `purpose` needs.
///
/// # Errors
/// The process is not root.
pub fn require_root(purpose: &str) -> Result<()> {
    if !is_root() {
        bail!("Cannot {purpose} as an ordinary user. Fix: run the same command as root");
    }
    Ok(())
}

/// Whether the effective user is root, by the owner of this process in /proc.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_installed_is_missing() {
        let listing = "gcc installed\nlibc6 installed\nold-tool config-files\n";
        assert_eq!(missing(&["gcc", "old-tool", "libc6", "never-heard-of"], listing), ["old-tool", "never-heard-of"]);
    }

    #[test]
    fn a_name_is_not_found_inside_another() {
        assert_eq!(missing(&["gcc"], "gcc-12 installed\n"), ["gcc"]);
    }
}
