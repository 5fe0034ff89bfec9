//! Version 2: netplan's form.

use super::{ENTRIES, Link, Reader, Route};
use crate::sources::tree::{Data, Node};

pub fn read(reader: &mut Reader<'_>, node: &Node) {
    let Data::Map(entries) = &node.data else {
        return reader.wrong("network", node, "a group with version and ethernets");
    };
    for (key, value) in entries {
        match (key.as_str(), &value.data) {
            ("version", _) => {}
            ("renderer", Data::Text(text)) if text.as_str() == "networkd" => {}
            ("ethernets", Data::Map(ethernets)) => {
                for (id, body) in ethernets.iter().take(ENTRIES) {
                    if let Some(link) = ethernet(reader, id, body) {
                        reader.links.push(link);
                    }
                }
            }
            ("bonds" | "bridges" | "vlans" | "wifis" | "modems" | "tunnels" | "vrfs" | "ethernets", _) => {
                reader.wrong(key, value, "ethernets: this release sets up Ethernet interfaces only");
            }
            (other, _) => reader.not_applied(other, value),
        }
    }
}

fn ethernet(reader: &mut Reader<'_>, id: &str, body: &Node) -> Option<Link> {
    let Data::Map(entries) = &body.data else {
        reader.wrong("ethernets", body, "a group of keys such as dhcp4");
        return None;
    };
    let mut link = Link { id: id.to_owned(), ..Link::default() };
    for (key, value) in entries {
        match key.as_str() {
            "match" => matching(reader, &mut link, value),
            "dhcp4" => link.dhcp4 = reader.flag(key, value),
            "dhcp6" => link.dhcp6 = reader.flag(key, value),
            "accept-ra" => link.accept_ra = Some(reader.flag(key, value)),
            "optional" => link.optional = reader.flag(key, value),
            "mtu" => link.mtu = reader.number(key, value, 65535),
            "addresses" => {
                for item in reader.items(key, value) {
                    link.addresses.extend(reader.block(key, item));
                }
            }
            "gateway4" | "gateway6" => {
                let via = reader.address(key, value);
                link.routes.extend(via.map(|via| Route { to: None, via: Some(via), metric: None, on_link: false }));
            }
            "routes" => {
                for item in reader.items(key, value) {
                    link.routes.extend(route(reader, item));
                }
            }
            "nameservers" => {
                if let Some(value) = value.get("addresses") {
                    link.dns = reader.addresses("nameservers.addresses", value);
                }
                if let Some(value) = value.get("search") {
                    link.search = reader.domains("nameservers.search", value);
                }
            }
            other => reader.not_applied(&format!("ethernets.{id}.{other}"), value),
        }
    }
    if link.mac.is_none() && link.name.is_none() && link.driver.is_none() {
        link.name = reader.interface("ethernets", &Node { line: body.line, ..Node::text(id) });
        link.name.as_ref()?;
    }
    Some(link)
}

fn matching(reader: &mut Reader<'_>, link: &mut Link, node: &Node) {
    let Data::Map(entries) = &node.data else {
        return reader.wrong("match", node, "macaddress, name or driver");
    };
    for (key, value) in entries {
        match key.as_str() {
            "macaddress" => link.mac = reader.mac("match.macaddress", value),
            "name" => link.name = reader.interface("match.name", value),
            "driver" => {
                let good =
                    |text: &&str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'*'));
                match value.as_text().filter(good) {
                    Some(text) => link.driver = Some(text.to_owned()),
                    None => reader.wrong("match.driver", value, "a driver's name"),
                }
            }
            other => reader.not_applied(&format!("match.{other}"), value),
        }
    }
}

fn route(reader: &mut Reader<'_>, node: &Node) -> Option<Route> {
    let Data::Map(entries) = &node.data else {
        reader.wrong("routes", node, "a group with to and via");
        return None;
    };
    let mut route = Route { to: None, via: None, metric: None, on_link: false };
    for (key, value) in entries {
        match key.as_str() {
            "to" if matches!(value.as_text(), Some("default" | "0.0.0.0/0" | "::/0")) => {}
            "to" => route.to = Some(reader.block("routes.to", value)?),
            "via" => route.via = Some(reader.address("routes.via", value)?),
            "metric" => route.metric = reader.number("routes.metric", value, u32::MAX),
            "on-link" => route.on_link = reader.flag("routes.on-link", value),
            other => reader.not_applied(&format!("routes.{other}"), value),
        }
    }
    Some(route)
}
