//! What an OCI image archive holds, read from its `index.json` (OCI image layout, version 1.0).

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

/// Most members of an archive that are looked at.
const MEMBERS: usize = 10_000;
/// Largest `index.json` that is read, in bytes.
const INDEX: u64 = 1 << 20;
/// Length of a tar header and of the blocks that contents are padded to.
const BLOCK: u64 = 512;

/// One image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Fully qualified name, if the archive gives one.
    pub name: Option<String>,
    /// Digest of its manifest or index, `sha256:…`.
    pub digest: String,
}

/// The images of an archive.
///
/// # Errors
/// Those of reading it; no `index.json`, or one of another shape.
pub fn images(archive: &Path) -> io::Result<Vec<Image>> {
    read(&mut File::open(archive)?)
}

fn read(archive: &mut (impl Read + Seek)) -> io::Result<Vec<Image>> {
    let wrong = |what: String| io::Error::new(ErrorKind::InvalidData, what);
    for _ in 0..MEMBERS {
        let Some((name, size)) = header(archive)? else { break };
        if name.trim_start_matches("./") == "index.json" {
            let mut text = Vec::new();
            archive.take(size.min(INDEX)).read_to_end(&mut text)?;
            let index: Index = serde_json::from_slice(&text).map_err(|error| wrong(format!("index.json: {error}")))?;
            return Ok(index.manifests.into_iter().map(Image::from).collect());
        }
        let padded = size.checked_next_multiple_of(BLOCK).and_then(|size| i64::try_from(size).ok());
        archive.seek(SeekFrom::Current(padded.ok_or_else(|| wrong(format!("{name} is {size} bytes long")))?))?;
    }
    Err(wrong("expected an OCI image archive, found no index.json in it".to_owned()))
}

/// Name and size of the next member (ustar, POSIX.1-1988); none at the archive's end. Longer names are in headers of
/// their own, which are skipped like contents: `index.json` never needs one.
fn header(archive: &mut impl Read) -> io::Result<Option<(String, u64)>> {
    let mut block = [0; BLOCK as usize];
    match archive.read_exact(&mut block) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    if block == [0; BLOCK as usize] {
        return Ok(None);
    }
    let text = |range: std::ops::Range<usize>| {
        let field = &block[range];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).trim().to_owned()
    };
    let size = u64::from_str_radix(&text(124..136), 8)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "expected a tar archive, found another kind of file"))?;
    Ok(Some((text(0..100), size)))
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl From<Descriptor> for Image {
    fn from(descriptor: Descriptor) -> Self {
        // containerd's own annotation has the whole name; OCI's may have just the tag, which names nothing.
        let named = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
            .into_iter()
            .filter_map(|key| descriptor.annotations.get(key))
            .find(|name| name.contains('/'))
            .cloned();
        Image { name: named, digest: descriptor.digest }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn member(name: &str, contents: &[u8]) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..135].copy_from_slice(format!("{:011o}", contents.len()).as_bytes());
        block.extend(contents);
        block.resize(block.len().next_multiple_of(512), 0);
        block
    }

    #[test]
    fn names_and_digests_come_from_the_index_wherever_it_stands() {
        let index = br#"{"manifests": [
            {"digest": "sha256:aa", "annotations": {"io.containerd.image.name": "kubeboot.local/pause:1"}},
            {"digest": "sha256:bb", "annotations": {"org.opencontainers.image.ref.name": "latest"}}]}"#;
        let archive = [member("oci-layout", b"{}"), member("./index.json", index), vec![0; 1024]].concat();
        assert_eq!(
            read(&mut Cursor::new(archive)).unwrap(),
            [
                Image { name: Some("kubeboot.local/pause:1".into()), digest: "sha256:aa".into() },
                Image { name: None, digest: "sha256:bb".into() },
            ]
        );
    }

    #[test]
    fn an_archive_of_something_else_is_named() {
        let error = read(&mut Cursor::new(member("README", b"x"))).unwrap_err();
        assert!(error.to_string().contains("found no index.json"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = read(&mut Cursor::new(bytes));
        }
    }
}
