//! A volume's facts about the machine: NoCloud `meta-data` (YAML), ConfigDrive `meta_data.json`.

use super::tree::{Data, Node};
use super::{Layout, cloud_config, text, tree, unreadable};
use crate::settings::{Fragment, Origin, Source, Warning};

/// Reads the host name and the ssh keys. Facts of the platform that ask for nothing are passed over.
pub fn parse(source: Source, layout: Layout, bytes: &[u8]) -> Fragment {
    let mut fragment = Fragment::empty(source);
    let Some(text) = text(&mut fragment, bytes) else { return fragment };
    match tree::yaml(text) {
        Ok(node) => match layout {
            Layout::NoCloud => no_cloud(&mut fragment, &node),
            Layout::ConfigDrive => config_drive(&mut fragment, &node),
        },
        Err(error) => unreadable(&mut fragment, error, "YAML"),
    }
    fragment
}

fn no_cloud(fragment: &mut Fragment, node: &Node) {
    let Data::Map(entries) = &node.data else { return };
    for (key, value) in entries {
        match key.as_str() {
            "local-hostname" | "hostname" => hostname(fragment, value),
            "public-keys" => public_keys(fragment, value),
            "instance-id" | "dsmode" | "cloud-name" | "region" | "availability-zone" | "platform" => {}
            other => {
                let text = format!("meta-data key {other} is not supported and was not applied");
                let origin = Origin::at(&fragment.source, value.line);
                fragment.warnings.push(Warning { origin, text });
            }
        }
    }
}

fn config_drive(fragment: &mut Fragment, node: &Node) {
    if let Some(value) = node.get("hostname") {
        hostname(fragment, value);
    }
    if let Some(value) = node.get("public_keys") {
        public_keys(fragment, value);
    }
}

/// The first label: platforms write the full name here.
fn hostname(fragment: &mut Fragment, value: &Node) {
    let label = value.as_text().and_then(|text| text.trim().split('.').next()).filter(|label| !label.is_empty());
    if let Some(label) = label {
        fragment.os.hostname = Some((Origin::at(&fragment.source, value.line), label.to_owned()));
    }
}

/// A list of keys, or names with keys.
fn public_keys(fragment: &mut Fragment, value: &Node) {
    match &value.data {
        Data::Map(entries) => {
            for (_, key) in entries {
                cloud_config::ssh_keys(fragment, "public-keys", key);
            }
        }
        _ => cloud_config::ssh_keys(fragment, "public-keys", value),
    }
}
