#![no_main]
//! The kernel command line.

use kubeboot::sources::Gathered;
use kubeboot_fuzz::{bytes, judge};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    judge(&Gathered { command_line: bytes(data), ..Gathered::default() });
});
