//! A TLS server of a test's own, on loopback, that asks for the client's certificate and plays a script.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;

use super::*;

/// A certificate authority.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec![]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = parameters.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: Issuer::new(parameters, key) }
}

fn leaf(authority: &Authority) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec![]).unwrap();
    parameters.subject_alt_names = vec![
        SanType::IpAddress("127.0.0.1".parse().unwrap()),
        SanType::DnsName("kubernetes.default.svc".try_into().unwrap()),
    ];
    (parameters.signed_by(&key, &authority.issuer).unwrap(), key)
}

/// Answers requests with `script`, in order, and gives back what was asked.
pub(crate) fn serve(
    authority: &Authority,
    script: Vec<(u16, Value)>,
) -> (String, std::thread::JoinHandle<Vec<String>>) {
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

pub(crate) fn client(authority: &Authority, server: &str) -> Api {
    client_with(authority, server, "")
}

/// A client whose kubeconfig has `more` of the cluster, lines that end in a newline.
pub(crate) fn client_with(authority: &Authority, server: &str, more: &str) -> Api {
    let (certificate, key) = leaf(authority);
    let folder = tempfile::tempdir().unwrap();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let path = folder.path().join("admin.conf");
    let config = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: {server}\n{more}    \
         certificate-authority-data: {}\nusers:\n- name: u\n  user:\n    client-certificate-data: {}\n    \
         client-key-data: {}\n",
        encode(&authority.pem),
        encode(&certificate.pem()),
        encode(&key.serialize_pem()),
    );
    std::fs::write(&path, config).unwrap();
    Api::from_kubeconfig(&path).unwrap()
}
