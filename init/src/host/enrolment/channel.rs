//! One TLS connection of enrolment: messages behind their lengths, and deadlines that nobody stretches.
//!
//! Every wait has an absolute end. Before each call to the socket its timeout is set to what is left until then, so
//! somebody who sends a byte now and then gains nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use zeroize::Zeroizing;

use super::tls;
use crate::enrolment::message::{announced, prefix};
use crate::enrolment::transcript::{EXPORTER_LABEL, Exporter};
use crate::enrolment::{DEADLINE, Malformed, PATIENCE};

/// How long is waited.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// For the TLS handshake, and for each message, to be there whole.
    pub patience: Duration,
    /// For everything together.
    pub whole: Duration,
}

impl Default for Times {
    /// Those of `docs/enrolment.md`.
    fn default() -> Self {
        Times { patience: PATIENCE, whole: DEADLINE }
    }
}

/// How long the other side has to take the last message before the connection goes.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of its that are thrown away meanwhile, at most.
const THROWN_AWAY: usize = 64 << 10;

/// Why a connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The other side took too long.
    #[error("nothing came in time")]
    TimedOut,
    /// The other side is gone.
    #[error("the other side closed the connection")]
    Closed,
    /// A message longer than may come now was announced; nothing of it was read.
    #[error("{0}")]
    Long(Malformed),
    /// The network or TLS failed, in words.
    #[error("{0}")]
    Failed(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Broken::TimedOut,
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected => Broken::Closed,
            _ => Broken::Failed(error.to_string()),
        }
    }
}

impl From<rustls::Error> for Broken {
    fn from(error: rustls::Error) -> Self {
        Broken::Failed(error.to_string())
    }
}

/// One connection, past its TLS handshake.
pub struct Channel {
    socket: TcpStream,
    tls: Connection,
    exporter: Exporter,
    times: Times,
    end: Instant,
}

impl Channel {
    /// Connects to a server, within the patience for the connection and again for TLS.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn connect(address: &SocketAddr, config: Arc<ClientConfig>, times: Times) -> Result<Self, Broken> {
        let begun = Instant::now();
        let socket = TcpStream::connect_timeout(address, times.patience.min(times.whole))?;
        Self::over(socket, ClientConnection::new(config, tls::name())?.into(), begun, times)
    }

    /// Takes a connection in.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn accept(socket: TcpStream, config: Arc<ServerConfig>, times: Times) -> Result<Self, Broken> {
        Self::over(socket, ServerConnection::new(config)?.into(), Instant::now(), times)
    }

    pub(super) fn over(socket: TcpStream, mut tls: Connection, begun: Instant, times: Times) -> Result<Self, Broken> {
        socket.set_nodelay(true)?;
        let end = begun + times.whole;
        let mut timed = Timed { socket: &socket, until: (Instant::now() + times.patience).min(end) };
        while tls.is_handshaking() {
            let (read, written) = tls.complete_io(&mut timed)?;
            if read + written == 0 {
                return Err(Broken::Closed);
            }
        }
        while tls.wants_write() {
            tls.write_tls(&mut timed)?;
        }
        let exporter = tls.export_keying_material([0; 32], EXPORTER_LABEL, None)?;
        Ok(Channel { socket, tls, exporter, times, end })
    }

    /// What this connection alone has.
    pub fn exporter(&self) -> Exporter {
        self.exporter
    }

    /// From now on these times hold: for what follows an exchange that has ended well.
    pub fn prolong(&mut self, times: Times) {
        (self.times, self.end) = (times, Instant::now() + times.whole);
    }

    /// The next message, without its length. Its buffer is wiped when dropped.
    ///
    /// # Errors
    /// [`Broken`]. A message longer than `most` is not read.
    pub fn receive(&mut self, most: usize) -> Result<Zeroizing<Vec<u8>>, Broken> {
        let until = self.until();
        let mut length = [0; 4];
        self.read_exact(&mut length, until)?;
        let length = announced(length, most).map_err(Broken::Long)?;
        let mut message = Zeroizing::new(vec![0; length]);
        self.read_exact(&mut message, until)?;
        Ok(message)
    }

    fn read_exact(&mut self, mut buffer: &mut [u8], until: Instant) -> Result<(), Broken> {
        let mut timed = Timed { socket: &self.socket, until };
        while !buffer.is_empty() {
            match self.tls.reader().read(buffer) {
                Ok(0) => return Err(Broken::Closed),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let (read, written) = self.tls.complete_io(&mut timed)?;
                    if read + written == 0 {
                        return Err(Broken::Closed);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn send(&mut self, message: &[u8]) -> Result<(), Broken> {
        let mut timed = Timed { socket: &self.socket, until: self.until() };
        for mut part in [&prefix(message)[..], message] {
            // What TLS takes at once is bounded.
            while !part.is_empty() {
                let count = self.tls.writer().write(part)?;
                part = &part[count..];
                while self.tls.wants_write() {
                    self.tls.write_tls(&mut timed)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the connection so that the other side gets what was sent last: closing a socket with unread bytes would
    /// reset the connection, and take that along.
    pub fn close(mut self) {
        let until = (Instant::now() + LINGER).min(self.end);
        let mut timed = Timed { socket: &self.socket, until };
        self.tls.send_close_notify();
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut timed).is_err() {
                return;
            }
        }
        if self.socket.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let (mut left, mut waste) = (THROWN_AWAY, [0; 1024]);
        while let Ok(count @ 1..) = timed.read(&mut waste) {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    }

    fn until(&self) -> Instant {
        (Instant::now() + self.times.patience).min(self.end)
    }
}

/// A socket whose calls all end by one moment.
struct Timed<'a> {
    socket: &'a TcpStream,
    until: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// Again after a signal; with what is then left of the time.
    fn timed(&mut self, mut call: impl FnMut(&TcpStream, Duration) -> io::Result<usize>) -> io::Result<usize> {
        loop {
            match call(self.socket, self.left()?) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
                done => return done,
            }
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.timed(|mut socket, left| {
            socket.set_read_timeout(Some(left))?;
            socket.read(buffer)
        })
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.timed(|mut socket, left| {
            socket.set_write_timeout(Some(left))?;
            socket.write(buffer)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
