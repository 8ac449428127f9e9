//! Serial number arithmetic of RFC 1982 with 32 bits, as RFC 7143 4.2.2.1 asks for CmdSN, StatSN and DataSN.

/// `a < b` in serial number order.
#[inline]
#[must_use]
pub fn less_than(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 0x8000_0000
}

/// `a <= b` in serial number order.
#[inline]
#[must_use]
pub fn less_or_equal(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) < 0x8000_0000
}

/// How far `b` is ahead of `a`; negative when it is behind.
#[inline]
#[must_use]
pub fn distance(a: u32, b: u32) -> i32 {
    b.wrapping_sub(a).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_two_to_the_32() {
        assert!(less_than(0xffff_ffff, 0));
        assert!(!less_than(0, 0xffff_ffff));
        assert!(less_or_equal(7, 7));
        assert!(!less_than(7, 7));
        assert_eq!(distance(0xffff_fffe, 1), 3);
        assert_eq!(distance(1, 0xffff_fffe), -3);
    }
}
