//! What a single value may be: Kubernetes' and the RFCs' syntax.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// RFC 1123 label in lower case: letters, digits and inner hyphens, 1 to 63 characters.
pub fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// RFC 1123 subdomain: labels joined by dots, at most 253 characters.
pub fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// A node's name: Kubernetes also writes it into a label, whose value ends at 63 characters.
pub fn is_node_name(text: &str) -> bool {
    text.len() <= 63 && is_dns_name(text)
}

/// The name part of a label, and a label's value if it is not empty: at most 63 letters, digits, `-`, `_` and `.`,
/// alphanumeric at both ends.
fn is_label_word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63 && text.bytes().all(inner) && end(text.bytes().next()) && end(text.bytes().next_back())
}

/// `[prefix/]name`
pub fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_label_word(name),
        None => is_label_word(text),
    }
}

/// A label's value; may be empty.
pub fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_word(text)
}

/// `key[=value]:Effect`
pub fn is_taint(text: &str) -> bool {
    let Some((left, effect)) = text.rsplit_once(':') else { return false };
    let (key, value) = left.split_once('=').unwrap_or((left, ""));
    is_label_key(key) && is_label_value(value) && matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute")
}

/// A DNS name, also with a wildcard as its first label, or an address.
pub fn is_san(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_dns_name(text.strip_prefix("*.").unwrap_or(text))
}

/// A host name or an address, with or without a port; IPv6 with a port in brackets.
pub fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() || text.parse::<std::net::SocketAddr>().is_ok() {
        return true;
    }
    match text.split_once(':') {
        Some((host, port)) => is_dns_name(host) && is_port(port),
        None => is_dns_name(text),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port != 0)
}

/// The name of an add-on that this release has.
pub fn is_addon(text: &str) -> bool {
    text == "coredns"
}

/// `http://host[:port][/path]` or `https://…`, with neither blanks nor control characters.
pub fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host_is_good = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            address.parse::<std::net::Ipv6Addr>().is_ok()
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        }
        None => is_host(&host.to_ascii_lowercase()),
    };
    host_is_good && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

/// A URL without the name and the password that it may hold, for people to read. What is no URL loses everything before
/// an `@` too: it may be a slip in one.
pub fn masked(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map(|(scheme, _)| format!("{scheme}://"));
            format!("{}***@{host}", scheme.unwrap_or_default())
        }
        None => text.to_owned(),
    }
}

/// Whether a URL holds a name or a password.
pub fn has_password(url: &str) -> bool {
    masked(url) != url
}

/// What may stand in `no-proxy`.
pub fn is_proxy_exception(text: &str) -> bool {
    let name = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')).unwrap_or(text);
    text == "*" || text.parse::<super::Cidr>().is_ok() || is_host(&name.to_ascii_lowercase())
}

/// A device's name below `/dev`.
pub fn is_device(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// A registry's host, with or without a port.
pub fn is_registry(text: &str) -> bool {
    is_host(text)
}

/// The kinds of keys that sshd of the debug image takes.
const SSH_KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

/// Reads `type base64 [comment]`, the line of an `authorized_keys` file without options (sshd(8)). The key's own text
/// (RFC 4253, section 6.6) must begin with the same type.
pub fn is_ssh_key(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let (Some(kind), Some(text)) = (words.next(), words.next()) else { return false };
    SSH_KINDS.contains(&kind)
        && line.len() <= 4096
        && !line.chars().any(char::is_control)
        && STANDARD.decode(text).is_ok_and(|blob| names_itself(&blob, kind))
}

/// Whether a key's own text begins with its kind, and has something after it.
fn names_itself(blob: &[u8], kind: &str) -> bool {
    let Some((length, rest)) = blob.split_first_chunk::<4>() else { return false };
    usize::try_from(u32::from_be_bytes(*length))
        .ok()
        .and_then(|length| rest.split_at_checked(length))
        .is_some_and(|(named, key)| named == kind.as_bytes() && key.len() > 4)
}

/// One or more certificates in PEM form, and nothing else that is readable.
pub fn is_pem_certificate(text: &str) -> bool {
    let mut count = 0;
    for pem in x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()).take(64) {
        match pem {
            Ok(pem) if pem.label == "CERTIFICATE" && pem.parse_x509().is_ok() => count += 1,
            _ => return false,
        }
    }
    count > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqGXr0WDGZqFbDkGWqIRWHGSfDQHpRq4gsqY9gNyL9 ann@desk";

    #[test]
    fn names() {
        assert!(is_node_name("cp-1.example") && !is_node_name("CP-1") && !is_node_name("") && !is_node_name("a..b"));
        assert!(!is_node_name("-a") && !is_node_name(&"a.".repeat(40)));
        assert!(is_san("*.example.org") && is_san("::1") && !is_san("*") && !is_san("a_b"));
        assert!(is_host("10.0.0.1:7440") && is_host("[fd00::1]:7440") && is_host("fd00::1") && is_host("cp-1:7440"));
        assert!(!is_host("cp-1:0") && !is_host("cp-1:99999") && !is_host("a b"));
        assert!(is_device("ttyS1") && !is_device("../sda") && !is_device(""));
    }

    #[test]
    fn labels_and_taints() {
        assert!(is_label_key("topology.kubernetes.io/zone") && is_label_key("disk") && !is_label_key("/x"));
        assert!(is_label_value("") && is_label_value("a_B.c") && !is_label_value("-a"));
        assert!(is_taint("a:NoSchedule") && is_taint("x.y/a=b:NoExecute"));
        assert!(!is_taint("a") && !is_taint("a:Sometimes") && !is_taint("=b:NoExecute"));
    }

    #[test]
    fn urls() {
        assert!(is_url("https://mirror.example.org:5000/v2") && is_url("http://[fd00::1]:3128"));
        assert!(
            is_url("http://user:word@proxy:3128") && !is_url("ftp://x") && !is_url("http://") && !is_url("http://a\nb")
        );
    }

    #[test]
    fn a_masked_url_has_neither_name_nor_password() {
        assert_eq!(masked("http://ann:pa@ss/w@proxy:3128/x"), "http://***@proxy:3128/x");
        assert_eq!(masked("ann:word@proxy"), "***@proxy");
        assert_eq!(masked("https://mirror.example.org/v2"), "https://mirror.example.org/v2");
    }

    #[test]
    fn ssh_keys_must_hold_the_type_that_they_name() {
        assert!(is_ssh_key(ED25519));
        assert!(!is_ssh_key(&ED25519.replace("ssh-ed25519", "ssh-rsa")));
        assert!(!is_ssh_key("ssh-ed25519 AAAA"));
        assert!(!is_ssh_key("ssh-ed25519"));
        assert!(!is_ssh_key(&format!("{ED25519}\nssh-rsa AAAA")));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = (is_url(&text), is_host(&text), is_taint(&text), is_label_key(&text), is_proxy_exception(&text));
            let _ = (is_ssh_key(&text), is_ssh_key(&format!("ssh-rsa {text}")), is_pem_certificate(&text));
        }
    }
}
