//! Each rule passes on a healthy machine, and finds what it is there to find: a case changes one thing and names the
//! check that must notice. The words are reviewed snapshots.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::*;
use crate::facts::sample::{self, cidr};
use crate::facts::{Address, MachineId, Owner, Pinned, Presence, Socket, Swap, ports};
use crate::settings::{Backend, ProxyMode};
use crate::slots::{self, PassedOver};

/// What one thing is changed to.
type Change = fn(&mut Facts, &mut Settings);

/// Check that must notice, result that it must give, role, what it is, and the change.
const CASES: &[(&str, &str, Role, &str, Change)] = &[
    ("container", "error", Role::Init, "docker", |facts, _| facts.container = Some("docker".into())),
    ("kernel-version", "error", Role::Worker, "too old for nftables", |facts, _| release(facts, "5.10.0-35-amd64")),
    ("kernel-version", "error", Role::Worker, "too old for cgroups", |facts, settings| {
        release(facts, "5.4.0-200-generic");
        settings.proxy = ProxyMode::None;
    }),
    ("kernel-version", "unchecked", Role::Worker, "no version", |facts, _| release(facts, "custom")),
    ("kernel-modules", "error", Role::Init, "two are missing", |facts, _| {
        module(facts, "nf_tables", Presence::Missing);
        module(facts, "vxlan", Presence::Missing);
    }),
    ("kernel-modules", "error", Role::Init, "wireguard is asked for", |facts, settings| {
        module(facts, "wireguard", Presence::Missing);
        settings.network.backend = Backend::Wireguard;
    }),
    ("kernel-modules", "unchecked", Role::Init, "no list", |facts, _| module(facts, "veth", Presence::Unknown)),
    ("cgroup-controllers", "error", Role::Worker, "version 1", |facts, _| controllers(facts, &[])),
    ("cgroup-controllers", "error", Role::Worker, "no memory", |facts, _| controllers(facts, &["cpu", "io", "pids"])),
    ("cgroup-controllers", "warning", Role::Worker, "no cpuset", |facts, _| {
        controllers(facts, &["cpu", "io", "memory", "pids"]);
    }),
    ("memory", "error", Role::Init, "far too little", |facts, _| facts.memory = Fact::Known(900 << 20)),
    ("memory", "warning", Role::ControlPlane, "little", |facts, _| facts.memory = Fact::Known(1500 << 20)),
    ("memory", "error", Role::Worker, "far too little", |facts, _| facts.memory = Fact::Known(256 << 20)),
    ("memory", "warning", Role::Worker, "little", |facts, _| facts.memory = Fact::Known(512 << 20)),
    ("memory", "warning", Role::Init, "too little on a node", |facts, _| {
        facts.memory = Fact::Known(900 << 20);
        facts.established = true;
    }),
    ("memory", "unchecked", Role::Init, "unknown", |facts, _| facts.memory = Fact::Unknown("can't read it".into())),
    ("cpus", "warning", Role::Init, "one", |facts, _| facts.cpus = Fact::Known(1)),
    ("swap", "error", Role::Worker, "a partition", |facts, _| {
        facts.swap = Fact::Known(vec![Swap { path: "/dev/sda3".into(), bytes: 2 << 30 }]);
    }),
    ("swap", "error", Role::Worker, "two areas", |facts, _| {
        let area = |path: &str, bytes| Swap { path: path.into(), bytes };
        facts.swap = Fact::Known(vec![area("/dev/zram0", 1610612736), area("/var/swap file", 512 << 20)]);
    }),
    ("clock", "error", Role::Init, "before the image", |facts, _| facts.clock.now = facts.clock.image - 1),
    ("clock", "error", Role::Init, "1970, of an image without a date", |facts, _| {
        (facts.clock.now, facts.clock.image) = (12, 0);
    }),
    ("clock", "error", Role::Init, "the far future", |facts, _| facts.clock.now = 4_107_542_400),
    ("clock", "warning", Role::Init, "no source of time", |facts, _| {
        (facts.clock.hardware, facts.clock.synchronized) = (None, false);
    }),
    ("clock", "warning", Role::Init, "the hardware clock has a time zone", |facts, _| {
        (facts.clock.hardware, facts.clock.synchronized) = (Some(facts.clock.now + 7200), false);
    }),
    ("var-file-system", "error", Role::Worker, "read-only", |facts, _| var(facts, |var| var.read_only = true)),
    ("var-file-system", "error", Role::Worker, "tmpfs", |facts, _| kind(facts, "tmpfs", "tmpfs")),
    ("var-file-system", "error", Role::Worker, "overlay", |facts, _| kind(facts, "overlay", "overlay")),
    ("var-file-system", "error", Role::Worker, "nfs", |facts, _| kind(facts, "nfs4", "10.0.0.9:/var")),
    ("var-file-system", "warning", Role::Worker, "zfs", |facts, _| kind(facts, "zfs", "tank/var")),
    ("var-space", "error", Role::Init, "full", |facts, _| var(facts, |var| var.available = 700 << 20)),
    ("var-space", "warning", Role::Init, "full, on a node", |facts, _| {
        var(facts, |var| var.available = 0);
        facts.established = true;
    }),
    ("var-space", "warning", Role::Init, "little", |facts, _| var(facts, |var| var.available = 5 << 29)),
    ("var-space", "warning", Role::Init, "below the kubelet's limit", |facts, _| {
        var(facts, |var| (var.total, var.available) = (100 << 30, 9 << 30));
    }),
    ("var-space", "warning", Role::Init, "no inodes", |facts, _| var(facts, |var| var.inodes_free = 100)),
    ("var-latency", "warning", Role::Init, "slow", |facts, _| latency(facts, 8_000, 31_000)),
    ("var-latency", "error", Role::Init, "hopeless", |facts, _| latency(facts, 1_000_000, 1_200_000)),
    ("var-latency", "warning", Role::Init, "one stall", |facts, _| latency(facts, 9_000, 1_200_000)),
    ("var-latency", "unchecked", Role::Init, "no probe", |facts, _| {
        facts.write_latency = Some(Fact::Unknown("can't make a probe file on /var: Read-only file system".into()));
    }),
    ("seat", "error", Role::Worker, "none", |facts, _| facts.seat = Fact::Known(crate::facts::Seat::default())),
    ("seat", "error", Role::Worker, "writable, half empty, unrecorded", |facts, _| {
        if let Fact::Known(seat) = &mut facts.seat {
            seat.read_only = false;
            seat.record = None;
            seat.missing = vec!["bin/kubelet".into(), "bin/runc".into()];
        }
    }),
    ("seat", "error", Role::Worker, "a torn record", |facts, _| {
        if let Fact::Known(seat) = &mut facts.seat {
            seat.record = Some(Err("/run/kubeboot/seat.json can't be understood: EOF".into()));
        }
    }),
    ("seat", "warning", Role::Worker, "another release was meant", |facts, _| {
        if let Fact::Known(seat) = &mut facts.seat {
            let why = "its signature does not verify".into();
            let passed_over = vec![PassedOver { seat: slots::Seat::Slot(slots::Slot::A), why }];
            seat.record = Some(Ok(slots::SeatFacts { passed_over, ..sample::seat_record() }));
        }
    }),
    ("machine-id", "error", Role::Worker, "uninitialized", |facts, _| {
        facts.machine_id = Fact::Known(MachineId::new("uninitialized\n"));
    }),
    ("machine-id", "warning", Role::Init, "a shared firmware UUID", |facts, _| {
        facts.dmi.uuid = "03000200-0400-0500-0006-000700080009".into();
    }),
    ("machine-id", "warning", Role::Worker, "QEMU's default address", |facts, _| {
        if let Fact::Known(network) = &mut facts.network {
            network.interfaces[1].mac = "52:54:00:12:34:56".into();
        }
    }),
    ("host-name", "error", Role::Worker, "uppercase and underscore", |facts, _| {
        facts.host_name = Fact::Known("My_Node".into());
    }),
    ("host-name", "error", Role::Worker, "nothing to save", |_, settings| settings.name = Some("---".into())),
    ("node-address", "error", Role::Worker, "no route", |facts, _| {
        if let Fact::Known(network) = &mut facts.network {
            network.routes.clear();
        }
    }),
    ("node-address", "error", Role::Worker, "no address yet", |facts, _| {
        if let Fact::Known(network) = &mut facts.network {
            network.interfaces[1].addresses.clear();
        }
    }),
    ("node-address", "error", Role::Worker, "another machine's", |_, settings| {
        settings.node.ip = Some([10, 0, 2, 99].into());
    }),
    ("node-address", "error", Role::Worker, "IPv4 in an IPv6 cluster", |_, settings| {
        settings.cluster.pod_cidr = cidr("fd00:10:244::/56");
        settings.node.ip = Some([10, 0, 2, 15].into());
    }),
    ("node-address", "error", Role::Init, "an IPv6 cluster on an IPv4 network", |_, settings| {
        settings.cluster.pod_cidr = cidr("fd00:10:244::/56");
    }),
    ("node-address", "error", Role::Worker, "moved", |facts, _| {
        facts.pinned = Some(Pinned { name: "node-a".into(), address: [10, 0, 2, 77].into() });
    }),
    ("node-address", "warning", Role::Worker, "given, but no route", |facts, settings| {
        settings.node.ip = Some([10, 0, 2, 15].into());
        if let Fact::Known(network) = &mut facts.network {
            network.routes.clear();
        }
    }),
    ("node-address", "warning", Role::Worker, "two routes alike", |facts, _| {
        if let Fact::Known(network) = &mut facts.network {
            let route = crate::facts::Route { interface: "eth1".into(), ..network.routes[0].clone() };
            network.routes.push(route);
        }
    }),
    ("network-overlap", "error", Role::Init, "pods and Services", |_, settings| {
        settings.cluster.service_cidr = cidr("10.244.128.0/20");
    }),
    ("network-overlap", "error", Role::Init, "the host's network", |facts, _| {
        if let Fact::Known(network) = &mut facts.network {
            network.interfaces[1].addresses.push(Address { ip: [10, 96, 3, 4].into(), prefix: 24 });
        }
    }),
    ("network-overlap", "warning", Role::Worker, "the host's network", |facts, _| {
        if let Fact::Known(network) = &mut facts.network {
            network.interfaces[1].addresses.push(Address { ip: [10, 96, 3, 4].into(), prefix: 24 });
        }
    }),
    ("network-overlap", "error", Role::Init, "the name server", |facts, _| {
        facts.name_servers = Fact::Known(vec![[10, 244, 0, 53].into()]);
    }),
    ("ports", "error", Role::Init, "held twice by one program, and by two unseen ones", |facts, _| {
        let nginx = Owner { pid: 77, name: "nginx".into(), program: "/usr/sbin/nginx".into() };
        let thread = Owner { pid: 5, name: "kworker".into(), program: String::new() };
        let socket = |ip: &str, port, owner: Option<&Owner>| Socket {
            address: ip.parse().expect("an address"),
            port,
            owner: owner.cloned(),
        };
        facts.listening = Fact::Known(vec![
            socket("0.0.0.0", 6443, Some(&nginx)),
            socket("::", 6443, Some(&nginx)),
            socket("127.0.0.1", 2379, None),
            socket("::1", 10250, Some(&thread)),
        ]);
    }),
    ("name-servers", "warning", Role::Worker, "none", |facts, _| facts.name_servers = Fact::Known(vec![])),
    ("name-servers", "warning", Role::Worker, "only the loopback", |facts, _| {
        facts.name_servers = Fact::Known(vec![IpAddr::from([127, 0, 0, 1])]);
    }),
    ("mtu", "error", Role::Worker, "more than the interface takes", |_, settings| settings.network.mtu = Some(9000)),
    ("mtu", "warning", Role::Worker, "little room for VXLAN", |_, settings| settings.network.mtu = Some(1300)),
    ("mtu", "error", Role::Worker, "too little for IPv6", |facts, settings| {
        settings.cluster.pod_cidr = cidr("fd00:10:244::/56");
        settings.node.ip = Some("fec0::15".parse().expect("an address"));
        if let Fact::Known(network) = &mut facts.network {
            let ip = "fec0::15".parse().expect("an address");
            network.interfaces[1].addresses.push(Address { ip, prefix: 64 });
        }
        settings.network.mtu = Some(1320);
    }),
];

fn release(facts: &mut Facts, release: &str) {
    facts.kernel.release = release.into();
}

fn module(facts: &mut Facts, name: &str, presence: Presence) {
    facts.kernel.modules.insert(name.into(), presence);
}

fn controllers(facts: &mut Facts, names: &[&str]) {
    facts.cgroup_controllers = Fact::Known(names.iter().map(|name| (*name).to_owned()).collect());
}

fn var(facts: &mut Facts, change: impl FnOnce(&mut crate::facts::FileSystem)) {
    if let Fact::Known(var) = &mut facts.var {
        change(var);
    }
}

fn kind(facts: &mut Facts, kind: &str, source: &str) {
    var(facts, |var| (var.kind, var.source) = (kind.into(), source.into()));
}

fn latency(facts: &mut Facts, p50: u64, p99: u64) {
    facts.write_latency = Some(Fact::Known(crate::facts::WriteLatency { writes: 40, p50, p99 }));
}

fn report_of(role: Role, change: Change) -> Report {
    let (mut facts, mut settings) = (sample::facts(), sample::settings());
    change(&mut facts, &mut settings);
    run(&facts, &settings, role)
}

fn result_of<'a>(report: &'a Report, name: &str) -> &'a str {
    report.checks.iter().find(|check| check.name == name).expect("the check applies").result
}

#[test]
fn a_healthy_machine_passes_every_check_in_every_role() {
    for role in [Role::Init, Role::ControlPlane, Role::Worker] {
        let report = report_of(role, |_, _| {});
        let not_ok: Vec<_> = report.checks.iter().filter(|check| check.result != "ok").collect();
        assert!(not_ok.is_empty() && report.passed, "{role:?}: {not_ok:?}");
    }
}

#[test]
fn each_case_is_noticed_by_its_check() {
    for (name, result, role, what, change) in CASES {
        let report = report_of(*role, *change);
        assert_eq!(result_of(&report, name), *result, "{name}: {what}");
        assert_eq!(report.passed, report.findings(Error).next().is_none(), "{name}: {what}");
    }
}

#[test]
fn what_is_said_about_each_case() {
    let mut text = String::new();
    for (name, _, role, what, change) in CASES {
        text += &format!("# {name}: {what}\n");
        let report = report_of(*role, *change);
        let check = report.checks.iter().find(|check| check.name == *name).expect("the check applies");
        for finding in &check.findings {
            text += &format!("{}: {}. Fix: {}.\n", finding.severity.word(), finding.found, finding.fix);
        }
        text += &check.unchecked.as_ref().map(|why| format!("unchecked: {why}\n")).unwrap_or_default();
    }
    insta::assert_snapshot!("findings", text);
}

#[test]
fn every_check_has_a_case_for_its_worst_severity() {
    let covered =
        |name, severity: Severity| CASES.iter().any(|(check, result, ..)| *check == name && *result == severity.word());
    let uncovered: Vec<_> =
        CHECKS.iter().filter(|check| !covered(check.name, check.severity)).map(|check| check.name).collect();
    assert!(uncovered.is_empty(), "{uncovered:?}");
}

#[test]
fn no_finding_is_worse_than_its_check_says() {
    for (name, _, role, what, change) in CASES {
        for checked in &report_of(*role, *change).checks {
            let check = CHECKS.iter().find(|check| check.name == checked.name).expect("a check of the table");
            assert!(check.established <= check.severity);
            assert!(checked.findings.iter().all(|one| one.severity <= check.severity), "{name}: {what}");
        }
    }
}

#[test]
fn names_are_unique() {
    let names: BTreeSet<&str> = CHECKS.iter().map(|check| check.name).collect();
    assert_eq!(names.len(), CHECKS.len());
}

#[test]
fn what_stops_a_new_machine_may_only_warn_on_a_node() {
    let full: Change = |facts, _| var(facts, |var| var.available = 0);
    // Whoever joins hears of it before it asks, and so before a use of its token is taken.
    for role in [Role::Init, Role::ControlPlane, Role::Worker] {
        let report = report_of(role, full);
        assert_eq!((result_of(&report, "var-space"), report.passed), ("error", false), "{role:?}");
    }
    let full_node: Change = |facts, _| {
        var(facts, |var| var.available = 0);
        facts.established = true;
    };
    let report = report_of(Role::Init, full_node);
    assert_eq!(result_of(&report, "var-space"), "warning");
    assert!(report.passed);
    let swapping: Change = |facts, _| {
        facts.swap = Fact::Known(vec![Swap { path: "/dev/sda3".into(), bytes: 1 << 30 }]);
        facts.established = true;
    };
    assert_eq!(result_of(&report_of(Role::Init, swapping), "swap"), "error", "the kubelet would not start");
}

#[test]
fn a_running_node_does_not_complain_of_its_own_services() {
    let running: Change = |facts, _| {
        let socket = |(pid, port): (u32, &ports::Port)| Socket {
            address: [0, 0, 0, 0].into(),
            port: port.number,
            owner: Some(Owner {
                pid,
                name: port.service.chars().take(15).collect(),
                program: format!("{}/bin/{}", crate::paths::SEAT, port.service),
            }),
        };
        facts.established = true;
        facts.listening = Fact::Known((100..).zip(ports::WATCHED).map(socket).collect());
    };
    assert_eq!(result_of(&report_of(Role::Init, running), "ports"), "ok");
}

#[test]
fn a_running_node_does_not_complain_of_its_own_routes() {
    let route = |facts: &mut Facts| {
        if let Fact::Known(network) = &mut facts.network {
            let destination = cidr("10.244.1.0/24");
            network.routes.push(crate::facts::Route { destination, ..network.routes[0].clone() });
        }
    };
    let (mut facts, mut settings) = (sample::facts(), sample::settings());
    route(&mut facts);
    settings.network.backend = Backend::HostGw;
    assert_eq!(result_of(&run(&facts, &settings, Role::Init), "network-overlap"), "error", "it was there before");
    facts.established = true;
    assert_eq!(result_of(&run(&facts, &settings, Role::Init), "network-overlap"), "ok");
    settings.network.backend = Backend::Vxlan;
    assert_eq!(result_of(&run(&facts, &settings, Role::Init), "network-overlap"), "warning");
}

#[test]
fn a_worker_may_share_its_machine_with_an_etcd_port() {
    let change: Change = |facts, _| {
        facts.listening = Fact::Known(vec![Socket { address: [0, 0, 0, 0].into(), port: 2379, owner: None }]);
    };
    assert_eq!(result_of(&report_of(Role::Worker, change), "ports"), "ok");
    assert_eq!(result_of(&report_of(Role::ControlPlane, change), "ports"), "error");
}

#[test]
fn qemus_default_address_is_no_matter_to_a_lone_founder() {
    let change: Change = |facts, _| {
        if let Fact::Known(network) = &mut facts.network {
            network.interfaces[1].mac = "52:54:00:12:34:56".into();
        }
    };
    assert_eq!(result_of(&report_of(Role::Init, change), "machine-id"), "ok");
}

/// A machine with much wrong at once.
fn broken(facts: &mut Facts, settings: &mut Settings) {
    facts.swap = Fact::Known(vec![Swap { path: "/dev/sda3".into(), bytes: 2 << 30 }]);
    facts.cpus = Fact::Known(1);
    facts.memory = Fact::Unknown("can't read /proc/meminfo: No such file or directory (os error 2)".into());
    facts.host_name = Fact::Known("My_Node".into());
    settings.cluster.service_cidr = cidr("10.244.128.0/20");
    latency(facts, 8_000, 31_000);
}

#[test]
fn all_findings_are_said_at_once() {
    let report = report_of(Role::Init, broken);
    insta::assert_snapshot!("table", report.table());
    let lines: Vec<String> =
        report.lines().into_iter().map(|(severity, line)| format!("[{}] {line}\n", severity.word())).collect();
    insta::assert_snapshot!("lines", lines.concat());
    insta::assert_snapshot!("json", report.json());
}

#[test]
fn sizes_are_rounded_down() {
    for (bytes, text) in [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (2 << 30, "2 GiB"),
        (1610612736, "1.5 GiB"),
        ((2 << 30) - 1, "1.9 GiB"),
        (19 << 30 | 1 << 29, "19 GiB"),
        (512 << 20, "512 MiB"),
    ] {
        assert_eq!(size(bytes), text);
    }
}

#[test]
fn a_network_of_the_other_family_is_told_which_settings_to_change() {
    let (facts, mut settings) = (sample::facts(), sample::settings());
    settings.cluster.pod_cidr = cidr("fd00:10:244::/56");
    settings.cluster.service_cidr = cidr("fd00:10:96::/112");
    let report = run(&facts, &settings, Role::Init);
    let finding = report.findings(Severity::Error).next().expect("an error");
    assert!(finding.fix.contains("cluster.pod-cidr=10.244.0.0/16") && finding.fix.contains("cluster.service-cidr="));
    let mut ipv6_only = sample::network();
    ipv6_only.routes[0].destination = cidr("::/0");
    let report = run(&Facts { network: Fact::Known(ipv6_only), ..facts }, &sample::settings(), Role::Init);
    let finding = report.findings(Severity::Error).next().expect("an error");
    assert!(finding.found.contains("no IPv4 default route"), "{}", finding.found);
    assert!(finding.fix.contains("cluster.pod-cidr=fd00:10:244::/56"), "{}", finding.fix);
}
