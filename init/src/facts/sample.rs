//! A healthy machine and default settings, for tests to change one thing at a time.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    Address, Clock, Dmi, Fact, Facts, FileSystem, Interface, Kernel, MachineId, Network, Presence, Route, WriteLatency,
    kernel,
};
use crate::settings::{Cidr, Inputs, Role, Settings, validate};
use crate::slots::{CheckedBy, Seat, SeatFacts};

const GIB: u64 = 1 << 30;

/// A block of addresses.
pub(crate) fn cidr(text: &str) -> Cidr {
    text.parse().expect("a block")
}

/// Facts that every check passes.
pub(crate) fn facts() -> Facts {
    Facts {
        established: false,
        pinned: None,
        kernel: Kernel {
            release: "6.12.57+deb13-amd64".into(),
            filesystems: ["erofs", "ext4", "overlay", "tmpfs"].map(str::to_owned).into(),
            modules: kernel::WATCHED.iter().map(|name| ((*name).to_owned(), Presence::Loadable)).collect(),
        },
        cgroup_controllers: Fact::Known(["cpu", "cpuset", "io", "memory", "pids"].map(str::to_owned).into()),
        memory: Fact::Known(4 * GIB),
        cpus: Fact::Known(2),
        swap: Fact::Known(vec![]),
        var: Fact::Known(FileSystem {
            mount_point: "/var".into(),
            kind: "ext4".into(),
            source: "/dev/vda5".into(),
            read_only: false,
            total: 20 * GIB,
            available: 18 * GIB,
            inodes: 1_300_000,
            inodes_free: 1_299_000,
        }),
        write_latency: Some(Fact::Known(WriteLatency { writes: 64, p50: 900, p99: 2_400 })),
        clock: Clock { now: 1_796_000_000, image: 1_795_000_000, hardware: Some(1_796_000_001), synchronized: true },
        host_name: Fact::Known("node-a".into()),
        machine_id: Fact::Known(MachineId::new("4c4c45440051331080344b4c04563332\n")),
        dmi: Dmi {
            vendor: "QEMU".into(),
            product: "Standard PC (Q35 + ICH9, 2009)".into(),
            uuid: "7d1c1e7e-7f3c-4a9e-9a53-0a51d8f1c001".into(),
        },
        container: None,
        network: Fact::Known(network()),
        name_servers: Fact::Known(vec![Ipv4Addr::new(10, 0, 2, 3).into()]),
        listening: Fact::Known(vec![]),
        seat: Fact::Known(super::Seat {
            mounted: Some("erofs".into()),
            read_only: true,
            record: Some(Ok(seat_record())),
            missing: vec![],
        }),
    }
}

/// What `kubeboot slot` records of a factory release.
pub(crate) fn seat_record() -> SeatFacts {
    SeatFacts {
        seat: Seat::Factory,
        why: "no slot holds a release".into(),
        version: "1.37.2-1".into(),
        kubernetes: "1.37.2".into(),
        erofs_sha256: "00".repeat(32),
        root_hash: "11".repeat(32),
        signed_by: "dev".into(),
        checked_by: CheckedBy::Image,
        boot: 1,
        passed_over: vec![],
    }
}

/// One uplink with a default route.
pub(crate) fn network() -> Network {
    let address = |ip: [u8; 4], prefix| Address { ip: IpAddr::V4(ip.into()), prefix };
    let interface = |name: &str, mtu, mac: &str, address| Interface {
        name: name.into(),
        mtu,
        mac: mac.into(),
        addresses: vec![address],
    };
    let route = |to, gateway: Option<[u8; 4]>| Route {
        destination: cidr(to),
        gateway: gateway.map(|ip| IpAddr::V4(ip.into())),
        interface: "eth0".into(),
        metric: 1024,
    };
    Network {
        interfaces: vec![
            interface("lo", 65536, "00:00:00:00:00:00", address([127, 0, 0, 1], 8)),
            interface("eth0", 1500, "52:54:00:aa:bb:01", address([10, 0, 2, 15], 24)),
        ],
        routes: vec![route("0.0.0.0/0", Some([10, 0, 2, 2])), route("10.0.2.0/24", None)],
        links: Vec::new(),
    }
}

/// Default settings of a founder.
pub(crate) fn settings() -> Settings {
    let Ok(validated) = validate(Inputs::merge(vec![])) else { panic!("defaults are valid") };
    Settings { role: Some(Role::Init), ..validated.settings }
}
