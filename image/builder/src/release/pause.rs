//! The one image that every pod of kubeboot's uses, as an OCI archive: a static `pause`, an empty `/tmp`, and nothing
//! else. Source: OCI Image Format 1.1, image-layout.md; the name in `io.containerd.image.name` is what containerd's
//! import goes by.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::tar::Tar;
use crate::cache::{Cache, Check, Key, ensure_same, hex};
use crate::{command, host, repository};

/// The image's name. It never changes: releases differ in what they mount into it.
pub const NAME: &str = "kubeboot.local/pause:1";

/// The archive's bytes. With `rebuild`, the program is compiled once more, and compared.
///
/// # Errors
/// The C program cannot be compiled, or a byte differs.
pub fn archive(cache: &Cache, rebuild: bool) -> Result<Vec<u8>> {
    oci_archive(&pause(cache, rebuild)?)
}

/// Compiles pause, or finds it in the cache.
fn pause(cache: &Cache, rebuild: bool) -> Result<Vec<u8>> {
    host::host_packages(&["gcc", "libc6-dev"])?;
    let source = repository().join("image/components/pause/pause.c");
    let version = command::output(Command::new("gcc").arg("--version"), "ask gcc for its version")?;
    let key = Key::of("pause 1").files("source", &source)?.input("gcc", version).finish();
    let folder = cache.entry("components/pause", &key, Check::Content, |into| compile(&source, &into.join("pause")))?;
    let path = folder.join("pause");
    if rebuild {
        let again = cache.root().join("components/pause.again");
        compile(&source, &again)?;
        ensure_same(&path, &again)?;
        fs::remove_file(&again).with_context(|| format!("Cannot remove {}", again.display()))?;
    }
    fs::read(&path).with_context(|| format!("Cannot read {}", path.display()))
}

fn compile(source: &Path, into: &Path) -> Result<()> {
    let mut gcc = Command::new("gcc");
    gcc.args(["-Os", "-Wall", "-Wextra", "-Werror", "-static", "-s", "-Wl,--build-id=none", "-o"])
        .arg(into)
        .arg(source);
    command::run(&mut gcc, "compile pause")
}

fn oci_archive(pause: &[u8]) -> Result<Vec<u8>> {
    let mut layer = Tar::default();
    layer.file("pause", 0o755, pause)?;
    layer.folder("tmp", 0o1777)?;
    let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", layer.finish());
    let config = Blob::json(
        "application/vnd.oci.image.config.v1+json",
        &json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Entrypoint": ["/pause"], "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [layer.digest()] },
        }),
    );
    let manifest = Blob::json(
        "application/vnd.oci.image.manifest.v1+json",
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        }),
    );
    let mut entry = manifest.descriptor();
    entry["annotations"] = json!({ "io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": "1" });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    let mut archive = Tar::default();
    archive.file("oci-layout", 0o644, json!({ "imageLayoutVersion": "1.0.0" }).to_string().as_bytes())?;
    archive.file("index.json", 0o644, index.to_string().as_bytes())?;
    for blob in [&manifest, &config, &layer] {
        archive.file(&format!("blobs/sha256/{}", blob.sha256), 0o644, &blob.bytes)?;
    }
    Ok(archive.finish())
}

/// Something that is known by its digest.
struct Blob {
    media_type: &'static str,
    bytes: Vec<u8>,
    sha256: String,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        let sha256 = hex(&Sha256::digest(&bytes));
        Self { media_type, bytes, sha256 }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.sha256)
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The archive's text parts, readable.
    #[test]
    fn the_archive_is_an_oci_layout_that_names_the_image() {
        let archive = oci_archive(b"not really a program").unwrap();
        let text: String = String::from_utf8_lossy(&archive).chars().filter(|c| *c == '{' || !c.is_control()).collect();
        let parts: Vec<&str> = text.split("{\"").collect();
        insta::assert_snapshot!(parts.join("\n{\""));
    }

    #[test]
    fn a_machine_reads_the_archive_and_its_name() {
        let archive = oci_archive(b"not really a program").unwrap();
        let contents = kubeboot::archive::read(std::io::Cursor::new(archive)).unwrap();
        assert_eq!(contents.images.iter().map(|image| image.name.as_deref()).collect::<Vec<_>>(), [Some(NAME)]);
    }

    #[test]
    fn the_archive_depends_on_nothing_but_the_program() {
        assert_eq!(oci_archive(b"x").unwrap(), oci_archive(b"x").unwrap());
        assert_ne!(oci_archive(b"x").unwrap(), oci_archive(b"y").unwrap());
    }
}
