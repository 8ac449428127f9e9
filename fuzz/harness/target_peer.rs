//! The hostile initiator of `target`: requests that are nearly right, and what is done to them on the way.

use blockwire_wire::{BHS_LEN, Bhs, Opcode, RESERVED_TAG};

use super::carry;
use super::input::Input;
use super::target::{MOST_CONNECTIONS, TRANSFER, Target};

impl Target {
    pub(super) fn deliver(&mut self, at: usize, bytes: &[u8], pieces: u8) {
        if self.ports.is_empty() {
            return;
        }
        let at = at % self.ports.len();
        let conn = self.ports[at].conn;
        let size = if pieces < 200 { bytes.len().max(1) } else { usize::from(pieces - 199) };
        for piece in bytes.chunks(size) {
            let Some(port) = self.ports.iter_mut().find(|p| p.conn == conn) else { return };
            let mut receiving = std::mem::take(&mut port.receiving);
            let result = carry::receive(self, conn, &mut receiving, piece, self.now);
            let Some(place) = self.ports.iter().position(|p| p.conn == conn) else { return };
            self.ports[place].receiving = receiving;
            self.drain();
            if result.is_err() {
                let place = self.ports.iter().position(|p| p.conn == conn);
                self.drop_connection(place.unwrap_or(0), true);
                return;
            }
        }
    }

    pub(super) fn request(&mut self, input: &mut Input<'_>, opcode: Opcode) {
        let at = input.below(MOST_CONNECTIONS);
        if self.ports.is_empty() {
            return;
        }
        let port = &self.ports[at % self.ports.len()];
        let (conn, digests) = (port.conn, port.digests);
        let mut bhs = Bhs::new(opcode, 0x80);
        let style = input.byte();
        bhs.set_initiator_task_tag(if style & 0x3f == 0x3f { RESERVED_TAG } else { u32::from(style & 0x0f) });
        if style & 0x40 != 0 {
            bhs.set_immediate();
        }
        let numbers = self.session.numbers();
        let ahead = input.one_of(&[0u32, 0, 0, 0, 0, 1, 2, 3, 4, u32::MAX, 1 << 31]);
        bhs.set_cmd_sn(numbers.exp_cmd_sn.wrapping_add(ahead));
        let stat_sn = self.session.connection(conn).expect("live").stat_sn();
        let behind = input.one_of(&[0u32, 0, 1, 2, 9, u32::MAX, 1 << 31]);
        bhs.set_exp_stat_sn(stat_sn.wrapping_sub(behind));
        let mut ahs = Vec::new();
        let mut data = 0;
        match opcode {
            Opcode::ScsiCommand => {
                let flags = input.byte();
                bhs.set_flags(flags & 0xe7);
                bhs.set_lun(u64::from(flags >> 3 & 3) << 48);
                let expected = input.one_of(&[0, 1, 512, 600, 1024, 2000, TRANSFER]);
                bhs.set_expected_data_transfer_length(expected);
                data = input.one_of(&[0u32, 0, 1, 512, 700]).min(expected);
                if flags & 0x10 != 0 {
                    ahs = match input.below(4) {
                        0 => vec![0, 5, 2, 0, 0, 0, 8, 0],
                        1 => [&[0u8, 17, 1, 0][..], &[0x7f; 16]].concat(),
                        2 => vec![0, 5, 2, 0, 0, 0, 0x10, 0, 0, 5, 2, 0, 0, 0, 0, 0],
                        _ => {
                            let mut any = input.take(12).to_vec();
                            any.resize(any.len().next_multiple_of(4), 0);
                            any
                        }
                    };
                }
            }
            Opcode::DataOut => {
                let tags: Vec<u32> = self.session.tasks().map(|(_, t)| t.initiator_task_tag).collect();
                if !tags.is_empty() && style & 0x80 == 0 {
                    bhs.set_initiator_task_tag(tags[usize::from(style) % tags.len()]);
                }
                bhs.set_target_transfer_tag(RESERVED_TAG);
                let task = self.session.find(bhs.initiator_task_tag()).and_then(|s| self.session.task(s));
                if let Some(task) = task {
                    let r2t = task.out.r2ts.first().copied();
                    if let Some(r2t) = r2t {
                        bhs.set_target_transfer_tag(r2t.target_transfer_tag);
                        bhs.set_buffer_offset(r2t.next);
                        bhs.set_data_sn(r2t.next_data_sn);
                        data = (r2t.offset + r2t.length - r2t.next).min(512);
                        bhs.set_flags(if r2t.next + data == r2t.offset + r2t.length { 0x80 } else { 0 });
                    } else {
                        bhs.set_buffer_offset(task.out.unsolicited_next);
                        bhs.set_data_sn(task.out.unsolicited_data_sn);
                        data = task.expected.saturating_sub(task.out.unsolicited_next).min(512);
                        bhs.set_flags(input.byte() & 0x80);
                    }
                }
                match input.below(12) {
                    0 => bhs.set_buffer_offset(input.word()),
                    1 => bhs.set_data_sn(input.word()),
                    2 => bhs.set_target_transfer_tag(input.word()),
                    3 => data = u32::from(input.byte()) * 4,
                    4 => bhs.set_flags(bhs.flags() ^ 0x80),
                    5 => bhs.set_buffer_offset(bhs.buffer_offset().wrapping_add(1)),
                    _ => {}
                }
            }
            Opcode::NopOut => {
                bhs.set_target_transfer_tag(if input.flag() { RESERVED_TAG } else { u32::from(input.byte()) });
                data = input.one_of(&[0, 0, 1, 64, 600]);
            }
            Opcode::TaskManagementRequest => {
                bhs.set_flags(0x80 | input.byte());
                bhs.set_referenced_task_tag(u32::from(input.byte() & 0x0f));
                bhs.set_ref_cmd_sn(numbers.exp_cmd_sn.wrapping_add(u32::from(input.byte() & 3)));
            }
            Opcode::TextRequest => {
                bhs.set_target_transfer_tag(RESERVED_TAG);
                data = input.one_of(&[0, 16, 512]);
            }
            Opcode::Snack => {
                let kind = input.byte() & 0x83;
                bhs.set_flags(0x80 | kind & 0x03);
                bhs.set_target_transfer_tag(RESERVED_TAG);
                bhs.set_beg_run(u32::from(input.byte() & 7));
                bhs.set_run_length(u32::from(input.byte() & 3));
                match kind & 0x03 {
                    1 => {
                        bhs.set_initiator_task_tag(RESERVED_TAG);
                        bhs.set_beg_run(stat_sn.wrapping_sub(bhs.beg_run()));
                    }
                    2 => {
                        let asked = self.session.tasks().find_map(|(_, t)| Some((t.data_in.ack_request?.1, t.lun)));
                        let (tag, lun) = asked.unwrap_or((u32::from(style), 0));
                        bhs.set_initiator_task_tag(RESERVED_TAG);
                        bhs.set_target_transfer_tag(tag);
                        bhs.set_lun(lun);
                        bhs.set_run_length(0);
                    }
                    3 => {
                        bhs.set_target_transfer_tag(u32::from(style));
                        bhs.set_beg_run(0);
                        bhs.set_run_length(0);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        let tweak = input.byte();
        if tweak >= 224 {
            let place = input.below(BHS_LEN);
            bhs.0[place] ^= input.byte();
        }
        let damage = tweak & 0x1f;
        let segment = vec![style; data as usize];
        let bytes = carry::encode(bhs, &ahs, &segment, digests, damage);
        let pieces = input.byte();
        // a PDU may end in the middle of nowhere
        let keep = if tweak & 0xe0 == 0xc0 { usize::from(pieces) % bytes.len() } else { bytes.len() };
        self.deliver(at, &bytes[..keep], pieces);
    }
}
