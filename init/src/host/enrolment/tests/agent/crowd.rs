//! A thousand connections that lead nowhere, from as many addresses, held open while an honest machine joins: who the
//! agent drops comes again.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::network::{self, Sources};
use super::*;

/// Who stands in the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Says nothing.
    Silent,
    /// Begins a TLS handshake, a byte at a time.
    DripsTls,
    /// Is through with TLS and begins a hello, a byte at a time.
    DripsHello,
}

/// How many of each kind there are: of those that are through with TLS more than the agent has places.
const CROWD: [(Kind, usize); 3] = [(Kind::Silent, 500), (Kind::DripsTls, 200), (Kind::DripsHello, 300)];
const ALL: usize = CROWD[0].1 + CROWD[1].1 + CROWD[2].1;
/// Between two bytes.
const DRIP: Duration = Duration::from_millis(50);
/// How long the crowd stays at most.
const STAYS: Duration = Duration::from_secs(500);

struct Stranger {
    kind: Kind,
    socket: TcpStream,
    tls: Option<Connection>,
    said: usize,
}

impl Stranger {
    fn come(kind: Kind, from: Ipv4Addr) -> io::Result<Self> {
        let mut socket = network::dial(from)?;
        let mut tls = None;
        if kind == Kind::DripsHello {
            socket.set_read_timeout(Some(LIMIT))?;
            let mut through: Connection = ClientConnection::new(tls::client().unwrap(), tls::name()).unwrap().into();
            while through.is_handshaking() {
                through.complete_io(&mut socket)?;
            }
            tls = Some(through);
        }
        socket.set_nonblocking(true)?;
        Ok(Stranger { kind, socket, tls, said: 0 })
    }

    /// Says its next byte.
    ///
    /// # Errors
    /// The agent has ended the connection.
    fn go_on(&mut self) -> io::Result<()> {
        // The head of a TLS record, and the length of a hello: more is announced than will come.
        let byte = |head: &[u8], said: usize| head.get(said).copied().unwrap_or_default();
        match (self.kind, &mut self.tls) {
            (Kind::Silent, _) => {}
            (Kind::DripsHello, Some(tls)) => {
                tls.writer().write_all(&[byte(&[0, 0, 0, 53], self.said)])?;
                tls.write_tls(&mut self.socket)?;
            }
            _ => self.socket.write_all(&[byte(&[22, 3, 1, 1, 0], self.said)])?,
        }
        self.said += 1;
        loop {
            match self.socket.read(&mut [0; 256]) {
                Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The crowd, until it is dropped.
pub(super) struct Crowd {
    over: Arc<AtomicBool>,
    /// Connections that were opened, and how many of the crowd have one now.
    opened: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<Sources>>,
}

impl Crowd {
    /// Comes, and stays.
    pub(super) fn gather(sources: Sources) -> Self {
        let (over, opened, open) = <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let shared = (over.clone(), opened.clone(), open.clone());
        let thread = Some(thread::spawn(move || stay(sources, &shared.0, &shared.1, &shared.2)));
        let crowd = Crowd { over, opened, open, thread };
        let gathered = wait::until("the crowd to gather", STAYS, DRIP, || {
            let (opened, _) = crowd.count();
            if opened > ALL { Ok(()) } else { Err(format!("{opened} connections were opened")) }
        });
        gathered.unwrap_or_else(|late| panic!("{late}"));
        crowd
    }

    fn count(&self) -> (usize, usize) {
        (self.opened.load(Ordering::Relaxed), self.open.load(Ordering::Relaxed))
    }

    /// How it stands there. It is a crowd only if it is whole.
    pub(super) fn words(&self) -> String {
        let (opened, open) = self.count();
        // Those that the agent has just dropped are about to come again.
        assert!(open > ALL * 9 / 10, "only {open} of the crowd are there");
        format!("a crowd of {open} is there, which has opened {opened} connections")
    }

    /// Goes, and leaves the addresses that nobody has come from.
    pub(super) fn leave(mut self) -> Sources {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

fn stay(mut sources: Sources, over: &AtomicBool, opened: &AtomicUsize, open: &AtomicUsize) -> Sources {
    let kinds = CROWD.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count));
    let mut places: Vec<(Kind, Option<Stranger>)> = kinds.map(|kind| (kind, None)).collect();
    let stayed = wait::until("the crowd to be sent away", STAYS, DRIP, || {
        for (kind, stranger) in &mut places {
            if over.load(Ordering::Relaxed) {
                return Ok(());
            }
            if stranger.as_mut().is_some_and(|stranger| stranger.go_on().is_err()) {
                *stranger = None;
                open.fetch_sub(1, Ordering::Relaxed);
            }
            if stranger.is_none() {
                *stranger = Stranger::come(*kind, sources.next()).ok();
                opened.fetch_add(1, Ordering::Relaxed);
                open.fetch_add(usize::from(stranger.is_some()), Ordering::Relaxed);
            }
        }
        Err("it stands there".to_owned())
    });
    stayed.unwrap_or_else(|late| panic!("{late}"));
    sources
}
