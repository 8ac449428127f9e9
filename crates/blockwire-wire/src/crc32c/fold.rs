//! CRC32C by carry-less multiplication of 512-bit registers (VPCLMULQDQ with AVX-512), with or without a copy in the same pass.
//!
//! Four registers hold 256 bytes; each step multiplies them by the power of x that moves them 256 bytes on and adds the next 256.
//! What is left are 16 bytes with the same remainder, which the CRC instruction takes. Gopal et al., "Fast CRC Computation for
//! Generic Polynomials Using PCLMULQDQ Instruction", Intel, 2009.

use std::arch::x86_64::{
    __m512i, _mm_crc32_u64, _mm_cvtsi32_si128, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_set_epi64x, _mm_xor_si128,
    _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_xor_si256, _mm512_broadcast_i32x4, _mm512_castsi512_si256,
    _mm512_clmulepi64_epi128, _mm512_extracti32x4_epi32, _mm512_extracti64x4_epi64, _mm512_loadu_si512,
    _mm512_set_epi64, _mm512_storeu_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512, _mm512_zextsi128_si512,
};

/// Bytes of a step; lengths are multiples of it.
pub(super) const STEP: usize = 256;

/// x^n modulo the polynomial 0x11EDC6F41, most significant bit first.
const fn power(n: u32) -> u32 {
    let mut value: u32 = 1;
    let mut at = 0;
    while at < n {
        value = (value << 1) ^ (0x1edc_6f41 & (value >> 31).wrapping_neg());
        at += 1;
    }
    value
}

/// The two factors that move 128 bits `bits` on: for their earlier and their later half. Reflected, and shifted by the one bit
/// that the product of two reflected numbers lacks.
const fn factors(bits: u32) -> [i64; 2] {
    [(power(bits + 32).reverse_bits() as i64) << 1, (power(bits - 32).reverse_bits() as i64) << 1]
}

const BY_2048: [i64; 2] = factors(2048);
const BY_1024: [i64; 2] = factors(1024);
const BY_512: [i64; 2] = factors(512);
const BY_384: [i64; 2] = factors(384);
const BY_256: [i64; 2] = factors(256);
const BY_128: [i64; 2] = factors(128);

/// Whether this processor has what `fold` asks for.
#[inline]
pub(super) fn is_available() -> bool {
    std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("vpclmulqdq")
        && std::is_x86_feature_detected!("sse4.2")
}

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(by: [i64; 2]) -> __m512i {
    _mm512_broadcast_i32x4(_mm_set_epi64x(by[1], by[0]))
}

/// `value` moved on by what `by` says, added to `next`.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
fn moved(value: __m512i, by: __m512i, next: __m512i) -> __m512i {
    let (earlier, later) = (_mm512_clmulepi64_epi128::<0x00>(value, by), _mm512_clmulepi64_epi128::<0x11>(value, by));
    _mm512_ternarylogic_epi64::<0x96>(earlier, later, next)
}

/// Continues `crc` over `len` bytes at `from`; with `COPY` they are written to `to` as well, from the same registers.
///
/// # Safety
/// `len` is a multiple of `STEP` and not 0; `from` is readable for `len` bytes, and with `COPY` `to` is writable for as many, which
/// do not overlap those of `from`. Bytes at `from` that change meanwhile make no mismatch: each is loaded once.
#[target_feature(enable = "avx512f,vpclmulqdq,sse4.2")]
pub(super) unsafe fn fold<const COPY: bool>(crc: u32, from: *const u8, to: *mut u8, len: usize) -> u32 {
    debug_assert!(len > 0 && len.is_multiple_of(STEP));
    let take = |at: usize| {
        // SAFETY: callers below stay under `len`.
        let bytes = unsafe { _mm512_loadu_si512(from.add(at).cast()) };
        if COPY {
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(to.add(at).cast(), bytes) };
        }
        bytes
    };
    let start = _mm512_zextsi128_si512(_mm_cvtsi32_si128((!crc).cast_signed()));
    let mut a = _mm512_xor_si512(start, take(0));
    let mut b = take(64);
    let mut c = take(128);
    let mut d = take(192);
    let by = broadcast(BY_2048);
    let mut at = STEP;
    while at < len {
        a = moved(a, by, take(at));
        b = moved(b, by, take(at + 64));
        c = moved(c, by, take(at + 128));
        d = moved(d, by, take(at + 192));
        at += STEP;
    }
    let by = broadcast(BY_1024);
    let rest = moved(moved(a, by, c), broadcast(BY_512), moved(b, by, d));
    // the last 128 bits stay, the three before them are moved there
    let [[x, y], [z, u], [v, w]] = [BY_384, BY_256, BY_128];
    let last = _mm512_extracti32x4_epi32::<3>(rest);
    let by = _mm512_set_epi64(0, 0, w, v, u, z, y, x);
    let sum = _mm512_xor_si512(_mm512_clmulepi64_epi128::<0x00>(rest, by), _mm512_clmulepi64_epi128::<0x11>(rest, by));
    let sum = _mm256_xor_si256(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
    let sum = _mm_xor_si128(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let sum = _mm_xor_si128(sum, last);
    let state = _mm_crc32_u64(0, _mm_cvtsi128_si64(sum).cast_unsigned());
    !(_mm_crc32_u64(state, _mm_extract_epi64::<1>(sum).cast_unsigned()) as u32)
}
