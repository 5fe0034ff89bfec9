//! Gathering against a folder that stands for a machine, and against the machine that runs the tests.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;

use super::*;
use crate::facts::{Address, Presence, Version, sample};

/// A folder with the files of a small virtual machine.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Machine(tempfile::tempdir().expect("a folder"));
        for (path, contents) in [
            ("/proc/sys/kernel/osrelease", "6.12.57+deb13-amd64\n"),
            ("/proc/sys/kernel/hostname", "node-a\n"),
            ("/proc/filesystems", "nodev\ttmpfs\n\text4\n\terofs\n"),
            ("/proc/meminfo", "MemTotal:        2014440 kB\nMemFree:          100 kB\n"),
            ("/proc/swaps", "Filename Type Size Used Priority\n/dev/sda3 partition 2097148 0 -2\n"),
            ("/proc/self/mountinfo", MOUNTS),
            ("/proc/net/route", ROUTES),
            ("/proc/net/tcp", TCP),
            ("/sys/devices/system/cpu/online", "0-1\n"),
            ("/sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n"),
            ("/sys/class/rtc/rtc0/since_epoch", "1796000000\n"),
            ("/sys/class/dmi/id/product_uuid", "7D1C1E7E-7F3C-4A9E-9A53-0A51D8F1C001\n"),
            ("/sys/class/net/eth0/mtu", "1500\n"),
            ("/sys/class/net/eth0/address", "52:54:00:aa:bb:01\n"),
            ("/sys/class/net/veth1234/mtu", "1450\n"),
            ("/sys/module/bridge/version", "2.3\n"),
            (
                "/lib/modules/6.12.57+deb13-amd64/modules.builtin",
                "kernel/fs/ext4/ext4.ko\nkernel/drivers/net/veth.ko\n",
            ),
            (
                "/lib/modules/6.12.57+deb13-amd64/modules.dep",
                "kernel/net/bridge/br_netfilter.ko.xz: kernel/net/bridge/bridge.ko.xz\nkernel/drivers/md/dm-verity.ko.xz:\n",
            ),
            ("/etc/machine-id", "4c4c45440051331080344b4c04563332\n"),
            ("/etc/resolv.conf", "nameserver 127.0.0.53\n"),
            ("/run/systemd/resolve/resolv.conf", "nameserver 10.0.2.3\n"),
            ("/run/kubeboot/slot/bin/etcd", ""),
            ("/proc/77/comm", "nginx\n"),
            ("/proc/78/comm", "bash\n"),
            ("/usr/lib/os-release", "ID=debian\n"),
        ] {
            machine.put(path, contents);
        }
        machine.put(paths::SEAT_FACTS, &serde_json::to_string(&sample::seat_record()).expect("JSON"));
        fs::create_dir_all(machine.root().path("/var/lib")).expect("a folder");
        fs::create_dir_all(machine.root().path("/proc/77/fd")).expect("a folder");
        symlink("/usr/sbin/nginx", machine.root().path("/proc/77/exe")).expect("a link");
        symlink("/dev/null", machine.root().path("/proc/77/fd/0")).expect("a link");
        symlink("socket:[4711]", machine.root().path("/proc/77/fd/3")).expect("a link");
        machine
    }

    fn root(&self) -> Root {
        Root::at(self.0.path())
    }

    fn put(&self, path: &str, contents: &str) {
        let path = self.root().path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, contents).expect("a file");
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.root().path(path)).expect("a file");
    }

    fn facts(&self) -> Facts {
        let address = |ip: [u8; 4], prefix| Address { ip: IpAddr::V4(ip.into()), prefix };
        let ipv4 =
            vec![("lo".to_owned(), address([127, 0, 0, 1], 8)), ("eth0".to_owned(), address([10, 0, 2, 15], 24))];
        gather_from(&self.root(), Probe::IfNew, Ok(ipv4))
    }
}

const MOUNTS: &str = "\
22 1 254:0 / / ro,relatime - erofs /dev/dm-0 ro
30 22 254:5 / /var rw,relatime shared:5 - ext4 /dev/vda5 rw
31 22 7:0 / /run/kubeboot/slot ro,relatime - erofs /dev/loop0 ro
";

const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0202000A\t0003\t0\t0\t1024\t00000000\t0\t0\t0
";

const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 x
";

#[test]
fn a_machine_is_read_as_it_is() {
    let machine = Machine::new();
    let facts = machine.facts();
    assert!(!facts.established);
    assert_eq!(facts.kernel.version(), Some(Version(6, 12)));
    assert_eq!(facts.memory, Fact::Known(2014440 * 1024));
    assert_eq!(facts.cpus, Fact::Known(2));
    assert_eq!(facts.host_name, Fact::Known("node-a".into()));
    assert_eq!(facts.machine_id.known().and_then(MachineId::problem), None);
    assert_eq!(facts.dmi.uuid, "7d1c1e7e-7f3c-4a9e-9a53-0a51d8f1c001");
    assert_eq!(facts.container, None);
    assert_eq!(facts.clock.hardware, Some(1_796_000_000));
    assert!(facts.clock.image > 1_700_000_000, "the time stamp of os-release");
    assert!(!facts.clock.synchronized);
    let controllers = facts.cgroup_controllers.known().expect("a list");
    assert_eq!(controllers.iter().map(String::as_str).collect::<Vec<_>>(), ["cpu", "io", "memory", "pids"]);
    let swap = facts.swap.known().expect("a list");
    assert_eq!((swap[0].path.as_str(), swap[0].bytes), ("/dev/sda3", 2097148 * 1024));
    let var = facts.var.known().expect("a file system");
    assert_eq!((var.kind.as_str(), var.source.as_str(), var.read_only), ("ext4", "/dev/vda5", false));
    assert!(var.total >= var.available && var.available > 0);
    assert!(matches!(facts.write_latency, Some(Fact::Known(latency)) if latency.writes > 0));
}

#[test]
fn modules_are_found_wherever_they_are() {
    let machine = Machine::new();
    let kernel = machine.facts().kernel;
    assert_eq!(kernel.presence("erofs"), Presence::BuiltIn, "from /proc/filesystems");
    assert_eq!(kernel.presence("bridge"), Presence::Loaded);
    assert_eq!(kernel.presence("veth"), Presence::BuiltIn);
    assert_eq!(kernel.presence("br_netfilter"), Presence::Loadable);
    assert_eq!(kernel.presence("dm_verity"), Presence::Loadable, "written dm-verity in the list");
    assert_eq!(kernel.presence("wireguard"), Presence::Missing);
    machine.remove("/lib/modules/6.12.57+deb13-amd64/modules.builtin");
    let kernel = machine.facts().kernel;
    assert_eq!(kernel.presence("wireguard"), Presence::Unknown);
    assert_eq!(kernel.presence("bridge"), Presence::Loaded);
}

#[test]
fn the_network_leaves_out_interfaces_that_say_nothing() {
    let machine = Machine::new();
    let facts = machine.facts();
    let network = facts.network.known().expect("a network");
    let names: Vec<&str> = network.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["eth0"]);
    assert_eq!((network.interfaces[0].mtu, network.interfaces[0].mac.as_str()), (1500, "52:54:00:aa:bb:01"));
    let address = facts.node_address(&sample::settings()).expect("an address");
    assert_eq!((address.ip.to_string().as_str(), address.interface.as_str()), ("10.0.2.15", "eth0"));
    assert_eq!(facts.name_servers, Fact::Known(vec![IpAddr::V4([10, 0, 2, 3].into())]), "those behind the stub");
}

#[test]
fn only_watched_ports_are_listed_with_their_process() {
    let listening = Machine::new().facts().listening;
    let sockets = listening.known().expect("a list");
    assert_eq!(sockets.len(), 1);
    let owner = sockets[0].owner.as_ref().expect("a process");
    assert_eq!((sockets[0].port, owner.pid), (6443, 77));
    assert_eq!((owner.name.as_str(), owner.program.as_str()), ("nginx", "/usr/sbin/nginx"));
}

#[test]
fn the_seat_says_what_it_lacks() {
    let machine = Machine::new();
    let facts = machine.facts();
    let seat = facts.seat.known().expect("a seat");
    assert_eq!((seat.mounted.as_deref(), seat.read_only), (Some("erofs"), true));
    assert_eq!(seat.record, Some(Ok(sample::seat_record())));
    assert!(seat.missing.contains(&"bin/kubelet".to_owned()) && !seat.missing.contains(&"bin/etcd".to_owned()));
    machine.put("/run/kubeboot/seat.json", "{");
    let facts = machine.facts();
    let record = facts.seat.known().and_then(|seat| seat.record.clone());
    assert!(matches!(record, Some(Err(why)) if why.starts_with("/run/kubeboot/seat.json can't be understood: ")));
    machine.put("/proc/self/mountinfo", "22 1 254:0 / / ro,relatime - erofs /dev/dm-0 ro\n");
    assert_eq!(machine.facts().seat, Fact::Known(crate::facts::Seat::default()));
}

#[test]
fn a_node_that_boots_again_is_not_measured_again() {
    let machine = Machine::new();
    machine.put(paths::CLUSTER, "{}");
    machine.put(paths::NODE, r#"{"name":"node-p","address":"10.0.2.15","machine-id":"x"}"#);
    let half = machine.facts();
    assert!(!half.established && half.write_latency.is_some());
    assert_eq!(half.pinned, None, "before the founding was complete nothing depends on it");
    machine.put(paths::FROZEN, "{}");
    let facts = machine.facts();
    assert!(facts.established);
    assert_eq!(facts.pinned.map(|pinned| pinned.name).as_deref(), Some("node-p"));
    assert_eq!(facts.write_latency, None);
    let asked = gather_from(&machine.root(), Probe::Always, Ok(vec![]));
    assert!(matches!(asked.write_latency, Some(Fact::Known(_))));
}

#[test]
fn each_kind_of_container_is_seen() {
    let machine = Machine::new();
    machine.put("/run/.containerenv", "");
    assert_eq!(machine.facts().container.as_deref(), Some("podman"));
    machine.put("/.dockerenv", "");
    assert_eq!(machine.facts().container.as_deref(), Some("docker"));
    machine.put("/proc/vz/version", "");
    assert_eq!(machine.facts().container.as_deref(), Some("openvz"));
    machine.put("/proc/sys/kernel/osrelease", "5.15.167.4-microsoft-standard-WSL2\n");
    assert_eq!(machine.facts().container.as_deref(), Some("wsl"));
    machine.put("/run/systemd/container", "lxc\n");
    assert_eq!(machine.facts().container.as_deref(), Some("lxc"));
}

#[test]
fn an_empty_root_is_told_fact_by_fact() {
    let folder = tempfile::tempdir().expect("a folder");
    let facts = gather_from(&Root::at(folder.path()), Probe::IfNew, Err("no addresses".into()));
    let unknown = [
        facts.memory.known().is_none(),
        facts.cpus.known().is_none(),
        facts.var.known().is_none(),
        facts.host_name.known().is_none(),
        facts.machine_id.known().is_none(),
        facts.listening.known().is_none(),
        facts.seat.known().is_none(),
    ];
    assert_eq!(unknown, [true; 7]);
    assert_eq!(facts.network, Fact::Unknown("no addresses".into()));
    assert!(matches!(&facts.memory, Fact::Unknown(why) if why.starts_with("can't read /proc/meminfo: ")));
    assert_eq!(facts.cgroup_controllers, Fact::Known(Default::default()), "cgroup v1 has no such file");
    assert_eq!(facts.swap, Fact::Known(vec![]), "a kernel without swap has no such file");
}

#[test]
fn the_machine_that_runs_the_tests_has_facts() {
    let facts = gather_from(&Root::system(), Probe::IfNew, network::ipv4_addresses());
    assert!(facts.memory.known().is_some_and(|bytes| *bytes > 64 << 20), "{:?}", facts.memory);
    assert!(facts.cpus.known().is_some_and(|count| *count >= 1), "{:?}", facts.cpus);
    assert!(facts.var.known().is_some(), "{:?}", facts.var);
    assert!(facts.kernel.version().is_some(), "{:?}", facts.kernel.release);
    assert!(facts.listening.known().is_some(), "{:?}", facts.listening);
    let network = facts.network.known().expect("a network");
    let loopback = IpAddr::V4([127, 0, 0, 1].into());
    let has =
        |ip: IpAddr| network.interfaces.iter().any(|interface| interface.addresses.iter().any(|own| own.ip == ip));
    assert!(has(loopback), "{network:?}");
    assert!(facts.clock.now > 1_767_225_600);
}

#[test]
fn a_socket_of_this_very_process_is_found() {
    let number = crate::facts::ports::WATCHED.iter().map(|port| port.number);
    let Some(listener) = number.filter_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok()).next() else {
        panic!("expected one of the node's ports to be free on this machine");
    };
    let port = listener.local_addr().expect("an address").port();
    let facts = gather_from(&Root::system(), Probe::IfNew, network::ipv4_addresses());
    let sockets = facts.listening.known().expect("a list");
    let own = |socket: &&crate::facts::Socket| {
        socket.port == port && socket.owner.as_ref().is_some_and(|owner| owner.pid == std::process::id())
    };
    assert!(sockets.iter().any(|socket| own(&socket)), "{sockets:?}");
}

#[test]
fn an_address_that_comes_later_is_waited_for() {
    let (mut facts, settings) = (sample::facts(), sample::settings());
    let (mut looks, complete) = (0, sample::network());
    facts.network = Fact::Known(Network::default());
    let found = await_network(&mut facts, &settings, Duration::from_secs(10), Duration::from_millis(1), || {
        looks += 1;
        Fact::Known(if looks < 3 { Network::default() } else { complete.clone() })
    });
    assert_eq!(found.map(|address| address.interface).as_deref(), Ok("eth0"));
    assert_eq!((looks, facts.network), (3, Fact::Known(complete)));
}

#[test]
fn an_address_that_never_comes_is_given_up_with_the_reason() {
    let (mut facts, settings) = (sample::facts(), sample::settings());
    facts.network = Fact::Known(Network::default());
    let look = || Fact::Known(Network::default());
    let error = await_network(&mut facts, &settings, Duration::ZERO, Duration::ZERO, look).expect_err("no address");
    assert_eq!((error.condition.as_str(), error.seen.as_str()), ("the node's address", "no default route"));
}

#[test]
fn an_address_that_a_network_config_will_replace_is_not_taken() {
    let (mut facts, mut settings) = (sample::facts(), sample::settings());
    let text = "# x\n[Match]\nName=eth0\n\n[Network]\nDHCP=no\n".to_owned();
    settings.os.network = vec![crate::settings::NetworkFile { name: "10-kubeboot-eth0.network".into(), text }];
    let machine = Machine::new();
    machine.put("/sys/class/net/eth0/ifindex", "2\n");
    machine.put("/sys/class/net/eth0/type", "1\n");
    machine.put("/sys/class/net/eth0/carrier", "1\n");
    let state = |admin: &str, file: &str| {
        let file =
            format!("# private\nADMIN_STATE={admin}\nOPER_STATE=routable\nNETWORK_FILE=/run/systemd/network/{file}\n");
        machine.put("/run/systemd/netif/links/2", &file);
    };
    let mut looks = 0;
    facts.network = Fact::Known(Network::default());
    let found = await_network(&mut facts, &settings, Duration::from_secs(10), Duration::from_millis(1), || {
        looks += 1;
        match looks {
            1 => state("configured", "80-kubeboot-ethernet.network"),
            2 => state("configuring", "10-kubeboot-eth0.network"),
            _ => state("configured", "10-kubeboot-eth0.network"),
        }
        machine.facts().network
    });
    assert_eq!(found.map(|address| address.interface).as_deref(), Ok("eth0"));
    assert_eq!(looks, 3);
}

#[test]
fn a_dead_hardware_clock_is_waited_out_until_a_time_server_was_heard() {
    let machine = Machine::new();
    machine.put("/sys/class/rtc/rtc0/since_epoch", "12\n");
    let mut facts = machine.facts();
    let late = await_time(&machine.root(), &mut facts, Duration::ZERO).expect_err("nobody was heard");
    assert_eq!(late.condition, "a time server");
    machine.put("/run/systemd/timesync/synchronized", "");
    assert_eq!(await_time(&machine.root(), &mut facts, Duration::ZERO), Ok(()));
    assert!(facts.clock.synchronized, "what preflight judges is what was seen last");
}
