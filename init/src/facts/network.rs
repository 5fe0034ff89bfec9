//! Interfaces, addresses and routes, and the choice of the node's address.

use std::fmt;
use std::net::IpAddr;

use super::Facts;
use crate::settings::{Cidr, Role, Settings};

/// The machine's own network, without what the node's pods add to it at run time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Every interface.
    pub interfaces: Vec<Interface>,
    /// Routes of the main table that are up: IPv4, then IPv6.
    pub routes: Vec<Route>,
    /// What systemd-networkd says of each interface that it knows.
    pub links: Vec<Link>,
}

/// An interface as systemd-networkd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Name, such as `eth0`.
    pub name: String,
    /// Hardware address, such as `52:54:00:12:34:56`; empty if there is none.
    pub mac: String,
    /// Whether it is of Ethernet's kind.
    pub ethernet: bool,
    /// Whether a cable, or what stands for one, is plugged in.
    pub carrier: bool,
    /// How far it is, as in networkctl(1): `pending`, `configuring`, `configured`, `unmanaged`, …
    pub state: String,
    /// Name of the systemd.network(5) file that it is set up by, without its folder; empty while there is none.
    pub file: String,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name, such as `eth0`.
    pub name: String,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Hardware address, such as `52:54:00:12:34:56`; empty if there is none.
    pub mac: String,
    /// In the kernel's order.
    pub addresses: Vec<Address>,
}

/// One address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix in bits.
    pub prefix: u8,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to; a prefix of 0 is the default route.
    pub destination: Cidr,
    /// Through whom; none for a network that the interface is on.
    pub gateway: Option<IpAddr>,
    /// Through which interface.
    pub interface: String,
    /// The lowest is taken.
    pub metric: u32,
}

/// The address by which other nodes reach this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// The address.
    pub ip: IpAddr,
    /// Interface that has it.
    pub interface: String,
    /// That interface's MTU in bytes.
    pub mtu: u32,
}

/// Why there is no node address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoNodeAddress {
    /// Nothing is known of the network.
    Unknown(String),
    /// No route leads out of the machine, in the address family of the pods.
    NoDefaultRoute,
    /// The interface of the default route has no address that other machines can use.
    NoAddress(String),
    /// `node.ip` is on no interface.
    NotHere(IpAddr),
    /// The address that the node has had since it was set up is on no interface any more.
    Moved(IpAddr),
    /// `node.ip` is of another family than `cluster.pod-cidr`, or can't be reached from elsewhere.
    Unusable(IpAddr),
}

impl fmt::Display for NoNodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoNodeAddress::Unknown(why) => write!(f, "{why}"),
            NoNodeAddress::NoDefaultRoute => f.write_str("no default route"),
            NoNodeAddress::NoAddress(interface) => {
                write!(f, "the default route leads through {interface}, which has no usable address")
            }
            NoNodeAddress::NotHere(ip) => write!(f, "node.ip is {ip}, which no interface has"),
            NoNodeAddress::Moved(ip) => write!(f, "this node's address is {ip}, which no interface has any more"),
            NoNodeAddress::Unusable(ip) => write!(f, "node.ip is {ip}, which other nodes can't use"),
        }
    }
}

impl Facts {
    /// The node's address: the pinned one, else `node.ip`, else the first address of the default route's interface, in
    /// the family of `cluster.pod-cidr`. A worker whose pinned address is gone takes another: only a control plane's is in
    /// etcd, and what a worker's certificate says it gets again.
    ///
    /// # Errors
    /// Why there is none.
    pub fn node_address(&self, settings: &Settings) -> Result<NodeAddress, NoNodeAddress> {
        let network = match &self.network {
            super::Fact::Known(network) => network,
            super::Fact::Unknown(why) => return Err(NoNodeAddress::Unknown(why.clone())),
        };
        let ipv4 = settings.cluster.pod_cidr.address.is_ipv4();
        if let Some(pinned) = &self.pinned {
            match network.at(pinned.address) {
                Some(address) => return Ok(address),
                None if settings.role == Some(Role::Worker) => {}
                None => return Err(NoNodeAddress::Moved(pinned.address)),
            }
        }
        match settings.node.ip {
            Some(ip) if ip.is_ipv4() != ipv4 || local_only(ip) => Err(NoNodeAddress::Unusable(ip)),
            Some(ip) => network.at(ip).ok_or(NoNodeAddress::NotHere(ip)),
            None => network.chosen(ipv4),
        }
    }

    /// [`Facts::node_address`] without the reason.
    pub fn node_ip(&self, settings: &Settings) -> Option<IpAddr> {
        self.node_address(settings).ok().map(|address| address.ip)
    }
}

impl Network {
    /// Default routes of a family, the one that the kernel takes first; of equal ones the first by interface.
    pub fn default_routes(&self, ipv4: bool) -> Vec<&Route> {
        let mut routes: Vec<&Route> = self
            .routes
            .iter()
            .filter(|route| route.destination.prefix == 0 && route.destination.address.is_ipv4() == ipv4)
            .collect();
        routes.sort_by_key(|route| (route.metric, &route.interface));
        routes
    }

    /// Networks that are this machine's neighbours or that it has routes to, without the default route, the loopback
    /// and what a node's own services add; each with its interface.
    pub fn host_networks(&self) -> Vec<(Cidr, &str)> {
        let on_links = self.interfaces.iter().flat_map(|interface| {
            let cidr = |address: &Address| Cidr { address: masked(address.ip, address.prefix), prefix: address.prefix };
            interface.addresses.iter().map(move |address| (cidr(address), interface.name.as_str()))
        });
        let routed = self.routes.iter().map(|route| (route.destination, route.interface.as_str()));
        let mut networks: Vec<(Cidr, &str)> = Vec::new();
        for (cidr, interface) in on_links.chain(routed) {
            let seen = networks.iter().any(|(known, _)| known.overlaps(&cidr) && known.prefix <= cidr.prefix);
            if cidr.prefix > 0 && !is_of_the_node(interface) && !local_only(cidr.address) && !seen {
                networks.push((cidr, interface));
            }
        }
        networks
    }

    fn at(&self, ip: IpAddr) -> Option<NodeAddress> {
        let has = |interface: &&Interface| interface.addresses.iter().any(|address| address.ip == ip);
        let interface = self.interfaces.iter().find(has)?;
        Some(NodeAddress { ip, interface: interface.name.clone(), mtu: interface.mtu })
    }

    fn chosen(&self, ipv4: bool) -> Result<NodeAddress, NoNodeAddress> {
        let routes = self.default_routes(ipv4);
        let route = routes.first().ok_or(NoNodeAddress::NoDefaultRoute)?;
        let none = || NoNodeAddress::NoAddress(route.interface.clone());
        let interface = self.interfaces.iter().find(|known| known.name == route.interface).ok_or_else(none)?;
        let usable = |address: &&Address| address.ip.is_ipv4() == ipv4 && !local_only(address.ip);
        // An interface may have addresses in several networks: the gateway's is the one that packets leave with.
        let beside = |address: &&Address| {
            let cidr = Cidr { address: address.ip, prefix: address.prefix };
            usable(address) && route.gateway.is_some_and(|gateway| cidr.contains(gateway))
        };
        let addresses = &interface.addresses;
        let address = addresses.iter().find(beside).or_else(|| addresses.iter().find(usable)).ok_or_else(none)?;
        Ok(NodeAddress { ip: address.ip, interface: interface.name.clone(), mtu: interface.mtu })
    }
}

/// Interfaces that the CNI plugins, flannel and kube-proxy make on a running node.
fn is_of_the_node(interface: &str) -> bool {
    interface == "lo" || ["cni", "flannel", "kube-", "veth"].iter().any(|prefix| interface.starts_with(prefix))
}

/// Loopback, link-local, unspecified and multicast addresses: no other machine can use them for this one.
fn local_only(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast(),
    }
}

/// The first `prefix` bits of an address, the rest zero.
fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Fact, Pinned, sample};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_node_has_the_address_of_its_default_route() {
        let (facts, settings) = (sample::facts(), sample::settings());
        let expected = NodeAddress { ip: ip("10.0.2.15"), interface: "eth0".into(), mtu: 1500 };
        assert_eq!(facts.node_address(&settings), Ok(expected));
        assert_eq!(facts.node_ip(&settings), Some(ip("10.0.2.15")));
    }

    #[test]
    fn the_address_beside_the_gateway_is_taken_whatever_the_order() {
        let (mut facts, settings) = (sample::facts(), sample::settings());
        let mut network = sample::network();
        let other = Address { ip: ip("192.168.7.1"), prefix: 24 };
        network.interfaces[1].addresses.insert(0, other);
        facts.network = Fact::Known(network.clone());
        assert_eq!(facts.node_ip(&settings), Some(ip("10.0.2.15")));
        network.routes[0].gateway = None;
        facts.network = Fact::Known(network);
        assert_eq!(facts.node_ip(&settings), Some(ip("192.168.7.1")), "a route without gateway: the first");
    }

    #[test]
    fn the_lowest_metric_wins() {
        let (mut facts, settings) = (sample::facts(), sample::settings());
        let mut network = sample::network();
        let address = Address { ip: ip("192.168.7.9"), prefix: 24 };
        network.interfaces.push(Interface {
            name: "eth1".into(),
            mtu: 9000,
            mac: String::new(),
            addresses: vec![address],
        });
        let gateway = Some(ip("192.168.7.1"));
        network.routes.push(Route {
            destination: sample::cidr("0.0.0.0/0"),
            gateway,
            interface: "eth1".into(),
            metric: 5,
        });
        facts.network = Fact::Known(network);
        let chosen = facts.node_address(&settings).expect("an address");
        assert_eq!((chosen.ip, chosen.interface.as_str(), chosen.mtu), (ip("192.168.7.9"), "eth1", 9000));
    }

    #[test]
    fn each_way_to_have_no_address_is_told_apart() {
        let (mut facts, mut settings) = (sample::facts(), sample::settings());
        settings.node.ip = Some(ip("10.9.9.9"));
        assert_eq!(facts.node_address(&settings), Err(NoNodeAddress::NotHere(ip("10.9.9.9"))));
        settings.node.ip = Some(ip("127.0.0.1"));
        assert_eq!(facts.node_address(&settings), Err(NoNodeAddress::Unusable(ip("127.0.0.1"))));
        settings.node.ip = Some(ip("fec0::5"));
        assert_eq!(facts.node_address(&settings), Err(NoNodeAddress::Unusable(ip("fec0::5"))));
        let pinned = Pinned { name: "node-a".into(), address: ip("10.9.9.9") };
        facts.pinned = Some(pinned);
        assert_eq!(facts.node_address(&settings), Err(NoNodeAddress::Moved(ip("10.9.9.9"))));
        (facts.pinned, settings.node.ip) = (None, None);
        let mut network = sample::network();
        network.interfaces[1].addresses[0] = Address { ip: ip("169.254.3.4"), prefix: 16 };
        facts.network = Fact::Known(network.clone());
        assert_eq!(facts.node_address(&settings), Err(NoNodeAddress::NoAddress("eth0".into())));
        network.routes.clear();
        facts.network = Fact::Known(network);
        assert_eq!(facts.node_address(&settings), Err(NoNodeAddress::NoDefaultRoute));
        facts.network = Fact::Unknown("no".into());
        assert_eq!(facts.node_address(&settings), Err(NoNodeAddress::Unknown("no".into())));
    }

    #[test]
    fn a_worker_whose_address_is_gone_takes_another_and_a_control_plane_waits_for_its_own() {
        let (mut facts, mut settings) = (sample::facts(), sample::settings());
        let pin = |address| Some(Pinned { name: "node-a".into(), address });
        let here = facts.node_address(&settings).unwrap();
        facts.pinned = pin(ip("10.9.9.9"));
        for (role, expected) in [
            (Role::Init, Err(NoNodeAddress::Moved(ip("10.9.9.9")))),
            (Role::ControlPlane, Err(NoNodeAddress::Moved(ip("10.9.9.9")))),
            (Role::Worker, Ok(here.clone())),
        ] {
            settings.role = Some(role);
            assert_eq!(facts.node_address(&settings), expected, "{role:?}");
        }
        settings.node.ip = Some(ip("10.9.9.9"));
        assert_eq!(facts.node_address(&settings), Err(NoNodeAddress::NotHere(ip("10.9.9.9"))), "one that was chosen");
        facts.pinned = pin(here.ip);
        assert_eq!(facts.node_address(&settings), Ok(here), "the pinned one is there");
    }

    #[test]
    fn an_ipv6_cluster_gets_an_ipv6_address() {
        let (mut facts, mut settings) = (sample::facts(), sample::settings());
        settings.cluster.pod_cidr = sample::cidr("fd00:10:244::/56");
        assert_eq!(facts.node_address(&settings), Err(NoNodeAddress::NoDefaultRoute));
        let mut network = sample::network();
        let addresses = &mut network.interfaces[1].addresses;
        addresses.push(Address { ip: ip("fe80::5054:ff:feaa:bb01"), prefix: 64 });
        addresses.push(Address { ip: ip("fec0::15"), prefix: 64 });
        let destination = sample::cidr("::/0");
        let gateway = Some(ip("fe80::2"));
        network.routes.push(Route { destination, gateway, interface: "eth0".into(), metric: 1024 });
        facts.network = Fact::Known(network);
        assert_eq!(facts.node_ip(&settings), Some(ip("fec0::15")));
    }

    #[test]
    fn host_networks_leave_out_what_the_node_adds_itself() {
        let mut network = sample::network();
        for (name, to) in [("cni0", "10.244.0.0/24"), ("flannel.1", "10.244.1.0/24"), ("eth0", "172.16.0.0/12")] {
            let destination = sample::cidr(to);
            network.routes.push(Route { destination, gateway: None, interface: name.into(), metric: 0 });
        }
        let shown: Vec<String> =
            network.host_networks().iter().map(|(cidr, interface)| format!("{cidr} {interface}")).collect();
        assert_eq!(shown, ["10.0.2.0/24 eth0", "172.16.0.0/12 eth0"]);
    }
}
