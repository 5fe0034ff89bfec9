//! What an archive of container images holds, read exactly as containerd reads it
//! (`core/images/archive/importer.go` of containerd 2.4): an OCI image layout (version 1.0.0) or Docker's older form.
//!
//! What is read here is judged, and containerd then imports the same bytes. So whatever two readers could take for two
//! things is refused: a form of tar that can be read in two ways, a member or a key that is there twice, an `index.json`
//! without the `oci-layout` that makes it count.

mod json;
mod tar;

use std::io::{Read, Seek};

use json::Json;
use tar::{Member, Members};

use crate::settings::quoted;

/// Largest `index.json`, `manifest.json` or `oci-layout` that is read, in bytes.
const LARGEST: u64 = 1 << 20;
/// The version of the layout that containerd imports.
const LAYOUT: &str = "1.0.0";

/// One image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Fully qualified name, if the archive gives one.
    pub name: Option<String>,
    /// Digest of its manifest or index, `sha256:…`. None in Docker's form, whose manifests containerd makes itself.
    pub digest: Option<String>,
}

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The images that containerd imports.
    pub images: Vec<Image>,
    /// Names that the archive's other form gives, where it has both, as `docker save` writes it. containerd leaves them.
    pub others: Vec<Image>,
}

/// Why an archive is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is no tar archive, or one that another program may read in another way.
    #[error("expected a plain tar archive, found {0}")]
    Tar(String),
    /// It is no archive of images, or one that can be understood in two ways.
    #[error("expected an archive of images (OCI's or Docker's), found {0}")]
    Images(String),
    /// A part of it is not what it should be.
    #[error("{member}: {why}")]
    Part {
        /// The member of the archive.
        member: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// Reads an archive.
///
/// # Errors
/// [`Refused`].
pub fn read(archive: impl Read + Seek) -> Result<Contents, Refused> {
    let mut members = Members::new(archive);
    let (mut layout, mut index, mut manifest) = (None, None, None);
    while let Some(member) = members.next()? {
        let (name, kept) = match member.name.as_str() {
            "oci-layout" => ("oci-layout", &mut layout),
            "index.json" => ("index.json", &mut index),
            "manifest.json" => ("manifest.json", &mut manifest),
            _ => continue,
        };
        if kept.is_some() {
            return Err(Refused::Images(format!("{name} twice in it")));
        }
        *kept = Some(text(&mut members, &member, name)?);
    }
    match (layout, index, manifest) {
        (Some(layout), Some(index), manifest) => {
            version(&layout)?;
            let others = manifest.map(|docker| repositories(&docker)).transpose()?.unwrap_or_default();
            Ok(Contents { images: descriptors(&index)?, others })
        }
        (None, None, Some(manifest)) => Ok(Contents { images: repositories(&manifest)?, others: Vec::new() }),
        (Some(_), None, _) => Err(Refused::Images("an oci-layout without an index.json in it".to_owned())),
        (None, Some(_), _) => Err(Refused::Images("an index.json without an oci-layout beside it".to_owned())),
        (None, None, None) => Err(Refused::Images("neither index.json nor manifest.json in it".to_owned())),
    }
}

fn text<T: Read + Seek>(members: &mut Members<T>, member: &Member, name: &'static str) -> Result<Json, Refused> {
    let refused = |why: String| Refused::Part { member: name, why };
    if !member.regular {
        return Err(refused("expected a file, found a link or a folder".to_owned()));
    }
    if member.size > LARGEST {
        return Err(refused(format!("expected at most {LARGEST} bytes, found {}", member.size)));
    }
    json::parse(&members.contents(member)?).map_err(refused)
}

/// With another version containerd refuses; with none it takes the archive for Docker's.
fn version(layout: &Json) -> Result<(), Refused> {
    match layout.get("imagelayoutversion").and_then(Json::text) {
        Some(LAYOUT) => Ok(()),
        other => {
            let found = other.map_or("none".to_owned(), quoted);
            let why = format!("expected imageLayoutVersion {LAYOUT:?}, found {found}");
            Err(Refused::Part { member: "oci-layout", why })
        }
    }
}

/// The images of an OCI layout.
fn descriptors(index: &Json) -> Result<Vec<Image>, Refused> {
    let refused = |why: &str| Refused::Part { member: "index.json", why: why.to_owned() };
    let manifests =
        index.get("manifests").and_then(Json::list).ok_or_else(|| refused("it has no list of manifests"))?;
    let image = |descriptor: &Json| {
        let digest = descriptor.get("digest").and_then(Json::text);
        let digest = digest.ok_or_else(|| refused("one of its manifests has no digest"))?;
        Ok(Image { name: name(descriptor.get("annotations")), digest: Some(digest.to_owned()) })
    };
    manifests.iter().map(image).collect()
}

/// containerd's own annotation holds the whole name, whatever it looks like; OCI's may hold just a tag, which names
/// nothing (`imageName` in containerd's `client/import.go`, `AddRefPrefix` in `core/images/archive/reference.go`).
fn name(annotations: Option<&Json>) -> Option<String> {
    let annotation = |key| annotations?.exactly(key)?.text().filter(|text| !text.is_empty());
    annotation("io.containerd.image.name")
        .or_else(|| annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':', '@'])))
        .map(ToOwned::to_owned)
}

/// The images of Docker's form: one for each tag.
fn repositories(manifest: &Json) -> Result<Vec<Image>, Refused> {
    let refused = |why: &str| Refused::Part { member: "manifest.json", why: why.to_owned() };
    let mut images = Vec::new();
    for one in manifest.list().ok_or_else(|| refused("it is no list"))? {
        let tags = match one.get("repotags") {
            None | Some(Json::Other) => &[],
            Some(tags) => tags.list().ok_or_else(|| refused("the RepoTags of an image are no list"))?,
        };
        let before = images.len();
        for tag in tags {
            let tag = tag.text().ok_or_else(|| refused("one of the RepoTags is no text"))?;
            images.push(Image { name: Some(tag.to_owned()), digest: None });
        }
        if images.len() == before {
            images.push(Image { name: None, digest: None });
        }
    }
    Ok(images)
}

#[cfg(test)]
mod tests;
