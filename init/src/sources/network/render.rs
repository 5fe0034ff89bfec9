//! An interface as a systemd.network(5) file.

use std::fmt::Write as _;

use super::{Link, Route};
use crate::settings::NetworkFile;

/// The file. Its name sorts before the image's own, so it decides.
pub fn network_file(link: &Link) -> NetworkFile {
    let plain: String = link
        .id
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' })
        .take(40)
        .collect();
    NetworkFile { name: format!("10-kubeboot-{plain}.network"), text: text(link) }
}

fn text(link: &Link) -> String {
    let mut out = String::from("# Made by kubeboot from network-config.\n[Match]\n");
    line(&mut out, "MACAddress", link.mac.as_deref());
    line(&mut out, "Name", link.name.as_deref());
    line(&mut out, "Driver", link.driver.as_deref());
    if link.mtu.is_some() || link.optional {
        out += "\n[Link]\n";
    }
    line(&mut out, "MTUBytes", link.mtu);
    line(&mut out, "RequiredForOnline", link.optional.then_some("no"));
    out += "\n[Network]\n";
    let dhcp = match (link.dhcp4, link.dhcp6) {
        (true, true) => "yes",
        (true, false) => "ipv4",
        (false, true) => "ipv6",
        (false, false) => "no",
    };
    line(&mut out, "DHCP", Some(dhcp));
    line(&mut out, "IPv6AcceptRA", link.accept_ra.map(|yes| if yes { "yes" } else { "no" }));
    for (address, prefix) in &link.addresses {
        line(&mut out, "Address", Some(format!("{address}/{prefix}")));
    }
    for server in &link.dns {
        line(&mut out, "DNS", Some(server));
    }
    line(&mut out, "Domains", (!link.search.is_empty()).then(|| link.search.join(" ")));
    for route in &link.routes {
        out += &route_text(route);
    }
    out
}

fn route_text(route: &Route) -> String {
    let mut out = String::from("\n[Route]\n");
    line(&mut out, "Destination", route.to.map(|(address, prefix)| format!("{address}/{prefix}")));
    line(&mut out, "Gateway", route.via);
    line(&mut out, "GatewayOnLink", route.on_link.then_some("yes"));
    line(&mut out, "Metric", route.metric);
    out
}

fn line(out: &mut String, name: &str, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{name}={value}");
    }
}
