//! The raw loopback exchange: what two bare processes reach that move the bytes of iSCSI I/O with no protocol.
//!
//! A read is a request of 48 bytes answered by 48 bytes and the data; a write is 48 bytes and the data answered by 48
//! bytes. Neither end looks at what it received: a position in the stream says where it is. The method is in
//! `bench/README.md`.
//!
//!     blockwire-bench-ceiling --rw read|write --bs BYTES --qd DEPTH --time SECONDS [--server-cpu N]
//!
//! The server is the same program in a process of its own, started by the client. Output: one JSON object.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Basic Header Segment, RFC 7143 section 11.2.
const HEADER: usize = 48;
/// One `recv` asks for this much, as a worker's receive buffer does.
const RECEIVE: usize = 256 << 10;
/// A gathered send carries at most this many pieces …
const MAX_PIECES: usize = 64;
/// … or this many bytes, whichever is first; one I/O always goes.
const MAX_BYTES: usize = 128 << 10;
/// What is sent comes from an area of the size of the measured disks.
const SOURCE: usize = 64 << 20;
/// Not measured: congestion window and caches settle.
const WARM_UP: Duration = Duration::from_millis(100);

/// Which way the data goes, how much, how deep.
#[derive(Clone, Copy)]
struct Shape {
    write: bool,
    block: usize,
    depth: usize,
}

impl Shape {
    /// Bytes of one message from the client to the server.
    fn request(self) -> usize {
        HEADER + if self.write { self.block } else { 0 }
    }

    /// Bytes of one message from the server to the client.
    fn response(self) -> usize {
        HEADER + if self.write { 0 } else { self.block }
    }
}

/// Counts whole messages of one length in a stream, receiving into rotating memory.
struct Receiver {
    area: Vec<u8>,
    position: usize,
    message: usize,
    partial: usize,
}

impl Receiver {
    fn new(message: usize, depth: usize) -> Self {
        let size = (2 * depth * message).max(4 * RECEIVE);
        Self { area: vec![1; size], position: 0, message, partial: 0 }
    }

    /// One `recv`; the number of messages it completed, `None` at the end of the stream.
    fn receive(&mut self, stream: &mut TcpStream) -> io::Result<Option<usize>> {
        if self.position + RECEIVE > self.area.len() {
            self.position = 0;
        }
        let taken = match stream.read(&mut self.area[self.position..self.position + RECEIVE]) {
            Ok(0) => return Ok(None),
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        };
        self.position += taken;
        self.partial += taken;
        let complete = self.partial / self.message;
        self.partial %= self.message;
        Ok(Some(complete))
    }
}

/// Sends messages of a header and `payload` bytes from rotating memory, gathered.
struct Sender {
    header: [u8; HEADER],
    source: Vec<u8>,
    position: usize,
    payload: usize,
}

impl Sender {
    fn new(payload: usize) -> Self {
        // Written, not zeroed: pages that were never touched are all the same page of zeros.
        let source = if payload == 0 { Vec::new() } else { vec![0x5a; SOURCE] };
        Self { header: [0x21; HEADER], source, position: 0, payload }
    }

    /// Send `count` messages in as few system calls as the limits allow.
    fn send(&mut self, stream: &mut TcpStream, mut count: usize) -> io::Result<()> {
        let per_message = if self.payload == 0 { 1 } else { 2 };
        let fitting = (MAX_PIECES / per_message).min(MAX_BYTES / (HEADER + self.payload)).max(1);
        while count > 0 {
            let now = count.min(fitting);
            let empty = IoSlice::new(&[]);
            let mut pieces = [empty; MAX_PIECES];
            let mut used = 0;
            for _ in 0..now {
                pieces[used] = IoSlice::new(&self.header);
                used += 1;
                if self.payload > 0 {
                    if self.position + self.payload > self.source.len() {
                        self.position = 0;
                    }
                    pieces[used] = IoSlice::new(&self.source[self.position..self.position + self.payload]);
                    used += 1;
                    self.position += self.payload;
                }
            }
            let mut rest = &mut pieces[..used];
            while !rest.is_empty() {
                let sent = stream.write_vectored(rest)?;
                IoSlice::advance_slices(&mut rest, sent);
            }
            count -= now;
        }
        Ok(())
    }
}

/// CPU time of this process (it has one thread) in seconds.
fn cpu_seconds() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: f64 = text
        .split_whitespace()
        .next()
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other("no CPU time in /proc/self/schedstat"))?;
    Ok(nanoseconds / 1e9)
}

/// Answer one connection until it ends. Prints the port first, CPU time and count at the end.
fn serve(shape: Shape) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    let mut receiver = Receiver::new(shape.request(), shape.depth);
    let mut sender = Sender::new(shape.response() - HEADER);
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let before = cpu_seconds()?;
    let mut served: u64 = 0;
    while let Some(complete) = receiver.receive(&mut stream)? {
        match sender.send(&mut stream, complete) {
            Ok(()) => served += complete as u64,
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                break;
            }
            Err(error) => return Err(error),
        }
    }
    println!("{} {served}", cpu_seconds()? - before);
    Ok(())
}

/// Run the load against a server in a process of its own and print the result.
fn measure(shape: Shape, duration: Duration, server_cpu: Option<&str>) -> io::Result<()> {
    let own = env::current_exe()?;
    let mut command = match server_cpu {
        Some(cpu) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cpu]).arg(&own);
            command
        }
        None => Command::new(&own),
    };
    command.args(["--server", "--rw", if shape.write { "write" } else { "read" }]);
    command.args(["--bs", &shape.block.to_string(), "--qd", &shape.depth.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?).lines();
    let mut next_line = || said.next().ok_or_else(|| io::Error::other("the server ended early"))?;
    let port: u16 = next_line()?.parse().map_err(io::Error::other)?;

    let mut receiver = Receiver::new(shape.response(), shape.depth);
    let mut sender = Sender::new(shape.request() - HEADER);
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    sender.send(&mut stream, shape.depth)?;

    let mut completed: u64 = 0;
    let mut run = |stream: &mut TcpStream, duration: Duration| -> io::Result<(u64, f64, f64)> {
        let (start, cpu, before) = (Instant::now(), cpu_seconds()?, completed);
        loop {
            let complete =
                receiver.receive(stream)?.ok_or_else(|| io::Error::other("the server closed the connection"))?;
            completed += complete as u64;
            sender.send(stream, complete)?;
            // A clock reading is some 25 ns, once a turn.
            let elapsed = start.elapsed();
            if elapsed >= duration {
                return Ok((completed - before, elapsed.as_secs_f64(), cpu_seconds()? - cpu));
            }
        }
    };
    run(&mut stream, WARM_UP)?;
    let (count, seconds, client_cpu) = run(&mut stream, duration)?;
    drop(stream);
    let last = next_line()?;
    child.wait()?;
    let mut fields = last.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(server_cpu)), Some(Ok(served))) = (fields.next(), fields.next()) else {
        return Err(io::Error::other("the server did not report its CPU time"));
    };
    let iops = count as f64 / seconds;
    println!(
        "{{\"schema\":\"blockwire.bench.ceiling/1\",\"rw\":\"{}\",\"block_size\":{},\"depth\":{},\"seconds\":{seconds},\
         \"ios\":{count},\"iops\":{iops},\"bytes_per_second\":{},\"client_cpu_seconds\":{client_cpu},\
         \"client_cpu_us_per_io\":{},\"server_cpu_seconds\":{server_cpu},\"server_cpu_us_per_io\":{}}}",
        if shape.write { "write" } else { "read" },
        shape.block,
        shape.depth,
        iops * shape.block as f64,
        client_cpu / count as f64 * 1e6,
        server_cpu / served * 1e6,
    );
    Ok(())
}

const USAGE: &str = "blockwire-bench-ceiling --rw read|write --bs BYTES --qd DEPTH --time SECONDS [--server-cpu N]";

fn run() -> Result<(), String> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let number = |name: &str, default: usize| match option(name) {
        Some(text) => text.parse::<usize>().map_err(|_| format!("{name} {text}: not a number\n{USAGE}")),
        None => Ok(default),
    };
    let write = match option("--rw") {
        Some("read") | None => false,
        Some("write") => true,
        Some(other) => return Err(format!("--rw {other}: read or write\n{USAGE}")),
    };
    let shape = Shape { write, block: number("--bs", 4096)?, depth: number("--qd", 32)? };
    if shape.block == 0 || shape.block > SOURCE || shape.depth == 0 || shape.depth > 4096 {
        return Err(format!("--bs is 1 to {SOURCE}, --qd 1 to 4096\n{USAGE}"));
    }
    let result = if arguments.iter().any(|argument| argument == "--server") {
        serve(shape)
    } else {
        let seconds: f64 = match option("--time") {
            Some(text) => text.parse().map_err(|_| format!("--time {text}: not a number\n{USAGE}"))?,
            None => 2.0,
        };
        measure(shape, Duration::from_secs_f64(seconds.clamp(0.01, 3600.0)), option("--server-cpu"))
    };
    result.map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("blockwire-bench-ceiling: {message}");
            ExitCode::FAILURE
        }
    }
}
