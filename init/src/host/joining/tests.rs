//! Against a server of the protocol on loopback, over TLS as it is.

use std::net::TcpListener;
use std::thread::JoinHandle;

use super::*;
use crate::certificates::check;
use crate::discovery::Answer;
use crate::enrolment::server::{Event as Incoming, Server};
use crate::enrolment::tests::world::{NOW, World};
use crate::settings::{Role, Settings};
use crate::token::{Joiner as Joins, SECRET, Seed};
use crate::words::Paint;

const SHORT: Times = Times { patience: Duration::from_secs(5), whole: Duration::from_secs(20) };

/// What a server does with one connection.
#[derive(Clone, Copy)]
enum Does {
    /// Closes it.
    Hangs,
    /// What a control plane does.
    Serves,
}

/// A server that takes so many connections, and what it logged.
fn server(script: &'static [Does]) -> (Host, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut world = World::new();
        world.settings = shared::text(&Settings { addons: Vec::new(), ..Settings::default() });
        let tls = tls::server().unwrap();
        let mut log = Vec::new();
        for does in script {
            let (socket, _) = listener.accept().unwrap();
            if matches!(does, Does::Hangs) {
                continue;
            }
            let mut channel = Channel::accept(socket, tls.clone(), SHORT).unwrap();
            let identity = world.identity();
            let mut server = Server::new(world.setup(channel.exporter()), &identity);
            while log.is_empty() || server.most() > 0 {
                let Ok(message) = channel.receive(server.most()) else { break };
                let served = world.serve(&mut server, Incoming::Message(&message));
                served.sent.iter().for_each(|message| channel.send(message).unwrap());
                log.extend(served.notes.iter().map(ToString::to_string));
            }
            channel.close();
        }
        log
    });
    (Host { name: address.ip().to_string(), port: address.port() }, thread)
}

/// A machine with its node key.
fn machine() -> (tempfile::TempDir, Root) {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::at(folder.path());
    std::fs::create_dir_all(root.path(paths::STATE)).unwrap();
    std::fs::write(root.path(paths::NODE_KEY), keys::ed25519().unwrap().as_bytes()).unwrap();
    (folder, root)
}

fn asker(root: &Root, by: By, hosts: Vec<Host>) -> Asker {
    let node = Node { name: "w-1".into(), address: [192, 0, 2, 21].into(), machine_id: "m".into() };
    let settings = Settings { role: Some(Role::Worker), ..Settings::default() };
    let own = Frozen { format: 1, settings, origins: Default::default() };
    let asker = Asker::new(root, by, &node, "1.37.2-4".parse().unwrap(), hosts, own).unwrap();
    let pause = Duration::from_millis(1);
    Asker { times: SHORT, pauses: (pause, pause), clock: || NOW, ..asker }
}

fn token() -> JoinToken {
    Seed::new([7; SECRET]).join_token(Joins::Worker)
}

/// A port where nobody listens.
fn closed() -> Host {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Host { name: address.ip().to_string(), port: address.port() }
}

#[test]
fn a_machine_joins_by_its_token_and_comes_back_by_its_node_key() {
    let (_folder, root) = machine();
    let (host, server) = server(&[Does::Serves, Does::Serves]);
    let granted = asker(&root, By::Token(token()), vec![closed(), host.clone()]).ask(|block| panic!("{block:?}"));
    let granted = granted.unwrap_or_else(|block| panic!("{block:?}"));
    for (certificate, key) in granted.enrolled.grant.certificates.iter().zip(&granted.keys) {
        let certified = check::inspect(certificate.as_bytes()).unwrap().public_key;
        assert_eq!(check::public_half(key.as_bytes()).unwrap(), certified);
    }
    assert_eq!((granted.frozen.settings.role, granted.frozen.settings.addons.len()), (Some(Role::Worker), 0));
    let cluster = granted.enrolled.cluster.clone();
    let again = asker(&root, By::NodeKey(cluster.clone()), vec![host]).ask_once();
    assert_eq!(again.unwrap_or_else(|block| panic!("{block:?}")).enrolled.cluster, cluster);
    let log = server.join().unwrap();
    assert_eq!(log.len(), 2);
    assert!(log[1].starts_with("admitted returning node w-1"), "{log:?}");
}

#[test]
fn what_may_pass_is_waited_out_and_told_once() {
    let (_folder, root) = machine();
    let (host, server) = server(&[Does::Hangs, Does::Hangs, Does::Hangs, Does::Serves]);
    let mut said = Vec::new();
    let granted = asker(&root, By::Token(token()), vec![host]).ask(|block| said.push(block.line()));
    assert!(granted.is_ok());
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("no control plane answers at 127.0.0.1"), "{said:?}");
    assert_eq!(server.join().unwrap().len(), 1);
}

#[test]
fn a_refusal_that_does_not_pass_ends_the_waiting() {
    let (_folder, root) = machine();
    let (host, server) = server(&[Does::Serves]);
    let wrong = JoinToken::new(Joins::Worker, [1; SECRET], &World::new().cluster.identity_key);
    let refused = asker(&root, By::Token(wrong), vec![closed(), host]).ask(|block| panic!("{block:?}"));
    let text = refused.err().unwrap().text(Paint::Plain);
    let line = text.lines().nth(1).unwrap();
    assert_eq!(
        line.trim(),
        "no control plane here accepts this token",
        "what a control plane says comes first: {text}"
    );
    assert!(text.contains("no control plane answers at 127.0.0.1"), "{text}");
    assert!(server.join().unwrap()[0].starts_with("refused worker w-1"));
}

/// Searches that find these control planes, each with its cluster, one search after the other.
fn finds(searches: Vec<Vec<(u8, Host)>>) -> Search {
    let left = std::cell::RefCell::new(searches);
    Box::new(move |_| {
        let mut found = Found::default();
        for (cluster, host) in left.borrow_mut().remove(0) {
            let address = format!("{}:{}", host.name, host.port).parse().unwrap();
            found.add(Answer { cluster: [cluster; 16], address });
        }
        Ok(found)
    })
}

#[test]
fn who_was_told_of_nobody_asks_those_on_the_local_network_as_soon_as_there_are_any() {
    let (_folder, root) = machine();
    let (host, server) = server(&[Does::Serves]);
    let search = finds(vec![vec![], vec![(1, host)]]);
    let mut said = Vec::new();
    let asker = Asker { search, ..asker(&root, By::Token(token()), Vec::new()) };
    assert!(asker.ask(|block| said.push(block.line())).is_ok());
    assert!(matches!(&said[..], [one] if one.contains("local network of 192.0.2.21")), "{said:?}");
    assert_eq!(server.join().unwrap().len(), 1);
}

#[test]
fn who_hears_two_clusters_joins_neither() {
    let (_folder, root) = machine();
    let search = finds(vec![vec![(1, closed()), (2, closed())]]);
    let asker = Asker { search, ..asker(&root, By::Token(token()), Vec::new()) };
    let refused = asker.ask(|block| panic!("{block:?}")).err().unwrap().text(Paint::Plain);
    assert!(refused.contains(&"01".repeat(16)) && refused.contains(&"02".repeat(16)), "{refused}");
}

#[test]
fn who_was_told_whom_to_join_through_never_looks_elsewhere() {
    let (_folder, root) = machine();
    let mut asker = asker(&root, By::Token(token()), vec![closed()]);
    asker.own.settings.join = vec!["cp-1".into()];
    asker.search = Box::new(|_| panic!("it was told"));
    assert!(asker.ask_once().is_err());
}

#[test]
fn a_node_whose_control_planes_have_moved_finds_those_of_its_own_cluster_only() {
    let (_folder, root) = machine();
    let (host, server) = server(&[Does::Serves, Does::Serves]);
    let granted = asker(&root, By::Token(token()), vec![host.clone()]).ask_once();
    let cluster = granted.unwrap_or_else(|block| panic!("{block:?}")).enrolled.cluster;
    let [id, ..] = objects::unhex(&cluster.id).unwrap();
    let own = Host { name: "192.0.2.21".into(), port: 7440 };
    let search = finds(vec![vec![(id, own), (id, host), (id ^ 1, closed())]]);
    let returning = Asker { search, ..asker(&root, By::NodeKey(cluster), vec![closed()]) };
    assert!(returning.ask_once().is_ok());
    assert_eq!(server.join().unwrap().len(), 2);
}

#[test]
fn a_node_asks_the_control_planes_that_it_knows_before_those_it_was_told_of() {
    let (_folder, root) = machine();
    let servers = ["10.0.0.11:6443", "[fd00::1]:6443"].map(|text| text.parse().unwrap());
    std::fs::write(root.path(paths::ENDPOINTS), Endpoints::of(servers).text()).unwrap();
    let hosts: Vec<String> =
        known_hosts(&root, &["10.0.0.11".into(), "cp-2".into()]).iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["10.0.0.11:7440", "[fd00::1]:7440", "cp-2:7440"]);
    std::fs::write(root.path(paths::ENDPOINTS), "{").unwrap();
    assert_eq!(known_hosts(&root, &["cp-2".into()]), hosts_of(&["cp-2".into()]));
}
