//! Machines and scenarios.
