//! Keeps machines that were removed from changing anything while their certificates live: seven days at most.
//!
//! Kubernetes has no list of revoked certificates. But a node's certificates name its node key as a UID, and each removed
//! key has a ConfigMap: a ValidatingAdmissionPolicy refuses whoever has such a UID, also under a name that another machine
//! has since. The UIDs stand in the policy itself. With the ConfigMaps as its parameters an API server that has just
//! started would refuse every request of everybody until it has read them.
//!
//! It is not applied as add-ons are: who applied a list that was read a moment ago would let in whom another has barred
//! since. It is replaced in the version that was read before the list was.

use serde_json::{Value, json};

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

/// Where policies are.
pub const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
/// Where what puts them in force is.
pub const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const VERSION: &str = "admissionregistration.k8s.io/v1";

/// The policy that refuses these machines.
pub fn policy(uids: &[String]) -> Value {
    let list: Vec<String> = uids.iter().map(|uid| format!("'{uid}'")).collect();
    json!({
        "apiVersion": VERSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAME},
        "spec": {
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
        },
    })
}

/// What puts the policy in force.
pub fn binding() -> Value {
    json!({
        "apiVersion": VERSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME},
        "spec": {"policyName": NAME, "validationActions": ["Deny"]},
    })
}

/// Whether a policy that is there refuses the same machines in the same way.
pub fn says(found: &Value, wanted: &Value) -> bool {
    // What an API server adds by default stands beside these.
    let rules = "/spec/matchConstraints/resourceRules/0";
    let whole = ["/spec/validations", "/spec/matchConditions", "/spec/failurePolicy"].map(str::to_owned);
    let rule =
        ["apiGroups", "apiVersions", "operations", "resources", "resourceNames"].map(|of| format!("{rules}/{of}"));
    let others = ["namespaceSelector/matchLabels", "objectSelector/matchLabels", "excludeResourceRules"];
    let others = others.map(|of| format!("/spec/matchConstraints/{of}"));
    whole.iter().chain(&rule).chain(&others).all(|pointer| found.pointer(pointer) == wanted.pointer(pointer))
}

/// Whether a binding that is there puts the policy in force everywhere.
pub fn binds(found: &Value) -> bool {
    let wanted = binding();
    ["/spec/policyName", "/spec/validationActions", "/spec/matchResources", "/spec/paramRef"]
        .iter()
        .all(|pointer| found.pointer(pointer) == wanted.pointer(pointer))
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
        insta::assert_snapshot!([&policy, &binding()].map(crate::kubernetes::yaml::text).join("---\n"));
        let mut found = policy.clone();
        found["spec"]["matchConstraints"]["matchPolicy"] = json!("Equivalent");
        assert!(says(&found, &policy));
        let mut narrowed = policy.clone();
        narrowed["spec"]["matchConstraints"]["resourceRules"][0]["resources"] = json!(["pods"]);
        assert!(!says(&narrowed, &policy));
        let mut audited = binding();
        audited["spec"]["validationActions"] = json!(["Audit"]);
        assert!(binds(&binding()) && !binds(&audited));
        assert!(!says(&found, &super::policy(&["kubeboot:node:00".to_owned()])));
    }
}
