//! Kernels for x86-64.
//!
//! One kernel type serves every layout and tier. Its core multiplies strips of the
//! [`tm2`](crate::layout::TM2) form ([`strip`]), over the few operations of [`vector::Vector`]; a
//! tier is a choice of vector type and tile size. A layout other than `tm2` is turned into that form,
//! a strip at a time in cache, which many tokens share. Fewer of them are faster otherwise, how many
//! depends on the layout and the tier: straight from its bytes ([`chunk`], [`digits`]), by rows that are
//! unpacked ([`row`]), or by looking sums up in tables ([`nibbles`], [`triples`]). Very many are faster by
//! tables too, at least for part of the columns ([`lookup256`], [`lookup512`]), or, on Intel's `vpdpbusd`, from strips
//! whose codes have a byte each ([`strip::spread`]).

mod call;
mod chunk;
mod digits;
mod lookup256;
mod lookup512;
mod nibbles;
mod peak;
mod row;
mod strip;
mod triples;
mod vector;

use crate::acts::Activations;
use crate::buffer::Array;
use crate::kernel::{Kernel, Packed, Way, check_call};
use crate::layout::tm2::{GROUP, ROWS};
use crate::layout::{Layout, TM2};
use crate::sealed::Sealed;
use crate::tier::Tier;
use crate::tier::source::{Chunks, Source, Space};
use crate::tuning::{self, LookupFrom};
use call::Call;
use std::arch::x86_64::__cpuid;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::LazyLock;

/// The compiled algorithms of a tier.
struct Ops {
    tier: Tier,
    /// [`strip::gemv`]; the last argument says whether it asks for weights ahead.
    gemv: unsafe fn(*const u8, usize, *const i8, [usize; 4], &mut [i32; ROWS], bool),
    /// [`strip::tile`] for the tokens of one of `tiles`; the last argument says how the strip is read.
    tile: unsafe fn(*const u8, usize, &[*const i8], [usize; 4], &mut Tile, Read),
    /// [`strip::spread`].
    spread: unsafe fn(&[u8], &mut [u8]),
    /// [`chunk::gemv`].
    chunks: unsafe fn(*const u8, usize, Chunks, usize, *const i8) -> [i32; chunk::RUN],
    /// [`chunk::tile`] for two tokens or more, up to so many, and bytes of its registers.
    chunk_tile: unsafe fn(*const u8, usize, Chunks, usize, &[*const i8], bool) -> chunk::Tile,
    chunk_tokens: usize,
    chunk_width: usize,
    /// [`digits::gemv`].
    digits: unsafe fn(*const u8, usize, usize, *const i8) -> [i32; chunk::RUN],
    /// [`digits::tile`] for two tokens or more, up to `chunk_tokens`.
    digit_tile: unsafe fn(*const u8, usize, usize, &[*const i8], bool) -> chunk::Tile,
    /// Bytes of the registers of both.
    digit_width: usize,
    /// [`row::few`].
    row: unsafe fn(*const i8, usize, &[*const i8], &mut [i32; row::TOKENS]),
    /// [`Source::strip`].
    strip: for<'a> unsafe fn(Source, &'a Packed, Range<usize>, &'a mut Space) -> &'a [u8],
    /// [`peak::peak`].
    peak: unsafe fn(usize),
    /// Multiply-adds of one time of it.
    peak_macs: f64,
    /// Tokens that tiles may have, fewest first.
    tiles: &'static [usize],
    /// What is fastest on CPUs of all makers but Intel (measured on Zen 4), and on those of Intel (measured on Emerald
    /// Rapids, but for nibbles and digits, which follow from what they and slower strips took there).
    best: [Best; 2],
}

/// What is fastest on a tier, unless [`tuning`] says otherwise.
#[derive(Clone, Copy)]
struct Best {
    /// From where on lookup is faster than multiplying.
    lookup_from: LookupFrom,
    /// The way of looking up.
    lookup: Algorithm,
    /// The most tokens for which the nibbles of `tl1`, and those of `tl2`, are faster than strips.
    nibbles: [usize; 2],
    /// The most tokens for which tables of triples are faster than strips, which are decoded once a call.
    triples: usize,
    /// The fewest tokens for which strips are spread.
    spread_from: usize,
    /// The most tokens, up to [`most::RUNS`], for which the chunks of `i2_s` and `tq2_0` are faster than strips.
    chunks: usize,
    /// As `chunks`, for the digits of `tq1_0`.
    digits: usize,
    /// The most tokens, up to [`most::ROWS`], for which rows that are unpacked are faster than strips and tables.
    rows: usize,
}

impl Best {
    const fn new(lookup: Algorithm, tokens: usize, rows: usize, triples: usize) -> Self {
        let lookup_from = LookupFrom { tokens, rows };
        Self {
            lookup_from,
            lookup,
            triples,
            nibbles: nibbles::MOST,
            spread_from: usize::MAX,
            chunks: most::RUNS,
            digits: 10,
            rows: 12,
        }
    }
}

/// Whether Intel made this CPU. What pays differs: its AVX-512 multiplies in two units and looks words up in one
/// (seen on Emerald Rapids), that of AMD does both in as many (seen on Zen 4).
pub(crate) fn is_intel() -> bool {
    static IS_INTEL: LazyLock<bool> = LazyLock::new(|| {
        // Miri, which looks for undefined behaviour, knows no such instruction.
        if cfg!(miri) {
            return false;
        }
        let id = __cpuid(0);
        [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
    });
    *IS_INTEL
}

/// The most tokens that the tiles of any tier take.
const MAX_TILE: usize = 12;

/// Sums of a tile: rows of a strip for each token.
type Tile = [[i32; ROWS]; MAX_TILE];

/// How a strip is read.
#[derive(Clone, Copy, PartialEq)]
enum Read {
    /// It lies in a cache.
    Cached,
    /// While the one behind it is asked for.
    Asking,
    /// It went through [`strip::spread`], and lies in a cache.
    Spread,
}

/// Compiles the algorithms for a tier.
macro_rules! ops {
    ($name:ident, $tier:expr, $features:literal, strips: $strip:ident, chunks: $chunk:ident, chunk_tiles: $chunk_tile:ident [$($chunk_nt:literal)+] to $chunk_largest:literal,
     digits: $digits:ident, gemv_registers: $registers:literal, tile_registers: $tile_registers:literal,
     tiles: [$($nt:literal)+], peak: $codes:literal x $activations:literal,
     best: $best:expr, to_tm2: $to_tm2:path) => {
        static $name: Ops = {
            #[target_feature(enable = $features)]
            unsafe fn gemv(
                strip: *const u8,
                groups: usize,
                x: *const i8,
                planes: [usize; 4],
                out: &mut [i32; ROWS],
                ask: bool,
            ) {
                // SAFETY: passed on; the function is compiled for the tier.
                unsafe {
                    if ask {
                        strip::gemv::<vector::$strip, $registers, true>(strip, groups, x, planes, out)
                    } else {
                        strip::gemv::<vector::$strip, $registers, false>(strip, groups, x, planes, out)
                    }
                }
            }
            #[target_feature(enable = $features)]
            unsafe fn tile(
                strip: *const u8,
                groups: usize,
                x: &[*const i8],
                planes: [usize; 4],
                out: &mut Tile,
                read: Read,
            ) {
                let ask = read == Read::Asking;
                match x.len() {
                    $($nt => {
                        let x: &[_; $nt] = x.try_into().expect("matched");
                        let out = out.first_chunk_mut::<$nt>().expect("no tile is larger");
                        // SAFETY: passed on; the function is compiled for the tier.
                        unsafe {
                            if read == Read::Spread {
                                strip::tile::<vector::$strip, $tile_registers, $nt, true>(
                                    strip, groups, x, planes, out, ask,
                                )
                            } else {
                                strip::tile::<vector::$strip, $tile_registers, $nt, false>(
                                    strip, groups, x, planes, out, ask,
                                )
                            }
                        }
                    })+
                    n => unreachable!("a tile of {n} tokens"),
                }
            }
            #[target_feature(enable = $features)]
            unsafe fn spread(strip: &[u8], out: &mut [u8]) {
                // SAFETY: passed on; the function is compiled for the tier.
                unsafe { strip::spread::<vector::$strip>(strip, out) }
            }
            #[target_feature(enable = $features)]
            unsafe fn chunks(
                row: *const u8,
                stride: usize,
                chunks: Chunks,
                groups: usize,
                x: *const i8,
            ) -> [i32; chunk::RUN] {
                // SAFETY: passed on; the function is compiled for the tier.
                unsafe { chunk::gemv::<vector::$chunk>(row, stride, chunks, groups, x) }
            }
            #[target_feature(enable = $features)]
            unsafe fn chunk_tile(
                row: *const u8,
                stride: usize,
                chunks: Chunks,
                groups: usize,
                x: &[*const i8],
                ask: bool,
            ) -> chunk::Tile {
                match x.len() {
                    $($chunk_nt => {
                        let x: &[_; $chunk_nt] = x.try_into().expect("matched");
                        // SAFETY: passed on; the function is compiled for the tier.
                        unsafe {
                            chunk::tile::<vector::$chunk_tile, $chunk_nt>(row, stride, chunks, groups, x, ask)
                        }
                    })+
                    n => unreachable!("a tile of {n} tokens"),
                }
            }
            #[target_feature(enable = $features)]
            unsafe fn digits(row: *const u8, stride: usize, blocks: usize, x: *const i8) -> [i32; chunk::RUN] {
                // SAFETY: passed on; the function is compiled for the tier.
                unsafe { digits::gemv::<vector::$digits>(row, stride, blocks, x) }
            }
            #[target_feature(enable = $features)]
            unsafe fn digit_tile(
                row: *const u8,
                stride: usize,
                blocks: usize,
                x: &[*const i8],
                ask: bool,
            ) -> chunk::Tile {
                match x.len() {
                    $($chunk_nt => {
                        let x: &[_; $chunk_nt] = x.try_into().expect("matched");
                        // SAFETY: passed on; the function is compiled for the tier.
                        unsafe { digits::tile::<vector::$digits, $chunk_nt>(row, stride, blocks, x, ask) }
                    })+
                    n => unreachable!("a tile of {n} tokens"),
                }
            }
            #[target_feature(enable = $features)]
            unsafe fn row(trits: *const i8, groups: usize, x: &[*const i8], out: &mut [i32; row::TOKENS]) {
                // SAFETY: passed on; the function is compiled for the tier.
                unsafe { row::few::<vector::$strip>(trits, groups, x, out) }
            }
            #[target_feature(enable = $features)]
            unsafe fn strip<'a>(
                source: Source,
                weights: &'a Packed,
                rows: Range<usize>,
                space: &'a mut Space,
            ) -> &'a [u8] {
                // SAFETY: the function is compiled for the tier, which includes AVX2.
                unsafe {
                    source.strip::<nibbles::Avx2>(weights, rows, space, |section, out| $to_tm2(section, out))
                }
            }
            #[target_feature(enable = $features)]
            unsafe fn peak(times: usize) {
                // SAFETY: the function is compiled for the tier.
                unsafe { peak::peak::<vector::$strip, $codes, $activations>(times) }
            }
            Ops {
                tier: $tier,
                gemv,
                tile,
                spread,
                chunks,
                chunk_tile,
                chunk_tokens: $chunk_largest,
                chunk_width: 4 * <vector::$chunk_tile as vector::Vector>::LANES,
                digits,
                digit_tile,
                digit_width: 4 * <vector::$digits as vector::Vector>::LANES,
                row,
                strip,
                peak,
                peak_macs: peak::macs::<vector::$strip, $codes, $activations>(),
                tiles: &[$($nt),+],
                best: $best,
            }
        };
    };
}

ops!(
    AVX2, Tier::Avx2, "avx2", strips: Avx2, chunks: Avx2, chunk_tiles: Avx2 [2 3 4 5 6 7 8] to 8, digits: Avx2,
    gemv_registers: 4, tile_registers: 2,
    tiles: [1 2 4], peak: 2 x 4, best: [
        Best { digits: 11, ..Best::new(Algorithm::Lookup256, 13, 256, 0) },
        Best { nibbles: [3, 3], digits: 5, rows: 31, ..Best::new(Algorithm::Lookup256, 16, 256, 0) }
    ],
    to_tm2: crate::tier::triples::to_tm2::<nibbles::Avx2>
);
ops!(
    AVXVNNI, Tier::AvxVnni, "avx2,avxvnni", strips: AvxVnni, chunks: AvxVnni, chunk_tiles: AvxVnni [2 3 4 5] to 5, digits: AvxVnni, gemv_registers: 4,
    tile_registers: 2, tiles: [1 2 3 4], peak: 6 x 2,
    best: [
        Best::new(Algorithm::Lookup256, 32, 512, 0),
        Best { nibbles: [2, 2], rows: 31, ..Best::new(Algorithm::Lookup256, 32, 512, 0) }
    ],
    to_tm2: crate::tier::triples::to_tm2::<nibbles::Avx2>
);
ops!(
    AVX512, Tier::Avx512, "avx512f,avx512bw", strips: Avx512, chunks: Avx2, chunk_tiles: Avx512 [2 3 4 5 6] to 6, digits: Avx2, gemv_registers: 2,
    tile_registers: 2, tiles: [1 2 3 4 5 6], peak: 3 x 4,
    best: [
        Best { nibbles: [4, 4], digits: 6, ..Best::new(Algorithm::Lookup512, 12, 256, 127) },
        Best { nibbles: [2, 2], digits: 5, rows: 31, ..Best::new(Algorithm::Lookup256, 32, 256, 15) }
    ],
    to_tm2: triples::to_tm2
);
ops!(
    AVX512VNNI, Tier::Avx512Vnni, "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx512vbmi2",
    strips: Vnni512, chunks: Vnni256, chunk_tiles: Vnni512 [2 3 4 5 6 7 8 9 10 11 12] to 12, digits: Vnni512, gemv_registers: 2, tile_registers: 2,
    tiles: [1 2 3 4 5 6 7 8 9 10 11 12], peak: 3 x 4,
    best: [
        Best { nibbles: [3, 4], chunks: 17, ..Best::new(Algorithm::Mixed, 16, 512, 31) },
        Best { nibbles: [2, 2], spread_from: 64, digits: 12, rows: 20, ..Best::new(Algorithm::Mixed, LookupFrom::NEVER, 512, 4) }
    ],
    to_tm2: triples::to_tm2
);

/// All tiers, lowest first.
static TIERS: [&Ops; 4] = [&AVX2, &AVXVNNI, &AVX512, &AVX512VNNI];

/// From where on each tier uses tables by default.
pub(crate) fn lookups() -> impl Iterator<Item = (Tier, LookupFrom)> {
    TIERS.into_iter().map(|ops| (ops.tier, ops.best().lookup_from))
}

/// The tier whose instructions a tier's tables are looked up with.
pub(crate) fn tables_of(tier: Tier) -> Tier {
    let best = TIERS.into_iter().find(|ops| ops.tier == tier).map(|ops| ops.best().lookup);
    match best {
        Some(Algorithm::Lookup256) => Tier::Avx2,
        Some(Algorithm::Lookup512) => Tier::Avx512,
        _ => tier,
    }
}

impl Ops {
    /// What is fastest on this CPU.
    fn best(&self) -> &Best {
        &self.best[usize::from(is_intel())]
    }
}

/// The multiply loop of a tier.
pub(crate) struct Peak(&'static Ops);

impl Peak {
    /// Multiply-adds of one time.
    pub(crate) fn macs(&self) -> f64 {
        self.0.peak_macs
    }

    /// Runs the loop.
    pub(crate) fn run(&self, times: usize) {
        // SAFETY: `peak`, which alone makes this value, has seen the tier.
        unsafe { (self.0.peak)(times) }
    }
}

/// The multiply loop of a tier, if this CPU has it.
pub(crate) fn peak(tier: Tier) -> Option<Peak> {
    let ops = TIERS.into_iter().find(|ops| ops.tier == tier)?;
    tier.is_available().then_some(Peak(ops))
}

/// Any layout on one tier.
struct X86 {
    layout: &'static dyn Layout,
    ops: &'static Ops,
}

/// The kernels of a layout, lowest tier first, each if this CPU has the tier.
pub(crate) fn kernels(layout: &'static dyn Layout) -> impl Iterator<Item = (Tier, Option<Box<dyn Kernel>>)> {
    TIERS.into_iter().map(move |ops| {
        let kernel = ops.tier.is_available().then(|| Box::new(X86 { layout, ops }) as Box<dyn Kernel>);
        (ops.tier, kernel)
    })
}

impl Sealed for X86 {}

impl Kernel for X86 {
    fn layout(&self) -> &'static dyn Layout {
        self.layout
    }

    fn tier(&self) -> Tier {
        self.ops.tier
    }

    fn row_step(&self) -> usize {
        ROWS
    }

    fn way(&self) -> (Way, Tier) {
        let own = self.ops.tier;
        match self.choose(GROUP, 1, ROWS) {
            // On AVX-512 without VNNI as on AVX2: rows end too soon for wider vectors to pay.
            Algorithm::Chunks(_) | Algorithm::Digits if own == Tier::Avx512 => (Way::Direct, Tier::Avx2),
            Algorithm::Chunks(_) | Algorithm::Digits => (Way::Direct, own),
            Algorithm::Triples => (Way::Lookup, own),
            Algorithm::Strips if self.layout.name() == TM2.name() => (Way::Direct, own),
            Algorithm::Strips | Algorithm::Spread => (Way::Strips, own),
            Algorithm::Rows => (Way::Rows, own),
            Algorithm::Nibbles => (Way::Lookup, Tier::Avx2),
            // Where a tuning asks for tables that early.
            Algorithm::Lookup256 => (Way::Strips, Tier::Avx2),
            Algorithm::Lookup512 => (Way::Strips, Tier::Avx512),
            Algorithm::Mixed => (Way::Strips, own),
        }
    }

    fn tokens_each(&self) -> Option<usize> {
        // Each task decodes the weights: for twice as many as tables or spread codes pay for, that is little.
        Some(self.lookup_from().tokens.min(self.ops.best().spread_from).saturating_mul(2))
    }

    fn run(
        &self,
        weights: &Packed,
        x: &Activations,
        tokens: Range<usize>,
        rows: Range<usize>,
        sink: &mut dyn FnMut(usize, usize, &[i32]),
    ) {
        check_call(self, weights, x, &tokens, &rows);
        let algorithm = self.choose(weights.cols(), tokens.len(), rows.len());
        // SAFETY: `kernels` has seen the tier, and `choose` names ways of it.
        unsafe { compute(algorithm, self.ops, weights, x, tokens, rows, sink) }
    }
}

/// Computes a call that passed [`check_call`] in some way.
///
/// # Safety
/// The CPU must have the tier of `ops`, and that must include what the algorithm needs: AVX2 for nibbles and
/// `Lookup256`, AVX-512 for triples and `Lookup512`, AVX-512 VNNI for `Mixed`.
unsafe fn compute(
    algorithm: Algorithm,
    ops: &'static Ops,
    weights: &Packed,
    x: &Activations,
    tokens: Range<usize>,
    rows: Range<usize>,
    sink: &mut dyn FnMut(usize, usize, &[i32]),
) {
    // SAFETY: the tier is the caller's promise.
    let call = unsafe { Call::new(ops, weights, x, tokens, rows) };
    SCRATCH.with_borrow_mut(|Scratch { space, strips, padded, nibbles, triples, quads, words, mixed }| {
        match algorithm {
            Algorithm::Chunks(chunks) => call.by_chunks(chunks, padded, sink),
            Algorithm::Digits => call.by_digits(padded, sink),
            // SAFETY: the caller promises the algorithm's tier.
            Algorithm::Triples => unsafe { call.by_triples(triples, sink) },
            // SAFETY: the caller promises the algorithm's tier.
            Algorithm::Nibbles => unsafe { call.by_nibbles(nibbles, sink) },
            Algorithm::Rows => call.by_rows(padded, sink),
            Algorithm::Strips => call.by_strips(space, sink),
            Algorithm::Spread => call.by_spread(space, strips, sink),
            // SAFETY: the caller promises the algorithm's tier.
            Algorithm::Lookup256 => unsafe { call.by_quads(quads, space, strips, sink) },
            // SAFETY: the caller promises the algorithm's tier.
            Algorithm::Lookup512 => unsafe { call.by_words(words, space, sink) },
            // SAFETY: the caller promises the algorithm's tier.
            Algorithm::Mixed => unsafe { call.by_words(mixed, space, sink) },
        }
    })
}

/// The most tokens that are faster otherwise than with strips, which have to be made first: straight from chunks or
/// digits, and by rows a few at a time. For what differs by maker see [`Best`].
mod most {
    pub(super) const RUNS: usize = 32;
    pub(super) const ROWS: usize = 31;
}

/// How a call is computed.
#[derive(Debug, Clone, Copy)]
enum Algorithm {
    Chunks(Chunks),
    Digits,
    Triples,
    Nibbles,
    Rows,
    Strips,
    Spread,
    Lookup256,
    Lookup512,
    Mixed,
}

impl X86 {
    /// From where on tables are used.
    fn lookup_from(&self) -> LookupFrom {
        tuning::lookup_of(self.ops.tier, self.ops.best().lookup_from)
    }

    /// The fastest for so many tokens and rows.
    fn choose(&self, cols: usize, tokens: usize, rows: usize) -> Algorithm {
        let best = self.ops.best();
        if nibbles::suit(self.layout, tokens, best.nibbles) {
            return Algorithm::Nibbles;
        }
        if digits::suit(self.layout) && tokens <= best.digits {
            return Algorithm::Digits;
        }
        let source = Source::of(self.layout, cols);
        match source {
            Source::Triples if tokens <= best.triples => return Algorithm::Triples,
            Source::Rows if tokens <= best.rows => return Algorithm::Rows,
            _ => {}
        }
        let least = self.lookup_from();
        if tokens >= least.tokens && rows >= least.rows {
            return best.lookup;
        }
        match source {
            Source::Chunks(chunks) if tokens <= best.chunks => Algorithm::Chunks(chunks),
            _ if tokens >= best.spread_from => Algorithm::Spread,
            _ => Algorithm::Strips,
        }
    }
}

/// What calls need besides their arguments; kept so that they do not allocate.
#[derive(Default)]
struct Scratch {
    space: Space,
    /// Strips.
    strips: Array<u8>,
    /// Tokens in another order, or tokens or rows of weights with more columns behind the last.
    padded: Array<i8>,
    nibbles: nibbles::Scratch,
    triples: triples::Scratch,
    quads: lookup256::Quads,
    words: lookup512::Words<false>,
    mixed: lookup512::Words<true>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Trits, kernel, layout};

    ops!(
        EVEX, Tier::AvxVnni, "avx2,avx512vl,avx512vnni", strips: Vnni256, chunks: Vnni256, chunk_tiles: Vnni256 [2 3 4 5] to 5,
        digits: Vnni256, gemv_registers: 4, tile_registers: 2, tiles: [1 2 3 4], peak: 6 x 2, best: AVXVNNI.best,
        to_tm2: crate::tier::triples::to_tm2::<nibbles::Avx2>
    );

    /// Which way is fastest depends on the CPU's maker, so others choose only some: here all are asked.
    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn all_ways_to_multiply_many_tokens_agree() {
        use Algorithm::*;
        let mut count = 0;
        // CPUs with AVX-VNNI are few; those with the same instruction in its other encoding stand in for them.
        let evex = Tier::Avx512Vnni.is_available().then_some(&EVEX);
        for (rows, cols, tokens) in [
            (32, 128, 64),
            (33, 130, 67),
            (100, 1280, 33),
            (40, 6912, 30),
            (33, 1030, 137),
            (64, 1280, 1),
            (33, 768, 5),
            (96, 2560, 11),
        ] {
            let mut x = Activations::new();
            let trit = |i: usize| ((i.wrapping_mul(0x9e37_79b9) >> 16) % 3) as i8 - 1;
            let random = |i: usize| (i.wrapping_mul(0x85eb_ca6b) >> 13) as i8;
            // Random ones, and those that make sums of one sign largest.
            for (weight, value) in [
                (trit as fn(usize) -> i8, random as fn(usize) -> i8),
                (trit, |i| [127, -128][i % 2]),
                (|_| 1, |_| -128),
                (|_| -1, |_| -128),
                (|_| 1, |_| 127),
            ] {
                let trits = Trits::new(rows, cols, (0..rows * cols).map(weight).collect()).unwrap();
                x.set_i8(tokens, cols, &(0..tokens * cols).map(value).collect::<Vec<_>>());
                let mut expected = None;
                for packed in layout::ALL.iter().filter_map(|&layout| Packed::pack(layout, &trits).ok()) {
                    let mut out = vec![0; tokens * rows];
                    let expected = expected.get_or_insert_with(|| {
                        let scalar = kernel::find(packed.layout(), Tier::Scalar).unwrap();
                        scalar.matmul(&packed, &x, 0..rows, &mut out);
                        out.clone()
                    });
                    let mut ways = vec![
                        (Strips, Tier::Avx2),
                        (Spread, Tier::Avx2),
                        (Lookup256, Tier::Avx2),
                        (Lookup512, Tier::Avx512),
                        (Mixed, Tier::Avx512Vnni),
                    ];
                    if tokens <= most::RUNS {
                        let digits = digits::suit(packed.layout()).then_some(Digits);
                        let chunks = match Source::of(packed.layout(), cols) {
                            Source::Chunks(chunks) => Some(Chunks(chunks)),
                            _ => None,
                        };
                        ways.extend(
                            digits.into_iter().chain(chunks).chain([Rows]).map(|way| (way, Tier::Avx2)),
                        );
                    }
                    let available = TIERS.into_iter().filter(|ops| ops.tier.is_available());
                    for ops in available.chain(evex) {
                        for &(algorithm, least) in &ways {
                            if ops.tier < least {
                                continue;
                            }
                            out.fill(i32::MIN);
                            let sink = &mut |t: usize, row, sums: &[i32]| {
                                out[t * rows + row..][..sums.len()].copy_from_slice(sums);
                            };
                            // SAFETY: the CPU has both tiers, see above.
                            unsafe { compute(algorithm, ops, &packed, &x, 0..tokens, 0..rows, sink) };
                            let name = packed.layout().name();
                            assert!(out == *expected, "{name}/{} by {algorithm:?}: {rows}x{cols}", ops.tier);
                            count += 1;
                        }
                    }
                }
            }
        }
        println!("{count} products agree");
    }
}
