//! ValidatingAdmissionPolicies of kubeboot's own, and what puts them in force.
//!
//! They are no add-ons: an agent of another release removes what its own add-ons have not and the list of the applied ones
//! has. While releases are mixed, what they refuse would be let in for minutes, again and again. Each is made when it is
//! missing, and put back when it was changed.

use serde_json::{Value, json};

/// Where policies are.
pub const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
/// Where what puts them in force is.
pub const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const VERSION: &str = "admissionregistration.k8s.io/v1";

/// A policy.
pub fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": VERSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// What puts the policy of this name in force.
pub fn binding(name: &str) -> Value {
    json!({
        "apiVersion": VERSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    })
}

/// Whether a policy that is there refuses the same in the same way.
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

/// Whether a binding that is there puts the policy in force everywhere, as the wanted one does.
pub fn binds(found: &Value, wanted: &Value) -> bool {
    ["/spec/policyName", "/spec/validationActions", "/spec/matchResources", "/spec/paramRef"]
        .iter()
        .all(|pointer| found.pointer(pointer) == wanted.pointer(pointer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::addons::{removed, requests};

    #[test]
    fn what_an_api_server_adds_makes_no_other_of_a_policy_and_what_somebody_takes_away_does() {
        for policy in [removed::policy(&["kubeboot:node:00".to_owned()]), requests::policy()] {
            let mut found = policy.clone();
            found["spec"]["matchConstraints"]["matchPolicy"] = json!("Equivalent");
            assert!(says(&found, &policy));
            let mut narrowed = policy.clone();
            narrowed["spec"]["matchConstraints"]["resourceRules"][0]["resources"] = json!(["pods"]);
            assert!(!says(&narrowed, &policy));
            let mut ignored = policy.clone();
            ignored["spec"]["failurePolicy"] = json!("Ignore");
            assert!(!says(&ignored, &policy));
        }
        let wanted = binding("one");
        let mut audited = wanted.clone();
        audited["spec"]["validationActions"] = json!(["Audit"]);
        assert!(binds(&wanted, &wanted) && !binds(&audited, &wanted) && !binds(&binding("two"), &wanted));
    }
}
