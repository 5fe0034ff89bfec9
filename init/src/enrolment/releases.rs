//! Which releases the cluster's API servers have, by what the cluster says of its control planes' nodes.
//!
//! An API server tells its version to those who may ask it, one by one, and one that is off to nobody. A control plane's
//! kubelet is of the same release, and what it said last stands in its Node, also while the machine is off: it may come back
//! as it was. So the Nodes are asked, and only those of control planes: a worker may write of its own Node's status what it
//! likes, and can't make itself a control plane.

use std::fmt;

use serde_json::Value;

use crate::release::Version;

/// The label by which control planes' Nodes are known; no kubelet may give it to itself (NodeRestriction).
pub const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// Nodes of control planes that are asked for at most.
pub const MOST: usize = 64;

/// The oldest and the newest API server's release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Releases {
    /// The oldest.
    pub oldest: Version,
    /// The newest.
    pub newest: Version,
}

impl Releases {
    /// Of a cluster whose other control planes are not known.
    pub fn of_one(own: Version) -> Self {
        Releases { oldest: own, newest: own }
    }

    /// Of all these.
    pub fn of(own: Version, others: &[(String, Version)]) -> Self {
        others.iter().fold(Releases::of_one(own), |so_far, (_, other)| Releases {
            oldest: so_far.oldest.min(*other),
            newest: so_far.newest.max(*other),
        })
    }
}

/// The other control planes with their releases, by the Nodes of all, a NodeList; `own` is the release of this one, whose
/// Node is `name` and may be of before a reboot. What a Node does not say in a form that is known counts for nothing.
pub fn others(own: Version, name: &str, nodes: &Value) -> Vec<(String, Version)> {
    let items = nodes.get("items").and_then(Value::as_array).into_iter().flatten().take(MOST);
    let said = items.filter_map(|node| {
        let of = node.pointer("/metadata/name")?.as_str()?;
        let release = of_kubelet(node.pointer("/status/nodeInfo/kubeletVersion")?.as_str()?, own)?;
        (of != name).then(|| (of.to_owned(), release))
    });
    said.collect()
}

/// Every control plane with its release, for the log.
pub fn words(own: Version, name: &str, others: &[(String, Version)]) -> String {
    let this = (name.to_owned(), own);
    let all = std::iter::once(&this).chain(others);
    all.map(|(name, release)| format!("{name} {}", shown(*release))).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Releases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (shown(self.oldest), shown(self.newest)) {
            (oldest, newest) if oldest == newest => f.write_str(&oldest),
            (oldest, newest) => write!(f, "{oldest} to {newest}"),
        }
    }
}

/// A release, or of one whose build is not known Kubernetes' version.
fn shown(release: Version) -> String {
    if release.build == 0 { release.kubernetes() } else { release.to_string() }
}

/// A kubelet's version, `v1.37.2`. Its build is not said: of Kubernetes' own version it is taken for `own`'s.
fn of_kubelet(text: &str, own: Version) -> Option<Version> {
    let version: Version = format!("{}-0", text.strip_prefix('v')?).parse().ok()?;
    let same = version.kubernetes() == own.kubernetes();
    Some(if same { own } else { version })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn by(versions: &[(&str, &str)]) -> (String, String) {
        let node = |(name, said): &(&str, &str)| json!({"metadata": {"name": name}, "status": {"nodeInfo": {"kubeletVersion": said}}});
        let nodes = json!({"items": versions.iter().map(node).collect::<Vec<_>>()});
        let own = version("1.37.2-4");
        let Releases { oldest, newest } = Releases::of(own, &others(own, "one", &nodes));
        (oldest.to_string(), newest.to_string())
    }

    #[test]
    fn the_oldest_and_the_newest_are_among_all_control_planes() {
        let text = |oldest: &str, newest: &str| (oldest.to_owned(), newest.to_owned());
        assert_eq!(by(&[]), text("1.37.2-4", "1.37.2-4"));
        assert_eq!(by(&[("one", "v1.37.2"), ("two", "v1.37.2")]), text("1.37.2-4", "1.37.2-4"), "one release");
        assert_eq!(by(&[("two", "v1.36.9"), ("three", "v1.38.0")]), text("1.36.9-0", "1.38.0-0"));
        assert_eq!(by(&[("one", "v1.30.0")]), text("1.37.2-4", "1.37.2-4"), "its own Node may be of before a reboot");
    }

    #[test]
    fn builds_are_shown_where_they_are_known() {
        let shown =
            |oldest: &str, newest: &str| Releases { oldest: version(oldest), newest: version(newest) }.to_string();
        assert_eq!(shown("1.36.9-0", "1.37.2-4"), "1.36.9 to 1.37.2-4");
        assert_eq!(shown("1.37.2-4", "1.37.2-4"), "1.37.2-4");
        let others = [("two".to_owned(), version("1.36.9-0"))];
        assert_eq!(words(version("1.37.2-4"), "one", &others), "one 1.37.2-4, two 1.36.9");
    }

    #[test]
    fn what_no_release_says_counts_for_nothing() {
        for said in ["", "1.36.0", "v1.36", "v1.36.0+k3s1", "v1.36.0-rc.1", "v99999999999.0.0", "v1.36.0\n"] {
            assert_eq!(by(&[("two", said)]).0, "1.37.2-4", "{said:?}");
        }
        let own = version("1.37.2-4");
        for nodes in [json!(null), json!({"items": 7}), json!({"items": [null, {"metadata": {"name": "two"}}]})] {
            assert_eq!(others(own, "one", &nodes), []);
        }
    }
}
