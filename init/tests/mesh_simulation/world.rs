//! The world: a virtual clock, a network, and the machines on it. Everything in it follows from its seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use kubeboot::mesh::{Action, Authority, Event, MILLISECOND, NodeId, StreamId, Time};
use zeroize::Zeroizing;

use crate::invariants::{Before, Watch, nothing_is_given};
use crate::machines::{CLUSTER, Dice, Machine, Remembering, Signers};

/// How packets fare.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// Lost, of a million.
    pub loss: u64,
    /// Delivered twice, of a million.
    pub twice: u64,
    /// Shortest and longest delay; packets overtake each other within it.
    pub delay: (Time, Time),
}

pub const CALM: Network = Network { loss: 10_000, twice: 1_000, delay: (200, 3 * MILLISECOND) };

/// Packets that an attacker on the network remembers, at most.
const RECORDED: usize = 500;

/// A packet under way.
pub struct Packet {
    pub number: u64,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
    /// The epoch of the key that it was sealed with; zero for what no machine made.
    pub epoch: u64,
    /// When.
    pub sealed: Time,
}

enum Happening {
    Wake { machine: usize, process: u64 },
    Arrive(Rc<Packet>),
    Opened { pair: u64 },
    Said { pair: u64, by_opener: bool, bytes: Zeroizing<Vec<u8>> },
    Ended { machine: usize, process: u64, stream: StreamId },
}

struct Later(Time, u64, Happening);

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Later {}
impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// One end of a stream: machine, process, and the number it has there.
type End = (usize, u64, StreamId);

struct Pair {
    opener: End,
    other: End,
    /// When the last thing said arrives: a stream keeps its order.
    busy_until: Time,
}

pub struct World {
    pub now: Time,
    pub dice: Dice,
    pub machines: Vec<Machine>,
    pub network: Network,
    /// Two machines between which nothing goes.
    pub cut: Option<[usize; 2]>,
    pub signers: Signers,
    pub verifier: Remembering,
    pub watch: Watch,
    /// Sums over all machines.
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub stream_bytes: u64,
    /// Packets that an attacker on the network remembers.
    pub recorded: Vec<Rc<Packet>>,
    /// One of so many is.
    pub recorded_of: usize,
    at: HashMap<SocketAddr, usize>,
    queue: BinaryHeap<Reverse<Later>>,
    pairs: BTreeMap<u64, Pair>,
    ends: HashMap<(usize, u64, StreamId), u64>,
    sequence: u64,
    processes: u64,
}

impl World {
    pub fn new(seed: u64, nodes: usize, watch: Watch) -> Self {
        let mut dice = Dice(seed);
        let signers = Signers::new(&mut dice);
        let verifier = Remembering::new(Authority { cluster: CLUSTER, identity: signers.identity.public() });
        let mut world = World {
            now: 1,
            dice,
            machines: Vec::new(),
            network: CALM,
            cut: None,
            signers,
            verifier,
            watch,
            sent_packets: 0,
            sent_bytes: 0,
            stream_bytes: 0,
            recorded: Vec::new(),
            recorded_of: 20,
            at: HashMap::new(),
            queue: BinaryHeap::new(),
            pairs: BTreeMap::new(),
            ends: HashMap::new(),
            sequence: 0,
            processes: 0,
        };
        (0..nodes).for_each(|_| {
            world.add_machine();
        });
        world
    }

    /// A further machine, with the newest key, as enrolment gives it.
    pub fn add_machine(&mut self) -> usize {
        let address = self.free_address();
        let machine = Machine::new(&mut self.dice, address, self.signers.newest_key.clone());
        self.put(machine)
    }

    /// A machine of another cluster, which has come by this one's mesh key.
    pub fn add_foreigner(&mut self) -> usize {
        let foreigner = self.add_machine();
        self.machines[foreigner].foreign = true;
        foreigner
    }

    /// A machine's copy, its disk included, at another address.
    pub fn copy_machine(&mut self, of: usize) -> usize {
        let address = self.free_address();
        let mut copy = Machine::new(&mut self.dice, address, self.signers.newest_key.clone());
        copy.node_seed = self.machines[of].node_seed;
        copy.id = self.machines[of].id;
        copy.disk = self.machines[of].disk.clone();
        copy.copy = true;
        self.put(copy)
    }

    fn put(&mut self, machine: Machine) -> usize {
        let index = self.machines.len();
        self.at.insert(machine.address, index);
        self.watch.machine(index, machine.id);
        self.machines.push(machine);
        index
    }

    fn free_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from(0x0A00_0001 + self.machines.len() as u32), 7440))
    }

    /// Starts a process, which looks for the mesh at some addresses.
    pub fn start(&mut self, machine: usize, seeds: &[usize]) {
        self.stop(machine);
        self.processes += 1;
        let (now, number) = (self.now, self.processes);
        self.machines[machine].start(now, number, &mut self.dice, &self.verifier);
        let seeds: Vec<SocketAddr> = seeds.iter().map(|seed| self.machines[*seed].address).collect();
        self.tell(machine, Event::Tick);
        self.tell(machine, Event::Join(&seeds));
    }

    pub fn stop(&mut self, machine: usize) {
        if let Some(process) = self.machines[machine].process.take() {
            self.watch.ended(process.number);
        }
    }

    fn later(&mut self, at: Time, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse(Later(at.max(self.now), self.sequence, happening)));
    }

    /// Lets the world go on until a moment.
    pub fn run_until(&mut self, until: Time) {
        while let Some(Reverse(Later(at, ..))) = self.queue.peek()
            && *at <= until
        {
            let Some(Reverse(Later(at, _, happening))) = self.queue.pop() else { break };
            self.now = at;
            self.happen(happening);
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake { machine, process } => {
                let now = self.now;
                let Some(of) = self.machines[machine].process.as_ref().filter(|of| of.number == process) else {
                    return;
                };
                let due = of.wake <= now + of.ahead;
                let until = of.still_until;
                if until > now {
                    self.later(until, Happening::Wake { machine, process });
                } else if due {
                    self.tell(machine, Event::Tick);
                    let after = self.machines[machine].process.as_ref().filter(|of| !of.mesh.is_silent());
                    let on = after.is_none_or(|of| of.wake > now + of.ahead);
                    assert!(on, "a_tick_leads_on: machine {machine}: {:?}", after.map(|of| of.mesh.timers()));
                }
            }
            Happening::Arrive(packet) => self.arrive(&packet),
            Happening::Opened { pair } => {
                let Some((opener, other)) = self.pairs.get(&pair).map(|pair| (pair.opener, pair.other)) else { return };
                let peer = self.machines[opener.0].id;
                if self.runs(opener) && self.runs(other) {
                    self.tell(other.0, Event::Accepted { stream: other.2, peer });
                    self.tell(opener.0, Event::Opened(opener.2));
                }
            }
            Happening::Said { pair, by_opener, bytes } => {
                let Some(Pair { opener, other, .. }) = self.pairs.get(&pair) else { return };
                let (from, to) = if by_opener { (*opener, *other) } else { (*other, *opener) };
                if !self.reaches(from.0, to.0) {
                    self.hang_up(pair, None);
                } else if self.runs(to) {
                    self.tell(to.0, Event::Message { stream: to.2, bytes: &bytes });
                }
            }
            Happening::Ended { machine, process, stream } => {
                if self.runs((machine, process, stream)) {
                    self.tell(machine, Event::Closed(stream));
                }
            }
        }
    }

    fn runs(&self, (machine, process, _): End) -> bool {
        self.machines[machine].process.as_ref().is_some_and(|of| of.number == process)
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        let cut = self.cut.is_some_and(|cut| cut == [from, to] || cut == [to, from]);
        self.machines[from].side == self.machines[to].side && !cut
    }

    /// Puts a packet on the network.
    pub fn send(&mut self, packet: Rc<Packet>) {
        let from = self.at.get(&packet.from).copied();
        let Some(to) = self.at.get(&packet.to).copied() else { return };
        if from.is_some_and(|from| !self.reaches(from, to)) || self.dice.millionth(self.network.loss) {
            return;
        }
        let copies = 1 + usize::from(self.dice.millionth(self.network.twice));
        for _ in 0..copies {
            let (least, most) = self.network.delay;
            let at = self.now + least + self.dice.roll() % (most - least + 1);
            self.later(at, Happening::Arrive(packet.clone()));
        }
    }

    /// An attacker on the network remembers some packets, early ones and late ones.
    fn record(&mut self, packet: &Rc<Packet>) {
        if !self.watch.thorough || self.dice.below(self.recorded_of) > 0 {
            return;
        }
        if self.recorded.len() < RECORDED {
            self.recorded.push(packet.clone());
        } else {
            let forgotten = self.dice.below(RECORDED);
            self.recorded[forgotten] = packet.clone();
        }
    }

    fn arrive(&mut self, packet: &Packet) {
        let Some(to) = self.at.get(&packet.to).copied() else { return };
        let Some(process) = self.machines[to].process.as_ref() else { return };
        if process.still_until > self.now {
            return;
        }
        let from = self.at.get(&packet.from).map(|from| self.machines[*from].id);
        let before = Before::of(process, from);
        self.tell(to, Event::Packet { from: packet.from, bytes: &packet.bytes });
        self.watch.packet(&self.machines[to], packet, before, &self.signers);
    }

    /// Tells a machine's process of an event, and does what it says.
    pub fn tell(&mut self, machine: usize, event: Event<'_>) {
        let now = self.now;
        let Some(process) = self.machines[machine].process.as_mut() else { return };
        let number = process.number;
        let actions = process.mesh.handle(now + process.ahead, event);
        self.watch.event(now, machine, &self.machines, &self.signers, &actions);
        for action in actions {
            self.act(machine, number, action);
        }
    }

    fn act(&mut self, machine: usize, number: u64, action: Action) {
        match action {
            Action::Send { to, packet } => {
                self.sent_packets += 1;
                self.sent_bytes += packet.len() as u64;
                let of = &self.machines[machine];
                let process = of.process.as_ref();
                let epoch = process.map_or(0, |of| of.mesh.sending_epoch(self.now + of.ahead));
                let number = self.sent_packets;
                let packet = Rc::new(Packet { number, from: of.address, to, bytes: packet, epoch, sealed: self.now });
                self.record(&packet);
                self.send(packet);
            }
            Action::Wake(at) => {
                let Some(process) = self.machines[machine].process.as_mut() else { return };
                process.wake = at;
                let at = at.saturating_sub(process.ahead);
                if at < Time::MAX / 2 {
                    self.later(at, Happening::Wake { machine, process: number });
                }
            }
            Action::Connect { stream, peer, address } => self.connect((machine, number, stream), peer, address),
            Action::Transmit { stream, bytes } => {
                self.stream_bytes += bytes.len() as u64;
                let Some(number) = self.ends.get(&(machine, number, stream)).copied() else { return };
                let Some(pair) = self.pairs.get_mut(&number) else { return };
                let by_opener = pair.opener.0 == machine && pair.opener.2 == stream;
                let peer = if by_opener { pair.other.0 } else { pair.opener.0 };
                if self.machines[peer].foreign && !self.machines[machine].foreign {
                    nothing_is_given(machine, &bytes);
                }
                pair.busy_until = pair.busy_until.max(self.now + self.network.delay.1);
                let at = pair.busy_until;
                self.later(at, Happening::Said { pair: number, by_opener, bytes });
            }
            Action::Close(stream) => {
                if let Some(pair) = self.ends.get(&(machine, number, stream)).copied() {
                    self.hang_up(pair, Some(machine));
                }
            }
            Action::Record(record) => {
                self.machines[machine].disk.records.insert(record.about(), record);
            }
            Action::Key(key) => self.machines[machine].disk.key = key,
            Action::Generation(generation) => self.machines[machine].disk.generation = generation,
            Action::Member { .. } | Action::Evicted(_) | Action::Displaced { .. } | Action::Removed => {}
        }
    }

    /// Opens a stream, if the node with that key listens there and can be reached.
    fn connect(&mut self, opener: End, peer: NodeId, address: SocketAddr) {
        let (machine, process, stream) = opener;
        let at = self.now + 2 * self.network.delay.1;
        let there = self.at.get(&address).copied().filter(|other| self.reaches(machine, *other)).filter(|other| {
            let other = &self.machines[*other];
            other.id == peer && other.process.is_some()
        });
        let is_there = there.is_some();
        self.watch.tell_of(self.now, || format!("machine {machine} connects to {address}, there: {is_there}"));
        let Some(other) = there else { return self.later(at, Happening::Ended { machine, process, stream }) };
        self.sequence += 1;
        let pair = self.sequence;
        let number = self.machines[other].process.as_ref().map_or(0, |process| process.number);
        let other = (other, number, StreamId(pair));
        self.ends.insert(opener, pair);
        self.ends.insert(other, pair);
        self.pairs.insert(pair, Pair { opener, other, busy_until: at });
        self.later(at, Happening::Opened { pair });
    }

    fn hang_up(&mut self, number: u64, by: Option<usize>) {
        let Some(pair) = self.pairs.remove(&number) else { return };
        let at = pair.busy_until.max(self.now + self.network.delay.1);
        for end in [pair.opener, pair.other] {
            self.ends.remove(&end);
            if by != Some(end.0) {
                self.later(at, Happening::Ended { machine: end.0, process: end.1, stream: end.2 });
            }
        }
    }
}
