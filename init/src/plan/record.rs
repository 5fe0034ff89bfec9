//! The two records that outlive everything else: who the cluster is, and who the node is.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::certificates::{Unix, check};

/// Who the cluster is: `/var/lib/kubeboot/cluster.json`. Public halves only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cluster {
    /// Version of this record's form.
    pub format: u32,
    /// 128 random bits, as 32 hexadecimal digits.
    pub id: String,
    /// When it was founded, seconds since 1970. The founding window is counted from here.
    pub founded: Unix,
    /// The founding key's public half (Ed25519), base64: tokens derived from the seed name it.
    pub founding_key: String,
    /// The cluster identity's public half (Ed25519), base64.
    pub identity_key: String,
    /// The founding key's signature over [`Cluster::certified`], base64. The private half was used for this once.
    pub certificate: String,
}

/// The form that this version writes.
const FORMAT: u32 = 1;

impl Cluster {
    /// A record that is complete but for its signature.
    pub fn unsigned(id: [u8; 16], founded: Unix, founding_key: &[u8; 32], identity_key: &[u8; 32]) -> Self {
        Cluster {
            format: FORMAT,
            id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            founded,
            founding_key: STANDARD.encode(founding_key),
            identity_key: STANDARD.encode(identity_key),
            certificate: String::new(),
        }
    }

    /// What the founding key signs: a label, the id, the moment and the identity key, each of fixed form.
    pub fn certified(&self) -> Vec<u8> {
        format!("kubeboot founding 1\n{}\n{}\n{}\n", self.id, self.founded, self.identity_key).into_bytes()
    }

    /// Completes an unsigned record with the founding key's signature, which is not checked here.
    pub fn certify(&mut self, signature: &[u8; 64]) {
        self.certificate = STANDARD.encode(signature);
    }

    /// The record as it is written.
    pub fn text(&self) -> String {
        text(self)
    }

    /// Reads and verifies a record.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let record: Cluster = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.format != FORMAT {
            return Err(format!("expected format {FORMAT}, found {}", record.format));
        }
        if record.id.len() != 32 || !record.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("its id is not 32 hexadecimal digits".to_owned());
        }
        let bytes = |text: &str| STANDARD.decode(text).map_err(|error| error.to_string());
        let (key, signature) = (bytes(&record.founding_key)?, bytes(&record.certificate)?);
        if !check::ed25519_verifies(&key, &record.certified(), &signature) {
            return Err("its founding signature does not verify".to_owned());
        }
        Ok(record)
    }

    /// Whether `public` is the founding key's public half.
    pub fn is_founded_by(&self, public: &[u8; 32]) -> bool {
        STANDARD.decode(&self.founding_key).is_ok_and(|key| key == public)
    }

    /// The founding key's public half; of a record that was not parsed it may be all zeros.
    pub fn founding(&self) -> [u8; 32] {
        key(&self.founding_key)
    }

    /// The identity key's public half. A record that was parsed has one; of another it is all zeros, which no key is.
    pub fn identity(&self) -> [u8; 32] {
        key(&self.identity_key)
    }

    /// Whether `public` is the identity key's public half.
    pub fn is_identity(&self, public: &[u8]) -> bool {
        STANDARD.decode(&self.identity_key).is_ok_and(|key| key == public)
    }
}

fn key(base64: &str) -> [u8; 32] {
    STANDARD.decode(base64).ok().and_then(|key| key.try_into().ok()).unwrap_or_default()
}

/// Who the node is: `/var/lib/kubeboot/node.json`, pinned at first boot, because a name or an address that moves
/// breaks etcd and the certificates. A worker that gets another address says so here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// The address by which other machines reach it.
    pub address: IpAddr,
    /// `/etc/machine-id` at that time.
    pub machine_id: String,
}

impl Node {
    /// The record as it is written.
    pub fn text(&self) -> String {
        text(self)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }
}

/// Where the cluster's API servers are: `/var/lib/kubeboot/endpoints.json`, which a worker's balancer follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Endpoints {
    /// Version of this record's form.
    pub format: u32,
    /// The API servers, sorted, each once.
    pub servers: Vec<SocketAddr>,
}

impl Endpoints {
    /// API servers at most, here and in a grant.
    pub const MOST: usize = 16;

    /// Those that the EndpointSlice `default/kubernetes` names (KEP-752: each API server takes itself in and out); none
    /// when it names nobody.
    pub fn of_slice(slice: &Value) -> Option<Self> {
        let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let port = list(slice, "ports").iter().find_map(|port| u16::try_from(port.get("port")?.as_u64()?).ok())?;
        // Where none is said it is ready (discovery.k8s.io/v1, EndpointConditions).
        let is_ready = |endpoint: &Value| endpoint.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false);
        let ready = list(slice, "endpoints").into_iter().filter(is_ready);
        let addresses = ready.flat_map(|endpoint| list(&endpoint, "addresses"));
        let record =
            Endpoints::of(addresses.filter_map(|address| Some(SocketAddr::new(address.as_str()?.parse().ok()?, port))));
        (!record.servers.is_empty()).then_some(record)
    }

    /// What is told of it.
    pub fn words(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        format!("the API servers are {}", servers.join(", "))
    }

    /// A record of these servers; of too many only the first are kept.
    pub fn of(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut servers: Vec<SocketAddr> = servers.into_iter().collect();
        servers.sort_unstable();
        servers.dedup();
        servers.truncate(Endpoints::MOST);
        Endpoints { format: FORMAT, servers }
    }

    /// The record as it is written.
    pub fn text(&self) -> String {
        text(self)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong, in words: another form, no server, too many, one twice.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let record: Endpoints = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.format != FORMAT {
            return Err(format!("expected format {FORMAT}, found {}", record.format));
        }
        let (found, most) = (record.servers.len(), Endpoints::MOST);
        if found == 0 || found > most {
            return Err(format!("expected 1 to {most} servers, found {found}"));
        }
        if record.servers.iter().collect::<BTreeSet<_>>().len() < found {
            return Err("a server stands there twice".to_owned());
        }
        Ok(record)
    }
}

fn text(record: &impl Serialize) -> String {
    serde_json::to_string_pretty(record).expect("strings and numbers only") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::token::Seed;

    fn signed() -> Cluster {
        let founding = Seed::new([7; 16]).founding_key();
        let mut record = Cluster::unsigned([1; 16], 1_800_000_000, &founding.public(), &[9; 32]);
        record.certificate = STANDARD.encode(founding.sign(&record.certified()));
        record
    }

    #[test]
    fn a_record_reads_back_and_a_changed_one_does_not() {
        let record = signed();
        assert_eq!(Cluster::parse(record.text().as_bytes()), Ok(record.clone()));
        assert!(record.is_identity(&[9; 32]) && !record.is_identity(&[8; 32]));
        let changed = Cluster { founded: record.founded + 1, ..record };
        assert_eq!(Cluster::parse(changed.text().as_bytes()), Err("its founding signature does not verify".into()));
    }

    #[test]
    fn endpoints_are_sorted_bounded_and_read_back() {
        let servers = (0..40u8).rev().map(|n| SocketAddr::from(([10, 0, 0, n / 2], 6443)));
        let record = Endpoints::of(servers);
        assert_eq!(record.servers.len(), Endpoints::MOST);
        assert_eq!(record.servers[1], SocketAddr::from(([10, 0, 0, 1], 6443)));
        assert_eq!(Endpoints::parse(record.text().as_bytes()), Ok(record.clone()));
        let later = record.text().replace("\"format\": 1", "\"format\": 2");
        assert_eq!(Endpoints::parse(later.as_bytes()), Err("expected format 1, found 2".into()));
    }

    #[test]
    fn what_is_no_list_of_servers_is_named() {
        let cases = [
            ("", "EOF"),
            ("{\"format\":1,\"servers\":[]}", "expected 1 to 16 servers, found 0"),
            ("{\"format\":1,\"servers\":[\"192.0.2.10:1\",\"192.0.2.10:1\"]}", "twice"),
            ("{\"format\":1,\"servers\":[\"one:6443\"]}", "invalid socket address"),
        ];
        for (contents, expected) in cases {
            let error = Endpoints::parse(contents.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{contents}: {error}");
        }
        let server = |last: usize| SocketAddr::from(([192, 0, 2, u8::try_from(last).unwrap()], 6443));
        let many = Endpoints { format: FORMAT, servers: (0..=Endpoints::MOST).map(server).collect() };
        assert!(Endpoints::parse(many.text().as_bytes()).is_err());
    }

    #[test]
    fn api_servers_are_those_that_are_ready() {
        let slice = json!({
            "endpoints": [
                {"addresses": ["192.0.2.11"], "conditions": {"ready": true}},
                {"addresses": ["192.0.2.10", "no address"]},
                {"addresses": ["192.0.2.12"], "conditions": {"ready": false}},
            ],
            "ports": [{"name": "https", "port": 6443}],
        });
        let servers = ["192.0.2.10:6443", "192.0.2.11:6443"].map(|one| one.parse().unwrap());
        assert_eq!(Endpoints::of_slice(&slice), Some(Endpoints::of(servers)));
        for nobody in [json!({}), json!({"endpoints": null, "ports": []}), json!({"ports": [{"port": 6443}]})] {
            assert_eq!(Endpoints::of_slice(&nobody), None);
        }
    }

    #[test]
    fn no_cut_of_a_record_reads_as_one() {
        let text = signed().text();
        for length in 0..text.len() - 2 {
            assert!(Cluster::parse(&text.as_bytes()[..length]).is_err(), "{length}");
        }
    }
}
