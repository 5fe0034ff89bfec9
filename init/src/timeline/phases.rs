//! From moments to spans: what took from when until when.

use serde::Serialize;

use super::{Event, Outcome, What};

/// When systemd reached its stages, in seconds since the kernel started (org.freedesktop.systemd1(5),
/// `…TimestampMonotonic`). Zero means that it never did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manager {
    /// The initrd's systemd started.
    pub initrd: f64,
    /// The real root's systemd started.
    pub userspace: f64,
    /// Every unit that was queued at start has started.
    pub finish: f64,
}

/// When a unit began to start and when it had started, in seconds since the kernel started; zero for never.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UnitTimes {
    /// Its name.
    pub name: String,
    /// It left the state "inactive".
    pub begin: f64,
    /// It became active.
    pub active: f64,
}

/// What kind of thing a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Kernel, initrd and user space.
    Stage,
    /// A unit's start.
    Unit,
    /// A step of kubeboot's.
    Step,
    /// A moment: it has no length.
    Milestone,
}

/// Something from when until when, in seconds since the kernel started.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Span {
    /// Its kind.
    pub group: Group,
    /// What it is.
    pub name: String,
    /// Its begin.
    pub begin: f64,
    /// Its end; none while it goes on.
    pub end: Option<f64>,
}

/// Everything in the order in which it began. `now` bounds what goes on.
pub fn spans(manager: &Manager, units: &[UnitTimes], events: &[Event]) -> Vec<Span> {
    let reached = |moment: f64| (moment > 0.0).then_some(moment);
    let mut spans = vec![Span {
        group: Group::Stage,
        name: "kernel".to_owned(),
        begin: 0.0,
        end: reached(manager.initrd).or(reached(manager.userspace)),
    }];
    if let Some(begin) = reached(manager.initrd) {
        spans.push(Span { group: Group::Stage, name: "initrd".into(), begin, end: reached(manager.userspace) });
    }
    if let Some(begin) = reached(manager.userspace) {
        spans.push(Span { group: Group::Stage, name: "user space".into(), begin, end: reached(manager.finish) });
    }
    let started = |unit: &UnitTimes| {
        let begin = reached(unit.begin)?;
        // A unit that was stopped and started again has an older end.
        let end = reached(unit.active).filter(|end| *end >= begin);
        Some(Span { group: Group::Unit, name: unit.name.clone(), begin, end })
    };
    spans.extend(units.iter().filter_map(started));
    spans.extend(events.iter().filter_map(span));
    spans.sort_by(|one, two| one.begin.total_cmp(&two.begin));
    spans
}

fn span(event: &Event) -> Option<Span> {
    let moment = |name: String| Some(Span { group: Group::Milestone, name, begin: event.t, end: Some(event.t) });
    match &event.what {
        What::Step { outcome: Outcome::Skipped, .. } => None,
        What::Step { step, outcome, seconds } => Some(Span {
            group: Group::Step,
            name: if *outcome == Outcome::Failed { format!("{step} (failed)") } else { step.clone() },
            begin: (event.t - seconds).max(0.0),
            end: Some(event.t),
        }),
        What::Seat { version, slot, .. } => moment(format!("release {version} seated ({slot})")),
        What::Phase { name } => moment(name.replace('-', " ")),
        What::Gate { gate, pass: true, .. } => moment(format!("gate {gate} passes")),
        What::Gate { gate, pass: false, .. } => moment(format!("gate {gate} no longer passes")),
        What::Ready { .. } => moment("Ready".to_owned()),
        What::Error { command, .. } => moment(format!("error in {command}")),
        What::Operator { .. } => None,
    }
}
