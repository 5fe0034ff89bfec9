//! Operators' requests, done: at a node for those who come by the network, at a control plane for who is logged in too, and
//! asked for from anywhere (`docs/operators.md`).

pub mod answers;
pub mod bundle;
pub mod client;
pub mod desk;
pub mod identity;
pub mod kept;
pub mod known;
pub mod output;
pub mod removal;
pub mod roster;
pub mod session;
pub mod store;
pub mod worker;

#[cfg(test)]
pub(crate) mod tests;
