#![no_main]
//! Archives of container images from a volume. Whatever is read: no image is named twice over by two readings, and
//! errors can be shown.

use std::io::Cursor;

use kubeboot::archive::read;
use kubeboot_fuzz::readable;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(refused) = read(Cursor::new(data)) {
        readable(&refused.to_string());
    }
});
