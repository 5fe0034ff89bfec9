//! The mesh on a real machine.

pub mod disk;
mod stream;
mod tls;
