//! The fuzz targets without a fuzzer: every input of the corpus and every one that once broke something, then a few thousand
//! made of them by a fixed seed. The long run is `make fuzz`; the code is the same (`fuzz/harness`).

#[path = "../../../fuzz/harness/mod.rs"]
mod harness;

use std::path::PathBuf;

use harness::input::Noise;

/// The inputs of a target, by name, so that a run is the same everywhere.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for kind in ["corpus", "regressions"] {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(kind).join(target);
        // git keeps no empty folder: a target without a regression has none
        let entries = std::fs::read_dir(&folder).into_iter().flatten();
        for entry in entries {
            let path = entry.expect("readable").path();
            let bytes = std::fs::read(&path).expect("readable");
            all.push((path, bytes));
        }
    }
    all.sort();
    assert!(all.len() > 20, "no corpus for {target}");
    all
}

/// What a fuzzer does to its inputs, without its guidance.
fn mutate(inputs: &[(PathBuf, Vec<u8>)], noise: &mut Noise) -> Vec<u8> {
    let mut bytes = inputs[noise.below(inputs.len())].1.clone();
    for _ in 0..=noise.below(6) {
        let at = noise.below(bytes.len() + 1);
        match noise.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << noise.below(8),
            1 if at < bytes.len() => bytes[at] = noise.next() as u8,
            2 => bytes.insert(at, noise.next() as u8),
            3 if at < bytes.len() => {
                let end = bytes.len().min(at + 1 + noise.below(8));
                bytes.drain(at..end);
            }
            4 => {
                let other = &inputs[noise.below(inputs.len())].1;
                let from = noise.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => bytes.extend((0..noise.below(40)).map(|_| noise.next() as u8)),
        }
    }
    bytes.truncate(4096);
    bytes
}

/// Says which input it was when a run panics.
struct Name<'a>(&'a str, &'a [u8]);

impl Drop for Name<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.1.iter().map(|b| format!("{b:02x}")).collect();
            eprintln!("input of {}: {hex}", self.0);
        }
    }
}

fn replay(target: &str, run: fn(&[u8]), rounds: usize) {
    let inputs = inputs(target);
    for (path, bytes) in &inputs {
        let name = path.display().to_string();
        let _name = Name(&name, bytes);
        run(bytes);
    }
    let mut noise = Noise::new(0x7143);
    for _ in 0..rounds {
        let bytes = mutate(&inputs, &mut noise);
        let _name = Name(target, &bytes);
        run(&bytes);
    }
}

#[test]
fn deframer_agrees_with_a_parser_that_sees_all_at_once() {
    replay("deframer", harness::deframer::run, 15_000);
}

#[test]
fn target_stands_a_hostile_initiator() {
    replay("target", harness::target::run, 15_000);
}

#[test]
fn initiator_stands_a_hostile_target() {
    replay("initiator", harness::initiator::run, 15_000);
}

#[test]
fn both_roles_lose_no_byte_between_them() {
    replay("pair", harness::pair::run, 6000);
}
