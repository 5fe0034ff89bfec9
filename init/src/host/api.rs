//! A small client of the Kubernetes API: HTTPS with a client certificate, JSON in and out, one request at a time.
//!
//! The few calls that kubeboot makes need no generated types: a manifest is data, and server-side apply takes it as it
//! is (Kubernetes API conventions; KEP-555).

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use serde::Deserialize;
use serde_json::Value;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use zeroize::Zeroizing;

/// Who owns the fields that kubeboot applies.
pub const FIELD_MANAGER: &str = "kubeboot";
/// How long a call may take, from beginning to end.
const LONGEST: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const LARGEST: u64 = 32 << 20;

/// Why a call did not do what it should.
#[derive(Debug)]
pub enum ApiError {
    /// The kubeconfig can't be used.
    Kubeconfig(String),
    /// Nobody answered at the server's address, or not as an API server should.
    Unreachable {
        /// The server.
        server: String,
        /// What went wrong.
        why: String,
    },
    /// The server answered with an error.
    Refused {
        /// What was asked, such as `GET /api/v1/nodes/x`.
        asked: String,
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        message: String,
    },
}

impl ApiError {
    /// The HTTP status, when the server answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            ApiError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiError::Kubeconfig(why) => write!(f, "the kubeconfig can't be used: {why}"),
            ApiError::Unreachable { server, why } => write!(f, "no API server answers at {server}: {why}"),
            ApiError::Refused { asked, status, message } => write!(f, "{asked} was answered with {status}: {message}"),
        }
    }
}

impl std::error::Error for ApiError {}

/// A connection to one API server, kept open between calls.
pub struct Api {
    agent: ureq::Agent,
    server: String,
    /// `apiVersion` → kinds → where they live; asked of the server once.
    kinds: Mutex<BTreeMap<String, BTreeMap<String, Kind>>>,
}

/// Where objects of a kind live.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Kind {
    name: String,
    namespaced: bool,
    kind: String,
}

impl Api {
    /// Takes server, trust and identity from a kubeconfig's first cluster and first user; certificates inline or by
    /// path.
    ///
    /// # Errors
    /// [`ApiError::Kubeconfig`].
    pub fn from_kubeconfig(path: &std::path::Path) -> Result<Self, ApiError> {
        let wrong = |why: String| ApiError::Kubeconfig(format!("{}: {why}", path.display()));
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?);
        let config: Kubeconfig = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let first = |what: &str| wrong(format!("expected a {what}, found none"));
        let cluster = config.clusters.into_iter().next().ok_or_else(|| first("cluster"))?.cluster;
        let user = config.users.into_iter().next().ok_or_else(|| first("user"))?.user;
        let read = |what, inline: &Option<Inline>, path: &Option<String>| {
            contents(what, inline.as_ref(), path.as_deref()).map_err(wrong)
        };
        let ca = read("certificate-authority", &cluster.certificate_authority_data, &cluster.certificate_authority)?;
        let certificate = read("client-certificate", &user.client_certificate_data, &user.client_certificate)?;
        let key = read("client-key", &user.client_key_data, &user.client_key)?;
        let identity = Some((certificate.as_slice(), key.as_slice()));
        match &cluster.tls_server_name {
            None => Self::new(&cluster.server, &ca, identity),
            Some(name) => {
                let (url, address) = named(&cluster.server, name).map_err(wrong)?;
                Self::build(&url, &ca, identity, Some(address))
            }
        }
    }

    /// Trusts the PEM certificates in `ca`; `identity` is a PEM chain and its key.
    ///
    /// # Errors
    /// [`ApiError::Kubeconfig`] for texts that hold no certificate or no key.
    pub fn new(server: &str, ca: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<Self, ApiError> {
        Self::build(server, ca, identity, None)
    }

    /// `at`: where the server is, whatever its name in the URL says.
    fn build(
        server: &str,
        ca: &[u8],
        identity: Option<(&[u8], &[u8])>,
        at: Option<SocketAddr>,
    ) -> Result<Self, ApiError> {
        let roots = certificates(ca, "the certificate authority")?;
        let client = match identity {
            None => None,
            Some((chain, key)) => {
                let key = PrivateKey::from_pem(key).map_err(|error| ApiError::Kubeconfig(format!("key: {error}")))?;
                Some(ClientCert::new_with_certs(&certificates(chain, "the client certificate")?, key))
            }
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(RootCerts::new_with_certs(&roots))
            .client_cert(client)
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(3)))
            .timeout_global(Some(LONGEST))
            .user_agent(concat!("kubeboot/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = match at {
            None => config.new_agent(),
            Some(address) => ureq::Agent::with_parts(config, DefaultConnector::default(), Fixed(address)),
        };
        Ok(Api { agent, server: server.trim_end_matches('/').to_owned(), kinds: Mutex::default() })
    }

    /// The server's address, `https://HOST:PORT`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// GET of anything, with its status whatever it is: `/readyz` and its like.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`].
    pub fn text(&self, path: &str) -> Result<(u16, String), ApiError> {
        self.answer(self.agent.get(self.url(path)).call())
    }

    /// GET of an object or a list.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`], [`ApiError::Refused`].
    pub fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.json("GET", path, self.agent.get(self.url(path)).header("Accept", "application/json").call())
    }

    /// [`Api::get`] that waits for the whole answer no longer than this.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn get_within(&self, path: &str, within: Duration) -> Result<Value, ApiError> {
        let request = self.agent.get(self.url(path)).header("Accept", "application/json");
        self.json("GET", path, request.config().timeout_global(Some(within.min(LONGEST))).build().call())
    }

    /// GET of an object that may not be there.
    ///
    /// # Errors
    /// As [`Api::get`], but for 404.
    pub fn get_optional(&self, path: &str) -> Result<Option<Value>, ApiError> {
        missing_is_none(self.get(path))
    }

    /// Server-side apply of a whole object: kubeboot owns what it states, and takes it back from who changed it.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`], [`ApiError::Refused`] (also for a kind that the server does not know).
    pub fn apply(&self, object: &Value) -> Result<Value, ApiError> {
        let path = self.path_of(object)?;
        let query = format!("{path}?fieldManager={FIELD_MANAGER}&force=true");
        let request = self.agent.patch(self.url(&query)).content_type("application/apply-patch+yaml");
        self.json("PATCH", &path, request.send(object.to_string().as_bytes()))
    }

    /// JSON merge patch (RFC 7386).
    ///
    /// # Errors
    /// [`ApiError::Unreachable`], [`ApiError::Refused`].
    pub fn merge(&self, path: &str, patch: &Value) -> Result<Value, ApiError> {
        let query = format!("{path}?fieldManager={FIELD_MANAGER}");
        let request = self.agent.patch(self.url(&query)).content_type("application/merge-patch+json");
        self.json("PATCH", path, request.send(patch.to_string().as_bytes()))
    }

    /// PUT of a whole object in place of the version that it names.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`], [`ApiError::Refused`].
    pub fn put(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        let request = self.agent.put(self.url(path)).content_type("application/json");
        self.json("PUT", path, request.send(object.to_string().as_bytes()))
    }

    /// POST of a new object; `path` is its collection's.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`], [`ApiError::Refused`]: with 409 if there is one of its name.
    pub fn post(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        let request = self.agent.post(self.url(path)).content_type("application/json");
        self.json("POST", path, request.send(object.to_string().as_bytes()))
    }

    /// [`Api::post`] that waits for the whole answer no longer than this.
    ///
    /// # Errors
    /// As [`Api::post`]. Whether it was done is not known when nothing came in time.
    pub fn post_within(&self, path: &str, object: &Value, within: Duration) -> Result<Value, ApiError> {
        let request = self.agent.post(self.url(path)).content_type("application/json");
        let request = request.config().timeout_global(Some(within.min(LONGEST))).build();
        self.json("POST", path, request.send(object.to_string().as_bytes()))
    }

    /// DELETE of an object that is still in this version.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`], [`ApiError::Refused`]: with 409 if it is in another, with 404 if it is gone.
    pub fn delete_version(&self, path: &str, version: &str) -> Result<Value, ApiError> {
        let options = serde_json::json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"resourceVersion": version},
        });
        let request = self.agent.delete(self.url(path)).force_send_body().content_type("application/json");
        self.json("DELETE", path, request.send(options.to_string().as_bytes()))
    }

    /// DELETE; an object that is not there is no error. True when there was one.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`], [`ApiError::Refused`].
    pub fn delete(&self, path: &str) -> Result<bool, ApiError> {
        let query = format!("{path}?propagationPolicy=Background");
        Ok(missing_is_none(self.json("DELETE", path, self.agent.delete(self.url(&query)).call()))?.is_some())
    }

    /// Where an object lives, by its `apiVersion`, `kind`, namespace and name.
    ///
    /// # Errors
    /// [`ApiError::Refused`] for an object without these, or of a kind that the server does not know.
    pub fn path_of(&self, object: &Value) -> Result<String, ApiError> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let unknown = |message: String| ApiError::Refused { asked: format!("{kind} {name}"), status: 404, message };
        if version.is_empty() || kind.is_empty() || name.is_empty() {
            return Err(unknown("expected apiVersion, kind and metadata.name".to_owned()));
        }
        let place = self.kind(version, kind)?.ok_or_else(|| unknown(format!("the server has no {version} {kind}")))?;
        let namespace = match text("/metadata/namespace") {
            "" => "default",
            namespace => namespace,
        };
        let base = group_path(version);
        Ok(match place.namespaced {
            true => format!("{base}/namespaces/{namespace}/{}/{name}", place.name),
            false => format!("{base}/{}/{name}", place.name),
        })
    }

    fn kind(&self, version: &str, kind: &str) -> Result<Option<Kind>, ApiError> {
        let known = || self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known().get(version).and_then(|kinds| kinds.get(kind)) {
            return Ok(Some(found.clone()));
        }
        #[derive(Deserialize)]
        struct List {
            resources: Vec<Kind>,
        }
        let path = group_path(version);
        let Some(answer) = self.get_optional(&path)? else { return Ok(None) };
        let list: List = serde_json::from_value(answer).map_err(|error| self.unreachable(error))?;
        // Subresources ("pods/status") share the kind of what they belong to.
        let kinds = list.resources.into_iter().filter(|resource: &Kind| !resource.name.contains('/'));
        let kinds: BTreeMap<String, Kind> = kinds.map(|resource| (resource.kind.clone(), resource)).collect();
        let found = kinds.get(kind).cloned();
        known().insert(version.to_owned(), kinds);
        Ok(found)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    fn unreachable(&self, why: impl fmt::Display) -> ApiError {
        ApiError::Unreachable { server: self.server.clone(), why: why.to_string() }
    }

    fn answer(&self, result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<(u16, String), ApiError> {
        let mut response = result.map_err(|error| self.unreachable(error))?;
        let text = response.body_mut().with_config().limit(LARGEST).read_to_string();
        Ok((response.status().as_u16(), text.map_err(|error| self.unreachable(error))?))
    }

    fn json(
        &self,
        method: &str,
        path: &str,
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, ApiError> {
        let (status, text) = self.answer(result)?;
        let value: Option<Value> = serde_json::from_str(&text).ok();
        if (200..300).contains(&status) {
            return value.ok_or_else(|| self.unreachable("expected JSON, found something else"));
        }
        let said = value.as_ref().and_then(|status| status.get("message")).and_then(Value::as_str);
        let message = said.unwrap_or(text.trim()).chars().take(500).collect();
        Err(ApiError::Refused { asked: format!("{method} {path}"), status, message })
    }
}

/// The URL by which a server behind another name is asked, so that TLS expects that name, and where it is.
fn named(server: &str, name: &str) -> Result<(String, SocketAddr), String> {
    let address = server.strip_prefix("https://").and_then(|rest| rest.parse::<SocketAddr>().ok());
    let address = address.ok_or_else(|| format!("tls-server-name beside {server}: expected https://ADDRESS:PORT"))?;
    Ok((format!("https://{name}:{}", address.port()), address))
}

/// A name server that has one answer.
#[derive(Debug)]
struct Fixed(SocketAddr);

impl Resolver for Fixed {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut found = self.empty();
        found.push(self.0);
        Ok(found)
    }
}

/// `v1` is the core group, which has a path of its own.
fn group_path(version: &str) -> String {
    if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") }
}

fn missing_is_none(result: Result<Value, ApiError>) -> Result<Option<Value>, ApiError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<Certificate<'static>>, ApiError> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        match item.map_err(|error| ApiError::Kubeconfig(format!("{what}: {error}")))? {
            PemItem::Certificate(certificate) => found.push(certificate),
            _ => continue,
        }
    }
    if found.is_empty() {
        return Err(ApiError::Kubeconfig(format!("{what}: expected a certificate in PEM, found none")));
    }
    Ok(found)
}

#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    tls_server_name: Option<String>,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<Inline>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<Inline>,
    client_key: Option<String>,
    client_key_data: Option<Inline>,
}

/// Base64 of a PEM file, zeroed when dropped: one of them is a key.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Inline(Zeroizing<String>);

impl From<String> for Inline {
    fn from(text: String) -> Self {
        Inline(Zeroizing::new(text))
    }
}

/// A file's contents, given inline or by path; inline wins, as in kubectl.
fn contents(what: &str, inline: Option<&Inline>, path: Option<&str>) -> Result<Zeroizing<Vec<u8>>, String> {
    match (inline, path) {
        (Some(Inline(data)), _) => base64::engine::general_purpose::STANDARD
            .decode(data.trim())
            .map(Zeroizing::new)
            .map_err(|error| format!("{what}-data: {error}")),
        (None, Some(path)) => {
            std::fs::read(path).map(Zeroizing::new).map_err(|error| format!("{what} {path}: {error}"))
        }
        (None, None) => Err(format!("expected {what} or {what}-data, found neither")),
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
