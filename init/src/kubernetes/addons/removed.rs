//! Keeps machines that were removed from changing anything while their certificates live: seven days at most.
//!
//! Kubernetes has no list of revoked certificates. But a node's certificates name its node key as a UID, and each removed
//! key has a ConfigMap: a ValidatingAdmissionPolicy refuses whoever has such a UID, also under a name that another machine
//! has since. The UIDs stand in the policy itself. With the ConfigMaps as its parameters an API server that has just
//! started would refuse every request of everybody until it has read them.
//!
//! It is replaced in the version that was read before the list of removals was: who applied a list that was read a moment
//! ago would let in whom another has barred since.

use serde_json::{Value, json};

use super::admission;
use crate::certificates::DAY;
use crate::certificates::Unix;
use crate::certificates::profile::NODE_UID;
use crate::enrolment::objects::{self, hex};

/// The policy's and its binding's name.
pub const NAME: &str = "kubeboot-removed-nodes";
/// How long a removal matters to admission, in seconds: no certificate of a node's lives longer.
const MATTERS: Unix = 8 * DAY;
/// UIDs in the policy at most, the newest first.
const MOST: usize = 500;

/// The UIDs of the machines that are to be refused at `now`, by the removals' objects; sorted.
pub fn uids(removals: &[Value], now: Unix) -> Vec<String> {
    let recent = |object: &Value| {
        let since = objects::removed_at(object).unwrap_or(now);
        (since.saturating_add(MATTERS) > now).then_some(since)
    };
    let mut found: Vec<(Unix, String)> = removals
        .iter()
        .filter_map(|object| Some((recent(object)?, format!("{NODE_UID}{}", hex(&objects::removed(object)?)))))
        .collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    let mut uids: Vec<String> = found.into_iter().take(MOST).map(|(_, uid)| uid).collect();
    uids.sort_unstable();
    uids
}

/// The policy that refuses these machines.
pub fn policy(uids: &[String]) -> Value {
    let list: Vec<String> = uids.iter().map(|uid| format!("'{uid}'")).collect();
    let spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{
            "apiGroups": ["*"],
            "apiVersions": ["*"],
            "operations": ["*"],
            "resources": ["*/*"],
        }]},
        // Only machines have such a UID, so that nobody else's request costs anything.
        "matchConditions": [{
            "name": "is-a-machine",
            "expression": format!("has(request.userInfo.uid) && request.userInfo.uid.startsWith('{NODE_UID}')"),
        }],
        "validations": [{
            "expression": format!("!(request.userInfo.uid in [{}])", list.join(", ")),
            "message": "this machine was removed from the cluster (kubeboot node remove)",
            "reason": "Forbidden",
        }],
    });
    admission::policy(NAME, spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::profile::node_uid;
    use crate::enrolment::decision::NodeRecord;
    use crate::token::Joiner;

    const NOW: Unix = 1_800_000_000;

    fn removal(key: u8, at: Unix) -> Value {
        let node =
            NodeRecord { name: "w-1".into(), role: Joiner::Worker, key: [key; 32], address: [10, 0, 0, key].into() };
        objects::removal(&node, at)
    }

    #[test]
    fn the_uid_in_a_certificate_is_the_one_that_is_refused_while_it_may_live() {
        let removals = [removal(1, NOW - 60), removal(2, NOW - MATTERS), removal(3, NOW)];
        let mut expected = [node_uid(&[1; 32]), node_uid(&[3; 32])];
        expected.sort_unstable();
        assert_eq!(uids(&removals, NOW), expected);
        let mut by_hand = removal(4, NOW);
        by_hand["data"] = json!({});
        assert_eq!(uids(&[by_hand], NOW), [node_uid(&[4; 32])], "one that was made by hand counts from now");
        assert_eq!(uids(&[json!({"metadata": {"name": "removed-x"}})], NOW), [""; 0]);
    }

    #[test]
    fn the_policy_names_them_and_its_defaults_make_no_other_of_it() {
        let policy = policy(&["kubeboot:node:00".to_owned(), "kubeboot:node:01".to_owned()]);
        insta::assert_snapshot!([&policy, &admission::binding(NAME)].map(crate::kubernetes::yaml::text).join("---\n"));
        let mut found = policy.clone();
        found["spec"]["matchConstraints"]["matchPolicy"] = json!("Equivalent");
        assert!(admission::says(&found, &policy));
        assert!(!admission::says(&found, &super::policy(&["kubeboot:node:00".to_owned()])));
    }
}
