//! What only real files and devices show: space, full disks, power cuts, other processes.
//!
//! Tests that start processes are here together, one at a time: between fork and exec a child holds its parent's
//! locks for a moment.

mod support;

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use blockwire_store::conformance::{Expect, run};
use blockwire_store::{
    CompletionSink, ErrorKind, IoVecs, Op, OpenOptions, Outcome, Store, Submitted, block_on, open, read, write,
};
use support::{Directory, SIZE, failure, file, map, may_mount, read_only, sized, unshared};

fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn used(path: &str) -> u64 {
    std::fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn another_process_is_kept_out_too() {
    let _alone = alone();
    let directory = Directory::new();
    let path = directory.file("disk");
    let try_lock = || Command::new("flock").args(["-n", &path, "true"]).status().unwrap().success();
    let store = file(&path, &sized(SIZE), &[]).unwrap();
    assert!(!try_lock());
    // What is started while a store is open must not inherit its descriptors, or it would keep the lock.
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    drop(store);
    // a child that another test has just forked holds every descriptor until its exec; ours would for ten minutes
    let mut free = try_lock();
    for _ in 0..1000 {
        if free {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        free = try_lock();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(free);
}

#[test]
fn unmapping_frees_blocks() {
    let _alone = alone();
    let directory = Directory::new();
    let path = directory.file("disk");
    let store = file(&path, &sized(SIZE), &[]).unwrap();
    assert_eq!(used(&path), 0, "a new file is sparse");
    assert!(store.capabilities().can_punch);
    write(&*store, 0, &vec![1; SIZE as usize], true).unwrap();
    assert!(used(&path) >= SIZE);
    block_on(&*store, Op::Punch { offset: 1 << 20, len: 2 << 20 }).unwrap();
    assert!(used(&path) <= SIZE - (2 << 20), "{} bytes are used", used(&path));
    block_on(&*store, Op::Zero { offset: 4 << 20, len: 2 << 20, may_unmap: true, fua: false }).unwrap();
    assert!(used(&path) <= SIZE - (4 << 20), "{} bytes are used", used(&path));
    let before = used(&path);
    block_on(&*store, Op::Zero { offset: 6 << 20, len: 2 << 20, may_unmap: false, fua: false }).unwrap();
    assert!(used(&path) >= before, "zeroing without leave to unmap gave space back");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), SIZE);
}

#[test]
fn a_file_that_others_shorten() {
    let _alone = alone();
    let directory = Directory::new();
    let path = directory.file("disk");
    for extra in [&[][..], &[("threads", "2")]] {
        let store = file(&path, &sized(SIZE), extra).unwrap();
        write(&*store, 0, &[3; 8192], false).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(6000).unwrap();
        let mut buffer = vec![0; 4096];
        read(&*store, 0, &mut buffer).unwrap();
        let error = read(&*store, 4096, &mut buffer).unwrap_err();
        assert_eq!((error.kind, error.offset), (ErrorKind::Changed, Some(6000)));
        assert_eq!(read(&*store, 1 << 20, &mut buffer).unwrap_err().kind, ErrorKind::Changed);
        drop(store);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn closing_with_operations_in_flight_completes_them() {
    struct Count(Mutex<usize>);
    impl CompletionSink for Count {
        fn complete(&self, batch: &[(u64, Outcome)]) {
            assert!(batch.iter().all(|(_, outcome)| outcome.is_ok()));
            *self.0.lock().unwrap() += batch.len();
        }
    }
    let _alone = alone();
    let directory = Directory::new();
    for io in ["pool", "uring"] {
        let path = directory.file(io);
        let Ok(store) = file(&path, &sized(SIZE), &[("io", io)]) else {
            continue;
        };
        let count = Arc::new(Count(Mutex::new(0)));
        let sink: Arc<dyn CompletionSink> = count.clone();
        let data = vec![6u8; 4096];
        for token in 0..300 {
            // SAFETY: `data` outlives the wait for all completions below; it is only read.
            let src = unsafe { IoVecs::single(data.as_ptr().cast_mut(), data.len()) };
            assert!(matches!(
                store.submit(Op::Write { offset: token * 4096, src, fua: false }, token, &sink),
                Submitted::Pending
            ));
        }
        drop(store);
        let end = Instant::now() + Duration::from_secs(120);
        while *count.0.lock().unwrap() < 300 {
            assert!(Instant::now() < end, "{} of 300 completed", count.0.lock().unwrap());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(std::fs::read(&path).unwrap()[..300 * 4096], vec![6; 300 * 4096]);
        file(&path, &OpenOptions::default(), &[]).expect("closed with its last completion");
    }
}

/// A store at rest costs nothing: no CPU time passes in this process while one sits there.
#[test]
fn an_idle_store_uses_no_cpu() {
    let _alone = alone();
    let directory = Directory::new();
    let mut stores = vec![file(&directory.file("pool"), &sized(SIZE), &[]).unwrap()];
    stores.extend(file(&directory.file("uring"), &sized(SIZE), &[("io", "uring")]));
    let ticks = || -> u64 {
        let mut sum = 0;
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let folder = task.unwrap().path();
            let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
            if name.starts_with("blockwire") {
                let stat = std::fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
                sum += stat.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        sum
    };
    for store in &stores {
        write(&**store, 0, &[1; 4096], true).unwrap();
    }
    assert!(ticks() > 0, "the threads of the stores were not found");
    // a busy machine lets them come to rest late
    let at_rest = || {
        let before = ticks();
        std::thread::sleep(Duration::from_millis(300));
        ticks() - before
    };
    let spent = (0..40).map(|_| at_rest()).find(|spent| *spent < 1_000_000);
    assert!(spent.is_some(), "CPU time passes at rest");
}

/// Runs the named ignored test of this binary after `prepare` in a mount namespace; `$D` is a fresh directory.
fn inside(prepare: &str, test: &str, finish: &str) {
    let directory = Directory::new();
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "cd \"$D\"\n{prepare}\n\"{}\" --exact {test} --ignored --nocapture --test-threads 1\n{finish}",
        exe.display()
    );
    let output = unshared(&script).env("D", directory.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

fn mounted(name: &str) -> String {
    let directory = std::env::var("D").expect("run by the test that prepares the mount");
    Path::new(&directory).join(name).display().to_string()
}

#[test]
fn a_full_disk() {
    let _alone = alone();
    if may_mount() {
        inside("mkdir m; mount -t tmpfs -o size=4m none m", "full_disk_inside", "");
    }
}

#[test]
#[ignore = "started by a_full_disk on a small file system"]
fn full_disk_inside() {
    let path = mounted("m/disk");
    let store = file(&path, &sized(64 << 20), &[]).unwrap();
    let megabyte = vec![1; 1 << 20];
    let full = (0..64).find_map(|at| write(&*store, at << 20, &megabyte, false).err()).expect("64 MiB fit into 4");
    assert_eq!((full.kind, full.errno), (ErrorKind::NoSpace, libc::ENOSPC));
    // What is there can be read and given back, and then there is room again.
    let mut back = vec![0; 1 << 20];
    read(&*store, 0, &mut back).unwrap();
    assert!(back == megabyte);
    block_on(&*store, Op::Punch { offset: 0, len: 2 << 20 }).unwrap();
    write(&*store, 32 << 20, &megabyte, true).unwrap();
    block_on(&*store, Op::Flush).unwrap();
    // A mapped file must fit in whole, or later writes would kill the process; nothing is left of the attempt.
    let mapped = mounted("m/mapped");
    let error = failure(open("ram", "", &sized(8 << 20), &map(&[("file", &mapped)]), &[]));
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
    assert!(!Path::new(&mapped).exists());
}

fn may_use_loop_devices() -> bool {
    let tools = ["losetup", "mkfs.ext4"].iter().all(|tool| {
        Command::new("sh").args(["-c", &format!("command -v {tool} >/dev/null")]).status().unwrap().success()
    });
    let works = tools
        && Command::new("sh")
            .args(["-ec", "f=$(mktemp); truncate -s 1M $f; d=$(losetup -f --show $f); losetup -d $d; rm $f"])
            .output()
            .is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("NOT RUN: this needs root, loop devices and mkfs.ext4");
    }
    works
}

/// A power cut: the disk as it is right after the completion, copied below the file system and mounted anew.
#[test]
fn fua_and_flush_survive_a_power_cut() {
    let _alone = alone();
    if may_mount() && may_use_loop_devices() {
        let prepare = "truncate -s 64M image; mkfs.ext4 -q image; mkdir m after; mount -o loop image m";
        inside(prepare, "power_cut_inside", "umount m");
    }
}

#[test]
#[ignore = "started by fua_and_flush_survive_a_power_cut on a file system in an image"]
fn power_cut_inside() {
    let ways = ["pool", "uring"].into_iter().filter(|io| {
        let path = mounted(&format!("m/probe-{io}"));
        file(&path, &sized(SIZE), &[("io", io)]).is_ok()
    });
    for io in ways {
        let names = ["fua", "flush", "zero", "mapped", "neither"].map(|name| format!("{name}-{io}"));
        let stores = names.each_ref().map(|name| {
            let path = mounted(&format!("m/{name}"));
            if name.starts_with("mapped") {
                return open("ram", "", &sized(SIZE), &map(&[("file", &path)]), &[]).unwrap();
            }
            file(&path, &sized(SIZE), &[("io", io)]).unwrap()
        });
        write(&*stores[2], 0, &[7; 65_536], true).unwrap();
        assert!(Command::new("sync").status().unwrap().success());
        // Alternately, so that no cut gains from what the next one flushes.
        let [fua, flush, zero, mapped, neither] = &stores;
        // Whether the data are there afterwards, all of them.
        let cut = |name: &str, store: &Arc<dyn Store>, wanted: u8| {
            let run = |script: &str| {
                let output = Command::new("sh").args(["-ec", script]).current_dir(mounted("")).output().unwrap();
                assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
            };
            run("cp --sparse=always image cut; mount -o loop cut after");
            let mut seen = vec![0; 16_384];
            let copy = std::fs::File::open(mounted(&format!("after/{name}"))).unwrap();
            copy.read_exact_at(&mut seen, 4096).unwrap();
            drop(copy);
            run("umount after; rm cut");
            let mut now = vec![0; 16_384];
            read(&**store, 4096, &mut now).unwrap();
            assert!(now.iter().all(|byte| *byte == wanted));
            seen.iter().all(|byte| *byte == wanted)
        };
        // Without a promise the data are not there yet, which is what makes the rest of this test mean something; unless
        // the kernel just writes everything back, because somebody else on this machine asked for it.
        let early = (10..30).find(|byte| {
            write(&**neither, 4096, &[*byte; 16_384], false).unwrap();
            !cut(&names[4], neither, *byte)
        });
        assert!(early.is_some(), "what was only written is always on the disk");
        write(&**fua, 4096, &[9; 16_384], true).unwrap();
        assert!(cut(&names[0], fua, 9), "fua");
        write(&**flush, 4096, &[9; 16_384], false).unwrap();
        block_on(&**flush, Op::Flush).unwrap();
        assert!(cut(&names[1], flush, 9), "flush");
        block_on(&**zero, Op::Zero { offset: 4096, len: 16_384, may_unmap: io == "pool", fua: true }).unwrap();
        assert!(cut(&names[2], zero, 0), "zero");
        write(&**mapped, 4096, &[9; 16_384], true).unwrap();
        assert!(cut(&names[3], mapped, 9), "mapped");
    }
}

/// A loop device and its file; detached at the end.
struct Loop(String);

impl Loop {
    fn new(image: &str) -> Self {
        let output = Command::new("losetup").args(["-f", "--show", image]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(String::from_utf8(output.stdout).unwrap().trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn a_block_device() {
    let _alone = alone();
    if !may_use_loop_devices() {
        return;
    }
    let directory = Directory::new();
    let image = directory.file("image");
    std::fs::File::create(&image).unwrap().set_len(SIZE).unwrap();
    let device = Loop::new(&image);
    for (direct, io) in [(false, "pool"), (true, "pool"), (true, "uring")] {
        let options = OpenOptions { direct, ..OpenOptions::default() };
        let make = || file(&device.0, &options, &[("io", io)]).unwrap();
        if io == "uring" && file(&device.0, &options, &[("io", io)]).is_err() {
            continue;
        }
        let store = make();
        assert_eq!((store.geometry().size, store.identity().kind), (SIZE, "block"));
        assert!(store.capabilities().can_punch && !store.capabilities().can_resize);
        drop(store);
        let report = run(&make, &Expect { reopen: Some(&make), ..Expect::default() });
        report.assert_passed();
    }
    let store = file(&device.0, &OpenOptions::default(), &[]).unwrap();
    write(&*store, 0, &vec![1; SIZE as usize], true).unwrap();
    let before = used(&image);
    block_on(&*store, Op::Punch { offset: 4 << 20, len: 4 << 20 }).unwrap();
    assert!(used(&image) + (4 << 20) <= before, "{before} bytes used, {} after punching half", used(&image));
    drop(store);
    let error = failure(file(&device.0, &sized(SIZE * 2), &[]));
    assert_eq!(error.kind, ErrorKind::WouldResize);
    assert_eq!(failure(open("ram", "", &read_only(), &map(&[("file", &device.0)]), &[])).kind, ErrorKind::Invalid);
}

#[test]
fn a_mounted_device_is_not_for_writing() {
    let _alone = alone();
    if may_mount() && may_use_loop_devices() {
        let prepare = "truncate -s 8M image; mkfs.ext4 -q image; mkdir m
            export LOOP=$(losetup -f --show image); trap 'umount m; losetup -d $LOOP' EXIT; mount $LOOP m";
        inside(prepare, "mounted_device_inside", "");
    }
}

#[test]
#[ignore = "started by a_mounted_device_is_not_for_writing"]
fn mounted_device_inside() {
    let device = std::env::var("LOOP").unwrap();
    let error = failure(file(&device, &OpenOptions::default(), &[]));
    assert_eq!(error.kind, ErrorKind::Locked, "{error}");
    assert!(error.to_string().contains("mounted"), "{error}");
    file(&device, &read_only(), &[]).unwrap();
}
