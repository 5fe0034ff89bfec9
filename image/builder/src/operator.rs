//! The operator's side of access without login: a key pair whose public half goes to the machine, and the kubeconfig
//! that is made of it and of the certificate that the machine publishes.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PublicKeyData as _};

/// The name of an ECDSA key over P-256 in ssh, and of its curve there (RFC 5656).
const KEY_TYPE: &str = "ecdsa-sha2-nistp256";
const CURVE: &str = "nistp256";

/// An ECDSA P-256 key pair.
pub struct Operator {
    pair: KeyPair,
}

impl Operator {
    /// Makes a new pair.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).context("Cannot make an operator's key")?;
        Ok(Self { pair })
    }

    /// Reads the pair that [`Operator::private_pem`] wrote.
    ///
    /// # Errors
    /// The text is no PKCS#8 private key in PEM.
    pub fn from_pem(text: &str) -> Result<Self> {
        Ok(Self { pair: KeyPair::from_pem(text).context("Cannot read the operator's key")? })
    }

    /// The private half, PKCS#8 in PEM. Secret.
    #[must_use]
    pub fn private_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// The public half as ssh writes it: type and base64, without a comment.
    #[must_use]
    pub fn public_key(&self) -> String {
        let mut blob = Vec::new();
        for part in [KEY_TYPE.as_bytes(), CURVE.as_bytes(), self.pair.der_bytes()] {
            blob.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            blob.extend(part);
        }
        format!("{KEY_TYPE} {}", STANDARD.encode(blob))
    }

    /// A kubeconfig for the API server at `server`, which shows a certificate for the name `kubernetes`, whatever the
    /// address. Secret: it holds the private half.
    #[must_use]
    pub fn kubeconfig(&self, server: &str, ca: &str, certificate: &str) -> String {
        let [ca, certificate, key] = [ca, certificate, &self.private_pem()].map(|pem| STANDARD.encode(pem));
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: kubeboot\n\
             \x20 cluster:\n\
             \x20   server: {server}\n\
             \x20   tls-server-name: kubernetes\n\
             \x20   certificate-authority-data: {ca}\n\
             users:\n\
             - name: operator\n\
             \x20 user:\n\
             \x20   client-certificate-data: {certificate}\n\
             \x20   client-key-data: {key}\n\
             contexts:\n\
             - name: kubeboot\n\
             \x20 context:\n\
             \x20   cluster: kubeboot\n\
             \x20   user: operator\n\
             current-context: kubeboot\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_and_has_ssh_s_form() {
        let operator = Operator::generate().unwrap();
        let again = Operator::from_pem(&operator.private_pem()).unwrap();
        assert_eq!(operator.public_key(), again.public_key());
        let text = operator.public_key();
        let blob = STANDARD.decode(text.strip_prefix("ecdsa-sha2-nistp256 ").unwrap()).unwrap();
        // Two names with their lengths, then the uncompressed point of 65 bytes.
        assert_eq!(blob.len(), 4 + 19 + 4 + 8 + 4 + 65);
        assert_eq!(blob[4 + 19 + 4 + 8 + 4], 4);
    }

    #[test]
    fn a_kubeconfig_names_server_and_tls_name() {
        let operator = Operator::generate().unwrap();
        let text = operator.kubeconfig("https://127.0.0.1:7000", "CA", "CERTIFICATE");
        let open: String =
            text.lines().filter(|line| !line.contains("key-data")).map(|line| format!("{line}\n")).collect();
        insta::assert_snapshot!(open, @r"
        apiVersion: v1
        kind: Config
        clusters:
        - name: kubeboot
          cluster:
            server: https://127.0.0.1:7000
            tls-server-name: kubernetes
            certificate-authority-data: Q0E=
        users:
        - name: operator
          user:
            client-certificate-data: Q0VSVElGSUNBVEU=
        contexts:
        - name: kubeboot
          context:
            cluster: kubeboot
            user: operator
        current-context: kubeboot
        ");
    }
}
