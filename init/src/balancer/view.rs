//! What the balancer thinks, for `kubeboot status`: public, written when it changes.

use serde::{Deserialize, Serialize};

/// Everything it thinks. JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The form of this file.
    pub format: u32,
    /// The servers, those of the list first, in its order.
    pub servers: Vec<Seen>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `IP:PORT`.
    pub address: String,
    /// `untried`, `healthy`, `unwell` or `unreachable`.
    pub health: String,
    /// Why it is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether a new connection would go there first.
    pub preferred: bool,
    /// Whether it is clearly farther than the nearest.
    pub far: bool,
    /// Whether it is in the list no more, and only its connections are left.
    pub draining: bool,
}

impl View {
    /// The form that is written.
    pub const FORMAT: u32 = 1;

    /// The file.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("strings and booleans") + "\n"
    }

    /// One line for `systemctl status`.
    pub fn words(&self) -> String {
        let listed = || self.servers.iter().filter(|server| !server.draining);
        let healthy = listed().filter(|server| server.health == "healthy").count();
        let first = listed().find(|server| server.preferred).map_or("none", |server| server.address.as_str());
        format!("{healthy} of {} API servers are healthy; new connections go to {first}", listed().count())
    }
}
