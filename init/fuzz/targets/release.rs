#![no_main]
//! A release file's trailer, manifest, signature and key file. The first byte chooses.

use std::io::Cursor;

use kubeboot::release::{Keys, Manifest, Trailer, read};

/// A key of which nobody has the secret half.
const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let keys = Keys::parse(KEY).expect("a key");
    let text = String::from_utf8_lossy(data);
    match choice & 3 {
        0 => assert!(read(&mut Cursor::new(data), &keys).is_err(), "a release that nobody signed"),
        1 => {
            if let Ok(manifest) = Manifest::parse(data) {
                let again = manifest.to_bytes().expect("a manifest is plain data");
                assert_eq!(Manifest::parse(&again).as_ref().ok(), Some(&manifest));
            }
        }
        2 => assert!(keys.verify(b"message", &text).is_err(), "a signature that nobody made"),
        _ => {
            let _ = Keys::parse(&text);
            let _ = Trailer::parse(data, 1 << 40);
        }
    }
});
