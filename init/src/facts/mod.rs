//! What the machine is and has: one [`Facts`] value, gathered by `host::facts`, judged by `preflight`.
//!
//! A fact that could not be learnt says why ([`Fact::Unknown`]) instead of posing as a good or a bad one.

use std::collections::{BTreeMap, BTreeSet};

mod identity;
pub mod kernel;
mod name;
mod network;
pub mod ports;
pub mod procfs;
#[cfg(test)]
pub(crate) mod sample;
mod settling;

pub use identity::{Dmi, MachineId};
pub use kernel::{Kernel, Presence, Version};
pub use name::{NAME, NameProblem, node_name, rfc1123_problem};
pub use network::{Address, Interface, Link, Network, NoNodeAddress, NodeAddress, Route};
pub use ports::{Owner, Socket};
pub use settling::{OTHERS, Unrest};

use crate::slots::SeatFacts;

/// One thing about the machine, or why it isn't known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<T> {
    /// What was found.
    Known(T),
    /// Why nothing was found: operation, object and error in words.
    Unknown(String),
}

impl<T> Fact<T> {
    /// The value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Fact::Known(value) => Some(value),
            Fact::Unknown(_) => None,
        }
    }
}

impl<T> From<Result<T, String>> for Fact<T> {
    fn from(result: Result<T, String>) -> Self {
        match result {
            Ok(value) => Fact::Known(value),
            Err(why) => Fact::Unknown(why),
        }
    }
}

/// Everything that preflight and the plan want to know of a machine. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// True once this disk belongs to a cluster: its founding was complete. What would stop a new machine then only
    /// warns, where the node can still do its work.
    pub established: bool,
    /// What the node's record (`/var/lib/kubeboot/node.json`) holds fast; none on a new machine.
    pub pinned: Option<Pinned>,
    /// The running kernel.
    pub kernel: Kernel,
    /// Controllers of the root cgroup (`cgroup.controllers`); empty where the hierarchy is not version 2.
    pub cgroup_controllers: Fact<BTreeSet<String>>,
    /// Memory that the kernel manages (`MemTotal`), in bytes.
    pub memory: Fact<u64>,
    /// CPUs that are online.
    pub cpus: Fact<u32>,
    /// Swap areas in use.
    pub swap: Fact<Vec<Swap>>,
    /// The file system that holds `/var`.
    pub var: Fact<FileSystem>,
    /// How long `/var` takes to make a small write last; none where it was not measured.
    pub write_latency: Option<Fact<WriteLatency>>,
    /// What time it is, and how far that can be believed.
    pub clock: Clock,
    /// The kernel's host name, as it is.
    pub host_name: Fact<String>,
    /// `/etc/machine-id`.
    pub machine_id: Fact<MachineId>,
    /// What the firmware says of the machine.
    pub dmi: Dmi,
    /// Container manager that this system runs under, such as `docker`; none on a machine of its own.
    pub container: Option<String>,
    /// Interfaces, addresses and routes.
    pub network: Fact<Network>,
    /// Name servers that pods get through CoreDNS: a local stub resolver is replaced by the servers behind it.
    pub name_servers: Fact<Vec<std::net::IpAddr>>,
    /// TCP sockets that listen on one of [`ports::WATCHED`].
    pub listening: Fact<Vec<Socket>>,
    /// The release that this node runs from.
    pub seat: Fact<Seat>,
}

/// Name and address of a node that has been set up: neither may move, or etcd and the certificates break.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Pinned {
    /// The node's name.
    pub name: String,
    /// The node's address.
    pub address: std::net::IpAddr,
}

/// One line of `/proc/swaps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swap {
    /// Device or file.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// A mounted file system, from statvfs(3) and mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Where it is mounted: `/var`, or the mount point above it.
    pub mount_point: String,
    /// Type, such as `ext4`.
    pub kind: String,
    /// What is mounted, such as `/dev/vda5`.
    pub source: String,
    /// True if nothing can be written.
    pub read_only: bool,
    /// Size in bytes.
    pub total: u64,
    /// Free for ordinary users, in bytes.
    pub available: u64,
    /// Inodes in all; 0 where the file system has no fixed number.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

/// What a run of small writes, each followed by fdatasync(2), took. etcd does the same for each commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteLatency {
    /// How many writes were made before their number or the time ran out.
    pub writes: u32,
    /// Median, in microseconds.
    pub p50: u64,
    /// 99th percentile by nearest rank, in microseconds: the slowest one of fewer than 100 writes.
    pub p99: u64,
}

impl WriteLatency {
    /// Sums up how long each write took, in microseconds; none for no write.
    pub fn of(mut micros: Vec<u64>) -> Option<Self> {
        micros.sort_unstable();
        let writes = u32::try_from(micros.len()).ok()?;
        let rank = |percent: usize| micros.get((micros.len() * percent).div_ceil(100).checked_sub(1)?).copied();
        Some(WriteLatency { writes, p50: rank(50)?, p99: rank(99)? })
    }
}

/// 2026-01-01, in seconds since 1970: no image of kubeboot is older, whatever the time stamps in it say.
pub const EARLIEST: u64 = 1_767_225_600;

/// The clock and what speaks for or against it. Times are seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The system clock.
    pub now: u64,
    /// When the image was made (time stamp of its os-release, or of systemd's clock-epoch); 0 if unknown.
    pub image: u64,
    /// The hardware clock; none if the machine has none.
    pub hardware: Option<u64>,
    /// True once a time server was heard.
    pub synchronized: bool,
}

/// What sits at `/run/kubeboot/slot`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seat {
    /// Type of the file system mounted there; none if nothing is.
    pub mounted: Option<String>,
    /// True if nothing can be written there.
    pub read_only: bool,
    /// What `kubeboot slot` recorded of it in `/run/kubeboot/seat.json`; none if it recorded nothing, an error in words if
    /// that can't be used.
    pub record: Option<Result<SeatFacts, String>>,
    /// Programs that a release must have and this one lacks.
    pub missing: Vec<String>,
}

/// Names and presence of kernel modules.
pub type Modules = BTreeMap<String, Presence>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let latency = WriteLatency::of((1..=200).rev().collect()).expect("there are writes");
        assert_eq!(latency, WriteLatency { writes: 200, p50: 100, p99: 198 });
        assert_eq!(WriteLatency::of(vec![7]), Some(WriteLatency { writes: 1, p50: 7, p99: 7 }));
        assert_eq!(WriteLatency::of(vec![9, 1]), Some(WriteLatency { writes: 2, p50: 1, p99: 9 }));
        assert_eq!(WriteLatency::of(vec![]), None);
    }
}
