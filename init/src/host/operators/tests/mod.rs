//! The real server on loopback, with objects in memory, asked by the real client; and who attacks it.

mod attacks;
mod nodes;
mod real;
mod requests;
mod without_api;
mod workers;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::answers::{Answers, Caller};
use super::client::{Link, Remote};
use super::desk::Desk;
use super::identity::Keys;
use super::output::{Halt, Programs};
use super::store::Rbac;
use crate::enrolment::Keys as IdentityKeys;
use crate::enrolment::decision::{Admission, Found, Site, Sought};
use crate::enrolment::gate::Limits;
use crate::enrolment::message::{Founded, Grant};
use crate::enrolment::server::{As, Issue, Setup, Taken};
use crate::enrolment::taking::{Answer, Call};
use crate::enrolment::tests::takings;
use crate::enrolment::transcript::Exporter;
use crate::host::enrolment::channel::Times;
use crate::host::enrolment::store::Objects;
use crate::host::enrolment::tests::real as fixture;
use crate::host::enrolment::{issue, server};
use crate::host::keys::Ed25519;
use crate::host::node::ThisNode;
use crate::host::node_removal::Look;
use crate::host::root::Root;
use crate::host::{clock, random, wait};
use crate::operators::tests::{private_key, public_line};
use crate::operators::{Request, Trouble};
use crate::paths;
use crate::token::{SECRET, fingerprint};

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(20);

/// ConfigMaps in memory, of an API that may be down.
#[derive(Default)]
struct InMemory {
    objects: Mutex<Option<takings::Objects>>,
    down: Mutex<bool>,
}

impl Objects for InMemory {
    fn call(&self, call: &Call) -> Result<Answer, String> {
        if *self.down.lock().unwrap() {
            return Err("no API server answers".to_owned());
        }
        Ok(self.objects.lock().unwrap().get_or_insert_with(takings::Objects::new).call(call))
    }
}

/// Bindings in memory, by their paths.
#[derive(Default)]
struct Bindings(Mutex<BTreeMap<String, Value>>);

fn binding_path(object: &Value) -> String {
    let (name, namespace) = (&object["metadata"]["name"], &object["metadata"]["namespace"]);
    let namespace = namespace.as_str().map(str::to_owned);
    let (name, role, own) = (name.as_str().unwrap().to_owned(), String::new(), false);
    crate::operators::user::Bound { namespace, name, role, own }.path()
}

impl Rbac for Bindings {
    fn bindings(&self) -> Result<[Value; 2], String> {
        let all = self.0.lock().unwrap();
        let (of_namespaces, of_cluster): (Vec<&Value>, Vec<&Value>) =
            all.values().partition(|binding| binding["metadata"].get("namespace").is_some());
        Ok([json!({"items": of_cluster}), json!({"items": of_namespaces})])
    }

    fn apply(&self, object: &Value) -> Result<(), String> {
        self.0.lock().unwrap().insert(binding_path(object), object.clone());
        Ok(())
    }

    fn delete(&self, path: &str) -> Result<bool, String> {
        Ok(self.0.lock().unwrap().remove(path).is_some())
    }

    fn servers(&self) -> Result<Vec<SocketAddr>, String> {
        Ok(["10.0.0.11:6443", "10.0.0.12:6443"].map(|server| server.parse().unwrap()).into())
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        Err(format!("{path} was not asked for in this test"))
    }
}

/// A control plane that serves operators and nobody else.
struct ControlPlane {
    identity: Ed25519,
    this: ThisNode,
    desk: Desk,
}

impl server::Cluster for ControlPlane {
    fn key(&self) -> &(dyn IdentityKeys + Send + Sync) {
        &self.identity
    }

    fn setup(&self, exporter: Exporter) -> Setup {
        let release = "1.37.2-4".parse().unwrap();
        let site = Site { founded: 0, oldest: release, newest: release, ranges: Vec::new() };
        Setup {
            serves: As::ControlPlane,
            cluster: Founded::of(&self.this.cluster).unwrap(),
            site,
            exporter,
            nonce: random::bytes(),
        }
    }

    fn strangers(&self) -> Vec<crate::settings::Cidr> {
        Vec::new()
    }

    fn look(&self, _: &Sought) -> Result<Found, String> {
        Err("no machines here".to_owned())
    }

    fn take(&self, _: &Admission) -> Result<Taken, String> {
        Err("no machines here".to_owned())
    }

    fn issue(&self, _: &Admission, _: &[Issue]) -> Result<Grant, String> {
        Err("no machines here".to_owned())
    }

    fn desk(&self) -> Option<&dyn Answers> {
        Some(&self.desk)
    }
}

/// A control plane that runs, and a person with ssh keys.
pub(crate) struct World {
    /// Its files.
    pub(crate) folder: TempDir,
    address: SocketAddr,
    plane: Arc<ControlPlane>,
    objects: Arc<InMemory>,
    bindings: Arc<Bindings>,
    log: Arc<Mutex<Vec<String>>>,
}

/// The person whose key is in the settings, by number.
pub(crate) const ADA: u8 = 1;
/// Another.
const BOB: u8 = 2;
/// Who is no operator.
const CARL: u8 = 3;

fn programs() -> Programs {
    // It says what it was asked.
    Programs { kubeboot: "echo".into(), journalctl: vec!["echo".to_owned()], sign_of_life: Duration::from_millis(20) }
}

impl World {
    pub(crate) fn new() -> Self {
        World::with(programs())
    }

    fn with(programs: Programs) -> Self {
        World::whose_nodes(programs, Box::new(|_| Err("no nodes here".to_owned())))
    }

    /// A cluster of its own, with one control plane, whose settings name [`ADA`].
    fn whose_nodes(programs: Programs, removals: Box<Look>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path().join("root"));
        let mut this = fixture::found(&root);
        this.settings.operator = vec![public_line(ADA, "ada")];
        let (objects, bindings) = (Arc::new(InMemory::default()), Arc::new(Bindings::default()));
        let mut desk = Desk::over(&root, &this, objects.clone(), bindings.clone(), programs);
        desk.removals = removals;
        let identity = issue::key(&root, paths::IDENTITY_KEY).unwrap();
        let plane = Arc::new(ControlPlane { identity, this, desk });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, log) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let lines = log.clone();
        let hear = Box::new(move |line: &str| lines.lock().unwrap().push(line.to_owned()));
        let limits = Limits { of_one: 256, burst: 100_000, ..Limits::default() };
        server::start(listener, plane.clone(), limits, Times::default(), hear).unwrap();
        World { folder, address, plane, objects, bindings, log }
    }

    fn fingerprint(&self) -> [u8; SECRET] {
        fingerprint(&self.plane.this.cluster.identity())
    }

    fn known(&self) -> PathBuf {
        self.folder.path().join("config/kubeboot/known_clusters")
    }

    /// The file of a person's key.
    fn key_file(&self, number: u8) -> PathBuf {
        let path = self.folder.path().join(format!("id-{number}"));
        std::fs::write(&path, private_key(number).as_bytes()).unwrap();
        path
    }

    /// How a person asks, who has been told the fingerprint.
    fn remote(&self, number: u8) -> Remote {
        Remote {
            host: self.address.to_string().parse().unwrap(),
            cluster: None,
            fingerprint: Some(self.fingerprint()),
            keys: Keys { file: Some(self.key_file(number)), ..Keys::default() },
            known: self.known(),
        }
    }

    /// A connection on which a person was admitted.
    pub(crate) fn open(&self, number: u8) -> Link {
        self.remote(number).open().unwrap_or_else(|trouble| panic!("{trouble:?}"))
    }

    /// What a person gets, and the code.
    fn ask(&self, number: u8, request: &Request) -> Result<(String, u8), Trouble> {
        let mut answer = Vec::new();
        match self.remote(number).open()?.ask(request, &mut answer) {
            Ok(code) => Ok((String::from_utf8(answer).unwrap(), code)),
            Err(Halt::Trouble(trouble)) => Err(trouble),
            Err(Halt::Gone) => panic!("nobody took the answer"),
        }
    }

    fn value<T: serde::de::DeserializeOwned>(&self, number: u8, request: &Request) -> T {
        let (text, code) = self.ask(number, request).unwrap_or_else(|trouble| panic!("{trouble:?}"));
        assert_eq!(code, 0, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The first line of the log that has this in it.
    fn logged(&self, part: &str) -> String {
        let line = wait::until(&format!("a line with {part:?}"), LIMIT, Duration::from_millis(2), || {
            let lines = self.log.lock().unwrap();
            lines.iter().find(|line| line.contains(part)).cloned().ok_or_else(|| format!("{lines:#?}"))
        });
        line.unwrap_or_else(|late| panic!("{late}"))
    }

    /// Adds an operator, as [`ADA`].
    fn add(&self, number: u8, comment: &str) {
        let _: Value = self.value(ADA, &Request::OperatorAdd { key: public_line(number, comment) });
    }
}

/// A file's permission bits.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The wire form of a person's public key.
fn wire(number: u8) -> Vec<u8> {
    STANDARD.decode(public_line(number, "").split(' ').nth(1).unwrap()).unwrap()
}

fn here(world: &World) -> Caller {
    let here = world.plane.desk.here();
    assert_eq!((here.name.as_str(), &here.key), ("one", &None));
    assert!(clock::unix() > 0);
    here
}
