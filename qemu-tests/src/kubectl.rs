//! Talking to a machine's API server with the kubectl of the release itself.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use image_builder::command;
use serde_json::Value;

use crate::command::output_with_input;
use crate::wait::{Look, until};

/// kubectl, set up for one machine.
#[derive(Debug, Clone)]
pub struct Kubectl {
    /// The program.
    pub program: PathBuf,
    /// The kubeconfig.
    pub config: PathBuf,
    /// The network namespace to be in, if not the host's own.
    pub namespace: Option<String>,
    /// The API server's URL, where it is not the kubeconfig's.
    pub server: Option<String>,
}

/// How often a condition in the cluster is looked at: kubectl itself takes a fifth of a second of CPU.
const PAUSE: Duration = Duration::from_secs(2);

impl Kubectl {
    /// A command with these arguments, in the right namespace.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = within(self.namespace.as_deref(), &self.program.to_string_lossy());
        command.arg("--kubeconfig").arg(&self.config).arg("--request-timeout=20s");
        if let Some(server) = &self.server {
            command.args(["--server", server]);
        }
        command.args(arguments);
        // No cache of API discovery in the home of whoever runs the tests.
        command.env("KUBECACHEDIR", self.config.with_extension("cache"));
        command
    }

    /// Runs kubectl and gives what it printed.
    ///
    /// # Errors
    /// kubectl failed; the message holds what it said.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        command::output(&mut self.command(arguments), &format!("run kubectl {}", arguments.join(" ")))
    }

    /// Objects as JSON.
    ///
    /// # Errors
    /// As for [`Kubectl::run`].
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(&[&["get", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {} gave no JSON", arguments.join(" ")))
    }

    /// Applies manifests (YAML or JSON).
    ///
    /// # Errors
    /// As for [`Kubectl::run`].
    pub fn apply(&self, manifests: &str) -> Result<()> {
        output_with_input(&mut self.command(&["apply", "-f", "-"]), manifests.as_bytes()).map(drop)
    }

    /// Runs a command in a pod and gives what it printed.
    ///
    /// # Errors
    /// As for [`Kubectl::run`].
    pub fn exec(&self, pod: &str, arguments: &[&str]) -> Result<String> {
        // Without the request's timeout, which would cut the stream.
        self.run(&[&["exec", "--request-timeout=0", pod, "--"], arguments].concat())
    }

    /// Waits until all pods of a namespace run and are ready, and there are some.
    ///
    /// # Errors
    /// `limit` passed; the message tells each pod that is not as it should be.
    pub fn wait_for_pods(&self, namespace: &str, limit: Duration) -> Result<()> {
        until(&format!("every pod of {namespace} to run"), limit, PAUSE, || {
            let pods = match self.get(&["pods", "-n", namespace]) {
                Ok(pods) => pods,
                Err(error) => return Look::NotYet(format!("{error:#}")),
            };
            let pods = pods["items"].as_array().cloned().unwrap_or_default();
            let waiting: Vec<_> = pods.iter().filter(|pod| !runs(pod)).map(describe).collect();
            match (pods.len(), waiting.is_empty()) {
                (0, _) => Look::NotYet("there are none".into()),
                (_, true) => Look::Holds(()),
                (_, false) => Look::NotYet(waiting.join("; ")),
            }
        })
    }

    /// Waits until a kubectl command succeeds with an output that `accept` takes.
    ///
    /// # Errors
    /// `limit` passed; the message holds the last output or error.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        arguments: &[&str],
        accept: impl Fn(&str) -> bool,
    ) -> Result<String> {
        until(what, limit, PAUSE, || match self.run(arguments) {
            Ok(output) if accept(&output) => Look::Holds(output),
            Ok(output) => Look::NotYet(output),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    }

    /// Writes what the cluster says of its nodes and pods to a file, for whoever looks into a failure.
    pub fn describe(&self, log: &Path) {
        let looks = [
            &["get", "nodes", "-o", "wide"][..],
            &["get", "pods", "-A", "-o", "wide"],
            &["get", "events", "-A"],
            &["describe", "nodes"],
            &["describe", "pods", "-A"],
        ];
        let shown = looks.map(|look| {
            let found = self.run(look).unwrap_or_else(|error| format!("{error:#}\n"));
            format!("# kubectl {}\n{found}\n", look.join(" "))
        });
        if let Err(error) = std::fs::write(log, shown.concat()) {
            eprintln!("can't write {}: {error}", log.display());
        }
    }

    /// Forwards a port of the host to one of a pod until the result is dropped.
    ///
    /// # Errors
    /// kubectl can't be started.
    pub fn forward(&self, pod: &str, port: u16) -> Result<Forward> {
        self.listen(|local| vec!["port-forward".into(), pod.into(), format!("{local}:{port}")])
    }

    /// Offers the API server without TLS and with the kubeconfig's identity on a port of the host, until the result is
    /// dropped: a program that asks often pays for no start of kubectl then.
    ///
    /// # Errors
    /// kubectl can't be started.
    pub fn proxy(&self) -> Result<Forward> {
        self.listen(|local| vec!["proxy".into(), format!("--port={local}")])
    }

    fn listen(&self, arguments: impl Fn(u16) -> Vec<String>) -> Result<Forward> {
        let port = free_port()?;
        let mut command = self.command(&["--request-timeout=0"]);
        command.args(arguments(port)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("can't start kubectl")?;
        Ok(Forward { child, namespace: self.namespace.clone(), port })
    }
}

/// A forwarded port.
pub struct Forward {
    child: Child,
    namespace: Option<String>,
    port: u16,
}

impl Forward {
    /// Fetches a page through the port.
    ///
    /// # Errors
    /// No answer within `limit`; the message says what curl said last.
    pub fn fetch(&mut self, limit: Duration) -> Result<String> {
        let url = format!("http://127.0.0.1:{}/", self.port);
        until("an answer through the forwarded port", limit, Duration::from_millis(500), || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Look::Never(format!("kubectl port-forward ended with {status}"));
            }
            let mut curl = within(self.namespace.as_deref(), "curl");
            Look::from_result(command::output(curl.args(["-sS", "--noproxy", "*", "-m", "20", &url]), "fetch a page"))
        })
    }
}

impl Forward {
    /// Creates an object once, and waits for the answer as long as `limit`.
    ///
    /// # Errors
    /// No answer, or a refusal; the message says which.
    pub fn create(&self, path: &str, object: &Value, limit: Duration) -> Result<()> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut curl = within(self.namespace.as_deref(), "curl");
        curl.args(["-sS", "--noproxy", "*", "-f", "-o", "/dev/null", "-H", "Content-Type: application/json"]);
        curl.args(["-m", &limit.as_secs_f32().to_string(), "-d", &object.to_string(), &url]);
        command::output(&mut curl, "create an object").map(drop)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks an API server for its readiness, which is open to everyone, with little of the host's CPU.
///
/// # Errors
/// It can't be asked, or is not ready; the message says what it answered.
pub fn readyz(namespace: Option<&str>, url: &str) -> Result<()> {
    let mut curl = within(namespace, "curl");
    curl.args([
        "-sS",
        "--noproxy",
        "*",
        "-k",
        "-m",
        "5",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &format!("{url}/readyz"),
    ]);
    let status = command::output(&mut curl, "ask for /readyz")?;
    ensure!(status == "200", "/readyz answers {status}");
    Ok(())
}

/// A program in a network namespace.
/// A command in a network namespace, or in the host's own.
pub fn within(namespace: Option<&str>, program: &str) -> Command {
    match namespace {
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace, program]);
            command
        }
        None => Command::new(program),
    }
}

/// A port of 127.0.0.1 that nobody has just now.
///
/// # Errors
/// The host has none left.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("can't find a free port")?;
    match listener.local_addr().context("can't ask for the port")?.port() {
        0 => bail!("the host gave port 0"),
        port => Ok(port),
    }
}

/// Whether a pod runs with every container ready.
fn runs(pod: &Value) -> bool {
    let statuses = pod["status"]["containerStatuses"].as_array();
    pod["status"]["phase"] == "Running"
        && statuses.is_some_and(|all| !all.is_empty() && all.iter().all(|status| status["ready"] == true))
}

/// A pod and the state of its containers, in one line.
fn describe(pod: &Value) -> String {
    let states: Vec<_> = ["initContainerStatuses", "containerStatuses"]
        .iter()
        .filter_map(|key| pod["status"][key].as_array())
        .flatten()
        .filter(|status| status["ready"] != true)
        .map(|status| format!("{} {}", status["name"].as_str().unwrap_or_default(), status["state"]))
        .collect();
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    format!("{name} is {} [{}]", pod["status"]["phase"].as_str().unwrap_or("unknown"), states.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_runs_only_when_each_container_is_ready() {
        let pod = |ready: bool| {
            json!({ "metadata": { "name": "p" }, "status": { "phase": "Running", "containerStatuses": [
                { "name": "a", "ready": true, "state": { "running": {} } },
                { "name": "b", "ready": ready, "state": { "waiting": { "reason": "CrashLoopBackOff" } } },
            ] } })
        };
        assert!(runs(&pod(true)) && !runs(&pod(false)));
        assert_eq!(describe(&pod(false)), r#"p is Running [b {"waiting":{"reason":"CrashLoopBackOff"}}]"#);
        assert!(!runs(&json!({ "status": { "phase": "Running" } })));
    }
}
