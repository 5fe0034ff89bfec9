//! The person who commands the tests' clusters: an ssh key whose public half machines are started with. The machine
//! answers with a client certificate for that key on the report channel, so no secret ever leaves it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::json;

use crate::machine::Reach;

/// A fresh key.
pub struct Operator {
    key: KeyPair,
}

/// What a machine says of an operator: public data.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The client certificate, PEM.
    pub certificate: String,
    /// The cluster's certificate authority, PEM.
    pub ca: String,
}

impl Operator {
    /// Makes a key, which lives as long as this process and in the kubeconfigs that it writes.
    ///
    /// # Errors
    /// The random source fails.
    pub fn new() -> Result<Self> {
        Ok(Self { key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("can't make an operator's key")? })
    }

    /// The public half, as `ssh-keygen` writes it (RFC 5656, section 3.1): `ecdsa-sha2-nistp256 AAAA…`.
    #[must_use]
    pub fn public_key(&self) -> String {
        let (algorithm, curve) = ("ecdsa-sha2-nistp256", "nistp256");
        let mut blob = Vec::new();
        for part in [algorithm.as_bytes(), curve.as_bytes(), self.key.der_bytes()] {
            blob.extend_from_slice(&u32::try_from(part.len()).unwrap_or_default().to_be_bytes());
            blob.extend_from_slice(part);
        }
        format!("{algorithm} {}", STANDARD.encode(blob))
    }

    /// Writes a kubeconfig for the machine that made the grant, readable by its owner only.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn kubeconfig(&self, grant: &Grant, reach: &Reach, path: &Path) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "operator" } }],
            "clusters": [{ "name": "test", "cluster": {
                "server": reach.url,
                "certificate-authority-data": STANDARD.encode(&grant.ca),
                "tls-server-name": "kubernetes",
            } }],
            "users": [{ "name": "operator", "user": {
                "client-certificate-data": STANDARD.encode(&grant.certificate),
                "client-key-data": STANDARD.encode(self.key.serialize_pem()),
            } }],
        });
        let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
        file.and_then(|mut file| file.write_all(config.to_string().as_bytes()))
            .with_context(|| format!("can't write {}", path.display()))?;
        Ok(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_keygen_reads_the_public_key() {
        let key = format!("{} test\n", Operator::new().unwrap().public_key());
        let mut keygen = std::process::Command::new("ssh-keygen");
        let shown = crate::command::output_with_input(keygen.args(["-l", "-f", "-"]), key.as_bytes()).unwrap();
        assert!(shown.starts_with("256 SHA256:") && shown.contains("(ECDSA)"), "{shown}");
    }
}
