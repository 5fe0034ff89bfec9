//! What happened when: the events of one boot, and the phases that can be read out of them.
//!
//! Every event is one JSON object on one line, both in [`crate::paths::EVENTS`] and on the report channel (the serial
//! device that the setting `report` names). Nothing secret is ever an event.

mod phases;
mod svg;
mod table;

use serde::{Deserialize, Serialize};

pub use phases::{Group, Manager, Span, UnitTimes, spans};
pub use svg::svg;
pub use table::table;

/// One thing that happened at a known moment of this boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since the kernel started (`CLOCK_MONOTONIC`), to the millisecond.
    pub t: f64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What can happen. The JSON key `event` carries the name in kebab-case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum What {
    /// A release was chosen and mounted as the seat.
    Seat {
        /// `A`, `B` or `factory`.
        slot: String,
        /// The release's version, such as `1.37.2-1`.
        version: String,
        /// Why this slot and no other, in words.
        why: String,
    },
    /// A step of a plan, or of any command, has ended.
    Step {
        /// What was done, in the words that the console shows.
        step: String,
        /// How it ended.
        outcome: Outcome,
        /// How long it took, in seconds.
        seconds: f64,
    },
    /// A milestone that is not a step of ours: `api-ready`, `node-ready`, `release-ready`, …
    Phase {
        /// Its name.
        name: String,
    },
    /// A health gate changed its verdict.
    Gate {
        /// The gate's name.
        gate: String,
        /// Whether it passes now.
        pass: bool,
        /// What was observed.
        observed: String,
    },
    /// Every gate of the release passes.
    Ready {
        /// The node's name.
        node: String,
        /// The cluster's id.
        cluster: String,
        /// The release's version of Kubernetes.
        kubernetes: String,
        /// The API server's address as seen from outside: `https://IP:6443`.
        server: String,
    },
    /// Something failed. The console shows the same words.
    Error {
        /// The command that failed, such as `boot`.
        command: String,
        /// Operation, object, expected, found, and the fix.
        message: String,
    },
    /// An operator's client certificate was issued: public data, of use only with the operator's own key.
    Operator {
        /// Fingerprint of the ssh public key, `SHA256:…`.
        key: String,
        /// The client certificate, PEM.
        certificate: String,
        /// The cluster's certificate authority, PEM.
        ca: String,
        /// `https://IP:6443`.
        server: String,
    },
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// There was nothing to do.
    Skipped,
    /// It failed.
    Failed,
}

impl Event {
    /// Makes an event; `t` is rounded to the millisecond, a step's length to the microsecond.
    pub fn at(t: std::time::Duration, mut what: What) -> Self {
        if let What::Step { seconds, .. } = &mut what {
            *seconds = (*seconds * 1e6).round() / 1e6;
        }
        Event { t: (t.as_secs_f64() * 1000.0).round() / 1000.0, what }
    }

    /// The event as one line of JSON, without the newline. Strings escape theirs, so it is always one line.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("an event has only strings, numbers and booleans")
    }
}

/// Reads the lines of an event file. A line that is no event (a power cut tore it, a later version wrote it) is
/// counted, not fatal.
pub fn parse(text: &str) -> (Vec<Event>, usize) {
    let mut events = Vec::new();
    let mut unknown = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(event) => events.push(event),
            Err(_) => unknown += 1,
        }
    }
    (events, unknown)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_event_is_one_line_and_reads_back() {
        let events = [
            Event::at(
                Duration::from_micros(1_234_567),
                What::Step { step: "write\nkeys".into(), outcome: Outcome::Done, seconds: 0.25 },
            ),
            Event::at(Duration::from_secs(9), What::Phase { name: "api-ready".into() }),
        ];
        let text: String = events.iter().map(|event| event.line() + "\n").collect();
        insta::assert_snapshot!(text, @r#"
        {"t":1.235,"event":"step","step":"write\nkeys","outcome":"done","seconds":0.25}
        {"t":9.0,"event":"phase","name":"api-ready"}
        "#);
        assert_eq!(parse(&text), (events.to_vec(), 0));
    }

    #[test]
    fn a_torn_line_is_counted_and_the_rest_is_read() {
        let (events, unknown) = parse("{\"t\":1.0,\"event\":\"phase\",\"name\":\"x\"}\n{\"t\":2.0,\"eve");
        assert_eq!((events.len(), unknown), (1, 1));
    }

    fn boot() -> Vec<Span> {
        let manager = Manager { initrd: 1.5, userspace: 3.25, finish: 9.0 };
        let unit = |name: &str, begin, active| UnitTimes { name: name.into(), begin, active };
        let units = [
            unit("kubelet.service", 6.0, 6.1),
            unit("kubeboot-health.service", 5.5, 0.0),
            unit("kube-proxy.service", 0.0, 0.0),
        ];
        let step = |step: &str, outcome, seconds| What::Step { step: step.into(), outcome, seconds };
        let seat = What::Seat { slot: "factory".into(), version: "1.37.2-1".into(), why: "none other".into() };
        let events = [
            Event { t: 4.0, what: seat },
            Event { t: 5.0, what: step("make keys <&>", Outcome::Done, 0.75) },
            Event { t: 5.0, what: step("nothing to do", Outcome::Skipped, 0.0) },
            Event { t: 20.5, what: What::Phase { name: "node-ready".into() } },
        ];
        spans(&manager, &units, &events)
    }

    #[test]
    fn a_boot_as_a_table() {
        insta::assert_snapshot!(table(&boot()));
    }

    #[test]
    fn a_boot_as_a_picture() {
        insta::assert_snapshot!(svg(&boot(), "node <one>"));
    }

    #[test]
    fn spans_begin_in_order_and_never_end_before_they_begin() {
        let spans = boot();
        assert!(spans.windows(2).all(|pair| pair[0].begin <= pair[1].begin));
        assert!(spans.iter().all(|span| span.end.is_none_or(|end| end >= span.begin)));
    }
}
