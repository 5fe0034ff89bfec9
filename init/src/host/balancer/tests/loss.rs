//! Three control planes, each with a real etcd member and a real API server in a network of its own, behind the real
//! balancer. Each in turn is cut off, as by a power cut: nothing comes back from it any more, and nothing says why.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::*;
use crate::host::api::Api;
use crate::host::enrolment::tests::real::{self, Process};
use crate::host::root::Root;
use crate::host::{apart, process};
use crate::paths;

/// In what time an API server should answer again after another one's machine lost its power.
const TARGET: Duration = Duration::from_secs(5);
/// In what time one has to, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);
/// After so long a client gives an answer up by itself: what ends sooner the balancer has ended.
const GIVES_UP: Duration = Duration::from_secs(30);
/// How long after a cut answers are still waited for: what is noticed late is seen too.
const WATCHED: Duration = Duration::from_secs(10);
/// How long three API servers may take to start.
const START: Duration = Duration::from_secs(300);
/// Between what somebody asks for.
const PAUSE: Duration = Duration::from_millis(50);
/// How long somebody waits who writes: what was begun while etcd had no leader is answered late, and in vain.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is written and read.
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// `ETCD=PATH KUBE_APISERVER=PATH KUBEBOOT=PATH cargo test -p kubeboot --lib balancer::tests::loss -- --ignored --nocapture`
#[test]
#[ignore = "needs etcd, kube-apiserver and kubeboot, and a minute"]
fn whichever_of_three_control_planes_is_lost_the_api_answers_again_behind_the_balancer() {
    let name = "host::balancer::tests::loss::\
                whichever_of_three_control_planes_is_lost_the_api_answers_again_behind_the_balancer";
    apart::run(name, |folder| {
        // In memory, and gone with the namespace.
        mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let root = Root::at(folder.join("root"));
        std::fs::create_dir_all(root.path("/")).unwrap();
        real::found(&root);
        bridge();
        let planes = [1, 2, 3].map(|number| Plane::start(number, &root, &folder));
        let direct = planes.each_ref().map(|plane| plane.client(&root));
        let begun = Instant::now();
        for (plane, api) in planes.iter().zip(&direct) {
            let logs = ["etcd", "kube-apiserver"].map(|what| log(plane.number, what, &folder));
            let started = write_until(api, START.saturating_sub(begun.elapsed()));
            started.unwrap_or_else(|late| panic!("{late}\n{}", logs.map(|log| real::end_of(&log)).join("\n\n")));
        }
        let balancer = Balanced::start(&root);
        let through = client(&root, "balancer", &balancer.address.to_string());
        await_write(&through, LIMIT);
        let mut cuts = 0;
        for plane in &planes {
            let leads = plane.leads();
            let begun = Instant::now();
            let [reads, writes] = silences_without(plane, &through);
            let said = balancer.said_since(begun);
            println!("{}", said.join("\n"));
            let cut = format!("connections to {}:6443 are cut", address(plane.number));
            cuts += said.iter().filter(|line| line.contains(&cut)).count();
            let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
            // From a line's start, where who reports looks for it.
            println!(
                "\nreport: without control plane {} ({}): reads were silent for {}, writes for {} (target {})",
                plane.number,
                if leads { "etcd's leader" } else { "no leader" },
                seconds(reads),
                seconds(writes),
                seconds(TARGET)
            );
            assert!(reads < GIVES_UP, "who reads had to give up the connection: {reads:?}");
            assert!(writes <= LIMIT, "{writes:?}");
            plane.is_cut(false);
            direct.iter().for_each(|api| await_write(api, LIMIT));
            balancer.sees_all_healthy();
        }
        // Each is lost once, and who reads is at one of them: whose connection has to end by the balancer's hand.
        assert!(cuts >= 1, "the balancer cut no connection to a control plane that was lost");
    });
}

fn ip(words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    process::run("ip", &words, LIMIT).unwrap_or_else(|failure| panic!("{words:?}: {failure}"));
}

fn bridge() {
    ip("link set lo up");
    ip("link add planes type bridge");
    ip("address add 192.0.2.1/24 dev planes");
    ip("link set planes up");
}

fn program(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("expected {name}")))
}

/// A control plane in a network of its own.
struct Plane {
    number: u8,
    _processes: [Process; 2],
}

impl Plane {
    fn start(number: u8, root: &Root, folder: &Path) -> Self {
        let (etcd, server) = (Plane::etcd(number, folder), Plane::server(number, root));
        let logs = ["etcd", "kube-apiserver"].map(|what| std::fs::File::create(log(number, what, folder)).unwrap());
        // A thread has its own network once it has left the process's; what it starts has it as well.
        let started = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            ip(&format!("link add cable type veth peer name plane-{number} netns {}", std::process::id()));
            ip(&format!("address add {}/24 dev cable", address(number)));
            ip("link set cable up");
            let programs = [("ETCD", etcd), ("KUBE_APISERVER", server)];
            let mut logs = logs.into_iter();
            programs.map(|(name, words)| {
                let mut command = Command::new(program(name));
                command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(logs.next().unwrap());
                Process(command.spawn().unwrap())
            })
        });
        let processes = started.join().unwrap();
        ip(&format!("link set plane-{number} master planes up"));
        Plane { number, _processes: processes }
    }

    /// With etcd's own times, as the manifest has them.
    fn etcd(number: u8, folder: &Path) -> Vec<String> {
        let peer = |number: u8| format!("http://{}:2380", address(number));
        let all = [1, 2, 3].map(|number| format!("{number}={}", peer(number)));
        vec![
            format!("--name={number}"),
            format!("--data-dir={}", folder.join(format!("etcd-{number}")).display()),
            "--unsafe-no-fsync".to_owned(),
            "--listen-client-urls=http://0.0.0.0:2379".to_owned(),
            format!("--advertise-client-urls=http://{}:2379", address(number)),
            format!("--listen-peer-urls={}", peer(number)),
            format!("--initial-advertise-peer-urls={}", peer(number)),
            format!("--initial-cluster={}", all.join(",")),
        ]
    }

    /// Asks the member of etcd beside it, and no other.
    fn server(number: u8, root: &Root) -> Vec<String> {
        let own =
            ["--etcd-servers=http://127.0.0.1:2379".to_owned(), format!("--advertise-address={}", address(number))];
        [&own[..], &real::server_flags(root)].concat()
    }

    fn is_cut(&self, cut: bool) {
        ip(&format!("link set plane-{} {}", self.number, if cut { "down" } else { "up" }));
    }

    fn client(&self, root: &Root) -> Api {
        client(root, &format!("plane-{}", self.number), &format!("{}:6443", address(self.number)))
    }

    /// Whether its member leads etcd.
    fn leads(&self) -> bool {
        let mut socket = TcpStream::connect((address(self.number), 2379)).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut metrics = String::new();
        socket.read_to_string(&mut metrics).unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix("etcd_server_is_leader "));
        line.unwrap_or_else(|| panic!("etcd's metrics do not say who leads: {metrics}")) == "1"
    }
}

fn log(number: u8, what: &str, folder: &Path) -> PathBuf {
    folder.join(format!("{what}-{number}.log"))
}

fn address(number: u8) -> String {
    format!("192.0.2.1{number}")
}

/// The administrator's client, of the API server at this place: its certificate's name is the Service's.
fn client(root: &Root, name: &str, place: &str) -> Api {
    let config = std::fs::read_to_string(root.path("/etc/kubernetes/super-admin.conf")).unwrap();
    let line = config.lines().find(|line| line.trim_start().starts_with("server:")).unwrap();
    let indent = &line[..line.len() - line.trim_start().len()];
    let there = format!("{indent}server: https://{place}\n{indent}tls-server-name: kubernetes.default.svc");
    let path = root.path(format!("/run/kubeboot/{name}.conf"));
    std::fs::write(&path, config.replace(line, &there)).unwrap();
    Api::from_kubeconfig(&path).unwrap()
}

fn write(api: &Api, within: Duration) -> Result<(), String> {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "written-"}});
    api.post_within(CONFIG_MAPS, &object, within).map(drop).map_err(|error| error.to_string())
}

fn write_until(api: &Api, limit: Duration) -> Result<(), wait::TimedOut> {
    wait::until(&format!("a write through {}", api.server()), limit, PAUSE, || write(api, PATIENCE))
}

fn await_write(api: &Api, limit: Duration) {
    write_until(api, limit).unwrap_or_else(|late| panic!("{late}"));
}

/// The real balancer as a process.
struct Balanced {
    address: SocketAddr,
    view: PathBuf,
    /// What it has said, and when.
    log: Arc<Mutex<Vec<(Instant, String)>>>,
    _process: Process,
}

impl Balanced {
    fn start(root: &Root) -> Self {
        let [endpoints, view] =
            ["endpoints.json", "balancer.json"].map(|file| root.path(format!("/run/kubeboot/{file}")));
        let servers = [1, 2, 3].map(|number| format!("{}:6443", address(number)).parse().unwrap());
        std::fs::write(&endpoints, Endpoints::of(servers).text()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut command = Command::new(program("KUBEBOOT"));
        command.arg("balancer").arg("--endpoints").arg(&endpoints).arg("--view").arg(&view);
        command.arg("--authority").arg(root.path(format!("{}/ca.crt", paths::PKI)));
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process(command.spawn().unwrap());
        let (said, log) = (process.0.stdout.take().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                lines.lock().unwrap().push((Instant::now(), line));
            }
        });
        let balancer = Balanced { address, view, log, _process: process };
        balancer.sees_all_healthy();
        balancer
    }

    /// What it has said since, and how long after.
    fn said_since(&self, moment: Instant) -> Vec<String> {
        let lines = self.log.lock().unwrap();
        let since = lines.iter().filter_map(|(at, line)| Some((at.checked_duration_since(moment)?, line)));
        since.map(|(after, line)| format!("    {:.1} s: {line}", after.as_secs_f64())).collect()
    }

    fn sees_all_healthy(&self) {
        let seen = wait::until("three healthy API servers", LIMIT, PAUSE, || {
            let view = std::fs::read_to_string(&self.view).unwrap_or_default();
            if view.matches("\"healthy\"").count() == 3 { Ok(()) } else { Err(view) }
        });
        seen.unwrap_or_else(|late| panic!("{late}"));
    }
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Cuts a control plane off, and gives for how long at most nothing was read and nothing written through the balancer. Who
/// reads keeps the connection and waits for answers, as a kubelet does: that the machine behind it is gone, the balancer has
/// to notice.
fn silences_without(plane: &Plane, api: &Api) -> [Duration; 2] {
    let read = || api.get(&format!("{CONFIG_MAPS}?limit=1")).map(drop).map_err(|error| error.to_string());
    let ask: [&(dyn Fn() -> Result<(), String> + Sync); 2] = [&read, &|| write(api, PATIENCE)];
    let (answered, done) = ([(); 2].map(|()| Mutex::new(Vec::new())), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Those who ask end with this, a panic too: the scope waits for them.
        let _ends = Ends(&done);
        for (ask, answered) in ask.iter().zip(&answered) {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    if ask().is_ok() {
                        answered.lock().unwrap().push(Instant::now());
                    }
                    wait::pause_for(PAUSE);
                }
            });
        }
        let until = |moment: Instant| {
            let late = || answered.iter().all(|times| times.lock().unwrap().last().is_some_and(|last| *last >= moment));
            let seen = wait::until("both to be answered", WATCHED + LIMIT, PAUSE, || {
                if late() { Ok(()) } else { Err("silence".to_owned()) }
            });
            seen.unwrap_or_else(|silent| panic!("{silent}"));
        };
        until(Instant::now());
        plane.is_cut(true);
        until(Instant::now() + WATCHED);
    });
    answered.map(|times| {
        let times = times.into_inner().unwrap();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    })
}
