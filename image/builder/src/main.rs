//! The command behind `image/build` and `image/boot`.

fn main() {}
