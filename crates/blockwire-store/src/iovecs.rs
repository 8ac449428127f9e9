//! Scatter lists of memory that the caller owns. `unsafe` lives here because this is where a raw pointer becomes
//! something a store may use from another thread.
#![allow(unsafe_code)]

use std::fmt;

/// Pieces kept without an allocation: five 64 KiB segments hold 256 KiB at any alignment, one is spare.
const INLINE: usize = 6;

/// One piece of memory. The layout is `struct iovec`, so that a list goes to the kernel as it is.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct IoVec {
    ptr: *mut u8,
    len: usize,
}

impl IoVec {
    /// Names `len` bytes at `ptr`.
    ///
    /// # Safety
    /// From now until the operation that carries this piece has completed (`Submitted::Done`, the completion at the
    /// sink, or a `try_cancel` that returned true), the memory must stay mapped and readable, must not be freed or
    /// reused, must not overlap the store's own [`crate::Mapping`], and, when it is the destination of a read, must
    /// be writable and reached by nobody else.
    pub const unsafe fn new(ptr: *mut u8, len: usize) -> Self {
        Self { ptr, len }
    }

    /// Where the piece starts.
    pub const fn as_ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// Bytes in the piece.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True for a piece of no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for IoVec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:p}+{}", self.ptr, self.len)
    }
}

const EMPTY: IoVec = IoVec { ptr: std::ptr::null_mut(), len: 0 };

#[derive(Clone)]
enum Pieces {
    Inline { pieces: [IoVec; INLINE], count: u8 },
    Heap(Vec<IoVec>),
}

/// The memory of one operation in order; up to six pieces without an allocation.
#[derive(Clone)]
pub struct IoVecs {
    pieces: Pieces,
    /// Pieces before this one are used up (see [`IoVecs::advance`]).
    first: usize,
    total: usize,
}

// SAFETY: a list is only addresses. Whoever made its pieces promised (`IoVec::new`) that the memory behind them
// stays valid and unshared until the operation completes, whichever thread carries it out.
unsafe impl Send for IoVecs {}
// SAFETY: as above; `&IoVecs` only gives the addresses away.
unsafe impl Sync for IoVecs {}

impl Default for IoVecs {
    fn default() -> Self {
        Self::new()
    }
}

impl IoVecs {
    /// An empty list.
    pub const fn new() -> Self {
        Self { pieces: Pieces::Inline { pieces: [EMPTY; INLINE], count: 0 }, first: 0, total: 0 }
    }

    /// A list of one piece.
    ///
    /// # Safety
    /// As [`IoVec::new`].
    pub unsafe fn single(ptr: *mut u8, len: usize) -> Self {
        let mut list = Self::new();
        // SAFETY: passed on to the caller.
        list.push(unsafe { IoVec::new(ptr, len) });
        list
    }

    /// Adds a piece at the end; empty ones are left out.
    pub fn push(&mut self, piece: IoVec) {
        if piece.is_empty() {
            return;
        }
        self.total += piece.len;
        match &mut self.pieces {
            Pieces::Inline { pieces, count } if (*count as usize) < INLINE => {
                pieces[*count as usize] = piece;
                *count += 1;
            }
            Pieces::Inline { pieces, .. } => {
                let mut heap = Vec::with_capacity(INLINE * 4);
                heap.extend_from_slice(pieces);
                heap.push(piece);
                self.pieces = Pieces::Heap(heap);
            }
            Pieces::Heap(heap) => heap.push(piece),
        }
    }

    /// The pieces that are not used up yet.
    pub fn as_slice(&self) -> &[IoVec] {
        let all = match &self.pieces {
            Pieces::Inline { pieces, count } => &pieces[..*count as usize],
            Pieces::Heap(heap) => heap.as_slice(),
        };
        &all[self.first..]
    }

    fn as_mut_slice(&mut self) -> &mut [IoVec] {
        let first = self.first;
        let all = match &mut self.pieces {
            Pieces::Inline { pieces, count } => &mut pieces[..*count as usize],
            Pieces::Heap(heap) => heap.as_mut_slice(),
        };
        &mut all[first..]
    }

    /// Bytes that remain.
    pub const fn len(&self) -> usize {
        self.total
    }

    /// True when nothing remains.
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Uses up the first `count` bytes (after a short read or write).
    ///
    /// # Panics
    /// When fewer bytes remain.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.total, "advance past the end of an I/O list");
        self.total -= count;
        let mut left = count;
        let mut used = 0;
        for piece in self.as_mut_slice() {
            if left < piece.len {
                // SAFETY: `left < len`, so the new start lies inside the same piece.
                piece.ptr = unsafe { piece.ptr.add(left) };
                piece.len -= left;
                break;
            }
            left -= piece.len;
            used += 1;
        }
        self.first += used;
    }

    /// Copies the first bytes of the listed memory into `to`; returns how many.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in self.as_slice() {
            let count = piece.len.min(to.len() - done);
            // SAFETY: the piece is readable for `len >= count` bytes (`IoVec::new`), `to` has room for `count` more,
            // and `to` is exclusively ours, so it cannot overlap memory lent to an operation.
            unsafe { std::ptr::copy_nonoverlapping(piece.ptr, to.as_mut_ptr().add(done), count) };
            done += count;
        }
        done
    }

    /// Copies `from` into the first bytes of the listed memory; returns how many.
    pub fn copy_from(&self, from: &[u8]) -> usize {
        let mut done = 0;
        for piece in self.as_slice() {
            let count = piece.len.min(from.len() - done);
            // SAFETY: a destination's piece is writable and unshared for `len >= count` bytes (`IoVec::new`), and
            // `from` has `count` more bytes.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr().add(done), piece.ptr, count) };
            done += count;
        }
        done
    }

    /// Writes zeros over all of the listed memory.
    pub fn fill_zero(&self) {
        for piece in self.as_slice() {
            // SAFETY: a destination's piece is writable and unshared for `len` bytes (`IoVec::new`).
            unsafe { std::ptr::write_bytes(piece.ptr, 0, piece.len) };
        }
    }
}

impl fmt::Debug for IoVecs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.as_slice()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(buffer: &mut [u8], cuts: &[usize]) -> IoVecs {
        let mut list = IoVecs::new();
        let mut at = 0;
        for &cut in cuts {
            // SAFETY: the pieces lie in `buffer`, one behind the other, and outlive the list in these tests.
            list.push(unsafe { IoVec::new(buffer.as_mut_ptr().add(at), cut) });
            at += cut;
        }
        list
    }

    #[test]
    fn more_pieces_than_fit_inline_keep_their_order() {
        let mut memory: Vec<u8> = (0..100).collect();
        let list = list(&mut memory, &[10; 10]);
        assert_eq!(list.as_slice().len(), 10);
        let mut out = vec![0; 100];
        assert_eq!(list.copy_to(&mut out), 100);
        assert_eq!(out, (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn advance_cuts_inside_a_piece_and_at_its_end() {
        let mut memory: Vec<u8> = (0..30).collect();
        let mut list = list(&mut memory, &[10, 0, 10, 10]);
        list.advance(10);
        assert_eq!((list.len(), list.as_slice().len()), (20, 2));
        list.advance(3);
        let mut out = [0; 3];
        list.copy_to(&mut out);
        assert_eq!(out, [13, 14, 15]);
        list.advance(17);
        assert!(list.is_empty() && list.as_slice().is_empty());
    }
}
