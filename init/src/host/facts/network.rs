//! Interfaces, addresses and routes.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use super::{Root, names, text, text_or_empty};
use crate::facts::{Address, Interface, Link, Network, procfs};

/// IPv4 addresses by interface. The kernel has no file that lists them; getifaddrs(3) asks it.
pub type Ipv4 = Vec<(String, Address)>;

/// Asks the kernel for IPv4 addresses.
pub(super) fn ipv4_addresses() -> Result<Ipv4, String> {
    let all = getifaddrs().map_err(|error| format!("can't list addresses: getifaddrs: {error}"))?;
    Ok(all
        .filter_map(|entry| {
            let ip = entry.address?.as_sockaddr_in()?.ip();
            let mask = entry.netmask?.as_sockaddr_in()?.ip();
            let prefix = u8::try_from(u32::from(mask).leading_ones()).ok()?;
            Some((entry.interface_name, Address { ip: IpAddr::V4(ip), prefix }))
        })
        .collect())
}

/// Puts addresses, interfaces and routes together.
pub(super) fn gather(root: &Root, ipv4: Result<Ipv4, String>) -> Result<Network, String> {
    // A kernel without IPv6 has neither of these two files.
    let ipv6 = procfs::addresses_ipv6(&text_or_empty(root, "/proc/net/if_inet6"));
    let routes_ipv6 = procfs::routes_ipv6(&text_or_empty(root, "/proc/net/ipv6_route"));
    let addresses: Vec<(String, Address)> = ipv4?.into_iter().chain(ipv6).collect();
    let interface = |name: String| {
        let field = |what: &str| field(root, &name, what);
        let (mtu, mac) = (field("mtu").parse().unwrap_or_default(), field("address"));
        let own = |(owner, address): &(String, Address)| (*owner == name).then_some(*address);
        let addresses = addresses.iter().filter_map(own).collect();
        Interface { mtu, mac, addresses, name }
    };
    let mut routes = procfs::routes_ipv4(&text(root, "/proc/net/route")?);
    routes.extend(routes_ipv6);
    // An interface without address or route says nothing; a busy node has one for each pod.
    let matters = |name: &String| {
        addresses.iter().any(|(owner, _)| owner == name) || routes.iter().any(|route| route.interface == *name)
    };
    let names = names(&root.path("/sys/class/net"));
    let links = names.iter().filter_map(|name| link(root, name)).collect();
    let interfaces = names.into_iter().filter(matters).map(interface).collect();
    Ok(Network { interfaces, routes, links })
}

fn field(root: &Root, interface: &str, field: &str) -> String {
    text_or_empty(root, &format!("/sys/class/net/{interface}/{field}")).trim().to_owned()
}

/// The hardware type of Ethernet (`ARPHRD_ETHER` in linux/if_arp.h).
const ETHER: &str = "1";

/// What systemd-networkd keeps of a link for sd-network (systemd's src/network/networkd-state-file.c); none where it
/// keeps nothing.
fn link(root: &Root, name: &str) -> Option<Link> {
    let field = |what: &str| field(root, name, what);
    let state = text(root, &format!("/run/systemd/netif/links/{}", field("ifindex"))).ok()?;
    let value =
        |key: &str| state.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
    Some(Link {
        name: name.to_owned(),
        mac: field("address"),
        ethernet: field("type") == ETHER,
        // A link that is down has no such value.
        carrier: field("carrier") == "1",
        state: value("ADMIN_STATE").to_owned(),
        file: value("NETWORK_FILE").rsplit('/').next().unwrap_or_default().to_owned(),
    })
}
