#![no_main]
//! TOML, as it is baked, typed or given as a credential; as a credential it may be YAML too.

use kubeboot::sources::Gathered;
use kubeboot_fuzz::{bytes, judge};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    judge(&Gathered { baked: Some(bytes(data)), ..Gathered::default() });
    judge(&Gathered { credentials: vec![("kubeboot.config".to_owned(), bytes(data))], ..Gathered::default() });
});
