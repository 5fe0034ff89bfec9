//! Reads what the machine was told, bounded: kernel command line, credentials, volumes, baked file, by hand.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc;
use nix::sys::stat::{Mode, SFlag, fstatat};
use zeroize::Zeroizing;

use super::root::Root;
use super::{files, mounts, wait};
use crate::paths;
use crate::settings::{Origin, Problem, Source, Validated, report_device, validate};
use crate::sources::{Bytes, Gathered, LIMIT, Layout, Volume, parse, reset};

/// Where the devices with known labels are linked (systemd's udev rules).
const BY_LABEL: &str = "/dev/disk/by-label";
/// The labels that are looked for, in the order in which their volumes win.
const LABELS: [(&str, Layout); 4] = [
    ("cidata", Layout::NoCloud),
    ("CIDATA", Layout::NoCloud),
    ("config-2", Layout::ConfigDrive),
    ("CONFIG-2", Layout::ConfigDrive),
];
/// File systems of such volumes, with their options.
const FILE_SYSTEMS: [(&str, Option<&str>); 2] = [("iso9660", None), ("vfat", Some("utf8"))];
/// How long udev may take with the block devices that are there.
const PROBED: Duration = Duration::from_secs(15);
/// Block devices that carry no volume of a machine's maker, by the beginning of their names.
const VIRTUAL: [&str; 7] = ["loop", "ram", "zram", "dm-", "md", "nbd", "zd"];
/// Where systemd puts credentials that were passed to the whole system.
const SYSTEM_CREDENTIALS: &str = "/run/credentials/@system";

/// Reads every source, merges them and judges the result.
///
/// # Errors
/// Every problem at once; nothing was changed.
pub fn read(root: &Root) -> Result<Validated, Vec<Problem>> {
    validate(parse(&gather(root)))
}

/// The same without what may come on a volume: of the kernel command line, credentials and the image, or without the last where
/// that has the mistake.
///
/// # Errors
/// As [`read`].
pub fn without_volumes(root: &Root) -> Result<Validated, Vec<Problem>> {
    let mut gathered = of_the_boot(root);
    gathered.baked = optional(&mut gathered, Source::Baked, &root.path(paths::BAKED));
    validate(parse(&gathered)).or_else(|_| validate(parse(&of_the_boot(root))))
}

/// What `kubeboot.reset=` orders: from the kernel command line and credentials only.
pub fn reset(root: &Root) -> Option<String> {
    reset::ordered(&of_the_boot(root))
}

/// Who is to be told of this boot, when nothing else of the settings can be used: from the kernel command line and
/// credentials only.
pub fn report(root: &Root) -> Option<String> {
    report_device(parse(&of_the_boot(root)))
}

/// What only who controls the machine's boot can say.
fn of_the_boot(root: &Root) -> Gathered {
    let mut gathered = Gathered::default();
    credentials(&mut gathered, root);
    let line = optional(&mut gathered, Source::KernelCommandLine, &root.path("/proc/cmdline"));
    gathered.command_line = line.unwrap_or_default();
    gathered
}

/// Reads every source. A source that is missing is nothing; one that is there and can't be read is a problem.
pub fn gather(root: &Root) -> Gathered {
    let mut gathered = of_the_boot(root);
    let by_hand = optional(&mut gathered, Source::ByHand, &root.path(paths::BY_HAND));
    gathered.by_hand = by_hand;
    volumes(&mut gathered, root);
    let baked = optional(&mut gathered, Source::Baked, &root.path(paths::BAKED));
    gathered.baked = baked;
    gathered
}

/// What the sources would say with `document` as what was typed; when that is good, keeps the document for this boot, so
/// that the machine behaves as if it had been started with those parameters.
///
/// # Errors
/// [`Refused`]; nothing was changed.
pub fn take_by_hand(root: &Root, document: &str) -> Result<(), Refused> {
    if files::exists(&root.path(paths::FROZEN)) {
        return Err(Refused::SetUp);
    }
    let mut gathered = gather(root);
    gathered.by_hand = Some(Zeroizing::new(document.as_bytes().to_vec()));
    validate(parse(&gathered)).map_err(Refused::Problems)?;
    files::make_folder(&root.path(paths::RUN), 0o755).map_err(Refused::Write)?;
    files::write_volatile(&root.path(paths::BY_HAND), document.as_bytes(), 0o600).map_err(Refused::Write)
}

/// The token in a file, or on standard input for `-`.
///
/// # Errors
/// A file that can't be read, is no text, or is longer than any token.
pub fn token_file(path: &Path) -> io::Result<Zeroizing<String>> {
    const LONGEST: u64 = 1024;
    let mut text = Zeroizing::new(String::new());
    if path == Path::new("-") {
        io::stdin().lock().take(LONGEST).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    }
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Why what was typed was not taken.
#[derive(Debug)]
pub enum Refused {
    /// The machine is set up already: its settings are frozen.
    SetUp,
    /// What is wrong with the sources, what was typed among them.
    Problems(Vec<Problem>),
    /// `paths::BY_HAND` can't be written.
    Write(io::Error),
}

fn unreadable(source: Source, path: &Path, error: &io::Error) -> Problem {
    let found = format!("{}, which can't be read: {error}", path.display());
    Problem::source(Origin::whole(source), found, format!("a file of at most {LIMIT} bytes"))
}

fn optional(gathered: &mut Gathered, source: Source, path: &Path) -> Option<Bytes> {
    // Symbolic links are not followed in the last component, and a pipe or a device is not waited for.
    let mut options = std::fs::OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC);
    kept(gathered, source, path, read_bounded(options.open(path)))
}

fn kept(gathered: &mut Gathered, source: Source, path: &Path, read: io::Result<Option<Bytes>>) -> Option<Bytes> {
    read.unwrap_or_else(|error| {
        gathered.problems.push(unreadable(source, path, &error));
        None
    })
}

/// A regular file of at most [`LIMIT`] bytes; none when it is not there.
fn read_bounded(opened: io::Result<File>) -> io::Result<Option<Bytes>> {
    let file = match opened {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let bound = u64::try_from(LIMIT).unwrap_or(u64::MAX) + 1;
    file.take(bound).read_to_end(&mut bytes)?;
    if bytes.len() > LIMIT {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is longer than {LIMIT} bytes")));
    }
    Ok(Some(bytes))
}

/// Opens a file of a volume, which anybody may have made: no component of its path may be a symbolic link. The mount
/// holds the same ([`mounts::foreign`]); this holds it where the kernel ignored that flag. Not by openat2(2), which does
/// it in one call: `RestrictSUIDSGID=` in the unit takes that away.
fn open_on_volume(volume: &File, file: &str) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let (folders, name) = file.rsplit_once('/').map_or((None, file), |(folders, name)| (Some(folders), name));
    let mut folder: OwnedFd = volume.try_clone()?.into();
    for component in folders.into_iter().flat_map(|folders| folders.split('/')) {
        folder = openat(&folder, component, flags | OFlag::O_DIRECTORY, Mode::empty())
            .map_err(|error| said_of_link(&folder, component, error))?;
    }
    openat(&folder, name, flags, Mode::empty()).map(File::from).map_err(|error| said_of_link(&folder, name, error))
}

/// openat(2) says ELOOP of a symbolic link that is not to be followed, and ENOTDIR where a folder was wanted.
fn said_of_link(folder: &OwnedFd, name: &str, error: Errno) -> io::Error {
    let is_link = || {
        fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK)
    };
    if error == Errno::ELOOP || error == Errno::ENOTDIR && is_link() {
        return io::Error::new(
            ErrorKind::InvalidInput,
            "it is behind a symbolic link, and none is followed on a volume",
        );
    }
    error.into()
}

/// Credentials named `kubeboot.…`: the service's own directory first, then the system's.
fn credentials(gathered: &mut Gathered, root: &Root) {
    let own = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    for directory in own.into_iter().chain([root.path(SYSTEM_CREDENTIALS)]) {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("kubeboot."))
            .take(64)
            .collect();
        names.sort();
        for name in names {
            if gathered.credentials.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let source = Source::Credential { name: name.clone() };
            if let Some(bytes) = optional(gathered, source, &directory.join(&name)) {
                gathered.credentials.push((name, bytes));
            }
        }
    }
}

fn volumes(gathered: &mut Gathered, root: &Root) {
    // On a machine that is set up a volume changes nothing: what is there by now is good enough for a note.
    if !files::exists(&root.path(paths::FROZEN)) {
        let probed = || unprobed(root).map_or(Ok(()), Err);
        // A device that udev does not finish with is passed over, as one without a label is.
        let _ = wait::until("udev to know every block device", PROBED, Duration::from_millis(5), probed);
    }
    let mut seen = Vec::new();
    for (label, layout) in LABELS {
        let Ok(device) = std::fs::canonicalize(root.path(BY_LABEL).join(label)) else { continue };
        if seen.contains(&device) {
            continue;
        }
        seen.push(device.clone());
        let name = format!("{label} volume {}", device.display());
        match mounted(root, &device) {
            Ok(mounted) => {
                let volume = read_volume(gathered, &mounted.0, layout, &name);
                gathered.volumes.push(volume);
            }
            Err(error) => {
                let origin = Origin::whole(Source::UserData { file: name });
                let found = format!("a volume that can't be mounted: {error}");
                gathered.problems.push(Problem::source(origin, found, "an ISO 9660 or vfat file system"));
            }
        }
    }
}

/// A block device that udev has not finished with, so that its link below [`BY_LABEL`] may yet appear; none where there
/// is no udev. Its database has a file for each device that it is done with.
fn unprobed(root: &Root) -> Option<String> {
    if !files::exists(&root.path("/run/udev/control")) {
        return None;
    }
    let entries = std::fs::read_dir(root.path("/sys/class/block")).ok()?;
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).find(|name| {
        let number = std::fs::read_to_string(root.path("/sys/class/block").join(name).join("dev")).unwrap_or_default();
        let known = root.path("/run/udev/data").join(format!("b{}", number.trim()));
        !VIRTUAL.iter().any(|start| name.starts_with(start)) && !number.is_empty() && !files::exists(&known)
    })
}

/// A volume that is unmounted when this is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = mounts::unmount(&self.0, true);
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn mounted(root: &Root, device: &Path) -> io::Result<Mounted> {
    let target = root.path(paths::RUN).join("volume");
    std::fs::create_dir_all(&target)?;
    match mounts::foreign(device, &target, &FILE_SYSTEMS) {
        Ok(()) => Ok(Mounted(target)),
        Err(error) => {
            let _ = std::fs::remove_dir(&target);
            Err(error)
        }
    }
}

fn read_volume(gathered: &mut Gathered, at: &Path, layout: Layout, name: &str) -> Volume {
    let files = match layout {
        Layout::NoCloud => ["user-data", "meta-data", "network-config"],
        Layout::ConfigDrive => {
            ["openstack/latest/user_data", "openstack/latest/meta_data.json", "openstack/latest/network_data.json"]
        }
    };
    let [user_data, meta_data, network] = files.map(|file| {
        let source = Source::UserData { file: format!("{name}, {file}") };
        let opened = File::open(at).and_then(|volume| open_on_volume(&volume, file));
        kept(gathered, source, &at.join(file), read_bounded(opened))
    });
    Volume { layout, name: name.to_owned(), user_data, meta_data, network }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Root, path: &str, contents: &str) {
        let path = root.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }

    #[test]
    fn sources_win_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        write(&root, "/proc/cmdline", "root=x kubeboot.role=init kubeboot.name=line\n");
        write(&root, paths::BAKED, "name = 'baked'\nnetwork.mtu = 1400\n");
        write(&root, "/run/credentials/@system/kubeboot.config", "name: credential\n");
        let read = read(&root).ok().unwrap();
        assert_eq!(read.settings.name.as_deref(), Some("credential"));
        assert_eq!(read.settings.network.mtu, Some(1400));
        assert_eq!(read.origins["network.mtu"], Origin { source: Source::Baked, line: Some(2) });
        assert_eq!(read.origins["role"], Origin::whole(Source::KernelCommandLine));
        let refused = take_by_hand(&root, "name = 'HAND'\n");
        assert!(matches!(refused, Err(Refused::Problems(problems)) if problems.len() == 1));
        assert!(!files::exists(&root.path(paths::BY_HAND)));
        take_by_hand(&root, "name = 'hand'\n").unwrap();
        assert_eq!(super::read(&root).ok().unwrap().settings.name.as_deref(), Some("hand"));
    }

    #[test]
    fn who_is_told_of_a_boot_is_found_whatever_is_wrong_beside() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let told = |line: &str| {
            write(&root, "/proc/cmdline", line);
            report(&root)
        };
        assert_eq!(told("kubeboot.rolle=init kubeboot.report=ttyS1 kubeboot.mtu=x"), Some("ttyS1".to_owned()));
        assert_eq!(told("kubeboot.rolle=init kubeboot.report=../mem"), None);
        assert_eq!(told("kubeboot.rolle=init"), None);
    }

    #[test]
    fn a_device_is_waited_for_until_udev_knows_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for (name, number) in [("vda", "254:0\n"), ("loop0", "7:0\n"), ("sr0", "11:0\n")] {
            write(&root, &format!("/sys/class/block/{name}/dev"), number);
        }
        assert_eq!(unprobed(&root), None, "there is no udev");
        write(&root, "/run/udev/control", "");
        write(&root, "/run/udev/data/b254:0", "");
        assert_eq!(unprobed(&root).as_deref(), Some("sr0"));
        write(&root, "/run/udev/data/b11:0", "");
        assert_eq!(unprobed(&root), None);
    }

    #[test]
    fn a_machine_that_is_set_up_takes_nothing_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        write(&root, paths::FROZEN, "{}");
        assert!(matches!(take_by_hand(&root, "role = 'init'\n"), Err(Refused::SetUp)));
    }

    #[test]
    fn what_is_no_regular_file_or_too_long_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        write(&root, "/elsewhere", "role = 'init'");
        std::fs::create_dir_all(root.path(paths::BAKED).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(root.path("/elsewhere"), root.path(paths::BAKED)).unwrap();
        write(&root, "/proc/cmdline", &"x".repeat(LIMIT + 1));
        let problems = gather(&root).problems;
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].found.contains("longer than"), "{}", problems[0]);
    }

    /// Each of these would have a machine's own file read as user-data, and shown in an error or kept.
    #[test]
    fn no_link_on_a_volume_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        write(&root, "/secret", "kubeboot.role = 'init'");
        write(&root, "/outside/latest/user_data", "role = 'init'");
        let link = |to: &str, at: &str| {
            let at = root.path(at);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(to, at).unwrap();
        };
        link("../secret", "/cidata/user-data");
        link(root.path("/secret").to_str().unwrap(), "/cidata/meta-data");
        write(&root, "/cidata/real", "role: worker");
        link("real", "/cidata/network-config");
        link("../outside", "/config-2/openstack");
        link("../../outside/latest", "/config-3/openstack/latest");
        for (volume, layout) in
            [("/cidata", Layout::NoCloud), ("/config-2", Layout::ConfigDrive), ("/config-3", Layout::ConfigDrive)]
        {
            let mut gathered = Gathered::default();
            let read = read_volume(&mut gathered, &root.path(volume), layout, volume);
            assert!(read.user_data.is_none() && read.meta_data.is_none() && read.network.is_none(), "{volume}");
            let said: Vec<String> = gathered.problems.iter().map(ToString::to_string).collect();
            assert!(said.len() == 3 && said.iter().all(|one| one.contains("symbolic link")), "{said:?}");
        }
    }

    #[test]
    fn files_of_a_volume_are_read_and_missing_ones_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        write(&root, "/volume/openstack/latest/user_data", "#cloud-config");
        let mut gathered = Gathered::default();
        let volume = read_volume(&mut gathered, &root.path("/volume"), Layout::ConfigDrive, "config-2");
        assert_eq!(volume.user_data.as_deref().map(Vec::as_slice), Some(&b"#cloud-config"[..]));
        assert!(volume.meta_data.is_none() && volume.network.is_none() && gathered.problems.is_empty());
    }
}
