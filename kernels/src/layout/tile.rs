//! The tiles of `tl1` and `tl2`: these layouts depend on three numbers that no file states.
//!
//! bitnet.cpp generates its kernels, and with them the order of the bytes, for the matrix shapes of
//! one model at a time. [`tl1`](super::TL1) and [`tl2`](super::TL2) take the tile that it publishes
//! for a shape ([`PUBLISHED`]), else one derived from the shape; `tl1_BM64_BK64_bm32` and the like
//! name a tile explicitly, through [`by_name`](super::by_name).

use std::fmt;
use std::sync::Mutex;

/// How `tl1` or `tl2` cuts a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// BM, rows of the outer tile.
    pub rows: usize,
    /// BK, columns of the outer tile.
    pub cols: usize,
    /// bm, rows of the inner tile.
    pub inner_rows: usize,
}

/// `BM…_BK…_bm…`, as in the names of layouts.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BM{}_BK{}_bm{}", self.rows, self.cols, self.inner_rows)
    }
}

impl Tile {
    /// The tile of BM, BK and bm.
    const fn new(rows: usize, cols: usize, inner_rows: usize) -> Self {
        Self { rows, cols, inner_rows }
    }

    /// Reads what [`Display`](fmt::Display) writes.
    fn parse(s: &str) -> Option<Self> {
        let (rows, rest) = s.strip_prefix("BM")?.split_once("_BK")?;
        let (cols, inner_rows) = rest.split_once("_bm")?;
        let number = |s: &str| s.parse().ok().filter(|n| (1..=1 << 16).contains(n));
        let tile = Self { rows: number(rows)?, cols: number(cols)?, inner_rows: number(inner_rows)? };
        // One name for each tile.
        (tile.to_string() == s).then_some(tile)
    }
}

/// Rows, columns, and the tiles that bitnet.cpp publishes for this shape, for `tl1` and for `tl2`.
///
/// They are those with which its `setup_env.py` calls `codegen_tl1.py` and `codegen_tl2.py`, so those
/// of its kernels and of the files that its converter makes beside them. Its folder `preset_kernels`
/// agrees, save for `tl1` of Llama3-8B, where it has other tiles that no build uses; its `tl2` kernels
/// of the first release look for the scale in another place, so those that are generated must be used.
pub const PUBLISHED: [(usize, usize, Tile, Tile); 10] = [
    // bitnet_b1_58-large
    (1536, 4096, Tile::new(256, 128, 32), Tile::new(256, 96, 32)),
    (1536, 1536, Tile::new(128, 64, 64), Tile::new(128, 192, 32)),
    (4096, 1536, Tile::new(256, 128, 32), Tile::new(256, 96, 32)),
    // bitnet_b1_58-3B
    (3200, 8640, Tile::new(160, 64, 32), Tile::new(160, 96, 32)),
    (3200, 3200, Tile::new(320, 128, 64), Tile::new(320, 96, 32)),
    (8640, 3200, Tile::new(320, 64, 32), Tile::new(320, 96, 32)),
    // Llama3-8B-1.58
    (14336, 4096, Tile::new(256, 128, 32), Tile::new(256, 96, 32)),
    (4096, 14336, Tile::new(128, 64, 64), Tile::new(128, 96, 32)),
    (1024, 4096, Tile::new(256, 128, 32), Tile::new(256, 96, 32)),
    (4096, 4096, Tile::new(128, 64, 64), Tile::new(128, 96, 32)),
];

/// The largest of `sizes` (largest first) that divides `n`, else the smallest, which then does not.
pub(super) fn largest(sizes: &[usize], n: usize) -> usize {
    sizes.iter().copied().find(|s| n.is_multiple_of(*s)).unwrap_or(sizes[sizes.len() - 1])
}

/// Layouts of one kind with explicit tiles, made when first asked for and kept for good.
pub(super) struct Made<L: 'static>(pub(super) Mutex<Vec<(Tile, &'static L)>>);

impl<L> Made<L> {
    /// The layout of a name like `prefix` + `BM64_BK64_bm32`, if its tile fits.
    pub(super) fn by_name(
        &self,
        name: &str,
        prefix: &str,
        fits: impl FnOnce(Tile) -> bool,
        make: impl FnOnce(&'static str, Tile) -> L,
    ) -> Option<&'static L> {
        let tile = Tile::parse(name.strip_prefix(prefix)?)?;
        let mut made = self.0.lock().expect("no panic while it is held");
        if let Some((_, layout)) = made.iter().find(|(t, _)| *t == tile) {
            return Some(layout);
        }
        if !fits(tile) {
            return None;
        }
        let layout: &'static L = Box::leak(Box::new(make(name.to_owned().leak(), tile)));
        made.push((tile, layout));
        Some(layout)
    }
}
