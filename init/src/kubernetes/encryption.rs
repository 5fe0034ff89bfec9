//! Encryption of Secrets in etcd (`apiserver.config.k8s.io/v1`, EncryptionConfiguration).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

/// Where the configuration is, with its key; mode 0600.
pub const PATH: &str = "/etc/kubernetes/encryption/config.yaml";

/// Bytes of a key: XSalsa20 and Poly1305 take 256 bits.
pub const KEY: usize = 32;

/// The configuration with one key. `identity` comes last, so that what was written before is still read. Secret.
///
/// secretbox, because the API server nowhere counts AES-GCM's messages, and AES-CBC has no authentication.
pub fn config(key: &[u8; KEY]) -> Zeroizing<String> {
    let key = Zeroizing::new(STANDARD.encode(key));
    Zeroizing::new(format!(
        "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources:
  - secrets
  providers:
  - secretbox:
      keys:
      - name: key1
        secret: {}
  - identity: {{}}
",
        key.as_str()
    ))
}

/// Whether these bytes are such a configuration, with whatever keys of 256 bits and further resources a person gave it
/// since.
///
/// # Errors
/// What is wrong, in words without the key.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    // The parser's message may quote the line, and with it the key.
    let file: File = serde_saphyr::from_slice(bytes).map_err(|_| "not an EncryptionConfiguration".to_owned())?;
    if file.kind != "EncryptionConfiguration" {
        return Err(format!("expected kind EncryptionConfiguration, found {:?}", file.kind));
    }
    let mut keys = file.resources.iter().flat_map(|resource| &resource.providers).flat_map(Provider::keys).peekable();
    if keys.peek().is_none() {
        return Err("no key in it".to_owned());
    }
    let whole = |key: &Key| STANDARD.decode(&key.secret).is_ok_and(|secret| secret.len() == KEY);
    if keys.all(whole) { Ok(()) } else { Err("a key in it is damaged".to_owned()) }
}

#[derive(Deserialize)]
struct File {
    kind: String,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
struct Provider {
    secretbox: Option<Keys>,
    aescbc: Option<Keys>,
    aesgcm: Option<Keys>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    #[serde(deserialize_with = "wiped")]
    secret: Zeroizing<String>,
}

fn wiped<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

impl Provider {
    fn keys(&self) -> impl Iterator<Item = &Key> {
        [&self.secretbox, &self.aescbc, &self.aesgcm].into_iter().flatten().flat_map(|keys| &keys.keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_configuration_is_noticed() {
        let text = config(&[7; KEY]);
        assert_eq!(check(text.as_bytes()), Ok(()));
        let key_ends = text.find("  - identity").unwrap();
        for length in 0..key_ends - 1 {
            assert!(check(&text.as_bytes()[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn messages_do_not_hold_the_key() {
        let text = config(&[7; KEY]).replace("secret: ", "secret: !");
        let error = check(text.as_bytes()).unwrap_err();
        assert!(!error.contains("BwcH"), "{error}");
    }
}
