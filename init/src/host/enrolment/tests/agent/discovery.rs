//! Who recorded a query of discovery's, or makes noise where queries are heard, gets no answer.

use std::net::UdpSocket;

use super::machine::TheMachine;
use super::*;
use crate::discovery::{Answer, GROUP_IPV4, Key, MESSAGE, PORT, Query};
use crate::enrolment::PORT as ENROLMENT;

/// A socket on the machine's network.
struct Asker(UdpSocket);

impl Asker {
    fn new() -> Self {
        // By its address the kernel chooses the interface that multicast leaves by.
        let socket = UdpSocket::bind((network::OUTSIDE, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        Asker(socket)
    }

    fn send(&self, message: &[u8]) {
        self.0.send_to(message, (GROUP_IPV4, PORT)).unwrap();
    }

    /// What comes first is the answer to what is asked here. A query that was lost is followed by another.
    fn is_answered(&self, key: &Key) -> Answer {
        let mut asked = Vec::new();
        let answered = wait::until("an answer of discovery's", LIMIT, Duration::ZERO, || {
            asked.push(Query::new(key, random::bytes()));
            self.send(&asked[asked.len() - 1].message());
            let mut answer = [0; MESSAGE + 1];
            let (length, _) = self.0.recv_from(&mut answer).map_err(|error| error.to_string())?;
            let opened = asked.iter().find_map(|query| query.open(&answer[..length]));
            opened.ok_or_else(|| panic!("an answer to something else came first"))
        });
        answered.unwrap_or_else(|late| panic!("{late}"))
    }
}

pub(super) fn answers_each_query_once(machine: &TheMachine) {
    let token = Seed::new(real::SEED).join_token(Role::Worker);
    let key = Key::of(token.fingerprint());
    let honest = Asker::new();
    let answer = honest.is_answered(&key);
    assert_eq!(answer.address, (network::MACHINE, ENROLMENT).into());
    assert_eq!(crate::enrolment::objects::unhex(&machine.this.cluster.id), Some(answer.cluster));

    let query = Query::new(&key, random::bytes()).message();
    honest.send(&query);
    let mut heard = [0; MESSAGE + 1];
    honest.0.recv_from(&mut heard).unwrap();
    // Answers come in the order of what was asked: were these answered, that would come first.
    let attacker = Asker::new();
    for noise in [&query[..], &[0xaa; MESSAGE], &[&query[..], &[0]].concat(), &query[1..], &heard[..MESSAGE]] {
        attacker.send(noise);
    }
    attacker.is_answered(&key);
    println!("discovery: a query that was recorded, noise, and an answer that comes back get no answer");
    println!(
        "    {}",
        machine.heard_anywhere("discovery: gave no answer to queries: 1 that were recorded and sent again")
    );
}
