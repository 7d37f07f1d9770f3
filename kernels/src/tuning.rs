//! Numbers that decide how fast products are, never what they are: from where on tables pay, how far
//! ahead weights are asked for, how finely work is cut and how much is worth cutting.
//!
//! They hold for the whole process. What is best depends on the CPU, above all on its maker and its caches, so
//! the defaults, which were measured on one of AMD's and one of Intel's, can be replaced by what was measured on
//! another.

use crate::tier::Tier;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// From which size of a product on a tier looks sums up in tables instead of multiplying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookupFrom {
    /// Tokens, at least 1; [`LookupFrom::NEVER`] where tables never pay.
    pub tokens: usize,
    /// Rows of one task, at least 1.
    pub rows: usize,
}

impl LookupFrom {
    /// More tokens than there are.
    pub const NEVER: usize = usize::MAX;
}

/// All of the numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// For each tier of this architecture that has tables, lowest first.
    pub lookup: Vec<(Tier, LookupFrom)>,
    /// Bytes by which kernels for one token, and those for a few of `i2_s`, `tq2_0` and `tq1_0`, ask for weights ahead
    /// of reading them, where they do not leave that to the CPU (x86-64 only); those that ask for them to the second-level cache do so 9/4 as far ahead.
    pub prefetch: usize,
    /// Whether weights that lie in the very order in which one token reads them (`tm2`, unless rows are long, and float
    /// matrices) are asked for ahead too, to the second-level cache, and whether these and those of `tm1_67`, `i2_s`,
    /// `tq2_0` and `tq1_0` are asked for to both caches (x86-64 only). An Emerald Rapids of Intel gained much by it, a
    /// Zen 4 of AMD lost; the default goes by the maker.
    pub sequences: bool,
    /// Tasks that a product is cut into for each thread, at least 1: several, so that a thread that is
    /// held up leaves work to the others, and few, so that each reads a long sequence. Of rows the first takes most.
    pub tasks: usize,
    /// Products of fewer multiply-adds stay on one thread (of scalar kernels a 64th of that, of attention,
    /// in f32, an eighth): they are done before another thread has taken its part and given the results
    /// back, unless both share a cache.
    pub alone: usize,
}

/// What holds until [`Tuning::apply`] says otherwise; for tables see the tiers themselves.
const PREFETCH: usize = 3072;
const TASKS: usize = 2;
const ALONE: usize = 1 << 19;

impl Default for Tuning {
    fn default() -> Self {
        #[cfg(target_arch = "x86_64")]
        let lookup = crate::tier::x86_64::lookups().collect();
        #[cfg(not(target_arch = "x86_64"))]
        let lookup = Vec::new();
        Self { lookup, prefetch: PREFETCH, sequences: sequences_by_default(), tasks: TASKS, alone: ALONE }
    }
}

/// The tier whose instructions the tables of a tier are looked up with: its own, or those of a lower one.
pub fn tables_of(tier: Tier) -> Tier {
    #[cfg(target_arch = "x86_64")]
    return crate::tier::x86_64::tables_of(tier);
    #[cfg(not(target_arch = "x86_64"))]
    tier
}

/// See [`Tuning::sequences`].
fn sequences_by_default() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::tier::x86_64::is_intel();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Numbers in use. A product that runs while they change may see old and new ones: its sums are the
/// same.
struct InUse {
    /// Tokens and rows of each tier; 0 tokens: the tier's default.
    lookup: [[AtomicUsize; 2]; Tier::ALL.len()],
    prefetch: AtomicUsize,
    /// 0: the default, 1: no, 2: yes.
    sequences: AtomicUsize,
    tasks: AtomicUsize,
    alone: AtomicUsize,
}

static IN_USE: InUse = InUse {
    lookup: [const { [const { AtomicUsize::new(0) }; 2] }; Tier::ALL.len()],
    prefetch: AtomicUsize::new(PREFETCH),
    sequences: AtomicUsize::new(0),
    tasks: AtomicUsize::new(TASKS),
    alone: AtomicUsize::new(ALONE),
};

impl Tuning {
    /// Most tasks of a thread, and bytes ahead.
    pub const MOST: usize = 1 << 20;

    /// What is in use.
    pub fn current() -> Self {
        let mut tuning = Self::default();
        for (tier, lookup) in &mut tuning.lookup {
            *lookup = lookup_of(*tier, *lookup);
        }
        Self { prefetch: prefetch(), sequences: sequences(), tasks: tasks(), alone: alone(), ..tuning }
    }

    /// Uses these numbers from now on, in all threads; tiers that are left out get their defaults.
    ///
    /// # Panics
    /// If a number is 0 that must be at least 1, or tasks or bytes are more than [`MOST`](Self::MOST); nothing has changed
    /// then.
    pub fn apply(&self) {
        assert!((1..=Self::MOST).contains(&self.tasks), "one task or more for each thread, and not too many");
        assert!(self.prefetch <= Self::MOST, "bytes that are not too far ahead");
        let tables = self.lookup.iter().all(|(_, lookup)| lookup.tokens > 0 && lookup.rows > 0);
        assert!(tables, "tables for one token and one row or more");
        for [tokens, _] in &IN_USE.lookup {
            tokens.store(0, Relaxed);
        }
        for &(tier, lookup) in &self.lookup {
            let [tokens, rows] = &IN_USE.lookup[tier as usize];
            rows.store(lookup.rows, Relaxed);
            tokens.store(lookup.tokens, Relaxed);
        }
        IN_USE.prefetch.store(self.prefetch, Relaxed);
        IN_USE.sequences.store(1 + usize::from(self.sequences), Relaxed);
        IN_USE.tasks.store(self.tasks, Relaxed);
        IN_USE.alone.store(self.alone, Relaxed);
    }
}

/// When a tier uses tables.
#[inline]
pub(crate) fn lookup_of(tier: Tier, default: LookupFrom) -> LookupFrom {
    let [tokens, rows] = IN_USE.lookup[tier as usize].each_ref().map(|n| n.load(Relaxed));
    if tokens == 0 { default } else { LookupFrom { tokens, rows } }
}

/// See [`Tuning::prefetch`].
#[inline]
pub(crate) fn prefetch() -> usize {
    IN_USE.prefetch.load(Relaxed)
}

/// As [`prefetch`], to the second-level cache.
#[inline]
pub(crate) fn prefetch_l2() -> usize {
    prefetch() / 4 * 9
}

/// See [`Tuning::sequences`].
#[inline]
pub(crate) fn sequences() -> bool {
    match IN_USE.sequences.load(Relaxed) {
        0 => sequences_by_default(),
        choice => choice == 2,
    }
}

/// By how many bytes sequences are asked for ahead, if they are.
#[inline]
pub(crate) fn ahead_of_sequences() -> Option<usize> {
    sequences().then(prefetch_l2)
}

/// See [`Tuning::tasks`].
#[inline]
pub(crate) fn tasks() -> usize {
    IN_USE.tasks.load(Relaxed)
}

/// See [`Tuning::alone`].
#[inline]
pub(crate) fn alone() -> usize {
    IN_USE.alone.load(Relaxed)
}
