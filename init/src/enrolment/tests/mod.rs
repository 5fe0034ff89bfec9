//! A cluster, machines and a network, all in memory.

pub(crate) mod attacks;
mod exchanges;
mod messages;
mod operators;
mod table;
pub(crate) mod takings;
mod texts;
mod trace;
mod transcript;
mod workers;
pub(crate) mod world;
