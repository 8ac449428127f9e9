//! CRC32C (Castagnoli) as RFC 7143 13.1 defines it, least significant byte first on the wire.
//!
//! Long inputs go to the `crc-fast` crate, which folds with the widest carry-less multiplication present (VPCLMULQDQ with
//! AVX-512, PCLMULQDQ, AArch64 PMULL) and falls back to tables. Headers are 48 bytes, where its set-up costs more than the
//! work: up to `SHORT` bytes the CRC instruction of SSE4.2 is used directly. Figures: docs/decisions/0020-crc32c.md.

use crc_fast::{CrcAlgorithm, Digest};

/// Length of a digest on the wire in bytes.
pub const DIGEST_LEN: usize = 4;

/// Inputs up to this many bytes take the short path; measured, see the decision.
#[cfg(target_arch = "x86_64")]
const SHORT: usize = 256;

/// Continues `crc` (0 at the start) over `data`: `append(append(0, a), b) == append(0, ab)`.
#[inline]
#[must_use]
pub fn append(crc: u32, data: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if data.len() <= SHORT && std::is_x86_feature_detected!("sse4.2") {
        #[allow(unsafe_code)]
        // SAFETY: the processor has SSE4.2, which is all that `append_sse42` asks for.
        return unsafe { append_sse42(crc, data) };
    }
    append_long(crc, data)
}

/// Folding, any length.
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
        let bytes: Vec<u8> = (0..9000).map(|_| random() as u8).collect();
        let lengths = (0..300).chain([511, 512, 513, 1023, 1024, 1025, 4095, 4096, 8191]);
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
