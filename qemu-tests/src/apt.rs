//! Packages of Debian sid, fetched with an apt state of our own: the host's is only read, for its mirror.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use std::process::Command;

use image_builder::command::run;
use image_builder::mirror;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Downloads the newest `package` of sid into the empty folder `work`, and gives the file.
///
/// # Errors
/// The host's apt knows no Debian mirror, or the mirror does not serve the package.
pub fn fetch(package: &str, work: &Path) -> Result<PathBuf> {
    let apt = work.join("apt");
    for part in ["lists/partial", "cache/archives/partial", "sources"] {
        fs::create_dir_all(apt.join(part)).with_context(|| format!("can't make {}/{part}", apt.display()))?;
    }
    let mirrors = mirror::of_this_machine()?;
    let mirror = mirrors.context("the host's apt knows no Debian mirror. Fix: add a Debian source to it")?.debian;
    let source = format!("Types: deb\nURIs: {mirror}\nSuites: sid\nComponents: main\nSigned-By: {KEYRING}\n");
    for (name, text) in [("sources/sid.sources", &*source), ("status", ""), ("apt.conf", &config(&apt))] {
        fs::write(apt.join(name), text).with_context(|| format!("can't write {}/{name}", apt.display()))?;
    }
    let get = || {
        let mut get = Command::new("apt-get");
        get.arg("-q").env("APT_CONFIG", apt.join("apt.conf")).current_dir(work);
        get
    };
    run(get().arg("update"), "read the package lists of Debian sid")?;
    run(get().args(["download", package]), &format!("fetch the package {package} of Debian sid"))?;
    let mut files = fs::read_dir(work)?.flatten().map(|entry| entry.path());
    files.find(|path| path.extension().is_some_and(|end| end == "deb")).context("apt-get download left no package")
}

/// Settings that keep apt within `apt`.
fn config(apt: &Path) -> String {
    let root = apt.display();
    format!(
        "Dir::State \"{root}\";\nDir::State::lists \"{root}/lists\";\nDir::State::status \"{root}/status\";\n\
         Dir::Cache \"{root}/cache\";\nDir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"{root}/sources\";\n\
         Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\nAPT::Sandbox::User \"root\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\nAcquire::Languages \"none\";\n"
    )
}
