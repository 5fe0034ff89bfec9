//! Whether a certificate signing request (PKCS #10, RFC 2986) asks for what its sender may have, and for nothing more.
//!
//! What is issued never comes from the request: the profile says it. Only the public key is taken from it, so a request
//! that asks for more is refused rather than cut down, because its sender is not what it should be.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use x509_parser::x509::X509Name;

use super::operators::P256_PREFIX;
use super::profile::{Request, San};
use super::{check, profile};

/// Checks a request (DER) against what it should say, and its signature by its own ECDSA P-256 key. Returns the public
/// key as SubjectPublicKeyInfo, DER.
///
/// # Errors
/// What was expected and what was found, in words.
pub fn check(der: &[u8], expected: &Request) -> Result<Vec<u8>, String> {
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| "expected a PKCS #10 request".to_owned())?;
    if !rest.is_empty() {
        return Err("expected nothing after the PKCS #10 request, found more bytes".to_owned());
    }
    let info = &request.certification_request_info;
    if !is_subject(&info.subject, expected) {
        let organizations: String = expected.organizations.iter().map(|name| format!("O={name}, ")).collect();
        let uid: String = expected.uid.iter().map(|uid| format!("UID={uid}, ")).collect();
        return Err(format!(
            "expected the subject {organizations}{uid}CN={}, found {}",
            expected.common_name, info.subject
        ));
    }
    names(&request, &expected.names)?;
    let point = &info.subject_pki.subject_public_key.data;
    // The whole of it, so that no other algorithm or form of the point is certified than the one that is verified here.
    let spki = [P256_PREFIX, point].concat();
    let algorithm = &request.signature_algorithm;
    let signed = algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256
        && algorithm.parameters.is_none()
        && request.signature_value.unused_bits == 0
        && UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(info.raw, &request.signature_value.data)
            .is_ok();
    match signed && info.subject_pki.raw == spki {
        true => Ok(spki),
        false => Err("expected a signature by the request's own ECDSA P-256 key".to_owned()),
    }
}

/// Whether the subject is exactly the expected organizations, UID and common name.
fn is_subject(subject: &X509Name<'_>, expected: &Request) -> bool {
    let common: Vec<_> = subject.iter_common_name().map(|name| name.as_str()).collect();
    let organizations: Vec<_> = subject.iter_organization().map(|name| name.as_str()).collect();
    common == [Ok(expected.common_name.as_str())]
        && organizations.len() == expected.organizations.len()
        && organizations.iter().zip(&expected.organizations).all(|(found, wanted)| *found == Ok(wanted.as_str()))
        && check::uid(subject) == expected.uid
        && subject.iter_attributes().count() == 1 + expected.organizations.len() + usize::from(expected.uid.is_some())
}

/// The extensions: none, or the alternative names alone.
fn names(request: &X509CertificationRequest<'_>, expected: &[San]) -> Result<(), String> {
    // A second attribute could hold extensions that nobody looked at.
    if request.certification_request_info.iter_attributes().count() > 1 {
        return Err("expected one list of requested extensions at most, found more attributes".to_owned());
    }
    let extensions: Vec<_> = request.requested_extensions().into_iter().flatten().collect();
    let found = match extensions.as_slice() {
        [] => Vec::new(),
        [ParsedExtension::SubjectAlternativeName(names)] if !expected.is_empty() => names
            .general_names
            .iter()
            .map(check::alternative_name)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|fault| format!("its names are {fault}"))?,
        _ if expected.is_empty() => return Err("expected no requested extensions, found some".to_owned()),
        _ => return Err("expected the subject's alternative names as the only requested extension".to_owned()),
    };
    if found != expected {
        let list = |names: &[San]| names.iter().map(San::to_string).collect::<Vec<_>>().join(", ");
        return Err(format!("expected the names {}, found {}", list(expected), list(&found)));
    }
    Ok(())
}

/// Checks the requests of a node, in the order of [`profile::of_every_node`], and returns for each what to issue and for
/// which public key.
///
/// # Errors
/// In words: the certificate, what was expected, what was found.
pub fn check_node(
    requests: &[Vec<u8>; 4],
    node: &str,
    address: std::net::IpAddr,
    key: &[u8; 32],
) -> Result<Vec<(profile::Leaf, Request, Vec<u8>)>, String> {
    let one = |((leaf, request), der): ((profile::Leaf, Request), &Vec<u8>)| match check(der, &request) {
        Ok(spki) => Ok((leaf, request, spki)),
        Err(why) => Err(format!("{leaf}: {why}")),
    };
    profile::of_every_node(node, address, key).into_iter().zip(requests).map(one).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, SanType};

    use super::super::sample::signing_request as der;
    use super::*;

    const NODE: &str = "one";

    fn address() -> std::net::IpAddr {
        [192, 0, 2, 11].into()
    }

    #[test]
    fn what_every_node_asks_for_is_what_it_may_have() {
        let expected = profile::of_every_node(NODE, address(), &[7; 32]);
        let mut requests = expected.each_ref().map(|(_, request)| der(request, |_| {}));
        let checked = check_node(&requests, NODE, address(), &[7; 32]).unwrap();
        let leaves: Vec<_> = checked.iter().map(|(leaf, request, _)| (*leaf, request.clone())).collect();
        assert_eq!(leaves, expected);
        let of_another_key = check_node(&requests, NODE, address(), &[8; 32]).unwrap_err();
        assert!(of_another_key.starts_with("kubelet-client: expected the subject"), "{of_another_key}");
        requests.swap(0, 1);
        let why = check_node(&requests, NODE, address(), &[7; 32]).unwrap_err();
        assert!(why.starts_with("kubelet-client: expected the subject O=system:nodes, UID=kubeboot:node:"), "{why}");
    }

    #[test]
    fn a_request_for_anything_else_is_refused_with_what_it_asked_for() {
        let [(_, client), (_, serving), ..] = profile::of_every_node(NODE, address(), &[7; 32]);
        let refused = |der: Vec<u8>, expected: &Request| check(&der, expected).unwrap_err();
        let ip = |text: &str| SanType::IpAddress(text.parse().unwrap());
        let extra = |name: SanType| refused(der(&serving, |params| params.subject_alt_names.push(name)), &serving);
        let instead = |name: &str| refused(der(&serving, |params| params.subject_alt_names[1] = ip(name)), &serving);
        let found = [
            refused(der(&Request { common_name: "system:node:two".into(), ..client.clone() }, |_| {}), &client),
            refused(der(&Request { organizations: vec!["system:masters".into()], ..client.clone() }, |_| {}), &client),
            refused(der(&client, |params| params.distinguished_name.push(DnType::CountryName, "XX")), &client),
            refused(der(&client, |params| params.subject_alt_names.push(ip("192.0.2.11"))), &client),
            refused(der(&serving, |params| params.subject_alt_names.clear()), &serving),
            extra(ip("192.0.2.10")),
            extra(SanType::URI("spiffe://cluster/admin".try_into().unwrap())),
            extra(SanType::DnsName("kubernetes.default.svc".try_into().unwrap())),
            instead("127.0.0.1"),
            instead("10.96.0.1"),
            refused(
                der(&serving, |params| params.is_ca = rcgen::IsCa::NoCa),
                &Request { names: Vec::new(), ..serving.clone() },
            ),
            refused(Vec::new(), &client),
            refused([der(&client, |_| {}), vec![0]].concat(), &client),
        ];
        insta::assert_snapshot!(found.join("\n"));
    }

    #[test]
    fn only_a_key_that_signed_its_own_request_is_certified() {
        let [(_, client), ..] = profile::of_every_node(NODE, address(), &[7; 32]);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CustomDnType(profile::UID.into()), profile::node_uid(&[7; 32]));
        params.distinguished_name.push(DnType::CommonName, "system:node:one");
        let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let other = params.serialize_request(&other).unwrap();
        assert!(check(other.der(), &client).unwrap_err().contains("ECDSA P-256"));
        let mut forged = der(&client, |_| {});
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert!(check(&forged, &client).unwrap_err().contains("own ECDSA P-256 key"));
    }

    proptest! {
        /// What frames the signed part may be spelt in other ways; what is certified is the signer's key all the same.
        #[test]
        fn a_changed_byte_certifies_no_other_key(at: prop::sample::Index, byte: u8) {
            let [(_, client), ..] = profile::of_every_node(NODE, address(), &[7; 32]);
            let mut changed = der(&client, |_| {});
            let key = check(&changed, &client);
            let at = at.index(changed.len());
            changed[at] = byte;
            let found = check(&changed, &client);
            prop_assert!(found.is_err() || found == key);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let [(_, client), ..] = profile::of_every_node(NODE, address(), &[7; 32]);
            prop_assert!(check(&bytes, &client).is_err());
        }
    }
}
