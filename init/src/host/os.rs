//! What the settings ask of the operating system itself: host name, files below /etc, time servers, networks. `/etc`
//! and `/run` go at power-off, so all of it is done at each boot.

use std::io;
use std::path::{Component, Path};

use super::files;
use super::root::Root;
use crate::settings::Os;

/// Where a time server goes (timesyncd.conf(5)).
const TIME: &str = "/run/systemd/timesyncd.conf.d/50-kubeboot.conf";
/// Who reads what is written there.
pub const NETWORKD: &str = "systemd-networkd.service";
/// Where networks go (systemd.network(5)).
const NETWORKS: &str = "/run/systemd/network";

/// What was done, and what could not be, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Paths that were written.
    pub written: Vec<String>,
    /// What could not be done, with the reason. None of it stops a boot.
    pub refused: Vec<String>,
    /// Units that have to hear of it.
    pub restart: Vec<&'static str>,
}

/// Writes files, time servers and networks.
pub fn apply(root: &Root, os: &Os) -> Applied {
    let mut applied = Applied::default();
    for file in &os.write_files {
        match write_file(root, &file.path, &file.contents, file.mode) {
            Ok(()) => applied.written.push(file.path.clone()),
            Err(error) => applied.refused.push(format!("write_files: {}: {error}", file.path)),
        }
    }
    if !os.ntp_servers.is_empty() {
        let text = format!("[Time]\nNTP={}\n", os.ntp_servers.join(" "));
        keep(&mut applied, root, TIME, &text, "systemd-timesyncd.service");
    }
    for network in &os.network {
        keep(&mut applied, root, &format!("{NETWORKS}/{}", network.name), &network.text, NETWORKD);
    }
    applied
}

fn keep(applied: &mut Applied, root: &Root, path: &str, text: &str, unit: &'static str) {
    let place = root.path(path);
    let written = folders(root, Path::new(path)).and_then(|()| {
        if std::fs::read(&place).is_ok_and(|found| found == text.as_bytes()) {
            return Ok(false);
        }
        files::write_volatile(&place, text.as_bytes(), 0o644).map(|()| true)
    });
    match written {
        Ok(false) => {}
        Ok(true) => {
            applied.written.push(path.to_owned());
            if !applied.restart.contains(&unit) {
                applied.restart.push(unit);
            }
        }
        Err(error) => applied.refused.push(format!("{path}: {error}")),
    }
}

/// Adds a file below /etc: never over one of the image or of kubeboot, and never through a link out of /etc.
fn write_file(root: &Root, path: &str, contents: &[u8], mode: u32) -> io::Result<()> {
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned()));
    let wanted = Path::new(path);
    let below = wanted.strip_prefix("/etc").is_ok_and(|rest| rest.components().count() > 0);
    if !below || !wanted.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_))) {
        return refuse("files may be written below /etc only");
    }
    if wanted.starts_with("/etc/kubernetes") {
        return refuse("/etc/kubernetes is kubeboot's");
    }
    let place = root.path(wanted);
    if std::fs::read(&place).is_ok_and(|found| found == contents) {
        return Ok(());
    }
    if files::exists(&place) {
        return refuse("the image has such a file; files are added, never replaced");
    }
    let existing = place.ancestors().skip(1).find(|above| files::exists(above)).unwrap_or(Path::new("/"));
    if !existing.canonicalize()?.starts_with(root.path("/etc").canonicalize()?) {
        return refuse("it leads out of /etc");
    }
    folders(root, wanted)?;
    files::write_volatile(&place, contents, mode & 0o777)
}

/// Makes the directories above `path`, readable by all whatever the umask: services read them as users of their own.
fn folders(root: &Root, path: &Path) -> io::Result<()> {
    let mut missing: Vec<&Path> = path.ancestors().skip(1).take_while(|folder| !root.path(folder).is_dir()).collect();
    missing.reverse();
    missing.into_iter().try_for_each(|folder| files::make_folder(&root.path(folder), 0o755))
}

/// Gives the kernel its host name.
///
/// # Errors
/// Those of sethostname(2).
pub fn set_host_name(name: &str) -> io::Result<()> {
    Ok(nix::unistd::sethostname(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::OsFile;

    fn file(path: &str, text: &str) -> OsFile {
        OsFile { path: path.into(), mode: 0o4755, contents: text.into() }
    }

    #[test]
    fn files_are_added_below_etc_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        std::fs::create_dir_all(root.path("/etc")).unwrap();
        std::fs::write(root.path("/etc/passwd"), "root").unwrap();
        std::os::unix::fs::symlink("/", root.path("/etc/out")).unwrap();
        let write_files = [
            file("/etc/app/config", "yes"),
            file("/etc/passwd", "mallory"),
            file("/etc/../usr/x", "no"),
            file("/usr/x", "no"),
            file("/etc/out/new/x", "no"),
            file("/etc/kubernetes/manifests/pod.yaml", "no"),
        ];
        let os = Os { write_files: write_files.into(), ..Os::default() };
        let applied = apply(&root, &os);
        assert_eq!(applied.written, ["/etc/app/config"]);
        assert_eq!(applied.refused.len(), 5, "{:?}", applied.refused);
        assert_eq!(std::fs::read_to_string(root.path("/etc/passwd")).unwrap(), "root");
        assert_eq!(apply(&root, &os).refused.len(), 5, "the same again is no error");
    }

    #[test]
    fn time_servers_and_networks_are_for_their_daemons() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let os = Os { ntp_servers: vec!["192.0.2.1".into(), "ntp.example.org".into()], ..Os::default() };
        assert_eq!(apply(&root, &os).restart, ["systemd-timesyncd.service"]);
        assert_eq!(std::fs::read_to_string(root.path(TIME)).unwrap(), "[Time]\nNTP=192.0.2.1 ntp.example.org\n");
        assert_eq!(apply(&root, &os), Applied::default());
    }
}
