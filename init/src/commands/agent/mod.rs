//! `kubeboot agent`: keeps the cluster's objects and the node's certificates what they should be, while the node runs.
//!
//! One thread, one loop: each duty has its own interval, and a duty that fails is tried again sooner, with backoff. The server
//! that serves operators, and on a control plane takes machines in, has threads of its own.

mod servers;
mod serving;
mod starting;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use watch::Watch;

use super::health;
use crate::exit::Exit;
use crate::host::api::{Api, ApiError};
use crate::host::discovery::serving::Warning;
use crate::host::enrolment::cluster::Enrolment;
use crate::host::mesh::keeper::Keeper;
use crate::host::node::ThisNode;
use crate::host::report::Report;
use crate::host::root::Root;
use crate::host::{clock, reconcile, renewal, systemd, wait};
use crate::kubernetes::addons;
use crate::timeline::{Outcome, What};
use crate::words;

/// How often add-ons and labels are compared with what is wanted.
const RECONCILE: Duration = Duration::from_secs(300);
/// How often it is seen to that removed machines are refused, and certificate requests.
const REFUSALS: Duration = Duration::from_secs(60);
/// How often certificates are looked at: the shortest-lived is due for two days before it ends.
const RENEW: Duration = Duration::from_secs(1800);
/// How often a worker asks where the API servers are: control planes come and go by hand, and one that stays is enough.
const ENDPOINTS: Duration = Duration::from_secs(30);
/// How often the mesh is told what the cluster says, and asked how it stands.
const MESH: Duration = Duration::from_secs(15);
/// How long no API server answers before a worker asks a control plane where they are, and between asking.
const LOST: Duration = Duration::from_secs(60);
/// When they are first looked at: boot has just done so, but a time server may have set the clock since.
const FIRST_RENEW: Duration = Duration::from_secs(60);
/// Longest pause of the loop; also feeds systemd's watchdog.
const TICK: Duration = Duration::from_secs(10);
/// Pauses after a failure: from this…
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// …doubled up to this.
const RETRY_LAST: Duration = Duration::from_secs(15);
/// While the API server starts for the first time the pauses stay short: it is on the way to Ready.
const START_LAST: Duration = Duration::from_millis(500);

/// How long everything else waits for the node to be Ready.
const NODE: Duration = Duration::from_secs(30);

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command. Ends only by a signal or by an error that waiting does not mend.
pub fn run(_: &Args) -> Exit {
    let root = Root::system();
    let mut report = Report::open(&root);
    let error = match Agent::new(&root) {
        Ok(mut agent) => agent.work(&mut report),
        Err(error) => error,
    };
    let fix = words::disk_fix(&error).map(|fix| format!(". Fix: {fix}")).unwrap_or_default();
    eprintln!("kubeboot: {error}{fix}");
    report.emit(What::Error { command: "agent".to_owned(), message: error });
    Exit::Failure
}

/// A thing that the agent does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    AddOns,
    /// Certificate requests that nobody needs are refused, whoever changes what refuses them.
    Requests,
    Enrolment,
    Labels,
    /// The operators of this machine's settings are on record.
    Operators,
    /// Machines that were removed are refused, whoever changes what refuses them.
    Removals,
    Renewals,
    /// Where the API servers are: for a worker's balancer, and for whom a control plane that comes back asks.
    Endpoints,
    Mesh,
}

/// A control plane's duties in the order in which they are first done. Permissions and add-ons come first: others wait for
/// them. Certificate requests are refused before the first machine is taken in.
const CONTROL_PLANE: &[(Duty, Duration)] = &[
    (Duty::AddOns, RECONCILE),
    (Duty::Requests, REFUSALS),
    (Duty::Enrolment, RECONCILE),
    (Duty::Operators, RECONCILE),
    (Duty::Labels, RECONCILE),
    (Duty::Removals, REFUSALS),
    (Duty::Renewals, RENEW),
    (Duty::Endpoints, ENDPOINTS),
    (Duty::Mesh, MESH),
];
/// A worker's duties. What it may change of the cluster's objects its kubelet does.
const WORKER: &[(Duty, Duration)] = &[(Duty::Endpoints, ENDPOINTS), (Duty::Renewals, RENEW), (Duty::Mesh, MESH)];

struct Agent<'a> {
    root: &'a Root,
    this: ThisNode,
    api: Api,
    /// A control plane's, once operators are served; it is open once machines are taken in.
    enrolment: Option<Arc<Enrolment>>,
    /// When to try next to serve operators; none: they are served.
    serve_at: Option<Duration>,
    /// None if its thread could not be started.
    mesh: Option<Keeper>,
    /// Another cluster of the same seed; a control plane's.
    warning: Warning,
    /// When an API server answered last, or a control plane was asked where they are.
    heard: Duration,
    /// What came of asking control planes where they are.
    found: String,
}

impl<'a> Agent<'a> {
    fn new(root: &'a Root) -> Result<Self, String> {
        let this = ThisNode::load(root)?;
        let api = this.api(root).map_err(|error| error.to_string())?;
        Ok(Agent {
            root,
            this,
            api,
            enrolment: None,
            serve_at: Some(Duration::ZERO),
            mesh: None,
            warning: Warning::default(),
            heard: clock::monotonic(),
            found: String::new(),
        })
    }

    fn work(&mut self, report: &mut Report) -> String {
        self.start_mesh();
        // Before anything that may take for ever: who looks for what is wrong asks now.
        self.serve();
        self.start_discovery();
        let mut watch = Watch::new(clock::unix(), clock::monotonic());
        if let Err(error) = self.vote(&mut watch, report) {
            return error;
        }
        let waited = self.await_api(&mut watch, report);
        if waited && self.this.is_control_plane() {
            // It has asked for the API server in vain while that started, and asks at longer and longer intervals, up to
            // a minute. A new process asks at once. Pods outlive it.
            if let Err(error) = systemd::restart_if_running("kubelet.service") {
                eprintln!("kubeboot: the kubelet was not started again: {error}. It finds the API server by itself");
            }
        }
        self.await_node();
        systemd::ready("the node's other services start");
        if let Err(error) = self.later_pods() {
            return error;
        }
        let duties = if self.this.is_control_plane() { CONTROL_PLANE } else { WORKER };
        let first = |duty: Duty| if duty == Duty::Renewals { clock::monotonic() + FIRST_RENEW } else { Duration::ZERO };
        let mut due: Vec<Duration> = duties.iter().map(|(duty, _)| first(*duty)).collect();
        let mut backoff = wait::Backoff::new(RETRY_FIRST, RETRY_LAST);
        let mut said = String::new();
        let mut warned = None;
        loop {
            systemd::alive();
            let warning = self.warning.text();
            if let Some(message) = warning.clone().filter(|_| warning != warned) {
                report.emit(What::Error { command: "agent".to_owned(), message });
            }
            warned.clone_from(&warning);
            if watch.was_set(clock::unix(), clock::monotonic()) {
                let renewals = duties.iter().zip(&mut due).filter(|((duty, _), _)| *duty == Duty::Renewals);
                renewals.for_each(|(_, due)| *due = Duration::ZERO);
            }
            let mut failed = None;
            for ((duty, interval), due) in duties.iter().zip(&mut due) {
                if clock::monotonic() < *due {
                    continue;
                }
                match self.perform(*duty, report) {
                    Ok(true) => *due = clock::monotonic() + *interval,
                    // Not possible yet, which is no error: the next round tries again.
                    Ok(false) => {}
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                None => {
                    systemd::status(warning.as_deref().unwrap_or("everything is as it should be"));
                    backoff.reset();
                    said.clear();
                    let next = due.iter().min().copied().unwrap_or_default();
                    let pause = next.saturating_sub(clock::monotonic());
                    wait::pause_for(pause.clamp(RETRY_FIRST, TICK));
                }
                Some(error) => {
                    // An outage is said once, not at every attempt.
                    if error != said {
                        systemd::status(&error);
                        eprintln!("kubeboot: {error}");
                    }
                    said = error;
                    backoff.pause();
                }
            }
        }
    }

    /// True when it was done, false when it can't be done yet.
    fn perform(&mut self, duty: Duty, report: &mut Report) -> Result<bool, String> {
        let words = |error: ApiError| error.to_string();
        match duty {
            Duty::AddOns => self.add_ons(report).map_err(words),
            Duty::Labels => reconcile::node_labels(&self.api, &self.this.node.name, &self.this.settings).map_err(words),
            Duty::Requests => reconcile::refuse_requests(&self.api).map(|()| true).map_err(words),
            Duty::Removals => reconcile::bar(&self.api, clock::unix()).map(|()| true).map_err(words),
            Duty::Enrolment => self.enrolment(),
            Duty::Operators => self.adopt_operators(),
            Duty::Renewals => self.renew(report),
            Duty::Endpoints => self.endpoints().map(|()| true),
            Duty::Mesh => self.tend_mesh().map(|()| true),
        }
    }

    /// Takes machines in, once everything is there that this needs; and sees that it stays there.
    fn enrolment(&mut self) -> Result<bool, String> {
        self.serve();
        // What stands in the way of serving was said.
        let Some(enrolment) = &self.enrolment else { return Ok(false) };
        enrolment.prepare()?;
        if !enrolment.is_open() {
            // From the first machine on that it is promised to, what etcd holds may not be begun anew.
            health::mark_ready(self.root);
            enrolment.open();
            println!("machines with a token are taken in on port {}", crate::enrolment::PORT);
        }
        Ok(true)
    }

    /// After machines are taken in: that never waits for it.
    fn adopt_operators(&self) -> Result<bool, String> {
        match self.enrolment.as_ref().filter(|enrolment| enrolment.is_open()) {
            Some(enrolment) => enrolment.adopt_operators().map(|()| true),
            None => Ok(false),
        }
    }

    fn add_ons(&self, report: &mut Report) -> Result<bool, ApiError> {
        let start = clock::monotonic();
        let name_servers = renewal::has_name_servers(self.root);
        let seen = addons::Seen { name_servers, nodes: reconcile::up_to_two_nodes(&self.api)? };
        let wanted = addons::wanted(&self.this.settings, &seen);
        let done = reconcile::add_ons(&self.api, &wanted)?;
        for object in &done.removed {
            println!("removed {object}, which no add-on wants any more");
        }
        let names: Vec<&str> = wanted.iter().map(|addon| addon.name).collect();
        let seconds = (clock::monotonic() - start).as_secs_f64();
        let step = format!("add-ons {} ({} objects)", names.join(", "), done.applied);
        report.emit(What::Step { step, outcome: Outcome::Done, seconds });
        Ok(true)
    }

    fn renew(&mut self, report: &mut Report) -> Result<bool, String> {
        let renewed = renewal::renew(self.root, &self.this)?;
        for line in &renewed.words {
            println!("{line}");
        }
        for event in renewed.operators {
            report.emit(event);
        }
        if renewed.kubelet
            && let Err(error) = systemd::restart_if_running("kubelet.service")
        {
            eprintln!(
                "kubeboot: the kubelet was not started again: {error}. It looks at its certificate every 5 minutes"
            );
        }
        if !renewed.words.is_empty() {
            // Its own certificate may be among them.
            self.api = self.this.api(self.root).map_err(|error| error.to_string())?;
            if let Some(enrolment) = &self.enrolment {
                enrolment.renew(Arc::new(self.this.api(self.root).map_err(|error| error.to_string())?));
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_changes_none_of_the_clusters_objects() {
        let of_a_worker: Vec<Duty> = WORKER.iter().map(|(duty, _)| *duty).collect();
        assert_eq!(of_a_worker, [Duty::Endpoints, Duty::Renewals, Duty::Mesh]);
    }
}
