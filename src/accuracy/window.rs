//! Perplexity conventions: how a text is cut into windows and which tokens are scored.

use super::text::Text;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::model::text::tokenizer_of;
use crate::record::Test;
use std::borrow::Cow;
use std::fmt;

/// How a text is cut into windows and which of their tokens are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convention {
    /// As llama.cpp's `llama-perplexity`: the text's tokens with BOS in front are cut into
    /// windows of `n_ctx`, a remainder is dropped, the first token of each window is replaced by
    /// BOS, and the positions from `n_ctx / 2` on predict their successor.
    LlamaCpp {
        /// Window length in tokens.
        n_ctx: usize,
    },
    /// As scripts around Hugging Face transformers do: the text's tokens with BOS in front are cut
    /// into windows of `len`; BOS stands only before the text. With `stride == len` windows do not
    /// overlap, a remainder is dropped, and every token but a window's first is scored. With a
    /// smaller stride each window scores what the windows before it did not, and the last one ends
    /// with the text.
    Hf {
        /// Window length in tokens.
        len: usize,
        /// Distance of the windows' starts.
        stride: usize,
    },
}

/// One window of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window<'a> {
    /// What the model sees.
    pub ids: Cow<'a, [u32]>,
    /// Index in `ids` of the first token that is scored; all after it are as well. At least 1.
    pub first: usize,
    /// Index of `ids[0]` in the text's tokens with BOS.
    pub start: usize,
}

impl Window<'_> {
    /// Number of tokens scored.
    pub fn scored(&self) -> usize {
        self.ids.len() - self.first
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Convention::LlamaCpp { .. } => write!(f, "llama.cpp"),
            Convention::Hf { len, stride } if len == stride => write!(f, "hf-{len}"),
            Convention::Hf { len, stride } => write!(f, "hf-{len} stride {stride}"),
        }
    }
}

impl Convention {
    /// Reads `llama.cpp` (windows of `n_ctx`) or `hf-N` (windows of N, `stride` apart).
    ///
    /// # Errors
    /// If it is neither, or a length is too small to score anything, or a stride is given where
    /// there is none.
    pub fn parse(name: &str, n_ctx: usize, stride: Option<usize>) -> Result<Self> {
        let convention = match (name, name.strip_prefix("hf-").map(str::parse::<usize>)) {
            ("llama.cpp", _) if stride.is_some() => {
                return Err(Error::Usage(
                    "the convention llama.cpp has no stride; use --convention hf-N with --stride".into(),
                ));
            }
            ("llama.cpp", _) => Convention::LlamaCpp { n_ctx },
            (_, Some(Ok(len))) => Convention::Hf { len, stride: stride.unwrap_or(len) },
            _ => {
                return Err(Error::Usage(format!(
                    "unknown perplexity convention '{name}': expected llama.cpp or hf-N, e.g. hf-2048"
                )));
            }
        };
        match convention {
            Convention::LlamaCpp { n_ctx: n } | Convention::Hf { len: n, .. } if n < 4 => {
                Err(Error::Usage(format!("a window of {n} tokens is too short; at least 4 are needed")))
            }
            Convention::Hf { len, stride } if stride == 0 || stride > len => Err(Error::Usage(format!(
                "a stride of {stride} does not fit windows of {len}: use 1 to {len}"
            ))),
            _ => Ok(convention),
        }
    }

    /// That a model was made for windows as long as these.
    ///
    /// # Errors
    /// If it was not.
    pub fn fits(&self, checkpoint: &Checkpoint) -> Result<()> {
        let (Convention::LlamaCpp { n_ctx: len } | Convention::Hf { len, .. }) = *self;
        if len > checkpoint.config.context {
            return Err(Error::Usage(format!(
                "windows of {len} tokens are too long for {}, which was made for {}: choose a smaller n_ctx, or N of hf-N",
                checkpoint.provenance.name, checkpoint.config.context
            )));
        }
        Ok(())
    }

    /// Tokenises a text for a model. What looks like a special token in the text is plain text to
    /// llama.cpp and that token to transformers.
    ///
    /// # Errors
    /// If windows are longer than what the model was made for, it brings no tokenizer, or that fails.
    pub fn tokenise(&self, name: &str, source: String, checkpoint: &Checkpoint) -> Result<Text> {
        self.fits(checkpoint)?;
        let mut tokenizer = tokenizer_of(checkpoint)?;
        tokenizer.set_encode_special_tokens(matches!(self, Convention::LlamaCpp { .. }));
        Text::tokenise(name, source, &tokenizer, checkpoint.config.bos)
    }

    /// Window length in tokens.
    pub fn n_ctx(&self) -> usize {
        match *self {
            Convention::LlamaCpp { n_ctx } => n_ctx,
            Convention::Hf { len, .. } => len,
        }
    }

    /// The test of a text of that name, cut to its first `limit` windows where there is a limit.
    pub fn test(&self, text: &str, limit: Option<usize>) -> Test {
        let part = match limit {
            Some(1) => ", first window".to_owned(),
            Some(n) => format!(", first {n} windows"),
            None => String::new(),
        };
        Test::Perplexity {
            convention: self.to_string(),
            n_ctx: self.n_ctx() as u32,
            text: format!("{text}{part}"),
        }
    }

    /// What this convention does, in a sentence for a report.
    pub fn describe(&self) -> String {
        match *self {
            Convention::LlamaCpp { n_ctx } => format!(
                "llama.cpp: windows of {n_ctx} tokens, each begun with BOS, predictions from position {} on scored, remainder dropped",
                n_ctx / 2
            ),
            Convention::Hf { len, stride } if len == stride => format!(
                "hf-{len}: non-overlapping windows of {len} tokens, BOS before the text only, every prediction inside a window scored, remainder dropped"
            ),
            Convention::Hf { len, stride } => format!(
                "hf-{len} stride {stride}: windows of {len} tokens every {stride}, BOS before the text only, each token scored once with the longest context at hand"
            ),
        }
    }

    /// Cuts `text` into windows.
    ///
    /// # Errors
    /// If the text is shorter than one window.
    pub fn windows<'a>(&self, text: &'a Text) -> Result<Vec<Window<'a>>> {
        let (ids, n) = (&text.ids, self.n_ctx());
        if ids.len() < n {
            return Err(Error::Usage(format!(
                "text {}: {} tokens (BOS included) are less than one window of {n}; use a longer text or a smaller window",
                text.name,
                ids.len()
            )));
        }
        let whole = ids.chunks_exact(n).enumerate();
        Ok(match *self {
            Convention::LlamaCpp { .. } => whole
                .map(|(i, chunk)| {
                    let mut ids = chunk.to_vec();
                    ids[0] = text.bos.unwrap_or(ids[0]);
                    Window { ids: ids.into(), first: n / 2 + 1, start: i * n }
                })
                .collect(),
            Convention::Hf { len, stride } if len == stride => {
                whole.map(|(i, chunk)| Window { ids: chunk.into(), first: 1, start: i * n }).collect()
            }
            Convention::Hf { len, stride } => {
                let mut windows = Vec::new();
                let (mut start, mut scored_to) = (0, 1);
                while scored_to < ids.len() {
                    let end = (start + len).min(ids.len());
                    windows.push(Window { ids: ids[start..end].into(), first: scored_to - start, start });
                    scored_to = end;
                    start += stride;
                }
                windows
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(n: u32) -> Text {
        Text::from_ids("numbers", (1..n).collect(), Some(0))
    }

    #[test]
    fn llama_cpp_replaces_the_first_token_and_scores_the_second_half() {
        let text = text(19);
        let windows = Convention::LlamaCpp { n_ctx: 8 }.windows(&text).unwrap();
        assert_eq!(windows.len(), 2);
        assert_eq!(windows[1], Window { ids: vec![0, 9, 10, 11, 12, 13, 14, 15].into(), first: 5, start: 8 });
        // Positions 4, 5 and 6 predict 5, 6 and 7.
        assert_eq!(windows[1].scored(), 3);
    }

    #[test]
    fn hf_scores_everything_but_a_windows_first() {
        let text = text(19);
        let windows = Convention::Hf { len: 8, stride: 8 }.windows(&text).unwrap();
        assert_eq!(windows.len(), 2);
        assert_eq!(windows[1], Window { ids: (8..16).collect(), first: 1, start: 8 });
    }

    #[test]
    fn stride_scores_each_token_once() {
        for (n, len, stride) in [(19, 8, 3), (16, 8, 4), (8, 8, 5), (9, 8, 1), (30, 8, 7)] {
            let text = text(n);
            let windows = Convention::Hf { len, stride }.windows(&text).unwrap();
            let scored: Vec<u32> = windows.iter().flat_map(|w| w.ids[w.first..].to_vec()).collect();
            assert_eq!(scored, (1..n).collect::<Vec<_>>(), "{n} {len} {stride}");
            assert!(windows.iter().all(|w| w.first >= 1 && w.ids.len() <= len));
        }
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for (name, n_ctx, stride) in [
            ("wikitext", 512, None),
            ("llama.cpp", 512, Some(3)),
            ("llama.cpp", 2, None),
            ("hf-64", 0, Some(65)),
            ("hf-x", 0, None),
            ("hf-64", 0, Some(0)),
        ] {
            assert!(matches!(Convention::parse(name, n_ctx, stride), Err(Error::Usage(_))), "{name}");
        }
        assert_eq!(Convention::parse("hf-64", 512, None).unwrap(), Convention::Hf { len: 64, stride: 64 });
        assert!(
            Convention::LlamaCpp { n_ctx: 32 }
                .windows(&text(31))
                .unwrap_err()
                .to_string()
                .contains("31 tokens")
        );
    }
}
