//! Against a TLS server of the test's own, on loopback, that asks for the client's certificate and plays a script.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;

use super::*;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec![]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = parameters.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: Issuer::new(parameters, key) }
}

fn leaf(authority: &Authority) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec![]).unwrap();
    parameters.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
    (parameters.signed_by(&key, &authority.issuer).unwrap(), key)
}

/// Answers requests with `script`, in order, and gives back what was asked.
fn serve(authority: &Authority, script: Vec<(u16, Value)>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let (certificate, key) = leaf(authority);
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(
        certificates(authority.pem.as_bytes(), "ca").unwrap().iter().map(|ca| ca.der().to_vec().into()),
    );
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let server = std::thread::spawn(move || {
        let mut script = script.into_iter();
        let mut asked = Vec::new();
        while script.len() > 0 {
            let (socket, _) = listener.accept().unwrap();
            let connection = rustls::ServerConnection::new(Arc::new(config.clone())).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket);
            while let Some(request) = read_request(&mut stream) {
                asked.push(request);
                let Some((status, body)) = script.next() else { break };
                let body = body.to_string();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).unwrap();
                if script.len() == 0 {
                    break;
                }
            }
        }
        asked
    });
    (address, server)
}

/// One request: method, path, content type and body.
fn read_request(stream: &mut rustls::StreamOwned<rustls::ServerConnection, TcpStream>) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => return None,
        }
    }
    let head = String::from_utf8(bytes).unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| line.to_lowercase().strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    let mut body = vec![0; header("content-length:").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let kind = header("content-type:").unwrap_or_default();
    Some(format!("{line} {kind} {}", String::from_utf8(body).unwrap()).trim_end().to_owned())
}

fn client(authority: &Authority, server: &str) -> Api {
    let (certificate, key) = leaf(authority);
    let folder = tempfile::tempdir().unwrap();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let path = folder.path().join("admin.conf");
    let config = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {}\nusers:\n- name: u\n  user:\n    client-certificate-data: {}\n    \
         client-key-data: {}\n",
        encode(&authority.pem),
        encode(&certificate.pem()),
        encode(&key.serialize_pem()),
    );
    std::fs::write(&path, config).unwrap();
    Api::from_kubeconfig(&path).unwrap()
}

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
fn a_kubeconfig_without_a_key_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.conf");
    std::fs::write(&path, "clusters:\n- cluster: {server: 'https://h', certificate-authority-data: ''}\nusers: []\n")
        .unwrap();
    let error = Api::from_kubeconfig(&path).err().unwrap().to_string();
    assert!(error.ends_with("expected a user, found none"), "{error}");
}
