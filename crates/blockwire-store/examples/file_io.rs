//! Measures ways of doing I/O on a store: keeps a number of operations in flight from one thread, the way a reactor
//! does (submit, wait on an eventfd, drain), and prints operations per second and CPU time per operation.
//!
//! `cargo run --release -p blockwire-store --example file_io -- PATH [SECONDS [LOAD]]` (PATH is created with 1 GiB).
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blockwire_store::{CompletionSink, IoVecs, Op, OpenOptions, Outcome, Store, Submitted, open, write};

const SIZE: u64 = 1 << 30;

struct Mailbox {
    bell: i32,
    done: Mutex<Vec<u64>>,
}

impl CompletionSink for Mailbox {
    fn complete(&self, batch: &[(u64, Outcome)]) {
        let mut done = self.done.lock().unwrap();
        let ring = done.is_empty();
        for (token, outcome) in batch {
            outcome.as_ref().expect("an operation failed");
            done.push(*token);
        }
        drop(done);
        if ring {
            let one = 1u64;
            // SAFETY: eight bytes from a local into an open eventfd.
            unsafe { libc::write(self.bell, (&raw const one).cast(), 8) };
        }
    }
}

fn cpu() -> Duration {
    // SAFETY: an all-zero rusage is a valid place for the kernel to write to.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let time = |value: libc::timeval| Duration::new(value.tv_sec as u64, value.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// A name, whether it is direct, and the store's options.
type Way = (&'static str, bool, &'static [(&'static str, &'static str)]);

struct Load {
    name: &'static str,
    block: usize,
    depth: usize,
    write: bool,
    fua: bool,
    /// Bytes from the start of the store that are touched.
    span: u64,
}

fn measure(store: &dyn Store, load: &Load, time: Duration) -> (f64, f64) {
    // SAFETY: no pointers.
    let bell = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    let mailbox = Arc::new(Mailbox { bell, done: Mutex::default() });
    let sink: Arc<dyn CompletionSink> = mailbox.clone();
    let memory = vec![1u8; load.block * load.depth + 4096];
    let base = (memory.as_ptr() as usize).next_multiple_of(4096);
    let mut random = 88_172_645_463_325_252u64;
    let mut next = |token: u64| -> Op {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let offset = random % (load.span / load.block as u64) * load.block as u64;
        // SAFETY: every token has its own part of `memory`, which outlives the last completion awaited below.
        let list = unsafe { IoVecs::single((base + token as usize * load.block) as *mut u8, load.block) };
        if load.write { Op::Write { offset, src: list, fua: load.fua } } else { Op::Read { offset, dst: list } }
    };
    let (mut ready, mut taken): (Vec<u64>, Vec<u64>) = ((0..load.depth as u64).collect(), Vec::new());
    let (mut count, mut flying) = (0u64, 0usize);
    let (started, cpu_before) = (Instant::now(), cpu());
    loop {
        let going_on = started.elapsed() < time;
        // One turn: at most one operation per token, as one pass over the ready connections.
        for token in std::mem::take(&mut ready) {
            if !going_on {
                continue;
            }
            match store.submit(next(token), token, &sink) {
                Submitted::Done(outcome) => {
                    outcome.expect("an operation failed");
                    count += 1;
                    ready.push(token);
                }
                Submitted::Pending => flying += 1,
            }
        }
        if !going_on && flying == 0 {
            break;
        }
        if ready.is_empty() {
            let mut counter = 0u64;
            // SAFETY: eight bytes from an open eventfd into a local.
            unsafe { libc::read(bell, (&raw mut counter).cast(), 8) };
            std::mem::swap(&mut taken, &mut mailbox.done.lock().unwrap());
            flying -= taken.len();
            count += taken.len() as u64;
            ready.append(&mut taken);
        }
    }
    let (wall, busy) = (started.elapsed(), cpu() - cpu_before);
    // SAFETY: our own descriptor; nothing is in flight that could ring it.
    unsafe { libc::close(bell) };
    (count as f64 / wall.as_secs_f64(), busy.as_secs_f64() * 1e6 / count as f64)
}

fn drop_cache(path: &str) {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    // SAFETY: plain numbers and an open descriptor.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("usage: file_io PATH [SECONDS]");
    let time = Duration::from_secs_f64(arguments.next().map_or(2.0, |text| text.parse().expect("a number of seconds")));
    let options = OpenOptions { create_size: Some(SIZE), ..OpenOptions::default() };
    {
        let store = open("file", &path, &options, &BTreeMap::new(), &[]).unwrap();
        let data: Vec<u8> = (0..1 << 20).map(|at| (at / 5) as u8).collect();
        (0..SIZE >> 20).for_each(|at| write(&*store, at << 20, &data, false).unwrap());
    }
    let small = 64 << 20;
    let loads = [
        Load { name: "cached read  4K qd1 ", block: 4096, depth: 1, write: false, fua: false, span: small },
        Load { name: "cached read  4K qd32", block: 4096, depth: 32, write: false, fua: false, span: small },
        Load { name: "cold   read  4K qd1 ", block: 4096, depth: 1, write: false, fua: false, span: SIZE },
        Load { name: "cold   read  4K qd32", block: 4096, depth: 32, write: false, fua: false, span: SIZE },
        Load { name: "cold   read 64K qd8 ", block: 65_536, depth: 8, write: false, fua: false, span: SIZE },
        Load { name: "       write 4K qd1 ", block: 4096, depth: 1, write: true, fua: false, span: small },
        Load { name: "       write 4K qd32", block: 4096, depth: 32, write: true, fua: false, span: small },
        Load { name: "      write 64K qd8 ", block: 65_536, depth: 8, write: true, fua: false, span: small },
        Load { name: "   write FUA 4K qd8 ", block: 4096, depth: 8, write: true, fua: true, span: small },
    ];
    let ways: [Way; 6] = [
        ("pool 4", false, &[("threads", "4")]),
        ("pool 8", false, &[("threads", "8")]),
        ("pool 16", false, &[("threads", "16")]),
        ("uring", false, &[("io", "uring")]),
        ("pool 8 direct", true, &[("io", "pool")]),
        ("uring direct", true, &[("io", "uring")]),
    ];
    // A third argument picks the loads whose name has it.
    let only = arguments.next().unwrap_or_default();
    for load in loads.iter().filter(|load| load.name.contains(&only)) {
        for (name, direct, extra) in ways {
            let extra = extra.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            let store = match open("file", &path, &OpenOptions { direct, ..options.clone() }, &extra, &[]) {
                Ok(store) => store,
                Err(error) => {
                    println!("{} {name:14} {error}", load.name);
                    continue;
                }
            };
            if load.name.starts_with("cold") {
                drop_cache(&path);
            } else if load.name.starts_with("cached") {
                let mut buffer = vec![0; small as usize];
                blockwire_store::read(&*store, 0, &mut buffer).unwrap();
            }
            let (rate, busy) = measure(&*store, load, time);
            println!("{} {name:14} {rate:9.0} op/s {busy:7.2} us CPU/op", load.name);
        }
    }
}
