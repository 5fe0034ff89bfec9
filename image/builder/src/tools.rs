//! The tools tree: a small Debian sid folder with what the build machine's own release lacks or has too old (mkosi,
//! QEMU, OVMF, systemd-repart, ukify, erofs-utils), and the way to run programs in it.
//!
//! A program is started through this very executable (see [`enter_if_asked`]), which makes a private mount namespace,
//! lays a forgotten-afterwards layer over the tree, binds the machine's own folders into it at their own paths, and
//! moves in with pivot_root: chroot would not do, because mkosi's sandbox needs `/` to be a mount point.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::cache::{Cache, Check, Key};
use crate::mirror::{self, Mirrors};
use crate::{command, host};

/// What the tree holds beside debootstrap's minimum.
const PACKAGES: &[&str] = &[
    "apt",
    "ca-certificates",
    "cpio",
    "cryptsetup-bin",
    "debian-archive-keyring",
    "dosfstools",
    "e2fsprogs",
    "erofs-utils",
    "kmod",
    "mkosi",
    "mtools",
    "openssl",
    "ovmf",
    "python3-pefile",
    "qemu-system-x86",
    "qemu-utils",
    "systemd-boot-efi",
    "systemd-boot-tools",
    "systemd-container",
    "systemd-repart",
    "systemd-ukify",
    "udev",
    "util-linux",
    "xorriso",
    "xz-utils",
    "zstd",
];

/// Folders of the tree's own system; every other top-level folder of the machine is seen inside at its own path.
const OWN: &[&str] = &["bin", "boot", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr", "var", "run"];

/// The first argument that makes this executable move into the tree: `<this> ENTER <tree> <mode> <program> …`.
const ENTER: &str = "--enter-tools-tree";

/// How the tree is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Changes go to a layer in memory.
    Layer,
    /// Changes stay: only while the tree is made.
    Write,
}

/// A finished tools tree.
#[derive(Debug, Clone)]
pub struct Tools {
    root: PathBuf,
    key: Key,
}

impl Tools {
    /// The tree, made when the cache has none (about a minute).
    ///
    /// # Errors
    /// Not root, or debootstrap or apt failed.
    pub fn ensure(cache: &Cache) -> Result<Self> {
        host::require_root("make and enter the tools tree")?;
        let key = PACKAGES.iter().fold(Key::of("tools tree 1"), |key, name| key.input("package", name)).finish();
        let root = cache.entry("tools", &key, Check::Listing, make)?;
        Ok(Self { root, key })
    }

    /// What the tree is made of.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The tree's folder, to read from. Not to change.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A program of the tree. Its process is the started child itself. Paths mean the same inside as outside, except
    /// below `/etc`, `/usr`, `/var` and `/run`.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        inside(&self.root, Mode::Layer, program)
    }
}

fn inside(root: &Path, mode: Mode, program: &str) -> Command {
    // Not by its path: a build that ends meanwhile puts another file there.
    let mut command = Command::new("/proc/self/exe");
    command.arg(ENTER).arg(root).arg(if mode == Mode::Write { "write" } else { "layer" }).arg(program);
    command
}

fn make(root: &Path) -> Result<()> {
    host::host_packages(&["debootstrap", "debian-archive-keyring"])?;
    let mirrors = mirror::of_this_machine()?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg", "sid"]);
    debootstrap.arg(root).args(mirrors.as_ref().map(|mirrors| &mirrors.debian));
    command::run(&mut debootstrap, "make the tools tree with debootstrap")?;
    fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf")).context("Cannot copy /etc/resolv.conf")?;
    if let Some(Mirrors { debian, .. }) = &mirrors {
        let list = format!("deb {debian} sid main\n");
        fs::write(root.join("etc/apt/sources.list"), list).context("Cannot write the tools tree's sources.list")?;
    }
    // A mirror may be a snapshot, older than its lists are valid.
    let options = ["-q", "-o", "Acquire::Check-Valid-Until=false", "-o", "APT::Install-Recommends=false"];
    let mut update = inside(root, Mode::Write, "apt-get");
    command::run(update.args(options).arg("update"), "read the package lists in the tools tree")?;
    let mut install = inside(root, Mode::Write, "apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args(options).args(["install", "--yes"]).args(PACKAGES);
    command::run(&mut install, "install the packages of the tools tree")?;
    let mut clean = inside(root, Mode::Write, "apt-get");
    command::run(clean.arg("clean"), "clean the tools tree")
}

/// Moves into a tools tree and becomes the program that the arguments name, when they ask for that. Every program
/// that uses [`Tools`] calls this first in its `main`, before it has threads, and ends when it gets a status.
#[must_use]
pub fn enter_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ENTER {
        return None;
    }
    let arguments: Vec<OsString> = arguments.collect();
    let error = match arguments.as_slice() {
        [root, mode, program, rest @ ..] => {
            let mode = if mode == "write" { Mode::Write } else { Mode::Layer };
            match enter(Path::new(root), mode) {
                Ok(()) => {
                    let error = Command::new(program).args(rest).exec();
                    anyhow::Error::new(error).context(format!("Cannot start {}", program.to_string_lossy()))
                }
                Err(error) => error,
            }
        }
        _ => anyhow::anyhow!("{ENTER} needs a tree, a mode and a program"),
    };
    eprintln!("{error:#}");
    Some(ExitCode::FAILURE)
}

/// Makes the tree this process's root.
fn enter(tree: &Path, mode: Mode) -> Result<()> {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    // A signal that the parent handles through a descriptor is blocked here too; the program shall not inherit that.
    nix::sys::signal::SigSet::empty().thread_set_mask().context("Cannot unblock signals")?;
    unshare(CloneFlags::CLONE_NEWNS).context("Cannot make a mount namespace")?;
    bind_flags(None, Path::new("/"), MsFlags::MS_PRIVATE | MsFlags::MS_REC)?;
    let root = match mode {
        Mode::Write => {
            bind(tree, tree)?;
            tree.to_path_buf()
        }
        Mode::Layer => layer(tree)?,
    };
    for folder in fs::read_dir("/").context("Cannot list /")? {
        let folder = folder.context("Cannot list /")?;
        let name = folder.file_name();
        let own = name.to_str().is_some_and(|name| OWN.contains(&name));
        if own || !folder.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let target = root.join(&name);
        // The tree itself is being written: only what its programs need is bound, and nothing is left behind.
        if mode == Mode::Write && !target.is_dir() {
            continue;
        }
        fs::create_dir_all(&target).with_context(|| format!("Cannot make {}", target.display()))?;
        bind(&folder.path(), &target)?;
    }
    // Large temporary files do not belong in memory.
    bind(Path::new("/var/tmp"), &root.join("var/tmp"))?;
    let run = root.join("run");
    mount(Some("tmpfs"), &run, Some("tmpfs"), MsFlags::empty(), None::<&str>).context("Cannot mount /run")?;
    nix::unistd::chdir(&root).with_context(|| format!("Cannot change to {}", root.display()))?;
    nix::unistd::pivot_root(".", ".").context("Cannot move into the tools tree (pivot_root)")?;
    umount2(".", MntFlags::MNT_DETACH).context("Cannot detach the old root")?;
    nix::unistd::chdir(&here).or_else(|_| nix::unistd::chdir("/")).context("Cannot change to a folder inside")
}

/// An overlay over `tree` whose changes live in memory, and the machine's cache folder where the tree has none.
fn layer(tree: &Path) -> Result<PathBuf> {
    let parent = tree.parent().context("the tools tree has no parent folder")?;
    let base = parent.join("enter");
    fs::create_dir_all(&base).with_context(|| format!("Cannot make {}", base.display()))?;
    mount(Some("tmpfs"), &base, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .context("Cannot mount a layer in memory")?;
    let [upper, work, root] = ["upper", "work", "root"].map(|name| base.join(name));
    for folder in [&upper, &work, &root] {
        fs::create_dir(folder).with_context(|| format!("Cannot make {}", folder.display()))?;
    }
    let options = format!("lowerdir={},upperdir={},workdir={}", tree.display(), upper.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("Cannot mount an overlay over {}", tree.display()))?;
    Ok(root)
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    bind_flags(Some(from), to, MsFlags::MS_BIND | MsFlags::MS_REC)
}

fn bind_flags(from: Option<&Path>, to: &Path, flags: MsFlags) -> Result<()> {
    mount(from, to, None::<&str>, flags, None::<&str>).with_context(|| format!("Cannot mount {}", to.display()))
}
