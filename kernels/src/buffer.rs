//! Memory for vectors: 64-byte aligned, zeroed, in huge pages where large.

use memmap2::MmapMut;
use std::fmt;

/// Size from which a buffer is mapped from the system with huge pages asked for.
const MAP_FROM: usize = 1 << 20;
/// Huge pages of x86-64 and of aarch64 with 4 KB pages.
const HUGE_PAGE: usize = 1 << 21;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A zeroed run of bytes at a multiple of 64.
pub struct Buffer {
    store: Store,
    len: usize,
}

enum Store {
    Lines(Vec<Line>),
    /// The bytes begin at the offset.
    Map(MmapMut, usize),
}

impl Buffer {
    /// `len` zero bytes.
    ///
    /// Memory is taken as it is touched where the system allows it.
    ///
    /// # Panics
    /// If memory is exhausted.
    pub fn new(len: usize) -> Self {
        let store = if len < MAP_FROM {
            Store::Lines(vec![Line([0; 64]); len.div_ceil(64)])
        } else {
            let map = MmapMut::map_anon(len + HUGE_PAGE).expect("memory for packed weights");
            // Only a wish: without huge pages everything still works.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            let offset = map.as_ptr().addr().wrapping_neg() % HUGE_PAGE;
            Store::Map(map, offset)
        };
        Self { store, len }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        let len = self.len;
        match &self.store {
            // SAFETY: a `Line` is 64 initialised bytes without padding, so the vector's elements are
            // that many bytes in a row; slicing checks the length.
            Store::Lines(lines) => unsafe {
                &std::slice::from_raw_parts(lines.as_ptr().cast::<u8>(), size_of_val(&lines[..]))[..len]
            },
            Store::Map(map, offset) => &map[*offset..*offset + len],
        }
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        match &mut self.store {
            // SAFETY: as in `bytes`; the borrow of `self` is exclusive.
            Store::Lines(lines) => unsafe {
                let size = size_of_val(&lines[..]);
                &mut std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<u8>(), size)[..len]
            },
            Store::Map(map, offset) => &mut map[*offset..*offset + len],
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer of {} bytes", self.len)
    }
}

/// The first `len` elements of a vector that begin at a multiple of 64 bytes; they hold what was left there.
/// Where the vector itself begins is chance, and registers that straddle cache lines take twice the time.
pub(crate) fn aligned<T: Copy + Default>(vector: &mut Vec<T>, len: usize) -> &mut [T] {
    let line = 64 / size_of::<T>();
    if vector.len() < len + line {
        vector.resize(len + line, T::default());
    }
    let at = vector.as_ptr().align_offset(64).min(line);
    &mut vector[at..at + len]
}

/// The same bytes as signed numbers.
pub(crate) fn as_i8(bytes: &[u8]) -> &[i8] {
    // SAFETY: u8 and i8 have the same size and alignment, and every bit pattern is valid for both.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

/// The same bytes as signed numbers, to be written.
pub(crate) fn as_i8_mut(bytes: &mut [u8]) -> &mut [i8] {
    // SAFETY: as in `as_i8`; the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_vectors_begin_at_lines() {
        let mut vector: Vec<i32> = Vec::new();
        for len in [0, 1, 100, 64, 1000] {
            let part = aligned(&mut vector, len);
            assert!(part.len() == len && part.as_ptr().addr().is_multiple_of(64));
            part.fill(7);
        }
        assert!(aligned(&mut vector, 1000).iter().all(|&v| v == 7));
    }

    #[test]
    fn aligned_and_zeroed_at_every_size() {
        for len in [0, 1, 63, 64, 65, 1000, MAP_FROM - 1, MAP_FROM, MAP_FROM + 1] {
            let mut buffer = Buffer::new(len);
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(64), "{len}");
            assert!(buffer.bytes().iter().all(|&b| b == 0));
            assert_eq!((buffer.len(), buffer.bytes().len()), (len, len));
            buffer.bytes_mut().fill(7);
            assert!(buffer.bytes().iter().all(|&b| b == 7));
        }
    }
}
