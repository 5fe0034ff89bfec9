//! `#cloud-config`: the key `kubeboot:`, and the few others that are honoured. Every other key is named in a warning.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tree::{Data, Node};
use super::{LIMIT, gzip, schema};
use crate::settings::{Fragment, Origin, OsFile, Problem, Warning};

/// Most entries of a list that are read.
const ENTRIES: usize = 256;

/// Adds a cloud-config document to the fragment.
pub fn read(fragment: &mut Fragment, node: &Node) {
    let entries = match &node.data {
        Data::Map(entries) => entries,
        Data::Nothing => return,
        _ => return wrong(fragment, "cloud-config", node, "keys such as kubeboot:"),
    };
    for (key, value) in entries {
        match key.as_str() {
            "kubeboot" => schema::read(fragment, value),
            "hostname" => hostname(fragment, key, value),
            // Without `hostname`, the first label of `fqdn` is the host's name.
            "fqdn" if node.get("hostname").is_none() => hostname(fragment, key, value),
            "fqdn" => {}
            "ssh_authorized_keys" => ssh_keys(fragment, key, value),
            "users" => users(fragment, value),
            "write_files" => write_files(fragment, value),
            "ntp" => ntp(fragment, value),
            other => not_applied(fragment, value, &format!("cloud-config key {other}")),
        }
    }
}

fn wrong(fragment: &mut Fragment, key: &str, node: &Node, expected: &str) {
    let found = node.as_text().map_or_else(|| node.kind().to_owned(), crate::settings::quoted);
    let mut problem = Problem::source(Origin::at(&fragment.source, node.line), found, expected);
    problem.key = Some(key.to_owned());
    fragment.problems.push(problem);
}

fn not_applied(fragment: &mut Fragment, node: &Node, what: &str) {
    let origin = Origin::at(&fragment.source, node.line);
    fragment.warnings.push(Warning { origin, text: format!("{what} is not supported and was not applied") });
}

fn hostname(fragment: &mut Fragment, key: &str, node: &Node) {
    match node.as_text() {
        Some(text) if key == "fqdn" => set_hostname(fragment, node, text.split('.').next().unwrap_or_default()),
        Some(text) => set_hostname(fragment, node, text),
        None => wrong(fragment, key, node, "a host name"),
    }
}

fn set_hostname(fragment: &mut Fragment, node: &Node, name: &str) {
    fragment.os.hostname = Some((Origin::at(&fragment.source, node.line), name.trim().to_owned()));
}

/// Adds to the keys that were read before.
pub fn ssh_keys(fragment: &mut Fragment, key: &str, node: &Node) {
    let texts: Vec<&Node> = match &node.data {
        Data::List(items) => items.iter().take(ENTRIES).collect(),
        Data::Text(_) => vec![node],
        Data::Nothing => Vec::new(),
        _ => return wrong(fragment, key, node, "a list of ssh public keys"),
    };
    for item in texts {
        let Some(text) = item.as_text() else {
            wrong(fragment, key, item, "an ssh public key");
            continue;
        };
        let origin = Origin::at(&fragment.source, item.line);
        let (_, keys) = fragment.os.ssh_authorized_keys.get_or_insert_with(|| (origin, Vec::new()));
        let text = text.trim().to_owned();
        if !keys.contains(&text) && keys.len() < ENTRIES {
            keys.push(text);
        }
    }
}

fn users(fragment: &mut Fragment, node: &Node) {
    let Data::List(users) = &node.data else {
        return wrong(fragment, "users", node, "a list of users");
    };
    for user in users.iter().take(ENTRIES) {
        let Data::Map(entries) = &user.data else {
            // The word `default` asks for the distribution's own user, which this image does not have.
            match user.as_text() {
                Some("default") => {}
                _ => wrong(fragment, "users", user, "a user: name and ssh_authorized_keys"),
            }
            continue;
        };
        let name = user.get("name").and_then(Node::as_text).unwrap_or("without a name").to_owned();
        for (key, value) in entries {
            match key.as_str() {
                "name" => {}
                "ssh_authorized_keys" | "ssh-authorized-keys" => ssh_keys(fragment, "users.ssh_authorized_keys", value),
                other => not_applied(fragment, value, &format!("key {other} of user {name}")),
            }
        }
    }
}

fn write_files(fragment: &mut Fragment, node: &Node) {
    let Data::List(entries) = &node.data else {
        return wrong(fragment, "write_files", node, "a list of files");
    };
    let origin = Origin::at(&fragment.source, node.line);
    let mut files: Vec<OsFile> = Vec::new();
    let mut total = 0;
    for entry in entries.iter().take(ENTRIES) {
        if let Some(file) = write_file(fragment, entry) {
            total += file.contents.len();
            files.push(file);
        }
    }
    if entries.len() > ENTRIES || total > LIMIT {
        let found = format!("{} files of {total} bytes together", entries.len());
        let mut problem = Problem::source(origin, found, format!("at most {ENTRIES} files of {LIMIT} bytes together"));
        problem.key = Some("write_files".to_owned());
        fragment.problems.push(problem);
        return;
    }
    match &mut fragment.os.write_files {
        Some((_, before)) => before.extend(files),
        none => *none = Some((origin, files)),
    }
}

fn write_file(fragment: &mut Fragment, node: &Node) -> Option<OsFile> {
    let Data::Map(entries) = &node.data else {
        wrong(fragment, "write_files", node, "a file: path and content");
        return None;
    };
    for (key, value) in entries {
        let text = value.as_text().unwrap_or_default();
        match key.as_str() {
            "path" | "content" | "encoding" | "permissions" => {}
            "owner" if matches!(text, "root:root" | "root" | "0:0") => {}
            "append" | "defer" if text == "false" => {}
            other => not_applied(fragment, value, &format!("key {other} of write_files")),
        }
    }
    let member = |name: &str| node.get(name).and_then(Node::as_text);
    let (path, content) = (member("path"), member("content").unwrap_or_default());
    let Some(path) = path.filter(|path| is_allowed_path(path)) else {
        let at = node.get("path").unwrap_or(node);
        wrong(fragment, "write_files.path", at, "a file below /etc that is neither the image's nor kubeboot's");
        return None;
    };
    let mode = member("permissions").map_or(Some(0o644), octal);
    let Some(mode) = mode.filter(|mode| *mode <= 0o777) else {
        wrong(
            fragment,
            "write_files.permissions",
            node.get("permissions").unwrap_or(node),
            "octal digits such as '0644'",
        );
        return None;
    };
    match decode(content, member("encoding").unwrap_or_default()) {
        Ok(contents) => Some(OsFile { path: path.to_owned(), mode, contents }),
        Err(found) => {
            let at = node.get("content").unwrap_or(node);
            let mut problem = Problem::source(Origin::at(&fragment.source, at.line), found, "content in its encoding");
            problem.key = Some("write_files.content".to_owned());
            fragment.problems.push(problem);
            None
        }
    }
}

/// Below /etc, in plain components, and not where kubeboot or the image's identity lives.
fn is_allowed_path(path: &str) -> bool {
    const OURS: [&str; 9] =
        ["kubernetes", "cni", "containerd", "machine-id", "hostname", "passwd", "shadow", "group", "systemd/network"];
    let Some(below) = path.strip_prefix("/etc/") else { return false };
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
    let ours = |own: &str| below.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    path.len() <= 1024 && below.split('/').all(plain) && !OURS.into_iter().any(ours)
}

fn octal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| u32::from_str_radix(digits, 8).ok())?
}

fn decode(content: &str, encoding: &str) -> Result<Vec<u8>, String> {
    let base64 = || {
        let packed: Vec<u8> = content.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        STANDARD.decode(packed).map_err(|error| format!("base64 that can't be decoded: {error}"))
    };
    match encoding.to_ascii_lowercase().as_str() {
        "" | "text/plain" => Ok(content.as_bytes().to_vec()),
        "b64" | "base64" => base64(),
        "gz+b64" | "gz+base64" | "gzip+b64" | "gzip+base64" => Ok(gzip::unpack(&base64()?)?.to_vec()),
        other => Err(format!("encoding {}", crate::settings::quoted(other))),
    }
}

fn ntp(fragment: &mut Fragment, node: &Node) {
    let Data::Map(entries) = &node.data else {
        return wrong(fragment, "ntp", node, "a group with servers or pools");
    };
    for (key, value) in entries {
        match (key.as_str(), &value.data) {
            ("servers" | "pools", Data::List(items)) => {
                for item in items.iter().take(ENTRIES) {
                    let Some(text) = item.as_text() else {
                        wrong(fragment, "ntp.servers", item, "a host name or an address");
                        continue;
                    };
                    let origin = Origin::at(&fragment.source, item.line);
                    fragment.os.ntp_servers.get_or_insert_with(|| (origin, Vec::new())).1.push(text.to_owned());
                }
            }
            ("servers" | "pools", Data::Nothing) => {}
            ("servers" | "pools", _) => wrong(fragment, "ntp.servers", value, "a list of host names or addresses"),
            ("enabled", Data::Text(text)) if text.as_str() == "true" => {}
            (other, _) => not_applied(fragment, value, &format!("key {other} of ntp")),
        }
    }
}
