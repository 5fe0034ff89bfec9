//! Refuses certificate requests by which a machine could become another, or be taken for one.
//!
//! Nodes get their certificates from kubeboot, in return for their node keys. So nobody needs a request for a kubelet's
//! certificate, and no node any request at all. The controller-manager has no authority for the first kind; this refuses
//! both at creation, so that none waits for somebody to approve it, and the audit log names who asked.

use serde_json::{Value, json};

use super::admission;

/// The policy's and its binding's name.
pub const NAME: &str = "kubeboot-certificate-requests";

/// The policy.
pub fn policy() -> Value {
    let spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{
            "apiGroups": ["certificates.k8s.io"],
            "apiVersions": ["*"],
            "operations": ["CREATE"],
            "resources": ["certificatesigningrequests"],
        }]},
        "validations": [
            {
                "expression": "!has(request.userInfo.groups) || !('system:nodes' in request.userInfo.groups)",
                "message": "a node gets its certificates from kubeboot, in return for its node key, and by no request",
                "reason": "Forbidden",
            },
            {
                "expression": "!(object.spec.signerName in ['kubernetes.io/kube-apiserver-client-kubelet', \
                               'kubernetes.io/kubelet-serving'])",
                "message": "kubelets' certificates are issued by kubeboot alone; nothing signs such a request",
                "reason": "Forbidden",
            },
        ],
    });
    admission::policy(NAME, spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::yaml;

    #[test]
    fn the_policy_and_what_puts_it_in_force() {
        let documents = [policy(), admission::binding(NAME)];
        insta::assert_snapshot!(documents.each_ref().map(yaml::text).join("---\n"));
    }
}
