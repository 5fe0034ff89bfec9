//! Gathers [`Facts`]: reads the kernel's files, asks for addresses, and measures `/var` with a probe file.
//!
//! Nothing else is written, no process is started, no packet is sent.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::clock;
use super::root::Root;
use super::wait::{self, TimedOut};
use crate::facts::{Clock, Dmi, Fact, Facts, MachineId, Network, NodeAddress, procfs};
use crate::paths;
use crate::plan;
use crate::preflight;
use crate::settings::Settings;

mod kernel;
mod network;
mod seat;
mod sockets;
mod storage;
#[cfg(test)]
mod tests;

pub use network::Ipv4;

/// Whether the write latency of `/var` is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Only on a machine that is no node yet: a node that boots again has proven its disk.
    IfNew,
    /// Always, because somebody asked.
    Always,
}

/// Gathers the facts of this machine. Never fails: what can't be learnt says why.
pub fn gather() -> Facts {
    gather_with(&Root::system(), Probe::IfNew)
}

/// [`gather`] with a choice about the probe, below another root in tests.
pub fn gather_with(root: &Root, probe: Probe) -> Facts {
    gather_from(root, probe, network::ipv4_addresses())
}

fn gather_from(root: &Root, probe: Probe, ipv4: Result<Ipv4, String>) -> Facts {
    let established = plan::founder::FOUNDED.iter().any(|path| root.path(path).exists());
    let mounts = text(root, "/proc/self/mountinfo");
    Facts {
        established,
        // A damaged record is the plan's to name: it owns the file. Before the founding was complete nothing depends on
        // it, and an address that moved meanwhile is pinned anew.
        pinned: established.then(|| serde_json::from_str(&text_or_empty(root, paths::NODE)).ok()).flatten(),
        kernel: kernel::gather(root),
        cgroup_controllers: cgroup_controllers(root),
        memory: value(root, "/proc/meminfo", procfs::memory_total),
        cpus: cpus(root),
        swap: swap(root),
        var: storage::var(root, &mounts),
        write_latency: (probe == Probe::Always || !established).then(|| storage::write_latency(root).into()),
        clock: time(root),
        host_name: text(root, "/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).into(),
        machine_id: text(root, "/etc/machine-id").map(|id| MachineId::new(&id)).into(),
        dmi: dmi(root),
        container: container(root),
        network: network::gather(root, ipv4).into(),
        name_servers: name_servers(root),
        listening: sockets::gather(root).into(),
        seat: seat::gather(root, &mounts),
    }
}

/// Waits, at most for `limit`, looking every `pause`, until this machine has the address that its node is to have and
/// nothing speaks against taking it, and puts what was learnt of the network into `facts`: at boot the other facts are
/// there long before DHCP has answered.
///
/// # Errors
/// The deadline, with the reason why there is no address; preflight then says the same with its fix.
pub fn await_address(
    root: &Root,
    facts: &mut Facts,
    settings: &Settings,
    limit: Duration,
    pause: Duration,
) -> Result<NodeAddress, TimedOut> {
    let look = || network::gather(root, network::ipv4_addresses()).into();
    let found = await_network(facts, settings, limit, pause, look);
    // The answer that brought the address brought these too.
    facts.name_servers = name_servers(root);
    found
}

fn await_network(
    facts: &mut Facts,
    settings: &Settings,
    limit: Duration,
    pause: Duration,
    mut look: impl FnMut() -> Fact<Network>,
) -> Result<NodeAddress, TimedOut> {
    let mut there = None;
    let mut judge = |facts: &Facts| {
        let address = facts.node_address(settings).map_err(|problem| problem.to_string())?;
        let since = *there.get_or_insert_with(clock::monotonic);
        match facts.unrest(settings, &address) {
            Some(unrest) if !unrest.is_over(clock::monotonic().saturating_sub(since)) => Err(unrest.to_string()),
            _ => Ok(address),
        }
    };
    wait::until("the node's address", limit, pause, || {
        judge(facts).or_else(|_| {
            facts.network = look();
            judge(facts)
        })
    })
}

/// Looks at the clock again, and where it is doubtful waits for a time server, at most for `limit`: what is found stands
/// in `facts` then. A machine that has just got its address hears one within seconds.
///
/// # Errors
/// The deadline: no time server was heard.
pub fn await_time(root: &Root, facts: &mut Facts, limit: Duration) -> Result<(), TimedOut> {
    wait::until("a time server", limit, Duration::from_millis(100), || {
        facts.clock = time(root);
        match preflight::is_doubtful(&facts.clock, clock::monotonic().as_secs()) {
            true => Err(format!("the clock is at {} seconds since 1970, and nobody confirmed it", facts.clock.now)),
            false => Ok(()),
        }
    })
}

/// A file's text, or why there is none.
fn text(root: &Root, path: &str) -> Result<String, String> {
    fs::read_to_string(root.path(path)).map_err(|error| format!("can't read {path}: {error}"))
}

/// A file's text; empty where there is none, as where the kernel or the hardware has no such thing.
fn text_or_empty(root: &Root, path: &str) -> String {
    fs::read_to_string(root.path(path)).unwrap_or_default()
}

/// One value out of a file's text.
fn value<T>(root: &Root, path: &str, read: impl Fn(&str) -> Option<T>) -> Fact<T> {
    text(root, path).and_then(|text| read(&text).ok_or_else(|| format!("found no value in {path}"))).into()
}

/// Like [`text`], but a missing file is an empty one.
fn text_if_there(root: &Root, path: &str) -> Result<String, String> {
    match fs::read_to_string(root.path(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(|error| format!("can't read {path}: {error}")),
    }
}

fn cgroup_controllers(root: &Root) -> Fact<std::collections::BTreeSet<String>> {
    text_if_there(root, "/sys/fs/cgroup/cgroup.controllers")
        .map(|controllers| controllers.split_whitespace().map(str::to_owned).collect())
        .into()
}

fn cpus(root: &Root) -> Fact<u32> {
    // A kernel without SMP has no list of CPUs.
    match value(root, "/sys/devices/system/cpu/online", procfs::cpu_list) {
        Fact::Unknown(_) => value(root, "/proc/cpuinfo", procfs::cpuinfo_processors),
        known => known,
    }
}

fn swap(root: &Root) -> Fact<Vec<crate::facts::Swap>> {
    // A kernel without swap has no such file.
    text_if_there(root, "/proc/swaps").map(|swaps| procfs::swaps(&swaps)).into()
}

fn time(root: &Root) -> Clock {
    Clock {
        now: clock::unix(),
        image: clock::image(root),
        hardware: text_or_empty(root, "/sys/class/rtc/rtc0/since_epoch").trim().parse().ok(),
        // systemd-timesyncd makes it, and so do other time services that systemd knows (systemd-timesyncd(8)).
        synchronized: root.path("/run/systemd/timesync/synchronized").exists(),
    }
}

fn dmi(root: &Root) -> Dmi {
    let field = |name: &str| text_or_empty(root, &format!("/sys/class/dmi/id/{name}")).trim().to_owned();
    Dmi { vendor: field("sys_vendor"), product: field("product_name"), uuid: field("product_uuid").to_lowercase() }
}

/// Signs of a container, most telling first: systemd's own record, then what the managers leave behind.
fn container(root: &Root) -> Option<String> {
    let here = |path: &str| root.path(path).exists();
    let recorded = text_or_empty(root, "/run/systemd/container").trim().to_owned();
    let release = text_or_empty(root, "/proc/sys/kernel/osrelease").to_lowercase();
    match () {
        () if !recorded.is_empty() => Some(recorded),
        () if release.contains("microsoft") => Some("wsl".into()),
        () if here("/proc/vz") && !here("/proc/bc") => Some("openvz".into()),
        () if here("/.dockerenv") => Some("docker".into()),
        () if here("/run/.containerenv") => Some("podman".into()),
        () => None,
    }
}

fn name_servers(root: &Root) -> Fact<Vec<std::net::IpAddr>> {
    const BEHIND_THE_STUB: &str = "/run/systemd/resolve/resolv.conf";
    let servers = text_if_there(root, "/etc/resolv.conf").map(|text| procfs::name_servers(&text));
    match servers {
        // The stub answers this machine only; the kubelet hands pods the list behind it.
        Ok(servers) if servers.iter().all(std::net::IpAddr::is_loopback) && root.path(BEHIND_THE_STUB).exists() => {
            text(root, BEHIND_THE_STUB).map(|text| procfs::name_servers(&text)).into()
        }
        servers => servers.into(),
    }
}

/// File names in a directory; none where it does not exist.
fn names(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}
