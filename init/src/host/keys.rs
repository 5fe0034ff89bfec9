//! Makes keys, and issues certificates for what the pure rooms ask. The clock is passed in; randomness comes from here.

use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo, date_time_ymd,
};
use zeroize::Zeroizing;

use super::random;
use crate::certificates::expiry::Validity;
use crate::certificates::profile::UID;
use crate::certificates::{Authority, Purpose, Request, San, Unix};
use crate::enrolment::{Keys, Sign};

/// A key or certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {reason}")]
pub struct KeyError {
    operation: String,
    reason: String,
}

fn failed(operation: &str) -> impl Fn(rcgen::Error) -> KeyError {
    move |error| KeyError { operation: operation.to_owned(), reason: error.to_string() }
}

/// An authority that can sign: its certificate and its key. No `Debug`: it holds a secret.
pub struct Signer {
    /// Its certificate, PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
    validity_floor: Unix,
}

/// A private key, PEM (PKCS#8), and what it belongs to. No `Debug`: it holds a secret.
pub struct Pair {
    /// The certificate, or for a bare key the public half, PEM.
    pub public: String,
    /// The private key, PEM.
    pub key: Zeroizing<String>,
}

/// Makes an authority: a key and a certificate that it signs itself. `image` is when the image was made.
///
/// # Errors
/// The crypto provider refuses.
pub fn authority(which: Authority, now: Unix, image: Unix) -> Result<(Pair, Signer), KeyError> {
    let failed = failed("make a certificate authority");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&failed)?;
    let validity = Validity::of_authority(now, Authority::LIFETIME, image);
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, which.common_name());
    let mut params = parameters(validity, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(&failed)?.pem();
    let pair = Pair { public: certificate.clone(), key: Zeroizing::new(key.serialize_pem()) };
    let signer = Signer { certificate, issuer: Issuer::new(params, key), validity_floor: validity.not_before };
    Ok((pair, signer))
}

impl Signer {
    /// An authority from its files.
    ///
    /// # Errors
    /// Either can't be parsed.
    pub fn load(certificate: &[u8], key: &[u8]) -> Result<Self, KeyError> {
        let bad = |reason: String| KeyError { operation: "read a certificate authority".to_owned(), reason };
        let inspected = crate::certificates::check::inspect(certificate).map_err(|fault| bad(fault.to_string()))?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|error| bad(error.to_string()));
        let (certificate, key) = (text(certificate)?, Zeroizing::new(text(key)?));
        let key = KeyPair::from_pem(&key).map_err(|error| bad(error.to_string()))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(|error| bad(error.to_string()))?;
        Ok(Signer { certificate, issuer, validity_floor: inspected.validity.not_before })
    }

    /// Makes a key and signs a certificate for it.
    ///
    /// # Errors
    /// The crypto provider refuses.
    pub fn issue(&self, request: &Request, now: Unix) -> Result<Pair, KeyError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("make a key"))?;
        let public = self.sign(request, &key, now)?;
        Ok(Pair { public, key: Zeroizing::new(key.serialize_pem()) })
    }

    /// Signs a certificate for somebody else's public key (SubjectPublicKeyInfo, DER).
    ///
    /// # Errors
    /// The key is of no kind that we can name.
    pub fn issue_for(&self, request: &Request, spki: &[u8], now: Unix) -> Result<String, KeyError> {
        let public = SubjectPublicKeyInfo::from_der(spki).map_err(failed("read a public key"))?;
        self.sign(request, &public, now)
    }

    fn sign(&self, request: &Request, public: &impl PublicKeyData, now: Unix) -> Result<String, KeyError> {
        let failed = failed("sign a certificate");
        let mut validity = Validity::starting(now, request.lifetime);
        validity.not_before = validity.not_before.max(self.validity_floor);
        let mut params = parameters(validity, subject(request));
        params.subject_alt_names = request.names.iter().map(san).collect::<Result<_, _>>().map_err(&failed)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match request.purpose {
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Purpose::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Purpose::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        Ok(params.signed_by(public, &self.issuer).map_err(&failed)?.pem())
    }
}

/// Makes a bare ECDSA P-256 key: the ServiceAccount signing key.
///
/// # Errors
/// The crypto provider refuses.
pub fn ecdsa() -> Result<Pair, KeyError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("make a key"))?;
    Ok(Pair { public: key.public_key_pem(), key: Zeroizing::new(key.serialize_pem()) })
}

/// Makes a key and a request (PKCS #10, DER) for a certificate that says what `request` says.
///
/// # Errors
/// The crypto provider refuses.
pub fn signing_request(request: &Request) -> Result<(Vec<u8>, Zeroizing<String>), KeyError> {
    let failed = failed("make a certificate request");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(request);
    params.subject_alt_names = request.names.iter().map(san).collect::<Result<_, _>>().map_err(&failed)?;
    let der = params.serialize_request(&key).map_err(&failed)?.der().to_vec();
    Ok((der, Zeroizing::new(key.serialize_pem())))
}

/// The public half (PEM) of a private key (PEM).
///
/// # Errors
/// The key can't be parsed.
pub fn public_half(key: &[u8]) -> Result<String, KeyError> {
    let text = Zeroizing::new(String::from_utf8_lossy(key).into_owned());
    Ok(KeyPair::from_pem(&text).map_err(failed("read a key"))?.public_key_pem())
}

/// Makes an Ed25519 key, PEM (PKCS#8): the cluster's identity.
///
/// # Errors
/// The crypto provider refuses.
pub fn ed25519() -> Result<Zeroizing<String>, KeyError> {
    let refused = |error: aws_lc_rs::error::Unspecified| KeyError {
        operation: "make an Ed25519 key".to_owned(),
        reason: error.to_string(),
    };
    let document = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()).map_err(refused)?;
    let encoded = Zeroizing::new(STANDARD.encode(document.as_ref()));
    let mut pem = Zeroizing::new(String::with_capacity(256));
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    Ok(pem)
}

/// A private key (PKCS#8) as its file has it, DER.
///
/// # Errors
/// The file is no PEM.
pub fn der(pem: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let bad = |reason: String| KeyError { operation: "read a key".to_owned(), reason };
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|error| bad(error.to_string()))?;
    Ok(Zeroizing::new(block.contents))
}

/// An Ed25519 key that can sign: the cluster's identity key, or a node's. No `Debug`: it holds a secret.
pub struct Ed25519(Ed25519KeyPair);

impl Ed25519 {
    /// A key from its file, PEM (PKCS#8).
    ///
    /// # Errors
    /// It can't be parsed.
    pub fn load(pem: &[u8]) -> Result<Self, KeyError> {
        let bad = |reason: String| KeyError { operation: "read an Ed25519 key".to_owned(), reason };
        let der = der(pem)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|error| bad(error.to_string()))?;
        Ok(Ed25519(pair))
    }
}

impl Sign for Ed25519 {
    fn public(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

impl Keys for Ed25519 {}

fn parameters(validity: Validity, subject: DistinguishedName) -> CertificateParams {
    let moment = |unix| date_time_ymd(1970, 1, 1) + Duration::from_secs(unix);
    let mut params = CertificateParams::default();
    params.not_before = moment(validity.not_before);
    params.not_after = moment(validity.not_after);
    params.serial_number = Some(serial());
    params.distinguished_name = subject;
    params
}

/// An RFC 4514 reader expects organization before common name, as Go and OpenSSL write them.
fn subject(request: &Request) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in &request.organizations {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    if let Some(uid) = &request.uid {
        name.push(DnType::CustomDnType(UID.into()), uid.as_str());
    }
    name.push(DnType::CommonName, request.common_name.as_str());
    name
}

/// 128 random bits, positive and without leading zeros (RFC 5280, 4.1.2.2).
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = random::bytes();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn san(name: &San) -> Result<SanType, rcgen::Error> {
    Ok(match name {
        San::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
        San::Ip(address) => SanType::IpAddress(*address),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::check::{self, Fault};
    use crate::certificates::{DAY, Leaf, OperatorKey, Subject};

    const NOW: Unix = 1_800_000_000;

    fn subject() -> Subject {
        Subject {
            node: "one".into(),
            address: "2001:db8::10".parse().unwrap(),
            service: "fd00::1".parse().unwrap(),
            dns_domain: "cluster.local".into(),
            extra_sans: vec!["api.example.org".into()],
        }
    }

    #[test]
    fn every_leaf_says_what_was_asked_and_is_signed_by_its_authority_alone() {
        for leaf in Leaf::ALL {
            let request = leaf.request(&subject());
            let (pair, signer) = authority(request.authority, NOW, NOW).unwrap();
            let issued = signer.issue(&request, NOW).unwrap();
            let ca = check::authority(request.authority, pair.public.as_bytes(), pair.key.as_bytes(), NOW).unwrap();
            let inspected = check::inspect(issued.public.as_bytes()).unwrap();
            assert_eq!(check::leaf(&inspected, &ca, &request, NOW), Ok(()), "{leaf}");
            assert_eq!(check::public_half(issued.key.as_bytes()), Ok(inspected.public_key.clone()), "{leaf}");
            assert_eq!(inspected.validity.not_after, NOW + request.lifetime);
            let (_, other) = authority(request.authority, NOW, NOW).unwrap();
            let other = check::inspect(other.certificate.as_bytes()).unwrap();
            assert_eq!(check::leaf(&inspected, &other, &request, NOW), Err(Fault::WrongAuthority), "{leaf}");
            let late = NOW + request.lifetime + 1;
            assert_eq!(check::leaf(&inspected, &ca, &request, late), Err(Fault::Expired), "{leaf}");
            assert_eq!(check::leaf(&inspected, &ca, &request, NOW - DAY), Ok(()), "{leaf}");
            let early = NOW - DAY - 1;
            assert_eq!(check::leaf(&inspected, &ca, &request, early), Err(Fault::NotYetValid), "{leaf}");
        }
    }

    #[test]
    fn an_authority_is_as_old_as_the_image_and_no_leaf_is_older() {
        let image = NOW - 90 * DAY;
        let (pair, signer) = authority(Authority::Cluster, NOW, image).unwrap();
        assert_eq!(check::inspect(pair.public.as_bytes()).unwrap().validity.not_before, image);
        let issued = signer.issue(&Leaf::Admin.request(&subject()), image + 60).unwrap();
        assert_eq!(check::inspect(issued.public.as_bytes()).unwrap().validity.not_before, image);
    }

    #[test]
    fn a_loaded_authority_signs_like_the_one_that_was_made() {
        let (pair, _) = authority(Authority::Cluster, NOW, NOW).unwrap();
        let loaded = Signer::load(pair.public.as_bytes(), pair.key.as_bytes()).unwrap();
        let request = Leaf::Admin.request(&subject());
        let issued = loaded.issue(&request, NOW + DAY).unwrap();
        let ca = check::inspect(pair.public.as_bytes()).unwrap();
        let inspected = check::inspect(issued.public.as_bytes()).unwrap();
        assert_eq!(check::leaf(&inspected, &ca, &request, NOW + DAY), Ok(()));
    }

    #[test]
    fn serials_never_repeat_and_have_128_bits() {
        let (_, signer) = authority(Authority::Etcd, NOW, NOW).unwrap();
        let request = Leaf::EtcdPeer.request(&subject());
        let serial = || {
            let pem = signer.issue(&request, NOW).unwrap().public;
            let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
            block.parse_x509().unwrap().raw_serial().to_vec()
        };
        let (one, two) = (serial(), serial());
        assert_ne!(one, two);
        assert_eq!(one.len(), 16);
    }

    #[test]
    fn an_operator_gets_a_certificate_for_a_key_that_never_was_here() {
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFtyLNW11EJMUPiwRcHaaW9KjV8Vl09jxBNwH+DyAUnb";
        let key = OperatorKey::parse(line).unwrap();
        let (_, signer) = authority(Authority::Cluster, NOW, NOW).unwrap();
        let pem = signer.issue_for(&key.request(), &key.spki, NOW).unwrap();
        let inspected = check::inspect(pem.as_bytes()).unwrap();
        let ca = check::inspect(signer.certificate.as_bytes()).unwrap();
        assert_eq!(inspected.public_key, key.public_key);
        assert_eq!(check::leaf(&inspected, &ca, &key.request(), NOW), Ok(()));
    }

    #[test]
    fn a_request_asks_for_exactly_what_the_profile_has_and_its_key_is_its_own() {
        use crate::certificates::{profile, signing_request as rules};
        for (leaf, request) in profile::of_every_node("one", "2001:db8::10".parse().unwrap(), &[7; 32]) {
            let (der, key) = signing_request(&request).unwrap();
            let spki = rules::check(&der, &request).unwrap_or_else(|why| panic!("{leaf}: {why}"));
            assert!(spki.ends_with(&check::public_half(key.as_bytes()).unwrap()), "{leaf}");
        }
    }

    #[test]
    fn an_identity_key_reads_back() {
        let key = ed25519().unwrap();
        let public = check::ed25519_public_half(key.as_bytes()).unwrap();
        let loaded = Ed25519::load(key.as_bytes()).unwrap();
        assert_eq!(loaded.public()[..], public[..]);
        assert!(check::ed25519_verifies(&public, b"message", &loaded.sign(b"message")));
    }
}
