//! What a node's Kubernetes is configured with, as text: static pods, component configuration, kubeconfigs, add-ons.

pub mod encryption;
pub mod kubeconfig;

use std::net::{IpAddr, SocketAddr};

/// The API server's port.
pub const API_PORT: u16 = 6443;
/// Where the API server's audit log goes; mode 0700.
pub const AUDIT_LOGS: &str = "/var/log/kubernetes";

/// The URL of the API server at `address`.
pub fn server(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, API_PORT))
}
