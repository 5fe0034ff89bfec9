//! `kubeboot wait-readyz`: ends when the API server is ready. Runs in the init containers of the controller-manager and
//! the scheduler, which would else crash and restart while the API server needs the CPU; and before kube-proxy and
//! flanneld, which would else load and start only to wait, at the same cost.

use std::path::PathBuf;
use std::time::Duration;

use crate::exit::Exit;
use crate::host::api::Api;
use crate::host::node::ThisNode;
use crate::host::root::Root;
use crate::host::wait;

/// How long to wait before the container ends and the kubelet starts it again.
const LIMIT: Duration = Duration::from_secs(600);
/// Between questions.
const PAUSE: Duration = Duration::from_millis(250);

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The API server, https://HOST:PORT; by default the one that this node uses
    server: Option<String>,
    /// PEM file of the authority that signed its certificate
    #[arg(long, default_value = "/etc/kubernetes/pki/ca.crt")]
    ca: PathBuf,
}

/// Runs the command. `/readyz` is open to anonymous clients, so that no key has to be in the container.
pub fn run(args: &Args) -> Exit {
    let server = match &args.server {
        Some(server) => server.clone(),
        None => match ThisNode::load(&Root::system()) {
            Ok(this) => crate::kubernetes::server(this.node.address),
            Err(error) => return wrong(&error),
        },
    };
    let ca = match crate::host::files::read_optional(&args.ca) {
        Ok(Some(ca)) => ca,
        Ok(None) => return wrong(&format!("{} does not exist", args.ca.display())),
        Err(error) => return wrong(&format!("can't read {}: {error}", args.ca.display())),
    };
    let api = match Api::new(&server, &ca, None) {
        Ok(api) => api,
        Err(error) => return wrong(&error.to_string()),
    };
    let ready = wait::until(&format!("{}/readyz", server), LIMIT, PAUSE, || match api.text("/readyz") {
        Ok((200, _)) => Ok(()),
        Ok((status, _)) => Err(format!("status {status}")),
        Err(error) => Err(error.to_string()),
    });
    match ready {
        Ok(()) => Exit::Success,
        Err(timed_out) => {
            eprintln!("kubeboot: {timed_out}");
            Exit::Timeout
        }
    }
}

fn wrong(why: &str) -> Exit {
    eprintln!("kubeboot: {why}");
    Exit::BadInput
}
