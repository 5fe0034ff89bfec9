//! User-data: says what the bytes are by how they begin, and reads those that kubeboot understands.

use super::{Bytes, cloud_config, gzip, mime, text, toml_into, tree, unreadable};
use crate::settings::{Fragment, Origin, Problem, Source, Warning};

/// How deep gzip and MIME may be packed into each other.
const PACKED: u32 = 3;

const EXPECTED: &str =
    "a document that begins with #cloud-config or #kubeboot, a MIME multi-part of such, or either gzipped";

/// Reads user-data of any supported form.
pub fn parse(source: Source, bytes: &[u8]) -> Fragment {
    let mut fragment = Fragment::empty(source);
    read(&mut fragment, bytes, PACKED, &Part::Whole);
    fragment
}

/// What the bytes are of their source.
pub enum Part {
    /// All of it.
    Whole,
    /// A part of a MIME multi-part: one that is not ours is passed over with a warning.
    OfMime {
        /// Its number, counted from 1.
        number: usize,
        /// The content type, cut short.
        kind: String,
    },
}

/// What a document says it is, by its first line.
enum Form {
    Nothing,
    Gzip,
    CloudConfig,
    Kubeboot,
    Mime,
    /// Something that is not read, and what it is.
    Foreign(&'static str),
}

fn form(bytes: &[u8]) -> Form {
    if gzip::is_gzip(bytes) {
        return Form::Gzip;
    }
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    if bytes.trim_ascii().is_empty() {
        return Form::Nothing;
    }
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let lower = first.to_ascii_lowercase();
    match first {
        b"#cloud-config" => Form::CloudConfig,
        b"#kubeboot" => Form::Kubeboot,
        b"#cloud-config-archive" => Form::Foreign("a #cloud-config-archive"),
        b"#include" | b"#include-once" => Form::Foreign("an #include list"),
        b"#cloud-boothook" => Form::Foreign("a #cloud-boothook"),
        _ if first.starts_with(b"#!") => Form::Foreign("a script"),
        _ if first.starts_with(b"## template:") => Form::Foreign("a template"),
        _ if first.starts_with(b"{") => Form::Foreign("JSON, such as Ignition"),
        _ if lower.starts_with(b"content-type:") || lower.starts_with(b"mime-version:") => Form::Mime,
        _ => Form::Foreign("a first line that is neither #cloud-config nor #kubeboot"),
    }
}

/// Reads bytes that came packed `PACKED - left` deep.
pub fn read(fragment: &mut Fragment, bytes: &[u8], left: u32, part: &Part) {
    let form = form(bytes);
    match (form, part) {
        (Form::Nothing, _) => {}
        (Form::Gzip | Form::Mime, _) if left == 0 => {
            problem(fragment, format!("data packed more than {PACKED} deep"));
        }
        (Form::Gzip, _) => match gzip::unpack(bytes) {
            Ok(inner) => read(fragment, &inner, left - 1, part),
            Err(found) => problem(fragment, found),
        },
        (Form::Mime, _) => match mime::parts(bytes) {
            Ok(parts) => read_parts(fragment, &parts, left - 1),
            Err(found) => problem(fragment, found),
        },
        (Form::CloudConfig, _) => read_cloud_config(fragment, bytes),
        (Form::Kubeboot, _) => toml_into(fragment, bytes),
        (Form::Foreign(_), Part::OfMime { number, kind }) => {
            let origin = Origin::whole(fragment.source.clone());
            let text = format!("part {number} ({kind}) is not supported and was not applied");
            fragment.warnings.push(Warning { origin, text });
        }
        (Form::Foreign(what), Part::Whole) => problem(fragment, what.to_owned()),
    }
}

fn read_parts(fragment: &mut Fragment, parts: &[(String, Bytes)], left: u32) {
    for (at, (kind, bytes)) in parts.iter().enumerate() {
        let part = Part::OfMime { number: at + 1, kind: kind.clone() };
        // A part may say by its type what a whole document says by its first line.
        match kind.as_str() {
            "text/cloud-config" if matches!(form(bytes), Form::Foreign(_)) => read_cloud_config(fragment, bytes),
            "text/x-kubeboot" if matches!(form(bytes), Form::Foreign(_)) => toml_into(fragment, bytes),
            _ => read(fragment, bytes, left, &part),
        }
    }
}

fn read_cloud_config(fragment: &mut Fragment, bytes: &[u8]) {
    if let Some(text) = text(fragment, bytes) {
        match tree::yaml(text) {
            Ok(node) => cloud_config::read(fragment, &node),
            Err(error) => unreadable(fragment, error, "YAML"),
        }
    }
}

fn problem(fragment: &mut Fragment, found: String) {
    let origin = Origin::whole(fragment.source.clone());
    fragment.problems.push(Problem::source(origin, found, EXPECTED));
}
