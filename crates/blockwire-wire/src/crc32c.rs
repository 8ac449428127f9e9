//! CRC32C (Castagnoli) as RFC 7143 13.1 defines it, least significant byte first on the wire.
//!
//! Below 256 bytes (headers are 48) the CRC instruction of SSE4.2 is used directly. Above, carry-less multiplication: `fold` where
//! the processor has VPCLMULQDQ and AVX-512, which can copy in the same pass, else the `crc-fast` crate (PCLMULQDQ, AArch64
//! PMULL, tables). Figures: docs/decisions/0020-crc32c.md.

use crc_fast::{CrcAlgorithm, Digest};

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // instructions that not every processor has, and raw memory: each with its reason
mod fold;

/// Length of a digest on the wire in bytes.
pub const DIGEST_LEN: usize = 4;

/// Inputs below this many bytes take the short path; measured, see the decision.
#[cfg(target_arch = "x86_64")]
const LONG: usize = fold::STEP;

/// Bytes that are copied before they are looked at, where both cannot be done at once: they stay in the first-level cache.
const COPY_AT_ONCE: usize = 4096;

/// Continues `crc` (0 at the start) over `data`: `append(append(0, a), b) == append(0, ab)`.
#[inline]
#[must_use]
pub fn append(crc: u32, data: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        if data.len() < LONG {
            return append_short(crc, data);
        }
        if fold::is_available() {
            let (steps, rest) = data.split_at(data.len() - data.len() % LONG);
            #[allow(unsafe_code)]
            // SAFETY: the processor has the instructions; the length is a multiple of a step and not 0; nothing is written.
            let crc = unsafe { fold::fold::<false>(crc, steps.as_ptr(), std::ptr::null_mut(), steps.len()) };
            return if rest.is_empty() { crc } else { append_short(crc, rest) };
        }
    }
    append_long(crc, data)
}

/// Copies `len` bytes and continues `crc` over them in one pass, so that cold memory is waited for once. The result is that of the
/// bytes at `to`, whatever happens to those at `from` meanwhile.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes; they do not overlap, and nobody else writes to `to`.
#[must_use]
#[allow(unsafe_code)]
pub unsafe fn copy(crc: u32, from: *const u8, to: *mut u8, len: usize) -> u32 {
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
    let (mut crc, mut at) = (crc, 0);
    #[cfg(target_arch = "x86_64")]
    if len >= LONG && fold::is_available() {
        at = len - len % LONG;
        // SAFETY: the caller's promise; the processor has the instructions; the length is a multiple of a step and not 0.
        crc = unsafe { fold::fold::<true>(crc, from, to, at) };
    }
    // SAFETY: the caller's promise, as `at <= len`.
    unsafe { copy_in_parts(crc, from.add(at), to.add(at), len - at) }
}

/// Copies a little and looks at the copy, until all is copied.
///
/// # Safety
/// As `copy`.
#[allow(unsafe_code)]
unsafe fn copy_in_parts(mut crc: u32, from: *const u8, to: *mut u8, len: usize) -> u32 {
    let mut at = 0;
    while at < len {
        let n = (len - at).min(COPY_AT_ONCE);
        // SAFETY: the caller's promise, as `at + n <= len`.
        let copied = unsafe {
            std::ptr::copy_nonoverlapping(from.add(at), to.add(at), n);
            std::slice::from_raw_parts(to.add(at), n)
        };
        crc = append(crc, copied);
        at += n;
    }
    crc
}

/// A header, or what a step of `fold` leaves.
#[cfg(target_arch = "x86_64")]
#[inline]
fn append_short(crc: u32, data: &[u8]) -> u32 {
    if std::is_x86_feature_detected!("sse4.2") {
        #[allow(unsafe_code)]
        // SAFETY: the processor has SSE4.2, which is all that `append_sse42` asks for.
        return unsafe { append_sse42(crc, data) };
    }
    append_long(crc, data)
}

/// By `crc-fast`, any length.
fn append_long(crc: u32, data: &[u8]) -> u32 {
    if data.is_empty() {
        return crc;
    }
    // the crate's state is the CRC before its final inversion
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(data);
    digest.finalize() as u32
}

/// Eight bytes an instruction; its latency of three cycles bounds it near 11 GB/s.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn append_sse42(crc: u32, data: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u64};
    let (words, rest) = data.as_chunks::<8>();
    let wide = words.iter().fold(u64::from(!crc), |state, word| _mm_crc32_u64(state, u64::from_le_bytes(*word)));
    !rest.iter().fold(wide as u32, |state, byte| _mm_crc32_u8(state, *byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit from the polynomial 0x1EDC6F41 (RFC 7143 13.1), reflected.
    fn bitwise(crc: u32, data: &[u8]) -> u32 {
        let mut state = !crc;
        for &byte in data {
            state ^= u32::from(byte);
            for _ in 0..8 {
                state = (state >> 1) ^ (0x82f6_3b78 & (state & 1).wrapping_neg());
            }
        }
        !state
    }

    /// The examples of RFC 7143 appendix A.4; the last one is of RFC 3720 B.4, as the 32-bit value whose little-endian bytes are sent.
    #[test]
    fn rfc_examples() {
        let up: Vec<u8> = (0..32).collect();
        let down: Vec<u8> = (0..32).rev().collect();
        let mut read_cdb = [0u8; 48];
        read_cdb[0] = 0x01;
        read_cdb[1] = 0xc0;
        read_cdb[16] = 0x14;
        read_cdb[22] = 0x04;
        read_cdb[27] = 0x14;
        read_cdb[31] = 0x18;
        read_cdb[32] = 0x28;
        read_cdb[40] = 0x02;
        let cases: [(&[u8], u32); 5] = [
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&up, 0x46dd_794e),
            (&down, 0x113f_db5c),
            (&read_cdb, 0xd996_3a56),
        ];
        for (data, crc) in cases {
            assert_eq!(append(0, data), crc);
            assert_eq!(append_long(0, data), crc);
            assert_eq!(bitwise(0, data), crc);
        }
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..len).map(|_| byte()).collect()
    }

    /// Copy and CRC in one pass: every length over several steps with every alignment of one side, the other's varying; nothing
    /// beside the bytes is touched.
    #[test]
    #[allow(unsafe_code)]
    fn copies_what_it_sums() {
        let from = noise(9000);
        let mut to = vec![0xa5; 9000];
        let lengths = (0..1100).chain([2047, 2048, 2049, 4095, 4096, 4097, 4352, 8191, 8192, 8193, 8500]);
        for (index, length) in lengths.enumerate() {
            let (a, b) = (index % 64, (index / 7 + index) % 64);
            let start = (index as u32).wrapping_mul(0x9e37_79b9);
            let source = &from[a..a + length];
            for way in [copy, copy_in_parts] {
                // SAFETY: both ranges lie in vectors of their own.
                let crc = unsafe { way(start, source.as_ptr(), to[b..].as_mut_ptr(), length) };
                assert_eq!(crc, bitwise(start, source), "length {length}, from {a} to {b}");
                assert!(to[b..b + length] == *source, "length {length}, from {a} to {b}");
                assert!(to[..b].iter().chain(&to[b + length..]).all(|byte| *byte == 0xa5), "length {length} at {b}");
                to[b..b + length].fill(0xa5);
            }
        }
    }

    /// Every implementation agrees on all lengths around the switch, at every alignment, whole and in two parts.
    #[test]
    fn implementations_agree() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let bytes = noise(9000);
        let lengths = (0..1100).chain([2303, 2304, 2305, 4095, 4096, 4097, 8191]);
        for length in lengths {
            let at = (random() % 64) as usize;
            let start = random() as u32;
            let data = &bytes[at..at + length];
            let right = bitwise(start, data);
            assert_eq!(append(start, data), right, "length {length} at {at}");
            assert_eq!(append_long(start, data), right, "length {length} at {at}");
            let cut = if length == 0 { 0 } else { random() as usize % length };
            assert_eq!(append(append(start, &data[..cut]), &data[cut..]), right, "length {length} cut at {cut}");
        }
    }
}
