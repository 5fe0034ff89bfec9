//! Builds components, releases and images.
//!
//! Every product is a folder of the [`cache`], keyed by what it is made of, so a command that is run again finds what
//! it made before.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a build tool is effects")]

pub mod boot;
pub mod cache;
pub mod command;
pub mod components;
pub mod host;
pub mod image;
pub mod keys;
pub mod kubeboot_binary;
pub mod mirror;
pub mod operator;
pub mod pe;
pub mod progress;
pub mod qemu;
pub mod release;
pub mod report;
pub mod tools;

use std::path::{Path, PathBuf};

/// The root of this repository, as it was when this program was compiled (`image/target.sh` has it compiled anew for another
/// checkout).
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}
