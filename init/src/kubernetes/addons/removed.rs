//! Keeps machines that were removed from changing anything while their certificates live: seven days at most.
//!
//! Kubernetes has no list of revoked certificates. But a node's certificates name its node key as a UID, and each removed
//! key has a ConfigMap ([`removed_name`](crate::enrolment::objects::removed_name)): a ValidatingAdmissionPolicy that takes
//! those for its parameters refuses whoever has such a UID, also under a name that another machine has since.

use serde_json::{Value, json};

use crate::certificates::profile::NODE_UID;
use crate::enrolment::objects::{KIND, NAMESPACE, REMOVED, REMOVED_PREFIX};

/// The policy's and its binding's name.
const NAME: &str = "kubeboot-removed-nodes";

/// The objects.
pub(super) fn objects() -> Vec<Value> {
    let version = "admissionregistration.k8s.io/v1";
    vec![
        json!({
            "apiVersion": version,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": NAME},
            "spec": {
                "failurePolicy": "Fail",
                "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
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
                    "expression": format!(
                        "request.userInfo.uid != '{NODE_UID}' + params.metadata.name.replace('{REMOVED_PREFIX}', '')"
                    ),
                    "message": "this machine was removed from the cluster (kubeboot node remove)",
                    "reason": "Forbidden",
                }],
            },
        }),
        json!({
            "apiVersion": version,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": NAME},
            "spec": {
                "policyName": NAME,
                "validationActions": ["Deny"],
                "paramRef": {
                    "namespace": NAMESPACE,
                    "selector": {"matchLabels": {KIND: REMOVED}},
                    "parameterNotFoundAction": "Allow",
                },
            },
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::profile::node_uid;
    use crate::enrolment::objects::removed_name;

    #[test]
    fn the_uid_in_a_certificate_is_the_one_that_the_policy_makes_of_the_objects_name() {
        let key = [7; 32];
        let of_object = format!("{NODE_UID}{}", removed_name(&key).replace(REMOVED_PREFIX, ""));
        assert_eq!(node_uid(&key), of_object);
        assert!(!node_uid(&key).trim_start_matches(NODE_UID).contains(REMOVED_PREFIX));
    }
}
