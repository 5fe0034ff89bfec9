//! Which versions there are, and which one a program says it is.

use std::fs;

use anyhow::{Context, Result, bail};
use kubeboot::release::date::Moment;
use serde::Deserialize;

use super::{Source, official};
use crate::repository;

/// A version of Kubernetes that can be built: an entry of `image/components/versions.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// `1.37.2`
    pub version: String,
    /// The go.mod that pins it, in `image/components/kube/`.
    pub modfile: String,
    /// When upstream tagged it.
    pub released: Moment,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    kubernetes: Vec<Kubernetes>,
}

/// The named version, or the default one.
///
/// # Errors
/// It is not in the table; the error lists those that are.
pub fn kubernetes(version: Option<&str>) -> Result<Kubernetes> {
    let path = repository().join("image/components/versions.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("Cannot read {}", path.display()))?;
    let table: Table = toml::from_str(&text).with_context(|| format!("Cannot read {}", path.display()))?;
    let known: Vec<String> = table.kubernetes.iter().map(|known| known.version.clone()).collect();
    let mut matching =
        table.kubernetes.into_iter().filter(|known| version.is_none_or(|version| known.version == version));
    matching.next().with_context(|| {
        format!("Kubernetes {} is not pinned here. Known: {}", version.unwrap_or("?"), known.join(", "))
    })
}

/// The version that `source` asks for. Official binaries say themselves which they are.
pub(super) fn chosen(source: &Source) -> Result<Kubernetes> {
    let Some(found) = official::kubernetes_version(source.from.as_deref())? else {
        return kubernetes(source.kubernetes.as_deref());
    };
    if source.kubernetes.as_ref().is_some_and(|wanted| *wanted != found) {
        bail!(
            "--from has Kubernetes {found}. Expected {}, as --kubernetes says",
            source.kubernetes.as_deref().unwrap_or("?")
        );
    }
    // A version without a go.mod of ours has no known date; the default version's serves, as any fixed one would.
    kubernetes(Some(&found)).or_else(|_| Ok(Kubernetes { version: found, ..kubernetes(None)? }))
}

/// The first `MAJOR.MINOR.PATCH` in a text.
pub(super) fn first_version(text: &str) -> Option<String> {
    text.split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .map(|word| word.trim_matches('.'))
        .find(|word| word.split('.').count() == 3 && word.split('.').all(|part| !part.is_empty()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_each_program_says() {
        for (text, version) in [
            ("Kubernetes v1.37.2\n", "1.37.2"),
            ("etcd Version: 3.6.16\nGit SHA: 1\nGo Version: go1.26.8\n", "3.6.16"),
            ("containerd github.com/containerd/containerd/v2 v2.4.2 \n", "2.4.2"),
            ("containerd-shim-runc-v2:\n  Version:  v2.4.2\n  Go version: go1.26.8\n", "2.4.2"),
            ("runc version 1.5.2\nspec: 1.2.1\n", "1.5.2"),
            ("CNI bridge plugin v1.9.1\nCNI protocol versions supported: 0.1.0\n", "1.9.1"),
            ("CoreDNS-1.15.0\nlinux/amd64, go1.26.8, \n", "1.15.0"),
            ("flanneld v0.28.10\n", "0.28.10"),
        ] {
            assert_eq!(first_version(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(first_version("no version 1.2 of 1..3 at all."), None);
    }

    #[test]
    fn the_default_is_the_first_and_an_unknown_one_is_named() {
        let default = kubernetes(None).unwrap();
        assert_eq!(kubernetes(Some(&default.version)).unwrap(), default);
        let error = kubernetes(Some("1.2.3")).expect_err("not pinned").to_string();
        assert!(error.starts_with("Kubernetes 1.2.3 is not pinned here. Known: 1.3"), "{error}");
    }
}
