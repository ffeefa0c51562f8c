#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dbmount_engine::sim::fuzz::alike(data));
