//! Memory for vectors: 64-byte aligned, zeroed, in huge pages where large.

use memmap2::{MmapMut, MmapRaw};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Size from which a buffer is mapped from the system with huge pages asked for.
const MAP_FROM: usize = 1 << 20;
/// Huge pages of x86-64 and of aarch64 with 4 KB pages.
const HUGE_PAGE: usize = 1 << 21;
/// What an arena maps at a time.
const CHUNK: usize = 32 << 20;

/// A cache line.
type Line = AtLine<[u8; 64]>;

/// Something that begins at a cache line, so that no register of it straddles two.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct AtLine<T>(pub T);

/// A zeroed run of bytes at a multiple of 64.
pub struct Buffer {
    store: Store,
    len: usize,
}

enum Store {
    Lines(Vec<Line>),
    /// The bytes begin at the offset; no other buffer has them.
    Map(Arc<MmapRaw>, usize),
}

/// A mapping of at least `len` zero bytes and the offset at which they begin, in whole huge pages where the
/// system gives them. Memory is taken as it is touched.
///
/// # Panics
/// If memory is exhausted.
fn map(len: usize) -> (Arc<MmapRaw>, usize) {
    let size = len.next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
    let map = MmapMut::map_anon(size).expect("memory for packed weights");
    // Only a wish: without huge pages everything still works.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let offset = map.as_ptr().addr().wrapping_neg() % HUGE_PAGE;
    (Arc::new(map.into()), offset)
}

/// Buffers side by side in large mappings: they fill huge pages together, and lie to each other's cache
/// sets the same way each time. A mapping is given back once none of its buffers is left.
pub struct Arena {
    /// The mapping at hand and what of it is free.
    free: Mutex<(Arc<MmapRaw>, Range<usize>)>,
}

impl Arena {
    /// An empty one.
    ///
    /// # Panics
    /// If memory is exhausted.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let (map, offset) = map(CHUNK);
        Self { free: Mutex::new((map, offset..offset + CHUNK)) }
    }

    /// `len` zero bytes at a multiple of 64.
    ///
    /// # Panics
    /// If memory is exhausted.
    pub fn buffer(&self, len: usize) -> Buffer {
        let size = len.next_multiple_of(64);
        let mut guard = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (current, free) = &mut *guard;
        if size > free.len() {
            let (map, offset) = map(size.max(CHUNK));
            (*current, *free) = (map, offset..offset + size.max(CHUNK));
        }
        let at = free.start;
        free.start += size;
        Buffer { store: Store::Map(current.clone(), at), len }
    }
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
            Store::Lines(vec![AtLine([0; 64]); len.div_ceil(64)])
        } else {
            let (map, offset) = map(len);
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
            // SAFETY: a line is 64 initialised bytes without padding, so the vector's elements are
            // that many bytes in a row; slicing checks the length.
            Store::Lines(lines) => unsafe {
                &std::slice::from_raw_parts(lines.as_ptr().cast::<u8>(), size_of_val(&lines[..]))[..len]
            },
            // SAFETY: `len` bytes from the offset on are part of the mapping (`new`, `Arena::buffer`), were
            // zeroed by the system and belong to this buffer alone.
            Store::Map(map, offset) => unsafe { std::slice::from_raw_parts(map.as_ptr().add(*offset), len) },
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
            // SAFETY: as in `bytes`; the borrow of `self` is exclusive.
            Store::Map(map, offset) => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().add(*offset), len)
            },
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
    fn buffers_of_an_arena_are_aligned_zeroed_and_apart() {
        let arena = Arena::new();
        let mut buffers: Vec<Buffer> =
            [0, 1, 64, 100, CHUNK / 2, CHUNK / 2, CHUNK + 1, 7].map(|len| arena.buffer(len)).into();
        // The ends are enough, and Miri has to go over each byte.
        let ends = |len: usize| (0..len.min(64)).chain(len.saturating_sub(64)..len);
        for (i, buffer) in buffers.iter_mut().enumerate() {
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(64));
            assert!(ends(buffer.len()).all(|end| buffer.bytes()[end] == 0), "{i}");
            ends(buffer.len()).for_each(|end| buffer.bytes_mut()[end] = i as u8 + 1);
        }
        drop(arena);
        for (i, buffer) in buffers.iter().enumerate() {
            assert!(ends(buffer.len()).all(|end| buffer.bytes()[end] == i as u8 + 1), "{i}");
        }
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
