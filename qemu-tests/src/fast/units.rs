//! Unit files, verified by systemd itself in a root directory that holds nothing but them and what they start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use image_builder::cache::Cache;
use image_builder::tools::Tools;
use image_builder::{command, repository};

use crate::runner::Count;

/// Verifies every unit of the image.
///
/// # Errors
/// systemd complains of one.
pub fn understood() -> Result<Count> {
    let units = files(&repository().join("units"))?;
    ensure!(!units.is_empty(), "there are no unit files");
    let root = tempfile::tempdir().context("can't make a root directory for the unit files")?;
    let folder = root.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&folder)?;
    for unit in &units {
        let text = fs::read_to_string(unit).with_context(|| format!("can't read {}", unit.display()))?;
        for program in programs(&text) {
            executable(&root.path().join(program.trim_start_matches('/')))?;
        }
        fs::copy(unit, folder.join(unit.file_name().context("a unit without a name")?))?;
    }
    let names = units.iter().filter_map(|unit| unit.file_name());
    // The tools tree's: this host's systemd may be older than the image's and not know a setting.
    let mut verify = Tools::ensure(&Cache::open()?)?.command("systemd-analyze");
    verify
        .args(["verify", "--man=no", "--generators=no", "--recursive-errors=no", "--root"])
        .arg(root.path())
        .args(names);
    command::run(&mut verify, "verify the unit files")?;
    Ok(Count { passed: units.len(), failed: 0 })
}

/// Every file below `folder` whose name is that of a unit.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let kinds = ["service", "socket", "target", "mount", "path", "timer"];
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("can't list {}", folder.display()))?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|end| kinds.iter().any(|kind| end == *kind)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The programs that a unit starts, as absolute paths.
fn programs(unit: &str) -> impl Iterator<Item = &str> {
    unit.lines()
        .filter_map(|line| line.strip_prefix("Exec"))
        .filter_map(|line| line.split_once('='))
        .filter_map(|(_, command)| command.split_whitespace().next())
        .map(|program| program.trim_start_matches(['-', '+', '!', ':', '@']))
        .filter(|program| program.starts_with('/'))
}

fn executable(path: &Path) -> Result<()> {
    let parent = path.parent().context("a program without a folder")?;
    fs::create_dir_all(parent)?;
    fs::write(path, "")?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_behind_their_prefixes() {
        let unit =
            "[Service]\nExecStartPre=-/usr/bin/a x\nExecStart=+/b\nExecReload=kill\nExecStop=\nEnvironment=E=/c\n";
        assert_eq!(programs(unit).collect::<Vec<_>>(), ["/usr/bin/a", "/b"]);
    }
}
