//! Random misfortune from a seed, then calm, in which everything has to come right.

use std::collections::BTreeMap;
use std::rc::Rc;

use kubeboot::mesh::record::{About, Kind};
use kubeboot::mesh::{Event, MILLISECOND, Record, SECOND, Time};

use crate::invariants::{Watch, all_agree, check_in_full};
use crate::machines::CLUSTER;
use crate::world::{CALM, Network, Packet, World};

/// Says how to replay a run that panics.
struct Replay {
    seed: u64,
    nodes: usize,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Replay { seed, nodes } = self;
            eprintln!(
                "replay: MESH_SEED={seed} MESH_SEEDS=1 MESH_NODES={nodes} cargo test --profile tools --locked -p kubeboot \
                 --test mesh_simulation many_seeds -- --ignored --nocapture --exact"
            );
        }
    }
}

struct Chaos {
    world: World,
    /// What the control planes signed last about each subject: they publish it again now and then.
    signed: BTreeMap<About, Record>,
    /// Subjects of removals: indices of machines.
    removed: Vec<usize>,
    wanted: usize,
}

/// Runs a seed. Returns what the run came to, to compare two of them.
pub fn run(seed: u64, nodes: usize) -> (u64, u64, Time) {
    let replay = Replay { seed, nodes };
    let mut chaos = Chaos {
        world: World::new(seed, nodes, Watch::new(true)),
        signed: BTreeMap::new(),
        removed: Vec::new(),
        wanted: nodes,
    };
    chaos.begin();
    for _ in 0..if nodes > 50 { 12 } else { 40 } {
        let pause = 200 * MILLISECOND + chaos.world.dice.roll() % (3 * SECOND);
        let until = chaos.world.now + pause;
        chaos.world.run_until(until);
        chaos.act();
        check_in_full(&chaos.world.machines);
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
            let until = self.world.now + self.world.dice.roll() % (SECOND / 4);
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
        machines.filter(|(at, machine)| machine.is_up() && !self.removed.contains(at)).map(|(at, _)| at).collect()
    }

    fn one_up(&mut self) -> Option<usize> {
        let up = self.up();
        (!up.is_empty()).then(|| up[self.world.dice.below(up.len())])
    }

    fn tell(&mut self, what: String) {
        let now = self.world.now;
        self.world.watch.tell(now, what);
    }

    fn act(&mut self) {
        self.world.watch.calm_since = Time::MAX;
        match self.world.dice.below(20) {
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
            if !self.removed.contains(&machine) && self.world.dice.below(2) == 0 {
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
        self.signed.insert(record.about(), record.clone());
        record
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

    /// Records that must not be taken: the watch sees to it that none is.
    fn forge(&mut self) {
        let Some(machine) = self.one_up() else { return };
        let good = self.world.signers.record(Kind::Endpoints, &[], 1, vec![1]);
        let mut foreign = self.world.signers.record(Kind::Endpoints, &[], u64::MAX, vec![1]);
        foreign.cluster = [9; 16];
        let mut forged = self.world.signers.record(Kind::Endpoints, &[], u64::MAX, vec![1]);
        forged.body = vec![2];
        let mut uncertified = self.world.signers.record(Kind::Endpoints, &[], u64::MAX, vec![1]);
        uncertified.certificate.not_after += 1;
        let before = self.world.machines[machine].process.as_ref().map(|process| process.mesh.records().digest());
        let newer_than_none = self.signed.contains_key(&good.about());
        for record in [foreign, forged, uncertified] {
            self.world.tell(machine, Event::Publish(&record.bytes()));
        }
        let after = self.world.machines[machine].process.as_ref().map(|process| process.mesh.records().digest());
        assert_eq!(before, after, "no_forged_or_foreign_record_is_taken: machine {machine}");
        if newer_than_none {
            self.world.tell(machine, Event::Publish(&good.bytes()));
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
        self.signed.insert(removal.about(), removal.clone());
        let of = |at: &usize| self.world.machines[*at].id == id;
        let removed: Vec<usize> = (0..self.world.machines.len()).filter(of).collect();
        self.removed.extend(removed);
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
        self.signed.insert(record.about(), record.clone());
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

    /// Who has no key: sends again what was seen, changes it, or makes noise.
    fn attack(&mut self) {
        for _ in 0..20 {
            let count = self.world.recorded.len();
            if count == 0 {
                return;
            }
            let seen = self.world.recorded[self.world.dice.below(count)].clone();
            let target = self.world.dice.below(self.world.machines.len());
            let packet = match self.world.dice.below(4) {
                0 => seen,
                1 => {
                    let (to, bytes) = (self.world.machines[target].address, seen.bytes.clone());
                    if to == seen.to {
                        continue;
                    }
                    Rc::new(Packet { number: 0, from: seen.from, to, bytes, epoch: 0 })
                }
                2 => {
                    let mut bytes = seen.bytes.clone();
                    let at = self.world.dice.below(bytes.len());
                    bytes[at] ^= 1 << self.world.dice.below(8);
                    Rc::new(Packet { number: 0, from: seen.from, to: seen.to, bytes, epoch: 0 })
                }
                _ => {
                    let bytes = (0..self.world.dice.below(400)).map(|_| self.world.dice.roll() as u8).collect();
                    Rc::new(Packet { number: 0, from: seen.from, to: seen.to, bytes, epoch: 0 })
                }
            };
            self.world.send(packet);
        }
    }

    /// The end of misfortune: copies go, whoever is not removed comes back, the control planes say again what they said.
    fn end(&mut self) {
        self.heal();
        self.world.network = CALM;
        for machine in 0..self.world.machines.len() {
            let of = &mut self.world.machines[machine];
            let gone = of.copy || self.removed.contains(&machine);
            if let Some(process) = &mut of.process {
                process.still_until = 0;
            }
            if gone {
                self.world.stop(machine);
            } else if !of.is_up() {
                self.enrol_again(machine);
                let seeds = self.seeds();
                self.world.start(machine, &seeds);
            }
        }
        self.tell("calm".to_owned());
        let by = self.one_up().expect("machines are up");
        for record in self.signed.values() {
            assert_eq!(record.cluster, CLUSTER);
            self.world.tell(by, Event::Publish(&record.bytes()));
        }
        let key = self.world.signers.newest_key.clone();
        self.world.tell(by, Event::Key(&key));
    }

    /// Waits until all agree, then looks that they still do. Says when they did.
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
            self.world.watch.story.iter().for_each(|line| eprintln!("{line}"));
            for (at, machine) in self.world.machines.iter().enumerate().filter(|(_, machine)| machine.is_up()) {
                let Some(mesh) = machine.process.as_ref().map(|process| &process.mesh) else { continue };
                eprintln!("machine {at}: key {}, {:?}, {:?}", mesh.key_epoch(), mesh.counts(), mesh.queues());
                for member in mesh.members().iter() {
                    let (said, incarnation) = (&member.announcement, member.incarnation);
                    eprintln!("  {} {:?} {}/{incarnation}", said.name, member.state, said.generation);
                }
            }
            panic!("all_come_to_agree: after {} s {why}", took / SECOND);
        }
        self.world.watch.calm_since = self.world.now;
        for _ in 0..5 {
            self.world.run_until(self.world.now + 5 * SECOND);
            check_in_full(&self.world.machines);
        }
        took
    }
}
