//! Makes release files: binaries → tree → erofs → hash tree → signed manifest. Their form: `kubeboot::release`.

mod assemble;
mod pause;
mod table;
mod tar;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use kubeboot::release::date::Moment;
use kubeboot::release::manifest::{FORMAT, Image, Manifest, OsRange, Verity};
use kubeboot::release::{Version, verity};

pub use pause::NAME as PAUSE_IMAGE;
pub use table::table;

use crate::cache::{Cache, Check, Key, sha256_file};
use crate::components::{Components, Source, components};
use crate::keys::{KeyName, KeyStore};
use crate::kubeboot_binary::{kubeboot_binary, rebuild};
use assemble::{Assembled, Tree};

/// The OS interface levels that this source tree's releases run on. Raised with `image/mkosi` when a release of before
/// would notice.
pub const OS: OsRange = OsRange { min: 1, max: 1 };

/// For how long after its sources a release may be staged, unless said otherwise.
const LIFE_DAYS: u32 = 365;

/// The largest release: it is read into memory at every boot, and lies twice on `/var` and once in the image.
const MOST_BYTES: u64 = 180 << 20;
/// What an image's root partition has room for beside the system (`image/mkosi/mkosi.repart`).
const ROOM_BYTES: u64 = 280 << 20;

/// What a release is made of.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Where binaries come from.
    pub source: Source,
    /// Which build of this version of Kubernetes.
    pub build: u32,
    /// When it stops being staged; by default a year after upstream's tag.
    pub expires: Option<Moment>,
    /// The lowest version that may be upgraded to it; by default the first release of the minor version before.
    pub minimum: Option<Version>,
    /// The lowest version that may follow it; by default the first release of its minor version.
    pub floor: Option<Version>,
    /// Who signs.
    pub key: KeyName,
}

impl Default for Inputs {
    fn default() -> Self {
        Self { source: Source::default(), build: 1, expires: None, minimum: None, floor: None, key: KeyName::A }
    }
}

/// A finished release.
#[derive(Debug)]
pub struct Release {
    /// `kubeboot-<kubernetes>-<build>.release`
    pub path: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
    /// What is inside: path and length in bytes before compression, each file once.
    pub contents: Vec<(String, u64)>,
}

/// Makes a release, or finds it in the cache.
///
/// # Errors
/// A component cannot be built, an input contradicts another, or two assemblies of the same binaries differ; with
/// `rebuild`, a binary that was built again differs.
pub fn release(cache: &Cache, inputs: &Inputs) -> Result<Release> {
    let components = components(cache, &inputs.source)?;
    let keys = KeyStore::open(cache)?;
    let kubeboot = kubeboot_binary(cache)?;
    if inputs.source.rebuild {
        rebuild(cache, &kubeboot)?;
    }
    let tree = Tree::new(&components, kubeboot, pause::archive(cache, inputs.source.rebuild)?);
    assemble::prepare_host()?;
    let key = key(&components, inputs, &tree, &keys)?;
    let name = format!("kubeboot-{}-{}.release", components.kubernetes.version, inputs.build);
    let folder = cache.entry("releases", &key, Check::Content, |into| {
        let assembled = assemble::twice(&tree, into, components.kubernetes.released)?;
        let manifest = manifest(&components, inputs, &assembled)?;
        let bytes = manifest.to_bytes().context("Cannot write the manifest")?;
        let signature = keys.sign(inputs.key, &bytes, &format!("kubeboot release {}", manifest.version))?;
        assembled.finish(&into.join(&name), &bytes, &signature)?;
        let path = into.join(&name);
        let length = fs::metadata(&path).with_context(|| format!("Cannot examine {}", path.display()))?.len();
        fits(length, inputs.source.from.is_some())
    })?;
    let path = folder.join(name);
    let manifest = verified(&path, &keys)?;
    Ok(Release { path, manifest, contents: tree.contents()? })
}

/// Refuses a release that is too large: official binaries are what they are, and need only fit into an image.
fn fits(bytes: u64, official: bool) -> Result<()> {
    let (most, fix) = match official {
        false => (MOST_BYTES, "leave out what a node does not need, or pin the version of the component that grew"),
        true => {
            (ROOM_BYTES, "take binaries without symbols (strip -s), or build the larger ones: leave them out of --from")
        }
    };
    ensure!(
        bytes <= most,
        "The release has {:.1} MiB, and may have at most {}. Fix: {fix}",
        bytes as f64 / f64::from(1 << 20),
        most >> 20
    );
    Ok(())
}

/// Reads a release back the way a machine does.
fn verified(path: &std::path::Path, keys: &KeyStore) -> Result<Manifest> {
    let keys = kubeboot::release::Keys::parse(&keys.public_keys()?)?;
    let mut file = fs::File::open(path).with_context(|| format!("Cannot open {}", path.display()))?;
    let envelope =
        kubeboot::release::read(&mut file, &keys).with_context(|| format!("{} is not genuine", path.display()))?;
    Ok(envelope.manifest)
}

/// Everything that could change a byte that is signed, and who signs it.
fn key(components: &Components, inputs: &Inputs, tree: &Tree, keys: &KeyStore) -> Result<Key> {
    let Inputs { source: _, build, expires, minimum, floor, key: signer } = inputs;
    let mut key = Key::of("release 1")
        .input("inputs", format!("{build} {expires:?} {minimum:?} {floor:?} {signer:?} {OS:?}"))
        .input("kubernetes", format!("{:?}", components.kubernetes))
        .input("versions", format!("{:?}", components.versions))
        .input("keys", keys.public_keys()?)
        .input("mkfs", assemble::mkfs_identity()?);
    for (place, source) in tree.sources() {
        key = match source {
            assemble::Contents::File(path) => key.input(place, sha256_file(path)?),
            assemble::Contents::Bytes(bytes) => key.input(place, bytes),
        };
    }
    // Copies of one program take the room of as many, links of one: the same bytes, another image.
    Ok(key.input("links", tree.links()?.join("\n")).finish())
}

fn manifest(components: &Components, inputs: &Inputs, assembled: &Assembled) -> Result<Manifest> {
    let kubernetes = &components.kubernetes;
    let version: Version = format!("{}-{}", kubernetes.version, inputs.build).parse()?;
    let first_of = |minor| Version { minor, patch: 0, build: 0, ..version };
    let created = kubernetes.released;
    let manifest = Manifest {
        format: FORMAT,
        kubernetes: kubernetes.version.clone(),
        build: inputs.build,
        version,
        created,
        expires: inputs.expires.unwrap_or_else(|| created.plus_days(LIFE_DAYS)),
        minimum: inputs.minimum.unwrap_or_else(|| first_of(version.minor.saturating_sub(1))),
        floor: inputs.floor.unwrap_or_else(|| first_of(version.minor)),
        os: OS,
        erofs: Image { length: assembled.length, sha256: assembled.sha256 },
        verity: Verity {
            algorithm: "sha256".into(),
            root_hash: assembled.tree.root,
            salt: assemble::SALT,
            data_block_size: verity::BLOCK as u64,
            hash_block_size: verity::BLOCK as u64,
            data_blocks: assembled.data_blocks(),
            hash_offset: assembled.data_blocks() * verity::BLOCK as u64,
        },
        components: components.versions.clone(),
    };
    // A contradiction in the inputs is found here, before it is signed.
    let bytes = manifest.to_bytes().context("Cannot write the manifest")?;
    Manifest::parse(&bytes).context("The inputs contradict each other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_above_its_limit_is_refused_with_both_numbers() {
        assert!(fits(MOST_BYTES, false).is_ok() && fits(MOST_BYTES + 1, true).is_ok());
        let said = fits(MOST_BYTES + (1 << 19), false).unwrap_err().to_string();
        assert!(said.starts_with("The release has 180.5 MiB, and may have at most 180."), "{said}");
        let said = fits(ROOM_BYTES + 1, true).unwrap_err().to_string();
        assert!(said.contains("at most 280. Fix: take binaries without symbols"), "{said}");
    }
}
