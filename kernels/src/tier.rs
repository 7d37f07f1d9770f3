//! Instruction-set levels, and which of them this CPU and operating system offer.

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod nibbles;
pub(crate) mod scalar;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod source;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod triples;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;

use std::fmt;
use std::str::FromStr;

/// An instruction-set level. A higher level of the same architecture includes the lower ones, but that those of AVX-512
/// do not include AVX-VNNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Plain Rust; runs everywhere and is the law for all others.
    Scalar,
    /// x86-64: AVX2 and FMA.
    Avx2,
    /// x86-64: AVX2 with the VEX-encoded `vpdpbusd`.
    AvxVnni,
    /// x86-64: AVX-512 F and BW.
    Avx512,
    /// x86-64: AVX-512 F, BW, VL, VNNI, VBMI and VBMI2.
    Avx512Vnni,
    /// aarch64: Advanced SIMD.
    Neon,
    /// aarch64: Advanced SIMD with `sdot`.
    NeonDotprod,
    /// aarch64: Advanced SIMD with `sdot` and `smmla`.
    NeonI8mm,
}

/// Asks for the cache line at an address, which may be any, to the nearest cache: a hint, where the
/// architecture has one that is stable in Rust.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, and SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// As [`prefetch`], to the second-level cache, which has room for more lines that are under way.
#[inline(always)]
pub(crate) fn prefetch_l2<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as there.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// How far ahead lines are asked for to the first-level cache that were asked for to the second before: so far that
/// they come in time, and computing does not wait for a place among the lines that are under way.
pub(crate) const NEAR: usize = 1280;

/// Asks for all lines of what lies as far ahead of `at`, to the second-level cache, and of what lies
/// [`NEAR`] bytes ahead, to the first.
#[inline(always)]
pub(crate) fn prefetch_all<T>(at: &T, ahead: usize) {
    let at = std::ptr::from_ref(at).cast::<u8>();
    for line in (0..size_of::<T>()).step_by(64) {
        prefetch_l2(at.wrapping_add(ahead + line));
        prefetch(at.wrapping_add(NEAR + line));
    }
}

impl Tier {
    /// Every tier, lowest first.
    pub const ALL: [Tier; 8] = [
        Tier::Scalar,
        Tier::Avx2,
        Tier::AvxVnni,
        Tier::Avx512,
        Tier::Avx512Vnni,
        Tier::Neon,
        Tier::NeonDotprod,
        Tier::NeonI8mm,
    ];

    /// The name used in kernel names and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Scalar => "scalar",
            Tier::Avx2 => "avx2",
            Tier::AvxVnni => "avxvnni",
            Tier::Avx512 => "avx512",
            Tier::Avx512Vnni => "avx512vnni",
            Tier::Neon => "neon",
            Tier::NeonDotprod => "dotprod",
            Tier::NeonI8mm => "i8mm",
        }
    }

    /// Whether this CPU has the tier's instructions and the operating system lets them be used.
    /// The answer never changes while the program runs.
    pub fn is_available(self) -> bool {
        match self {
            Tier::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Tier::AvxVnni => Tier::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => {
                Tier::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
            }
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni => {
                Tier::Avx512.is_available()
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("avx512vbmi2")
            }
            #[cfg(target_arch = "aarch64")]
            Tier::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Tier::NeonDotprod => {
                Tier::Neon.is_available() && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[cfg(target_arch = "aarch64")]
            Tier::NeonI8mm => {
                Tier::NeonDotprod.is_available() && std::arch::is_aarch64_feature_detected!("i8mm")
            }
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Tier {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Tier::ALL.into_iter().find(|t| t.name() == s).ok_or_else(|| {
            let known: Vec<_> = Tier::ALL.iter().map(|t| t.name()).collect();
            format!("unknown tier '{s}': expected one of {}", known.join(", "))
        })
    }
}
