//! Whether the network has come to rest: an address that is there may be about to go, or to get company.

use std::fmt;
use std::time::Duration;

use super::{Fact, Facts, Link, NodeAddress};
use crate::settings::{NetworkFile, Settings};

/// How long another interface's answer is waited for once there is an address.
pub const OTHERS: Duration = Duration::from_secs(10);

/// Why an address that is there should not be taken yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unrest {
    /// The network-config says how its interface is to be set up, and that has not been done: the address may come from
    /// what was there before, DHCP most likely.
    NotAsGiven {
        /// The interface.
        interface: String,
        /// The file that says how.
        file: String,
        /// What systemd-networkd does instead.
        found: String,
    },
    /// Other interfaces may get an address that is to be preferred.
    Others(Vec<String>),
}

impl fmt::Display for Unrest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unrest::NotAsGiven { interface, file, found } => {
                write!(f, "{interface} is not set up by {file} yet: {found}")
            }
            Unrest::Others(names) => write!(f, "{} may still get an address", names.join(", ")),
        }
    }
}

impl Unrest {
    /// Whether to take the address all the same, when it has been there for `there`.
    pub fn is_over(&self, there: Duration) -> bool {
        match self {
            Unrest::NotAsGiven { .. } => false,
            Unrest::Others(_) => there >= OTHERS,
        }
    }
}

impl Facts {
    /// Why `address` should not be taken yet; none when it can be. One that somebody chose always can.
    pub fn unrest(&self, settings: &Settings, address: &NodeAddress) -> Option<Unrest> {
        let Fact::Known(network) = &self.network else { return None };
        let is_pinned = self.pinned.as_ref().is_some_and(|pinned| pinned.address == address.ip);
        if is_pinned || settings.node.ip.is_some() {
            return None;
        }
        let ipv4 = settings.cluster.pod_cidr.address.is_ipv4();
        let link = network.links.iter().find(|link| link.name == address.interface);
        if let Some(link) = link
            && let Some(file) = given(&settings.os.network, link)
            && (link.file != file || link.state != "configured")
        {
            let found = match link.file.as_str() {
                "" => format!("systemd-networkd says {}", link.state),
                other => format!("systemd-networkd says {} by {other}", link.state),
            };
            return Some(Unrest::NotAsGiven { interface: link.name.clone(), file: file.to_owned(), found });
        }
        let has_route = |link: &Link| network.default_routes(ipv4).iter().any(|route| route.interface == link.name);
        let others = network.links.iter().filter(|link| link.name != address.interface && link.is_coming());
        let others: Vec<String> = others.filter(|link| !has_route(link)).map(|link| link.name.clone()).collect();
        (!others.is_empty()).then_some(Unrest::Others(others))
    }
}

impl Link {
    /// Whether systemd-networkd is still at it, on a card that is plugged in.
    fn is_coming(&self) -> bool {
        self.ethernet && self.carrier && matches!(self.state.as_str(), "pending" | "initialized" | "configuring")
    }
}

/// The file that systemd-networkd will choose for a link: the first by name that matches.
fn given<'a>(files: &'a [NetworkFile], link: &Link) -> Option<&'a str> {
    files.iter().filter(|file| concerns(file, link)).map(|file| file.name.as_str()).min()
}

/// Whether a file that kubeboot made (`sources::network`) is for a link. One that goes by the driver alone, which is
/// not known here, counts as for none.
fn concerns(file: &NetworkFile, link: &Link) -> bool {
    let matches = file.text.lines().skip_while(|line| *line != "[Match]").skip(1);
    let matches: Vec<(&str, &str)> =
        matches.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once('=')).collect();
    let mut known = false;
    for (name, value) in matches {
        let fits = match name {
            "MACAddress" => value.eq_ignore_ascii_case(&link.mac),
            "Name" => glob(value.as_bytes(), link.name.as_bytes()),
            _ => continue,
        };
        if !fits {
            return false;
        }
        known = true;
    }
    known
}

/// Whether a pattern with `*` and `?` fits a name.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => glob(rest, name),
        (Some((b'*', rest)), Some((_, tail))) => glob(rest, name) || glob(pattern, tail),
        (Some((b'?', rest)), Some((_, tail))) => glob(rest, tail),
        (Some((wanted, rest)), Some((found, tail))) => wanted == found && glob(rest, tail),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Network, Route, sample};
    use crate::settings::Source;
    use crate::sources::{Layout, network};

    fn link(name: &str, state: &str, file: &str) -> Link {
        let (state, file) = (state.to_owned(), file.to_owned());
        let mac = if name == "eth0" { "52:54:00:aa:bb:01" } else { "52:54:00:aa:bb:02" }.to_owned();
        Link { name: name.to_owned(), mac, ethernet: true, carrier: true, state, file }
    }

    fn facts(links: Vec<Link>) -> Facts {
        Facts { network: Fact::Known(Network { links, ..sample::network() }), ..sample::facts() }
    }

    fn unrest(links: Vec<Link>, settings: &Settings) -> Option<Unrest> {
        let facts = facts(links);
        facts.unrest(settings, &facts.node_address(settings).expect("an address"))
    }

    /// The files that a network-config becomes.
    fn files(text: &str) -> Vec<NetworkFile> {
        let fragment = network::parse(Source::Baked, Layout::NoCloud, text.as_bytes());
        assert_eq!(fragment.problems, []);
        fragment.os.network.expect("files").1
    }

    const DHCP: &str = "80-kubeboot-ethernet.network";

    #[test]
    fn a_network_config_is_waited_for_until_its_interface_is_set_up_by_it() {
        let by_mac =
            "version: 2\nethernets:\n  lan: {match: {macaddress: '52:54:00:AA:BB:01'}, addresses: [10.0.2.15/24]}\n";
        let by_name = "version: 2\nethernets:\n  lan: {match: {name: 'eth*'}, addresses: [10.0.2.15/24]}\n";
        for text in [by_mac, by_name] {
            let mut settings = sample::settings();
            settings.os.network = files(text);
            let file = settings.os.network[0].name.clone();
            let states = [("configured", DHCP), ("pending", ""), ("configuring", file.as_str()), ("failed", &file)];
            for (state, by) in states {
                let unrest = unrest(vec![link("eth0", state, by)], &settings).expect("not yet");
                assert!(matches!(&unrest, Unrest::NotAsGiven { .. }) && !unrest.is_over(OTHERS), "{state}: {unrest}");
            }
            assert_eq!(unrest(vec![link("eth0", "configured", &file)], &settings), None);
            settings.node.ip = Some([10, 0, 2, 15].into());
            assert_eq!(unrest(vec![link("eth0", "pending", "")], &settings), None, "somebody chose it");
        }
    }

    #[test]
    fn a_network_config_for_another_interface_is_no_reason_to_wait() {
        let mut settings = sample::settings();
        settings.os.network = files("version: 2\nethernets:\n  eth7: {dhcp4: true}\n");
        assert_eq!(unrest(vec![link("eth0", "configuring", DHCP)], &settings), None);
    }

    #[test]
    fn another_card_that_is_plugged_in_is_waited_for_but_not_for_ever() {
        let settings = sample::settings();
        let uplink = link("eth0", "configuring", DHCP);
        assert_eq!(unrest(vec![uplink.clone()], &settings), None, "the uplink's own IPv6 is no reason");
        let other = link("eth1", "configuring", DHCP);
        let found = unrest(vec![uplink.clone(), other.clone()], &settings).expect("eth1 may be the better one");
        assert_eq!(found, Unrest::Others(vec!["eth1".into()]));
        assert!(!found.is_over(OTHERS / 2) && found.is_over(OTHERS));
        for settled in [
            link("eth1", "configured", DHCP),
            Link { carrier: false, ..other.clone() },
            Link { ethernet: false, ..other.clone() },
        ] {
            assert_eq!(unrest(vec![uplink.clone(), settled], &settings), None);
        }
        let mut facts = facts(vec![uplink, other]);
        let Fact::Known(network) = &mut facts.network else { panic!("known") };
        let route = Route { interface: "eth1".into(), ..network.routes[0].clone() };
        network.routes.insert(0, route);
        let address = facts.node_address(&settings).expect("an address");
        assert_eq!(address.interface, "eth0", "of equal routes the first by name");
        assert_eq!(facts.unrest(&settings, &address), None, "eth1 has got what it asked for");
    }
}
