//! The mesh on a real machine.

pub mod disk;
