//! The health check of one server: a TLS connection that stays open between checks, so that the kernel tells at once
//! when its machine is gone, and `GET /readyz` on it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::EpollFlags;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, version};

use super::sockets;
use crate::balancer::{Answer, Finding, REQUEST, answer};

/// The name in every API server's certificate, whatever its address.
const NAME: &str = "kubernetes.default.svc";
/// Longest answer that is kept.
const LONGEST: usize = 16 << 10;
/// Most rounds of reading in one go.
const ROUNDS: usize = 16;

/// How long a check may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// To connect: longer than the second after which the kernel asks again. Also to answer on a connection that was
    /// kept, before a new one is tried.
    pub(super) connect: Duration,
    /// To answer, once connected.
    pub(super) answer: Duration,
    /// To be heard of by the kernel again, on a connection on which it asks in vain; or to be given up there.
    pub(super) silence: Duration,
}

/// A check of one server, under way or waiting for the next.
pub(super) struct Check {
    pub(super) address: SocketAddr,
    pub(super) link: Option<Link>,
    /// When the check that is under way has failed.
    pub(super) deadline: Option<Duration>,
    /// Whether the connection is the first of this check, so that its failure says something of the server.
    fresh: bool,
    /// Whether nothing was asked, because the kernel asks in vain already.
    left: bool,
    asked: Duration,
}

/// Its connection.
pub(super) struct Link {
    pub(super) socket: TcpStream,
    tls: Option<ClientConnection>,
    answer: Vec<u8>,
    /// What epoll was asked for.
    pub(super) watched: EpollFlags,
}

/// What came of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing to tell.
    Waiting,
    /// The connection that was kept is gone: ask anew, at once.
    Lost,
    /// The check has ended.
    Found(Finding),
}

/// How TLS is spoken with every server: only certificates of the cluster's authority are taken.
///
/// # Errors
/// No authority in `ca`, in words.
pub(super) fn trust(ca: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("expected a certificate in PEM, found none".to_owned());
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&version::TLS13]);
    let builder = builder.map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

impl Check {
    pub(super) fn new(address: SocketAddr) -> Self {
        Check { address, link: None, deadline: None, fresh: false, left: false, asked: Duration::ZERO }
    }

    /// Begins a check: on the connection that is open, or on a new one.
    pub(super) fn begin(&mut self, now: Duration, trust: Option<&Arc<ClientConfig>>, patience: Patience) -> Progress {
        self.fresh = self.link.is_none();
        if self.fresh {
            self.deadline = Some(now + patience.connect);
            return match sockets::connect(self.address, sockets::CHECK) {
                Ok(socket) => {
                    let watched = EpollFlags::empty();
                    self.link = Some(Link { socket, tls: None, answer: Vec::new(), watched });
                    Progress::Waiting
                }
                Err(error) => self.ended(broken(&error)),
            };
        }
        self.left = self.is_silent();
        if self.left {
            // The kernel is about to give this connection up; while anything that was sent is under way, it asks no more.
            self.deadline = Some(now + patience.silence);
            return Progress::Waiting;
        }
        self.ask_again(now, trust, patience)
    }

    /// Whether the kernel asks in vain on the connection that was kept.
    fn is_silent(&self) -> bool {
        self.link.as_ref().is_some_and(|link| sockets::silence(&link.socket) >= sockets::UNANSWERED)
    }

    /// Asks on the connection that was kept.
    fn ask_again(&mut self, now: Duration, trust: Option<&Arc<ClientConfig>>, patience: Patience) -> Progress {
        self.left = false;
        // Should its machine be gone, a new connection says so sooner than the kernel gives this one up.
        self.deadline = Some(now + patience.connect);
        self.ask(now);
        self.event(now, EpollFlags::EPOLLOUT, trust, patience)
    }

    /// Whether a check is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.deadline.is_some()
    }

    /// The next check has to make a new connection.
    pub(super) fn drop_link(&mut self) {
        self.link = None;
    }

    /// Gives up a connection that was kept, used just now or not: a new one says more. One that is new is left alone.
    pub(super) fn renew(&mut self) -> Progress {
        if self.fresh && self.is_busy() { Progress::Waiting } else { self.lost() }
    }

    /// The time for the check that is under way has passed.
    pub(super) fn late(&mut self, now: Duration, trust: Option<&Arc<ClientConfig>>, patience: Patience) -> Progress {
        let connected = self.link.as_ref().is_some_and(|link| link.tls.is_some());
        match (self.fresh, connected) {
            // It was heard of after all.
            (false, _) if self.left && !self.is_silent() => self.ask_again(now, trust, patience),
            (false, _) => self.lost(),
            (true, true) => {
                self.ended(Finding::Unwell { why: "it takes connections and does not answer in time".to_owned() })
            }
            (true, false) => self.ended(Finding::Unreachable { why: "nothing comes back from it".to_owned() }),
        }
    }

    /// Something happened on the connection.
    pub(super) fn event(
        &mut self,
        now: Duration,
        events: EpollFlags,
        trust: Option<&Arc<ClientConfig>>,
        patience: Patience,
    ) -> Progress {
        let Some(link) = &mut self.link else { return Progress::Waiting };
        if link.tls.is_none() {
            if !events.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
                return Progress::Waiting;
            }
            if let Some(error) = link.socket.take_error().unwrap_or_else(Some) {
                return self.ended(broken(&error));
            }
            match session(trust) {
                Ok(tls) => link.tls = Some(tls),
                Err(why) => return self.ended(Finding::Unwell { why }),
            }
            self.deadline = Some(now + patience.answer);
            self.ask(now);
        }
        let Some(link) = &mut self.link else { return Progress::Waiting };
        match link.drive() {
            Ok(open) => self.read(now, open),
            Err(Fault::Words(why)) => self.ended(Finding::Unwell { why }),
            Err(Fault::Socket(error)) => match broken(&error) {
                // On a connection that was kept, only the machine's silence says something of the server.
                Finding::Unwell { .. } if !self.fresh => self.lost(),
                finding => self.ended(finding),
            },
        }
    }

    /// What has been read so far; `open` tells whether more can come.
    fn read(&mut self, now: Duration, open: bool) -> Progress {
        let Some(link) = &mut self.link else { return Progress::Waiting };
        match answer(&link.answer) {
            _ if self.deadline.is_none() => {
                // Between checks an API server has nothing to say.
                let nothing = link.answer.is_empty();
                if open && nothing { Progress::Waiting } else { self.lost() }
            }
            Answer::Partial if open => Progress::Waiting,
            Answer::Partial if !self.fresh => self.lost(),
            Answer::Partial => self.ended(Finding::Unwell { why: "it closed the connection".to_owned() }),
            Answer::Nonsense => self.ended(Finding::Unwell { why: "it does not speak HTTP".to_owned() }),
            Answer::Whole { status: 200, again } => {
                link.answer.clear();
                self.fresh = false;
                if !again || !open {
                    self.drop_link();
                }
                self.deadline = None;
                Progress::Found(Finding::Ready { took: now.saturating_sub(self.asked) })
            }
            Answer::Whole { status, .. } => self.ended(Finding::Unwell { why: format!("/readyz answers {status}") }),
        }
    }

    fn ask(&mut self, now: Duration) {
        self.asked = now;
        if let Some(tls) = self.link.as_mut().and_then(|link| link.tls.as_mut()) {
            // Into its buffer, which has room for far more.
            let _ = tls.writer().write_all(REQUEST);
        }
    }

    fn ended(&mut self, finding: Finding) -> Progress {
        self.drop_link();
        self.deadline = None;
        Progress::Found(finding)
    }

    fn lost(&mut self) -> Progress {
        self.drop_link();
        self.deadline = None;
        Progress::Lost
    }
}

enum Fault {
    Socket(io::Error),
    Words(String),
}

impl Link {
    /// What has to be watched for.
    pub(super) fn wanted(&self) -> EpollFlags {
        match &self.tls {
            None => EpollFlags::EPOLLOUT,
            Some(tls) if tls.wants_write() => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            Some(_) => EpollFlags::EPOLLIN,
        }
    }

    /// Writes and reads what can be. False when the server has ended the connection.
    fn drive(&mut self) -> Result<bool, Fault> {
        let Link { socket, tls: Some(tls), answer, .. } = self else { return Ok(true) };
        for _ in 0..ROUNDS {
            while tls.wants_write() {
                match tls.write_tls(socket) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(Fault::Socket(error)),
                }
            }
            match tls.read_tls(socket) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(Fault::Socket(error)),
            }
            if let Err(error) = tls.process_new_packets() {
                // The server may learn why, if that can still be sent.
                let _ = tls.write_tls(socket);
                return Err(Fault::Words(format!("TLS with it fails: {error}")));
            }
            let mut room = [0; 1024];
            while let Ok(count @ 1..) = tls.reader().read(&mut room) {
                if answer.len() + count > LONGEST {
                    return Err(Fault::Words("it answers without an end".to_owned()));
                }
                answer.extend_from_slice(&room[..count]);
            }
        }
        Ok(true)
    }
}

fn session(trust: Option<&Arc<ClientConfig>>) -> Result<ClientConnection, String> {
    let trust = trust.ok_or("the cluster's certificate authority can't be read on this machine")?;
    let name = ServerName::try_from(NAME).map_err(|error| error.to_string())?;
    ClientConnection::new(Arc::clone(trust), name).map_err(|error| error.to_string())
}

/// What an error of a socket says of the server.
fn broken(error: &io::Error) -> Finding {
    let why = error.to_string();
    match error.kind() {
        ErrorKind::TimedOut
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::AddrNotAvailable
        | ErrorKind::ConnectionRefused => Finding::Unreachable { why },
        _ => Finding::Unwell { why },
    }
}
