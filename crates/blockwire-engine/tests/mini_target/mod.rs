//! A target of a few lines on a real socket, written from RFC 7143's figures and sharing no code with the project.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// Reads of this block are never answered.
pub const SILENT: u32 = 0x7000_0000;
/// A command for this block makes the target cut the connection.
pub const CUT: u32 = 0x6000_0000;
/// A read of this block gets the first half of its Data-In, and then the target does nothing until `goes_on`.
pub const HALF: u32 = 0x6800_0000;
/// A read of this block gets its Data-In in pieces of 4 KiB, 200 µs apart.
pub const TRICKLE: u32 = 0x6c00_0000;
/// A command for this block makes the target send a ping, and answer when the pong came.
pub const PING: u32 = 0x5000_0000;
/// A command for this block gets TASK SET FULL.
pub const FULL: u32 = 0x4000_0000;

pub struct MiniTarget {
    pub disk: Arc<Mutex<Vec<u8>>>,
    pub aborts: Arc<AtomicU32>,
    pub pongs: Arc<AtomicU32>,
    /// Set when it may go on after the first half of the answer to `HALF`.
    pub goes_on: Arc<AtomicBool>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
    from: usize,
    to: usize,
    out: Vec<u8>,
    stat_sn: u32,
    exp_cmd_sn: u32,
}

impl Connection {
    fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.to - self.from < n {
            self.socket.write_all(&self.out).ok()?;
            self.out.clear();
            self.input.copy_within(self.from..self.to, 0);
            self.to -= self.from;
            self.from = 0;
            if self.input.len() < n {
                self.input.resize(n, 0);
            }
            match self.socket.read(&mut self.input[self.to..]) {
                Ok(n) if n > 0 => self.to += n,
                _ => return None,
            }
        }
        self.from += n;
        Some(self.input[self.from - n..self.from].to_vec())
    }

    fn put(&mut self, first: [u8; 4], tag: u32, words: [u32; 7], data: &[u8]) {
        self.out.extend(first);
        self.out.extend((data.len() as u32).to_be_bytes());
        self.out.extend([0; 8]);
        self.out.extend(tag.to_be_bytes());
        for word in words {
            self.out.extend(word.to_be_bytes());
        }
        self.out.extend(data);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }

    fn status_words(&mut self) -> [u32; 7] {
        self.stat_sn += 1;
        [0, self.stat_sn - 1, self.exp_cmd_sn, self.exp_cmd_sn + 255, 0, 0, 0]
    }

    fn pdu(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let header = self.take(48)?;
        let length = (word(&header, 4) & 0xff_ffff) as usize;
        let mut data = self.take(length.next_multiple_of(4))?;
        data.truncate(length);
        Some((header, data))
    }
}

impl MiniTarget {
    /// A target with a disk of `size` bytes of zeros, 512-byte blocks, MaxRecvDataSegmentLength 65536, and the descriptor of
    /// a connection to it that is past login: StatSN 1 is next, ExpCmdSN is 1.
    pub fn start(size: usize) -> (Self, i32) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nodelay(true).unwrap();
        let this = Self {
            disk: Arc::new(Mutex::new(vec![0; size])),
            aborts: Arc::default(),
            pongs: Arc::default(),
            goes_on: Arc::default(),
        };
        let (disk, aborts, pongs) = (Arc::clone(&this.disk), Arc::clone(&this.aborts), Arc::clone(&this.pongs));
        let goes_on = Arc::clone(&this.goes_on);
        let input = vec![0; 256 * 1024];
        let connection = Connection { socket, input, from: 0, to: 0, out: Vec::new(), stat_sn: 1, exp_cmd_sn: 1 };
        std::thread::spawn(move || serve(connection, &disk, &aborts, &pongs, &goes_on));
        (this, client.into_raw_fd())
    }
}

fn serve(
    mut c: Connection, disk: &Mutex<Vec<u8>>, aborts: &AtomicU32, pongs: &AtomicU32, goes_on: &AtomicBool,
) -> Option<()> {
    let mut pinged = None;
    loop {
        let (header, data) = c.pdu()?;
        let tag = word(&header, 16);
        match header[0] & 0x3f {
            0x00 if tag == 0xffff_ffff => {
                pongs.fetch_add(1, Ordering::SeqCst);
                if let Some(tag) = pinged.take() {
                    let words = c.status_words();
                    c.put([0x21, 0x80, 0, 0], tag, words, &[]);
                }
            }
            0x00 => {
                let mut words = c.status_words();
                words[0] = 0xffff_ffff;
                c.put([0x20, 0x80, 0, 0], tag, words, &data);
            }
            0x02 => {
                aborts.fetch_add(1, Ordering::SeqCst);
                let words = c.status_words();
                c.put([0x22, 0x80, 0, 0], tag, words, &[]);
            }
            0x01 => {
                c.exp_cmd_sn += 1;
                let block = word(&header, 34);
                let blocks = usize::from(u16::from_be_bytes([header[39], header[40]]));
                match block {
                    SILENT => continue,
                    CUT => return None,
                    HALF => {
                        let words = [0xffff_ffff, c.stat_sn, c.exp_cmd_sn, c.exp_cmd_sn + 255, 0, 0, 0];
                        c.stat_sn += 1;
                        c.put([0x25, 0x81, 0, 0], tag, words, &vec![7; blocks * 512]);
                        let rest = c.out.split_off(c.out.len() - blocks * 256);
                        c.socket.write_all(&c.out).ok()?;
                        while !goes_on.load(Ordering::SeqCst) {
                            std::thread::sleep(std::time::Duration::from_millis(5));
                        }
                        c.out = rest;
                        continue;
                    }
                    TRICKLE => {
                        let words = [0xffff_ffff, c.stat_sn, c.exp_cmd_sn, c.exp_cmd_sn + 255, 0, 0, 0];
                        c.stat_sn += 1;
                        c.put([0x25, 0x81, 0, 0], tag, words, &vec![7; blocks * 512]);
                        for piece in c.out.chunks(4096) {
                            c.socket.write_all(piece).ok()?;
                            std::thread::sleep(std::time::Duration::from_micros(200));
                        }
                        c.out.clear();
                        continue;
                    }
                    PING => {
                        pinged = Some(tag);
                        let words = [9, c.stat_sn, c.exp_cmd_sn, c.exp_cmd_sn + 255, 0, 0, 0];
                        c.put([0x20, 0x80, 0, 0], 0xffff_ffff, words, b"are you there?");
                        continue;
                    }
                    FULL => {
                        let words = c.status_words();
                        c.put([0x21, 0x80, 0, 0x28], tag, words, &[]);
                        continue;
                    }
                    _ => {}
                }
                let at = block as usize * 512;
                match header[32] {
                    0x28 => {
                        let end = at + blocks * 512;
                        for (number, offset) in (0..).zip((at..end).step_by(65536)) {
                            let to = end.min(offset + 65536);
                            let part = disk.lock().unwrap()[offset..to].to_vec();
                            let last = to == end;
                            let mut words =
                                [0xffff_ffff, 0, c.exp_cmd_sn, c.exp_cmd_sn + 255, number, (offset - at) as u32, 0];
                            if last {
                                words[1] = c.stat_sn;
                                c.stat_sn += 1;
                            }
                            // a sequence ends at MaxBurstLength
                            let burst = (to - at).is_multiple_of(262_144);
                            let flags = if last {
                                0x81
                            } else if burst {
                                0x80
                            } else {
                                0
                            };
                            c.put([0x25, flags, 0, 0], tag, words, &part);
                        }
                    }
                    0x2a => {
                        let mut got = data.len();
                        disk.lock().unwrap()[at..at + got].copy_from_slice(&data);
                        let mut number = 0;
                        while got < blocks * 512 {
                            let want = (blocks * 512 - got).min(262_144);
                            let words =
                                [77, c.stat_sn, c.exp_cmd_sn, c.exp_cmd_sn + 255, number, got as u32, want as u32];
                            c.put([0x31, 0x80, 0, 0], tag, words, &[]);
                            number += 1;
                            let end = got + want;
                            let mut later = Vec::new();
                            while got < end {
                                let (header, data) = c.pdu()?;
                                if header[0] == 0x05 && word(&header, 16) == tag {
                                    assert_eq!(word(&header, 40) as usize, got);
                                    disk.lock().unwrap()[at + got..at + got + data.len()].copy_from_slice(&data);
                                    got += data.len();
                                } else {
                                    later.extend(&header);
                                    later.extend(&data);
                                    later.resize(later.len().next_multiple_of(4), 0);
                                }
                            }
                            // other commands that came in between are looked at next
                            let rest = c.input[c.from..c.to].to_vec();
                            later.extend(rest);
                            if c.input.len() < later.len() {
                                c.input.resize(later.len(), 0);
                            }
                            c.input[..later.len()].copy_from_slice(&later);
                            (c.from, c.to) = (0, later.len());
                        }
                        let words = c.status_words();
                        c.put([0x21, 0x80, 0, 0], tag, words, &[]);
                    }
                    _ => {
                        let words = c.status_words();
                        c.put([0x21, 0x80, 0, 0], tag, words, &[]);
                    }
                }
            }
            other => panic!("opcode {other:#x}"),
        }
    }
}
