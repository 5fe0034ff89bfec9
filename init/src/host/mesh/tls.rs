//! TLS for the mesh's streams (`docs/mesh.md`): version 1.3, on both sides a node key as it is (RFC 7250), and nothing that
//! lets a session be taken up again. Whether the key is one to speak with, the mesh decides when it is proven.

use std::sync::Arc;

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::sign;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, Connection, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme, version,
};

use crate::host::enrolment::tls::provider;
use crate::mesh::NodeId;

/// What both sides say that they speak (ALPN, RFC 7301).
const PROTOCOL: &[u8] = b"kubeboot-mesh/1";
/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410, section 4).
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Both sides' configuration, with one node key.
pub struct Tls {
    /// For streams that this node opens.
    pub client: Arc<ClientConfig>,
    /// For those that it accepts.
    pub server: Arc<ServerConfig>,
}

impl Tls {
    /// With a node key (PKCS#8, DER).
    ///
    /// # Errors
    /// The crypto provider refuses it; in words.
    pub fn new(node_key: &[u8]) -> Result<Self, String> {
        Tls::prepare(node_key).map_err(|error| format!("prepare TLS for the mesh: {error}"))
    }

    fn prepare(node_key: &[u8]) -> Result<Self, Error> {
        let key = sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(node_key.to_vec()))?;
        let public = key.public_key().ok_or(Error::General("the node key has no public half".to_owned()))?;
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public.to_vec())], key));
        let provider = provider();
        let peers = Arc::new(NodeKeys(provider.clone()));
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(peers.clone())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified.clone())));
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        client.enable_sni = false;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(peers)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Tls { client: Arc::new(client), server: Arc::new(server) })
    }
}

/// The name that the client's side of rustls wants; it is not sent.
pub fn name() -> ServerName<'static> {
    ServerName::try_from("kubeboot").expect("a DNS name")
}

/// Who the other end is: of a connection past its handshake, in which it proved its key.
pub fn peer(connection: &Connection) -> Option<NodeId> {
    let spoken = connection.alpn_protocol() == Some(PROTOCOL);
    let [certificate] = connection.peer_certificates().filter(|_| spoken)? else { return None };
    node_key(certificate).map(|key| NodeId::of(&key))
}

fn node_key(info: &[u8]) -> Option<[u8; 32]> {
    info.strip_prefix(&ED25519)?.try_into().ok()
}

/// Takes every Ed25519 key whose owner signs the handshake.
#[derive(Debug)]
struct NodeKeys(Arc<CryptoProvider>);

impl NodeKeys {
    fn is_node_key(&self, end_entity: &[u8]) -> Result<(), Error> {
        node_key(end_entity).map(drop).ok_or(Error::General("expected an Ed25519 key".to_owned()))
    }

    fn has_signed(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let info = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &info, signature, &self.0.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for NodeKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.is_node_key(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.has_signed(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for NodeKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.is_node_key(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.has_signed(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
