//! The kubeboot binary that machines run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::{Cache, Check, Key, sha256_file};
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
    let target = cache.root().join("target");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()).args([
        "build",
        "--quiet",
        "--locked",
        "--release",
        "--package",
        "kubeboot",
        "--target",
        TARGET,
    ]);
    cargo.env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", rust_flags()).env_remove("CARGO_ENCODED_RUSTFLAGS");
    // AWS-LC would gather entropy from the CPU's timing before its first random byte: 27 ms of CPU for each process,
    // and 0.4 s in an emulated machine. getrandom(2), which waits until the kernel has entropy, is enough.
    cargo.env("AWS_LC_SYS_NO_JITTER_ENTROPY", "1");
    command::run(&mut cargo, "compile kubeboot")?;
    // Cargo's file is replaced by its next run, perhaps from another checkout.
    let built = target.join(TARGET).join("release/kubeboot");
    let key = Key::of("kubeboot binary 1").input("sha256", sha256_file(&built)?).finish();
    let entry = cache.entry("kubeboot", &key, Check::Content, |into| {
        fs::copy(&built, into.join("kubeboot")).map(drop).with_context(|| format!("Cannot copy {}", built.display()))
    })?;
    Ok(entry.join("kubeboot"))
}

/// Static, and with no path of the build machine inside: dependencies' sources are called `/cargo`.
fn rust_flags() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let remap = home.map(|home| format!(" --remap-path-prefix={}=/cargo", home.display())).unwrap_or_default();
    format!("-C target-feature=+crt-static{remap}")
}
