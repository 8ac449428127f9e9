#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blockwire_fuzz::harness::deframer::run(data));
