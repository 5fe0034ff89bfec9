//! Random misfortune from a seed, then calm, in which everything has to come right.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use kubeboot::mesh::record::{About, Kind};
use kubeboot::mesh::{Event, MILLISECOND, MeshKey, Record, SECOND, Time};
use zeroize::Zeroizing;

use crate::invariants::{Watch, all_agree, check_in_full, who_differs};
use crate::machines::{CLUSTER, FOREIGN};
use crate::world::{CALM, Network, Packet, World};

/// Machines of another cluster, at most.
const MOST_FOREIGN: usize = 2;
/// More nodes than this are a crowd: they join within half a minute, a hundredth of them meets with something in each round,
/// and only some rounds end with a look at everything.
const CROWD: usize = 100;
/// Rounds of misfortune in a crowd: 40 s of it.
const ROUNDS: usize = 24;
/// Of so many of those, one ends with a look at everything.
const SAMPLED: usize = 8;
/// Machines that a failure of a crowd shows.
const SHOWN: usize = 20;

/// Says how to replay a run that panics.
pub struct Replay {
    pub test: &'static str,
    pub seed: u64,
    pub nodes: usize,
}

impl Replay {
    /// A crowd's with optimisation: else it takes an hour.
    fn command(&self) -> String {
        let Replay { test, seed, nodes } = self;
        let optimised = if *nodes > CROWD { "CARGO_PROFILE_TOOLS_OPT_LEVEL=3 " } else { "" };
        format!(
            "{optimised}MESH_SEED={seed} MESH_SEEDS=1 MESH_NODES={nodes} cargo test --profile tools --locked -p kubeboot \
             --test mesh_simulation {test} -- --ignored --nocapture --exact"
        )
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: {}", self.command());
        }
    }
}

struct Chaos {
    world: World,
    /// What the control planes signed last about each subject: they publish it again now and then.
    signed: BTreeMap<About, Record>,
    /// What they signed before, the last of it.
    old: VecDeque<Record>,
    wanted: usize,
    /// Whether it is a crowd.
    crowd: bool,
}

fn rounds(nodes: usize) -> usize {
    match nodes {
        ..=50 => 40,
        51..=CROWD => 12,
        _ => ROUNDS,
    }
}

/// Runs a seed. Returns what the run came to, to compare two of them.
pub fn run(seed: u64, nodes: usize) -> (u64, u64, Time) {
    let replay = Replay { test: "many_seeds", seed, nodes };
    let mut chaos = Chaos {
        world: World::new(seed, nodes, Watch::new(true)),
        signed: BTreeMap::new(),
        old: VecDeque::new(),
        wanted: nodes,
        crowd: nodes > CROWD,
    };
    if chaos.crowd {
        chaos.world.watch.crowded = true;
        // What an attacker sends again is not only what it has just seen.
        chaos.world.recorded_of = nodes / 5;
    }
    chaos.begin();
    for round in 0..rounds(nodes) {
        let pause = 200 * MILLISECOND + chaos.world.dice.roll() % (3 * SECOND);
        let until = chaos.world.now + pause;
        chaos.world.run_until(until);
        chaos.act();
        if chaos.crowd {
            (0..nodes / 100).for_each(|_| chaos.strike());
        }
        if !chaos.crowd || round % SAMPLED == SAMPLED - 1 {
            chaos.check();
        }
    }
    chaos.end();
    let agreed = chaos.settle();
    drop(replay);
    (chaos.world.sent_packets, chaos.world.sent_bytes, agreed)
}

impl Chaos {
    fn begin(&mut self) {
        self.world.start(0, &[]);
        for machine in 1..self.wanted {
            let within = if self.crowd { 60 * SECOND / self.wanted as Time } else { SECOND / 4 };
            let until = self.world.now + self.world.dice.roll() % within;
            self.world.run_until(until);
            let seeds = self.seeds();
            self.world.start(machine, &seeds);
        }
    }

    fn seeds(&mut self) -> Vec<usize> {
        let count = self.world.machines.len();
        let mut seeds = vec![0];
        seeds.extend((0..4).map(|_| self.world.dice.below(count)));
        seeds.extend(self.up().into_iter().take(8));
        seeds
    }

    fn up(&self) -> Vec<usize> {
        let machines = self.world.machines.iter().enumerate();
        machines.filter(|(_, machine)| machine.is_up()).map(|(at, _)| at).collect()
    }

    fn one_up(&mut self) -> Option<usize> {
        let up = self.up();
        (!up.is_empty()).then(|| up[self.world.dice.below(up.len())])
    }

    fn tell(&mut self, what: String) {
        let now = self.world.now;
        self.world.watch.tell(now, what);
    }

    fn check(&mut self) {
        check_in_full(&self.world.machines);
        self.world.watch.claims(&self.world.machines);
        // Nobody asks for them here, and a crowd that parts has millions.
        self.world.watch.downs.clear();
        if self.crowd {
            println!("{:>5} s simulated, {} packets", self.world.now / SECOND, self.world.sent_packets);
        }
    }

    fn act(&mut self) {
        self.world.watch.calm_since = Time::MAX;
        match self.world.dice.below(22) {
            0 | 1 => self.crash(),
            2..=4 => self.restart(),
            5 => self.partition(),
            6 => self.heal(),
            7 => self.weather(),
            8 => self.stand_still(),
            9 => self.jump(),
            10 | 11 => self.publish(),
            12 => self.forge(),
            13 => self.remove(),
            14 => self.rotate(),
            15 => self.copy(),
            16 => self.set_back(),
            17 => self.say_old_things(),
            18 => self.foreigner(),
            _ => self.attack(),
        }
    }

    /// What happens to single machines of a crowd, beside what happens to all.
    fn strike(&mut self) {
        match self.world.dice.below(11) {
            0..=2 => self.crash(),
            3..=5 => self.restart(),
            6 => self.stand_still(),
            7 => self.jump(),
            8 => self.copy(),
            9 => self.set_back(),
            _ => self.attack(),
        }
    }

    fn crash(&mut self) {
        if self.up().len() * 3 > self.wanted * 2
            && let Some(machine) = self.one_up()
        {
            self.tell(format!("machine {machine} crashes"));
            self.world.stop(machine);
        }
    }

    fn restart(&mut self) {
        let down = |at: &usize| self.world.machines[*at].process.is_none();
        let down: Vec<usize> = (0..self.world.machines.len()).filter(down).collect();
        if !down.is_empty() {
            let machine = down[self.world.dice.below(down.len())];
            let seeds = self.seeds();
            self.tell(format!("machine {machine} starts"));
            if !self.world.machines[machine].removed && self.world.dice.below(2) == 0 {
                self.enrol_again(machine);
            }
            self.world.start(machine, &seeds);
        }
    }

    /// A machine whose mesh key is too old gets the newest by enrolment, with its node key.
    fn enrol_again(&mut self, machine: usize) {
        let newest = self.world.signers.newest_key.clone();
        let disk = &mut self.world.machines[machine].disk;
        if disk.key.epoch < newest.epoch {
            disk.key = newest;
        }
    }

    /// Who has an old key, and neither remembers anybody with the newest nor is remembered, gets it by enrolment: the
    /// host's part. So does who heard of a newer key from somebody who does not know it. Everybody else has to get it by
    /// the mesh.
    fn enrol_the_forgotten(&mut self) {
        let newest = self.world.signers.newest_key.epoch;
        for machine in 0..self.world.machines.len() {
            let machines = &self.world.machines;
            // Where it is: who knows a copy's address only does not know it.
            let knows = |one: usize, other: usize| {
                let known = machines[one].process.as_ref().and_then(|of| of.mesh.member(&machines[other].id));
                known.is_some_and(|member| member.announcement.address == machines[other].address)
            };
            let has =
                |at: usize| machines[at].process.as_ref().is_some_and(|process| process.mesh.key_epoch() == newest);
            let mut with = (0..machines.len()).filter(|at| machines[*at].is_up() && has(*at));
            let forgotten = !with.any(|other| knows(machine, other) || knows(other, machine));
            let told = machines[machine].process.as_ref().is_some_and(|process| process.mesh.is_behind());
            if machines[machine].is_up() && !has(machine) && (forgotten || told) {
                self.tell(format!("machine {machine} enrols again"));
                self.world.stop(machine);
                self.enrol_again(machine);
                let seeds = self.seeds();
                self.world.start(machine, &seeds);
            }
        }
    }

    fn partition(&mut self) {
        self.tell("the network parts".to_owned());
        for at in 0..self.world.machines.len() {
            self.world.machines[at].side = self.world.dice.below(2) as u8;
        }
    }

    fn heal(&mut self) {
        self.tell("the network heals".to_owned());
        self.world.machines.iter_mut().for_each(|machine| machine.side = 0);
    }

    fn weather(&mut self) {
        let dice = &mut self.world.dice;
        let most = MILLISECOND * [3, 50, 400][dice.below(3)];
        let loss = [0, 10_000, 100_000, 300_000][dice.below(4)];
        let twice = [0, 50_000][dice.below(2)];
        self.world.network = Network { loss, twice, delay: (200, most) };
        self.tell(format!("weather: {:?}", self.world.network));
    }

    fn stand_still(&mut self) {
        if let Some(machine) = self.one_up() {
            let until = self.world.now + self.world.dice.roll() % (30 * SECOND);
            if let Some(process) = &mut self.world.machines[machine].process {
                process.still_until = until;
            }
            self.tell(format!("machine {machine} stands still until {until}"));
        }
    }

    fn jump(&mut self) {
        if let Some(machine) = self.one_up() {
            let by = self.world.dice.roll() % (3600 * SECOND);
            if let Some(process) = &mut self.world.machines[machine].process {
                process.ahead += by;
            }
            self.tell(format!("machine {machine}'s clock jumps by {by}"));
            self.world.tell(machine, Event::Tick);
        }
    }

    fn sign(&mut self, kind: Kind, subject: &[u8], body: Vec<u8>) -> Record {
        let epoch = self.world.signers.next_epoch(kind);
        let record = self.world.signers.record(kind, subject, epoch, body);
        self.keep(&record);
        record
    }

    fn keep(&mut self, record: &Record) {
        if let Some(before) = self.signed.insert(record.about(), record.clone()) {
            self.old.truncate(63);
            self.old.push_front(before);
        }
    }

    fn publish(&mut self) {
        let length = [10, 300, 4_000, 16_000][self.world.dice.below(4)];
        let (kind, subject) = match self.world.dice.below(3) {
            0 => (Kind::Endpoints, Vec::new()),
            1 => (Kind::CaBundle, Vec::new()),
            _ => (Kind::Verdict, vec![self.world.dice.below(8) as u8]),
        };
        let record = self.sign(kind, &subject, vec![7; length]);
        if let Some(machine) = self.one_up() {
            self.tell(format!("machine {machine} publishes {kind:?} {} of {length} bytes", record.epoch));
            self.world.tell(machine, Event::Publish(&record.bytes()));
        }
    }

    /// Records and keys that must not be taken: the watch sees to it that none is.
    fn forge(&mut self) {
        let Some(machine) = self.one_up() else { return };
        let signers = &self.world.signers;
        let record = |epoch| signers.record(Kind::Endpoints, &[], epoch, vec![1]);
        let foreign = signers.record_of(FOREIGN, Kind::Endpoints, &[], u64::MAX, vec![1]);
        let relabelled = Record { cluster: CLUSTER, ..foreign.clone() };
        let forged = Record { body: vec![2], ..record(u64::MAX) };
        let raised = Record { epoch: u64::MAX, ..record(1) };
        let mut uncertified = record(u64::MAX);
        uncertified.certificate.not_after += 1;
        let key = MeshKey::new(signers.newest_key.epoch + 1, Zeroizing::new([1; 32]));
        let commitment = [key.commitment().as_slice(), &[0]].concat();
        let rekeying =
            Record { epoch: key.epoch, body: commitment, ..signers.record(Kind::MeshKey, &[], 1, vec![0; 33]) };
        let holds = |chaos: &Self| {
            let process = chaos.world.machines[machine].process.as_ref();
            process.map(|process| (process.mesh.records().digest(), process.mesh.key_epoch()))
        };
        let before = holds(self);
        for record in [foreign, relabelled, forged, raised, uncertified, rekeying] {
            self.world.tell(machine, Event::Publish(&record.bytes()));
        }
        self.world.tell(machine, Event::Key(&key));
        assert_eq!(before, holds(self), "nothing_forged_or_foreign_is_taken: machine {machine}");
    }

    /// Records that were signed once, and have been replaced.
    fn say_old_things(&mut self) {
        let count = self.old.len();
        let old = (0..count.min(4)).map(|_| self.old[self.world.dice.below(count)].clone()).collect::<Vec<_>>();
        if let Some(machine) = self.one_up() {
            old.iter().for_each(|record| self.world.tell(machine, Event::Publish(&record.bytes())));
        }
    }

    /// A machine of another cluster that has this one's mesh key, believes everything, and brings what its cluster signed.
    fn foreigner(&mut self) {
        if self.world.machines.iter().filter(|machine| machine.foreign).count() == MOST_FOREIGN {
            return;
        }
        let Some(victim) = self.one_up().map(|machine| self.world.machines[machine].id) else { return };
        let foreigner = self.world.add_foreigner();
        self.tell(format!("machine {foreigner} is of another cluster"));
        let seeds = self.seeds();
        self.world.start(foreigner, &seeds);
        let key = MeshKey::new(self.world.signers.newest_key.epoch + 1, Zeroizing::new([2; 32]));
        let commitment = [key.commitment().as_slice(), &[0]].concat();
        for (kind, subject, epoch, body) in [
            (Kind::Endpoints, &[][..], u64::MAX, vec![1]),
            (Kind::Removal, &victim.0, 1, Vec::new()),
            (Kind::MeshKey, &[], key.epoch, commitment),
        ] {
            let record = self.world.signers.record_of(FOREIGN, kind, subject, epoch, body);
            self.world.tell(foreigner, Event::Publish(&record.bytes()));
        }
        if self.world.dice.below(2) == 0 {
            self.world.tell(foreigner, Event::Key(&key));
        }
    }

    /// Removes a machine, and rekeys the mesh to the others without grace. A machine under a new key takes its place.
    fn remove(&mut self) {
        if self.up().len() * 3 < self.wanted * 2 {
            return;
        }
        let Some(machine) = self.one_up() else { return };
        let Some(by) = self
            .up()
            .into_iter()
            .find(|other| *other != machine && self.world.machines[*other].id != self.world.machines[machine].id)
        else {
            return;
        };
        let id = self.world.machines[machine].id;
        self.tell(format!("machine {machine} is removed, by machine {by}"));
        let removal = self.world.signers.record(Kind::Removal, &id.0, 1, Vec::new());
        self.keep(&removal);
        self.world.machines.iter_mut().filter(|of| of.id == id).for_each(|of| of.removed = true);
        self.world.tell(by, Event::Publish(&removal.bytes()));
        self.rekey(by, false);
        let new = self.world.add_machine();
        let seeds = self.seeds();
        self.world.start(new, &seeds);
    }

    fn rotate(&mut self) {
        if let Some(machine) = self.one_up() {
            self.rekey(machine, true);
        }
    }

    fn rekey(&mut self, by: usize, grace: bool) {
        let World { signers, dice, .. } = &mut self.world;
        let (record, key) = signers.rekey(dice, grace);
        self.tell(format!("machine {by} rekeys to {}, grace {grace}", key.epoch));
        self.keep(&record);
        self.world.tell(by, Event::Publish(&record.bytes()));
        self.world.tell(by, Event::Key(&key));
    }

    fn copy(&mut self) {
        if let Some(machine) = self.one_up() {
            let copy = self.world.copy_machine(machine);
            self.tell(format!("machine {copy} is a copy of {machine}"));
            let seeds = self.seeds();
            self.world.start(copy, &seeds);
        }
    }

    /// A machine comes up again with an older state of its disk: records stay (they are only added to), its generation
    /// does not.
    fn set_back(&mut self) {
        if let Some(machine) = self.one_up() {
            self.tell(format!("machine {machine} is set back"));
            self.world.stop(machine);
            self.world.machines[machine].disk.generation = 0;
            let seeds = self.seeds();
            self.world.start(machine, &seeds);
        }
    }

    /// Who has no key, or was removed: sends again what was seen, changes it, or makes noise.
    fn attack(&mut self) {
        let World { machines, recorded, .. } = &self.world;
        let by_removed = |packet: &&Rc<Packet>| machines.iter().any(|of| of.removed && of.address == packet.from);
        let of_removed: Vec<Rc<Packet>> = recorded.iter().filter(by_removed).cloned().collect();
        for _ in 0..20 {
            let known =
                if self.world.dice.below(4) > 0 || of_removed.is_empty() { &self.world.recorded } else { &of_removed };
            if known.is_empty() {
                return;
            }
            let seen = known[self.world.dice.below(known.len())].clone();
            let target = self.world.dice.below(self.world.machines.len());
            let packet = match self.world.dice.below(4) {
                0 => seen,
                1 => {
                    let (to, bytes) = (self.world.machines[target].address, seen.bytes.clone());
                    if to == seen.to {
                        continue;
                    }
                    Rc::new(Packet { number: 0, from: seen.from, to, bytes, epoch: 0, sealed: seen.sealed })
                }
                2 => {
                    let mut bytes = seen.bytes.clone();
                    let at = self.world.dice.below(bytes.len());
                    bytes[at] ^= 1 << self.world.dice.below(8);
                    Rc::new(Packet { number: 0, from: seen.from, to: seen.to, bytes, epoch: 0, sealed: seen.sealed })
                }
                _ => {
                    let bytes = (0..self.world.dice.below(400)).map(|_| self.world.dice.roll() as u8).collect();
                    Rc::new(Packet { number: 0, from: seen.from, to: seen.to, bytes, epoch: 0, sealed: seen.sealed })
                }
            };
            self.world.send(packet);
        }
    }

    /// The end of misfortune: who is cut off comes back, the control planes say again what they said. Copies and removed
    /// machines go, or stay until the end; foreign ones stay.
    fn end(&mut self) {
        self.heal();
        self.world.network = CALM;
        let [copies_go, removed_go] = [0; 2].map(|_| self.world.dice.below(2) == 0);
        for machine in 0..self.world.machines.len() {
            let of = &mut self.world.machines[machine];
            if let Some(process) = &mut of.process {
                process.still_until = 0;
            }
            if of.copy && copies_go || of.removed && removed_go {
                self.world.stop(machine);
            }
        }
        // What is under way arrives: a copy's last word may displace another process, which has to be started again.
        self.world.run_until(self.world.now + SECOND);
        for machine in 0..self.world.machines.len() {
            let of = &self.world.machines[machine];
            let another = self.world.machines.iter().any(|other| other.is_up() && other.id == of.id);
            if !of.is_up() && !of.copy && !of.removed && !of.foreign && !another {
                self.enrol_again(machine);
                let seeds = self.seeds();
                self.world.start(machine, &seeds);
            }
        }
        self.tell("calm".to_owned());
        let (up, machines) = (self.up(), &self.world.machines);
        // One that falls silent, because another process has its node key, spreads nothing.
        let is_single = |at: &&usize| up.iter().filter(|other| machines[**other].id == machines[**at].id).count() == 1;
        let by = *up.iter().find(is_single).unwrap_or(&up[0]);
        for record in self.signed.values() {
            assert_eq!(record.cluster, CLUSTER);
            self.world.tell(by, Event::Publish(&record.bytes()));
        }
        let key = self.world.signers.newest_key.clone();
        self.world.tell(by, Event::Key(&key));
    }

    /// Waits until all agree, then looks that they still do, whatever attackers and one clock do. Says when they did.
    fn settle(&mut self) -> Time {
        let (began, newest) = (self.world.now, self.world.signers.newest_key.epoch);
        let mut agree = Err("not looked yet".to_owned());
        while agree.is_err() && self.world.now < began + 180 * SECOND {
            self.world.run_until(self.world.now + SECOND);
            agree = all_agree(&self.world.machines, newest);
            if (self.world.now - began).is_multiple_of(60 * SECOND) {
                self.enrol_the_forgotten();
            }
        }
        let took = self.world.now - began;
        if let Err(why) = agree {
            self.show();
            panic!("all_come_to_agree: after {} s {why}", took / SECOND);
        }
        self.world.watch.calm_since = self.world.now;
        for round in 0..6 {
            self.world.run_until(self.world.now + 5 * SECOND);
            if round >= 2 {
                self.attack();
                self.say_old_things();
            }
            if round == 3 {
                self.jump();
            }
            if !self.crowd || round == 5 {
                self.check();
            }
        }
        if let Err(why) = all_agree(&self.world.machines, newest) {
            self.show();
            panic!("who_agrees_goes_on_agreeing: {why}");
        }
        took
    }

    /// For who reads a failure: what happened last, and what everybody thinks.
    fn show(&self) {
        self.world.watch.story.iter().for_each(|line| eprintln!("{line}"));
        if self.crowd {
            return self.show_some();
        }
        for (at, machine) in self.world.machines.iter().enumerate() {
            let Some(mesh) = machine.process.as_ref().map(|process| &process.mesh) else { continue };
            let (copy, removed, foreign) = (machine.copy, machine.removed, machine.foreign);
            eprintln!("machine {at}: copy {copy}, removed {removed}, foreign {foreign}, silent {}", mesh.is_silent());
            eprintln!("  key {}, {:?}, {:?}", mesh.key_epoch(), mesh.counts(), mesh.queues());
            for member in mesh.members().iter() {
                let (said, incarnation) = (&member.announcement, member.incarnation);
                eprintln!("  {} {:?} {}/{incarnation}", said.name, member.state, said.generation);
            }
        }
    }

    /// Of a crowd, the first that differ.
    fn show_some(&self) {
        let differing = who_differs(&self.world.machines, self.world.signers.newest_key.epoch, SHOWN);
        for (at, what) in differing {
            let machine = &self.world.machines[at];
            let Some(mesh) = machine.process.as_ref().map(|process| &process.mesh) else { continue };
            eprintln!("{what}: copy {}, generation {}", machine.copy, mesh.me().generation);
            eprintln!("  {:?}, {:?}, behind {}", mesh.counts(), mesh.queues(), mesh.is_behind());
        }
    }
}

#[test]
fn a_crowd_is_replayed_with_optimisation() {
    let command = |nodes| Replay { test: "many_seeds", seed: 7, nodes }.command();
    assert!(command(30).starts_with("MESH_SEED=7 MESH_SEEDS=1 MESH_NODES=30 cargo test --profile tools "));
    assert!(
        command(2000).starts_with("CARGO_PROFILE_TOOLS_OPT_LEVEL=3 MESH_SEED=7 MESH_SEEDS=1 MESH_NODES=2000 cargo ")
    );
}
