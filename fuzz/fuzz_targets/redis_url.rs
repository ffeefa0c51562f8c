#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dbmount_transport_redis::fuzz::url(data));
