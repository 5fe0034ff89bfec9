//! The balancer's shell: one thread, one epoll(7), no runtime. It passes TCP on and ends no TLS; what goes where, the
//! room `balancer` decides.

mod check;
mod files;
mod pipe;
pub(super) mod sockets;
mod table;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{getsockopt, sockopt};
use rustls::ClientConfig;

use self::check::{Check, Patience, Progress};
use self::files::Watched;
use self::pipe::{Pipe, Side};
use self::table::{Key, Table, Token};
use super::{clock, random, systemd};
use crate::balancer::{Action, Balancer, Times, View};
use crate::plan::record::Endpoints;

/// Most connections that are taken in one go.
const BURST: usize = 64;
/// Bytes that are moved at once; the one buffer that there is.
const BUFFER: usize = 64 << 10;
/// Most events that are taken in one go.
const EVENTS: usize = 64;
/// How long the kernel is left to find out whether a machine is gone that it asks: it has asked in vain already, and gives up
/// within 3 s of the last packet.
const SILENCE: Duration = Duration::from_secs(2);
/// How often systemd's watchdog is fed.
const ALIVE: Duration = Duration::from_secs(10);

/// The files that the balancer reads and writes.
#[derive(Debug, Clone)]
pub struct Files {
    /// The API servers.
    pub endpoints: PathBuf,
    /// The cluster's certificate authority, PEM.
    pub authority: PathBuf,
    /// What it thinks, written when it changes.
    pub view: PathBuf,
}

/// How long the shell waits for what.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Most connections at once. More wait in the socket's backlog.
    pub most: usize,
    /// How often the files are looked at.
    pub look: Duration,
    /// How long a server has to take a client's connection before the next is tried. The last has three times as long.
    pub dial: Duration,
    /// How long it has to take a check's connection.
    pub connect: Duration,
    /// How long it has to answer a check.
    pub answer: Duration,
    /// The times of the decisions.
    pub times: Times,
}

impl Pace {
    /// That of a machine. A machine that is gone, the kernel notices within 3 s of the last packet, unless a check has just
    /// asked: then that and a new connection have [`connect`](Pace::connect) each.
    pub const REAL: Pace = Pace {
        most: 4096,
        look: Duration::from_secs(1),
        dial: Duration::from_secs(1),
        connect: Duration::from_millis(1500),
        answer: Duration::from_millis(3500),
        times: Times::REAL,
    };
}

/// The listening socket that systemd has put in the place of the standard input.
///
/// # Errors
/// There is none: the command was not started by its unit.
pub fn listener() -> io::Result<TcpListener> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    match getsockopt(&socket, sockopt::AcceptConn) {
        Ok(true) => Ok(TcpListener::from(socket)),
        _ => Err(io::Error::new(
            ErrorKind::InvalidInput,
            "expected a listening socket as the standard input, found something else. Fix: let systemd start \
             kubeboot-balancer.service",
        )),
    }
}

/// The balancer and everything that it holds open.
pub struct Shell {
    epoll: Epoll,
    listener: TcpListener,
    listening: bool,
    pace: Pace,
    mind: Balancer,
    table: Table,
    /// Connections being made, oldest first: until when, and after how many in vain.
    dials: VecDeque<(Duration, Key, usize)>,
    checks: BTreeMap<u32, Check>,
    next_check: u32,
    buffer: Box<[u8]>,
    endpoints: Watched,
    authority: Watched,
    trust: Option<Arc<ClientConfig>>,
    next_look: Duration,
    next_alive: Duration,
    view: PathBuf,
    told: Option<View>,
}

impl Shell {
    /// A balancer behind a listening socket.
    ///
    /// # Errors
    /// The kernel has no epoll left for it.
    pub fn new(listener: TcpListener, files: Files, pace: Pace) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let salt = u64::from_be_bytes(random::bytes());
        let mut shell = Shell {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            listener,
            listening: false,
            pace,
            mind: Balancer::new(pace.times, salt),
            table: Table::default(),
            dials: VecDeque::new(),
            checks: BTreeMap::new(),
            next_check: 0,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            endpoints: Watched::new(files.endpoints),
            authority: Watched::new(files.authority),
            trust: None,
            next_look: Duration::ZERO,
            next_alive: Duration::ZERO,
            view: files.view,
            told: None,
        };
        // The servers are known before the first connection is taken.
        let now = clock::monotonic();
        shell.look(now);
        shell.obey(now);
        shell.listen(true)?;
        Ok(shell)
    }

    /// Waits for something to do, `longest` at most, and does it.
    ///
    /// # Errors
    /// epoll's own, none of which a connection can cause.
    pub fn turn(&mut self, longest: Duration) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, self.timeout(longest)) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let now = clock::monotonic();
        for event in &events[..count] {
            match Token::of(event.data()) {
                Token::Listener => self.accept(now),
                Token::Check(id) => self.check_event(now, id, event.events()),
                Token::Pipe(key, side) => self.pipe_event(now, key, side, event.events()),
            }
        }
        self.expire(now);
        self.look(now);
        self.obey(now);
        Ok(())
    }

    fn timeout(&self, longest: Duration) -> EpollTimeout {
        let now = clock::monotonic();
        let checks = self.checks.values().filter_map(|check| check.deadline);
        let dials = self.dials.front().map(|(until, ..)| *until);
        let next = checks.chain(dials).chain(self.mind.wake(now)).chain([self.next_look]).min();
        let wait = next.map_or(longest, |next| next.saturating_sub(now).min(longest));
        // Rounded up: else it would wake a moment too early, several times.
        let milliseconds = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        EpollTimeout::from(milliseconds)
    }

    fn listen(&mut self, wanted: bool) -> io::Result<()> {
        if wanted && !self.listening {
            self.epoll.add(&self.listener, EpollEvent::new(EpollFlags::EPOLLIN, Token::Listener.number()))?;
        } else if !wanted && self.listening {
            self.epoll.delete(&self.listener)?;
        }
        self.listening = wanted;
        Ok(())
    }

    fn accept(&mut self, now: Duration) {
        for _ in 0..BURST {
            let failed = match self.listener.accept() {
                Ok((client, _)) => {
                    self.admit(now, client);
                    if self.table.len() < self.pace.most {
                        continue;
                    }
                    format!("{} connections are open, which is the most: further ones wait", self.pace.most)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => continue,
                Err(error) => format!("can't take a connection: {error}; further ones wait"),
            };
            // The next look, or the end of a connection, goes on.
            println!("{failed}");
            if let Err(error) = self.listen(false) {
                println!("can't pause the listening socket: {error}");
            }
            return;
        }
    }

    fn admit(&mut self, now: Duration, client: TcpStream) {
        // Without a server there is nothing to say to the client but its end.
        let Some(address) = self.mind.pick(&[]) else { return };
        if client.set_nonblocking(true).is_ok() && client.set_nodelay(true).is_ok() {
            let key = self.table.insert(Pipe::new(client, address));
            self.dial(now, key);
        }
    }

    /// Connects to the best server that was not tried; breaks the connection off when all were.
    fn dial(&mut self, now: Duration, key: Key) {
        loop {
            let Some(pipe) = self.table.get(key) else { return };
            let Some(address) = self.mind.pick(&pipe.tried) else { return self.close(key, true) };
            let begun = sockets::connect(address, sockets::CLIENT);
            pipe.address = address;
            let Ok(socket) = begun else {
                pipe.tried.push(address);
                self.doubt(now, address);
                continue;
            };
            pipe.server = Some(socket);
            self.mind.opened(address);
            let is_last = self.mind.pick(&[pipe.tried.as_slice(), &[address]].concat()).is_none();
            let patience = if is_last { self.pace.dial * 3 } else { self.pace.dial };
            let until = now + patience;
            let tried = pipe.tried.len();
            // Nearly always at the end; the queue stays in order.
            let at = self.dials.partition_point(|(before, ..)| *before <= until);
            self.dials.insert(at, (until, key, tried));
            return self.rewatch(key);
        }
    }

    /// The server that is being tried does not answer: the next.
    fn dial_failed(&mut self, now: Duration, key: Key) {
        let Some(pipe) = self.table.get(key) else { return };
        let address = pipe.address;
        pipe.tried.push(address);
        pipe.server = None;
        pipe.watched[1] = EpollFlags::empty();
        self.mind.closed(address);
        self.doubt(now, address);
        self.dial(now, key);
    }

    fn pipe_event(&mut self, now: Duration, key: Key, side: Side, events: EpollFlags) {
        let Some(pipe) = self.table.get(key) else { return };
        if !pipe.open {
            let server = pipe.server.as_ref();
            return match server.map(|server| server.take_error().unwrap_or_else(Some)) {
                Some(None) if events.contains(EpollFlags::EPOLLOUT) => {
                    pipe.open = true;
                    pipe.tried = Vec::new();
                    self.rewatch(key);
                }
                Some(None) | None => {}
                Some(Some(_)) => self.dial_failed(now, key),
            };
        }
        match pipe.pump(side, events, &mut self.buffer) {
            Ok(true) => self.rewatch(key),
            Ok(false) => self.close(key, false),
            Err(_) => self.close(key, true),
        }
    }

    /// Has epoll watch for what the connection needs now.
    fn rewatch(&mut self, key: Key) {
        let Some(pipe) = self.table.get(key) else { return };
        let [client, server] = pipe.wanted();
        let [was_client, was_server] = &mut pipe.watched;
        let mut done = watch(&self.epoll, &pipe.client, Token::Pipe(key, Side::Client), was_client, client);
        if let Some(socket) = &pipe.server {
            let token = Token::Pipe(key, Side::Server);
            done = done.and_then(|()| watch(&self.epoll, socket, token, was_server, server));
        }
        if let Err(error) = done {
            println!("can't watch a connection: {error}; it is closed");
            self.close(key, true);
        }
    }

    fn close(&mut self, key: Key, broken: bool) {
        let Some(pipe) = self.table.remove(key) else { return };
        if broken {
            pipe.break_off();
        }
        if pipe.server.is_some() {
            self.mind.closed(pipe.address);
        }
        drop(pipe);
        self.listen_again();
    }

    fn listen_again(&mut self) {
        if !self.listening
            && self.table.len() < self.pace.most
            && let Err(error) = self.listen(true)
        {
            println!("can't listen again: {error}");
        }
    }

    /// Ends what has taken too long.
    fn expire(&mut self, now: Duration) {
        while let Some((until, key, tried)) = self.dials.front().copied().filter(|(until, ..)| *until <= now) {
            debug_assert!(until <= now);
            self.dials.pop_front();
            if self.table.get(key).is_some_and(|pipe| !pipe.open && pipe.tried.len() == tried) {
                self.dial_failed(now, key);
            }
        }
        let (patience, trust) = (self.patience(), self.trust.as_ref());
        let late = self.checks.iter_mut().filter(|(_, check)| check.deadline.is_some_and(|deadline| deadline <= now));
        let ended: Vec<(u32, Progress)> = late.map(|(id, check)| (*id, check.late(now, trust, patience))).collect();
        for (id, progress) in ended {
            self.progressed(now, id, progress);
        }
    }

    /// A connection to a server could not be made: whether its machine is there, only a new connection says.
    fn doubt(&mut self, now: Duration, address: SocketAddr) {
        self.mind.doubt(now, address);
        if let Some((id, check)) = self.checks.iter_mut().find(|(_, check)| check.address == address) {
            let (id, progress) = (*id, check.renew());
            self.progressed(now, id, progress);
        }
    }

    fn check_event(&mut self, now: Duration, id: u32, events: EpollFlags) {
        let patience = self.patience();
        let Some(check) = self.checks.get_mut(&id) else { return };
        let progress = check.event(now, events, self.trust.as_ref(), patience);
        self.progressed(now, id, progress);
    }

    fn progressed(&mut self, now: Duration, id: u32, progress: Progress) {
        let Some(check) = self.checks.get_mut(&id) else { return };
        let address = check.address;
        match progress {
            Progress::Waiting => {}
            Progress::Lost => self.mind.lost(now, address),
            Progress::Found(finding) => self.mind.found(now, address, finding),
        }
        let Some(link) = &mut check.link else { return };
        let wanted = link.wanted();
        if let Err(error) = watch(&self.epoll, &link.socket, Token::Check(id), &mut link.watched, wanted) {
            println!("can't watch a check: {error}");
            check.drop_link();
        }
    }

    fn patience(&self) -> Patience {
        Patience { connect: self.pace.connect, answer: self.pace.answer, silence: SILENCE }
    }

    /// Looks at the files, when it is time to, and at what else only time changes.
    fn look(&mut self, now: Duration) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + self.pace.look;
        match self.authority.changed() {
            None => {}
            Some(contents) => {
                let trust = contents.map_err(|error| error.to_string()).and_then(|contents| check::trust(&contents));
                self.trust = trust.inspect_err(|why| println!("no API server can be checked: {why}")).ok();
                for check in self.checks.values_mut().filter(|check| !check.is_busy()) {
                    check.drop_link();
                }
            }
        }
        match self.endpoints.changed() {
            None => {}
            Some(contents) => {
                match contents.map_err(|error| error.to_string()).and_then(|contents| Endpoints::parse(&contents)) {
                    Ok(list) => self.mind.listed(now, &list.servers),
                    Err(why) => println!("the list of API servers can't be read: {why}; what was known before holds"),
                }
            }
        }
        if now >= self.next_alive {
            self.next_alive = now + ALIVE;
            systemd::alive();
        }
        self.listen_again();
        self.tell();
    }

    /// Does what was decided, and what comes of that.
    fn obey(&mut self, now: Duration) {
        for _ in 0..4 {
            let actions = self.mind.act(now);
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Say(line) => println!("{line}"),
                    Action::Check(address) => self.check(now, address),
                    Action::Cut(address) => self.cut(now, address),
                    Action::Forget(address) => self.checks.retain(|_, check| check.address != address),
                }
            }
            self.tell();
        }
    }

    fn check(&mut self, now: Duration, address: SocketAddr) {
        let known = self.checks.iter().find(|(_, check)| check.address == address).map(|(id, _)| *id);
        let id = known.unwrap_or_else(|| {
            self.next_check = self.next_check.wrapping_add(1);
            self.checks.insert(self.next_check, Check::new(address));
            self.next_check
        });
        let patience = self.patience();
        let Some(check) = self.checks.get_mut(&id) else { return };
        let progress = check.begin(now, self.trust.as_ref(), patience);
        self.progressed(now, id, progress);
    }

    fn cut(&mut self, now: Duration, address: SocketAddr) {
        for key in self.table.to(address) {
            match self.table.get(key).is_some_and(|pipe| pipe.open) {
                true => self.close(key, true),
                false => self.dial_failed(now, key),
            }
        }
    }

    /// Writes down what it thinks, when that changed.
    fn tell(&mut self) {
        let view = self.mind.view();
        if self.told.as_ref() == Some(&view) {
            return;
        }
        if let Err(error) = super::files::write_volatile(&self.view, view.text().as_bytes(), 0o644) {
            println!("can't write {}: {error}", self.view.display());
        }
        systemd::status(&view.words());
        self.told = Some(view);
    }
}

/// Changes what epoll watches for on a socket.
fn watch(
    epoll: &Epoll,
    socket: &TcpStream,
    token: Token,
    watched: &mut EpollFlags,
    wanted: EpollFlags,
) -> nix::Result<()> {
    match (watched.is_empty(), wanted.is_empty()) {
        (true, true) => {}
        (true, false) => epoll.add(socket, EpollEvent::new(wanted, token.number()))?,
        (false, true) => epoll.delete(socket)?,
        (false, false) if *watched != wanted => epoll.modify(socket, &mut EpollEvent::new(wanted, token.number()))?,
        (false, false) => {}
    }
    *watched = wanted;
    Ok(())
}

#[cfg(test)]
mod tests;
