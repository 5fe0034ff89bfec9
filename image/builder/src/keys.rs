//! The development keys that sign releases: made at first use, kept in the cache, never in the repository. There are
//! two pairs from the start, because every image trusts both: so one can be rotated out without a machine that trusts
//! neither.

use std::fs::{self, OpenOptions};
use std::io::{Cursor, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use zeroize::Zeroizing;

use crate::cache::Cache;

/// Names of the two pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum KeyName {
    /// The pair that signs by default.
    #[default]
    A,
    /// The pair that takes over.
    B,
}

/// The folder with both pairs.
#[derive(Debug, Clone)]
pub struct KeyStore(PathBuf);

impl KeyStore {
    /// Opens the cache's keys, and makes those that are missing.
    ///
    /// # Errors
    /// They cannot be made or written.
    pub fn open(cache: &Cache) -> Result<Self> {
        let folder = cache.root().join("keys");
        fs::create_dir_all(&folder).with_context(|| format!("Cannot make {}", folder.display()))?;
        let lock = fs::File::create(folder.join("lock")).context("Cannot make the lock of the signing keys")?;
        lock.lock().context("Cannot lock the signing keys")?;
        let store = Self(folder);
        for name in [KeyName::A, KeyName::B] {
            if !store.secret_path(name).exists() {
                store.generate(name)?;
            }
        }
        Ok(store)
    }

    /// Both public keys: the contents of an image's `release-keys`.
    ///
    /// # Errors
    /// A secret key cannot be read.
    pub fn public_keys(&self) -> Result<String> {
        let mut text =
            String::from("# Keys that may sign releases (minisign). Development keys of one build machine.\n");
        for name in [KeyName::A, KeyName::B] {
            let public =
                PublicKey::from_secret_key(&self.secret(name)?).map_err(|error| anyhow!("bad signing key: {error}"))?;
            text.push_str(&public.to_base64());
            text.push('\n');
        }
        Ok(text)
    }

    /// Signs a message, with the trusted comment that is signed along. Two signatures over one message differ: the
    /// nonce is random in part, against fault attacks.
    ///
    /// # Errors
    /// The secret key cannot be read.
    pub fn sign(&self, name: KeyName, message: &[u8], comment: &str) -> Result<String> {
        let secret = self.secret(name)?;
        let signature = minisign::sign(None, &secret, Cursor::new(message), Some(comment), Some("kubeboot release"));
        Ok(signature.map_err(|error| anyhow!("Cannot sign: {error}"))?.into_string())
    }

    fn secret_path(&self, name: KeyName) -> PathBuf {
        self.0.join(match name {
            KeyName::A => "release-a.key",
            KeyName::B => "release-b.key",
        })
    }

    fn generate(&self, name: KeyName) -> Result<()> {
        let pair =
            KeyPair::generate_unencrypted_keypair().map_err(|error| anyhow!("Cannot make a signing key: {error}"))?;
        let text = pair
            .sk
            .to_box(Some("kubeboot development key"))
            .map_err(|error| anyhow!("Cannot encode a signing key: {error}"))?;
        write_secret(&self.secret_path(name), &Zeroizing::new(text.into_string()))
    }

    fn secret(&self, name: KeyName) -> Result<SecretKey> {
        let path = self.secret_path(name);
        let text =
            fs::read_to_string(&path).map(Zeroizing::new).with_context(|| format!("Cannot read {}", path.display()))?;
        SecretKeyBox::from_string(&text).and_then(SecretKeyBox::into_unencrypted_secret_key).map_err(|error| {
            anyhow!("{} is no signing key: {error}. Fix: delete it, and every image built with it", path.display())
        })
    }
}

/// Writes a new file that only its owner can read, whole or not at all.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("Cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use kubeboot::release::Keys;
    use kubeboot::release::signature::SignatureError;

    use super::*;

    fn store() -> (tempfile::TempDir, Cache, KeyStore) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_path_buf()).unwrap();
        let store = KeyStore::open(&cache).unwrap();
        (folder, cache, store)
    }

    #[test]
    fn either_key_signs_what_the_exported_keys_verify() {
        let (_folder, _cache, store) = store();
        let keys = Keys::parse(&store.public_keys().unwrap()).unwrap();
        let signers = [KeyName::A, KeyName::B].map(|name| {
            let signature = store.sign(name, b"message", "comment").unwrap();
            assert_eq!(keys.verify(b"messagE", &signature), Err(SignatureError::Mismatch));
            keys.verify(b"message", &signature).unwrap()
        });
        assert_eq!(signers.to_vec(), keys.ids());
        assert_ne!(signers[0], signers[1]);
    }

    #[test]
    fn keys_are_made_once_and_only_their_owner_reads_them() {
        let (folder, cache, store) = store();
        assert_eq!(KeyStore::open(&cache).unwrap().public_keys().unwrap(), store.public_keys().unwrap());
        for name in ["release-a.key", "release-b.key"] {
            let mode = fs::metadata(folder.path().join("keys").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_stranger_is_named_as_one() {
        let ((_a, _, ours), (_b, _, theirs)) = (store(), store());
        let keys = Keys::parse(&ours.public_keys().unwrap()).unwrap();
        let signature = theirs.sign(KeyName::A, b"message", "comment").unwrap();
        assert_eq!(keys.verify(b"message", &signature), Err(SignatureError::UnknownKey { trusted: keys.ids() }));
    }
}
