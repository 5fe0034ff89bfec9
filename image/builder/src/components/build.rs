//! Builds a group with Go.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::groups::{Group, Program};
use super::versions::Kubernetes;
use crate::cache::{Cache, Check, Key};
use crate::{command, host, repository};

/// What a build of a group needs to know.
struct Plan<'a> {
    group: &'a Group,
    folder: PathBuf,
    modfile: &'a str,
    linker_flags: String,
}

/// The version of the group's module in its go.mod, without the `v`.
pub(super) fn pinned_version(group: &Group, kubernetes: &Kubernetes) -> Result<String> {
    let path = folder(group).join(modfile(group, kubernetes));
    let text = fs::read_to_string(&path).with_context(|| format!("Cannot read {}", path.display()))?;
    version_in(&text, group.module).with_context(|| format!("{} does not require {}", path.display(), group.module))
}

/// The version of a `require` line. A `replace` line has an arrow as its second word.
fn version_in(modfile: &str, module: &str) -> Option<String> {
    modfile.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some(module)).then(|| words.next()?.strip_prefix('v').map(str::to_owned)).flatten()
    })
}

fn folder(group: &Group) -> PathBuf {
    repository().join("image/components").join(group.name)
}

/// Kubernetes' group has a go.mod for each version.
fn modfile<'a>(group: &Group, kubernetes: &'a Kubernetes) -> &'a str {
    if group.name == "kube" { &kubernetes.modfile } else { "go.mod" }
}

/// Builds a group, or finds it in the cache: a folder with its programs. With `rebuild`, builds it once more from
/// nothing, and compares.
pub(super) fn group(
    cache: &Cache,
    group: &Group,
    kubernetes: &Kubernetes,
    version: &str,
    rebuild: bool,
) -> Result<PathBuf> {
    if let Some(packages) = group.cgo {
        host::host_packages(packages)?;
    }
    let plan = Plan {
        group,
        folder: folder(group),
        modfile: modfile(group, kubernetes),
        linker_flags: linker_flags(group, kubernetes, version),
    };
    let key = key(&plan)?;
    let built = cache.entry(&format!("components/{}", group.name), &key, Check::Content, |into| {
        eprintln!("Building {} {version}", group.name);
        build(&plan, into, &[])
    })?;
    if rebuild {
        compare(cache, &plan, &key, &built)?;
    }
    Ok(built)
}

/// Everything that could change a byte of the result.
fn key(plan: &Plan<'_>) -> Result<Key> {
    let go = command::output(go().args(["env", "GOVERSION"]), "ask Go for its version")?;
    let mut key = Key::of("component 1").input("go", go.trim()).input("linker", &plan.linker_flags);
    key = key.input("tags", plan.group.tags.join(",")).input("modfile", plan.modfile);
    for program in plan.group.programs {
        key = key.input(program.name, program.package);
    }
    if let Some(packages) = plan.group.cgo {
        let mut query = Command::new("dpkg-query");
        query.args(["--show", "--showformat=${Package} ${Version}\n"]).args(packages);
        key = key.input("packages", command::output(&mut query, "list the versions of C packages")?);
    }
    // Of Kubernetes' several go.mod files only the chosen one counts.
    let sums = plan.modfile.replace(".mod", ".sum");
    for name in [plan.modfile, &sums] {
        key = key.files(name, &plan.folder.join(name))?;
    }
    for source in go_sources(&plan.folder)? {
        key = key.files(&source, &plan.folder.join(&source))?;
    }
    Ok(key.finish())
}

fn go_sources(folder: &Path) -> Result<Vec<String>> {
    let mut names = file_names(folder)?;
    names.retain(|name| name.ends_with(".go") && !name.ends_with("_test.go"));
    names.sort();
    Ok(names)
}

fn file_names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("Cannot list {}", folder.display()))?;
    let name = |entry: std::io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let names: std::io::Result<_> = entries.map(name).collect();
    names.with_context(|| format!("Cannot list {}", folder.display()))
}

/// Runs the tests of our own Go code, group by group. How many groups have any.
pub(super) fn test(groups: &[Group]) -> Result<usize> {
    let mut tested = 0;
    for group in groups {
        let folder = folder(group);
        if !file_names(&folder)?.iter().any(|name| name.ends_with("_test.go")) {
            continue;
        }
        let mut command = go();
        command.current_dir(&folder).args(["test", "-mod=readonly"]).arg(format!("-tags={}", group.tags.join(",")));
        command::run(command.arg("./..."), &format!("test the Go code of {}", group.name))?;
        tested += 1;
    }
    Ok(tested)
}

fn linker_flags(group: &Group, kubernetes: &Kubernetes, version: &str) -> String {
    let mut flags = String::from("-s -w -buildid=");
    let mut set = |variable: &str, value: &str| flags.push_str(&format!(" -X {variable}={value}"));
    if let Some(variable) = group.version_variable {
        set(variable, &format!("v{version}"));
    }
    if group.name == "kube" {
        let mut numbers = version.split('.');
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        let released = kubernetes.released.to_string();
        for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
            set(&format!("{package}.gitVersion"), &format!("v{version}"));
            set(&format!("{package}.gitMajor"), major);
            set(&format!("{package}.gitMinor"), minor);
            // A published module does not say which commit it is, and go.sum pins its contents better than one would.
            set(&format!("{package}.gitCommit"), "");
            set(&format!("{package}.gitTreeState"), "clean");
            set(&format!("{package}.buildDate"), &released);
        }
    }
    if group.cgo.is_some() {
        flags.push_str(" -linkmode external -extldflags -static");
    }
    flags
}

/// Go with nothing of the caller's configuration that could change the result.
fn go() -> Command {
    let mut go = Command::new("go");
    go.env("GOTOOLCHAIN", "local").env("GOFLAGS", "").env("GOOS", "linux").env("GOARCH", "amd64").env("GOAMD64", "v1");
    go.env("GOWORK", "off").env("GOEXPERIMENT", "");
    go
}

fn build(plan: &Plan<'_>, into: &Path, more: &[&str]) -> Result<()> {
    plan.group.programs.iter().try_for_each(|program| build_program(plan, program, into, more))
}

fn build_program(plan: &Plan<'_>, program: &Program, into: &Path, more: &[&str]) -> Result<()> {
    let mut command = go();
    command.current_dir(&plan.folder).env("CGO_ENABLED", if plan.group.cgo.is_some() { "1" } else { "0" });
    command.args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly"]).args(more);
    command.arg(format!("-modfile={}", plan.modfile)).arg(format!("-tags={}", plan.group.tags.join(",")));
    command.arg(format!("-ldflags={}", plan.linker_flags)).arg("-o").arg(into.join(program.name)).arg(program.package);
    command::run(&mut command, &format!("build {}", program.name))
}

/// Builds from nothing, Go's own cache included, and compares.
fn compare(cache: &Cache, plan: &Plan<'_>, key: &Key, built: &Path) -> Result<()> {
    eprintln!("Building {} once more, to compare", plan.group.name);
    let again = cache.root().join("components").join(plan.group.name).join(format!("{}.again", key.as_str()));
    fs::create_dir_all(&again).with_context(|| format!("Cannot make {}", again.display()))?;
    build(plan, &again, &["-a"])?;
    for program in plan.group.programs {
        crate::cache::ensure_same(&built.join(program.name), &again.join(program.name))?;
    }
    fs::remove_dir_all(&again).with_context(|| format!("Cannot remove {}", again.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_version_is_read_from_either_form_of_require_and_not_from_replace() {
        let single = "require k8s.io/kubernetes v1.37.2\n\nreplace (\n\tk8s.io/api => k8s.io/api v0.37.2\n)\n";
        assert_eq!(version_in(single, "k8s.io/kubernetes").as_deref(), Some("1.37.2"));
        assert_eq!(version_in(single, "k8s.io/api"), None);
        let block = "require (\n\ta.b/c/v2 v2.4.2 // indirect\n)\n";
        assert_eq!(version_in(block, "a.b/c/v2").as_deref(), Some("2.4.2"));
        assert_eq!(version_in(block, "a.b/c"), None);
    }

    #[test]
    fn every_group_pins_its_module() {
        let kubernetes = super::super::kubernetes(None).unwrap();
        for group in super::super::GROUPS {
            let version = pinned_version(group, &kubernetes).unwrap();
            assert_eq!(version.split('.').count(), 3, "{} {version}", group.name);
        }
    }

    #[test]
    fn kubernetes_is_told_its_version_in_both_places() {
        let kubernetes = super::super::kubernetes(None).unwrap();
        let kube = super::super::GROUPS.iter().find(|group| group.name == "kube").unwrap();
        let flags = linker_flags(kube, &kubernetes, "1.37.2");
        insta::assert_snapshot!(flags.replace(" -X ", "\n-X "));
    }
}
