//! Questions to services on this machine: plain HTTP health endpoints on loopback, and the cluster's DNS.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::health::dns;

/// How long a service may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// GET `http://ADDRESS:PORT/PATH`: status and body, at most 4 KiB of it.
///
/// # Errors
/// Nobody listens, or the answer is none of HTTP's.
pub fn http(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    // HTTP/1.0: the server closes, so the end of the body needs no parsing.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned()).unwrap_or_default();
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "expected an HTTP answer"))?;
    Ok((status, body))
}

/// Asks the DNS server at `server` for the address of `name`.
///
/// # Errors
/// In words: no answer in time, an error code, no address.
pub fn resolve(server: IpAddr, name: &str) -> Result<IpAddr, String> {
    // Nobody but the server can see the id: source port and path are this machine's own.
    let id = super::clock::monotonic().subsec_micros() as u16;
    let question = dns::question(id, name, server).ok_or_else(|| format!("{name:?} is no domain name"))?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let ask = || -> io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((server, 53))?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.send(&question)?;
        let mut answer = vec![0; 1500];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    };
    let answer = ask().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("{server} did not answer within 1 s"),
        _ => format!("{server} can't be asked: {error}"),
    })?;
    let found = dns::answer(id, &answer).map_err(|why| format!("{server} was asked for {name}: {why}"))?;
    found.first().copied().ok_or_else(|| format!("{server} knows no address of {name}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn status_and_body_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.0 503 Service Unavailable\r\nX: y\r\n\r\nno leader\n").unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        assert_eq!(http(address, "/readyz").unwrap(), (503, "no leader".to_owned()));
        assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.0\r\n"));
    }

    #[test]
    fn a_port_that_nobody_has_is_an_error() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(http(address, "/").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
