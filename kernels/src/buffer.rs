//! Memory for vectors: 64-byte aligned, zeroed, in huge pages where large. Weights of a model lie in an
//! [`Arena`], what calls need over and over in [`Windows`].

use crate::REFUSED;
use memmap2::{MmapMut, MmapRaw};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Size from which a buffer is mapped from the system with huge pages asked for.
const MAP_FROM: usize = 1 << 20;
/// Huge pages of x86-64 and of aarch64 with 4 KB pages.
const HUGE_PAGE: usize = 1 << 21;
/// What an arena maps at a time.
const CHUNK: usize = 32 << 20;
/// What buffers near each other share, at a multiple of its size: half a huge page.
const WINDOW: usize = HUGE_PAGE / 2;
/// What CPUs read at once, at most.
const PAIR: usize = 128;

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
    /// As a mapping, a part of a window.
    Window(Arc<MmapRaw>, Place),
}

/// `len` filled up to a multiple of `step`, so that a huge page more still fits into memory.
///
/// # Panics
/// If `len` is more than fits into memory.
fn padded(len: usize, step: usize) -> usize {
    const MOST: usize = isize::MAX as usize - HUGE_PAGE;
    len.checked_next_multiple_of(step).filter(|len| *len <= MOST).expect("a buffer fits into memory")
}

/// A mapping of at least `len` zero bytes and the offset at which they begin, in whole huge pages where the
/// system gives them. Memory is taken as it is touched.
///
/// # Panics
/// If memory is exhausted, or `len` is more than fits into any.
fn map(len: usize) -> (Arc<MmapRaw>, usize) {
    let size = padded(len, HUGE_PAGE) + HUGE_PAGE;
    let map = MmapMut::map_anon(size)
        .unwrap_or_else(|e| panic!("{REFUSED} {size} bytes for weights and activations: {e}"));
    // Only a wish: without huge pages everything still works.
    #[cfg(all(target_os = "linux", not(miri)))]
    let _ = map.advise(memmap2::Advice::HugePage);
    let offset = map.as_ptr().addr().wrapping_neg() % HUGE_PAGE;
    (Arc::new(map.into()), offset)
}

/// Where a buffer lies in the windows: which, and its first byte.
type Place = (usize, usize);

/// Memory for what threads use at the same time, over and over. Some CPUs guess where a line lies in their
/// first cache by a hash of its address, and lines with the same hash keep pushing each other out: with
/// buffers anywhere it is chance whether two of them collide, which costs up to a third of the speed of a whole
/// process. Within a window addresses differ in low bits alone, and so do hashes.
struct Windows {
    /// Each with the offset where the window begins.
    maps: Vec<(Arc<MmapRaw>, usize)>,
    /// Lengths of what is free.
    free: BTreeMap<Place, usize>,
}

static WINDOWS: Mutex<Windows> = Mutex::new(Windows { maps: Vec::new(), free: BTreeMap::new() });

impl Windows {
    fn lock() -> MutexGuard<'static, Self> {
        WINDOWS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first place that is large enough; what was there is left there.
    fn take(&mut self, len: usize) -> (Arc<MmapRaw>, Place) {
        let len = len.next_multiple_of(PAIR);
        let place = self.free.iter().find(|(_, free)| **free >= len).map(|(&place, _)| place);
        let (window, at) = place.unwrap_or_else(|| {
            let (map, offset) = map(HUGE_PAGE);
            let first = (self.maps.len(), offset);
            for at in [offset, offset + WINDOW] {
                self.free.insert((self.maps.len(), at), WINDOW);
                self.maps.push((map.clone(), at));
            }
            first
        });
        let free = self.free.remove(&(window, at)).expect("it was found free");
        if free > len {
            self.free.insert((window, at + len), free - len);
        }
        (self.maps[window].0.clone(), (window, at))
    }

    fn give_back(&mut self, (window, mut at): Place, len: usize) {
        let mut len = len.next_multiple_of(PAIR);
        if let Some((&(_, before), &free)) = self.free.range((window, 0)..(window, at)).next_back()
            && before + free == at
        {
            (at, len) = (before, free + len);
        }
        if let Some(free) = self.free.remove(&(window, at + len)) {
            len += free;
        }
        self.free.insert((window, at), len);
    }
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
    /// If memory is exhausted, or `len` is more than fits into any.
    pub fn buffer(&self, len: usize) -> Buffer {
        let size = padded(len, 64);
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
    /// If memory is exhausted, or `len` is more than fits into any.
    pub fn new(len: usize) -> Self {
        let store = if len < MAP_FROM {
            Store::Lines(vec![AtLine([0; 64]); len.div_ceil(64)])
        } else {
            let (map, offset) = map(len);
            Store::Map(map, offset)
        };
        Self { store, len }
    }

    /// `len` zero bytes in a window with other such buffers, if they fit into one: for what is in use all the
    /// time.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub(crate) fn near(len: usize) -> Self {
        if len == 0 || len > WINDOW || cfg!(watched) {
            return Self::new(len);
        }
        let (map, place) = Windows::lock().take(len);
        let mut buffer = Self { store: Store::Window(map, place), len };
        buffer.bytes_mut().fill(0);
        buffer
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
            // SAFETY: `len` bytes from the offset on are part of the mapping (`new`, `Arena::buffer`,
            // `Windows::take`), were zeroed by the system, perhaps written since, and belong to this buffer
            // alone while it lives.
            Store::Map(map, offset) | Store::Window(map, (_, offset)) => unsafe {
                std::slice::from_raw_parts(map.as_ptr().add(*offset), len)
            },
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
            Store::Map(map, offset) | Store::Window(map, (_, offset)) => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().add(*offset), len)
            },
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Store::Window(_, place) = self.store {
            Windows::lock().give_back(place, self.len);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer of {} bytes", self.len)
    }
}

/// What an [`Array`] may hold.
///
/// # Safety
/// Any bits are a value without padding, all bits zero are the one to begin with, and it needs no
/// more than 64 bytes of alignment.
pub(crate) unsafe trait Plain: Copy + Send + Sync {}

macro_rules! plain {
    ($($number:ty)*) => {
        // SAFETY: a number.
        $(unsafe impl Plain for $number {})*
    };
}
plain!(u8 i8 i16 i32 f32);

/// Zeros to begin with, at a multiple of 64 bytes.
#[derive(Debug)]
pub(crate) struct Array<T> {
    bytes: Buffer,
    item: PhantomData<T>,
}

impl<T: Plain> Array<T> {
    pub(crate) fn new(count: usize) -> Self {
        Self::of(Buffer::new(count * size_of::<T>()))
    }

    /// [Near](Buffer::near) others.
    pub(crate) fn near(count: usize) -> Self {
        Self::of(Buffer::near(count * size_of::<T>()))
    }

    fn of(bytes: Buffer) -> Self {
        const { assert!(align_of::<T>() <= 64) };
        Self { bytes, item: PhantomData }
    }

    /// The first `count` items, whatever they are; makes room for them, [near](Buffer::near) others, if there
    /// never was as much.
    pub(crate) fn first(&mut self, count: usize) -> &mut [T] {
        if self.len() < count {
            *self = Self::new(0);
            *self = Self::near(count);
        }
        &mut self[..count]
    }
}

impl<T: Plain> Default for Array<T> {
    fn default() -> Self {
        Self::new(0)
    }
}

impl<T: Plain> Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let count = self.bytes.len() / size_of::<T>();
        // SAFETY: the buffer holds `count` items, begins at a multiple of 64, enough for one, and is
        // initialised with bits that are values (see `Plain`).
        unsafe { std::slice::from_raw_parts(self.bytes.bytes().as_ptr().cast(), count) }
    }
}

impl<T: Plain> DerefMut for Array<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let count = self.bytes.len() / size_of::<T>();
        // SAFETY: as in `deref`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.bytes_mut().as_mut_ptr().cast(), count) }
    }
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
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn arrays_grow_and_begin_at_lines() {
        let mut array = Array::<i32>::default();
        for len in [0, 1, 100, 64, 1000, WINDOW] {
            let part = array.first(len);
            assert!(part.len() == len && part.as_ptr().addr().is_multiple_of(64));
            part.fill(7);
        }
        assert!(array.first(1000).iter().all(|&v| v == 7));
    }

    #[test]
    fn windows_give_zeros_to_one_buffer_at_a_time() {
        let mut buffers: Vec<Buffer> = Vec::new();
        for i in 0..200usize {
            // Some go amid the others; places are taken again.
            if i % 3 == 2 {
                drop(buffers.swap_remove(i * 7 % buffers.len()));
            }
            let mut buffer = Buffer::near([1, 64, 700, 5000, WINDOW / 16][i * 11 % 5]);
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(64));
            assert!(buffer.bytes() == vec![0; buffer.len()]);
            buffer.bytes_mut().fill(i as u8 + 1);
            buffers.push(buffer);
        }
        for bytes in buffers.iter().map(Buffer::bytes) {
            assert!(bytes[0] != 0 && bytes == vec![bytes[0]; bytes.len()]);
        }
    }

    #[test]
    fn windows_join_what_comes_back() {
        let mut windows = Windows { maps: Vec::new(), free: BTreeMap::new() };
        let places: Vec<_> = (0..8).map(|_| windows.take(WINDOW / 4 - 1).1).collect();
        assert!(windows.free.is_empty() && windows.maps.len() == 2);
        assert!(windows.maps.iter().all(|(map, at)| (map.as_ptr().addr() + at).is_multiple_of(WINDOW)));
        for i in [2, 0, 3, 5, 1, 7, 4, 6] {
            windows.give_back(places[i], WINDOW / 4 - 1);
        }
        assert_eq!(windows.free, BTreeMap::from([(places[0], WINDOW), (places[4], WINDOW)]));
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
    fn lengths_beyond_memory_are_refused() {
        let arena = Arena::new();
        for len in [usize::MAX, usize::MAX - 64, usize::MAX - HUGE_PAGE, isize::MAX as usize] {
            assert!(std::panic::catch_unwind(|| Buffer::new(len)).is_err(), "{len}");
            assert!(std::panic::catch_unwind(|| arena.buffer(len)).is_err(), "{len}");
        }
        assert_eq!(arena.buffer(100).len(), 100);
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
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
