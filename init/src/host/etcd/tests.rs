//! A cluster whose members are replaced while a machine waits for its place.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use super::joining::{Joining, Pause};
use super::*;
use crate::etcd::circle::{EVERY, QUIET};
use crate::words::Paint;

/// etcd, and a clock that goes a second at each pause.
struct World {
    members: RefCell<Vec<Member>>,
    now: Cell<Duration>,
    /// Hosts that answer.
    up: RefCell<Vec<u8>>,
    /// What control planes say to where the API servers are, and how often and when they were asked.
    servers: RefCell<Result<Vec<u8>, String>>,
    removed: Cell<bool>,
    asked: RefCell<Vec<Duration>>,
}

const OWN: u8 = 9;

fn address(host: u8) -> IpAddr {
    [10, 0, 0, host].into()
}

fn member(host: u8, learner: bool) -> Member {
    let (peers, clients) = (vec![peer_url(address(host))], vec![client_url(address(host))]);
    Member { id: host.into(), name: format!("cp-{host}"), peers, clients, learner }
}

fn record(hosts: &[u8]) -> Endpoints {
    Endpoints::of(hosts.iter().map(|host| SocketAddr::new(address(*host), 6443)))
}

impl World {
    fn new(hosts: &[u8]) -> Self {
        World {
            members: RefCell::new(hosts.iter().map(|host| member(*host, false)).collect()),
            now: Cell::default(),
            up: RefCell::new(hosts.to_vec()),
            servers: RefCell::new(Ok(hosts.to_vec())),
            removed: Cell::default(),
            asked: RefCell::default(),
        }
    }

    /// Others take the place of all control planes, one after the other.
    fn replaced_by(&self, hosts: &[u8]) {
        let mut members = self.members.borrow_mut();
        members.retain(|member| member.learner);
        members.extend(hosts.iter().map(|host| member(*host, false)));
        drop(members);
        *self.up.borrow_mut() = hosts.to_vec();
        *self.servers.borrow_mut() = Ok(hosts.to_vec());
    }

    fn is_up(&self, url: &str) -> Result<(), String> {
        let up = self.up.borrow().iter().any(|host| client_url(address(*host)) == url);
        up.then_some(()).ok_or_else(|| format!("no member of etcd's answers at {url}"))
    }
}

impl Members for World {
    fn list(&self, url: &str) -> Result<Vec<Member>, String> {
        self.is_up(url).map(|()| self.members.borrow().clone())
    }

    fn call(&self, url: &str, (path, body): Call) -> Result<(), String> {
        self.is_up(url)?;
        let mut members = self.members.borrow_mut();
        match path.rsplit('/').next().unwrap() {
            "add" if members.iter().any(|member| member.learner) => Err("too many learner members".into()),
            "add" => {
                let peers = vec![body["peerURLs"][0].as_str().unwrap().to_owned()];
                members.push(Member { id: 99, name: String::new(), peers, clients: Vec::new(), learner: true });
                Ok(())
            }
            "promote" => Err("can only promote a learner member which is in sync with leader".into()),
            other => panic!("{other}"),
        }
    }
}

impl Cluster for World {
    fn whom(&self) -> String {
        "cp:7440".into()
    }

    fn ask(&self) -> Word {
        self.asked.borrow_mut().push(self.now.get());
        match &*self.servers.borrow() {
            _ if self.removed.get() => Word::No(Block {
                what: "Unable to return to the cluster".into(),
                why: vec!["it was removed".into()],
                state: String::new(),
                fix: Vec::new(),
            }),
            Ok(hosts) => Word::Yes(record(hosts)),
            Err(why) => Word::Later(why.clone()),
        }
    }
}

/// A machine that knows of these control planes.
fn machine(known: &[u8]) -> (tempfile::TempDir, Root, Node) {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::at(folder.path());
    std::fs::create_dir_all(root.path(paths::STATE)).unwrap();
    std::fs::write(root.path(paths::ENDPOINTS), record(known).text()).unwrap();
    (folder, root, Node { name: "cp-9".into(), address: address(OWN), machine_id: "m".into() })
}

/// Joins, and gives back what was said; `happens` hears of the time at each pause.
fn join_in(
    world: &World,
    root: &Root,
    node: &Node,
    mut happens: impl FnMut(u64),
) -> (Result<(), NoMember>, Vec<String>) {
    let mut said = Vec::new();
    let joined = Joining::new(root, node, world, world).run(
        &|| world.now.get(),
        &mut |why| said.push(why.to_owned()),
        |pause| {
            if pause == Pause::Next {
                world.now.set(world.now.get() + Duration::from_secs(1));
                happens(world.now.get().as_secs());
                assert!(world.now.get() < Duration::from_secs(3600), "it waits for ever");
            }
        },
    );
    (joined, said)
}

#[test]
fn a_machine_whose_control_planes_were_all_replaced_learns_the_new_ones() {
    let world = World::new(&[1, 2, 3]);
    let (_folder, root, node) = machine(&[1, 2, 3]);
    world.replaced_by(&[4, 5]);
    let (joined, said) = join_in(&world, &root, &node, |_| {});
    assert!(joined.is_ok());
    assert!(matches!(&said[..], [one] if one.contains("answers at https://10.0.0.1:2379")), "{said:?}");
    assert!(world.now.get() <= QUIET + Duration::from_secs(1));
    assert_eq!(membership(&root).unwrap().unwrap().id, 99);
    let kept = std::fs::read(root.path(paths::ENDPOINTS)).unwrap();
    assert_eq!(Endpoints::parse(&kept), Ok(record(&[4, 5])));
}

#[test]
fn a_machine_that_waits_for_another_goes_on_with_whoever_comes_meanwhile() {
    let world = World::new(&[1]);
    let (_folder, root, node) = machine(&[1]);
    world.members.borrow_mut().push(member(7, true));
    let (joined, said) = join_in(&world, &root, &node, |second| match second {
        3 => world.members.borrow_mut().push(member(2, false)),
        // It heard of the second from the first, which goes.
        5 => {
            world.members.borrow_mut().retain(|member| member.id != 1);
            *world.up.borrow_mut() = vec![2];
        }
        8 => world.members.borrow_mut().retain(|member| member.id != 7),
        _ => {}
    });
    assert!(joined.is_ok());
    assert_eq!(world.asked.borrow().len(), 1, "only before the place was taken");
    assert!(matches!(&said[..], [one] if one.starts_with("cp-7 joins etcd just now")), "{said:?}");
}

#[test]
fn whom_it_asks_and_why_it_waits_is_said_and_nobody_is_asked_too_often() {
    let world = World::new(&[1]);
    let (_folder, root, node) = machine(&[1]);
    *world.up.borrow_mut() = Vec::new();
    *world.servers.borrow_mut() = Err("no control plane answers at cp:7440".into());
    let (joined, said) = join_in(&world, &root, &node, |second| {
        if second == 200 {
            world.replaced_by(&[4]);
        }
    });
    assert!(joined.is_ok());
    let no_member = "etcd can't be asked for a place: no member of etcd's answers at https://10.0.0.1:2379";
    let asked = "; asked control planes, cp:7440: none says where etcd is now: no control plane answers at cp:7440";
    assert_eq!(said, [no_member.to_owned(), format!("{no_member}{asked}")]);
    let asked = world.asked.borrow();
    assert!(asked.len() <= 6 && asked[..4].windows(2).all(|two| two[1] - two[0] >= EVERY), "{asked:?}");
    assert!(world.now.get() <= Duration::from_secs(200) + EVERY);
}

#[test]
fn who_was_removed_meanwhile_hears_of_it_from_those_who_came() {
    let world = World::new(&[1]);
    let (_folder, root, node) = machine(&[1]);
    world.replaced_by(&[4]);
    world.removed.set(true);
    let (joined, _) = join_in(&world, &root, &node, |_| {});
    let Err(NoMember::Removed(block)) = joined else { panic!("it was removed") };
    assert!(block.text(Paint::Plain).contains("it was removed"));
    assert!(membership(&root).unwrap().is_none());
}

#[test]
fn a_learner_that_never_started_finds_the_members_that_there_are_now() {
    let world = World::new(&[1]);
    let (_folder, root, node) = machine(&[1]);
    assert!(join_in(&world, &root, &node, |_| {}).0.is_ok());
    world.replaced_by(&[4, 5]);
    assert!(join_in(&world, &root, &node, |_| {}).0.is_ok(), "at the next boot");
    let kept = membership(&root).unwrap().unwrap();
    assert_eq!(kept.initial_cluster.keys().collect::<Vec<_>>(), ["cp-4", "cp-5", "cp-9"]);
    // They are replaced again while the agent waits for the vote.
    world.replaced_by(&[6]);
    let mut circle = Circle::default();
    let vote =
        |circle: &mut Circle| vote_by(&world, &root, &membership(&root).unwrap().unwrap(), &node, circle).unwrap();
    assert!(matches!(vote(&mut circle), Vote::Silence(why) if why.contains("10.0.0.4")));
    assert_eq!(keep_endpoints(&root, &record(&[6])), Ok(true));
    let Vote::Moved(moved) = vote(&mut circle) else { panic!("others than before") };
    assert_eq!(moved.initial_cluster.keys().collect::<Vec<_>>(), ["cp-6", "cp-9"]);
    assert!(matches!(vote(&mut circle), Vote::NotYet(why) if why.contains("in sync")));
    // From its first start on etcd goes by its own data, and the record stays.
    world.members.borrow_mut().push(member(7, false));
    std::fs::create_dir_all(root.path(paths::ETCD_LOG)).unwrap();
    std::fs::write(root.path(paths::ETCD_LOG).join("0.wal"), "x").unwrap();
    assert!(matches!(vote(&mut circle), Vote::NotYet(_)));
    assert_eq!(membership(&root).unwrap(), Some(moved));
}

#[test]
fn a_learner_that_can_ask_nobody_starts_with_what_it_has() {
    let world = World::new(&[1]);
    let (_folder, root, node) = machine(&[1]);
    assert!(join_in(&world, &root, &node, |_| {}).0.is_ok());
    let before = membership(&root).unwrap();
    *world.up.borrow_mut() = Vec::new();
    *world.servers.borrow_mut() = Err("nobody answers".into());
    assert!(join_in(&world, &root, &node, |_| panic!("it waits")).0.is_ok());
    assert_eq!(membership(&root).unwrap(), before);
}
