//! What must hold, by name: looked at after every event, and in full at samples.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use kubeboot::mesh::envelope::MAX_PACKET;
use kubeboot::mesh::members::Claim;
use kubeboot::mesh::record::{About, Rank};
use kubeboot::mesh::sync::{MAX_MESSAGE, Message};
use kubeboot::mesh::{Action, Counts, Handle, NodeId, Queues, SECOND, State, Time};

use crate::machines::{CLUSTER, Machine, Process, Signers};
use crate::world::Packet;

/// After all agreed, calm must have lasted so long before a node that counts as down is a fault of the failure detector.
const CALM: Time = 10 * SECOND;

/// Lines for who reads a failure.
const STORY: usize = 200;

/// What a machine's process had counted and held before a packet came.
pub struct Before {
    counts: Counts,
    key_epoch: u64,
    /// Whether it knew that the packet's sender was removed.
    removed: bool,
}

impl Before {
    pub fn of(process: &Process, from: Option<NodeId>) -> Self {
        let mesh = &process.mesh;
        let removed = from.is_some_and(|from| mesh.records().is_removed(&from));
        Before { counts: mesh.counts(), key_epoch: mesh.key_epoch(), removed }
    }
}

/// What was seen so far.
pub struct Watch {
    /// Whether everything is looked at; where figures are measured only what costs nothing.
    pub thorough: bool,
    /// Whether there are so many machines that what each of them does would push all else out of the story.
    pub crowded: bool,
    /// Since when all agree and nothing bad happens to the network and the machines.
    pub calm_since: Time,
    /// Who was declared down when, by which machine.
    pub downs: Vec<(Time, usize, NodeId)>,
    pub wrong_downs: u64,
    /// The last that happened, for who reads a failure.
    pub story: VecDeque<String>,
    ranks: HashMap<(usize, About), Rank>,
    accepted: HashSet<u64>,
    /// What each process thought of each member last.
    claims: HashMap<u64, HashMap<Handle, Claim>>,
    /// Which machines have a node key.
    with: HashMap<NodeId, Vec<usize>>,
}

impl Watch {
    pub fn new(thorough: bool) -> Self {
        Watch {
            thorough,
            crowded: false,
            calm_since: 0,
            downs: Vec::new(),
            wrong_downs: 0,
            story: VecDeque::new(),
            ranks: HashMap::new(),
            accepted: HashSet::new(),
            claims: HashMap::new(),
            with: HashMap::new(),
        }
    }

    /// There is a machine.
    pub fn machine(&mut self, at: usize, id: NodeId) {
        self.with.entry(id).or_default().push(at);
    }

    /// A process has ended: nothing is expected of it any more.
    pub fn ended(&mut self, process: u64) {
        self.claims.remove(&process);
    }

    fn having<'a>(&self, machines: &'a [Machine], id: &NodeId) -> impl Iterator<Item = &'a Machine> {
        self.with.get(id).into_iter().flatten().map(|at| &machines[*at])
    }

    /// Tells what one machine did by itself.
    pub fn tell_of(&mut self, now: Time, what: impl FnOnce() -> String) {
        if self.thorough && !self.crowded {
            self.tell(now, what());
        }
    }

    pub fn tell(&mut self, now: Time, what: String) {
        if self.story.len() == STORY {
            self.story.pop_front();
        }
        self.story.push_back(format!("{:>9.3} s  {what}", now as f64 / SECOND as f64));
    }

    /// After each event of a machine's process.
    pub fn event(&mut self, now: Time, at: usize, machines: &[Machine], signers: &Signers, actions: &[Action]) {
        let machine = &machines[at];
        let Some(process) = machine.process.as_ref().filter(|_| !machine.foreign) else { return };
        for action in actions {
            match action {
                Action::Record(record) => {
                    let by = record.certificate.signer;
                    let ours = record.cluster == CLUSTER && by == signers.signer;
                    assert!(ours, "no_foreign_record_is_taken: machine {at}, by {by:?}");
                    let (about, rank) = (record.about(), record.rank());
                    let before = self.ranks.insert((at, about), rank);
                    assert!(before < Some(rank), "no_record_goes_back: machine {at}: {before:?} to {rank:?}");
                }
                Action::Member { id, state } => {
                    let removed = process.mesh.records().is_removed(id);
                    assert!(!removed, "no_removed_node_is_a_member: machine {at} says that {id:?} is {state:?}");
                    if self.thorough {
                        let ours = self.having(machines, id).any(|machine| !machine.foreign);
                        assert!(ours, "no_stranger_is_a_member: machine {at} says that {id:?} is {state:?}");
                        self.claim(at, process, id.handle());
                    }
                    if *state == State::Down && machine.is_up() {
                        self.down(now, at, machines, *id);
                    }
                }
                Action::Send { packet, .. } => {
                    assert!(packet.len() <= MAX_PACKET, "packets_fit: {}", packet.len());
                    let name = process.mesh.me().name.as_bytes();
                    assert!(!self.thorough || !contains(packet, name), "nothing_is_readable: machine {at}");
                }
                Action::Transmit { bytes, .. } => {
                    assert!(bytes.len() <= MAX_MESSAGE, "messages_fit: {}", bytes.len());
                }
                Action::Generation(generation) => {
                    assert!(*generation > machine.disk.generation, "generations_rise: machine {at}");
                    self.tell_of(now, || format!("machine {at} takes generation {generation}"));
                }
                Action::Displaced { .. } => self.tell_of(now, || format!("machine {at} is displaced")),
                Action::Removed => self.tell_of(now, || format!("machine {at} learns that it was removed")),
                Action::Key(key) => {
                    let made = signers.made.get(&key.epoch);
                    assert_eq!(
                        made,
                        Some(&key.commitment()),
                        "no_key_is_taken_that_no_control_plane_made: machine {at}"
                    );
                    self.tell_of(now, || format!("machine {at} has key {}", key.epoch));
                }
                Action::Wake(_) | Action::Connect { .. } | Action::Close(_) | Action::Evicted(_) => {}
            }
        }
        if self.thorough || now.is_multiple_of(64) {
            queues_are_bounded(at, process.mesh.queues());
        }
    }

    /// Of two claims the greater holds: what a process thinks of a member only rises.
    fn claim(&mut self, at: usize, process: &Process, member: Handle) {
        let Some(claim) = process.mesh.members().get(member).map(|member| member.claim()) else { return };
        let before = self.claims.entry(process.number).or_default().insert(member, claim);
        assert!(before <= Some(claim), "no_claim_goes_back: machine {at} of {member:?}: {before:?} to {claim:?}");
    }

    /// Everything that each machine thinks of each.
    pub fn claims(&mut self, machines: &[Machine]) {
        for (at, machine) in machines.iter().enumerate() {
            let Some(process) = machine.process.as_ref().filter(|_| machine.is_up()) else { continue };
            for member in process.mesh.members().iter() {
                self.claim(at, process, member.announcement.id.handle());
            }
        }
    }

    fn down(&mut self, now: Time, at: usize, machines: &[Machine], id: NodeId) {
        self.downs.push((now, at, id));
        let calm = now.saturating_sub(self.calm_since) > CALM;
        let is_up = self.having(machines, &id).any(|machine| {
            machine.is_up() && machine.process.as_ref().is_some_and(|process| now - process.started > CALM)
        });
        let who = self.with.get(&id).and_then(|with| with.first().copied());
        self.tell_of(now, || format!("machine {at} says that {who:?} is down"));
        if calm && is_up {
            self.wrong_downs += 1;
            self.story.iter().filter(|_| self.thorough).for_each(|line| eprintln!("{line}"));
            assert!(!self.thorough, "nobody_that_answers_counts_as_down: machine {at} says so of {who:?}");
        }
    }

    /// After each packet that arrived.
    pub fn packet(&mut self, to: &Machine, packet: &Packet, before: Before, signers: &Signers) {
        let Some(process) = to.process.as_ref().filter(|_| self.thorough) else { return };
        // A hello may open packets that waited for it; it has its own length.
        if process.mesh.counts().accepted == before.counts.accepted || packet.bytes.len() == 304 {
            return;
        }
        let number = packet.number;
        let started = process.started;
        assert!(packet.sealed >= started, "no_packet_of_before_a_restart_is_accepted: {number}, {started}");
        assert!(!before.removed, "no_packet_of_a_removed_node_is_accepted: {number}");
        assert!(number != 0, "nothing_is_accepted_that_no_member_made");
        assert!(self.accepted.insert(number), "no_packet_is_accepted_twice: {number}");
        // With what it had: the packet itself may have brought the record that a newer key waited for.
        let newest = before.key_epoch;
        let dead = signers.without_grace.iter().any(|epoch| *epoch <= newest && packet.epoch < *epoch);
        assert!(!dead, "no_packet_under_a_key_without_grace_is_accepted: {} at {newest}", packet.epoch);
    }
}

/// What a machine says on a stream to a stranger: its key epoch, and nothing else.
pub fn nothing_is_given(at: usize, bytes: &[u8]) {
    let given = match Message::parse(bytes).expect("what a machine says can be read") {
        Message::Summary(_) | Message::More(_) => false,
        Message::Versions(page) => !page.members.is_empty() || !page.records.is_empty(),
        Message::Exchange(exchange) => !exchange.news.is_empty() || exchange.key.is_some(),
    };
    assert!(!given, "a_stranger_is_given_nothing: by machine {at}");
}

/// The first byte is compared first: this is asked of every packet.
fn contains(packet: &[u8], name: &[u8]) -> bool {
    packet.windows(name.len()).any(|part| part[0] == name[0] && part == name)
}

fn queues_are_bounded(at: usize, queues: Queues) {
    let most = Queues::MOST;
    let bounded = queues.news <= most.news
        && queues.held <= most.held
        && queues.asked <= most.asked
        && queues.relays <= most.relays
        && queues.streams <= most.streams
        && queues.members <= most.members
        && queues.records <= most.records;
    assert!(bounded, "queues_are_bounded: machine {at}: {queues:?}");
}

/// What a machine's process thinks: the live members it knows, itself included.
pub fn view(process: &Process) -> impl Iterator<Item = NodeId> {
    let live = process.mesh.members().iter().filter(|member| member.state != State::Down);
    live.map(|member| member.announcement.id)
}

/// Live members and records of a machine, in order.
type Held = (Vec<NodeId>, Vec<(About, Rank)>);

/// In full: everything that the machines hold agrees with itself.
pub fn check_in_full(machines: &[Machine]) {
    let mut seen: BTreeMap<u64, Held> = BTreeMap::new();
    for (at, machine) in machines.iter().enumerate().filter(|(_, machine)| machine.is_up()) {
        let Some(process) = &machine.process else { continue };
        let mesh = &process.mesh;
        let mut live: Vec<NodeId> = view(process).collect();
        live.sort_unstable();
        assert_eq!(live.len(), mesh.members().live() + 1, "the_live_are_counted: machine {at}");
        for member in mesh.members().iter() {
            let id = member.announcement.id;
            assert!(!mesh.records().is_removed(&id), "no_removed_node_is_a_member: machine {at}: {id:?}");
        }
        for (handle, _) in mesh.suspicions() {
            let state = mesh.members().get(handle).map(|member| member.state);
            assert_eq!(state, Some(State::Suspect), "suspicions_are_of_suspects: machine {at}");
        }
        for (about, record) in &machine.disk.records {
            let held = mesh.records().rank(*about);
            assert_eq!(held, Some(record.rank()), "the_disk_has_what_the_mesh_has: machine {at}");
        }
        let records = mesh.records().records().map(|record| (record.about(), record.rank())).collect();
        let held = (live, records);
        let first = seen.entry(mesh.digest()).or_insert_with(|| held.clone());
        assert_eq!(*first, held, "equal_digests_are_of_equal_things: machine {at}");
    }
}

/// Who takes part: how many machines with each node key.
fn taking_part(machines: &[Machine]) -> BTreeMap<NodeId, usize> {
    let mut up = BTreeMap::new();
    for machine in machines.iter().filter(|machine| machine.is_up()) {
        *up.entry(machine.id).or_default() += 1;
    }
    up
}

/// How many members that take part a process lacks, and how many it has that do not.
fn differences(process: &Process, up: &BTreeMap<NodeId, usize>) -> (usize, usize) {
    let (known, strange): (Vec<NodeId>, Vec<NodeId>) = view(process).partition(|id| up.contains_key(id));
    (up.len() - known.len(), strange.len())
}

/// Who has an old key, or does not know exactly the members that take part: the first `most` of them, with what it is.
pub fn who_differs(machines: &[Machine], newest_key: u64, most: usize) -> Vec<(usize, String)> {
    let up = taking_part(machines);
    let differs = |(at, machine): (usize, &Machine)| {
        let process = machine.process.as_ref().filter(|_| machine.is_up())?;
        let key = process.mesh.key_epoch();
        if key != newest_key {
            return Some((at, format!("machine {at} has key {key}, not {newest_key}")));
        }
        let (lacks, has) = differences(process, &up);
        (lacks + has > 0).then(|| (at, format!("machine {at} lacks {lacks} members and has {has} that are none")))
    };
    machines.iter().enumerate().filter_map(differs).take(most).collect()
}

/// Whether every machine that takes part knows exactly those that do, the same records, and the newest key; and of each
/// node key on which processes run, one takes part.
///
/// # Errors
/// Who does not.
pub fn all_agree(machines: &[Machine], newest_key: u64) -> Result<(), String> {
    let up = taking_part(machines);
    let running = machines.iter().filter(|machine| machine.process.is_some() && !machine.removed && !machine.foreign);
    for id in running.map(|machine| machine.id) {
        let left = up.get(&id).copied().unwrap_or(0);
        if left != 1 {
            return Err(format!("{left} processes of {id:?} are left, not one"));
        }
    }
    // Counts first: among thousands, members are compared one by one only once those are right.
    let processes = || machines.iter().filter(|machine| machine.is_up()).filter_map(|machine| machine.process.as_ref());
    let known: Vec<usize> = processes().map(|process| process.mesh.members().live() + 1).collect();
    let wrong = known.iter().filter(|known| **known != up.len()).count();
    if wrong > 0 {
        let (least, most) = (known.iter().min(), known.iter().max());
        return Err(format!("{wrong} of {} know {least:?} to {most:?} members, not {}", known.len(), up.len()));
    }
    if let Some((_, what)) = who_differs(machines, newest_key, 1).pop() {
        return Err(what);
    }
    let digests: BTreeSet<u64> = processes().map(|process| process.mesh.records().digest()).collect();
    if digests.len() > 1 { Err(format!("{} different sets of records", digests.len())) } else { Ok(()) }
}
