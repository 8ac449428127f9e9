//! Our initiator against our target over loopback TCP, with the data compared.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockwire_engine::Plane;
use blockwire_engine::calls::{CommandClass, Gate, Handoff, SessionSpec};
use blockwire_engine::core::PlaneOptions;
use blockwire_engine::counters::Counters;
use blockwire_engine::events::{Event, OpResult};
use blockwire_engine::initiator::{CommandRequest, LoadSpec, LoadTable, Memory};
use blockwire_engine::plane::{LunRequest, StoreRequest};
use blockwire_engine::transport::TransportHandle;
use blockwire_proto::{ConnectionParams, SessionParams};
use blockwire_store::OpenOptions;

const SIZE: u64 = 8 << 20;

struct Pair {
    target: Arc<Plane>,
    initiator: Arc<Plane>,
    session: u64,
}

fn wait(plane: &Plane, op: u64) -> OpResult {
    let started = Instant::now();
    loop {
        for event in plane.events().drain(64) {
            if let Event::OpDone { op: o, result } = event
                && o == op
            {
                return result.expect("done");
            }
        }
        assert!(started.elapsed() < Duration::from_secs(120), "the operation does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn pair(params: &SessionParams, connection: &ConnectionParams, scheme: &str, path: &str) -> Pair {
    let target = Arc::new(Plane::new(PlaneOptions::default()).expect("plane"));
    let initiator = Arc::new(Plane::new(PlaneOptions::default()).expect("plane"));
    let store = StoreRequest {
        scheme: scheme.to_owned(),
        path: path.to_owned(),
        options: OpenOptions { create_size: Some(SIZE), ..OpenOptions::default() },
        extra: BTreeMap::new(),
        filters: Vec::new(),
    };
    let OpResult::Store(info) = wait(&target, target.open_store(store)) else { panic!("no store") };
    let spec = || SessionSpec {
        params: params.clone(),
        initiator_name: "iqn.2026-01.example:a".to_owned(),
        target_name: "iqn.2026-01.example:b".to_owned(),
        isid: [0; 6],
        tsih: 1,
        max_connections: 1,
        cmd_sn: 1,
        exp_cmd_sn: 1,
        max_cmd_sn: 64,
    };
    let served = target.create_target_session(spec()).expect("session");
    let lun = LunRequest {
        store: info.store,
        block_size: 512,
        blocks: SIZE / 512,
        read_only: false,
        write_cache: true,
        descriptor_sense: false,
        can_unmap: true,
        max_transfer_blocks: 0,
        gates: [Gate::Pass; CommandClass::COUNT],
    };
    wait(&target, target.map_lun(served, 0, lun));
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connected");
    let (server, _) = listener.accept().expect("accepted");
    let handoff = |fd| Handoff {
        transport: TransportHandle::Tcp(fd),
        params: connection.clone(),
        stat_sn: 1,
        exp_stat_sn: 1,
        over_read: Vec::new(),
        peer: String::new(),
        reassigned_from: None,
    };
    wait(&target, target.adopt(served, handoff(server.into_raw_fd())));
    let session = initiator.create_initiator_session(spec()).expect("session");
    wait(&initiator, initiator.adopt(session, handoff(client.into_raw_fd())));
    Pair { target, initiator, session }
}

fn load(transfer: u32, depth: u32, requests: u64) -> LoadSpec {
    LoadSpec {
        lun: 0,
        block_size: 512,
        size: SIZE,
        transfer,
        depth,
        read_percent: 50,
        random: true,
        duration: 0,
        requests,
        verify: true,
        seed: 7,
        fua: false,
    }
}

fn connection() -> ConnectionParams {
    ConnectionParams {
        cid: 1,
        max_recv_data_segment_length: 65_536,
        max_send_data_segment_length: 65_536,
        ..ConnectionParams::default()
    }
}

fn check(pair: &Pair, spec: &LoadSpec) {
    let report = pair.initiator.run_load(pair.session, spec, &mut LoadTable::default(), &mut || false).expect("ran");
    assert_eq!((report.errors, report.miscompares, &report.first_error[..]), (0, 0, ""));
    assert_eq!(report.reads + report.writes, spec.requests);
}

#[test]
fn data_is_right_over_combinations_of_parameters() {
    for (initial_r2t, immediate_data, burst, first, outstanding, segment, digests) in [
        (true, true, 262_144, 65_536, 1, 8192, false),
        (false, true, 262_144, 65_536, 4, 65_536, true),
        (false, false, 65_536, 16_384, 2, 4096, false),
        (true, false, 1024, 512, 3, 512, true),
        (false, true, 16_776_192, 262_144, 8, 262_144, false),
    ] {
        let params = SessionParams {
            initial_r2t,
            immediate_data,
            max_burst_length: burst,
            first_burst_length: first,
            max_outstanding_r2t: outstanding,
            ..SessionParams::default()
        };
        let connection = ConnectionParams {
            max_recv_data_segment_length: segment,
            max_send_data_segment_length: segment,
            header_digest: digests,
            data_digest: digests,
            ..connection()
        };
        let pair = pair(&params, &connection, "ram", "");
        check(&pair, &load(4096, 32, 2000));
        check(&pair, &load(65_536, 8, 200));
        check(&pair, &load(1 << 20, 2, 12));
    }
}

#[test]
fn a_file_answers_through_the_mailbox() {
    let path = std::env::temp_dir().join(format!("blockwire-both-roles-{}", std::process::id()));
    let pair = pair(&SessionParams::default(), &connection(), "file", path.to_str().expect("text"));
    check(&pair, &load(4096, 16, 500));
    check(&pair, &LoadSpec { fua: true, ..load(65_536, 4, 50) });
    let _ = std::fs::remove_file(path);
}

#[test]
fn what_an_earlier_run_left_in_other_places_is_no_miscompare() {
    let pair = pair(&SessionParams::default(), &connection(), "ram", "");
    check(&pair, &load(4096, 8, 4000));
    // this one writes what its reads left in the buffers, so that blocks of the first run stand at other places
    check(&pair, &LoadSpec { verify: false, ..load(8192, 8, 2000) });
    check(&pair, &load(4096, 8, 2000));
}

fn difference(after: &Counters, before: &Counters) -> (u64, u64, u64) {
    (
        after.receive_calls - before.receive_calls,
        after.send_calls - before.send_calls,
        after.wait_calls - before.wait_calls,
    )
}

#[test]
fn at_depth_1_the_target_waits_receives_and_sends_once() {
    let params = SessionParams { initial_r2t: false, ..SessionParams::default() };
    let pair = pair(&params, &connection(), "ram", "");
    check(&pair, &load(4096, 1, 100));
    // a busy machine cuts a request in two now and then: one round without that shows it
    let rounds = (0..10).map(|_| {
        let before = pair.target.totals();
        check(&pair, &LoadSpec { verify: false, ..load(4096, 1, 1000) });
        // one wake-up more for the question about the totals
        difference(&pair.target.totals(), &before)
    });
    let mut seen = Vec::new();
    for (receive, send, wait) in rounds {
        assert!(receive >= 1000 && send >= 1000 && wait >= 1000, "{receive} {send} {wait}");
        seen.push((receive, send, wait));
        if receive.max(send).max(wait) <= 1010 {
            break;
        }
    }
    assert!(seen.last().is_some_and(|&(receive, send, wait)| receive.max(send).max(wait) <= 1010), "{seen:?}");
    // and an idle target does nothing at all
    let before = pair.target.totals();
    std::thread::sleep(Duration::from_millis(300));
    let (receive, send, wait) = difference(&pair.target.totals(), &before);
    assert!(receive == 0 && send == 0 && wait <= 2, "{receive} {send} {wait}");
}

#[test]
fn a_bidirectional_command_tells_what_of_its_read_did_not_come() {
    let pair = pair(&SessionParams::default(), &connection(), "ram", "");
    let mut cdb = [0; 10];
    (cdb[0], cdb[8]) = (0x53, 1); // XDWRITEREAD(10) of one block
    let (mut data, mut back) = (vec![7u8; 1024], vec![0u8; 4096]);
    // SAFETY: both outlive the call, which waits for the end of its request.
    let (data_out, data_in) = unsafe { (Memory::new(data.as_mut_ptr(), 1024), Memory::new(back.as_mut_ptr(), 4096)) };
    let request = CommandRequest { lun: 0, cdb: &cdb, attribute: 1, immediate: false, data_out, data_in, cid: None };
    let token = pair.initiator.token();
    let ended = pair.initiator.execute(pair.session, token, &request, None, &mut || false).expect("answered");
    assert!(!ended.pinned);
    // the residual is that of the write (RFC 7143 11.4.5.1); of the read 512 bytes came
    assert_eq!((ended.done.status, ended.done.residual, ended.done.short), (0, 512, 3584));
    assert!(back[..512] == [7; 512] && back[512..].iter().all(|b| *b == 0));
}
