//! An OCI image archive made here, so that a pod's image comes from no registry: the air-gapped way in.
//!
//! Source: OCI image specification 1.1, "image-layout" and "manifest"; the name annotation is containerd's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use std::process::Command;

use image_builder::cache::{Cache, Check, Key, hex};
use image_builder::command::{output, run};

use crate::apt;

pub mod tar;

/// The name under which pods ask for the image.
pub const BUSYBOX: &str = "kubeboot-tests.local/busybox:1";

/// The archive of an image with Debian's static busybox, made when the cache does not have it.
///
/// # Errors
/// The package can't be fetched or unpacked.
pub fn busybox() -> Result<PathBuf> {
    let key = Key::of("busybox image").input("code", include_str!("mod.rs")).input("tar", include_str!("tar.rs"));
    let folder = Cache::open()?.entry("busybox", &key.finish(), Check::Content, |folder| {
        let work = folder.join("work");
        fs::create_dir(&work).with_context(|| format!("can't make {}", work.display()))?;
        let package = apt::fetch("busybox-static", &work)?;
        run(Command::new("dpkg-deb").arg("-x").args([&package, &work]), "unpack busybox")?;
        let program = program(&work)?;
        let applets = output(Command::new(&program).arg("--list"), "list the applets of busybox")?;
        let bytes = fs::read(&program).with_context(|| format!("can't read {}", program.display()))?;
        fs::write(folder.join("busybox.tar"), archive(BUSYBOX, &layer(&bytes, applets.lines())?)?)?;
        fs::remove_dir_all(&work).with_context(|| format!("can't remove {}", work.display()))
    })?;
    Ok(folder.join("busybox.tar"))
}

fn program(work: &Path) -> Result<PathBuf> {
    let places = ["usr/bin/busybox", "bin/busybox"].map(|place| work.join(place));
    places.into_iter().find(|place| place.is_file()).context("the package busybox-static holds no busybox")
}

/// The image's one layer: busybox, a link per applet, and the folders that programs expect.
fn layer<'a>(busybox: &[u8], applets: impl Iterator<Item = &'a str>) -> Result<Vec<u8>> {
    let mut tar = tar::Tar::default();
    for (folder, mode) in
        [("bin", 0o755), ("etc", 0o755), ("proc", 0o555), ("sys", 0o555), ("tmp", 0o1777), ("www", 0o755)]
    {
        tar.directory(folder, mode)?;
    }
    tar.file("bin/busybox", 0o755, busybox)?;
    let mut links = 0;
    for applet in applets.filter(|applet| *applet != "busybox" && !applet.contains('/')) {
        tar.link(&format!("bin/{applet}"), "busybox")?;
        links += 1;
    }
    ensure!(links > 0, "busybox lists no applets");
    tar.file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    tar.file("www/index.html", 0o644, b"a page from the pod\n")?;
    Ok(tar.finish())
}

/// An archive of an image with one uncompressed layer.
fn archive(name: &str, layer: &[u8]) -> Result<Vec<u8>> {
    let layer_digest = hex(&Sha256::digest(layer));
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })
    .to_string();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    entry["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name });
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry],
    });
    let mut tar = tar::Tar::default();
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.file("index.json", 0o644, index.to_string().as_bytes())?;
    tar.directory("blobs", 0o755)?;
    tar.directory("blobs/sha256", 0o755)?;
    for blob in [layer, config.as_bytes(), manifest.as_bytes()] {
        tar.file(&format!("blobs/sha256/{}", hex(&Sha256::digest(blob))), 0o644, blob)?;
    }
    Ok(tar.finish())
}

fn descriptor(media_type: &str, contents: &[u8]) -> Value {
    let digest = format!("sha256:{}", hex(&Sha256::digest(contents)));
    json!({ "mediaType": media_type, "digest": digest, "size": contents.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::output_with_input;

    fn read(archive: &[u8], path: &str) -> Value {
        let text = output_with_input(Command::new("tar").args(["-xOf", "-", path]), archive).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn every_descriptor_leads_to_its_blob() {
        let archive = archive("a.local/b:1", b"layer").unwrap();
        let index = read(&archive, "index.json");
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "a.local/b:1");
        let path = |descriptor: &Value| descriptor["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        let manifest = read(&archive, &path(entry));
        let config = read(&archive, &path(&manifest["config"]));
        let layer = output_with_input(Command::new("tar").args(["-xOf", "-", &path(&manifest["layers"][0])]), &archive);
        assert_eq!(layer.unwrap(), "layer");
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    }
}
