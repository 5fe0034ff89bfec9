//! kubeboot's own work at a founder's first boot, from the sources to the last file written: CPU time of this process,
//! natively, below a root directory of its own. `cargo bench -p kubeboot --bench founding`
#![allow(clippy::disallowed_methods, reason = "a benchmark makes its machine")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use kubeboot::host::founder::{act, inputs, look, render};
use kubeboot::host::root::Root;
use kubeboot::host::{clock, sources};
use kubeboot::kubernetes::{self, Site, static_pods};
use kubeboot::plan::record::{Cluster, Node};
use kubeboot::plan::{self, Founder};
use kubeboot::settings::frozen::Frozen;
use kubeboot::{facts, paths};
use nix::sys::resource::{UsageWho, getrusage};

const ROUNDS: usize = 21;

fn main() {
    let mut rounds: Vec<Duration> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort();
    let shown = |one: Duration| format!("{:.1} ms", one.as_secs_f64() * 1e3);
    println!(
        "sources, facts, plan, act and render of a founder: {} of CPU time (median of {ROUNDS}; {} to {})",
        shown(rounds[ROUNDS / 2]),
        shown(rounds[0]),
        shown(rounds[ROUNDS - 1])
    );
}

/// The user and system time that this process has had.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    [usage.user_time(), usage.system_time()]
        .into_iter()
        .map(|time| Duration::new(time.tv_sec().unsigned_abs(), (time.tv_usec().unsigned_abs() * 1000) as u32))
        .sum()
}

/// Founds a cluster on a new machine.
fn round() -> Duration {
    // Files, not the disk below them, are what is measured.
    let folder =
        tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).expect("a folder");
    let root = Root::at(folder.path());
    for path in ["/etc/kubernetes", "/run/kubeboot", "/var", "/proc"] {
        fs::create_dir_all(root.path(path)).expect("a folder");
    }
    fs::create_dir(root.path(paths::MANIFESTS)).expect("a folder");
    fs::write(root.path("/proc/cmdline"), "quiet kubeboot.role=init kubeboot.name=one\n").expect("a file");
    let start = cpu();
    found(&root);
    let used = cpu() - start;
    assert!(root.path(paths::FROZEN).is_file(), "the founding was not finished");
    used
}

fn found(root: &Root) {
    let now = sources::read(root).unwrap_or_else(|problems| panic!("{problems:?}"));
    let facts = kubeboot::host::facts::gather();
    let node = Node {
        name: facts::node_name(&facts, &now.settings),
        address: [192, 0, 2, 10].into(),
        machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
    };
    let founder = Founder { settings: now.settings.clone(), node, given: None, frozen: Frozen::of(&now).text() };
    let steps = plan::plan(&founder, &look(root, &founder), clock::unix()).expect("a plan for a new machine");
    act(root, &founder, &steps, None, |_, _| {}).expect("a founding");
    let record = fs::read(root.path(paths::CLUSTER)).expect("the cluster's record");
    let cluster = Cluster::parse(&record).expect("the cluster's record");
    let site = Site {
        membership: None,
        settings: &founder.settings,
        node: &founder.node,
        cluster: &cluster.id,
        mtu: 1500,
        host_authorities: true,
        inputs: BTreeMap::from_iter(inputs(root)),
    };
    render(root, &site, &kubernetes::renders(&site)).expect("the files of a boot");
    render(root, &site, &static_pods::later(&site)).expect("the files of a boot");
}
