//! The kubeboot binary that machines run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cache::{Cache, Check, Key, ensure_same};
use crate::{command, host, repository};

/// Explicit, so that flags for it are not those of build scripts too.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds kubeboot for machines: the release profile, linked statically, so that one binary runs in the initrd, on the
/// image and in the static pods' image. Returns the file, which stays as it is whatever is built later.
///
/// # Errors
/// It does not compile.
pub fn kubeboot_binary(cache: &Cache) -> Result<PathBuf> {
    host::host_packages(&["gcc", "libc6-dev"])?;
    let lock = fs::File::create(cache.root().join("kubeboot-binary.lock"))
        .context("Cannot make the lock of the kubeboot build")?;
    lock.lock().context("Cannot lock the kubeboot build")?;
    let sources = key()?;
    let entry = cache.entry("kubeboot", &sources, Check::Content, |into| {
        let target = cache.root().join("target");
        // Cargo goes by times, and takes for fresh what another checkout compiled after this one was changed.
        let mut clean = cargo(&target);
        clean.args(["clean", "--quiet", "--release", "--package", "kubeboot", "--target", TARGET]);
        command::run(&mut clean, "forget what was compiled of kubeboot")?;
        let built = compile(&target)?;
        // Else others would be kept under the name of these.
        ensure!(
            key()?.as_str() == sources.as_str(),
            "kubeboot's sources were changed while it was built. Fix: build again"
        );
        fs::copy(&built, into.join("kubeboot")).map(drop).with_context(|| format!("Cannot copy {}", built.display()))
    })?;
    Ok(entry.join("kubeboot"))
}

/// Everything that could change a byte of it. Dependencies are pinned by the lock file.
fn key() -> Result<Key> {
    let rustc = command::output(Command::new("rustc").arg("-vV"), "ask rustc for its version")?;
    let gcc = command::output(Command::new("gcc").arg("--version"), "ask gcc for its version")?;
    let mut key = Key::of("kubeboot binary 2").input("rustc", rustc).input("gcc", gcc).input("flags", FLAGS);
    for source in ["Cargo.toml", "Cargo.lock", "init/Cargo.toml", "init/src"] {
        key = key.files(source, &repository().join(source))?;
    }
    Ok(key.finish())
}

/// Compiles kubeboot and its dependencies once more from nothing, and compares.
///
/// # Errors
/// It does not compile, or a byte differs.
pub fn rebuild(cache: &Cache, first: &Path) -> Result<()> {
    eprintln!("Building kubeboot once more, to compare");
    let target = cache.root().join("target.again");
    let remove = || match fs::remove_dir_all(&target) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("Cannot remove {}", target.display()))
        }
        _ => Ok(()),
    };
    remove()?;
    ensure_same(first, &compile(&target)?)?;
    remove()
}

/// Runs cargo, and names the file that it made in `target`.
fn compile(target: &Path) -> Result<PathBuf> {
    let mut build = cargo(target);
    build.args(["build", "--quiet", "--locked", "--release", "--package", "kubeboot", "--target", TARGET]);
    command::run(&mut build, "compile kubeboot")?;
    Ok(target.join(TARGET).join("release/kubeboot"))
}

fn cargo(target: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository());
    cargo.env("CARGO_TARGET_DIR", target).env("RUSTFLAGS", rust_flags()).env_remove("CARGO_ENCODED_RUSTFLAGS");
    // AWS-LC would gather entropy from the CPU's timing before its first random byte: 27 ms of CPU for each process,
    // and 0.4 s in an emulated machine. getrandom(2), which waits until the kernel has entropy, is enough.
    cargo.env("AWS_LC_SYS_NO_JITTER_ENTROPY", "1");
    cargo
}

/// Static.
const FLAGS: &str = "-C target-feature=+crt-static";

/// [`FLAGS`], and no path of the build machine inside: dependencies' sources are called `/cargo`.
fn rust_flags() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let remap = home.map(|home| format!(" --remap-path-prefix={}=/cargo", home.display())).unwrap_or_default();
    format!("{FLAGS}{remap}")
}
