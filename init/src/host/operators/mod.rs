//! Operators' requests, done: at a control plane for those who come by the network or are logged in, and asked for from
//! anywhere (`docs/operators.md`).

pub mod bundle;
pub mod client;
pub mod desk;
pub mod identity;
pub mod known;
pub mod output;
pub mod removal;
pub mod removed;
pub mod roster;
pub mod session;
pub mod store;

#[cfg(test)]
pub(crate) mod tests;
