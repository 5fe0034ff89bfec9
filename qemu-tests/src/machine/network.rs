//! The network of one test: a bridge in a network namespace of its own, so that nothing of it reaches the host's.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use image_builder::command::run;

/// A namespace with a bridge, removed on drop. Every test has the same addresses, each in its own namespace.
pub struct Network {
    namespace: String,
}

/// The bridge's address, which is the machines' gateway and name server.
pub const GATEWAY: &str = "10.77.0.1";
const BRIDGE: &str = "bridge0";

impl Network {
    /// Makes the namespace and the bridge.
    ///
    /// # Errors
    /// `ip` refuses: most likely this process is not root.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("kubeboot-{}-{count}", std::process::id());
        let network = Self { namespace };
        sweep();
        ip(&["netns", "add", &network.namespace]).context("a test's network needs root and iproute2")?;
        network.ip(&["link", "set", "lo", "up"])?;
        network.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        network.ip(&["address", "add", &format!("{GATEWAY}/24"), "dev", BRIDGE])?;
        network.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(network)
    }

    /// The namespace's name, for `ip netns exec`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The address of machine `number`.
    #[must_use]
    pub fn address(number: u8) -> String {
        format!("10.77.0.{}", 10 + u32::from(number))
    }

    /// The hardware address of machine `number`: locally administered, the same at each boot.
    #[must_use]
    pub fn hardware_address(number: u8) -> String {
        format!("02:77:00:00:00:{:02x}", 10 + u32::from(number))
    }

    /// Adds a tap for machine `number` to the bridge and gives its name. One that is there already is taken over.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn tap(&self, number: u8) -> Result<String> {
        let tap = format!("tap{number}");
        if self.ip(&["link", "show", &tap]).is_err() {
            self.ip(&["tuntap", "add", &tap, "mode", "tap"])?;
            // User-mode Linux takes no frame that is longer than its MTU: what another machine's card left whole would be
            // lost, and sent again after a pause.
            let whole = ["-K", &tap, "tx", "off", "tso", "off", "gso", "off"];
            run(
                Command::new("ip").args(["netns", "exec", &self.namespace, "ethtool"]).args(whole),
                "have frames cut to a machine's MTU",
            )?;
        }
        self.ip(&["link", "set", &tap, "master", BRIDGE, "up"])?;
        Ok(tap)
    }

    /// Takes machine `number` off the bridge: nothing reaches it, and it notices nothing.
    ///
    /// # Errors
    /// `ip` refuses: most likely the machine was never started.
    pub fn cut(&self, number: u8) -> Result<()> {
        self.ip(&["link", "set", &format!("tap{number}"), "nomaster"])
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        let inside = ["netns", "exec", &self.namespace, "ip"];
        ip(&[&inside, arguments].concat())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Nothing to be done about a failure here; the name holds our process id, so it is never met again.
        let _ = ip(&["netns", "delete", &self.namespace]);
    }
}

/// Removes the namespaces of processes that ended without removing theirs.
fn sweep() {
    remove_where(|owner| !std::path::Path::new("/proc").join(owner).exists());
}

/// Removes the namespaces of one process.
pub fn remove(process: &str) {
    remove_where(|owner| owner == process);
}

/// Removes namespaces by the process that made them.
fn remove_where(wanted: impl Fn(&str) -> bool) {
    let listed = image_builder::command::output(Command::new("ip").args(["netns", "list"]), "list namespaces");
    for name in listed.unwrap_or_default().lines().filter_map(|line| line.split_whitespace().next()) {
        let owner = name.strip_prefix("kubeboot-").and_then(|rest| rest.split('-').next());
        if owner.is_some_and(&wanted) {
            // Another run may have been quicker.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments), "configure a test's network")
}
