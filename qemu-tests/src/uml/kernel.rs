//! The kernel of user-mode Linux: Debian sid's newest source package with our configuration, built once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use image_builder::cache::{Cache, Check, Key};
use image_builder::{command, host};

use crate::apt;

/// The source package; its newest version in sid is taken.
const PACKAGE: &str = "linux-source-7.2";
/// What is added to `ARCH=um defconfig`.
const CONFIG: &str = include_str!("../../uml.config");
/// What is changed in the source: file, what stands there once, what takes its place.
const PATCHES: &[(&str, &str, &str)] = &[
    // The kubelet wants to know a clock speed, which user-mode Linux does not say: one line more in /proc/cpuinfo.
    (
        "arch/um/kernel/um_arch.c",
        "\tseq_printf(m, \"mode\\t\\t: skas\\n\");\n",
        "\tseq_printf(m, \"mode\\t\\t: skas\\n\");\n\tseq_printf(m, \"cpu MHz\\t\\t: 1000.000\\n\");\n",
    ),
    // A guest's flush need not reach the host's disk: the power that tests cut is the guest's, and what it wrote
    // outlives its process in the host's memory.
    ("arch/um/os-Linux/file.c", "\tint n = fdatasync(fd);\n", "\tint n = 0;\n"),
];

/// The kernel as a program of the host, built when the cache does not have it (about six minutes).
///
/// # Errors
/// The source can't be fetched or built; the message names the step.
pub fn program() -> Result<PathBuf> {
    Ok(Cache::open()?.entry("uml", &key(), Check::Content, build)?.join("linux"))
}

/// What the kernel is made of, as far as this program decides it; its source's version is noted beside it.
fn key() -> Key {
    let key = Key::of("user-mode Linux kernel").input("package", PACKAGE).input("config", CONFIG);
    let patched =
        PATCHES.iter().fold(key, |key, (file, from, to)| key.input("file", file).input("from", from).input("to", to));
    patched.finish()
}

fn build(folder: &Path) -> Result<()> {
    host::host_packages(&["bc", "bison", "flex", "gcc", "libc6-dev", "make", "xz-utils"])?;
    eprintln!("Building user-mode Linux (about six minutes, once)");
    let work = folder.join("work");
    fs::create_dir_all(&work).with_context(|| format!("can't make {}", work.display()))?;
    let package = apt::fetch(PACKAGE, &work)?;
    let version = package.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    command::run(Command::new("dpkg-deb").arg("-x").args([&package, &work]), "unpack the kernel's source package")?;
    let archive = work.join("usr/src").join(format!("{PACKAGE}.tar.xz"));
    command::run(Command::new("tar").arg("-C").arg(&work).arg("-xf").arg(&archive), "unpack the kernel's source")?;
    let source = work.join(PACKAGE);
    patch(&source)?;
    configure(&source)?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    make(&source, &[&format!("-j{jobs}"), "linux"])?;
    let (built, wanted) = (source.join("linux"), folder.join("linux"));
    command::run(Command::new("strip").arg("-o").args([&wanted, &built]), "strip the kernel")?;
    fs::write(folder.join("source"), version).context("can't note the source's version")?;
    fs::remove_dir_all(&work).with_context(|| format!("can't remove {}", work.display()))
}

/// Changes the source.
fn patch(source: &Path) -> Result<()> {
    for (file, from, to) in PATCHES {
        let path = source.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        ensure!(text.matches(from).count() == 1, "{file} is not as expected: {from:?} does not stand in it once");
        fs::write(&path, text.replace(from, to)).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

fn configure(source: &Path) -> Result<()> {
    make(source, &["defconfig"])?;
    let path = source.join(".config");
    let base = fs::read_to_string(&path)?;
    fs::write(&path, format!("{base}{CONFIG}"))?;
    make(source, &["olddefconfig"])?;
    let lost = lost(CONFIG, &fs::read_to_string(&path)?);
    ensure!(lost.is_empty(), "the kernel does not take these options: {}", lost.join(" "));
    Ok(())
}

/// The options of the fragment that the configuration does not have as wanted.
fn lost<'a>(fragment: &'a str, configuration: &str) -> Vec<&'a str> {
    let set: std::collections::HashSet<_> = configuration.lines().collect();
    let wanted = fragment.lines().filter(|line| line.starts_with("CONFIG_"));
    wanted
        .filter(|line| match line.strip_suffix("=n") {
            Some(name) => set.iter().any(|other| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))),
            None => !set.contains(line),
        })
        .collect()
}

fn make(source: &Path, arguments: &[&str]) -> Result<()> {
    let mut make = Command::new("make");
    make.arg("-s").arg("ARCH=um").args(arguments).current_dir(source);
    // The variables that a make above us would pass on are not meant for the kernel.
    make.env_remove("MAKEFLAGS").env_remove("MFLAGS");
    command::run(&mut make, "build the kernel of user-mode Linux")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_the_kernel_dropped_is_found() {
        let configuration = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\nCONFIG_DD=y\n";
        assert_eq!(lost("CONFIG_A=y\nCONFIG_B=n\nCONFIG_D=n\n", configuration), Vec::<&str>::new());
        assert_eq!(
            lost("CONFIG_B=y\nCONFIG_C=n\nCONFIG_E=y\n", configuration),
            ["CONFIG_B=y", "CONFIG_C=n", "CONFIG_E=y"]
        );
    }
}
