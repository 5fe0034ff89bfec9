//! Is a certificate on disk the one that should be there? Parsing, signatures and comparison, no files and no clock.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    UnparsedPublicKey,
};
use x509_parser::der_parser::oid::Oid;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;
use zeroize::Zeroizing;

use super::Unix;
use super::expiry::{Standing, Validity};
use super::profile::{Authority, Purpose, Request, San, UID};

/// What is wrong with a certificate or key on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A file of it is not there.
    Missing,
    /// It can't be parsed; with the reason.
    Unreadable(String),
    /// The key beside it is another one's.
    WrongKey,
    /// Its signature is not its authority's.
    WrongAuthority,
    /// It is not (or it wrongly is) an authority's certificate.
    WrongKind,
    /// It says something else than it should; with what.
    Differs(String),
    /// Its validity begins in the future.
    NotYetValid,
    /// Its validity has ended.
    Expired,
    /// It is past two thirds of its life.
    Due,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => f.write_str("missing"),
            Fault::Unreadable(reason) => write!(f, "unreadable: {reason}"),
            Fault::WrongKey => f.write_str("its key is another certificate's"),
            Fault::WrongAuthority => f.write_str("not signed by this cluster's authority"),
            Fault::WrongKind => f.write_str("its basic constraints are wrong"),
            Fault::Differs(what) => write!(f, "its {what} differs from what it should be"),
            Fault::NotYetValid => f.write_str("not valid yet by this clock"),
            Fault::Expired => f.write_str("expired"),
            Fault::Due => f.write_str("due for renewal"),
        }
    }
}

/// What a certificate says, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// From when until when.
    pub validity: Validity,
    /// First random byte of the serial number, which staggers renewal.
    pub stagger: u8,
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organizations, in order.
    pub organizations: Vec<String>,
    /// The subject's UID.
    pub uid: Option<String>,
    /// Subject alternative names, in order.
    pub names: Vec<San>,
    /// What the extended key usage allows.
    pub purpose: Option<Purpose>,
    /// Whether it is an authority's.
    pub is_authority: bool,
    /// The public key's bits: an uncompressed point, or an Ed25519 key.
    pub public_key: Vec<u8>,
    /// What was signed, and the signature.
    signed: (Vec<u8>, Vec<u8>),
}

/// Parses the first certificate in `pem`.
///
/// # Errors
/// [`Fault::Unreadable`].
pub fn inspect(pem: &[u8]) -> Result<Inspected, Fault> {
    let der = first_block(pem, "CERTIFICATE")?;
    let (rest, certificate) = X509Certificate::from_der(&der).map_err(unreadable)?;
    if !rest.is_empty() {
        return Err(Fault::Unreadable("bytes after the certificate".to_owned()));
    }
    let subject = certificate.subject();
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().map(str::to_owned);
    let seconds = |time: x509_parser::time::ASN1Time| Unix::try_from(time.timestamp()).unwrap_or_default();
    let validity = Validity {
        not_before: seconds(certificate.validity().not_before),
        not_after: seconds(certificate.validity().not_after),
    };
    let usage = certificate.extended_key_usage().map_err(unreadable)?;
    let purpose = usage.and_then(|usage| match (usage.value.client_auth, usage.value.server_auth) {
        (true, true) => Some(Purpose::Both),
        (true, false) => Some(Purpose::Client),
        (false, true) => Some(Purpose::Server),
        (false, false) => None,
    });
    Ok(Inspected {
        validity,
        stagger: certificate.raw_serial().last().copied().unwrap_or_default(),
        common_name: subject.iter_common_name().next().map(text).transpose().map_err(unreadable)?.unwrap_or_default(),
        organizations: subject.iter_organization().map(text).collect::<Result<_, _>>().map_err(unreadable)?,
        uid: uid(subject),
        names: names(&certificate)?,
        purpose,
        is_authority: certificate.is_ca(),
        public_key: certificate.public_key().subject_public_key.data.to_vec(),
        signed: (certificate.tbs_certificate.as_ref().to_vec(), certificate.signature_value.data.to_vec()),
    })
}

/// The first UID in a subject ([`UID`]).
pub(super) fn uid(subject: &X509Name<'_>) -> Option<String> {
    let has_type = |oid: &Oid<'_>| oid.iter().is_some_and(|arcs| arcs.eq(UID));
    let mut uids = subject.iter_attributes().filter(|attribute| has_type(attribute.attr_type()));
    uids.next().and_then(|uid| uid.as_str().ok()).map(str::to_owned)
}

fn names(certificate: &X509Certificate<'_>) -> Result<Vec<San>, Fault> {
    let Some(extension) = certificate.subject_alternative_name().map_err(unreadable)? else {
        return Ok(Vec::new());
    };
    extension.value.general_names.iter().map(alternative_name).collect()
}

/// A subject alternative name, of the two kinds that we issue.
pub(super) fn alternative_name(name: &GeneralName<'_>) -> Result<San, Fault> {
    match name {
        GeneralName::DNSName(name) => Ok(San::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => address(bytes).map(San::Ip),
        other => Err(Fault::Unreadable(format!("a name of an unexpected kind: {other}"))),
    }
}

fn address(bytes: &[u8]) -> Result<IpAddr, Fault> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(four.into());
    }
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(unreadable)
}

fn unreadable(error: impl fmt::Display) -> Fault {
    Fault::Unreadable(error.to_string())
}

/// The contents of the first PEM block with this label (RFC 7468).
fn first_block(pem: &[u8], label: &str) -> Result<Vec<u8>, Fault> {
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(unreadable)?;
        if block.label == label {
            return Ok(block.contents);
        }
    }
    Err(Fault::Unreadable(format!("no PEM block {label:?} in it")))
}

/// The public half of the first private key in `pem`: ECDSA P-256, in PKCS#8 or, as the kubelet writes its own, in
/// RFC 5915 form.
///
/// # Errors
/// [`Fault::Unreadable`].
pub fn public_half(pem: &[u8]) -> Result<Vec<u8>, Fault> {
    let pair = match first_block(pem, "PRIVATE KEY") {
        Ok(der) => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &Zeroizing::new(der)),
        Err(absent) => {
            let der = Zeroizing::new(first_block(pem, "EC PRIVATE KEY").map_err(|_| absent)?);
            EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &der)
        }
    };
    Ok(pair.map_err(unreadable)?.public_key().as_ref().to_vec())
}

/// The public half of the first Ed25519 private key (PKCS#8) in `pem`.
///
/// # Errors
/// [`Fault::Unreadable`].
pub fn ed25519_public_half(pem: &[u8]) -> Result<Vec<u8>, Fault> {
    let der = Zeroizing::new(first_block(pem, "PRIVATE KEY")?);
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(unreadable)?;
    Ok(pair.public_key().as_ref().to_vec())
}

/// The point in a PEM public key (SubjectPublicKeyInfo), as in `sa.pub`.
///
/// # Errors
/// [`Fault::Unreadable`].
pub fn public_key(pem: &[u8]) -> Result<Vec<u8>, Fault> {
    let der = first_block(pem, "PUBLIC KEY")?;
    let (_, info) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&der).map_err(unreadable)?;
    Ok(info.subject_public_key.data.to_vec())
}

/// Whether `signature` over `message` is that Ed25519 key's.
pub fn ed25519_verifies(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(message, signature).is_ok()
}

/// Checks an authority's certificate and key.
///
/// # Errors
/// What is wrong. An authority is never due: it is replaced by its owner only.
pub fn authority(which: Authority, certificate: &[u8], key: &[u8], now: Unix) -> Result<Inspected, Fault> {
    let inspected = inspect(certificate)?;
    if public_half(key)? != inspected.public_key {
        return Err(Fault::WrongKey);
    }
    judged(which, inspected, now)
}

/// Checks the certificate of an authority whose key is elsewhere.
///
/// # Errors
/// As [`authority`].
pub fn trusted(which: Authority, certificate: &[u8], now: Unix) -> Result<Inspected, Fault> {
    judged(which, inspect(certificate)?, now)
}

fn judged(which: Authority, inspected: Inspected, now: Unix) -> Result<Inspected, Fault> {
    if !inspected.is_authority {
        return Err(Fault::WrongKind);
    }
    if inspected.common_name != which.common_name() {
        return Err(Fault::Differs("common name".to_owned()));
    }
    if !signed_by(&inspected, &inspected) {
        return Err(Fault::WrongAuthority);
    }
    match inspected.validity.standing(now, 0) {
        Standing::NotYetValid => Err(Fault::NotYetValid),
        Standing::Expired => Err(Fault::Expired),
        Standing::Good | Standing::Due => Ok(inspected),
    }
}

/// Checks a leaf against its authority and against what it should say.
///
/// # Errors
/// The first thing that is wrong; [`Fault::Due`] only when nothing else is.
pub fn leaf(inspected: &Inspected, authority: &Inspected, request: &Request, now: Unix) -> Result<(), Fault> {
    if !signed_by(inspected, authority) {
        return Err(Fault::WrongAuthority);
    }
    if inspected.is_authority {
        return Err(Fault::WrongKind);
    }
    let differs = |what: &str| Err(Fault::Differs(what.to_owned()));
    if inspected.common_name != request.common_name {
        return differs("common name");
    }
    if inspected.organizations != request.organizations {
        return differs("organization");
    }
    if inspected.uid != request.uid {
        return differs("UID");
    }
    if inspected.names != request.names {
        return differs("list of names");
    }
    if inspected.purpose != Some(request.purpose) {
        return differs("purpose");
    }
    match inspected.validity.standing(now, inspected.stagger) {
        Standing::NotYetValid => Err(Fault::NotYetValid),
        Standing::Expired => Err(Fault::Expired),
        Standing::Due => Err(Fault::Due),
        Standing::Good => Ok(()),
    }
}

/// Whether `subject` bears `issuer`'s signature (ECDSA P-256 with SHA-256, the one algorithm we issue with).
pub fn signed_by(subject: &Inspected, issuer: &Inspected) -> bool {
    let (message, signature) = &subject.signed;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &issuer.public_key).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_certificate_is_unreadable() {
        for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(matches!(inspect(text.as_bytes()), Err(Fault::Unreadable(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.encode(&bytes)
            });
            prop_assert!(inspect(&bytes).is_err());
            prop_assert!(inspect(pem.as_bytes()).is_err());
            prop_assert!(public_half(&bytes).is_err());
        }
    }
}
