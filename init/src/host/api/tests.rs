//! Against a server that plays a script.

use serde_json::json;

use super::fake::{authority, client, client_with, serve};
use super::*;

#[test]
fn objects_are_applied_where_discovery_says_they_live() {
    let authority = authority();
    let resources = json!({"resources": [
        {"name": "deployments", "namespaced": true, "kind": "Deployment"},
        {"name": "deployments/status", "namespaced": true, "kind": "Deployment"},
    ]});
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": "kube-system"}});
    let script = vec![(200, resources), (201, object.clone()), (404, json!({"message": "gone"})), (200, json!({}))];
    let (address, server) = serve(&authority, script);
    let api = client(&authority, &address);
    assert_eq!(api.apply(&object).unwrap(), object);
    assert!(api.get_optional("/api/v1/nodes/none").unwrap().is_none());
    assert!(api.delete("/api/v1/nodes/one").unwrap());
    assert_eq!(
        server.join().unwrap(),
        [
            "GET /apis/apps/v1".to_owned(),
            format!(
                "PATCH /apis/apps/v1/namespaces/kube-system/deployments/coredns?fieldManager=kubeboot&force=true \
                 application/apply-patch+yaml {object}"
            ),
            "GET /api/v1/nodes/none".to_owned(),
            "DELETE /api/v1/nodes/one?propagationPolicy=Background".to_owned(),
        ]
    );
}

#[test]
fn an_error_has_the_servers_own_words() {
    let authority = authority();
    let (address, server) = serve(&authority, vec![(403, json!({"message": "nodes is forbidden"}))]);
    let error = client(&authority, &address).get("/api/v1/nodes").unwrap_err();
    assert_eq!(error.to_string(), "GET /api/v1/nodes was answered with 403: nodes is forbidden");
    server.join().unwrap();
}

#[test]
fn a_server_of_another_authority_is_not_believed() {
    let (own, other) = (authority(), authority());
    let (address, server) = serve(&other, vec![(200, json!({}))]);
    let error = client(&own, &address).get("/version").unwrap_err();
    assert!(matches!(error, ApiError::Unreachable { .. }), "{error}");
    // Lets the server end: a client of its own authority plays the script.
    client(&other, &address).get("/version").unwrap();
    server.join().unwrap();
}

#[test]
fn behind_the_balancer_the_servers_own_name_is_expected_and_no_other() {
    let authority = authority();
    let (address, server) = serve(&authority, vec![(200, json!({}))]);
    let with = |name: &str| client_with(&authority, &address, &format!("    tls-server-name: {name}\n"));
    let error = with("somebody.else").get("/version").unwrap_err();
    assert!(matches!(error, ApiError::Unreachable { .. }), "{error}");
    with("kubernetes.default.svc").get("/version").unwrap();
    assert_eq!(server.join().unwrap(), ["GET /version"]);
}

#[test]
fn a_kubeconfig_without_a_key_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.conf");
    std::fs::write(&path, "clusters:\n- cluster: {server: 'https://h', certificate-authority-data: ''}\nusers: []\n")
        .unwrap();
    let error = Api::from_kubeconfig(&path).err().unwrap().to_string();
    assert!(error.ends_with("expected a user, found none"), "{error}");
}

#[test]
fn a_call_ends_when_it_should_whatever_the_server_does() {
    let authority = authority();
    // It takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let api = client(&authority, &format!("https://{}", silent.local_addr().unwrap()));
    let start = std::time::Instant::now();
    let limit = Duration::from_millis(100);
    assert!(matches!(api.get_within("/x", limit), Err(ApiError::Unreachable { .. })));
    assert!(matches!(api.post_within("/x", &json!({}), limit), Err(ApiError::Unreachable { .. })));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}
