//! Many tokens by table lookup: what the two ways of it have in common.

/// Multiplies a tile of tokens by rows that were decoded before; kept so that calls do not allocate.
pub(super) trait Lookup: Default {
    /// Tokens that are multiplied together at most.
    const TOKENS: usize;
    /// Tokens are taken in multiples of this; what is left over is faster without tables.
    const STEP: usize;

    /// Makes room for so many rows and columns.
    fn resize(&mut self, rows: usize, cols: usize);

    /// Takes strip number `at` of the rows, whose planes start at these columns of a group, lowest
    /// bits first: ascending or descending.
    ///
    /// # Safety
    /// The CPU must have the implementing type's tier.
    unsafe fn decode(&mut self, at: usize, strip: &[u8], planes: [usize; 4]);

    /// Takes the activations of token `t`: whole groups, zeros behind the last column; `planes` as for
    /// all strips.
    ///
    /// # Safety
    /// As for [`decode`](Self::decode).
    unsafe fn set_token(&mut self, t: usize, x: &[i8], planes: [usize; 4]);

    /// Multiplies the first `tokens` tokens by the rows; `planes` as for all strips.
    ///
    /// # Safety
    /// As for [`decode`](Self::decode).
    unsafe fn multiply(&mut self, tokens: usize, planes: [usize; 4]);

    /// Hands out the sums of the first `tokens` tokens in runs of consecutive rows: token, first row, sums.
    /// Runs may reach behind the last row.
    ///
    /// # Safety
    /// As for [`decode`](Self::decode).
    unsafe fn each_sum(&self, tokens: usize, f: impl FnMut(usize, usize, &[i32]));
}
