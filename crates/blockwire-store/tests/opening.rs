//! What opening accepts, refuses, creates and leaves behind.

mod support;

use std::path::Path;

use blockwire_store::{ErrorKind, OpenOptions, open, read, write};
use support::{Directory, SIZE, failure, file, filter, map, ram_with, read_only, sized};

#[test]
fn a_missing_file_is_created_only_with_a_size() {
    let directory = Directory::new();
    let path = directory.file("disk");
    let error = failure(file(&path, &OpenOptions::default(), &[]));
    assert_eq!((error.kind, error.errno), (ErrorKind::NotFound, libc::ENOENT));
    assert!(error.to_string().contains(&path), "{error}");
    let error = failure(file(&path, &OpenOptions { read_only: true, ..sized(SIZE) }, &[]));
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(!Path::new(&path).exists());
    let store = file(&path, &sized(SIZE), &[]).unwrap();
    assert_eq!(store.geometry().size, SIZE);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), SIZE);
}

#[test]
fn an_existing_file_keeps_its_size() {
    let directory = Directory::new();
    let path = directory.file("disk");
    std::fs::write(&path, vec![5; 8192]).unwrap();
    for options in [sized(4096), sized(16_384)] {
        let error = failure(file(&path, &options, &[]));
        assert_eq!(error.kind, ErrorKind::WouldResize);
        assert!(error.to_string().contains("8192"), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), vec![5; 8192]);
    assert_eq!(file(&path, &sized(8192), &[]).unwrap().geometry().size, 8192);
}

#[test]
fn sizes_are_whole_blocks() {
    let directory = Directory::new();
    let path = directory.file("disk");
    std::fs::write(&path, vec![5; 8192 + 512]).unwrap();
    assert!(file(&path, &OpenOptions::default(), &[]).is_ok());
    let large_blocks = OpenOptions { block_size: 4096, ..OpenOptions::default() };
    assert_eq!(failure(file(&path, &large_blocks, &[])).kind, ErrorKind::Invalid);
    let fresh = directory.file("fresh");
    for (size, block_size) in [(1000, 512), (0, 512), (4608, 4096), (4096, 1000), (4096, 0)] {
        let options = OpenOptions { block_size, ..sized(size) };
        for scheme in ["ram", "null", "file"] {
            let error = failure(open(scheme, &fresh, &options, &map(&[]), &[]));
            assert_eq!(error.kind, ErrorKind::Invalid, "{scheme} {size}/{block_size}");
        }
    }
    assert!(!Path::new(&fresh).exists());
    std::fs::write(&fresh, b"").unwrap();
    assert_eq!(failure(file(&fresh, &OpenOptions::default(), &[])).kind, ErrorKind::Invalid);
}

#[test]
fn what_is_no_disk_is_refused() {
    let directory = Directory::new();
    let folder = directory.path().display().to_string();
    for path in [folder.as_str(), "/dev/null", ""] {
        assert_eq!(failure(file(path, &OpenOptions::default(), &[])).kind, ErrorKind::Invalid, "{path}");
    }
    let below = format!("{}/x/disk", directory.file("none"));
    assert_eq!(failure(file(&below, &sized(SIZE), &[])).kind, ErrorKind::NotFound);
}

#[test]
fn unknown_words_are_named() {
    let error = failure(open("rom", "", &sized(SIZE), &map(&[]), &[]));
    assert!(error.to_string().contains("rom"), "{error}");
    let error = failure(open("ram", "", &sized(SIZE), &map(&[("fil", "/x")]), &[]));
    assert!(error.to_string().contains("fil") && error.kind == ErrorKind::Invalid, "{error}");
    for (key, value) in [("io", "magic"), ("threads", "0"), ("threads", "many"), ("threads", "1000")] {
        let error = failure(file("/nonexistent", &sized(SIZE), &[(key, value)]));
        assert!(error.to_string().contains(value) && error.kind == ErrorKind::Invalid, "{error}");
    }
    assert_eq!(failure(open("ram", "", &OpenOptions::default(), &map(&[]), &[])).kind, ErrorKind::Invalid);
}

#[test]
fn a_wrong_filter_creates_nothing() {
    let directory = Directory::new();
    let path = directory.file("disk");
    let wrong = [
        filter("fualt", &[]),
        filter("fault", &[("propability", "1")]),
        filter("fault", &[("probability", "1.5")]),
        filter("fault", &[("probability", "NaN")]),
        filter("fault", &[("errno", "EWHAT")]),
        filter("fault", &[("op", "read+rite")]),
        filter("delay", &[("read", "-1ms")]),
        filter("delay", &[("read", "1 fortnight")]),
        filter("readonly", &[("x", "")]),
    ];
    for spec in wrong {
        let error = failure(open("file", &path, &sized(SIZE), &map(&[]), std::slice::from_ref(&spec)));
        assert_eq!(error.kind, ErrorKind::Invalid, "{spec:?}");
        assert!(!Path::new(&path).exists(), "{spec:?} left a file behind");
    }
}

#[test]
fn one_writer_or_several_readers() {
    let directory = Directory::new();
    let path = directory.file("disk");
    let writer = file(&path, &sized(SIZE), &[]).unwrap();
    for options in [OpenOptions::default(), read_only()] {
        let error = failure(file(&path, &options, &[]));
        assert_eq!(error.kind, ErrorKind::Locked);
        assert!(error.to_string().contains(&path), "{error}");
    }
    assert_eq!(failure(open("ram", "", &read_only(), &map(&[("file", &path)]), &[])).kind, ErrorKind::Locked);
    write(&*writer, 0, b"still mine", true).unwrap();
    drop(writer); // at once: no thread may hold the file any longer than its operations take
    let readers = [file(&path, &read_only(), &[]).unwrap(), file(&path, &read_only(), &[]).unwrap()];
    assert_eq!(failure(file(&path, &OpenOptions::default(), &[])).kind, ErrorKind::Locked);
    drop(readers);
    file(&path, &OpenOptions::default(), &[]).unwrap();
}

#[test]
fn identities_are_stable_and_say_what_was_asked() {
    let directory = Directory::new();
    let path = directory.file("disk");
    let options = OpenOptions { serial: Some("A1".into()), ..sized(SIZE) };
    let first = file(&path, &options, &[]).unwrap().identity();
    let roundabout =
        format!("{}/../{}/disk", directory.path().display(), directory.path().file_name().unwrap().display());
    assert_eq!(file(&roundabout, &options, &[]).unwrap().identity(), first);
    assert_eq!((first.kind, first.serial.as_deref()), ("file", Some("A1")));
    let named = open("ram", "left", &options, &map(&[]), &[]).unwrap().identity();
    assert_eq!((named.kind, named.key.as_str()), ("ram", "left"));
    assert_eq!(ram_with(&[filter("check", &[]), filter("readonly", &[])]).identity().kind, "ram");
}

#[test]
fn a_mapped_file_is_allocated_in_full() {
    use std::os::unix::fs::MetadataExt;
    let directory = Directory::new();
    let path = directory.file("disk");
    std::fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().blocks(), 0);
    let store = open("ram", "", &OpenOptions::default(), &map(&[("file", &path)]), &[]).unwrap();
    let zero = blockwire_store::Op::Zero { offset: 0, len: SIZE, may_unmap: true, fua: true };
    blockwire_store::block_on(&*store, zero).unwrap();
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= SIZE);
    let mut byte = [1];
    read(&*store, SIZE - 1, &mut byte).unwrap();
    assert_eq!(byte, [0]);
}

#[test]
fn more_memory_than_there_are_addresses() {
    let error = failure(open("ram", "", &sized(1 << 62), &map(&[]), &[]));
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
}
