//! Which certificate signing requests of kubelets are approved: a node's own, for its own name, and nothing more.
//!
//! The controller-manager's approver is off: it does not look at names. What a kubelet asks for when it renews its
//! client certificate is fixed (KEP-266; `k8s.io/kubernetes/pkg/kubelet/certificate`), so anything else is denied.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::pem::parse_x509_pem;

use super::{profile, signing_request};

/// The signer of kubelets' client certificates (`certificates.k8s.io`).
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Usages that a kubelet may ask for.
const USAGES: [&str; 3] = ["digital signature", "client auth", "key encipherment"];

/// What is to become of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It is what an enrolled node asks for.
    Approve,
    /// It comes from an enrolled node and asks for something else.
    Deny(String),
    /// It is somebody else's, or decided already.
    Leave,
}

/// Rules on a CertificateSigningRequest; `enrolled` says which node names belong to the cluster.
pub fn rule(request: &Value, enrolled: impl Fn(&str) -> bool) -> Ruling {
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let decided = request.pointer("/status/conditions").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if text("/spec/signerName") != KUBELET_CLIENT || decided {
        return Ruling::Leave;
    }
    let user = text("/spec/username");
    match user.strip_prefix("system:node:") {
        Some(node) if enrolled(node) => {}
        _ => return Ruling::Leave,
    }
    let strings = |pointer: &str| -> Vec<&str> {
        let list = request.pointer(pointer).and_then(Value::as_array);
        list.map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    };
    if !strings("/spec/groups").contains(&"system:nodes") {
        return Ruling::Deny("expected the group system:nodes".to_owned());
    }
    let usages = strings("/spec/usages");
    if !usages.contains(&"client auth") || usages.iter().any(|usage| !USAGES.contains(usage)) {
        return Ruling::Deny(format!("expected usages of a client, found {}", usages.join(", ")));
    }
    match contents(text("/spec/request"), user) {
        Ok(()) => Ruling::Approve,
        Err(why) => Ruling::Deny(why),
    }
}

/// The request itself: a kubelet's client certificate for that user, and nothing more.
fn contents(pem: &str, user: &str) -> Result<(), String> {
    let pem = STANDARD.decode(pem).map_err(|_| "expected base64".to_owned())?;
    let (_, pem) = parse_x509_pem(&pem).map_err(|_| "expected a PKCS #10 request in PEM".to_owned())?;
    let node = user.strip_prefix("system:node:").unwrap_or_default();
    signing_request::check(&pem.contents, &profile::kubelet_client(node)).map(drop)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};
    use serde_json::json;

    use super::*;

    fn pem(common: &str, organization: &str, san: Option<&str>) -> String {
        let mut parameters = CertificateParams::new(san.map(str::to_owned).into_iter().collect::<Vec<_>>()).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::OrganizationName, organization);
        parameters.distinguished_name.push(DnType::CommonName, common);
        parameters.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    fn request(user: &str, pem: &str) -> Value {
        json!({
            "spec": {
                "signerName": KUBELET_CLIENT,
                "username": user,
                "groups": ["system:nodes", "system:authenticated"],
                "usages": ["digital signature", "client auth"],
                "request": STANDARD.encode(pem),
            },
            "status": {},
        })
    }

    fn ruling(request: &Value) -> Ruling {
        rule(request, |node| node == "one")
    }

    #[test]
    fn an_enrolled_node_renews_its_own_name() {
        let good = request("system:node:one", &pem("system:node:one", "system:nodes", None));
        assert_eq!(ruling(&good), Ruling::Approve);
    }

    #[test]
    fn anothers_name_group_names_and_usages_are_denied() {
        let denied = |request: &Value, word: &str| {
            assert!(
                matches!(ruling(request), Ruling::Deny(why) if why.contains(word)),
                "{word}: {:?}",
                ruling(request)
            );
        };
        let node = "system:node:one";
        denied(&request(node, &pem("system:node:two", "system:nodes", None)), "expected the subject");
        denied(&request(node, &pem(node, "system:masters", None)), "expected the subject");
        denied(&request(node, &pem(node, "system:nodes", Some("kubernetes"))), "extensions");
        denied(&request(node, "no request"), "PKCS #10");
        let mut server = request(node, &pem(node, "system:nodes", None));
        server["spec"]["usages"] = json!(["server auth"]);
        denied(&server, "usages");
        let mut outsider = request(node, &pem(node, "system:nodes", None));
        outsider["spec"]["groups"] = json!(["system:authenticated"]);
        denied(&outsider, "system:nodes");
    }

    #[test]
    fn a_request_signed_by_another_key_is_denied() {
        let der = |pem: &str| parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
        let (mut one, two) =
            (der(&pem("system:node:one", "system:nodes", None)), der(&pem("system:node:one", "system:nodes", None)));
        // The signature is the last element: take the other request's.
        let tail = 60;
        let (from, to) = (two.len() - tail, one.len() - tail);
        one.truncate(to);
        one.extend(&two[from..]);
        let encoded = STANDARD.encode(&one);
        let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{encoded}\n-----END CERTIFICATE REQUEST-----\n");
        assert!(matches!(ruling(&request("system:node:one", &forged)), Ruling::Deny(_)));
    }

    #[test]
    fn what_is_not_ours_or_decided_is_left() {
        let pem = pem("system:node:two", "system:nodes", None);
        assert_eq!(ruling(&request("system:node:two", &pem)), Ruling::Leave);
        let mut decided = request("system:node:one", &pem);
        decided["status"]["conditions"] = json!([{"type": "Denied"}]);
        assert_eq!(ruling(&decided), Ruling::Leave);
        let mut other = request("system:node:one", &pem);
        other["spec"]["signerName"] = json!("kubernetes.io/kubelet-serving");
        assert_eq!(ruling(&other), Ruling::Leave);
    }
}
