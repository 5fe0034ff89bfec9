//! `kubeboot agent`: keeps the cluster's objects and the node's certificates what they should be, while the node runs.
//!
//! One thread, one loop: each duty has its own interval, and a duty that fails is tried again sooner, with backoff.

use std::time::Duration;

use crate::exit::Exit;
use crate::host::api::{Api, ApiError};
use crate::host::node::ThisNode;
use crate::host::report::Report;
use crate::host::root::Root;
use crate::host::{clock, reconcile, renewal, systemd, wait};
use crate::kubernetes::addons;
use crate::timeline::{Outcome, What};

/// How often kubelets' certificate requests are looked for: they renew days before they must.
const APPROVE: Duration = Duration::from_secs(20);
/// How often add-ons and labels are compared with what is wanted.
const RECONCILE: Duration = Duration::from_secs(300);
/// How often certificates are looked at: the shortest-lived is due for two days before it ends.
const RENEW: Duration = Duration::from_secs(1800);
/// Longest pause of the loop; also feeds systemd's watchdog.
const TICK: Duration = Duration::from_secs(10);
/// Pauses after a failure: from this…
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// …doubled up to this.
const RETRY_LAST: Duration = Duration::from_secs(15);
/// While the API server starts for the first time the pauses stay short: it is on the way to Ready.
const START_LAST: Duration = Duration::from_millis(500);

/// How long the kubelet may take to register the node: it asks every 7 seconds at most.
const REGISTER: Duration = Duration::from_secs(15);

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
    eprintln!("kubeboot: {error}");
    report.emit(What::Error { command: "agent".to_owned(), message: error });
    Exit::Failure
}

/// A thing that the agent does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    AddOns,
    Labels,
    Approvals,
    Renewals,
}

/// The duties in the order in which they are first done. Permissions and add-ons come first: others wait for them.
const DUTIES: [(Duty, Duration); 4] =
    [(Duty::AddOns, RECONCILE), (Duty::Labels, RECONCILE), (Duty::Approvals, APPROVE), (Duty::Renewals, RENEW)];

struct Agent<'a> {
    root: &'a Root,
    this: ThisNode,
    api: Api,
}

impl<'a> Agent<'a> {
    fn new(root: &'a Root) -> Result<Self, String> {
        let this = ThisNode::load(root)?;
        let api = this.api(root).map_err(|error| error.to_string())?;
        Ok(Agent { root, this, api })
    }

    fn work(&mut self, report: &mut Report) -> String {
        self.await_api();
        self.await_node();
        // What could only wait for the API server, and would take the processor from the kubelet's way to Ready.
        if self.this.is_control_plane()
            && let Err(error) = renewal::static_pods(self.root, &self.this)
        {
            return error;
        }
        let mut due = DUTIES.map(|_| Duration::ZERO);
        // Boot has just looked at the certificates.
        due[3] = clock::monotonic() + RENEW;
        let mut backoff = wait::Backoff::new(RETRY_FIRST, RETRY_LAST);
        let mut started = false;
        let mut said = String::new();
        loop {
            systemd::alive();
            let mut failed = None;
            for ((duty, interval), due) in DUTIES.into_iter().zip(&mut due) {
                if clock::monotonic() < *due {
                    continue;
                }
                match self.perform(duty, report) {
                    Ok(true) => *due = clock::monotonic() + interval,
                    // Not possible yet, which is no error: the next round tries again.
                    Ok(false) => {}
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                None => {
                    if !started {
                        systemd::ready("add-ons are applied");
                        started = true;
                    }
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

    fn await_api(&self) {
        systemd::status("waiting for the API server");
        let mut backoff = wait::Backoff::new(RETRY_FIRST, START_LAST);
        while !matches!(self.api.text("/readyz"), Ok((200, _))) {
            systemd::alive();
            backoff.pause();
        }
    }

    /// Waits until the kubelet has registered a new cluster's only node, and gives it its block of pod addresses: with
    /// it the node is Ready, long before the controller-manager could have given it one. What fails here, it does.
    fn await_node(&self) {
        systemd::status("waiting for the kubelet to register the node");
        let node = &self.this.node.name;
        let given = wait::until("the kubelet to register the node", REGISTER, RETRY_FIRST, || {
            systemd::alive();
            match reconcile::first_block(&self.api, node, &self.this.settings) {
                Ok(true) => Ok(()),
                Ok(false) => Err(format!("no node {node} yet")),
                Err(error) => Err(error.to_string()),
            }
        });
        if let Err(late) = given {
            eprintln!("kubeboot: {late}. The controller-manager gives it its block of addresses");
        }
    }

    /// True when it was done, false when it can't be done yet.
    fn perform(&mut self, duty: Duty, report: &mut Report) -> Result<bool, String> {
        let words = |error: ApiError| error.to_string();
        match duty {
            Duty::AddOns => self.add_ons(report).map_err(words),
            Duty::Labels => reconcile::node_labels(&self.api, &self.this.node.name, &self.this.settings).map_err(words),
            Duty::Approvals => {
                let own = &self.this.node.name;
                for ruling in reconcile::kubelet_requests(&self.api, |node| node == own).map_err(words)? {
                    println!("{ruling}");
                }
                Ok(true)
            }
            Duty::Renewals => self.renew(report),
        }
    }

    fn add_ons(&self, report: &mut Report) -> Result<bool, ApiError> {
        let start = clock::monotonic();
        let wanted = addons::wanted(&self.this.settings, renewal::has_name_servers(self.root));
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
        if !renewed.words.is_empty() {
            // Its own certificate may be among them.
            self.api = self.this.api(self.root).map_err(|error| error.to_string())?;
        }
        Ok(true)
    }
}
