//! Who is in the mesh, and nodes that are removed, asked for over the network.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::enrolment::decision::NodeRecord;
use crate::exit::Exit;
use crate::host::files;
use crate::host::node_removal::{Removing, Untaken};
use crate::host::operators::output::{Lines, Sink};
use crate::node_removal::{self, Progress, Step};
use crate::token::Joiner;

/// What becomes of a node whose pods move until it is said that they have.
#[derive(Default)]
struct Pods {
    moved: AtomicBool,
    looks: AtomicUsize,
    taken: Mutex<Vec<Step>>,
    broken: Mutex<Option<Step>>,
}

struct Node {
    found: node_removal::Found,
    pods: Arc<Pods>,
}

impl Removing for Node {
    fn found(&self) -> &node_removal::Found {
        &self.found
    }

    fn take(&self, step: &Step, limit: Duration, goes_on: &mut dyn FnMut() -> Result<(), Halt>) -> Result<(), Untaken> {
        if self.pods.broken.lock().unwrap().as_ref() == Some(step) {
            return Err(Untaken::Failed("no API server answers".to_owned()));
        }
        let mut halted = Ok(());
        if *step == Step::Drain {
            let moved = wait::until("the pods", limit, Duration::from_millis(2), || {
                self.pods.looks.fetch_add(1, Ordering::AcqRel);
                halted = goes_on();
                (self.pods.moved.load(Ordering::Acquire) || halted.is_err()).then_some(()).ok_or_else(String::new)
            });
            moved.map_err(|late| late.to_string())?;
        }
        halted.map_err(Untaken::Halted)?;
        self.pods.taken.lock().unwrap().push(step.clone());
        Ok(())
    }
}

/// A cluster of `one`, which is asked, and the worker `w-7`.
fn cluster() -> (World, Arc<Pods>) {
    let pods = Arc::new(Pods::default());
    let of_nodes = pods.clone();
    let look = move |name: &str| {
        let record = |role| NodeRecord { name: name.to_owned(), role, key: [2; 32], address: [10, 0, 0, 12].into() };
        let mut found = node_removal::Found {
            name: name.to_owned(),
            own: name == "one",
            node: None,
            record: None,
            member: None,
            quorum: Ok(()),
        };
        if name == "w-7" || name == "one" {
            (found.node, found.record) = (Some(true), Some(record(Joiner::Worker)));
        }
        Ok(Box::new(Node { found, pods: of_nodes.clone() }) as Box<dyn Removing>)
    };
    (World::whose_nodes(programs(), Box::new(look)), pods)
}

fn remove(name: &str, drain: Option<u64>) -> Request {
    Request::NodeRemove { name: name.to_owned(), drain }
}

fn progress(text: &str) -> Vec<Progress> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until something is so.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = wait::until(what, LIMIT, Duration::from_millis(2), || is_so().then_some(()).ok_or_else(String::new));
    waited.unwrap_or_else(|late| panic!("{late}"));
}

#[test]
fn each_step_is_told_as_it_is_taken_and_pods_that_move_keep_the_connection() {
    let (world, pods) = cluster();
    let lines = Mutex::new(Vec::new());
    let signs = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let each = |line: &str| {
                lines.lock().unwrap().extend(progress(line));
                Ok(())
            };
            let mut sink = Counted { lines: Lines::new(each), signs: &signs };
            world.open(ADA).ask(&remove("w-7", Some(300)), &mut sink)
        });
        // What was done is told while pods still move, and so is that they do.
        let before = [Progress::Taken(Step::Cordon), Progress::Begins(Step::Drain)];
        until("the first lines", || *lines.lock().unwrap() == before);
        until("three signs of life", || signs.load(Ordering::Acquire) >= 3);
        pods.moved.store(true, Ordering::Release);
        assert_eq!(asks.join().unwrap().unwrap(), 0);
    });
    let steps = [Step::Cordon, Step::Drain, Step::Bar, Step::Unregister, Step::Forget];
    assert_eq!(*pods.taken.lock().unwrap(), steps);
    assert_eq!(lines.lock().unwrap()[2..], steps[1..].iter().cloned().map(Progress::Taken).collect::<Vec<_>>());
    let line = world.logged(": node remove w-7: done");
    assert!(line.contains(&crate::enrolment::ssh::fingerprint(&wire(ADA))), "{line}");
}

/// Lines, and how often it was said that the work goes on.
struct Counted<'a, F> {
    lines: Lines<F>,
    signs: &'a AtomicUsize,
}

impl<F: FnMut(&str) -> std::io::Result<()>> Sink for Counted<'_, F> {
    fn part(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        self.lines.part(bytes)
    }

    fn goes_on(&mut self) -> Result<(), Halt> {
        self.signs.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

#[test]
fn a_removal_whose_asker_goes_away_while_pods_move_stops_there() {
    let (world, pods) = cluster();
    // Whoever takes no more lines is gone.
    let mut gone = Lines::new(|line| match line.contains("begins") {
        true => Err(std::io::ErrorKind::BrokenPipe.into()),
        false => Ok(()),
    });
    let ended = world.open(ADA).ask(&remove("w-7", Some(300)), &mut gone);
    assert!(matches!(ended, Err(Halt::Gone)), "{ended:?}");
    world.logged("node remove w-7: ended: nobody waits for it any more");
    assert!(pods.looks.load(Ordering::Acquire) > 0);
    assert_eq!(*pods.taken.lock().unwrap(), [Step::Cordon]);
    // Asked again, it goes on.
    pods.moved.store(true, Ordering::Release);
    assert!(world.ask(ADA, &remove("w-7", Some(300))).is_ok());
    assert_eq!(pods.taken.lock().unwrap().last(), Some(&Step::Forget));
}

#[test]
fn a_removal_that_has_barred_the_node_goes_to_its_end_without_its_asker() {
    let (world, pods) = cluster();
    let mut gone = Lines::new(|line| match line.contains("bar") {
        true => Err(std::io::ErrorKind::BrokenPipe.into()),
        false => Ok(()),
    });
    let ended = world.open(ADA).ask(&remove("w-7", None), &mut gone);
    assert!(matches!(ended, Err(Halt::Gone)), "{ended:?}");
    world.logged("node remove w-7 without drain: done");
    assert_eq!(*pods.taken.lock().unwrap(), [Step::Cordon, Step::Bar, Step::Unregister, Step::Forget]);
}

#[test]
fn what_may_not_be_removed_is_refused_in_the_words_of_the_local_command() {
    let (world, pods) = cluster();
    let trouble = world.ask(ADA, &remove("one", None)).unwrap_err();
    assert_eq!((trouble.exit, trouble.state.as_str()), (Exit::Refused.code(), "Nothing was changed."));
    assert_eq!(trouble.why, ["it is this very machine, which could not finish what it began"]);
    assert!(world.ask(ADA, &remove("w-8", None)).unwrap_err().why[0].contains("knows no node of that name"));
    assert_eq!(world.ask(BOB, &remove("w-7", None)).unwrap_err().exit, Exit::Refused.code(), "who is no operator");
    assert_eq!(*pods.taken.lock().unwrap(), []);
    // Half way, it says how far it came.
    *pods.broken.lock().unwrap() = Some(Step::Unregister);
    let trouble = world.ask(ADA, &remove("w-7", None)).unwrap_err();
    assert_eq!((trouble.exit, trouble.what.as_str()), (1, "The node w-7 was not removed"));
    assert!(trouble.state.starts_with("So far: no pod is sent there any more; "), "{trouble:?}");
    assert!(trouble.fix[0].contains("it goes on from there"));
    world.logged("node remove w-7 without drain: not done");
}

#[test]
fn an_operator_who_is_removed_while_pods_move_stops_it() {
    let (world, pods) = cluster();
    world.add(BOB, "bob");
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| world.ask(BOB, &remove("w-7", Some(300))));
        until("pods to move", || pods.looks.load(Ordering::Acquire) > 0);
        let removed = Request::OperatorRemove { key: public_line(BOB, ""), last: false };
        let _: Value = world.value(ADA, &removed);
        let trouble = asks.join().unwrap().unwrap_err();
        assert_eq!((trouble.exit, trouble.state.as_str()), (7, "So far: no pod is sent there any more."));
    });
    assert_eq!(*pods.taken.lock().unwrap(), [Step::Cordon]);
}

#[test]
fn members_are_what_the_agent_s_socket_says() {
    let world = World::new();
    let trouble = world.ask(ADA, &Request::Members {}).unwrap_err();
    assert_eq!(trouble.exit, Exit::Failure.code(), "no agent runs in this test: {trouble:?}");
    let view = json!({
        "node": "one", "key-epoch": 3, "records": 0, "silent": null, "members": [{
            "name": "one", "role": "control-plane", "address": "10.0.0.11:7440", "node-key": "0f", "state": "alive",
            "seconds": 5, "generation": 1, "incarnation": 0, "round-trip": null, "suspected-by": null, "this-node": true,
        }],
    });
    let socket = Root::at(world.folder.path().join("root")).path(paths::MEMBERS_SOCKET);
    assert!(files::exists(socket.parent().unwrap()));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let text = view.to_string();
    let agent = std::thread::spawn(move || {
        let (mut asker, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut asker, text.as_bytes()).unwrap();
    });
    assert_eq!(world.value::<Value>(ADA, &Request::Members {}), view);
    agent.join().unwrap();
    assert_eq!(world.ask(BOB, &Request::Members {}).unwrap_err().exit, Exit::Refused.code());
    world.logged(": members: done");
}
