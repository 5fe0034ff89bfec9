//! Version 1: cloud-init's own form, a list of devices with subnets.

use std::net::IpAddr;

use super::{ENTRIES, Link, Reader, Route, block};
use crate::sources::tree::{Data, Node};

pub fn read(reader: &mut Reader<'_>, node: &Node) {
    let Some(Node { data: Data::List(items), .. }) = node.get("config") else {
        return reader.wrong("config", node, "a list of devices");
    };
    let (mut dns, mut search) = (Vec::new(), Vec::new());
    for item in items.iter().take(ENTRIES) {
        match item.get("type").and_then(Node::as_text) {
            Some("physical") => {
                if let Some(link) = physical(reader, item) {
                    reader.links.push(link);
                }
            }
            Some("loopback") => {}
            Some("nameserver") => {
                dns.extend(item.get("address").map(|node| reader.addresses("nameserver.address", node)));
                search.extend(item.get("search").map(|node| reader.domains("nameserver.search", node)));
            }
            Some("bond" | "bridge" | "vlan" | "route") => {
                reader.wrong(
                    "type",
                    item.get("type").unwrap_or(item),
                    "physical: this release sets up Ethernet interfaces only",
                );
            }
            _ => reader.wrong("type", item.get("type").unwrap_or(item), "physical or nameserver"),
        }
    }
    // Name servers without an interface serve all of them.
    for link in &mut reader.links {
        link.dns.extend(dns.iter().flatten());
        link.search.extend(search.iter().flatten().cloned());
    }
}

fn physical(reader: &mut Reader<'_>, node: &Node) -> Option<Link> {
    let mut link = Link::default();
    let Data::Map(entries) = &node.data else { return None };
    for (key, value) in entries {
        match key.as_str() {
            "type" => {}
            "name" => link.id = reader.interface("name", value)?,
            "mac_address" => link.mac = reader.mac("mac_address", value),
            "mtu" => link.mtu = reader.number("mtu", value, 65535),
            "accept-ra" => link.accept_ra = Some(reader.flag("accept-ra", value)),
            "subnets" => {
                for item in reader.items("subnets", value) {
                    subnet(reader, &mut link, item);
                }
            }
            other => reader.not_applied(&format!("physical.{other}"), value),
        }
    }
    if link.id.is_empty() {
        reader.wrong("name", node, "a device with a name");
        return None;
    }
    if link.mac.is_none() {
        link.name = Some(link.id.clone());
    }
    Some(link)
}

fn subnet(reader: &mut Reader<'_>, link: &mut Link, node: &Node) {
    let Data::Map(entries) = &node.data else {
        return reader.wrong("subnets", node, "a group with type");
    };
    match node.get("type").and_then(Node::as_text) {
        Some("dhcp" | "dhcp4") => link.dhcp4 = true,
        Some("dhcp6" | "ipv6_dhcpv6-stateful" | "ipv6_dhcpv6-stateless") => link.dhcp6 = true,
        Some("ipv6_slaac") => link.accept_ra = Some(true),
        Some("manual") => {}
        Some("static" | "static6") => static_address(reader, link, node),
        _ => {
            return reader.wrong(
                "subnets.type",
                node.get("type").unwrap_or(node),
                "dhcp, dhcp4, dhcp6, static, static6 or manual",
            );
        }
    }
    for (key, value) in entries {
        match key.as_str() {
            "type" | "address" | "netmask" => {}
            "control" if matches!(value.as_text(), Some("auto")) => {}
            "gateway" => {
                let via = reader.address("subnets.gateway", value);
                link.routes.extend(via.map(|via| Route { to: None, via: Some(via), metric: None, on_link: false }));
            }
            "dns_nameservers" => link.dns.extend(reader.addresses("subnets.dns_nameservers", value)),
            "dns_search" => link.search.extend(reader.domains("subnets.dns_search", value)),
            "routes" => {
                for item in reader.items("subnets.routes", value) {
                    link.routes.extend(route(reader, item));
                }
            }
            other => reader.not_applied(&format!("subnets.{other}"), value),
        }
    }
}

fn static_address(reader: &mut Reader<'_>, link: &mut Link, node: &Node) {
    let Some(address) = node.get("address") else {
        return reader.wrong("subnets.address", node, "an address, because the type is static");
    };
    let Some((ip, mut prefix)) = reader.block("subnets.address", address) else { return };
    if let Some(mask) = node.get("netmask") {
        match mask.as_text().and_then(prefix_of_mask) {
            Some(length) => prefix = length,
            None => reader.wrong("subnets.netmask", mask, "a mask such as 255.255.255.0"),
        }
    }
    link.addresses.push((ip, prefix));
}

/// The prefix length that a mask stands for; also a plain length.
fn prefix_of_mask(text: &str) -> Option<u8> {
    if let Ok(length) = text.parse::<u8>() {
        return (length <= 128).then_some(length);
    }
    let IpAddr::V4(mask) = text.parse().ok()? else { return None };
    let bits = u32::from(mask);
    (bits.leading_ones() + bits.trailing_zeros() >= 32).then(|| u8::try_from(bits.leading_ones()).ok())?
}

fn route(reader: &mut Reader<'_>, node: &Node) -> Option<Route> {
    let text = |name: &str| node.get(name).and_then(Node::as_text);
    let network = node.get("network").or_else(|| node.get("destination"))?;
    let to = match (text("network").or_else(|| text("destination")), text("netmask").and_then(prefix_of_mask)) {
        (Some("0.0.0.0" | "::"), Some(0)) | (Some("0.0.0.0/0" | "::/0" | "default"), _) => None,
        (Some(address), Some(prefix)) => Some((address.parse().ok()?, prefix)),
        (Some(address), None) => match block(address) {
            Some(block) => Some(block),
            None => {
                reader.wrong("routes.network", network, "a network such as 10.0.0.0/8");
                return None;
            }
        },
        (None, _) => {
            reader.wrong("routes.network", network, "a network such as 10.0.0.0/8");
            return None;
        }
    };
    let via = node.get("gateway").and_then(|node| reader.address("routes.gateway", node));
    let metric = node.get("metric").and_then(|node| reader.number("routes.metric", node, u32::MAX));
    Some(Route { to, via, metric, on_link: false })
}
