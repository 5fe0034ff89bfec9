//! Readers of the kernel's text files (proc(5)) and of resolv.conf(5). A line that can't be read is skipped: the kernel
//! writes them, and adds columns at their end.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Address, Route, Swap};
use crate::settings::Cidr;

/// `/proc/filesystems`: names of the types the kernel knows now.
pub fn filesystems(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

/// `/proc/meminfo`: `MemTotal` in bytes.
pub fn memory_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A list of CPUs such as `0-3,8`: how many they are.
pub fn cpu_list(text: &str) -> Option<u32> {
    text.trim().split(',').try_fold(0u32, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// `/proc/cpuinfo`: how many processors it lists.
pub fn cpuinfo_processors(text: &str) -> Option<u32> {
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    u32::try_from(count).ok().filter(|count| *count > 0)
}

/// `/proc/swaps`.
pub fn swaps(text: &str) -> Vec<Swap> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let path = unescape(fields.next()?);
        let bytes = fields.nth(1)?.parse::<u64>().ok()?.checked_mul(1024)?;
        Some(Swap { path, bytes })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Mount point.
    pub point: String,
    /// File system type.
    pub kind: String,
    /// Device, or what stands for one.
    pub source: String,
    /// True if mounted read-only, here or as a whole.
    pub read_only: bool,
}

/// `/proc/self/mountinfo`: the mount that `path` lies on. Later mounts cover earlier ones.
pub fn mount_of(text: &str, path: &str) -> Option<Mount> {
    let covers = |point: &str| {
        point == "/" || path.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut found: Option<Mount> = None;
    for mount in text.lines().filter_map(mount).filter(|mount| covers(&mount.point)) {
        if found.as_ref().is_none_or(|known| known.point.len() <= mount.point.len()) {
            found = Some(mount);
        }
    }
    found
}

fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(4);
    let (point, options) = (unescape(left.next()?), left.next()?);
    let mut right = right.split(' ');
    let (kind, source) = (right.next()?.to_owned(), unescape(right.next()?));
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount { point, kind, source, read_only: read_only(options) || right.next().is_some_and(read_only) })
}

/// Undoes the kernel's `\040` for blanks, tabs, newlines and backslashes.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = |byte: &u8| (b'0'..=b'7').contains(byte).then(|| u32::from(*byte - b'0'));
        if let (b'\\', [a, b, c, after @ ..]) = (first, tail)
            && let (Some(a), Some(b), Some(c)) = (octal(a), octal(b), octal(c))
            && let Ok(byte) = u8::try_from(a * 64 + b * 8 + c)
        {
            bytes.push(byte);
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Route flags (linux/route.h).
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;
const LOCAL: u32 = 0x8000_0000;

/// `/proc/net/route`: IPv4 routes that are up.
pub fn routes_ipv4(text: &str) -> Vec<Route> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, destination, gateway, flags, _, _, metric, mask, ..] = fields[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let gateway = ipv4(gateway)?;
        (flags & UP != 0 && flags & REJECT == 0).then_some(Route {
            destination: Cidr {
                address: ipv4(destination)?.into(),
                prefix: u8::try_from(u32::from(ipv4(mask)?).leading_ones()).ok()?,
            },
            gateway: (!gateway.is_unspecified()).then_some(gateway.into()),
            interface: interface.to_owned(),
            metric: metric.parse().ok()?,
        })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// `/proc/net/ipv6_route`: IPv6 routes that are up, without local, link-local and multicast ones.
pub fn routes_ipv6(text: &str) -> Vec<Route> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, prefix, _, _, gateway, metric, _, _, flags, interface, ..] = fields[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let (destination, gateway) = (ipv6(destination)?, ipv6(gateway)?);
        let elsewhere = !destination.is_multicast() && !destination.is_unicast_link_local();
        (flags & UP != 0 && flags & (REJECT | LOCAL) == 0 && elsewhere && interface != "lo").then_some(Route {
            destination: Cidr { address: destination.into(), prefix: u8::from_str_radix(prefix, 16).ok()? },
            gateway: (!gateway.is_unspecified()).then_some(gateway.into()),
            interface: interface.to_owned(),
            metric: u32::from_str_radix(metric, 16).ok()?,
        })
    };
    text.lines().filter_map(line).collect()
}

/// `/proc/net/if_inet6`: stable IPv6 addresses in use, each with its interface's name.
pub fn addresses_ipv6(text: &str) -> Vec<(String, Address)> {
    /// Temporary, failed, deprecated, tentative (linux/if_addr.h).
    const PASSING: u32 = 0x01 | 0x08 | 0x20 | 0x40;
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, prefix, _, flags, interface] = fields[..] else { return None };
        let address = Address { ip: ipv6(address)?.into(), prefix: u8::from_str_radix(prefix, 16).ok()? };
        (u32::from_str_radix(flags, 16).ok()? & PASSING == 0).then(|| (interface.to_owned(), address))
    };
    text.lines().filter_map(line).collect()
}

/// A socket that listens, as `/proc/net/tcp` and `/proc/net/tcp6` show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Local address.
    pub address: IpAddr,
    /// Local port.
    pub port: u16,
    /// By which `/proc/PID/fd` names it; 0 for the kernel's own.
    pub inode: u64,
}

/// `/proc/net/tcp` or `/proc/net/tcp6`: the listening sockets.
pub fn listeners(text: &str) -> Vec<Listener> {
    const LISTEN: &str = "0A";
    let line = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next()?;
        if fields.nth(1)? != LISTEN {
            return None;
        }
        let (address, port) = local.split_once(':')?;
        let address = match address.len() {
            8 => IpAddr::V4(ipv4(address)?),
            _ => IpAddr::V6(words_ipv6(address)?),
        };
        // After the state: queues, timer, retransmits, uid, timeout, inode.
        Some(Listener { address, port: u16::from_str_radix(port, 16).ok()?, inode: fields.nth(5)?.parse().ok()? })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// resolv.conf(5): addresses of name servers. A zone (`%eth0`) is dropped.
pub fn name_servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        words.next()?.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

/// Name of a module by the path of its file: `kernel/net/bridge/br_netfilter.ko.xz` → `br_netfilter`.
pub fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    Some(file.split_once(".ko")?.0.replace('-', "_"))
}

/// An address as `/proc/net/route` writes it: the four bytes as one number of the machine's byte order.
fn ipv4(hex: &str) -> Option<Ipv4Addr> {
    (hex.len() == 8).then(|| u32::from_str_radix(hex, 16).ok().map(|word| Ipv4Addr::from(word.to_ne_bytes())))?
}

/// An address as `/proc/net/ipv6_route` and `if_inet6` write it: sixteen bytes in network order.
fn ipv6(hex: &str) -> Option<Ipv6Addr> {
    (hex.len() == 32).then(|| u128::from_str_radix(hex, 16).ok().map(Ipv6Addr::from))?
}

/// An address as `/proc/net/tcp6` writes it: four numbers of the machine's byte order.
fn words_ipv6(hex: &str) -> Option<Ipv6Addr> {
    let mut bytes = [0; 16];
    for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
        chunk.copy_from_slice(&ipv4(hex.get(index * 8..index * 8 + 8)?)?.octets());
    }
    (hex.len() == 32).then(|| Ipv6Addr::from(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn routes_are_read_with_their_prefix_and_gateway() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0202000A\t0003\t0\t0\t1024\t00000000\t0\t0\t0\n\
            eth0\t0002000A\t00000000\t0001\t0\t0\t1024\t00FFFFFF\t0\t0\t0\n\
            *\t0000010A\t00000000\t0200\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let routes = routes_ipv4(text);
        let shown: Vec<String> = routes
            .iter()
            .map(|route| {
                let gateway = route.gateway.map(|ip| ip.to_string()).unwrap_or_default();
                let to = route.destination;
                format!("{to} via {gateway} dev {} metric {}", route.interface, route.metric)
            })
            .collect();
        assert_eq!(shown, ["0.0.0.0/0 via 10.0.2.2 dev eth0 metric 1024", "10.0.2.0/24 via  dev eth0 metric 1024"]);
    }

    #[test]
    fn ipv6_routes_leave_out_what_leads_nowhere_else() {
        let zero = "0".repeat(32);
        let text = format!(
            "fec00000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0\n\
             fe800000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0\n\
             {zero} 00 {zero} 00 fe800000000000000000000000000002 00000400 00000001 00000000 00450003     eth0\n\
             00000000000000000000000000000001 80 {zero} 00 {zero} 00000000 00000004 00000000 80200001       lo\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        let routes = routes_ipv6(&text);
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[0].destination.to_string(), "fec0::/64");
        assert_eq!(routes[1].destination.prefix, 0);
        assert_eq!(routes[1].gateway, Some("fe80::2".parse().expect("an address")));
        assert_eq!(routes[1].metric, 1024);
    }

    #[test]
    fn temporary_and_deprecated_addresses_are_left_out() {
        let text = "fec0000000000000505400fffe123456 02 40 40 00     eth0\n\
                    fec00000000000001111222233334444 02 40 40 01     eth0\n\
                    fec00000000000001111222233335555 02 40 40 20     eth0\n";
        let addresses = addresses_ipv6(text);
        assert_eq!(addresses.len(), 1);
        assert_eq!(addresses[0].0, "eth0");
        assert_eq!(addresses[0].1.prefix, 64);
        assert_eq!(addresses[0].1.ip, "fec0::5054:ff:fe12:3456".parse::<IpAddr>().expect("an address"));
    }

    #[test]
    fn only_listening_sockets_are_read() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let four = format!(
            "{head}   0: 0100007F:094B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x\n\
             {}   1: 0100007F:094B 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x\n",
            ""
        );
        let found = listeners(&four);
        assert_eq!(found, [Listener { address: Ipv4Addr::LOCALHOST.into(), port: 2379, inode: 4711 }]);
        let six = format!(
            "{head}   0: 00000000000000000000000001000000:192B 00000000000000000000000000000000:0000 0A \
             00000000:00000000 00:00000000 00000000     0        0 99 1 x\n"
        );
        assert_eq!(listeners(&six), [Listener { address: Ipv6Addr::LOCALHOST.into(), port: 6443, inode: 99 }]);
    }

    #[test]
    fn the_deepest_and_latest_mount_holds_a_path() {
        let text = "22 1 254:0 / / ro,relatime - erofs /dev/dm-0 ro\n\
            30 22 254:5 / /var rw,relatime shared:5 - ext4 /dev/vda5 rw\n\
            31 30 254:5 /x /var/lib\\040x rw - ext4 /dev/vda5 rw\n\
            32 22 0:40 / /variety rw - tmpfs tmpfs rw\n\
            33 22 0:41 / /var rw,relatime - xfs /dev/vdb ro\n";
        let var = mount_of(text, "/var").expect("a mount");
        assert_eq!((var.kind.as_str(), var.source.as_str(), var.read_only), ("xfs", "/dev/vdb", true));
        assert_eq!(mount_of(text, "/var/lib x/y").expect("a mount").point, "/var/lib x");
        assert_eq!(mount_of(text, "/run").expect("a mount").kind, "erofs");
        assert_eq!(mount_of("", "/var"), None);
    }

    #[test]
    fn small_files_are_read() {
        assert_eq!(filesystems("nodev\tsysfs\n\text4\n"), ["ext4".to_owned(), "sysfs".to_owned()].into());
        assert_eq!(memory_total("MemTotal:        2014440 kB\nMemFree: 1 kB\n"), Some(2014440 * 1024));
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
        assert_eq!(cpu_list("0\n"), Some(1));
        assert_eq!(cpu_list("0-3,8,10-11\n"), Some(7));
        assert_eq!(cpu_list("3-0"), None);
        assert_eq!(cpuinfo_processors("processor\t: 0\nmodel\t: x\nprocessor\t: 1\n"), Some(2));
        assert_eq!(cpuinfo_processors(""), None);
        let swap = "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/sda3 partition\t2097148\t0\t-2\n";
        assert_eq!(swaps(swap), [Swap { path: "/dev/sda3".into(), bytes: 2097148 * 1024 }]);
        assert_eq!(module_name("kernel/net/bridge/br_netfilter.ko.xz").as_deref(), Some("br_netfilter"));
        assert_eq!(module_name("kernel/drivers/md/dm-verity.ko").as_deref(), Some("dm_verity"));
        assert_eq!(module_name("kernel/x"), None);
        let servers = "# nameserver 9.9.9.9\nsearch x\nnameserver 10.0.2.3\nnameserver fe80::1%eth0\nnameserver x\n";
        let expected: [IpAddr; 2] = ["10.0.2.3".parse().expect("v4"), "fe80::1".parse().expect("v6")];
        assert_eq!(name_servers(servers), expected);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "(?s).{0,300}") {
            filesystems(&text);
            memory_total(&text);
            cpu_list(&text);
            swaps(&text);
            mount_of(&text, "/var");
            routes_ipv4(&text);
            routes_ipv6(&text);
            addresses_ipv6(&text);
            listeners(&text);
            name_servers(&text);
            module_name(&text);
        }
    }
}
