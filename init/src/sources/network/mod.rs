//! `network-config`: cloud-init's versions 1 and 2 → files for systemd-networkd.
//!
//! Ethernet interfaces with DHCP, fixed addresses, routes, name servers and MTU. What a machine could not be reached
//! without (bonds, bridges, VLANs) is an error, not a warning: half a network is worse than a clear message.

mod render;
mod version1;
mod version2;

use std::net::IpAddr;

use super::tree::{Data, Node};
use super::{Layout, text, tree, unreadable};
use crate::settings::{Fragment, Origin, Problem, Source, Warning, quoted};

/// Most interfaces, and most entries of a list, that are read.
const ENTRIES: usize = 128;

/// An interface as asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Link {
    /// What the document calls it.
    id: String,
    /// How it is recognised: by hardware address, else by name (with `*` and `?`), and driver.
    mac: Option<String>,
    name: Option<String>,
    driver: Option<String>,
    dhcp4: bool,
    dhcp6: bool,
    accept_ra: Option<bool>,
    /// Addresses with prefix.
    addresses: Vec<(IpAddr, u8)>,
    routes: Vec<Route>,
    dns: Vec<IpAddr>,
    search: Vec<String>,
    mtu: Option<u32>,
    optional: bool,
}

/// A route of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    /// None is the default route.
    to: Option<(IpAddr, u8)>,
    via: Option<IpAddr>,
    metric: Option<u32>,
    on_link: bool,
}

/// Reads and renders a volume's network file.
pub fn parse(source: Source, layout: Layout, bytes: &[u8]) -> Fragment {
    let mut fragment = Fragment::empty(source);
    if layout == Layout::ConfigDrive {
        let origin = Origin::whole(fragment.source.clone());
        let text = "network_data.json is not supported and was not applied; the network is set up by DHCP".to_owned();
        fragment.warnings.push(Warning { origin, text });
        return fragment;
    }
    let Some(text) = text(&mut fragment, bytes) else { return fragment };
    match tree::yaml(text) {
        Ok(node) => read(&mut fragment, &node),
        Err(error) => unreadable(&mut fragment, error, "YAML"),
    }
    fragment
}

fn read(fragment: &mut Fragment, document: &Node) {
    let node = document.get("network").unwrap_or(document);
    if node.data == Data::Nothing {
        return;
    }
    if node.get("config").and_then(Node::as_text) == Some("disabled") {
        return;
    }
    let mut reader = Reader { fragment, links: Vec::new() };
    match node.get("version").and_then(Node::as_text) {
        Some("1") => version1::read(&mut reader, node),
        Some("2") => version2::read(&mut reader, node),
        _ => reader.wrong("version", node.get("version").unwrap_or(node), "version: 1 or version: 2"),
    }
    let links = reader.links;
    if !links.is_empty() {
        let origin = Origin::at(&fragment.source, document.line);
        fragment.os.network = Some((origin, links.iter().map(render::network_file).collect()));
    }
}

/// Collects interfaces and problems.
struct Reader<'a> {
    fragment: &'a mut Fragment,
    links: Vec<Link>,
}

impl Reader<'_> {
    fn wrong(&mut self, key: &str, node: &Node, expected: &str) {
        let found = node.as_text().map_or_else(|| node.kind().to_owned(), quoted);
        let mut problem = Problem::source(Origin::at(&self.fragment.source, node.line), found, expected);
        problem.key = Some(format!("network-config {key}"));
        self.fragment.problems.push(problem);
    }

    fn not_applied(&mut self, key: &str, node: &Node) {
        let origin = Origin::at(&self.fragment.source, node.line);
        let text = format!("network-config key {key} is not supported and was not applied");
        self.fragment.warnings.push(Warning { origin, text });
    }

    fn flag(&mut self, key: &str, node: &Node) -> bool {
        match node.as_text() {
            Some("true" | "yes" | "on") => true,
            Some("false" | "no" | "off") => false,
            _ => {
                self.wrong(key, node, "true or false");
                false
            }
        }
    }

    fn number(&mut self, key: &str, node: &Node, most: u32) -> Option<u32> {
        let number = node.as_text().and_then(|text| text.parse().ok()).filter(|number| *number <= most);
        if number.is_none() {
            self.wrong(key, node, &format!("a number from 0 to {most}"));
        }
        number
    }

    fn address(&mut self, key: &str, node: &Node) -> Option<IpAddr> {
        let address = node.as_text().and_then(|text| text.trim().parse().ok());
        if address.is_none() {
            self.wrong(key, node, "an IP address");
        }
        address
    }

    /// `address/prefix`; without a prefix a single address.
    fn block(&mut self, key: &str, node: &Node) -> Option<(IpAddr, u8)> {
        let block = node.as_text().and_then(|text| block(text.trim()));
        if block.is_none() {
            self.wrong(key, node, "an address with its prefix, such as 192.168.1.10/24");
        }
        block
    }

    /// The texts of a list, or of a text with blanks.
    fn items<'n>(&mut self, key: &str, node: &'n Node) -> Vec<&'n Node> {
        match &node.data {
            Data::List(items) => items.iter().take(ENTRIES).collect(),
            Data::Text(_) => vec![node],
            Data::Nothing => Vec::new(),
            _ => {
                self.wrong(key, node, "a list");
                Vec::new()
            }
        }
    }

    fn domains(&mut self, key: &str, node: &Node) -> Vec<String> {
        let mut out = Vec::new();
        for item in self.items(key, node) {
            let text = item.as_text().unwrap_or_default();
            for word in text.split_ascii_whitespace() {
                if crate::settings::is_dns_name(&word.to_ascii_lowercase()) {
                    out.push(word.to_owned());
                } else {
                    self.wrong(key, item, "a DNS domain");
                }
            }
        }
        out
    }

    fn addresses(&mut self, key: &str, node: &Node) -> Vec<IpAddr> {
        self.items(key, node).into_iter().filter_map(|item| self.address(key, item)).collect()
    }

    fn mac(&mut self, key: &str, node: &Node) -> Option<String> {
        let text = node.as_text().map(str::to_ascii_lowercase).filter(|text| is_mac(text));
        if text.is_none() {
            self.wrong(key, node, "a hardware address such as 52:54:00:12:34:56");
        }
        text
    }

    fn interface(&mut self, key: &str, node: &Node) -> Option<String> {
        let text = node.as_text().filter(|text| is_interface(text)).map(str::to_owned);
        if text.is_none() {
            self.wrong(key, node, "an interface name of at most 15 characters, or a pattern with * and ?");
        }
        text
    }
}

fn block(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(width);
    (prefix <= width).then_some((address, prefix))
}

fn is_mac(text: &str) -> bool {
    let pairs: Vec<&str> = text.split(':').collect();
    pairs.len() == 6 && pairs.iter().all(|pair| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_interface(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'*' | b'?' | b'@'))
        && text != "."
        && text != ".."
}

#[cfg(test)]
mod tests;
