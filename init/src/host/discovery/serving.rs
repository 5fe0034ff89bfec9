//! A control plane's thread: answers who looks for the cluster, and looks for another one of the same seed. What goes
//! wrong in it, a panic too, begins it anew and ends nothing else.

use std::net::UdpSocket;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Asking, Place, Watched, drain};
use crate::discovery::{Answer, Answering, Found, Key, News, Watch};
use crate::enrolment::{self, objects};
use crate::host::node::ThisNode;
use crate::host::{clock, random, systemd, wait};
use crate::paths;
use crate::token::fingerprint;

/// How long answers to the watch's query are waited for.
const ANSWERS: Duration = Duration::from_secs(1);
/// Sockets are made anew after this: an interface that went and came back has left the groups, and a switch that listens to
/// IGMP and MLD forgets a member of which it has heard nothing for 260 s (RFC 9776 §8.4), where no router asks.
const ANEW: Duration = Duration::from_secs(120);
/// Pause after a go that took as much as it may: noise never takes the processor from the node.
const BREATH: Duration = Duration::from_millis(10);
/// Pauses before it begins anew: from this…
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// …doubled up to this.
const AGAIN_LAST: Duration = Duration::from_secs(30);
/// The thread's stack.
const STACK: usize = 256 << 10;

/// What the thread says.
pub type Say = Box<dyn Fn(&News) + Send>;

/// What is served, and what was heard.
struct Serving {
    answering: Answering,
    watch: Watch,
    /// The founding key's.
    key: Key,
    /// When the next query is sent.
    due: Duration,
    say: Say,
}

/// The agent's view of it.
#[derive(Clone, Default)]
pub struct Warning(Arc<Mutex<Option<String>>>);

impl Warning {
    /// Another cluster of the same seed, in words, while there is one.
    pub fn text(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, text: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

/// Starts the thread of this control plane; it runs as long as the process.
///
/// # Errors
/// In words: the cluster's id is damaged, or there is no thread.
pub fn start(this: &ThisNode) -> Result<Warning, String> {
    let id = objects::unhex(&this.cluster.id);
    let id = id.ok_or_else(|| format!("{} is damaged: its id is none", paths::CLUSTER))?;
    let address = this.node.address;
    let me = Answer { cluster: id, address: (address, enrolment::PORT).into() };
    let (founding, identity) = (this.cluster.founding(), this.cluster.identity());
    let warning = Warning::default();
    let told = warning.clone();
    let say = move |news: &News| match news {
        News::Two(text) => {
            // Standard error is the journal and the console.
            eprintln!("kubeboot: {text}");
            systemd::status(text);
            told.set(Some(text.clone()));
        }
        News::Gone(text) => {
            eprintln!("kubeboot: {text}");
            told.set(None);
        }
        News::Unanswered(text) => println!("discovery: {text}"),
    };
    let mut serving = Serving {
        answering: Answering::new(me, &founding, &identity),
        watch: Watch::new(id, this.cluster.founded),
        key: Key::of(&fingerprint(&founding)),
        due: Duration::ZERO,
        say: Box::new(say),
    };
    let thread = std::thread::Builder::new().name("discovery".to_owned()).stack_size(STACK);
    let started = thread.spawn(move || supervise(|| serving.run(&Place::of(address)?, clock::monotonic() + ANEW)));
    started.map_err(|error| format!("start a thread for discovery: {error}"))?;
    Ok(warning)
}

/// Runs it again and again, and after what may pass by itself with a pause.
fn supervise(mut run: impl FnMut() -> Result<(), String>) {
    let mut backoff = wait::Backoff::new(AGAIN_FIRST, AGAIN_LAST);
    let mut said = String::new();
    loop {
        let why = match catch_unwind(AssertUnwindSafe(&mut run)) {
            Ok(Ok(())) => {
                backoff.reset();
                continue;
            }
            Ok(Err(why)) => why,
            // The panic has said on standard error where it was.
            Err(_) => "a fault of kubeboot's own".to_owned(),
        };
        // What lasts is said once.
        if why != said {
            println!("this control plane can't be found on the local network: {why}");
        }
        said = why;
        backoff.pause();
    }
}

impl Serving {
    /// Answers and asks until `end`.
    fn run(&mut self, place: &Place, end: Duration) -> Result<(), String> {
        let (ears, mut asking) = (place.ears()?, Asking::open(place)?);
        let watching = |error: std::io::Error| format!("watch discovery's sockets: {error}");
        let mouths = asking.sockets.iter().map(|(socket, _)| socket);
        let watched = Watched::new(ears.iter().chain(mouths)).map_err(watching)?;
        // Until when answers are waited for, and who has answered.
        let mut heard: Option<(Duration, Found)> = None;
        loop {
            let now = clock::monotonic();
            match heard.take_if(|(until, _)| now >= *until) {
                Some((_, found)) => self.conclude(now, found),
                None if heard.is_none() && now >= end => return Ok(()),
                None if heard.is_none() && now >= self.due => {
                    // One that can't be sent is like one that is lost.
                    let _ = asking.ask(&self.key);
                    heard = Some((now + ANSWERS, Found::default()));
                }
                None => {}
            }
            let next = heard.as_ref().map_or(self.due.min(end), |(until, _)| *until);
            watched.wait(next.saturating_sub(clock::monotonic())).map_err(watching)?;
            let mut more = ears.iter().fold(false, |more, ear| self.answer(ear) | more);
            more |= asking.hear(|answer| {
                if let Some((_, found)) = heard.as_mut().filter(|_| self.watch.concerns(&answer.cluster)) {
                    found.add(answer);
                }
            });
            if let Some(text) = self.answering.complaint(clock::monotonic()) {
                (self.say)(&News::Unanswered(text));
            }
            if more {
                wait::pause_for(BREATH);
            }
        }
    }

    fn conclude(&mut self, now: Duration, found: Found) {
        if let Some(news) = self.watch.heard(now, found) {
            (self.say)(&news);
        }
        let [jitter] = random::bytes();
        self.due = now + self.watch.pause(clock::unix(), jitter);
    }

    /// Answers what has come to one socket. True when there may be more.
    fn answer(&mut self, ear: &UdpSocket) -> bool {
        drain(ear, |from, message| {
            let answer = self.answering.answer(clock::monotonic(), from.ip(), message, &random::bytes());
            if let Some(answer) = answer {
                // One that does not get away is like one that is lost.
                let _ = ear.send_to(&answer, from);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::discovery::Query;
    use crate::host::discovery::look_at;
    use crate::host::discovery::tests::{free_place, multicast_places};

    const FOUNDING: [u8; 32] = [7; 32];

    fn serving(cluster: u8, say: Say) -> Serving {
        let me = Answer { cluster: [cluster; 16], address: ([192, 0, 2, cluster], enrolment::PORT).into() };
        Serving {
            answering: Answering::new(me, &FOUNDING, &[cluster; 32]),
            watch: Watch::new([cluster; 16], clock::unix()),
            key: Key::of(&fingerprint(&FOUNDING)),
            due: Duration::ZERO,
            say,
        }
    }

    /// A control plane that is there while `work` is done.
    fn beside<T>(mut serving: Serving, place: &Place, work: impl FnOnce() -> T) -> T {
        let end = clock::monotonic() + Duration::from_secs(3);
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || serving.run(place, end));
            let result = work();
            thread.join().expect("no panic").expect("sockets");
            result
        })
    }

    fn look(place: &Place, public: &[u8; 32]) -> Found {
        look_at(place, &Key::of(&fingerprint(public)), Duration::from_secs(1)).expect("multicast")
    }

    #[test]
    fn who_has_a_fingerprint_finds_the_control_plane_and_nobody_else_does() {
        for place in multicast_places() {
            let [founding, identity, stranger] = beside(serving(1, Box::new(|_| {})), &place, || {
                [FOUNDING, [1; 32], [66; 32]].map(|public| look(&place, &public).hosts())
            });
            assert_eq!(founding.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1:7440"], "{place:?}");
            assert_eq!((identity.len(), stranger.len()), (1, 0));
        }
    }

    #[test]
    fn another_cluster_of_the_seed_is_said_and_the_own_one_is_not() {
        let (sender, news) = std::sync::mpsc::channel();
        let place = free_place();
        let mut watching = serving(1, Box::new(move |news| sender.send(news.clone()).expect("the test listens")));
        let heard = |watching: &mut Serving, cluster: u8| {
            let mut found = beside(serving(cluster, Box::new(|_| {})), &place, || look(&place, &FOUNDING));
            found.retain(|id| watching.watch.concerns(id));
            watching.conclude(clock::monotonic(), found);
        };
        heard(&mut watching, 1);
        assert!(news.try_recv().is_err());
        heard(&mut watching, 2);
        assert!(matches!(news.try_recv(), Ok(News::Two(text)) if text.contains("192.0.2.2:7440")));
        let pause = watching.due.saturating_sub(clock::monotonic());
        assert!(pause <= Duration::from_secs(38), "{pause:?}");
    }

    #[test]
    fn an_answer_from_another_port_is_not_believed() {
        let place = free_place();
        let (own, group) = place.ipv4.expect("an IPv4 place");
        let mut asking = Asking::open(&place).expect("a socket");
        let ear = UdpSocket::bind(group).expect("a free port");
        asking.ask(&Key::of(&fingerprint(&FOUNDING))).expect("sent");
        let mut buffer = [0; 512];
        let (length, from) = ear.recv_from(&mut buffer).expect("the query");
        let answer = || {
            let mut answering = serving(1, Box::new(|_| {})).answering;
            answering.answer(Duration::ZERO, from.ip(), &buffer[..length], &random::bytes()).expect("an answer")
        };
        let elsewhere = UdpSocket::bind((own, 0)).expect("a port");
        elsewhere.send_to(&answer(), from).expect("sent");
        let watched = Watched::new(asking.sockets.iter().map(|(socket, _)| socket)).expect("epoll");
        assert_eq!(watched.wait(Duration::from_secs(5)).expect("epoll"), [0]);
        asking.hear(|answer| panic!("believed {answer:?}"));
        ear.send_to(&answer(), from).expect("sent");
        assert_eq!(watched.wait(Duration::from_secs(5)).expect("epoll"), [0]);
        let mut found = Found::default();
        asking.hear(|answer| found.add(answer));
        assert_eq!(found.clusters(), [[1; 16]]);
    }

    #[test]
    fn a_query_that_was_recorded_gets_no_second_answer_and_the_log_says_so() {
        let (sender, news) = std::sync::mpsc::channel();
        let place = free_place();
        let (own, group) = place.ipv4.expect("an IPv4 place");
        let say = Box::new(move |news: &News| sender.send(news.clone()).expect("the test listens"));
        let mut serving = serving(1, say);
        // It serves for as long as it is asked; nobody waits for its end.
        std::thread::spawn(move || serving.run(&place, clock::monotonic() + Duration::from_secs(60)));
        let query = Query::new(&Key::of(&fingerprint(&FOUNDING)), random::bytes());
        let [asks, replays] = [(); 2].map(|()| {
            let socket = UdpSocket::bind((own, 0)).expect("a port");
            socket.connect(group).expect("an address");
            socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
            socket
        });
        let mut buffer = [0; 512];
        // Until it listens there is an ICMP error for an answer.
        let answered = wait::until("an answer", Duration::from_secs(20), Duration::from_millis(5), || {
            match asks.send(&query.message()).and_then(|_| asks.recv(&mut buffer)) {
                Ok(length) => Ok(length),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Err("nobody listens".to_owned()),
                Err(error) => panic!("{error}"),
            }
        });
        let length = answered.unwrap_or_else(|late| panic!("{late}"));
        assert!(query.open(&buffer[..length]).is_some());
        replays.send(&query.message()).expect("sent");
        let told = news.recv_timeout(Duration::from_secs(20)).expect("a line of the log");
        assert!(matches!(&told, News::Unanswered(text) if text.contains("1 that were recorded and sent again")));
        replays.set_nonblocking(true).expect("a socket");
        assert!(replays.recv(&mut buffer).is_err(), "a query that was sent again was answered");
    }

    #[test]
    fn a_fault_begins_it_anew_and_ends_nothing_else() {
        let (sender, runs) = std::sync::mpsc::channel();
        let mut count = 0;
        std::thread::spawn(move || {
            supervise(|| {
                count += 1;
                // The receiver is gone when the test has seen enough.
                let _ = sender.send(count);
                assert!(count > 1, "a fault that the test makes");
                Err("it can't be done".to_owned())
            });
        });
        for expected in [1, 2] {
            assert_eq!(runs.recv_timeout(Duration::from_secs(30)), Ok(expected));
        }
    }
}
