//! Persistent worker threads for the many short parallel regions of a forward pass.
//!
//! A decoded token passes through about 150 regions of some tens of microseconds each, so entering
//! one must cost about a microsecond and allocate nothing; when nobody decodes, the threads must not
//! burn the machine. A worker therefore spins for [`SPIN`] after a region and then parks. Where there
//! are more threads than CPUs nobody spins, because whoever spins then keeps the one that is waited for
//! from running.
//!
//! Most of what a region costs is cache lines that go from core to core, which takes several times as long
//! where the cores do not share a cache. Each worker therefore has a [`Seat`] with all that it and
//! the caller tell each other, and a region's closure holds what it needs itself, not behind references.
//!
//! Other programs may keep a worker from running too, for milliseconds at a time. Tasks therefore do not
//! wait for workers: a region ends when its tasks are done and whoever took part has left, and a worker
//! that comes later finds its seat closed.

use crate::REFUSED;
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread spins before it parks: longer than the serial stretches inside a token and than
/// choosing the next one, because waking a parked thread takes as long as a region.
const SPIN: Duration = Duration::from_micros(500);

/// A region's body; the lifetime is erased because [`Pool::run`] outlasts every use of it.
type Body = *const (dyn Fn(usize) + Sync);

/// A fixed set of threads that run one closure together.
///
/// The calling thread is worker 0, so a pool of one has no thread of its own.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held for the length of a region: regions of several callers follow each other.
    turn: Mutex<()>,
}

struct Shared {
    /// One for each worker; nobody waits at the first, the caller's.
    seats: Box<[Seat]>,
    /// Whom a worker wakes that leaves an [`AWAITED`] seat.
    caller: Mutex<Option<Thread>>,
    /// The first panic of a region.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    spin: Duration,
}

/// Where the caller gives a worker its part. Two lines, since some CPUs fetch them in pairs.
#[repr(align(128))]
struct Seat {
    /// [`IDLE`], [`ASLEEP`], [`OPEN`], [`INSIDE`] or [`STOP`], perhaps with [`AWAITED`].
    state: AtomicU32,
    /// Tasks of the worker's share that are taken.
    taken: AtomicUsize,
    /// What to run. Written by the holder of `turn` while the seat is idle or asleep, read by the worker
    /// while it is inside.
    job: UnsafeCell<Option<Body>>,
}

/// Nothing to do: the worker spins.
const IDLE: u32 = 0;
/// Nothing to do: the worker is parked, or about to, and must be woken.
const ASLEEP: u32 = 1;
/// A region runs that the worker has not joined.
const OPEN: u32 = 2;
/// The worker runs the job.
const INSIDE: u32 = 3;
/// The worker is to end.
const STOP: u32 = 4;
/// Flag of an open seat or one with somebody inside: the caller is parked until the worker has left.
const AWAITED: u32 = 8;

// SAFETY: `job` is the only field that is not `Sync` by itself. It is written only by the holder of `turn`,
// after it saw, with acquire, the seat left by its worker, or closed it before the worker joined; the worker
// reads it only after it joined, with acquire, a seat that was opened, with release, after the write. So
// writes and reads never overlap; the body is `Sync`.
unsafe impl Sync for Seat {}
// SAFETY: as above; the raw pointer inside is to a `Sync` closure.
unsafe impl Send for Seat {}

thread_local! {
    /// Whether this thread is inside a region.
    static INSIDE_REGION: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// Starts `threads - 1` threads beside the caller's.
    ///
    /// # Panics
    /// If `threads` is 0, or the operating system refuses another thread.
    pub fn new(threads: usize) -> Self {
        assert!(threads > 0, "a pool needs at least one thread");
        let seat = || Seat { state: IDLE.into(), taken: 0.into(), job: None.into() };
        let shared = Arc::new(Shared {
            seats: (0..threads).map(|_| seat()).collect(),
            caller: Mutex::new(None),
            panic: Mutex::new(None),
            spin: if threads <= cpus() { SPIN } else { Duration::ZERO },
        });
        let workers = (1..threads)
            .map(|id| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("tritmark-{id}"))
                    .spawn(move || work(&shared, id))
                    .unwrap_or_else(|e| panic!("{REFUSED} a thread: {e}"))
            })
            .collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    /// The process's pool of that many threads: the same for all who ask, until the last of them drops it.
    /// Regions of several callers follow each other.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn shared(threads: usize) -> Arc<Self> {
        static POOLS: Mutex<BTreeMap<usize, Weak<Pool>>> = Mutex::new(BTreeMap::new());
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.entry(threads).or_default();
        pool.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Self::new(threads));
            *pool = Arc::downgrade(&new);
            new
        })
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `f(worker)` once for each worker in `0..threads()`, at the same time, and returns when
    /// all are done.
    ///
    /// # Panics
    /// With the first panic of `f`, after all workers have finished; or if called from inside a
    /// region. A caller that parks elsewhere must bear with being woken early, or with a wake-up that was
    /// taken here.
    pub fn run(&self, f: &(dyn Fn(usize) + Sync)) {
        self.region(f, true);
    }

    /// Runs `f(worker)` on the caller and on all workers, or else on as many as come in time.
    fn region(&self, f: &(dyn Fn(usize) + Sync), all: bool) {
        assert!(!INSIDE_REGION.get(), "a region of the pool cannot start another");
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        let body: *const (dyn Fn(usize) + Sync + '_) = f;
        // SAFETY: only the lifetime changes. The pointer is used by workers that are inside, and this
        // function does not return, or unwind, before all have left and no other can join.
        let body: Body = unsafe { std::mem::transmute(body) };
        // All before the first is opened: whoever joins may help with any share.
        for seat in &shared.seats {
            seat.taken.store(0, Ordering::Relaxed);
        }
        let seats = &shared.seats[1..];
        for (seat, worker) in seats.iter().zip(&self.workers) {
            // SAFETY: `turn` is held, and its last holder left every seat idle or asleep, as below.
            unsafe { *seat.job.get() = Some(body) };
            // Release: a worker that joins sees the job, and that no task is taken.
            if seat.state.swap(OPEN, Ordering::Release) == ASLEEP {
                worker.thread().unpark();
            }
        }
        shared.call(0, f);
        for seat in seats {
            let closed =
                !all && seat.state.compare_exchange(OPEN, IDLE, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if !closed {
                shared.wait_until_left(seat);
            }
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(turn);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Runs `f(worker, task)` once for each task in `0..tasks`. Each worker has a share of consecutive
    /// tasks, which it runs in order, so that it reads what they read as one sequence; whoever is done
    /// helps the others.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn tasks(&self, tasks: usize, f: impl Fn(usize, usize) + Sync) {
        if tasks == 1 {
            return f(0, 0);
        }
        let seats = &*self.shared.seats;
        let shares = seats.len();
        if shares == 1 {
            return (0..tasks).for_each(|task| f(0, task));
        }
        assert!(tasks.checked_mul(shares).is_some(), "{tasks} tasks are too many");
        let body = move |worker: usize| {
            for share in (worker..shares).chain(0..worker) {
                let (start, end) = (share * tasks / shares, (share + 1) * tasks / shares);
                let taken = &seats[share].taken;
                // A look first, which leaves the line of a share that is done where it is.
                while taken.load(Ordering::Relaxed) < end - start {
                    let task = start + taken.fetch_add(1, Ordering::Relaxed);
                    if task >= end {
                        break;
                    }
                    f(worker, task);
                }
            }
        };
        self.region(&body, false);
    }

    /// Runs `f(index, chunk)` for each chunk of `chunk` elements of `data` (the last may be
    /// shorter); a worker that is free takes the next.
    ///
    /// # Panics
    /// If `chunk` is 0, or as [`run`](Self::run).
    pub fn chunks_mut<T: Send>(&self, data: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let parts = Parts::new(data);
        self.tasks(parts.chunks(chunk), move |_, i| {
            // SAFETY: `tasks` hands out each index once.
            f(i, unsafe { parts.chunk(i, chunk) });
        });
    }

    /// As [`chunks_mut`](Self::chunks_mut) over two slices side by side: chunk `i` of `a` comes with
    /// chunk `i` of `b`.
    ///
    /// # Panics
    /// If the slices do not have the same number of chunks, or as [`chunks_mut`](Self::chunks_mut).
    pub fn chunks_mut2<A: Send, B: Send>(
        &self,
        (a, a_chunk): (&mut [A], usize),
        (b, b_chunk): (&mut [B], usize),
        f: impl Fn(usize, &mut [A], &mut [B]) + Sync,
    ) {
        let (a, b) = (Parts::new(a), Parts::new(b));
        let chunks = a.chunks(a_chunk);
        assert_eq!(chunks, b.chunks(b_chunk), "both slices have as many chunks");
        self.tasks(chunks, move |_, i| {
            // SAFETY: `tasks` hands out each index once.
            let (a, b) = unsafe { (a.chunk(i, a_chunk), b.chunk(i, b_chunk)) };
            f(i, a, b);
        });
    }

    /// As [`tasks`](Self::tasks), with a state of its own for each worker.
    ///
    /// # Panics
    /// If there are not as many states as threads, or as [`run`](Self::run).
    pub fn tasks_with<S: Send>(&self, states: &mut [S], tasks: usize, f: impl Fn(&mut S, usize) + Sync) {
        assert_eq!(states.len(), self.threads(), "one state for each thread");
        let states = Parts::new(states);
        self.tasks(tasks, move |worker, task| {
            // SAFETY: a worker runs one task at a time.
            f(unsafe { &mut states.get(worker, 1)[0] }, task);
        });
    }

    /// As [`chunks_mut`](Self::chunks_mut), with a state of its own for each worker.
    ///
    /// # Panics
    /// If there are not as many states as threads, or as there.
    pub fn chunks_mut_with<S: Send, T: Send>(
        &self,
        states: &mut [S],
        data: &mut [T],
        chunk: usize,
        f: impl Fn(&mut S, usize, &mut [T]) + Sync,
    ) {
        let parts = Parts::new(data);
        self.tasks_with(states, parts.chunks(chunk), move |state, i| {
            // SAFETY: `tasks_with` hands out each index once.
            f(state, i, unsafe { parts.chunk(i, chunk) });
        });
    }

    /// As [`chunks_mut2`](Self::chunks_mut2), with a state of its own for each worker.
    ///
    /// # Panics
    /// If there are not as many states as threads, or as there.
    pub fn chunks_mut2_with<S: Send, A: Send, B: Send>(
        &self,
        states: &mut [S],
        (a, a_chunk): (&mut [A], usize),
        (b, b_chunk): (&mut [B], usize),
        f: impl Fn(&mut S, usize, &mut [A], &mut [B]) + Sync,
    ) {
        let (a, b) = (Parts::new(a), Parts::new(b));
        let chunks = a.chunks(a_chunk);
        assert_eq!(chunks, b.chunks(b_chunk), "both slices have as many chunks");
        self.tasks_with(states, chunks, move |state, i| {
            // SAFETY: `tasks_with` hands out each index once.
            let (a, b) = unsafe { (a.chunk(i, a_chunk), b.chunk(i, b_chunk)) };
            f(state, i, a, b);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (seat, worker) in self.shared.seats[1..].iter().zip(self.workers.drain(..)) {
            seat.state.store(STOP, Ordering::Relaxed);
            worker.thread().unpark();
            // A worker catches every panic of a region, so it cannot have died of one.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool of {} threads", self.threads())
    }
}

impl Shared {
    /// Runs a worker's part and keeps the first panic.
    fn call(&self, id: usize, f: &(dyn Fn(usize) + Sync)) {
        INSIDE_REGION.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| f(id)));
        if let Err(mut payload) = result {
            let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            if first.is_none() {
                *first = Some(payload);
            } else {
                drop(first);
                // Not to be dropped bare: if that panics, nobody would wait for the others.
                while let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                    payload = another;
                }
            }
        }
        INSIDE_REGION.set(false);
    }

    /// Returns when the worker of an opened seat has run its part and left.
    fn wait_until_left(&self, seat: &Seat) {
        // Acquire, here and below: what the worker wrote is visible.
        let left = || seat.state.load(Ordering::Acquire) <= ASLEEP;
        if spin(self.spin, left) {
            return;
        }
        *self.caller.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
        let awaited = |state| (state > ASLEEP).then_some(state | AWAITED);
        // Release: the worker that sees the flag sees whom to wake.
        while seat.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, awaited).is_ok() {
            thread::park();
        }
    }
}

/// CPUs that this process may use; 1 where the system does not say.
pub fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// How deep workers begin.
static DEPTH: AtomicUsize = AtomicUsize::new(0);

/// Runs `f` with its stack, and those of the workers of all pools, `pages` pages further down than they
/// would be. Lines of a stack and of the data that is used with it push each other out of the first cache
/// where their addresses hash alike, which makes short functions slower by up to a half; who measures does
/// so at several depths. Workers follow from their next region but one on, and stay there until another depth is asked
/// for.
pub fn at_depth(pages: usize, f: &mut dyn FnMut()) {
    DEPTH.store(pages, Ordering::Relaxed);
    deeper(pages, f);
}

/// Runs `f` so many pages further down the stack.
#[inline(never)]
fn deeper(pages: usize, f: &mut dyn FnMut()) {
    /// A page with what a call takes beside.
    const ROOM: usize = (4 << 10) - 64;
    let mut room = MaybeUninit::<[u8; ROOM]>::uninit();
    black_box(&mut room);
    match pages {
        0 => f(),
        _ => deeper(pages - 1, f),
    }
    // No call of the last kind, which would need no room of its own.
    black_box(&mut room);
}

/// The life of worker `id`.
fn work(shared: &Shared, id: usize) {
    let mut goes_on = true;
    while goes_on {
        let depth = DEPTH.load(Ordering::Relaxed);
        deeper(depth, &mut || goes_on = serve(shared, id, depth));
    }
}

/// Takes part in regions until the pool ends, when it returns false, or workers are to be at another depth.
fn serve(shared: &Shared, id: usize, depth: usize) -> bool {
    let seat = &shared.seats[id];
    while DEPTH.load(Ordering::Relaxed) == depth {
        let idle = |state| seat.state.load(Ordering::Relaxed) == state;
        let sleep = || seat.state.compare_exchange(IDLE, ASLEEP, Ordering::Relaxed, Ordering::Relaxed);
        if !spin(shared.spin, || !idle(IDLE)) && sleep().is_ok() {
            while idle(ASLEEP) {
                thread::park();
            }
        }
        let join = |state| (state & !AWAITED == OPEN).then_some(state + (INSIDE - OPEN));
        // Acquire: pairs with the release that opened the seat.
        match seat.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, join) {
            Ok(_) => {}
            Err(STOP) => return false,
            // The region was over before this worker came.
            Err(_) => continue,
        }
        // SAFETY: this worker is inside, so its job is set and nobody writes it.
        let body = unsafe { *seat.job.get() }.expect("an opened seat has a job");
        // SAFETY: the caller keeps the closure alive while somebody is inside.
        shared.call(id, unsafe { &*body });
        // Release: the caller sees what this worker wrote; acquire: this worker sees whom to wake.
        if seat.state.swap(IDLE, Ordering::AcqRel) & AWAITED != 0
            && let Some(caller) = &*shared.caller.lock().unwrap_or_else(PoisonError::into_inner)
        {
            caller.unpark();
        }
    }
    true
}

/// Looks for a while whether `done` says so; gives what it said last.
fn spin(time: Duration, done: impl Fn() -> bool) -> bool {
    if !time.is_zero() {
        let start = Instant::now();
        while start.elapsed() < time {
            for _ in 0..32 {
                if done() {
                    return true;
                }
                std::hint::spin_loop();
            }
        }
    }
    done()
}

/// A slice of which several threads may hold different parts at the same time.
pub(crate) struct Parts<'a, T> {
    data: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: `get` demands that no two threads have the same elements, so `T: Send` is enough.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), slice: PhantomData }
    }

    /// The `len` elements from `at` on.
    ///
    /// # Panics
    /// If they are not there.
    ///
    /// # Safety
    /// Nobody else may hold any of these elements.
    #[inline]
    pub(crate) unsafe fn get(&self, at: usize, len: usize) -> &'a mut [T] {
        assert!(at <= self.len && len <= self.len - at);
        // SAFETY: in bounds as asserted, of a slice that is borrowed; exclusive as demanded.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(at), len) }
    }

    /// Number of chunks of `len` elements, of which the last may be shorter.
    fn chunks(&self, len: usize) -> usize {
        assert!(len > 0, "a chunk has at least one element");
        self.len.div_ceil(len)
    }

    /// Chunk `i` of [those](Self::chunks) of `len` elements.
    ///
    /// # Safety
    /// As for [`get`](Self::get): no two chunks of the same index may be held at once, nor any of another
    /// length.
    unsafe fn chunk(&self, i: usize, len: usize) -> &'a mut [T] {
        assert!(i < self.chunks(len));
        let at = i * len;
        // SAFETY: as demanded; chunks of different indices do not overlap.
        unsafe { self.get(at, len.min(self.len - at)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_runs_once_a_region() {
        const REGIONS: usize = if cfg!(miri) { 5 } else { 2000 };
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            let counts: Vec<_> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..REGIONS {
                pool.run(&|w| {
                    counts[w].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == REGIONS), "{counts:?}");
        }
    }

    #[test]
    #[cfg(not(any(miri, watched)))]
    fn stacks_are_as_deep_as_was_asked() {
        const PAGES: usize = 9;
        let pool = Pool::new(2);
        let places = || {
            let places = [const { AtomicUsize::new(0) }; 2];
            for _ in 0..3 {
                pool.run(&|worker| {
                    let here = 0u8;
                    places[worker].store(&raw const here as usize, Ordering::Relaxed);
                });
            }
            places.map(AtomicUsize::into_inner)
        };
        let (before, mut deep) = (places(), [0; 2]);
        at_depth(PAGES, &mut || deep = places());
        at_depth(0, &mut || {});
        for ((before, deep), after) in before.into_iter().zip(deep).zip(places()) {
            let pages = (before - deep) as f64 / 4096.0;
            // Frames are nearly a page.
            assert!((pages - PAGES as f64).abs() < 1.0, "{pages} pages");
            assert_eq!(before, after);
        }
    }

    #[test]
    fn a_shared_pool_lasts_as_long_as_somebody_has_it() {
        let (pool, other) = (Pool::shared(3), Pool::shared(4));
        assert!(Arc::ptr_eq(&pool, &Pool::shared(3)) && (pool.threads(), other.threads()) == (3, 4));
        let ended = Arc::downgrade(&pool);
        drop(pool);
        assert!(ended.upgrade().is_none() && Pool::shared(3).threads() == 3);
    }

    #[test]
    fn chunks_cover_the_slice_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for (len, chunk) in [(0, 3), (1, 3), (3, 3), (100, 7), (1000, 1)] {
                let mut data = vec![0usize; len];
                pool.chunks_mut(&mut data, chunk, |i, part| {
                    for (k, v) in part.iter_mut().enumerate() {
                        *v += i * chunk + k + 1;
                    }
                });
                assert!(data.iter().enumerate().all(|(i, v)| *v == i + 1));
            }
            let (mut a, mut b) = (vec![0; 10], vec![0; 5]);
            pool.chunks_mut2((&mut a, 4), (&mut b, 2), |i, a, b| {
                a.fill(i);
                b.fill(a.len());
            });
            assert_eq!((&a, &b), (&vec![0, 0, 0, 0, 1, 1, 1, 1, 2, 2], &vec![4, 4, 4, 4, 2]));
            let (mut states, mut done) = (vec![0; threads], vec![0; 100]);
            pool.chunks_mut_with(&mut states, &mut done, 1, |s, i, done| {
                *s += i;
                done[0] += 1;
            });
            assert_eq!((states.iter().sum::<usize>(), done), (4950, vec![1; 100]));
            pool.chunks_mut2_with(&mut states, (&mut a, 4), (&mut b, 2), |_, i, a, b| {
                a[0] = 7 + i;
                b[0] = i;
            });
            assert_eq!((a, b), (vec![7, 0, 0, 0, 8, 1, 1, 1, 9, 2], vec![0, 4, 1, 4, 2]));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn each_task_runs_once_whoever_comes_when() {
        for threads in [2, 3, 5] {
            let pool = Pool::new(threads);
            for tasks in (0..3000).map(|i| i % 17) {
                let counts = [const { AtomicUsize::new(0) }; 17];
                pool.tasks(tasks, |_, task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                for (task, count) in counts.iter().enumerate() {
                    let count = count.load(Ordering::Relaxed);
                    assert_eq!(
                        count,
                        usize::from(task < tasks),
                        "task {task} of {tasks} on {threads} threads"
                    );
                }
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for bad in 0..3 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|w| assert!(w != bad, "worker {w} fails"));
            }));
            let payload = caught.expect_err("the panic comes through");
            let text = payload.downcast_ref::<String>().expect("the payload comes through");
            assert_eq!(*text, format!("worker {bad} fails"));
            let mut data = [0; 30];
            pool.chunks_mut(&mut data, 1, |_, v| v[0] = 1);
            assert_eq!(data, [1; 30]);
        }
    }

    #[test]
    fn payloads_that_panic_when_dropped_end_no_region_early() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let pool = Pool::new(3);
        let caught = catch_unwind(AssertUnwindSafe(|| pool.run(&|_| std::panic::panic_any(Bomb))));
        // One payload comes through; the others are kept from going off.
        std::mem::forget(caught.expect_err("the panic comes through"));
        pool.run(&|_| ());
    }

    #[test]
    fn a_nested_region_is_refused_instead_of_hanging() {
        for threads in [2, 3] {
            let pool = Pool::new(threads);
            let caught = catch_unwind(AssertUnwindSafe(|| pool.run(&|_| pool.run(&|_| ()))));
            assert!(caught.is_err());
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn callers_on_several_threads_take_turns() {
        let pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        pool.tasks(3, |_, task| {
                            total.fetch_add(task, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 4 * 500 * 3);
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn many_more_threads_than_cpus_still_move() {
        let pool = Pool::new(4 * cpus() + 1);
        let start = Instant::now();
        for _ in 0..200 {
            pool.run(&|_| ());
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{:?} for 200 regions", start.elapsed());
    }

    /// Parked threads use no CPU: the process' time stands still while the pool idles.
    #[cfg(target_os = "linux")]
    #[test]
    #[cfg_attr(miri, ignore = "it has no process times")]
    fn an_idle_pool_parks() {
        let pool = Pool::new(2);
        pool.run(&|_| ());
        let all_asleep = || {
            let tasks = std::fs::read_dir("/proc/self/task").expect("procfs").flatten();
            let mut asleep = tasks
                .filter_map(|t| std::fs::read_to_string(t.path().join("stat")).ok())
                .filter(|stat| stat.contains("(tritmark-1)"))
                .map(|stat| stat.rsplit(") ").next().is_some_and(|s| s.starts_with('S')))
                .peekable();
            assert!(asleep.peek().is_some(), "no thread has the worker's name");
            asleep.all(|asleep| asleep)
        };
        // Other tests' pools have threads of the same name, which may be busy for a while.
        let parked = (0..200).any(|_| {
            thread::sleep(Duration::from_millis(20));
            all_asleep()
        });
        assert!(parked, "a worker is still spinning");
        drop(pool);
    }
}
