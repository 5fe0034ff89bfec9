//! The TCP ports that a node's own services listen on, and who listens on them now.

use std::net::IpAddr;

use crate::paths;
use crate::settings::Role;

/// One port of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// TCP port.
    pub number: u16,
    /// Who listens there.
    pub service: &'static str,
    /// Only on control planes.
    pub control_plane: bool,
}

const fn port(number: u16, service: &'static str, control_plane: bool) -> Port {
    Port { number, service, control_plane }
}

/// Every TCP port that a node needs, as in `docs/operations.md`.
pub const WATCHED: &[Port] = &[
    port(2379, "etcd", true),
    port(2380, "etcd", true),
    port(2381, "etcd", true),
    port(6443, "kube-apiserver", true),
    port(7440, "kubeboot-agent", true),
    port(7441, "kubeboot-agent", false),
    port(10248, "kubelet", false),
    port(10249, "kube-proxy", false),
    port(10250, "kubelet", false),
    port(10256, "kube-proxy", false),
    port(10257, "kube-controller-manager", true),
    port(10259, "kube-scheduler", true),
];

impl Port {
    /// True if a node of this role needs the port.
    pub fn concerns(&self, role: Role) -> bool {
        !self.control_plane || role != Role::Worker
    }
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Local address; unspecified (`0.0.0.0`, `::`) means every one.
    pub address: IpAddr,
    /// Local port.
    pub port: u16,
    /// Which process holds it; none if no process does, or it can't be seen.
    pub owner: Option<Owner>,
}

/// The process that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Its name (`comm`).
    pub name: String,
    /// Its program (`/proc/PID/exe`); empty if that can't be read.
    pub program: String,
}

impl Owner {
    /// True if the program is one of the seat's, so that the port is in the right hands: it serves this very node,
    /// started earlier in the same boot. Static pods see the seat at the same path as the host does.
    pub fn is_of_the_seat(&self) -> bool {
        self.program.strip_prefix(paths::SEAT).is_some_and(|rest| rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_below_the_seat_are_ours() {
        let owner = |program: &str| Owner { pid: 7, name: "x".into(), program: program.into() };
        assert!(owner("/run/kubeboot/slot/bin/kube-apiserver").is_of_the_seat());
        assert!(!owner("/run/kubeboot/slot-old/bin/etcd").is_of_the_seat());
        assert!(!owner("/usr/sbin/nginx").is_of_the_seat());
        assert!(!owner("").is_of_the_seat());
    }

    #[test]
    fn workers_need_only_the_node_ports() {
        let of = |role| WATCHED.iter().filter(|port| port.concerns(role)).map(|port| port.number).collect::<Vec<_>>();
        assert_eq!(of(Role::Worker), [7441, 10248, 10249, 10250, 10256]);
        assert_eq!(of(Role::Init).len(), WATCHED.len());
        assert_eq!(of(Role::Init), of(Role::ControlPlane));
    }
}
