//! The texts at the ends of a boot: a cluster that is ready, a machine that was told nothing.

use std::net::IpAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::token::{Joiner, Token};

use super::{Paint, Tone, duration};

/// A cluster that is ready, as its founder's console shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The cluster's id.
    pub cluster: &'a str,
    /// The fingerprint of its identity key.
    pub fingerprint: &'a str,
    /// The version of Kubernetes, such as `v1.37.2`.
    pub kubernetes: &'a str,
    /// The API server's URL as seen from outside.
    pub server: &'a str,
    /// From the kernel's start to Ready.
    pub after: Duration,
    /// Fingerprints of the operators' ssh keys, `SHA256:…`.
    pub operators: &'a [String],
    /// The serial device that gets the events, such as `ttyS1`.
    pub report: Option<&'a str>,
    /// Whether people can log in here (the debug image).
    pub shell: bool,
    /// Where further machines reach it, if it takes any in.
    pub join: Option<IpAddr>,
}

impl Ready<'_> {
    /// The text, ending in a newline.
    pub fn text(&self, paint: Paint) -> String {
        let mut out = format!("\n{}\n\n", paint.tone(Tone::Good, "Your Kubernetes cluster is ready."));
        for (name, value) in [
            ("node", self.node),
            ("Kubernetes", self.kubernetes),
            ("API server", self.server),
            ("cluster id", self.cluster),
            ("fingerprint", self.fingerprint),
            ("time", &format!("{} from the kernel's start", duration(self.after))),
        ] {
            out += &format!("  {name:<11} {value}\n");
        }
        out += "\n";
        out += &self.access(paint);
        out += &self.join.map(|address| further(address, paint)).unwrap_or_default();
        out
    }

    fn access(&self, paint: Paint) -> String {
        let mut out = String::new();
        if self.shell {
            out += &format!(
                "{}\n  export KUBECONFIG=/etc/kubernetes/admin.conf\n  kubectl get nodes\n",
                paint.tone(Tone::Strong, "To use it on this machine, as root:")
            );
        }
        match (self.operators, self.report) {
            ([], _) if self.shell => {}
            ([], _) => {
                out += &format!(
                    "{}\n  Nobody can command this cluster from outside yet: no operator's ssh key was given.\n  \
                     Fix: start the machine again with this on its kernel command line,\n    \
                     kubeboot.operator=\"ssh-ed25519 AAAA… you\"\n  \
                     and then, where that key is:\n    {}\n",
                    paint.tone(Tone::Strong, "To use it:"),
                    self.command()
                );
            }
            (keys, report) => {
                out += &format!("{}\n", paint.tone(Tone::Strong, "These ssh keys command it:"));
                for key in keys {
                    out += &format!("  {key}\n");
                }
                out += &format!("  Where such a key is:\n    {}\n", self.command());
                if let Some(device) = report {
                    out += &format!(
                        "  Their client certificates were also sent to {device}; they are of no use without the keys.\n"
                    );
                }
            }
        }
        out
    }

    /// How an operator begins.
    fn command(&self) -> String {
        let address = self.join.map_or("ADDRESS".to_owned(), |address| address.to_string());
        format!("kubeboot --node {address} --fingerprint {} kubeconfig -o kubeconfig", self.fingerprint)
    }
}

/// A worker that is ready, as its console shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The cluster's id.
    pub cluster: &'a str,
    /// The version of Kubernetes, such as `v1.37.2`.
    pub kubernetes: &'a str,
    /// From the kernel's start to Ready.
    pub after: Duration,
}

impl Member<'_> {
    /// The text, ending in a newline.
    pub fn text(&self, paint: Paint) -> String {
        let mut out =
            format!("\n{}\n\n", paint.tone(Tone::Good, "This machine is a worker of its cluster, and Ready."));
        for (name, value) in [
            ("node", self.node),
            ("Kubernetes", self.kubernetes),
            ("cluster id", self.cluster),
            ("time", &format!("{} from the kernel's start", duration(self.after))),
        ] {
            out += &format!("  {name:<11} {value}\n");
        }
        out
    }
}

/// How further machines are added. No secret is in it.
fn further(address: IpAddr, paint: Paint) -> String {
    format!(
        "\n{}\n  Start it with these, and with a token as a credential or in user-data:\n    kubeboot.role=worker\n  \
         On another network also: kubeboot.join={address}\n  The token is the one for workers that comes from this cluster's seed, for 24 h from the \
         founding,\n  or later a fresh one from kubeboot token create. A further control plane: kubeboot.role=control-plane, and its own \
         token.\n",
        paint.tone(Tone::Strong, "To add a machine:"),
    )
}

/// A seed that the founder made itself. Secret: for the console only.
pub fn seed(seed: &str, paint: Paint) -> Zeroizing<String> {
    let worker = match Token::parse(seed) {
        Ok(Token::Seed(seed)) => seed.join_token(Joiner::Worker).text(),
        _ => Zeroizing::default(),
    };
    Zeroizing::new(format!(
        "\n{}\n\n  {}\n\n  It is shown here only, and only until the node has been Ready once. Write it down: from it come\n  the \
         tokens by which further machines join within 24 h. This one is for workers:\n\n  {}\n",
        paint.tone(Tone::Note, "The cluster's seed. It is secret."),
        paint.tone(Tone::Strong, seed),
        paint.tone(Tone::Strong, &worker),
    ))
}

/// What to do with a machine that was given no role. `shell`: people can log in here (the debug image).
pub fn no_role(shell: bool, paint: Paint) -> String {
    let title = paint.tone(Tone::Note, "This machine has no role yet, so it runs no Kubernetes.");
    let strong = |text: &str| paint.tone(Tone::Strong, text);
    format!(
        "\n{title}\n\nGive it one in any of these ways, and start it again:\n\
         \n  on the kernel command line\n      {}\n\
         \n  in the file user-data on a volume labelled cidata\n      {}\n      {}\n      {}\n\
         \n  as a systemd credential, for example by SMBIOS type 11\n      {}\n\
         \nFor a worker of a cluster: its token (kb1w-…) as the credential kubeboot.token, and\n      {}\n\
         \nOr do it from here:\n{}",
        strong("kubeboot.role=init"),
        strong("#cloud-config"),
        strong("kubeboot:"),
        strong("  role: init"),
        strong("io.systemd.credential:kubeboot.role=init"),
        strong("kubeboot.role=worker"),
        prompt_help(shell, paint),
    )
}

/// What the console's prompt takes, or what the shell has for the same.
pub fn prompt_help(shell: bool, paint: Paint) -> String {
    let (own, given, join) = match shell {
        false => ("init", "init kb1s-…", "join kb1w-…"),
        true => ("kubeboot init", "kubeboot init --token-file FILE", "kubeboot join --token-file FILE"),
    };
    let width = join.chars().count() + 3;
    let line =
        |command: &str, what: &str| format!("  {} {what}\n", paint.tone(Tone::Strong, &format!("{command:<width$}")));
    line(own, "found a cluster; it makes its own token, and shows it")
        + &line(given, "found one with this token")
        + &line(join, "join the token's cluster; HOST before the token, where it is on another network")
}
