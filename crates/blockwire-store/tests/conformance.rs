//! Every store and every filter through the conformance suite.

mod support;

use std::sync::Arc;

use blockwire_store::conformance::{Expect, Report, run};
use blockwire_store::filters::delay;
use blockwire_store::{OpenOptions, Store, open};
use support::{Directory, SIZE, file, filter, map, ram, ram_with, read_only, sized};

/// Runs the suite and checks that exactly these cases did not apply, so that none is lost unseen.
#[track_caller]
fn passes(make: &dyn Fn() -> Arc<dyn Store>, expect: &Expect<'_>, not_applicable: &[&str]) {
    let report: Report = run(make, expect);
    report.assert_passed();
    let skipped: Vec<&str> = report.skipped.iter().map(|(name, _)| name.split(':').next().unwrap()).collect();
    assert_eq!(skipped, not_applicable, "{:?}", report.skipped);
}

#[test]
fn ram_anonymous() {
    // Not applicable: durable, read-only, unsupported.
    passes(&ram, &Expect::default(), &["write", "refusal", "refusal"]);
}

#[test]
fn ram_mapped_from_a_file() {
    let directory = Directory::new();
    let path = directory.file("disk");
    let make = || {
        let _ = std::fs::remove_file(&path);
        open("ram", "", &sized(SIZE), &map(&[("file", &path)]), &[]).unwrap()
    };
    let reopen = || open("ram", "", &OpenOptions::default(), &map(&[("file", &path)]), &[]).unwrap();
    passes(&make, &Expect { reopen: Some(&reopen), ..Expect::default() }, &["punch", "resize", "refusal"]);
}

fn file_passes(options: &OpenOptions, extra: &[(&str, &str)]) {
    let directory = Directory::new();
    let path = directory.file("disk");
    let make = || {
        let _ = std::fs::remove_file(&path);
        file(&path, &OpenOptions { create_size: Some(SIZE), ..options.clone() }, extra).unwrap()
    };
    let reopen = || file(&path, options, extra).unwrap();
    let expect = Expect { reopen: Some(&reopen), ..Expect::default() };
    passes(&make, &expect, &["mapping", "refusal", "refusal"]);
}

#[test]
fn file_through_the_pool() {
    file_passes(&OpenOptions::default(), &[]);
}

#[test]
fn file_with_one_thread() {
    file_passes(&OpenOptions::default(), &[("threads", "1")]);
}

#[test]
fn file_direct_through_the_pool() {
    file_passes(&OpenOptions { direct: true, ..OpenOptions::default() }, &[("io", "pool")]);
}

/// Containers often forbid io_uring; then the refusal itself is what is tested.
fn uring_is_allowed() -> bool {
    let directory = Directory::new();
    let path = directory.file("probe");
    match file(&path, &sized(SIZE), &[("io", "uring")]) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("NOT RUN: {error}");
            assert_eq!(error.kind, blockwire_store::ErrorKind::Unsupported, "{error}");
            assert!(!std::path::Path::new(&path).exists(), "a refused store left its file behind");
            false
        }
    }
}

#[test]
fn file_through_io_uring() {
    if uring_is_allowed() {
        file_passes(&OpenOptions::default(), &[("io", "uring")]);
    }
}

#[test]
fn file_direct_through_io_uring() {
    if uring_is_allowed() {
        file_passes(&OpenOptions { direct: true, ..OpenOptions::default() }, &[("io", "uring")]);
    }
}

#[test]
fn file_read_only() {
    let directory = Directory::new();
    let path = directory.file("disk");
    let data: Vec<u8> = (0..SIZE).map(|at| (at / 7) as u8).collect();
    std::fs::write(&path, &data).unwrap();
    let make = || file(&path, &read_only(), &[]).unwrap();
    let report = run(&make, &Expect::default());
    report.assert_passed();
    assert!(report.passed.contains(&"refusal: changes of a read-only store"), "{report:?}");
    assert_eq!(std::fs::read(&path).unwrap(), data);
}

#[test]
fn null() {
    let make = || open("null", "", &sized(SIZE), &map(&[]), &[]).unwrap();
    let report = run(&make, &Expect { retains: false, ..Expect::default() });
    report.assert_passed();
    assert!(report.passed.contains(&"refusal: ranges outside the store"), "{report:?}");
    let mut buffer = [9; 3000];
    blockwire_store::write(&*make(), 1, &buffer, true).unwrap();
    blockwire_store::read(&*make(), 1, &mut buffer).unwrap();
    assert_eq!(buffer, [0; 3000]);
}

#[test]
fn check_before_ram_and_file() {
    let make = || ram_with(&[filter("check", &[])]);
    passes(&make, &Expect::default(), &["write", "mapping", "refusal", "refusal"]);
    let directory = Directory::new();
    let path = directory.file("disk");
    let make = || {
        let _ = std::fs::remove_file(&path);
        open("file", &path, &sized(SIZE), &map(&[]), &[filter("check", &[])]).unwrap()
    };
    passes(&make, &Expect::default(), &["write", "mapping", "refusal", "refusal"]);
}

#[test]
fn delay_before_ram() {
    let make = || ram_with(&[filter("delay", &[("all", "20us"), ("flush", "1ms")])]);
    let expect = Expect { steps: 100, ..Expect::default() };
    passes(&make, &expect, &["write", "mapping", "refusal", "refusal"]);
}

#[test]
fn delay_by_hand_before_ram() {
    let make = || {
        let (store, handle) = delay::manual(ram());
        // Somebody has to turn the handle; that the cases see every completion once is what matters here.
        let alive = Arc::downgrade(&store);
        std::thread::spawn(move || {
            while alive.strong_count() > 0 {
                if handle.release(3) == 0 {
                    std::thread::sleep(std::time::Duration::from_micros(20));
                }
            }
        });
        store
    };
    let expect = Expect { steps: 100, ..Expect::default() };
    passes(&make, &expect, &["write", "mapping", "refusal", "refusal"]);
}

#[test]
fn fault_that_never_strikes_before_ram() {
    let make = || ram_with(&[filter("fault", &[("probability", "0")])]);
    passes(&make, &Expect::default(), &["write", "mapping", "refusal", "refusal"]);
}

#[test]
fn readonly_before_ram() {
    let make = || ram_with(&[filter("readonly", &[])]);
    let report = run(&make, &Expect::default());
    report.assert_passed();
    assert!(report.passed.contains(&"refusal: changes of a read-only store"), "{report:?}");
    assert!(report.passed.contains(&"mapping: shows what was written and takes part in the rest"), "{report:?}");
}

#[test]
fn a_stack_of_all_filters() {
    let filters = [
        filter("check", &[]),
        filter("fault", &[("probability", "0")]),
        filter("delay", &[("write", "10us")]),
        filter("check", &[]),
    ];
    let make = || ram_with(&filters);
    let expect = Expect { steps: 150, ..Expect::default() };
    passes(&make, &expect, &["write", "mapping", "refusal", "refusal"]);
}

/// The suite must be able to fail: a store that loses the last byte of a write is found out.
#[test]
fn the_suite_notices_a_bad_store() {
    use blockwire_store::{Capabilities, CompletionSink, Geometry, IoVecs, Mapping, Op, StoreIdentity, Submitted};
    struct Forgetful(Arc<dyn Store>);
    impl Store for Forgetful {
        fn geometry(&self) -> Geometry {
            self.0.geometry()
        }
        fn capabilities(&self) -> Capabilities {
            Capabilities { stable_memory: false, ..self.0.capabilities() }
        }
        fn mapping(&self) -> Option<Mapping> {
            None
        }
        fn identity(&self) -> StoreIdentity {
            self.0.identity()
        }
        fn submit(&self, op: Op, token: u64, sink: &Arc<dyn CompletionSink>) -> Submitted {
            let op = match op {
                Op::Write { offset, src, fua } => {
                    let mut short = IoVecs::new();
                    src.as_slice().iter().skip(1).for_each(|piece| short.push(*piece));
                    let skipped = (src.len() - short.len()) as u64;
                    if skipped > 4096 {
                        Op::Write { offset, src, fua }
                    } else {
                        Op::Write { offset: offset.saturating_add(skipped), src: short, fua }
                    }
                }
                other => other,
            };
            self.0.submit(op, token, sink)
        }
        fn try_cancel(&self, token: u64) -> bool {
            self.0.try_cancel(token)
        }
    }
    let report = run(&|| Arc::new(Forgetful(ram())), &Expect::default());
    let failed: Vec<&str> = report.failed.iter().map(|(name, _)| *name).collect();
    assert!(failed.contains(&"write: scattered memory on both sides"), "{failed:?}");
    assert!(failed.contains(&"model: random operations agree with an array"), "{failed:?}");
}
