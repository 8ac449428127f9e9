//! The initiator on real sockets, against a target that shares no code with it.

mod mini_target;

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use blockwire_engine::Plane;
use blockwire_engine::calls::{Handoff, ReleaseMode, SessionSpec};
use blockwire_engine::core::PlaneOptions;
use blockwire_engine::events::{Event, OpResult, TaskDone};
use blockwire_engine::initiator::{BlockRequest, IoKind, LoadSpec, LoadTable, Memory};
use blockwire_engine::transport::TransportHandle;
use blockwire_proto::{ConnectionParams, SessionParams};
use mini_target::{CUT, FULL, HALF, MiniTarget, PING, SILENT, TRICKLE};

/// For what has to come: much longer than a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Rig {
    plane: Arc<Plane>,
    session: u64,
    target: MiniTarget,
}

fn connection() -> ConnectionParams {
    ConnectionParams {
        cid: 1,
        max_recv_data_segment_length: 262_144,
        max_send_data_segment_length: 65_536,
        ..ConnectionParams::default()
    }
}

fn rig_with(params: ConnectionParams) -> Rig {
    let plane = Arc::new(Plane::new(PlaneOptions::default()).unwrap());
    let spec = SessionSpec {
        params: SessionParams::default(),
        initiator_name: "iqn.2026-01.example:a".to_owned(),
        target_name: "iqn.2026-01.example:b".to_owned(),
        isid: [0; 6],
        tsih: 1,
        max_connections: 1,
        cmd_sn: 1,
        exp_cmd_sn: 1,
        max_cmd_sn: 64,
    };
    let session = plane.create_initiator_session(spec).unwrap();
    let (target, fd) = MiniTarget::start(16 << 20);
    let rig = Rig { plane, session, target };
    rig.adopt(fd, params);
    rig
}

fn rig() -> Rig {
    rig_with(connection())
}

fn never() -> impl FnMut() -> bool {
    || false
}

impl Rig {
    fn adopt(&self, fd: i32, params: ConnectionParams) {
        let handoff = Handoff {
            transport: TransportHandle::Tcp(fd),
            params,
            stat_sn: 0,
            exp_stat_sn: 1,
            over_read: Vec::new(),
            peer: "127.0.0.1:3260".to_owned(),
            reassigned_from: None,
        };
        let op = self.plane.adopt(self.session, handoff);
        let done = self.event(|e| matches!(e, Event::OpDone { op: o, .. } if *o == op));
        assert!(matches!(done, Event::OpDone { result: Ok(OpResult::None), .. }), "{done:?}");
    }

    fn event(&self, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let started = Instant::now();
        loop {
            for event in self.plane.events().drain(64) {
                if wanted(&event) {
                    return event;
                }
            }
            assert!(started.elapsed() < PATIENCE, "no such event");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn execute(&self, kind: IoKind, lba: u32, buffer: &mut [u8], timeout: Option<Duration>) -> TaskDone {
        let blocks = (buffer.len() / 512) as u32;
        let io = BlockRequest { kind, lba: u64::from(lba), blocks, block_size: 512, fua: false };
        // SAFETY: the buffer outlives the call, and the call its request (checked below).
        let memory = unsafe { Memory::new(buffer.as_mut_ptr(), buffer.len() as u32) };
        let token = self.plane.token();
        let done = self.plane.execute_io(self.session, token, 0, &io, memory, timeout, &mut never()).unwrap();
        assert!(!done.pinned);
        done.done
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 13 + i / 509 + seed) as u8).collect()
}

fn is_good(done: &TaskDone) -> bool {
    done.code.is_empty() && done.status == 0 && done.residual == 0
}

#[test]
fn synchronous_reads_and_writes_of_many_sizes() {
    let rig = rig();
    for (i, len) in [512, 4096, 65_536, 66_048, 262_144, 1 << 20, 3 << 20].into_iter().enumerate() {
        let mut data = pattern(len, i);
        assert!(is_good(&rig.execute(IoKind::Write, 8, &mut data, None)));
        assert_eq!(rig.target.disk.lock().unwrap()[4096..4096 + len], data);
        let mut back = vec![0; len];
        assert!(is_good(&rig.execute(IoKind::Read, 8, &mut back, None)));
        assert!(back == data, "{len}");
    }
    assert!(is_good(&rig.execute(IoKind::Flush, 0, &mut [], None)));
}

/// Send calls, receive calls, PDUs received.
fn count(rig: &Rig) -> (u64, u64, u64) {
    let mut out = Vec::new();
    rig.plane.initiator_session(rig.session).unwrap().statistics(rig.session, &mut out);
    let find = |name: &str| out[0].1.iter().find(|(n, _)| *n == name).unwrap().1;
    (find("send_calls"), find("receive_calls"), find("pdus_received"))
}

#[test]
fn depth_one_is_one_send_and_one_receive() {
    let rig = rig();
    let mut buffer = vec![0; 4096];
    for _ in 0..50 {
        rig.execute(IoKind::Read, 0, &mut buffer, None);
    }
    let mut least = u64::MAX;
    // a response may arrive in two pieces, and the background looks when a busy machine keeps the caller away: such a
    // round proves nothing
    for _ in 0..20 {
        let before = count(&rig);
        for _ in 0..200 {
            assert!(is_good(&rig.execute(IoKind::Read, 0, &mut buffer, None)));
        }
        let after = count(&rig);
        assert_eq!(after.0 - before.0, 200);
        assert_eq!(after.2 - before.2, 200);
        least = least.min(after.1 - before.1);
        if least < 230 {
            break;
        }
    }
    assert!((200..230).contains(&least), "{least} receive calls");
}

#[test]
fn a_queue_of_many() {
    let rig = rig();
    let queue = rig.plane.open_queue(rig.session).unwrap();
    let mut buffers: Vec<Vec<u8>> = (0..64).map(|i| pattern(8192, i)).collect();
    for kind in [IoKind::Write, IoKind::Read] {
        let mut open = 0;
        for (i, buffer) in buffers.iter_mut().enumerate() {
            let io = BlockRequest { kind, lba: i as u64 * 16, blocks: 16, block_size: 512, fua: false };
            if kind == IoKind::Read {
                buffer.fill(0);
            }
            // SAFETY: the buffers live until all completions are taken below.
            let memory = unsafe { Memory::new(buffer.as_mut_ptr(), 8192) };
            rig.plane.submit_io(rig.session, 1000 + i as u64, queue, 0, &io, memory).unwrap();
            open += 1;
        }
        let mut done = Vec::new();
        while open > done.len() {
            rig.plane.wait(queue, 1, None, &mut never(), &mut done).unwrap();
        }
        assert!(done.iter().all(is_good));
        let mut tokens: Vec<u64> = done.iter().map(|d| d.token).collect();
        tokens.sort_unstable();
        assert!(tokens.into_iter().eq(1000..1064));
    }
    for (i, buffer) in buffers.iter().enumerate() {
        assert!(*buffer == pattern(8192, i));
    }
    let mut none = Vec::new();
    rig.plane.wait(queue, 1, None, &mut never(), &mut none).unwrap();
    assert!(none.is_empty(), "nothing is in flight: the wait comes back");
    rig.plane.close_queue(queue);
    assert!(rig.plane.wait(queue, 1, None, &mut never(), &mut none).is_err());
}

#[test]
fn requests_leave_by_quarters_of_what_is_in_flight() {
    let rig = rig();
    let queue = rig.plane.open_queue(rig.session).unwrap();
    let mut buffers = vec![vec![0; 512]; 128];
    let (sent, ..) = count(&rig);
    let mut calls = Vec::new();
    for (token, buffer) in (1..).zip(&mut buffers) {
        let io = BlockRequest { kind: IoKind::Read, lba: 0, blocks: 1, block_size: 512, fua: false };
        // SAFETY: the buffers live until all completions are taken below.
        let memory = unsafe { Memory::new(buffer.as_mut_ptr(), 512) };
        rig.plane.submit_io(rig.session, token, queue, 0, &io, memory).unwrap();
        calls.push(count(&rig).0 - sent);
    }
    assert_eq!(calls[..7], [1, 2, 3, 4, 5, 6, 7], "few leave one by one, and before anybody waits");
    assert!((8..30).contains(&calls[127]), "{} send calls for 128 requests", calls[127]);
    let mut done = Vec::new();
    while done.len() < 128 {
        rig.plane.wait(queue, 1, None, &mut never(), &mut done).unwrap();
    }
    assert!(done.iter().all(is_good));
}

#[test]
fn completions_as_events_need_no_thread() {
    let rig = rig();
    let mut buffer = vec![1; 4096];
    let io = BlockRequest { kind: IoKind::Read, lba: 0, blocks: 8, block_size: 512, fua: false };
    for round in 0..20 {
        // SAFETY: the buffer lives until the event below.
        let memory = unsafe { Memory::new(buffer.as_mut_ptr(), 4096) };
        rig.plane.submit_io(rig.session, 5000 + round, 0, 0, &io, memory).unwrap();
        rig.event(|e| matches!(e, Event::TaskDone(done) if done.token == 5000 + round && is_good(done)));
        assert!(buffer.iter().all(|b| *b == 0));
        // synchronous calls in between take the sockets and give them back
        assert!(is_good(&rig.execute(IoKind::Read, 0, &mut vec![0; 512], None)));
    }
}

#[test]
fn the_background_answers_pings() {
    let rig = rig();
    let io = BlockRequest { kind: IoKind::Read, lba: u64::from(PING), blocks: 0, block_size: 512, fua: false };
    rig.plane.submit_io(rig.session, 1, 0, 0, &io, Memory::NONE).unwrap();
    rig.event(|e| matches!(e, Event::TaskDone(done) if done.token == 1));
    assert_eq!(rig.target.pongs.load(Ordering::SeqCst), 1);
}

#[test]
fn the_rest_of_a_large_segment_is_waited_for_as_a_whole() {
    let rig = rig();
    let mut buffer = vec![0; 262_144];
    assert!(is_good(&rig.execute(IoKind::Read, TRICKLE, &mut buffer, None)));
    assert!(buffer.iter().all(|&byte| byte == 7));
    let calls = count(&rig).1;
    assert!(calls <= 12, "{calls} receive calls for 65 pieces");
    // the background, which reads next, is woken by a PDU that is shorter than what was waited for
    let io = BlockRequest { kind: IoKind::Read, lba: u64::from(PING), blocks: 0, block_size: 512, fua: false };
    rig.plane.submit_io(rig.session, 1, 0, 0, &io, Memory::NONE).unwrap();
    rig.event(|e| matches!(e, Event::TaskDone(done) if done.token == 1));
    assert_eq!(rig.target.pongs.load(Ordering::SeqCst), 1);
}

#[test]
fn timeout_and_signal_abort_first() {
    let rig = rig();
    let started = Instant::now();
    let done = rig.execute(IoKind::Read, SILENT, &mut vec![0; 512], Some(Duration::from_millis(150)));
    assert_eq!(done.code, "task.aborted");
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert_eq!(rig.target.aborts.load(Ordering::SeqCst), 1);
    let mut buffer = vec![0; 512];
    // SAFETY: as in `execute`.
    let memory = unsafe { Memory::new(buffer.as_mut_ptr(), 512) };
    let io = BlockRequest { kind: IoKind::Read, lba: u64::from(SILENT), blocks: 1, block_size: 512, fua: false };
    let mut asked = 0;
    let mut check = || {
        asked += 1;
        asked == 2
    };
    let done = rig.plane.execute_io(rig.session, 3, 0, &io, memory, None, &mut check).unwrap();
    assert_eq!((done.done.code, done.pinned, asked), ("task.aborted", false, 2));
    // the session is as good as before
    assert!(is_good(&rig.execute(IoKind::Read, 0, &mut buffer, None)));
}

/// The target stops in the middle of a Data-In and answers nothing: the caller gets its memory back all the same, and what
/// comes later is thrown away.
#[test]
fn a_placement_is_revoked_in_the_middle_of_a_pdu() {
    let rig = rig();
    let mut buffer = vec![1; 64 * 1024];
    let done = rig.execute(IoKind::Read, HALF, &mut buffer, Some(Duration::from_millis(100)));
    assert_eq!(done.code, "task.timeout");
    assert!(buffer[..32 * 1024 - 48].iter().all(|b| *b == 7), "the first half arrived");
    buffer.fill(2);
    // the session goes on when the target does
    rig.target.goes_on.store(true, Ordering::SeqCst);
    assert!(is_good(&rig.execute(IoKind::Read, 0, &mut vec![0; 512], None)));
    assert!(buffer.iter().all(|b| *b == 2));
}

#[test]
fn cancel_and_status() {
    let rig = rig();
    let queue = rig.plane.open_queue(rig.session).unwrap();
    let mut buffer = vec![0; 512];
    // SAFETY: the buffer lives until the completion.
    let memory = unsafe { Memory::new(buffer.as_mut_ptr(), 512) };
    let io = BlockRequest { kind: IoKind::Read, lba: u64::from(SILENT), blocks: 1, block_size: 512, fua: false };
    rig.plane.submit_io(rig.session, 42, queue, 0, &io, memory).unwrap();
    let mut done = Vec::new();
    rig.plane.wait(queue, 1, Some(Duration::from_millis(120)), &mut never(), &mut done).unwrap();
    assert!(done.is_empty());
    assert!(rig.plane.cancel(42));
    rig.plane.wait(queue, 1, Some(PATIENCE), &mut never(), &mut done).unwrap();
    assert_eq!((done[0].token, done[0].code), (42, "task.aborted"));
    assert!(!rig.plane.cancel(42));
    assert_eq!(rig.execute(IoKind::Read, FULL, &mut buffer, None).status, 0x28);
}

#[test]
fn a_lost_connection_ends_everything_and_says_so() {
    let rig = rig();
    let mut buffer = vec![0; 512];
    assert_eq!(rig.execute(IoKind::Read, CUT, &mut buffer, None).code, "session.lost");
    let lost = rig.event(|e| matches!(e, Event::ConnectionLost { .. }));
    let Event::ConnectionLost { session, cid: 1, code, .. } = lost else { panic!() };
    assert_eq!(session, rig.session);
    assert!(["closed-by-peer", "reset"].contains(&code));
    // later requests end at once
    assert_eq!(rig.execute(IoKind::Read, 0, &mut buffer, None).code, "session.lost");
}

#[test]
fn pings_go_out_when_it_is_quiet() {
    let rig = rig_with(ConnectionParams {
        keep_alive_interval: 20_000_000,
        keep_alive_timeout: 100_000_000_000,
        ..connection()
    });
    let started = Instant::now();
    while count(&rig).2 < 2 {
        assert!(started.elapsed() < PATIENCE, "{} answers to pings", count(&rig).2);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn four_threads_share_a_session() {
    let rig = Arc::new(rig());
    let threads: Vec<_> = (0..4)
        .map(|t| {
            let rig = Arc::clone(&rig);
            std::thread::spawn(move || {
                for round in 0..100 {
                    let mut data = pattern(4096, t * 1000 + round);
                    let lba = (t * 4096 + round * 8) as u32;
                    assert!(is_good(&rig.execute(IoKind::Write, lba, &mut data, None)));
                    let mut back = vec![0; 4096];
                    assert!(is_good(&rig.execute(IoKind::Read, lba, &mut back, None)));
                    assert!(back == data);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Who waits for the only connection that has requests waits for it alone; what comes on another is not left there for that.
#[test]
fn a_request_on_another_connection_does_not_wait_for_a_silent_one() {
    let rig = rig();
    let (_other, fd) = MiniTarget::start(16 << 20);
    rig.adopt(fd, ConnectionParams { cid: 2, ..connection() });
    let token = rig.plane.token();
    std::thread::scope(|scope| {
        let silent = scope.spawn(|| {
            let io =
                BlockRequest { kind: IoKind::Read, lba: u64::from(SILENT), blocks: 0, block_size: 512, fua: false };
            rig.plane.execute_io(rig.session, token, 0, &io, Memory::NONE, None, &mut never()).unwrap().done
        });
        while !rig.plane.is_in_flight(rig.session, token) {
            std::thread::yield_now();
        }
        for round in 0..200 {
            // one by one, on the other and on the silent one's connection, whose target goes on answering
            assert!(is_good(&rig.execute(IoKind::Read, round, &mut [0; 512], None)));
        }
        assert!(!silent.is_finished());
        rig.plane.close_session(rig.session);
        assert!(!is_good(&silent.join().unwrap()));
    });
}

#[test]
fn release_gives_the_transport_back() {
    let rig = rig();
    assert!(is_good(&rig.execute(IoKind::Read, 0, &mut vec![0; 512], None)));
    let op = rig.plane.release(rig.session, 1, ReleaseMode::Detach);
    let event = rig.event(|e| matches!(e, Event::OpDone { op: o, .. } if *o == op));
    let Event::OpDone { result: Ok(OpResult::Released(released)), .. } = event else { panic!("{event:?}") };
    let Some(TransportHandle::Tcp(fd)) = released.transport else { panic!() };
    assert_eq!(released.exp_stat_sn, 2);
    let handoff = Handoff {
        transport: TransportHandle::Tcp(fd),
        params: connection(),
        stat_sn: 0,
        exp_stat_sn: released.exp_stat_sn,
        over_read: released.over_read,
        peer: String::new(),
        reassigned_from: None,
    };
    let op = rig.plane.adopt(rig.session, handoff);
    rig.event(|e| matches!(e, Event::OpDone { op: o, result: Ok(_) } if *o == op));
    assert!(is_good(&rig.execute(IoKind::Read, 0, &mut vec![0; 512], None)));
}

/// Runs `end` while a thread waits for an answer that never comes, at the beginning of a slice of its waiting; gives how its
/// request ended, and how long that took.
fn ended_by(end: fn(&Rig)) -> (&'static str, Duration) {
    let rig = Arc::new(rig());
    let (told, slices) = mpsc::channel();
    let waiting = {
        let rig = Arc::clone(&rig);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 512];
            // SAFETY: as in `execute`.
            let memory = unsafe { Memory::new(buffer.as_mut_ptr(), 512) };
            let io =
                BlockRequest { kind: IoKind::Read, lba: u64::from(SILENT), blocks: 1, block_size: 512, fua: false };
            let mut slice = || told.send(()).is_err();
            let token = rig.plane.token();
            let done = rig.plane.execute_io(rig.session, token, 0, &io, memory, None, &mut slice).unwrap();
            assert!(!done.pinned);
            done.done.code
        })
    };
    slices.recv().unwrap();
    let started = Instant::now();
    end(&rig);
    let code = waiting.join().unwrap();
    (code, started.elapsed())
}

#[test]
fn closing_wakes_who_waits() {
    let ends: [fn(&Rig); 3] = [
        |rig| {
            rig.plane.close_session(rig.session);
        },
        |rig| {
            rig.plane.release(rig.session, 1, ReleaseMode::Terminate);
        },
        |rig| rig.plane.shutdown(Duration::from_secs(1)),
    ];
    for end in ends {
        // Who is not woken waits for the end of its slice, 100 ms, each time. One quick answer shows that it is not so.
        let mut least = Duration::MAX;
        for _ in 0..50 {
            let (code, took) = ended_by(end);
            assert_eq!(code, "session.lost");
            least = least.min(took);
            if least < Duration::from_millis(50) {
                break;
            }
        }
        assert!(least < Duration::from_millis(50), "{least:?}: the end of the slice was waited for");
    }
}

#[test]
fn a_closed_queue_hands_its_requests_to_the_events() {
    let rig = rig();
    let queue = rig.plane.open_queue(rig.session).unwrap();
    let mut buffer = vec![0; 512];
    // SAFETY: the buffer lives until the event.
    let memory = unsafe { Memory::new(buffer.as_mut_ptr(), 512) };
    let io = BlockRequest { kind: IoKind::Read, lba: u64::from(SILENT), blocks: 1, block_size: 512, fua: false };
    rig.plane.submit_io(rig.session, 9, queue, 0, &io, memory).unwrap();
    rig.plane.close_queue(queue);
    rig.event(|e| matches!(e, Event::TaskDone(done) if done.token == 9 && done.code == "task.aborted"));
    let again = rig.plane.open_queue(rig.session).unwrap();
    assert_eq!(again, queue, "its place is free again");
}

#[test]
fn nothing_is_allocated_once_warm() {
    let rig = rig();
    let queue = rig.plane.open_queue(rig.session).unwrap();
    let mut buffers = vec![0u8; 32 * 4096];
    let base = buffers.as_mut_ptr();
    let mut done = Vec::with_capacity(64);
    let submit = |i: u64, kind| {
        let io = BlockRequest { kind, lba: i * 8, blocks: 8, block_size: 512, fua: false };
        // SAFETY: each request has its own 4096 bytes of `buffers`, which outlives them all.
        let memory = unsafe { Memory::new(base.add(i as usize * 4096), 4096) };
        rig.plane.submit_io(rig.session, 1 + i, queue, 0, &io, memory).unwrap();
    };
    for i in 0..32 {
        submit(i, IoKind::Read);
    }
    let mut before = 0;
    for round in 0..3000 {
        if round == 1000 {
            before = counting::allocations();
        }
        rig.plane.wait(queue, 1, None, &mut never(), &mut done).unwrap();
        for ended in done.drain(..) {
            assert!(is_good(&ended));
            submit(ended.token - 1, if round % 3 == 0 { IoKind::Write } else { IoKind::Read });
        }
    }
    // going to the foreground posts one job to the worker: rare, and not a matter of requests
    let made = counting::allocations() - before;
    assert!(made < 20, "{made} allocations in 2000 rounds");
    while done.len() < 32 {
        rig.plane.wait(queue, 1, None, &mut never(), &mut done).unwrap();
    }
}

/// Counts the allocations of each thread.
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        static COUNT: Cell<u64> = const { Cell::new(0) };
    }

    struct Counting;

    // SAFETY: everything is handed to the system's allocator.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let _ = COUNT.try_with(|c| c.set(c.get() + 1));
            // SAFETY: as the caller promised.
            unsafe { System.alloc(layout) }
        }
        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: as the caller promised.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    /// Of this thread, so far.
    pub fn allocations() -> u64 {
        COUNT.with(Cell::get)
    }
}

#[test]
fn load_with_verification() {
    let rig = rig();
    let spec = LoadSpec {
        lun: 0,
        block_size: 512,
        size: 4 << 20,
        transfer: 4096,
        depth: 32,
        read_percent: 50,
        random: true,
        duration: 0,
        requests: 20_000,
        verify: true,
        seed: 7,
        fua: false,
    };
    let report = rig.plane.run_load(rig.session, &spec, &mut LoadTable::default(), &mut never()).unwrap();
    assert_eq!((report.reads + report.writes, report.errors, report.miscompares), (20_000, 0, 0), "{report:?}");
    assert_eq!(report.histogram_ns.iter().map(|b| b.1).sum::<u64>(), 20_000);
    // a disk that forgets during the run is noticed
    let disk = &rig.target.disk;
    let mut forget = || {
        disk.lock().unwrap().rotate_left(512);
        false
    };
    let spec = LoadSpec { requests: 0, duration: 600_000_000, ..spec };
    let started = Instant::now();
    loop {
        // on a machine that is busy enough, the run is over before it forgets
        let report = rig.plane.run_load(rig.session, &spec, &mut LoadTable::default(), &mut forget).unwrap();
        if report.miscompares > 0 {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{report:?}");
    }
}
