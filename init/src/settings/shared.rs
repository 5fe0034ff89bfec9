//! The settings that all nodes of a cluster share: what a control plane sends a joining machine, as TOML.
//!
//! Shared is what the nodes have to agree upon: the cluster's networks and DNS domain, how pods and Services are reached,
//! the uplinks' MTU, the add-ons (a node's health asks for their DNS). Everything else is each machine's own: image
//! registries, their authorities and proxies depend on where a machine stands and may hold passwords.
//!
//! A reader passes over keys and add-ons that it does not know, so that a newer control plane may name more. What an older
//! node must not pass over comes with another `format`, which it refuses.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::frozen::{Difference, Frozen, diff};
use super::{Cluster, Fragment, Given, Inputs, Network, Origin, ProxyMode, Settings, Source, Value, rules, validate};

/// Longest text that is read, in bytes: as long as the field that carries it (`docs/enrolment.md`, `grant`).
pub const LONGEST: usize = 8192;
/// The form that this release writes and reads.
const FORMAT: i64 = 1;
/// The uplink's MTU: a machine that names its own keeps that, because uplinks differ.
const MTU: &str = "network.mtu";
/// The shared keys.
const KEYS: [&str; 7] =
    ["cluster.pod-cidr", "cluster.service-cidr", "cluster.dns-domain", "network.backend", MTU, "proxy.mode", "addons"];

/// What all nodes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// `cluster.*`
    pub cluster: Cluster,
    /// `network.*`
    pub network: Network,
    /// `proxy.mode`
    pub proxy: ProxyMode,
    /// `addons`
    pub addons: Vec<String>,
}

/// The text's form. Keys beside these are passed over.
#[derive(Serialize, Deserialize)]
struct Document {
    format: i64,
    addons: Vec<String>,
    cluster: Cluster,
    network: Network,
    proxy: Proxy,
}

#[derive(Serialize, Deserialize)]
struct Proxy {
    mode: ProxyMode,
}

/// The shared part of `settings`, as TOML.
pub fn text(settings: &Settings) -> String {
    let document = Document {
        format: FORMAT,
        addons: settings.addons.clone(),
        cluster: settings.cluster.clone(),
        network: settings.network.clone(),
        proxy: Proxy { mode: settings.proxy },
    };
    toml::to_string(&document).expect("texts, numbers and tables of them")
}

/// Reads what [`text`] wrote, and judges it as if it had been given to this machine.
///
/// # Errors
/// What is wrong, in words: what was expected, what was found.
pub fn read(text: &str) -> Result<Shared, String> {
    if text.len() > LONGEST {
        return Err(format!("expected at most {LONGEST} bytes of settings, found {}", text.len()));
    }
    let unreadable = |error: toml::de::Error| format!("expected the cluster's settings as TOML: {}", error.message());
    let table: toml::Table = toml::from_str(text).map_err(unreadable)?;
    // Before all else: another form may have other keys.
    match table.get("format") {
        Some(toml::Value::Integer(FORMAT)) => {}
        Some(found) => return Err(format!("the cluster's settings have format {found}; this release reads {FORMAT}")),
        None => return Err("the cluster's settings do not say their format".to_owned()),
    }
    let Document { addons, cluster, network, proxy, .. } = table.try_into().map_err(unreadable)?;
    let judged = validate(inputs(&cluster, &network));
    judged.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let addons = addons.into_iter().filter(|name| rules::is_addon(name)).collect();
    Ok(Shared { cluster, network, proxy: proxy.mode, addons })
}

/// What has rules beside its type, as a source of settings: the same rules hold as for every other source.
fn inputs(cluster: &Cluster, network: &Network) -> Inputs {
    let mut values = vec![
        ("cluster.pod-cidr", cluster.pod_cidr.to_string()),
        ("cluster.service-cidr", cluster.service_cidr.to_string()),
        ("cluster.dns-domain", cluster.dns_domain.clone()),
    ];
    values.extend(network.mtu.map(|mtu| (MTU, mtu.to_string())));
    let given = |value: String| Given { origin: origin(), value: Value::One(Zeroizing::new(value)) };
    let mut fragment = Fragment::empty(Source::Cluster);
    fragment.values = values.into_iter().map(|(key, value)| (key, given(value))).collect();
    Inputs::merge(vec![fragment])
}

fn origin() -> Origin {
    Origin::whole(Source::Cluster)
}

impl Shared {
    /// A machine's own settings with the cluster's in their place, and which of its own do not hold therefore.
    pub fn over(&self, own: &Frozen) -> (Frozen, Vec<Difference>) {
        let mut merged = own.clone();
        let keeps_mtu = own.origins.contains_key(MTU);
        let settings = &mut merged.settings;
        settings.cluster = self.cluster.clone();
        settings.proxy = self.proxy;
        settings.addons.clone_from(&self.addons);
        settings.network.backend = self.network.backend;
        if !keeps_mtu {
            settings.network.mtu = self.network.mtu;
        }
        let differences = diff(&merged, &own.settings, &own.origins);
        let shared = KEYS.into_iter().filter(|key| *key != MTU || !keeps_mtu);
        merged.origins.extend(shared.map(|key| (key.to_owned(), origin())));
        (merged, differences)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::Backend;

    fn of(text: &str) -> Shared {
        read(text).unwrap_or_else(|why| panic!("{why}: {text}"))
    }

    #[test]
    fn the_text_of_a_cluster_with_nothing_but_defaults() {
        insta::assert_snapshot!(text(&Settings::default()));
    }

    #[test]
    fn the_longest_text_fits_into_a_grant() {
        let mut settings = Settings::default();
        settings.cluster.dns_domain = vec!["d".repeat(63); 3].join(".");
        settings.cluster.pod_cidr = "fd00:1111:2222:3300::/56".parse().unwrap();
        settings.cluster.service_cidr = "fd00:1111:2222:4400:1111:2222:3333:0/112".parse().unwrap();
        settings.network = Network { backend: Backend::Wireguard, mtu: Some(65535) };
        let text = text(&settings);
        assert!(text.len() < LONGEST / 8, "{}", text.len());
        assert_eq!(of(&text).cluster, settings.cluster);
    }

    #[test]
    fn what_a_newer_control_plane_names_besides_is_passed_over() {
        let text = text(&Settings::default());
        let newer =
            text.replace("[network]", "[network]\njumbo = true").replace("[\"coredns\"]", "[\"coredns\", \"metrics\"]");
        assert_eq!(of(&format!("colour = \"blue\"\n{newer}\n[storage]\nclass = \"fast\"\n")), of(&text));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_was_expected() {
        let good = text(&Settings::default());
        let cases = [
            (String::new(), "do not say their format"),
            ("format = 2".to_owned(), "have format 2; this release reads 1"),
            ("format = 1".to_owned(), "missing field"),
            ("format = [".to_owned(), "as TOML"),
            (good.replace("10.244.0.0/16", "10.96.0.0/16"), "does not overlap"),
            (good.replace("10.244.0.0/16", "10.244.0.0/33"), "as TOML"),
            (good.replace("cluster.local", "-bad-"), "cluster.dns-domain"),
            (good.replace("vxlan", "token-ring"), "token-ring"),
            (good.replace("[network]", "[network]\nmtu = 10"), "network.mtu"),
            ("#".repeat(LONGEST + 1), "at most 8192 bytes"),
        ];
        for (text, expected) in cases {
            let why = read(&text).expect_err(&text);
            assert!(why.contains(expected), "{expected}: {why}");
        }
    }

    #[test]
    fn the_clusters_settings_take_the_place_of_a_machines_own_and_it_says_which() {
        let mut own = Frozen { format: 1, settings: Settings::default(), origins: Default::default() };
        own.settings.cluster.pod_cidr = "10.1.0.0/16".parse().unwrap();
        own.settings.network.mtu = Some(1400);
        own.settings.name = Some("w-1".to_owned());
        for key in ["cluster.pod-cidr", MTU, "name"] {
            own.origins.insert(key.to_owned(), Origin::whole(Source::KernelCommandLine));
        }
        let cluster =
            Settings { network: Network { backend: Backend::HostGw, mtu: Some(1450) }, ..Settings::default() };
        let (merged, differences) = of(&text(&cluster)).over(&own);
        let told: Vec<String> = differences.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["cluster.pod-cidr stays \"10.244.0.0/16\"; \"10.1.0.0/16\" is ignored (kernel command line)"]
        );
        assert_eq!((merged.settings.network.mtu, merged.settings.network.backend), (Some(1400), Backend::HostGw));
        assert_eq!(merged.settings.name.as_deref(), Some("w-1"));
        assert_eq!(merged.origins["proxy.mode"].source, Source::Cluster);
        assert_eq!(merged.origins[MTU].source, Source::KernelCommandLine);
        assert_eq!(Frozen::parse(&merged.text()), Ok(merged));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            pods in 0u8..=255, prefix in 16u8..=24, services in 0u8..=255, domain in "[a-z]{1,20}(\\.[a-z]{1,20}){0,3}",
            backend in prop::sample::select(vec![Backend::Vxlan, Backend::HostGw, Backend::Wireguard, Backend::None]),
            mtu in prop::option::of(576u32..=65535), proxy: bool, coredns: bool,
        ) {
            let mut settings = Settings::default();
            settings.cluster.pod_cidr = format!("10.{pods}.0.0/{prefix}").parse().unwrap();
            settings.cluster.service_cidr = format!("172.{services}.0.0/16").parse().unwrap();
            settings.cluster.dns_domain = domain;
            settings.network = Network { backend, mtu };
            settings.proxy = if proxy { ProxyMode::Nftables } else { ProxyMode::None };
            settings.addons = coredns.then(|| "coredns".to_owned()).into_iter().collect();
            let text = text(&settings);
            let Shared { cluster, network, proxy, addons } = of(&text);
            prop_assert!(text.len() <= LONGEST);
            prop_assert_eq!(
                (cluster, network, proxy, addons),
                (settings.cluster, settings.network, settings.proxy, settings.addons)
            );
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = read(&text);
        }
    }
}
