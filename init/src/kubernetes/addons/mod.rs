//! What the agent keeps applied in the cluster: objects as data, by server-side apply.

pub mod admission;
pub mod coredns;
pub mod inventory;
pub mod rbac;
pub mod removed;
pub mod requests;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::settings::Settings;

/// Every add-on that can be named in `addons`.
pub const NAMES: [&str; 1] = [coredns::NAME];

/// A named set of objects.
#[derive(Debug, Clone, PartialEq)]
pub struct AddOn {
    /// Its name: what the setting `addons` has, or [`rbac::NAME`].
    pub name: &'static str,
    /// Its objects, in the order in which they are applied.
    pub objects: Vec<Value>,
}

/// What add-ons depend on beside the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether the machine has name servers.
    pub name_servers: bool,
    /// How many nodes the cluster has; more than two make no difference.
    pub nodes: usize,
}

/// What is to be applied: what every cluster of kubeboot's has, then the add-ons of the settings in their order.
pub fn wanted(settings: &Settings, seen: &Seen) -> Vec<AddOn> {
    let mut addons = vec![AddOn { name: rbac::NAME, objects: rbac::objects() }];
    for name in &settings.addons {
        if name == coredns::NAME {
            addons.push(AddOn { name: coredns::NAME, objects: coredns::objects(settings, seen) });
        }
    }
    addons
}

/// Labels of a control plane's node that its kubelet may not set itself: kubeadm's, and those of the settings.
pub fn node_labels(settings: &Settings) -> BTreeMap<String, String> {
    let mut labels = settings.node.labels.clone();
    labels.insert("node-role.kubernetes.io/control-plane".to_owned(), String::new());
    // kubeadm's: keeps an external load balancer from sending other Services' traffic here.
    labels.insert("node.kubernetes.io/exclude-from-external-load-balancers".to_owned(), String::new());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::{sample, yaml};

    #[test]
    fn every_object() {
        let mut settings = sample::settings();
        settings.addons = vec!["coredns".into()];
        for addon in wanted(&settings, &Seen { name_servers: true, ..Seen::default() }) {
            let documents: Vec<String> = addon.objects.iter().map(yaml::text).collect();
            insta::assert_snapshot!(addon.name, documents.join("---\n"));
        }
    }

    #[test]
    fn names_are_answered_from_two_nodes_as_soon_as_there_are_two() {
        let mut settings = sample::settings();
        settings.addons = vec!["coredns".into()];
        let replicas = |nodes| {
            let all = wanted(&settings, &Seen { nodes, ..Seen::default() });
            let deployment = all.iter().flat_map(|addon| &addon.objects).find(|one| one["kind"] == "Deployment");
            deployment.and_then(|one| one["spec"]["replicas"].as_u64())
        };
        assert_eq!([0, 1, 2, 7].map(replicas), [1, 1, 2, 2].map(Some));
    }

    #[test]
    fn without_a_name_server_coredns_forwards_to_nobody() {
        let mut settings = sample::settings();
        settings.addons = vec!["coredns".into()];
        let text = |name_servers| format!("{:?}", wanted(&settings, &Seen { name_servers, ..Seen::default() }));
        assert!(text(true).contains("forward . /etc/resolv.conf"));
        assert!(!text(false).contains("forward"));
    }
}
