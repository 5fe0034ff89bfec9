//! Certificate signing requests, and an authority that signs them, for tests.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, SubjectPublicKeyInfo, date_time_ymd,
};

use super::profile::{self, Purpose, Request, San, UID};
use super::{Unix, Validity};

/// A request (DER) by a new key that says what `request` says, after `change`.
pub fn signing_request(request: &Request, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = says(request);
    params.subject_alt_names = request.names.iter().map(san).collect();
    change(&mut params);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn says(request: &Request) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for organization in &request.organizations {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    if let Some(uid) = &request.uid {
        params.distinguished_name.push(DnType::CustomDnType(UID.into()), uid.as_str());
    }
    params.distinguished_name.push(DnType::CommonName, request.common_name.as_str());
    params
}

fn san(name: &San) -> SanType {
    match name {
        San::Dns(name) => SanType::DnsName(name.as_str().try_into().unwrap()),
        San::Ip(address) => SanType::IpAddress(*address),
    }
}

/// An authority that signs at one moment.
pub struct Signer {
    /// Its certificate, PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
    now: Unix,
}

impl Signer {
    /// A new authority of that kind.
    pub fn new(which: profile::Authority, now: Unix) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, which.common_name());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        valid(&mut params, now, profile::Authority::LIFETIME);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Signer { certificate, issuer: Issuer::new(params, key), now }
    }

    /// Signs what `request` says for a public key (SubjectPublicKeyInfo, DER). Returns PEM.
    pub fn issue(&self, request: &Request, spki: &[u8]) -> String {
        let mut params = says(request);
        params.subject_alt_names = request.names.iter().map(san).collect();
        params.extended_key_usages = match request.purpose {
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Purpose::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Purpose::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        valid(&mut params, self.now, request.lifetime);
        params.signed_by(&SubjectPublicKeyInfo::from_der(spki).unwrap(), &self.issuer).unwrap().pem()
    }
}

fn valid(params: &mut CertificateParams, now: Unix, lifetime: u64) {
    let moment = |unix| date_time_ymd(1970, 1, 1) + Duration::from_secs(unix);
    let validity = Validity::starting(now, lifetime);
    params.not_before = moment(validity.not_before);
    params.not_after = moment(validity.not_after);
}
