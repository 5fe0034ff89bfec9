//! The table of keys: parsing, nearest-key hints, `docs/settings.md` and the command line's help are made from it.

/// How a key's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One text.
    One,
    /// Several texts; on one line separated by commas.
    List,
    /// Several texts that may hold commas: one is one, more are written as a list or by repeating the key.
    Lines,
    /// `name=text`; on one line separated by commas.
    Map,
    /// `name=text`, where a name may have several texts in order.
    MapOfLists,
}

/// A setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its dotted name.
    pub name: &'static str,
    /// How it is written.
    pub shape: Shape,
    /// What is expected, completing "expected …".
    pub expected: &'static str,
    /// What holds when nothing is given, for people.
    pub default: &'static str,
    /// What it does, in a sentence.
    pub doc: &'static str,
    /// A valid value, as on the kernel command line.
    pub example: &'static str,
}

/// The token's key: its value is a secret and is never repeated in a message.
pub const TOKEN: &str = "token";

/// Keys whose values are URLs, which may hold a password: it is in no message.
pub const URLS: [&str; 3] = ["http-proxy", "https-proxy", "registry.mirrors"];

/// Every setting, in the order of `docs/settings.md`.
pub const KEYS: &[Key] = &[
    Key {
        name: "role",
        shape: Shape::One,
        expected: "init, control-plane or worker",
        default: "none: the console asks",
        doc: "What the machine becomes: `init` founds a cluster and is its first control plane, `control-plane` joins one as a further \
              control plane, `worker` joins one.",
        example: "init",
    },
    Key {
        name: TOKEN,
        shape: Shape::One,
        expected: "a token such as kb1s-…",
        default: "the founder makes a seed and shows it once on the console; a machine that joins needs one",
        doc: "The founder's seed (kb1s-…), or the join token of a worker (kb1w-…) or control plane (kb1c-…). Secret: a systemd credential is the best place for \
              it, because pods can read the kernel command line.",
        example: "(make one with `kubeboot token generate`)",
    },
    Key {
        name: "name",
        shape: Shape::One,
        expected: "a node name: lower-case letters, digits, `-` and `.`, at most 63 characters (RFC 1123)",
        default: "cloud-config's `hostname`, the host name, or where that says nothing (`localhost`), `node-` and eight digits that \
                  follow from the machine-id",
        doc: "The node's name. It is pinned at the first boot.",
        example: "cp-1",
    },
    Key {
        name: "join",
        shape: Shape::List,
        expected: "a host name or an address, with or without a port",
        default: "whoever answers on the local network ([discovery.md](discovery.md))",
        doc: "Control planes to join through. The port is 7440 where none is given.",
        example: "10.0.0.10,cp-2.example",
    },
    Key {
        name: "expect",
        shape: Shape::One,
        expected: "a number from 1 to 16",
        default: "none: the seed's token for control planes admits any number for 24 h",
        doc: "On a founder: how many control planes the cluster is to have, the founder among them. The seed's token for control \
              planes admits no more than the others; later ones need a token of their own.",
        example: "3",
    },
    Key {
        name: "operator",
        shape: Shape::Lines,
        expected: "an ssh public key: `ssh-ed25519 AAAA… comment`, `ecdsa-sha2-nistp256 …` or `ecdsa-sha2-nistp384 …`",
        default: "none",
        doc: "ssh public keys whose owners may command the cluster. Repeat the key for further ones. Whom a control plane's \
              settings named stays one until `kubeboot operator remove`.",
        example: "\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqGXr0WDGZqFbDkGWqIRWHGSfDQHpRq4gsqY9gNyL9 ann\"",
    },
    Key {
        name: "report",
        shape: Shape::One,
        expected: "a serial device below /dev, such as ttyS1",
        default: "none",
        doc: "A serial device that gets every event as one JSON object a line; nothing secret.",
        example: "ttyS1",
    },
    Key {
        name: "cluster.pod-cidr",
        shape: Shape::One,
        expected: "an address block such as 10.244.0.0/16",
        default: "10.244.0.0/16",
        doc: "The pods' addresses. Each node gets a /24 (IPv6: /64) of it.",
        example: "10.244.0.0/16",
    },
    Key {
        name: "cluster.service-cidr",
        shape: Shape::One,
        expected: "an address block such as 10.96.0.0/16",
        default: "10.96.0.0/16",
        doc: "The Services' addresses. The first is the API server's, the tenth the cluster's DNS.",
        example: "10.96.0.0/16",
    },
    Key {
        name: "cluster.dns-domain",
        shape: Shape::One,
        expected: "a DNS domain such as cluster.local (RFC 1123)",
        default: "cluster.local",
        doc: "The DNS domain of Services and pods.",
        example: "cluster.local",
    },
    Key {
        name: "node.ip",
        shape: Shape::One,
        expected: "an IP address such as 192.168.1.10",
        default: "the source address of the default route",
        doc: "The node's address. It is pinned at the first boot; a worker that has lost it takes another.",
        example: "192.168.1.10",
    },
    Key {
        name: "node.labels",
        shape: Shape::Map,
        expected: "a label `name=value` by Kubernetes' rules",
        default: "none",
        doc: "Labels of the node.",
        example: "topology.kubernetes.io/zone=a,disk=ssd",
    },
    Key {
        name: "node.taints",
        shape: Shape::List,
        expected: "a taint `name[=value]:Effect` with the effect NoSchedule, PreferNoSchedule or NoExecute",
        default: "none: a lone control plane runs pods",
        doc: "Taints of the node.",
        example: "node-role.kubernetes.io/control-plane:NoSchedule",
    },
    Key {
        name: "api.extra-sans",
        shape: Shape::List,
        expected: "a DNS name or an IP address",
        default: "none",
        doc: "Further names and addresses in the API server's certificate.",
        example: "api.example.org,203.0.113.7",
    },
    Key {
        name: "network.backend",
        shape: Shape::One,
        expected: "vxlan, host-gw, wireguard or none",
        default: "vxlan",
        doc: "How pods of different nodes reach each other; `none` leaves it to your own CNI plugin.",
        example: "vxlan",
    },
    Key {
        name: "network.mtu",
        shape: Shape::One,
        expected: "a number of bytes from 576 (IPv6: 1280) to 65535",
        default: "the uplink's own",
        doc: "The uplink's MTU, from which the pods' MTU follows.",
        example: "1450",
    },
    Key {
        name: "proxy.mode",
        shape: Shape::One,
        expected: "nftables or none",
        default: "nftables",
        doc: "How Services are served; `none` leaves it to your own CNI plugin.",
        example: "nftables",
    },
    Key {
        name: "registry.mirrors",
        shape: Shape::MapOfLists,
        expected: "`host=URL`, a registry's host and the URL of a mirror",
        default: "none",
        doc: "Mirrors of image registries, tried in order. Repeat a host for further mirrors of it.",
        example: "docker.io=https://mirror.example.org",
    },
    Key {
        name: "registry.extra-cas",
        shape: Shape::Lines,
        expected: "a certificate in PEM form",
        default: "none",
        doc: "Further certificate authorities that are trusted for image registries, in PEM form.",
        example: "(in a file only)",
    },
    Key {
        name: "http-proxy",
        shape: Shape::One,
        expected: "a URL such as http://proxy.example.org:3128",
        default: "none",
        doc: "Proxy for plain HTTP: for containerd, which pulls images, and for the API server, whose webhooks may be outside. \
              One with a password is for containerd only.",
        example: "http://proxy.example.org:3128",
    },
    Key {
        name: "https-proxy",
        shape: Shape::One,
        expected: "a URL such as http://proxy.example.org:3128",
        default: "none",
        doc: "Proxy for HTTPS, as `http-proxy`.",
        example: "http://proxy.example.org:3128",
    },
    Key {
        name: "no-proxy",
        shape: Shape::List,
        expected: "a host name, a domain, an address or an address block",
        default: "the cluster's own networks, which are always added",
        doc: "What is reached without the proxy.",
        example: "192.168.0.0/16,.example.org",
    },
    Key {
        name: "addons",
        shape: Shape::List,
        expected: "the name of an add-on: coredns",
        default: "coredns",
        doc: "Add-ons that are kept applied, in order. An empty value means none.",
        example: "coredns",
    },
];

/// The key with exactly this dotted name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether `name` is a group such as `cluster`, whose members are keys.
pub fn is_group(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The key that an unknown name most resembles; none when nothing is close.
pub fn nearest(name: &str) -> Option<&'static str> {
    // A bound on the work: no key is longer than this, so nothing longer is close.
    if name.chars().count() > 40 {
        return None;
    }
    let name = name.to_ascii_lowercase().replace('_', "-");
    let distance_to = |key: &'static str| {
        let last = key.rsplit('.').next().unwrap_or(key);
        // `pod-cidr` without its group is the group's key, one step away.
        distance(&name, key).min(distance(&name, last) + 1)
    };
    let (best, distance) = KEYS.iter().map(|key| (key.name, distance_to(key.name))).min_by_key(|(_, d)| *d)?;
    (distance <= 1 + name.chars().count() / 4).then_some(best)
}

/// Edit distance with adjacent transpositions (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_typing_errors_missing_groups_and_underscores() {
        assert_eq!(nearest("rloe"), Some("role"));
        assert_eq!(nearest("Role"), Some("role"));
        assert_eq!(nearest("pod-cidr"), Some("cluster.pod-cidr"));
        assert_eq!(nearest("pod_cdir"), Some("cluster.pod-cidr"));
        assert_eq!(nearest("cluster.servce-cidr"), Some("cluster.service-cidr"));
        assert_eq!(nearest("operators"), Some("operator"));
        assert_eq!(nearest("extra-sans"), Some("api.extra-sans"));
        assert_eq!(nearest("quux"), None);
        assert_eq!(nearest(&"x".repeat(100_000)), None);
    }

    #[test]
    fn no_key_is_also_a_group_and_none_appears_twice() {
        for key in KEYS {
            assert!(!is_group(key.name), "{} is a key and a group", key.name);
            assert_eq!(KEYS.iter().filter(|other| other.name == key.name).count(), 1, "{}", key.name);
        }
    }
}
