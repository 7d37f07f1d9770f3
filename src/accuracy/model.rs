//! What a language model is to this module: logits of a sequence.

use crate::error::Result;
use crate::model::{Logits, Model};

/// Logits of some positions of a sequence.
pub struct Rows<'a> {
    /// Index of the first position in the sequence.
    pub first: usize,
    /// Length of one position's logits.
    pub vocab: usize,
    /// The logits, `[positions, vocab]`.
    pub logits: &'a [f32],
}

/// Receives logits, piece by piece in the order of positions.
pub type Sink<'a> = dyn FnMut(Rows) -> Result<()> + 'a;

/// Anything that gives logits for a sequence of tokens.
pub trait LanguageModel {
    /// Runs `ids` from an empty context and hands the logits of the positions `from..ids.len()` to
    /// `sink`, in order, in as many pieces as suits the engine.
    ///
    /// # Errors
    /// If an id is not in the vocabulary, the context is too short, or `sink` fails.
    fn logits(&mut self, ids: &[u32], from: usize, sink: &mut Sink) -> Result<()>;

    /// As [`logits`](Self::logits) for several sequences, each with the position from which it is
    /// wanted; `sink` is told which one rows belong to. What they begin with alike may be run once.
    ///
    /// # Errors
    /// As there.
    fn logits_of(
        &mut self,
        sequences: &[(&[u32], usize)],
        sink: &mut dyn FnMut(usize, Rows) -> Result<()>,
    ) -> Result<()> {
        for (i, (ids, from)) in sequences.iter().enumerate() {
            self.logits(ids, *from, &mut |rows| sink(i, rows))?;
        }
        Ok(())
    }
}

/// Tokens a batch: enough to fill the matrix product, few enough that the logits of a vocabulary of
/// 128 k stay at 131 MB.
const BATCH: usize = 256;

impl LanguageModel for Model {
    fn logits(&mut self, ids: &[u32], from: usize, sink: &mut Sink) -> Result<()> {
        self.logits_of(&[(ids, from)], &mut |_, rows| sink(rows))
    }

    fn logits_of(
        &mut self,
        sequences: &[(&[u32], usize)],
        sink: &mut dyn FnMut(usize, Rows) -> Result<()>,
    ) -> Result<()> {
        let vocab = self.config().vocab;
        // What all share and nobody asks the logits of.
        let first = sequences.first().map_or(&[][..], |s| s.0);
        let shared = sequences.iter().fold(first.len(), |shared, (ids, from)| {
            let alike = ids.iter().zip(first).take_while(|(a, b)| a == b).count();
            shared.min(alike).min(*from)
        });
        let mut cache = self.new_cache(sequences.iter().map(|s| s.0.len()).max().unwrap_or(0));
        for batch in first[..shared].chunks(BATCH) {
            self.forward(&mut cache, batch, Logits::None)?;
        }
        for (index, (ids, from)) in sequences.iter().enumerate() {
            cache.truncate(shared);
            for (i, batch) in ids[shared..].chunks(BATCH).enumerate() {
                let start = shared + i * BATCH;
                if start + batch.len() <= *from {
                    self.forward(&mut cache, batch, Logits::None)?;
                } else {
                    let skip = from.saturating_sub(start);
                    let logits = self.forward(&mut cache, batch, Logits::From(skip))?;
                    sink(index, Rows { first: start + skip, vocab, logits })?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(feature = "reference")]
impl LanguageModel for crate::reference::Reference {
    fn logits(&mut self, ids: &[u32], from: usize, sink: &mut Sink) -> Result<()> {
        let all = crate::reference::Reference::logits(self, ids)?;
        let vocab = all.len() / ids.len();
        sink(Rows { first: from, vocab, logits: &all[from * vocab..] })
    }
}
