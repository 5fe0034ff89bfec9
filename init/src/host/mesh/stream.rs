//! One stream: a TLS connection that does not block, and messages behind their lengths (32 bits, big-endian).

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::epoll::EpollFlags;
use rustls::Connection;
use zeroize::Zeroizing;

use super::tls;
use crate::mesh::sync::MAX_MESSAGE;
use crate::mesh::{NodeId, StreamId};

/// Bytes of a message's length.
const LENGTH: usize = 4;
/// Bytes that may wait to be sent: a message is only sent after the other side's, so two never do.
const WAITING: usize = 2 * (LENGTH + MAX_MESSAGE);
/// Reads in one go; what is left, the kernel tells of again.
const READS: usize = 8;

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// TCP connects.
    Connecting,
    /// TLS shakes hands.
    Greeting,
    /// The other end has proven its node key.
    Open,
    /// The mesh is through with it; what waits is still sent.
    Ending,
}

/// Who is to be at the other end, and what the mesh calls the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Who: of a stream that was opened here.
    pub peer: Option<NodeId>,
    /// Its number in the mesh.
    pub id: StreamId,
}

/// What came of an event.
#[derive(Default)]
pub struct Progress {
    /// The other end has just proven that it is this node.
    pub proven: Option<NodeId>,
    /// Whole messages that came in.
    pub messages: Vec<Zeroizing<Vec<u8>>>,
    /// Why the stream has ended, if it has.
    pub ended: Option<String>,
}

/// A stream.
pub struct Stream {
    /// The socket, to be watched.
    pub socket: TcpStream,
    /// How far it is.
    pub stage: Stage,
    /// Whose it is.
    pub expected: Expected,
    /// Until when it has to be open, or ended.
    pub deadline: Duration,
    /// What it is watched for.
    pub watched: EpollFlags,
    tls: Connection,
    incoming: Zeroizing<Vec<u8>>,
}

impl Stream {
    /// Over a socket that does not block. `deadline` is on the monotonic clock.
    pub fn new(socket: TcpStream, mut tls: Connection, stage: Stage, expected: Expected, deadline: Duration) -> Self {
        tls.set_buffer_limit(Some(WAITING));
        let (watched, incoming) = (EpollFlags::empty(), Zeroizing::new(Vec::new()));
        Stream { socket, stage, expected, deadline, watched, tls, incoming }
    }

    /// What it is to be watched for now.
    pub fn interest(&self) -> EpollFlags {
        let mut wanted = EpollFlags::empty();
        wanted.set(EpollFlags::EPOLLOUT, self.stage == Stage::Connecting || self.tls.wants_write());
        wanted.set(EpollFlags::EPOLLIN, self.stage != Stage::Connecting);
        wanted
    }

    /// Goes on: the socket is readable or writable.
    pub fn go_on(&mut self) -> Progress {
        let mut progress = Progress::default();
        if let Err(error) = self.advance(&mut progress) {
            // A TLS alert tells the other side why; whether it arrives changes nothing.
            let _ = self.flush();
            progress.ended = Some(error.to_string());
        }
        progress
    }

    fn advance(&mut self, progress: &mut Progress) -> io::Result<()> {
        if self.stage == Stage::Connecting {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            if let Err(error) = self.socket.peer_addr() {
                return if error.kind() == ErrorKind::NotConnected { Ok(()) } else { Err(error) };
            }
            self.stage = Stage::Greeting;
        }
        let mut closed = false;
        for _ in 0..READS {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => {
                    closed = true;
                    break;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let state = self.tls.process_new_packets().map_err(io::Error::other)?;
            closed |= state.peer_has_closed();
            self.greet(progress)?;
            self.take(progress)?;
        }
        self.flush()?;
        self.greet(progress)?;
        if closed {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the other side ended it"));
        }
        let through = self.stage == Stage::Ending && !self.tls.wants_write();
        if through { Err(io::Error::new(ErrorKind::UnexpectedEof, "it is through")) } else { Ok(()) }
    }

    /// Sees who the other end is once TLS is through with its handshake.
    fn greet(&mut self, progress: &mut Progress) -> io::Result<()> {
        if self.stage != Stage::Greeting || self.tls.is_handshaking() {
            return Ok(());
        }
        let peer = tls::peer(&self.tls).ok_or_else(|| io::Error::other("expected a node of the mesh"))?;
        if self.expected.peer.is_some_and(|expected| expected != peer) {
            return Err(io::Error::other("another node answered there"));
        }
        self.stage = Stage::Open;
        progress.proven = Some(peer);
        Ok(())
    }

    /// Takes what was decrypted, and of that whole messages.
    fn take(&mut self, progress: &mut Progress) -> io::Result<()> {
        let mut part = Zeroizing::new([0; 4096]);
        loop {
            match self.tls.reader().read(part.as_mut()) {
                Ok(0) => break,
                Ok(count) if self.stage == Stage::Open => self.incoming.extend_from_slice(&part[..count]),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            while let Some(message) = self.whole()? {
                progress.messages.push(message);
            }
        }
        Ok(())
    }

    fn whole(&mut self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let Some((length, rest)) = self.incoming.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(1..=MAX_MESSAGE).contains(&length) {
            return Err(io::Error::other(format!("expected a message of 1 to {MAX_MESSAGE} bytes, found {length}")));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let message = Zeroizing::new(rest[..length].to_vec());
        self.incoming = Zeroizing::new(rest[length..].to_vec());
        Ok(Some(message))
    }

    /// Sends a message, as far as the other side takes it now; the rest when it is writable.
    ///
    /// # Errors
    /// More waits than may.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length = u32::try_from(message.len()).map_err(io::Error::other)?;
        for part in [&length.to_be_bytes()[..], message] {
            if self.tls.writer().write(part)? < part.len() {
                return Err(io::Error::other("the other side takes nothing"));
            }
        }
        self.flush()
    }

    /// Says that nothing more comes. True when everything is sent.
    pub fn end(&mut self, deadline: Duration) -> bool {
        (self.stage, self.deadline) = (Stage::Ending, deadline);
        self.tls.send_close_notify();
        self.flush().is_err() || !self.tls.wants_write()
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustls::{ClientConnection, ServerConnection};

    use super::super::tls::Tls;
    use super::*;
    use crate::enrolment::Sign as _;
    use crate::host::keys::{self, Ed25519};
    use crate::host::wait;

    const LIMIT: Duration = Duration::from_secs(20);
    const PAUSE: Duration = Duration::from_millis(1);

    /// A node key's TLS, and who it is.
    fn node() -> (Tls, NodeId) {
        let pem = keys::ed25519().unwrap();
        let tls = Tls::new(&keys::der(pem.as_bytes()).unwrap()).unwrap();
        (tls, NodeId::of(&Ed25519::load(pem.as_bytes()).unwrap().public()))
    }

    /// Two ends of a connection on loopback: the first opened it, and expects that peer.
    fn pair(opener: &Tls, expects: NodeId, other: &Tls) -> [Stream; 2] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        [&near, &far].into_iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        let client = ClientConnection::new(opener.client.clone(), tls::name()).unwrap();
        let server = ServerConnection::new(other.server.clone()).unwrap();
        let expected = |peer| Expected { peer, id: StreamId(1) };
        [
            Stream::new(near, client.into(), Stage::Connecting, expected(Some(expects)), LIMIT),
            Stream::new(far, server.into(), Stage::Greeting, expected(None), LIMIT),
        ]
    }

    /// Lets both go on until `done` of all that came of it, by end.
    fn until(ends: &mut [Stream; 2], what: &str, done: impl Fn(&[Vec<Progress>; 2]) -> bool) -> [Vec<Progress>; 2] {
        let mut all = [Vec::new(), Vec::new()];
        let found = wait::until(what, LIMIT, PAUSE, || {
            for (end, all) in ends.iter_mut().zip(&mut all) {
                all.push(end.go_on());
            }
            if done(&all) { Ok(()) } else { Err("not yet".to_owned()) }
        });
        found.unwrap_or_else(|late| panic!("{late}"));
        all
    }

    fn proven(progress: &[Progress]) -> Option<NodeId> {
        progress.iter().find_map(|progress| progress.proven)
    }

    fn ended(progress: &[Progress]) -> Option<&str> {
        progress.iter().find_map(|progress| progress.ended.as_deref())
    }

    #[test]
    fn both_ends_prove_their_node_keys_and_messages_of_any_length_arrive_whole() {
        let ((one, one_id), (two, two_id)) = (node(), node());
        let mut ends = pair(&one, two_id, &two);
        let all = until(&mut ends, "both to be proven", |all| all.iter().all(|end| proven(end).is_some()));
        assert_eq!(all.map(|end| proven(&end)), [Some(two_id), Some(one_id)]);
        for length in [1, MAX_MESSAGE] {
            let message = vec![7; length];
            ends[0].send(&message).unwrap();
            let all = until(&mut ends, "the message", |all| all[1].iter().any(|end| !end.messages.is_empty()));
            let messages: Vec<_> = all[1].iter().flat_map(|progress| &progress.messages).collect();
            assert!(messages.len() == 1 && **messages[0] == message);
        }
        assert!(ends[0].end(LIMIT));
        let all = until(&mut ends, "the end", |all| ended(&all[1]).is_some());
        assert_eq!(ended(&all[1]), Some("the other side ended it"));
    }

    #[test]
    fn who_is_not_the_node_that_was_meant_is_left() {
        let ((one, _), (two, _), (_, third)) = (node(), node(), node());
        let mut ends = pair(&one, third, &two);
        let all = until(&mut ends, "the opener to leave", |all| ended(&all[0]).is_some());
        assert_eq!((ended(&all[0]), proven(&all[0])), (Some("another node answered there"), None));
    }

    #[test]
    fn a_message_that_is_too_long_or_empty_ends_the_stream_before_it_is_kept() {
        for length in [0, MAX_MESSAGE as u32 + 1, u32::MAX] {
            let ((one, _), (two, two_id)) = (node(), node());
            let mut ends = pair(&one, two_id, &two);
            until(&mut ends, "both to be proven", |all| all.iter().all(|end| proven(end).is_some()));
            ends[0].tls.writer().write_all(&length.to_be_bytes()).unwrap();
            let all = until(&mut ends, "the end", |all| ended(&all[1]).is_some());
            assert!(ended(&all[1]).is_some_and(|why| why.contains("expected a message of 1 to 65536 bytes")));
        }
    }

    #[test]
    fn who_shows_a_certificate_or_no_key_is_no_node() {
        let ((_, _), (two, _)) = (node(), node());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        [&near, &far].into_iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        // Enrolment's client: it has no key of its own, and takes certificates.
        let config = crate::host::enrolment::tls::client().unwrap();
        let client = ClientConnection::new(config, tls::name()).unwrap();
        let server = ServerConnection::new(two.server.clone()).unwrap();
        let expected = Expected { peer: None, id: StreamId(1) };
        let mut ends = [
            Stream::new(near, client.into(), Stage::Connecting, expected, LIMIT),
            Stream::new(far, server.into(), Stage::Greeting, expected, LIMIT),
        ];
        let all = until(&mut ends, "the server to leave", |all| ended(&all[1]).is_some());
        assert_eq!(proven(&all[1]), None);
    }
}
