//! Persistent worker threads for the many short parallel regions of a forward pass.
//!
//! A decoded token passes through about 150 regions of some tens of microseconds each, so entering
//! one must cost about a microsecond and allocate nothing; when nobody decodes, the threads must not
//! burn the machine. A worker therefore spins for [`SPIN`] after a region and then parks. Where there
//! are more threads than CPUs nobody spins, because whoever spins then keeps the one that is waited for
//! from running.
//!
//! Other programs may keep a worker from running too, for milliseconds at a time. Tasks therefore do not
//! wait for workers: a region ends when its tasks are done and whoever took part has left, and a worker
//! that comes later finds it closed.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
    /// The current [`Region`] as a number; [`STOP`] ends the workers.
    region: AtomicU64,
    /// What to run. Written by the holder of `turn` while nobody is inside a region or can join one, read
    /// by workers inside a region.
    job: UnsafeCell<Option<Job>>,
    /// The first panic of a region.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    spin: Duration,
}

struct Job {
    body: Body,
    caller: Thread,
}

/// The state of a region: 16 bits of workers (without the caller) that are inside, 16 bits of those that
/// have joined, one bit that it is closed, and its number.
#[derive(Clone, Copy)]
struct Region(u64);

/// One worker more inside.
const INSIDE_ONE: u64 = 1;
/// One worker more that has joined.
const JOINED_ONE: u64 = 1 << 16;
/// Nobody may join any more.
const CLOSED: u64 = 1 << 32;
/// One region more.
const NEXT: u64 = 1 << 33;

impl Region {
    fn number(self) -> u64 {
        self.0 / NEXT
    }

    fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    fn joined(self) -> usize {
        ((self.0 / JOINED_ONE) & 0xffff) as usize
    }

    fn inside(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// Ends the workers; no region looks like it, because a closed one has fewer joined.
const STOP: u64 = u64::MAX;

// SAFETY: `job` is the only field that is not `Sync` by itself. It is written only between regions: when
// the last one is closed, or joined by all workers, and nobody is inside it any more, so that nobody can
// come to read before the store to `region` that starts the next. It is read only inside a region, so
// writes and reads never overlap; the body is `Sync` and `Thread` is `Send` and `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the raw pointer inside is to a `Sync` closure.
unsafe impl Send for Shared {}

thread_local! {
    /// Whether this thread is inside a region.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// Starts `threads - 1` threads beside the caller's.
    ///
    /// # Panics
    /// If `threads` is 0 or above 65534, or the operating system refuses another thread.
    pub fn new(threads: usize) -> Self {
        assert!(threads > 0, "a pool needs at least one thread");
        assert!(threads < 0xffff, "{threads} threads are too many");
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            region: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            spin: if threads <= cpus { SPIN } else { Duration::ZERO },
        });
        let workers = (1..threads)
            .map(|id| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("tritmark-{id}"))
                    .spawn(move || work(&shared, id))
                    .expect("the operating system starts a thread")
            })
            .collect();
        Self { shared, workers, turn: Mutex::new(()) }
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
    /// region.
    pub fn run(&self, f: &(dyn Fn(usize) + Sync)) {
        self.region(f, self.workers.len());
    }

    /// Runs `f(worker)` on the caller and on as many workers as come in time, `least` of them at any rate.
    fn region(&self, f: &(dyn Fn(usize) + Sync), least: usize) {
        assert!(!INSIDE.get(), "a region of the pool cannot start another");
        if self.workers.is_empty() {
            return f(0);
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        let body: *const (dyn Fn(usize) + Sync + '_) = f;
        // SAFETY: only the lifetime changes. The pointer is used by workers inside the region, and this
        // function does not return, or unwind, before all have left and no other can join.
        let body: Body = unsafe { std::mem::transmute(body) };
        // SAFETY: no region is running (`turn` is held, and its last holder waited as below), so no
        // worker reads `job`.
        unsafe { *shared.job.get() = Some(Job { body, caller: thread::current() }) };
        let number = Region(shared.region.load(Ordering::Relaxed)).number();
        // Release: a worker that sees the new number sees the job too.
        shared.region.store((number + 1).wrapping_mul(NEXT), Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        shared.call(0, f);
        // Acquire, here and below: what the workers wrote is visible once they have left.
        let state = || Region(shared.region.load(Ordering::Acquire));
        wait(shared.spin, || state().joined() >= least);
        shared.region.fetch_or(CLOSED, Ordering::AcqRel);
        wait(shared.spin, || state().inside() == 0);
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
        /// The most shares; more workers begin as helpers.
        const SHARES: usize = 64;
        /// Tasks of a share that are taken, on a cache line of its own.
        #[repr(align(64))]
        struct Taken(AtomicUsize);
        if tasks == 1 {
            return f(0, 0);
        }
        let shares = self.threads().min(SHARES);
        let taken = [const { Taken(AtomicUsize::new(0)) }; SHARES];
        let body = |worker: usize| {
            for share in (0..shares).map(|i| (worker + i) % shares) {
                let part = share * tasks / shares..(share + 1) * tasks / shares;
                loop {
                    let task = part.start + taken[share].0.fetch_add(1, Ordering::Relaxed);
                    if task >= part.end {
                        break;
                    }
                    f(worker, task);
                }
            }
        };
        self.region(&body, 0);
    }

    /// Runs `f(index, chunk)` for each chunk of `chunk` elements of `data` (the last may be
    /// shorter); a worker that is free takes the next.
    ///
    /// # Panics
    /// If `chunk` is 0, or as [`run`](Self::run).
    pub fn chunks_mut<T: Send>(&self, data: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let parts = Parts::new(data, chunk);
        self.tasks(parts.count(), |_, i| {
            // SAFETY: `tasks` hands out each index once.
            f(i, unsafe { parts.get(i) });
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
        let (a, b) = (Parts::new(a, a_chunk), Parts::new(b, b_chunk));
        assert_eq!(a.count(), b.count(), "both slices have as many chunks");
        self.tasks(a.count(), |_, i| {
            // SAFETY: `tasks` hands out each index once.
            let (a, b) = unsafe { (a.get(i), b.get(i)) };
            f(i, a, b);
        });
    }

    /// As [`tasks`](Self::tasks), with a state of its own for each worker.
    ///
    /// # Panics
    /// If there are not as many states as threads, or as [`run`](Self::run).
    pub fn tasks_with<S: Send>(&self, states: &mut [S], tasks: usize, f: impl Fn(&mut S, usize) + Sync) {
        assert_eq!(states.len(), self.threads(), "one state for each thread");
        let states = Parts::new(states, 1);
        self.tasks(tasks, |worker, task| {
            // SAFETY: a worker runs one task at a time.
            f(unsafe { &mut states.get(worker)[0] }, task);
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
        let parts = Parts::new(data, chunk);
        self.tasks_with(states, parts.count(), |state, i| {
            // SAFETY: `tasks_with` hands out each index once.
            f(state, i, unsafe { parts.get(i) });
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
        let (a, b) = (Parts::new(a, a_chunk), Parts::new(b, b_chunk));
        assert_eq!(a.count(), b.count(), "both slices have as many chunks");
        self.tasks_with(states, a.count(), |state, i| {
            // SAFETY: `tasks_with` hands out each index once.
            let (a, b) = unsafe { (a.get(i), b.get(i)) };
            f(state, i, a, b);
        });
    }

    /// Runs `f(worker, state)` on every worker with a state of its own.
    ///
    /// # Panics
    /// If there are not as many states as threads, or as [`run`](Self::run).
    pub fn each<S: Send>(&self, states: &mut [S], f: impl Fn(usize, &mut S) + Sync) {
        assert_eq!(states.len(), self.threads(), "one state for each thread");
        let parts = Parts::new(states, 1);
        self.run(&|worker| {
            // SAFETY: `run` calls with each worker number once.
            let state = unsafe { parts.get(worker) };
            f(worker, &mut state[0]);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.region.store(STOP, Ordering::Release);
        for worker in self.workers.drain(..) {
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
        INSIDE.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| f(id)));
        INSIDE.set(false);
        if let Err(payload) = result {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
    }
}

/// The life of worker `id`.
fn work(shared: &Shared, id: usize) {
    let mut seen = 0;
    loop {
        // Acquire, here and below: pairs with the release that started the region.
        wait(shared.spin, || Region(shared.region.load(Ordering::Acquire)).number() != seen);
        let joined = shared.region.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            (!Region(state).is_closed()).then(|| state + JOINED_ONE + INSIDE_ONE)
        });
        let (Ok(state) | Err(state)) = joined;
        if state == STOP {
            return;
        }
        seen = Region(state).number();
        if joined.is_err() {
            continue;
        }
        // SAFETY: this worker is inside the region, so the job is set and nobody writes it.
        let job = unsafe { (*shared.job.get()).as_ref() }.expect("a region has a job");
        // SAFETY: the caller keeps the closure alive while somebody is inside.
        shared.call(id, unsafe { &*job.body });
        // Cloned first: after it has left the caller may go on and replace the job.
        let caller = job.caller.clone();
        shared.region.fetch_sub(INSIDE_ONE, Ordering::AcqRel);
        caller.unpark();
    }
}

/// Returns when `done` says so: spins for a while, then parks between looks.
fn wait(spin: Duration, done: impl Fn() -> bool) {
    if !spin.is_zero() {
        let start = Instant::now();
        while start.elapsed() < spin {
            for _ in 0..32 {
                if done() {
                    return;
                }
                std::hint::spin_loop();
            }
        }
    }
    while !done() {
        thread::park();
    }
}

/// A mutable slice cut into chunks that several threads may hold at the same time.
struct Parts<T> {
    data: *mut T,
    len: usize,
    chunk: usize,
}

// SAFETY: a part is handed to one thread at a time (see `get`), so `T: Send` is enough.
unsafe impl<T: Send> Sync for Parts<T> {}

impl<T> Parts<T> {
    fn new(data: &mut [T], chunk: usize) -> Self {
        assert!(chunk > 0, "a chunk has at least one element");
        Self { data: data.as_mut_ptr(), len: data.len(), chunk }
    }

    fn count(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    /// Chunk `i`.
    ///
    /// # Safety
    /// No two chunks of the same index may be alive at once, nor any after the slice's borrow.
    #[allow(clippy::mut_from_ref)]
    unsafe fn get(&self, i: usize) -> &mut [T] {
        assert!(i < self.count());
        let start = i * self.chunk;
        let len = self.chunk.min(self.len - start);
        // SAFETY: `start + len <= self.len`, and chunks of different indices do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_runs_once_a_region() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            let counts: Vec<_> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..2000 {
                pool.run(&|w| {
                    counts[w].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 2000), "{counts:?}");
        }
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
            states.fill(0);
            pool.each(&mut states, |w, s| *s += w + 1);
            assert!(states.iter().enumerate().all(|(w, s)| *s == w + 1));
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
    fn a_nested_region_is_refused_instead_of_hanging() {
        for threads in [2, 3] {
            let pool = Pool::new(threads);
            let caught = catch_unwind(AssertUnwindSafe(|| pool.run(&|_| pool.run(&|_| ()))));
            assert!(caught.is_err());
        }
    }

    #[test]
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
    fn many_more_threads_than_cpus_still_move() {
        let pool = Pool::new(4 * thread::available_parallelism().map_or(1, usize::from) + 1);
        let start = Instant::now();
        for _ in 0..200 {
            pool.run(&|_| ());
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{:?} for 200 regions", start.elapsed());
    }

    /// Parked threads use no CPU: the process' time stands still while the pool idles.
    #[cfg(target_os = "linux")]
    #[test]
    fn an_idle_pool_parks() {
        let pool = Pool::new(2);
        pool.run(&|_| ());
        let task_state = || {
            let tasks = std::fs::read_dir("/proc/self/task").expect("procfs").flatten();
            tasks
                .filter_map(|t| std::fs::read_to_string(t.path().join("stat")).ok())
                .filter(|stat| stat.contains("(tritmark-1)"))
                .all(|stat| stat.rsplit(") ").next().is_some_and(|s| s.starts_with('S')))
        };
        // Other tests' pools have threads of the same name, which may be busy for a while.
        let parked = (0..200).any(|_| {
            thread::sleep(Duration::from_millis(20));
            task_state()
        });
        assert!(parked, "a worker is still spinning");
        drop(pool);
    }
}
