//! The support bundle: what is needed to find a fault, as a gzipped tar archive. Public records and what the machine says of
//! itself; no file that holds a key is opened, and every text is redacted.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::output::{self, Halt, Programs, Sink};
use super::store::Rbac;
use crate::certificates::Unix;
use crate::exit::Exit;
use crate::host::root::Root;
use crate::host::{files, process};
use crate::operators::redact::Redactor;
use crate::operators::{Trouble, tar};
use crate::paths;

/// How long one program may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of one file in the bundle at most; of a longer one the end is kept, where what happened last stands.
const LARGEST: usize = 16 << 20;

/// Records without secrets, and what the kernel says of the machine.
const FILES: [&str; 19] = [
    paths::CLUSTER,
    paths::NODE,
    paths::SLOTS,
    paths::ENDPOINTS,
    paths::SEAT_FACTS,
    paths::HEALTH,
    paths::EVENTS,
    paths::LAST_ERROR,
    paths::BALANCER,
    "/usr/lib/os-release",
    "/proc/version",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/cmdline",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
];

/// Answers with the bundle. `rbac`: the cluster, of a machine that is a node.
///
/// # Errors
/// Nobody waits for it any more. What can't be gathered is said in the bundle itself.
pub fn write(
    root: &Root,
    programs: &Programs,
    rbac: Option<&dyn Rbac>,
    now: Unix,
    sink: &mut dyn Sink,
) -> Result<u8, Halt> {
    let mut bundle = Bundle { encoder: GzEncoder::new(Vec::new(), Compression::default()), sink, now };
    for path in FILES {
        match files::read_optional(&root.path(path)) {
            Ok(Some(contents)) => bundle.add(path.trim_start_matches('/'), contents)?,
            Ok(None) => {}
            Err(error) => bundle.add(path.trim_start_matches('/'), format!("can't be read: {error}\n").into_bytes())?,
        }
    }
    let kubeboot = programs.kubeboot.to_string_lossy().into_owned();
    for (name, arguments) in [
        ("status.json", &["status", "--why", "--output=json"][..]),
        ("status.txt", &["status"]),
        ("plan.json", &["plan", "--output=json"]),
        ("preflight.json", &["preflight", "--output=json"]),
        ("timeline.txt", &["timeline"]),
    ] {
        bundle.run(name, &kubeboot, arguments)?;
    }
    let journal: [(&str, &[&str]); 3] = [
        ("journal.txt", &["--boot=0", "--lines=50000"]),
        ("journal-before.txt", &["--boot=-1", "--lines=10000"]),
        ("kernel.txt", &["--dmesg", "--lines=10000"]),
    ];
    let Programs { journalctl, sign_of_life, .. } = programs;
    for (name, more) in journal {
        let mut text = Vec::new();
        let arguments = ["--no-pager", "--quiet", "--output=short-iso-precise"].iter().chain(more);
        let arguments: Vec<String> = arguments.map(|argument| (*argument).to_owned()).collect();
        if let Err(Halt::Trouble(trouble)) =
            output::program("It was not gathered", journalctl, &arguments, *sign_of_life, &mut text)
        {
            text.extend_from_slice(trouble.block().line().as_bytes());
        }
        bundle.add(name, text)?;
    }
    let Some(rbac) = rbac else { return bundle.end() };
    for (name, path, summary) in [
        ("nodes.json", "/api/v1/nodes", nodes as fn(&Value) -> Value),
        ("pods.json", "/api/v1/pods", pods),
        ("leases.json", "/apis/coordination.k8s.io/v1/leases", leases),
    ] {
        let found = rbac.get(path).map(|list| summary(&list));
        let found = found.unwrap_or_else(|why| json!({"error": why}));
        bundle.add(name, format!("{found:#}\n").into_bytes())?;
    }
    bundle.end()
}

struct Bundle<'a> {
    encoder: GzEncoder<Vec<u8>>,
    sink: &'a mut dyn Sink,
    now: Unix,
}

impl Bundle<'_> {
    fn add(&mut self, name: &str, contents: Vec<u8>) -> Result<(), Halt> {
        let kept = &contents[contents.len().saturating_sub(LARGEST)..];
        let mut redactor = Redactor::default();
        let mut text = redactor.take(kept);
        text.extend(redactor.end());
        let member = tar::member(&format!("kubeboot/{name}"), &text, self.now);
        self.pass(&member)?;
        self.sink.goes_on()
    }

    fn run(&mut self, name: &str, program: &str, arguments: &[&str]) -> Result<(), Halt> {
        let text = match process::output(program, arguments, LIMIT) {
            Ok(said) => said.stdout + &said.stderr,
            Err(why) => format!("{why}\n"),
        };
        self.add(name, text.into_bytes())
    }

    fn pass(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        self.encoder.write_all(bytes).map_err(packed)?;
        let ready = std::mem::take(self.encoder.get_mut());
        if ready.is_empty() { Ok(()) } else { self.sink.part(&ready) }
    }

    fn end(mut self) -> Result<u8, Halt> {
        self.pass(&tar::end())?;
        let rest = self.encoder.finish().map_err(packed)?;
        self.sink.part(&rest)?;
        Ok(Exit::Success.code())
    }
}

fn packed(error: std::io::Error) -> Halt {
    Trouble::new(Exit::Failure, "No support bundle was made", error, "report this.").into()
}

/// Each item of a list, made small: what people write into objects may be secret, so only known fields are taken.
fn each(list: &Value, fields: &[&str]) -> Value {
    let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let take = |item: &Value| {
        let found = fields.iter().filter_map(|pointer| Some(((*pointer).to_owned(), item.pointer(pointer)?.clone())));
        Value::Object(found.collect())
    };
    items.iter().map(take).collect()
}

fn nodes(list: &Value) -> Value {
    each(
        list,
        &["/metadata/name", "/metadata/labels", "/spec/taints", "/spec/podCIDRs", "/spec/unschedulable", "/status"],
    )
}

fn pods(list: &Value) -> Value {
    each(list, &["/metadata/namespace", "/metadata/name", "/metadata/creationTimestamp", "/spec/nodeName", "/status"])
}

fn leases(list: &Value) -> Value {
    each(list, &["/metadata/namespace", "/metadata/name", "/spec"])
}
