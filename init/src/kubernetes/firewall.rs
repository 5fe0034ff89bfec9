//! Keeps pods from the ports of enrolment, of the mesh and of discovery: a token that a pod finds (the kernel command line
//! is readable by every pod) is of no use to it.
//!
//! The chains stand before kube-proxy's and flannel's in nothing but these ports, and accept all else.

use std::fmt::Write as _;

use super::{Render, Site};
use crate::{discovery, enrolment};

/// The file, for `nft -f`. Loading it again replaces what is there, in one transaction.
pub const PATH: &str = "/run/kubeboot/config/firewall.nft";
/// What has the kernel's log name the packets that are dropped, a few in a minute: loaded afterwards, as a kernel without that
/// log has the rules all the same.
pub const LOG_PATH: &str = "/run/kubeboot/config/firewall-log.nft";
const LOG: &str = "# Made by kubeboot at each boot.\ninsert rule inet kubeboot kept limit rate 6/minute burst 3 packets log prefix \
                   \"kubeboot: kept a pod from this port: \"\n";
/// The cgroup that holds every pod, the ones on the host's network too; the kubelet's name for it.
const PODS: &str = "kubepods.slice";
/// Interfaces of pods: our bridge, flannel's tunnels, and what widespread CNI plugins call theirs.
const INTERFACES: [&str; 8] = ["cni0", "flannel.*", "flannel-*", "veth*", "cali*", "cilium*", "lxc*", "tunl*"];

/// The files.
pub fn renders(site: &Site<'_>) -> Vec<Render> {
    vec![Render::new(PATH, rules(site)), Render::new(LOG_PATH, LOG.to_owned())]
}

/// The table in nft(8)'s language.
fn rules(site: &Site<'_>) -> String {
    let pods = site.settings.cluster.pod_cidr;
    let family = if pods.address.is_ipv4() { "ip" } else { "ip6" };
    let port = format!("meta l4proto {{ tcp, udp }} th dport {}-{}", enrolment::PORT, discovery::PORT);
    let mut input = format!("    {port} {family} saddr {pods} counter jump kept\n");
    for interface in INTERFACES {
        // Whatever the address: a pod's interface has a link-local one too.
        let _ = writeln!(input, "    {port} iifname \"{interface}\" counter jump kept");
    }
    // A Service may say that its pods are at a node's address and such a port: who asks for it then comes as that node.
    let _ = writeln!(input, "    {port} ct status dnat counter jump kept");
    let chain = |hook: &str, rules: &str| {
        format!("  chain {hook} {{\n    type filter hook {hook} priority -10; policy accept;\n{rules}  }}\n")
    };
    let forward = format!(
        "    # A node passes on nothing to another machine's ports; between pods it may mean anything.\n    {port} {family} \
         daddr {pods} accept\n    {port} counter jump kept\n"
    );
    // A pod on the host's network may hear queries. Answers are believed from discovery's port only.
    let output = format!(
        "    {port} socket cgroupv2 level 1 \"{PODS}\" counter jump kept\n    udp sport {} socket cgroupv2 level 1 \"{PODS}\" \
         counter jump kept\n",
        discovery::PORT
    );
    format!(
        "# Made by kubeboot at each boot.\ntable inet kubeboot\ndelete table inet kubeboot\ntable inet kubeboot {{\n  chain kept \
         {{\n    drop\n  }}\n{}{}{}}}\n",
        chain("input", &input),
        chain("forward", &forward),
        chain("output", &output),
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn pods_of_either_family_are_kept_from_the_port() {
        let (mut settings, node) = (sample::settings(), sample::node());
        let rules_of_ipv4 = rules(&sample::site(&settings, &node));
        settings.cluster.pod_cidr = "fd00:1::/56".parse().unwrap();
        let rules_of_ipv6 = rules(&sample::site(&settings, &node));
        assert!(rules_of_ipv6.contains("ip6 saddr fd00:1::/56") && !rules_of_ipv6.contains("ip saddr"));
        // What does not depend on the family is the same.
        let same =
            |rules: &str| rules.lines().filter(|line| line.contains("iifname")).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(same(&rules_of_ipv4), same(&rules_of_ipv6));
    }
}
