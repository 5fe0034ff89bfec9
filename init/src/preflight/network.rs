//! Rules over addresses, networks, ports and name servers.

use std::net::IpAddr;

use super::{Finding, Outcome, Severity, Subject, error, given, warning};
use crate::facts::ports::WATCHED;
use crate::facts::{NoNodeAddress, Socket};
use crate::settings::{Backend, Cidr, Role};

pub(super) fn node_address(subject: &Subject) -> Outcome {
    let facts = subject.facts;
    let network = match &facts.network {
        crate::facts::Fact::Known(network) => network,
        crate::facts::Fact::Unknown(why) => return Outcome::Unchecked(why.clone()),
    };
    let ipv4 = subject.settings.cluster.pod_cidr.address.is_ipv4();
    let routes = network.default_routes(ipv4);
    let family = if ipv4 { "IPv4" } else { "IPv6" };
    match facts.node_address(subject.settings) {
        Err(NoNodeAddress::NoDefaultRoute) if !network.default_routes(!ipv4).is_empty() => other_family(ipv4).into(),
        Err(problem) => error(problem.to_string(), address_fix(&problem, family)).into(),
        Ok(address) if routes.is_empty() => warning(
            format!("no {family} default route: programs on this node can't reach Services from {}", address.ip),
            "add a default route, even one that leads nowhere",
        )
        .into(),
        Ok(_) => match routes[..] {
            [first, second, ..]
                if first.metric == second.metric
                    && first.interface != second.interface
                    && subject.settings.node.ip.is_none()
                    && facts.pinned.is_none() =>
            {
                warning(
                    format!(
                        "two default routes are equal, through {} and {}; the address of {} is taken",
                        first.interface, second.interface, first.interface
                    ),
                    "choose the node's address: node.ip=ADDRESS",
                )
                .into()
            }
            _ => Outcome::Pass,
        },
    }
}

/// The machine is connected, but not in the family that the cluster's blocks are of.
fn other_family(ipv4: bool) -> Finding {
    let (family, here, pods, services) = match ipv4 {
        true => ("IPv4", "IPv6", "fd00:10:244::/56", "fd00:10:96::/112"),
        false => ("IPv6", "IPv4", "10.244.0.0/16", "10.96.0.0/16"),
    };
    error(
        format!("no {family} default route, and cluster.pod-cidr is {family}; this machine's default route is {here}"),
        format!(
            "give the cluster {here} blocks that are free in your network, such as cluster.pod-cidr={pods} and \
             cluster.service-cidr={services}, or connect an {family} network"
        ),
    )
}

fn address_fix(problem: &NoNodeAddress, family: &str) -> String {
    match problem {
        NoNodeAddress::Unknown(_) => "see the journal of systemd-networkd".to_owned(),
        NoNodeAddress::NoDefaultRoute | NoNodeAddress::NoAddress(_) => format!(
            "connect a network with DHCP, give an {family} address by ip= on the kernel command line, or choose one with node.ip="
        ),
        NoNodeAddress::NotHere(_) => "correct node.ip, or give the machine that address".to_owned(),
        NoNodeAddress::Unusable(_) => {
            format!("set node.ip to an {family} address of this machine that other machines reach")
        }
        NoNodeAddress::Moved(ip) => {
            format!("give the machine {ip} again (a DHCP reservation, or ip=): it is in etcd and in the certificates")
        }
    }
}

pub(super) fn overlaps(subject: &Subject) -> Outcome {
    let cluster = &subject.settings.cluster;
    let (pods, services) = (cluster.pod_cidr, cluster.service_cidr);
    let both = format!("pods ({}) and Services ({}) share addresses", pods, services);
    let mut findings: Vec<Finding> = Vec::new();
    if pods.overlaps(&services) {
        findings.push(error(both, "choose another cluster.pod-cidr or cluster.service-cidr"));
    }
    let named = [("pods", "cluster.pod-cidr", pods), ("Services", "cluster.service-cidr", services)];
    let fix = |setting: &str| format!("choose another {setting}");
    // flannel's host-gw backend routes other nodes' pods through the uplink.
    let flannels = |host: &Cidr| {
        subject.facts.established
            && subject.settings.network.backend == Backend::HostGw
            && pods.contains(host.address)
            && pods.prefix < host.prefix
    };
    if let Some(network) = subject.facts.network.known() {
        for (host, interface) in network.host_networks().into_iter().filter(|(host, _)| !flannels(host)) {
            for (what, setting, cidr) in named.iter().filter(|(_, _, cidr)| cidr.overlaps(&host)) {
                let found = format!("{what} ({}) share addresses with the network {} of {interface}", cidr, host);
                findings.push(error(found, fix(setting)));
            }
        }
    }
    for server in subject.facts.name_servers.known().into_iter().flatten() {
        for (what, setting, cidr) in named.iter().filter(|(_, _, cidr)| cidr.contains(*server)) {
            let found = format!("the name server {server} has an address of {what} ({})", cidr);
            findings.push(error(found, fix(setting)));
        }
    }
    if subject.role == Role::Worker && !subject.facts.established {
        // The blocks that count are the cluster's, which this machine learns when it joins.
        for finding in &mut findings {
            finding.severity = Severity::Warning;
            finding.fix =
                "none is needed if the cluster has other blocks; else move this machine to another network".to_owned();
        }
    }
    match &subject.facts.network {
        crate::facts::Fact::Unknown(why) if findings.is_empty() => Outcome::Unchecked(why.clone()),
        _ => findings.into(),
    }
}

pub(super) fn ports(subject: &Subject) -> Outcome {
    given(&subject.facts.listening, |sockets| {
        let ours = |socket: &Socket| socket.owner.as_ref().is_some_and(|owner| owner.is_of_the_seat());
        let mut findings: Vec<Finding> = Vec::new();
        for port in WATCHED.iter().filter(|port| port.concerns(subject.role)) {
            // One program often holds a port twice, for IPv4 and IPv6: once is enough to say.
            let mut said: Vec<Option<u32>> = Vec::new();
            for socket in sockets.iter().filter(|socket| socket.port == port.number && !ours(socket)) {
                let pid = socket.owner.as_ref().map(|owner| owner.pid);
                if !said.contains(&pid) {
                    said.push(pid);
                    findings.push(taken(socket, port.service));
                }
            }
        }
        findings.into()
    })
}

fn taken(socket: &Socket, service: &str) -> Finding {
    let place = match socket.address {
        ip if ip.is_unspecified() => String::new(),
        ip => format!(" on {ip}"),
    };
    let found = |who: &str| format!("port {}, which {service} needs, is in use{place} by {who}", socket.port);
    match &socket.owner {
        Some(owner) if owner.program.is_empty() => {
            error(found(&format!("{} (PID {})", owner.name, owner.pid)), format!("stop {}", owner.name))
        }
        Some(owner) => error(
            found(&format!("{} (PID {}, {})", owner.name, owner.pid, owner.program)),
            format!("stop {}, or have it listen on another port", owner.name),
        ),
        None => error(found("a process that can't be seen"), "find it as root with: ss -tlnp"),
    }
}

pub(super) fn name_servers(subject: &Subject) -> Outcome {
    given(&subject.facts.name_servers, |servers| {
        let fix = "give the machine a name server by DHCP or by the last fields of ip=; without one, pods resolve only \
                   the cluster's own names";
        match servers.as_slice() {
            [] => warning("no name server is known", fix).into(),
            servers if servers.iter().all(IpAddr::is_loopback) => warning(
                format!("the only name server is {}, this machine itself, which pods can't ask", servers[0]),
                fix,
            )
            .into(),
            _ => Outcome::Pass,
        }
    })
}

/// The smallest MTU that IPv6 (RFC 8200 §5) and QUIC can live with.
const LEAST: u32 = 1280;

pub(super) fn mtu(subject: &Subject) -> Outcome {
    let settings = &subject.settings.network;
    let address = match subject.facts.node_address(subject.settings) {
        Ok(address) if address.mtu > 0 => address,
        Ok(address) => return Outcome::Unchecked(format!("found no MTU of {}", address.interface)),
        Err(problem) => return Outcome::Unchecked(format!("there is no uplink to look at: {problem}")),
    };
    let (interface, own) = (&address.interface, address.mtu);
    let uplink = settings.mtu.unwrap_or(own);
    if uplink > own {
        return error(
            format!("network.mtu is {uplink} bytes, but {interface} takes packets of {own} bytes at most"),
            format!("set network.mtu to {own} or less, or leave it out"),
        )
        .into();
    }
    let ipv6 = address.ip.is_ipv6();
    // Outer headers: Ethernet in VXLAN in UDP in IP; WireGuard in UDP in IP.
    let headers = match (settings.backend, ipv6) {
        (Backend::Vxlan, false) => 50,
        (Backend::Vxlan, true) => 70,
        (Backend::Wireguard, false) => 60,
        (Backend::Wireguard, true) => 80,
        (Backend::HostGw | Backend::None, _) => 0,
    };
    let inner = uplink.saturating_sub(headers);
    if inner >= LEAST {
        return Outcome::Pass;
    }
    let found = format!(
        "pods can send packets of {inner} bytes ({interface} takes {uplink}, the pod network adds {headers}); {LEAST} is \
         the least that IPv6 and QUIC work with"
    );
    let fix = format!("raise the MTU of {interface} to {} or more, or use network.backend host-gw", LEAST + headers);
    if pods_are_ipv6(&subject.settings.cluster.pod_cidr) {
        error(found, fix).into()
    } else {
        warning(found, fix).into()
    }
}

fn pods_are_ipv6(pods: &Cidr) -> bool {
    pods.address.is_ipv6()
}
