//! What the kernel says of a machine's silence, and what a health check makes of it. A machine is silent here by a filter
//! on its socket (`SO_ATTACH_FILTER`): its kernel gets nothing any more, so it acknowledges nothing and answers no question.

use nix::{libc, setsockopt_impl, sockopt_impl};

use super::super::check::trust;
use super::*;
use crate::balancer::Finding;

sockopt_impl!(
    /// What a socket gets.
    AttachFilter,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_ATTACH_FILTER,
    libc::sock_fprog
);
sockopt_impl!(
    /// It gets everything again.
    DetachFilter,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_DETACH_FILTER,
    bool
);

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(20),
    answer: Duration::from_secs(21),
    // No other, so that a check's deadline says what it does.
    silence: Duration::from_secs(22),
};

/// The health check of a server that has answered once.
struct Kept {
    check: Check,
    trust: Arc<ClientConfig>,
    server: TcpStream,
    mode: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

impl Kept {
    fn new() -> Self {
        let authority = authority();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut check = Check::new(listener.local_addr().unwrap());
        let trust = trust(authority.1.as_bytes()).unwrap();
        assert_eq!(check.begin(clock::monotonic(), Some(&trust), PATIENCE), Progress::Waiting);
        let server = listener.accept().unwrap().0;
        let (mode, config) = (Arc::new(AtomicU8::new(READY)), authority.server());
        let (served, seen) = (server.try_clone().unwrap(), Arc::clone(&mode));
        let thread = Some(std::thread::spawn(move || super::check(served, &seen, config)));
        let mut kept = Kept { check, trust, server, mode, thread };
        let found = kept.ended();
        assert!(matches!(found, Finding::Ready { .. }), "{found:?}");
        kept
    }

    fn socket(&self) -> &TcpStream {
        &self.check.link.as_ref().expect("the connection was kept").socket
    }

    /// Nothing reaches the server any more.
    fn falls_silent(&self) {
        let mut drop_all = [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
        let program = libc::sock_fprog { len: 1, filter: drop_all.as_mut_ptr() };
        nix::sys::socket::setsockopt(&self.server, AttachFilter, &program).unwrap();
        self.await_silence(true);
    }

    fn is_back(&self) {
        nix::sys::socket::setsockopt(&self.server, DetachFilter, &true).unwrap();
        self.await_silence(false);
    }

    fn await_silence(&self, wanted: bool) {
        await_silence(self.socket(), sockets::UNANSWERED, wanted);
    }

    fn begin(&mut self, now: Duration) -> Progress {
        self.check.begin(now, Some(&self.trust), PATIENCE)
    }

    /// What comes of the check that is under way.
    fn ended(&mut self) -> Finding {
        let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        let found = wait::until("the check's end", 4 * SOON, PACE.look, || {
            match self.check.event(clock::monotonic(), both, Some(&self.trust), PATIENCE) {
                Progress::Found(finding) => Ok(finding),
                other => Err(format!("{other:?}")),
            }
        });
        found.unwrap_or_else(|late| panic!("{late}"))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.mode.store(STOPPED, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn await_silence(socket: &TcpStream, beyond: Duration, wanted: bool) {
    let seen = wait::until(&format!("silence beyond {beyond:?} to be {wanted}"), 4 * SOON, PACE.look, || {
        let silence = sockets::silence(socket);
        if (silence >= beyond) == wanted { Ok(()) } else { Err(format!("{silence:?}")) }
    });
    seen.unwrap_or_else(|late| panic!("{late}"));
}

/// A question would end the kernel's own, and the connection three seconds later.
#[test]
fn nothing_is_asked_of_a_machine_of_which_the_kernel_asks_in_vain() {
    let mut kept = Kept::new();
    kept.falls_silent();
    let now = clock::monotonic();
    assert_eq!(kept.begin(now), Progress::Waiting);
    assert_eq!(kept.check.deadline, Some(now + PATIENCE.silence), "it is left to the kernel");
    let found = kept.ended();
    assert!(matches!(found, Finding::Unreachable { .. }), "the kernel gives it up: {found:?}");
}

#[test]
fn a_machine_that_is_heard_of_again_is_asked_on_the_connection_that_was_kept() {
    let mut kept = Kept::new();
    ask_for_long(kept.socket());
    let own = kept.socket().local_addr().unwrap();
    kept.falls_silent();
    assert_eq!(kept.begin(clock::monotonic()), Progress::Waiting);
    kept.is_back();
    // It may answer at once.
    let found = match kept.check.late(clock::monotonic(), Some(&kept.trust), PATIENCE) {
        Progress::Found(finding) => finding,
        other => {
            assert_eq!(other, Progress::Waiting);
            kept.ended()
        }
    };
    assert!(matches!(found, Finding::Ready { .. }), "{found:?}");
    assert_eq!(kept.socket().local_addr().unwrap(), own);
}

#[test]
fn a_machine_that_stays_silent_is_asked_on_a_new_connection() {
    let mut kept = Kept::new();
    ask_for_long(kept.socket());
    kept.falls_silent();
    assert_eq!(kept.begin(clock::monotonic()), Progress::Waiting);
    assert_eq!(kept.check.late(clock::monotonic(), Some(&kept.trust), PATIENCE), Progress::Lost);
    assert!(kept.check.link.is_none() && !kept.check.is_busy());
}

/// The kernel goes on asking, however long this test is kept waiting.
fn ask_for_long(socket: &TcpStream) {
    nix::sys::socket::setsockopt(socket, sockopt::TcpUserTimeout, &60_000).unwrap();
}

/// On an idle connection the kernel asks, and the answers count.
#[test]
fn a_machine_that_answers_the_kernels_questions_is_not_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = sockets::connect(listener.local_addr().unwrap(), sockets::CHECK).unwrap();
    let _other = listener.accept().unwrap();
    // Once more than nothing: it is asked after a second, and again.
    for wanted in [false, true, false, true, false] {
        await_silence(&socket, sockets::UNANSWERED / 2, wanted);
    }
}
