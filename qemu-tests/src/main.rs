//! The command behind `qemu-tests/run`.

fn main() {}
