//! The file of API servers: `{"format":1,"servers":["192.0.2.10:6443","[2001:db8::1]:6443"]}`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::plan::record::Endpoints;

/// Most servers that are read.
pub const MOST: usize = 16;

/// API servers in the order of the file, each once.
pub type Listed = Vec<SocketAddr>;

/// The servers of a file.
///
/// # Errors
/// What is wrong with it, in words: another form, no server, more than [`MOST`], one twice.
pub fn parse(contents: &[u8]) -> Result<Listed, String> {
    let servers = Endpoints::parse(contents)?.servers;
    if servers.is_empty() || servers.len() > MOST {
        return Err(format!("expected 1 to {MOST} servers, found {}", servers.len()));
    }
    if servers.iter().collect::<BTreeSet<_>>().len() < servers.len() {
        return Err("a server stands there twice".to_owned());
    }
    Ok(servers)
}

/// A file that lists `servers`, in this order.
pub fn text(servers: &[SocketAddr]) -> String {
    Endpoints { servers: servers.to_vec(), ..Endpoints::of([]) }.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let servers: Listed = ["192.0.2.10:6443", "[2001:db8::1]:6443"].map(|one| one.parse().unwrap()).into();
        assert_eq!(parse(text(&servers).as_bytes()).unwrap(), servers);
    }

    #[test]
    fn what_is_no_list_of_servers_is_named() {
        let cases = [
            ("", "EOF"),
            ("{\"format\":2,\"servers\":[\"192.0.2.10:6443\"]}", "expected format 1, found 2"),
            ("{\"format\":1,\"servers\":[]}", "expected 1 to 16 servers, found 0"),
            ("{\"format\":1,\"servers\":[\"192.0.2.10:1\",\"192.0.2.10:1\"]}", "twice"),
            ("{\"format\":1,\"servers\":[\"one:6443\"]}", "invalid socket address"),
        ];
        for (contents, expected) in cases {
            let error = parse(contents.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{contents}: {error}");
        }
        let many: Vec<SocketAddr> = (0..=MOST).map(|last| format!("192.0.2.{last}:6443").parse().unwrap()).collect();
        assert!(parse(text(&many).as_bytes()).is_err());
    }
}
