#![no_main]
//! A volume: user-data in all its forms and wrappings, meta-data, network-config. The first byte chooses.

use kubeboot::sources::{Gathered, Layout, Volume};
use kubeboot_fuzz::{bytes, judge};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let layout = if choice & 1 == 0 { Layout::NoCloud } else { Layout::ConfigDrive };
    let name = "cidata volume /dev/vdb".to_owned();
    let mut volume = Volume { layout, name, user_data: None, meta_data: None, network: None };
    match choice >> 1 & 3 {
        0 | 3 => volume.user_data = Some(bytes(data)),
        1 => volume.meta_data = Some(bytes(data)),
        _ => volume.network = Some(bytes(data)),
    }
    judge(&Gathered { volumes: vec![volume], ..Gathered::default() });
});
