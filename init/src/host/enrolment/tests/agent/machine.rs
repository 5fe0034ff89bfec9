//! A machine that was founded: its own root and network, a real etcd and a real API server as its manifests say, and the
//! real agent.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::chroot;
use serde_json::{Value, json};

use super::network;
use super::*;
use crate::host::api::Api;
use crate::host::enrolment::store::InApi;
use crate::host::enrolment::tests::real::{self, Process};
use crate::host::node::ThisNode;
use crate::host::root::Root;
use crate::host::{founder, gates, renewal};
use crate::kubernetes;
use crate::paths;

/// Where the agent's program lies, as in the image.
const KUBEBOOT: &str = "/usr/bin/kubeboot";

/// How long the API server, and what waits for it, may take.
const START: Duration = Duration::from_secs(180);

pub(super) struct TheMachine {
    pub(super) this: ThisNode,
    /// The administrator's, by the network.
    api: Arc<Api>,
    agent: Mutex<Process>,
    log: Arc<Mutex<Vec<String>>>,
    _control_plane: [Process; 2],
}

impl TheMachine {
    /// Founds a machine below `folder` and waits until its agent takes machines in.
    pub(super) fn start(folder: &Path) -> Self {
        // In memory, and gone with the namespace.
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let root = Root::at(folder);
        let this = real::found_at(&root, network::MACHINE.into());
        furnish(&root, &this);
        let inside = root.clone();
        // A thread has its own root and network once it has left the process's; what it starts has them as well.
        let started = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_FS).unwrap();
            network::of_machine();
            let control_plane = ["etcd", "kube-apiserver"].map(|name| (name, command(&inside, name)));
            chroot(&inside.path("/")).unwrap();
            std::env::set_current_dir("/").unwrap();
            let control_plane = control_plane.map(|(name, words)| {
                let log = std::fs::File::create(format!("/{name}.log")).unwrap();
                run(&words, Stdio::null(), log.into())
            });
            let agent = run(&[KUBEBOOT, "agent"].map(str::to_owned), Stdio::piped(), Stdio::piped());
            (control_plane, agent)
        });
        let (control_plane, mut agent) = started.join().unwrap();
        network::of_everybody_else();
        let log = hear(&mut agent);
        let api = Arc::new(Api::from_kubeconfig(&root.path("/etc/kubernetes/super-admin.conf")).unwrap());
        let control_plane = control_plane.map(Process);
        let machine = TheMachine { this, api, agent: Mutex::new(Process(agent)), log, _control_plane: control_plane };
        real::await_api(&machine.api, folder);
        machine.register();
        machine.heard_within(START, "", "machines with a token are taken in on port 7440");
        machine
    }

    /// Says that the node is Ready, as the kubelet would: none runs here, and the agent would wait for it.
    fn register(&self) {
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.this.node.name},
            "status": {
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
                "nodeInfo": {"bootID": gates::boot_id(&Root::system())},
            },
        });
        self.api.post("/api/v1/nodes", &node).unwrap();
    }

    /// The cluster's tokens and nodes.
    pub(super) fn store(&self) -> Store {
        Store::new(Arc::new(InApi::new(self.api.clone())))
    }

    /// The first line of the agent's about this address that has these words.
    pub(super) fn heard(&self, from: Ipv4Addr, words: &str) -> String {
        self.heard_within(LIMIT, &format!("enrolment: {from}: "), words)
    }

    /// The first line of the agent's that has these words.
    pub(super) fn heard_anywhere(&self, words: &str) -> String {
        self.heard_within(LIMIT, "", words)
    }

    fn heard_within(&self, limit: Duration, start: &str, words: &str) -> String {
        let condition = format!("the agent to say {words:?} after {start:?}");
        let line = wait::until(&condition, limit, Duration::from_millis(5), || {
            let lines = self.log();
            let found = lines.iter().find(|line| line.starts_with(start) && line.contains(words));
            found.cloned().ok_or_else(|| lines[lines.len().saturating_sub(30)..].join("\n"))
        });
        line.unwrap_or_else(|late| panic!("{late}"))
    }

    /// The cluster's identity key, public.
    pub(super) fn identity(&self) -> [u8; 32] {
        Founded::of(&self.this.cluster).unwrap().identity_key
    }

    /// What the agent has said so far.
    pub(super) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// How the agent has ended, if it has.
    pub(super) fn ended(&self) -> Option<String> {
        self.agent.lock().unwrap().0.try_wait().unwrap().map(|status| status.to_string())
    }
}

impl Drop for TheMachine {
    /// A test that failed shows what the agent said last.
    fn drop(&mut self) {
        if thread::panicking() {
            let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            println!("the agent said last:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// What the image, the boot and the seat's mount put there.
fn furnish(root: &Root, this: &ThisNode) {
    founder::render(root, &renewal::site(root, this), &kubernetes::policies::renders()).unwrap();
    renewal::first_pods(root, this).unwrap();
    for (path, from) in [
        (format!("{}/bin/etcd", paths::SEAT), program("ETCD")),
        (format!("{}/bin/kube-apiserver", paths::SEAT), program("KUBE_APISERVER")),
        (KUBEBOOT.to_owned(), program("KUBEBOOT")),
        ("/dev/null".to_owned(), "/dev/null".into()),
    ] {
        let path = root.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        mount(Some(&from), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
    let proc = root.path("/proc");
    std::fs::create_dir(&proc).unwrap();
    mount(Some("proc"), &proc, Some("proc"), MsFlags::empty(), None::<&str>).unwrap();
}

fn program(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("expected {name}")))
}

/// What the static pod of this name runs.
fn command(root: &Root, name: &str) -> Vec<String> {
    let manifest = std::fs::read_to_string(root.path(format!("{}/{name}.yaml", paths::MANIFESTS))).unwrap();
    let manifest: Value = serde_saphyr::from_str(&manifest).unwrap();
    serde_json::from_value(manifest["spec"]["containers"][0]["command"].clone()).unwrap()
}

fn run(words: &[String], stdout: Stdio, stderr: Stdio) -> Child {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_clear().stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    command.spawn().unwrap_or_else(|error| panic!("{}: {error}", words[0]))
}

/// Collects what the agent says: both streams, which are its journal.
fn hear(agent: &mut Child) -> Arc<Mutex<Vec<String>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let streams: [Box<dyn Read + Send>; 2] =
        [Box::new(agent.stdout.take().unwrap()), Box::new(agent.stderr.take().unwrap())];
    for stream in streams {
        let log = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                log.lock().unwrap().push(line);
            }
        });
    }
    log
}
