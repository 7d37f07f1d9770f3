//! The floating-point parts of a transformer: norms, rotary embedding, attention, gates, float matrices.
//!
//! Every function has one order of operations. Loops whose order matters are written once, over
//! sixteen lanes ([`simd`]), and compiled for each instruction set; the operations are the same IEEE
//! ones everywhere, so results are equal bit for bit (but for the bits of a NaN) over CPUs of one architecture, over thread
//! counts, and over ways to cut a text into batches. (Angles of the rotary embedding come from the system's
//! mathematical library in f64, and are rounded to f32: only there could another library differ in a bit.)
//!
//! * [`FloatRows`] multiplies float matrices; each output is one sequential sum over the inputs (of six bits in blocks).
//! * [`attention`] is an online softmax over blocks of positions.
//! * [`elementwise`] holds what runs over one token, in f64.

pub mod attention;
pub mod elementwise;
mod int6;
mod rows;
pub(crate) mod simd;
mod tile;

pub use attention::KvLayer;
pub use rows::{FloatRows, Floats};

/// Instruction sets that the loops are compiled for.
#[derive(Clone, Copy)]
pub(crate) enum Level {
    Portable(simd::Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(simd::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(simd::Avx512<false>),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(simd::Avx512<true>),
    #[cfg(target_arch = "aarch64")]
    Neon(simd::Neon<false>),
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(simd::Neon<true>),
}

impl Level {
    /// What this CPU has, lowest first.
    fn all() -> impl DoubleEndedIterator<Item = Level> {
        [
            Some(Level::Portable(simd::Portable)),
            #[cfg(target_arch = "x86_64")]
            simd::Avx2::new().map(Level::Avx2),
            #[cfg(target_arch = "x86_64")]
            simd::Avx512::new().map(Level::Avx512),
            #[cfg(target_arch = "x86_64")]
            simd::Avx512::new().map(Level::Avx512Vnni),
            #[cfg(target_arch = "aarch64")]
            simd::Neon::new().map(Level::Neon),
            #[cfg(target_arch = "aarch64")]
            simd::Neon::new().map(Level::NeonDotprod),
        ]
        .into_iter()
        .flatten()
    }

    /// The highest that this CPU has.
    #[inline]
    pub(crate) fn current() -> Level {
        #[cfg(test)]
        if let Some(level) = Level::all().nth(tests::LEVEL.load(std::sync::atomic::Ordering::Relaxed)) {
            return level;
        }
        Level::all().next_back().expect("one level needs nothing")
    }
}

/// Defines a function that runs `body(simd, arguments…)` on the highest [`Level`].
macro_rules! on_every_level {
    ($(#[$attr:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $(#[$attr])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            fn avx512(simd: crate::float::simd::Avx512<false>, $($arg: $ty),*) $(-> $ret)? {
                $body(simd, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
            fn avx512vnni(simd: crate::float::simd::Avx512<true>, $($arg: $ty),*) $(-> $ret)? {
                $body(simd, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2(simd: crate::float::simd::Avx2, $($arg: $ty),*) $(-> $ret)? {
                $body(simd, $($arg),*)
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon,dotprod")]
            fn dotprod(simd: crate::float::simd::Neon<true>, $($arg: $ty),*) $(-> $ret)? {
                $body(simd, $($arg),*)
            }
            match crate::float::Level::current() {
                crate::float::Level::Portable(simd) => $body(simd, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the token proves the features.
                crate::float::Level::Avx2(simd) => unsafe { avx2(simd, $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the token proves the features.
                crate::float::Level::Avx512(simd) => unsafe { avx512(simd, $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the token proves the features.
                crate::float::Level::Avx512Vnni(simd) => unsafe { avx512vnni(simd, $($arg),*) },
                #[cfg(target_arch = "aarch64")]
                crate::float::Level::Neon(simd) => $body(simd, $($arg),*),
                #[cfg(target_arch = "aarch64")]
                // SAFETY: the token proves the features.
                crate::float::Level::NeonDotprod(simd) => unsafe { dotprod(simd, $($arg),*) },
            }
        }
    };
}
pub(crate) use on_every_level;

#[cfg(test)]
mod tests {
    use super::Level;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, PoisonError};

    /// Index of the level under test; any other number means the highest. Tests that run beside may
    /// see it: harmless, as all levels must give the same bits.
    pub(super) static LEVEL: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Runs `f` on each level and checks that all give the same.
    pub(super) fn equal_on_every_level<R: PartialEq + std::fmt::Debug>(f: impl Fn() -> R) -> R {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let results: Vec<R> = (0..Level::all().count())
            .map(|level| {
                LEVEL.store(level, Ordering::Relaxed);
                f()
            })
            .collect();
        LEVEL.store(usize::MAX, Ordering::Relaxed);
        assert!(results.iter().all(|r| *r == results[0]), "levels differ");
        results.into_iter().next().expect("one level needs nothing")
    }

    /// Values in about [-2, 2], the same for the same seed.
    pub(super) fn values(seed: u32, n: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 22) as f32 - 2.0
            })
            .collect()
    }
}
