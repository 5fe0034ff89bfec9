//! How the agent begins: the mesh and discovery beside everything else, etcd's vote, the API server, the node.

use std::time::Duration;

use super::watch::Watch;
use super::{Agent, FIRST_RENEW, NODE, RETRY_FIRST, RETRY_LAST, START_LAST};
use crate::etcd::Membership;
use crate::etcd::circle::{Circle, Turn};
use crate::host::api::ApiError;
use crate::host::discovery::serving;
use crate::host::etcd::Word;
use crate::host::mesh::keeper::Keeper;
use crate::host::node::ThisNode;
use crate::host::report::Report;
use crate::host::root::Root;
use crate::host::{clock, etcd, files, gates, reconcile, renewal, systemd, wait};
use crate::paths;
use crate::settings::Role;

impl Agent<'_> {
    /// The mesh runs beside everything else, and nothing waits for it.
    pub(super) fn start_mesh(&mut self) {
        match Keeper::new(self.root, &self.this) {
            Ok(keeper) => self.mesh = Some(keeper),
            Err(error) => eprintln!("kubeboot: the mesh does not run: {error}"),
        }
    }

    /// Beside everything else as well: a cluster that can't be found on the local network is one all the same.
    pub(super) fn start_discovery(&mut self) {
        if self.this.is_control_plane() {
            match serving::start(&self.this) {
                Ok(warning) => self.warning = warning,
                Err(error) => eprintln!("kubeboot: this control plane can't be found on the local network: {error}"),
            }
        }
    }

    /// On a control plane that joined: waits until its member of etcd's has a vote, which it gets when it has all that the
    /// others have, and starts the API server, which no member without one can answer.
    pub(super) fn vote(&mut self, watch: &mut Watch, report: &mut Report) -> Result<(), String> {
        if self.this.settings.role == Some(Role::ControlPlane) && self.this.membership.is_none() {
            self.wait_for_a_boot(watch, report);
        }
        let Some(mut membership) = learner(self.root, &self.this)? else { return Ok(()) };
        let mut backoff = wait::Backoff::new(RETRY_FIRST, RETRY_LAST);
        let mut renewals = clock::monotonic() + FIRST_RENEW;
        let (mut circle, mut said) = (Circle::default(), String::new());
        loop {
            systemd::alive();
            self.renew_waiting(watch, &mut renewals, report);
            if let Err(error) = self.tend_mesh() {
                eprintln!("kubeboot: {error}");
            }
            let why = match etcd::vote(self.root, &membership, &self.this.node, &mut circle)? {
                etcd::Vote::Has => break,
                etcd::Vote::NotYet(why) => why,
                etcd::Vote::Silence(why) => self.learn_members(&mut circle, &why),
                etcd::Vote::Moved(now) => {
                    println!("etcd's members are others than when this machine got its place: etcd starts with those");
                    self.this.membership = Some(now.clone());
                    membership = now;
                    renewal::first_pods(self.root, &self.this)?;
                    continue;
                }
                etcd::Vote::Removed => {
                    let lost = files::remove(&self.root.path(paths::ETCD_MEMBERSHIP));
                    lost.map_err(|error| format!("can't remove {}: {error}", paths::ETCD_MEMBERSHIP))?;
                    self.wait_for_a_boot(watch, report);
                }
            };
            systemd::status(&format!("etcd has no vote here yet: {why}"));
            if why != said {
                println!("etcd has no vote here yet: {why}");
            }
            said = why;
            backoff.pause();
        }
        println!("etcd has a vote here: the API server starts");
        self.heard = clock::monotonic();
        self.this.membership = Some(membership.promoted());
        renewal::first_pods(self.root, &self.this).map(drop)
    }

    /// No member of etcd's answers that is known here: who there is now the mesh may know, or the control planes say.
    /// Returns why this machine waits.
    fn learn_members(&mut self, circle: &mut Circle, why: &str) -> String {
        self.servers_of_the_mesh();
        if circle.silence(clock::monotonic()) == Turn::AskControlPlanes {
            let whom = renewal::whom(self.root, &self.this);
            let came = match self.ask_control_planes() {
                Word::Yes(record) => record.words(),
                Word::Later(said) => format!("none says where etcd is now: {said}"),
                Word::No(block) => block.line(),
            };
            circle.learned(&whom, &came);
        }
        circle.words(why)
    }

    /// This machine has no place in etcd any more: it was given to another, or the node was removed. Only a boot asks for
    /// one, after it has asked the cluster whether this is a node of it; until then nothing of a control plane may run.
    fn wait_for_a_boot(&mut self, watch: &mut Watch, report: &mut Report) -> ! {
        let words = "this machine's member of etcd was removed before it had a vote. Fix: restart the machine; if it is still a \
                     node of the cluster, it joins etcd anew";
        systemd::status(words);
        eprintln!("kubeboot: {words}");
        self.this.membership = None;
        let mut renewals = clock::monotonic() + FIRST_RENEW;
        let mut backoff = wait::Backoff::new(RETRY_LAST, RETRY_LAST);
        loop {
            systemd::alive();
            self.renew_waiting(watch, &mut renewals, report);
            if let Err(error) = self.tend_mesh() {
                eprintln!("kubeboot: {error}");
            }
            backoff.pause();
        }
    }

    /// A control plane whose API server does not start may have been removed while it was off: then it never will.
    fn say_if_removed(&self) -> bool {
        let removed = self.this.is_control_plane() && etcd::was_removed(self.root, &self.this.node);
        if removed {
            let name = &self.this.node.name;
            let words =
                format!("the cluster has removed {name}: etcd has no such member any more. Fix: kubeboot reset");
            systemd::status(&words);
            eprintln!("kubeboot: {words}");
        }
        removed
    }

    /// With a certificate that has expired, by the new time or in the course of waiting, nobody is ever answered.
    pub(super) fn renew_waiting(&mut self, watch: &mut Watch, due: &mut Duration, report: &mut Report) {
        if watch.was_set(clock::unix(), clock::monotonic()) || clock::monotonic() >= *due {
            *due = clock::monotonic() + FIRST_RENEW;
            if let Err(error) = self.renew(report) {
                eprintln!("kubeboot: {error}");
            }
        }
    }

    /// True when it was not ready at once: it is starting, as at each boot of a control plane.
    pub(super) fn await_api(&mut self, watch: &mut Watch, report: &mut Report) -> bool {
        systemd::status("waiting for the API server");
        let mut backoff = wait::Backoff::new(RETRY_FIRST, START_LAST);
        let mut waited = false;
        let mut renewals = clock::monotonic() + FIRST_RENEW;
        let mut question = renewals;
        while !matches!(self.api.text("/readyz"), Ok((200, _))) {
            waited = true;
            systemd::alive();
            self.renew_waiting(watch, &mut renewals, report);
            self.find_servers();
            if clock::monotonic() >= question {
                // Said once: nothing here changes it.
                question = if self.say_if_removed() { Duration::MAX } else { clock::monotonic() + FIRST_RENEW };
            }
            if let Err(error) = self.tend_mesh() {
                eprintln!("kubeboot: {error}");
            }
            backoff.pause();
        }
        self.heard = clock::monotonic();
        waited
    }

    /// Starts the static pods that had to wait. On a machine that was switched off, their predecessors still hold the
    /// leases by which one of several control planes leads; nobody would lead until those have expired.
    pub(super) fn later_pods(&self) -> Result<(), String> {
        if !self.this.is_control_plane() {
            return Ok(());
        }
        if !renewal::later_pods_run(self.root, &self.this)
            && let Err(error) = reconcile::give_up_leases(&self.api, &self.this.node.name)
        {
            eprintln!("kubeboot: {error}. The leases of this machine's last boot expire by themselves");
        }
        renewal::static_pods(self.root, &self.this).map(drop)
    }

    /// Waits, for a while, until the node is Ready: what else starts now would take the processor from the kubelet's way
    /// there. A new cluster's only node gets its block of pod addresses here, long before the controller-manager could
    /// have given it one; what fails here, that does.
    pub(super) fn await_node(&self) {
        systemd::status("waiting for the node to be Ready");
        let node = &self.this.node.name;
        let boot = gates::boot_id(self.root);
        // In a cluster that a machine joins the controller-manager is there already.
        let mut has_block = self.this.settings.role != Some(Role::Init);
        let ready = wait::until("the node to be Ready", NODE, RETRY_FIRST, || {
            systemd::alive();
            let words = |error: ApiError| error.to_string();
            if !has_block {
                has_block = reconcile::first_block(&self.api, node, &self.this.settings).map_err(words)?;
            }
            reconcile::node_is_ready(&self.api, node, &boot).map_err(words)?
        });
        if let Err(late) = ready {
            eprintln!("kubeboot: {late}. Everything else starts now");
        }
    }
}

/// This machine's member of etcd's, while it has no vote. Its pods are those of its record when this returns: an agent
/// that ended between the record and the manifests left others, and nothing else would render these before the next boot.
/// By the record of a learner there is no API server among them.
fn learner(root: &Root, this: &ThisNode) -> Result<Option<Membership>, String> {
    let Some(membership) = &this.membership else { return Ok(None) };
    for path in renewal::first_pods(root, this)? {
        println!("{path} is rendered again: the last agent ended before it was");
    }
    Ok((!membership.voter).then(|| membership.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::Member;
    use crate::host::enrolment::tests::real;

    const API_SERVER: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
    const ETCD: &str = "/etc/kubernetes/manifests/etcd.yaml";

    /// A learner beside a member of this name, as it is before etcd starts.
    fn membership(other: &str) -> Membership {
        let peers = vec!["https://192.0.2.9:2380".into()];
        let other = Member { id: 1, name: other.into(), peers, clients: Vec::new(), learner: false };
        Membership::learner(7, "one", "https://192.0.2.10:2380", &[other])
    }

    /// A control plane whose record is this one, as an agent finds it that starts: its predecessor wrote the record last.
    fn restarted(root: &Root, membership: &Membership) -> ThisNode {
        files::write_atomic(&root.path(paths::ETCD_MEMBERSHIP), membership.text().as_bytes(), 0o600).unwrap();
        let mut this = ThisNode::load(root).unwrap();
        this.settings.role = Some(Role::ControlPlane);
        this
    }

    /// A machine that booted as a learner beside `zero`.
    fn booted() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        real::found(&root);
        let this = restarted(&root, &membership("zero"));
        renewal::first_pods(&root, &this).unwrap();
        (folder, root)
    }

    fn text(root: &Root, path: &str) -> String {
        String::from_utf8(files::read_optional(&root.path(path)).unwrap().unwrap_or_default()).unwrap()
    }

    #[test]
    fn an_agent_that_ended_after_its_member_moved_is_made_up_for() {
        let (_folder, root) = booted();
        assert!(text(&root, ETCD).contains("zero=https://192.0.2.9:2380"));
        let moved = membership("six");
        let this = restarted(&root, &moved);
        assert_eq!(learner(&root, &this), Ok(Some(moved)));
        let etcd = text(&root, ETCD);
        assert!(etcd.contains("six=https://192.0.2.9:2380") && !etcd.contains("zero="), "{etcd}");
        assert!(!files::exists(&root.path(API_SERVER)), "it has no vote");
        assert_eq!(renewal::first_pods(&root, &this), Ok(Vec::new()), "nothing differs any more");
    }

    #[test]
    fn an_agent_that_ended_after_its_member_got_a_vote_is_made_up_for() {
        let (_folder, root) = booted();
        let etcd = text(&root, ETCD);
        let this = restarted(&root, &membership("zero").promoted());
        assert_eq!(learner(&root, &this), Ok(None), "nothing to wait for");
        assert!(files::exists(&root.path(API_SERVER)));
        assert_eq!(text(&root, ETCD), etcd, "its pod goes on");
    }

    #[test]
    fn without_a_record_nothing_is_rendered() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let mut this = real::found(&root);
        this.settings.role = Some(Role::ControlPlane);
        assert_eq!(learner(&root, &this), Ok(None));
        assert!(!files::exists(&root.path(ETCD)) && !files::exists(&root.path(API_SERVER)));
    }
}
