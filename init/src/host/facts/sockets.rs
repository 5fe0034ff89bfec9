//! Who listens on the ports of [`WATCHED`].

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;

use super::{Root, names, text_or_empty};
use crate::facts::{Owner, Socket, ports::WATCHED, procfs};

/// Lists the listening sockets and, only if there are any, looks for their processes: that reads every process's
/// descriptors.
pub(super) fn gather(root: &Root) -> Result<Vec<Socket>, String> {
    let table = |path| whole(root, path).map_err(|error| format!("can't read {path}: {error}"));
    let mut listeners = procfs::listeners(&table("/proc/net/tcp")?);
    // A kernel without IPv6 lacks this one.
    listeners.extend(procfs::listeners(&whole(root, "/proc/net/tcp6").unwrap_or_default()));
    listeners.retain(|listener| WATCHED.iter().any(|port| port.number == listener.port));
    let owners = owners(root, listeners.iter().map(|listener| listener.inode).filter(|inode| *inode != 0).collect());
    Ok(listeners
        .into_iter()
        .map(|listener| Socket {
            address: listener.address,
            port: listener.port,
            owner: owners.get(&listener.inode).cloned(),
        })
        .collect())
}

/// A socket table in few reads: the kernel walks all of its hash table for each one, 2 ms on a large machine, and the
/// standard library starts with small ones where a file has no size.
fn whole(root: &Root, path: &str) -> std::io::Result<String> {
    const SEVERAL_PAGES: usize = 1 << 16;
    let mut file = fs::File::open(root.path(path))?;
    let mut bytes = Vec::with_capacity(SEVERAL_PAGES);
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Finds a process for each socket inode, and stops when it has them all.
fn owners(root: &Root, mut wanted: Vec<u64>) -> BTreeMap<u64, Owner> {
    let mut found = BTreeMap::new();
    if wanted.is_empty() {
        return found;
    }
    for pid in names(&root.path("/proc")).iter().filter_map(|name| name.parse::<u32>().ok()) {
        let folder = format!("/proc/{pid}");
        for descriptor in names(&root.path(format!("{folder}/fd"))) {
            let link = fs::read_link(root.path(format!("{folder}/fd/{descriptor}"))).unwrap_or_default();
            let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let Some(inode) = inode.filter(|inode| wanted.contains(inode)) else { continue };
            wanted.retain(|other| *other != inode);
            found.insert(inode, owner(root, pid));
        }
        if wanted.is_empty() {
            break;
        }
    }
    found
}

fn owner(root: &Root, pid: u32) -> Owner {
    let program = fs::read_link(root.path(format!("/proc/{pid}/exe"))).unwrap_or_default();
    Owner {
        pid,
        name: text_or_empty(root, &format!("/proc/{pid}/comm")).trim().to_owned(),
        program: program.to_string_lossy().into_owned(),
    }
}
