//! Continuing a text.

use super::sample::{Sampler, Sampling};
use super::text::Text;
use super::{Logits, Model};
use crate::error::{Error, Result};
use serde::Serialize;
use std::time::{Duration, Instant};

/// A continued text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generated {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// New tokens, without the one that ends the text.
    pub ids: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Why there are no more.
    pub stopped: Stopped,
    /// Time from the start to the first new token, seconds.
    pub prompt_seconds: f64,
    /// Time for all later tokens, the one that ends the text included, from the logits to the text that is shown;
    /// seconds.
    pub decode_seconds: f64,
}

/// Why a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// The model said so.
    EndOfText,
    /// There are as many tokens as were asked for.
    Length,
    /// The model was made for no more positions.
    Context,
}

impl Generated {
    /// Tokens a second after the first one, of this one run; `None` for fewer than two tokens.
    pub fn decode_speed(&self) -> Option<f64> {
        let tokens = self.ids.len() + usize::from(self.stopped == Stopped::EndOfText);
        let steps = tokens.checked_sub(1).filter(|n| *n > 0)?;
        Some(steps as f64 / self.decode_seconds)
    }
}

/// Continues `prompt` by up to `count` tokens and hands the text to `show` as it comes.
///
/// # Errors
/// If the prompt is empty or longer than the model's context, or `show` fails.
pub fn generate(
    model: &mut Model,
    text: &Text,
    prompt: &[u32],
    count: usize,
    sampling: Sampling,
    mut show: impl FnMut(&str) -> Result<()>,
) -> Result<Generated> {
    if prompt.is_empty() {
        return Err(Error::Usage("the prompt has no tokens: give some text to continue".into()));
    }
    let context = model.config().context;
    let mut cache = model.new_cache(context.min(prompt.len().saturating_add(count)));
    let mut sampler = Sampler::new(sampling);
    let mut stream = text.stream();
    let (mut ids, mut said) = (Vec::new(), String::new());
    let start = Instant::now();
    let mut first = Duration::ZERO;
    let mut input = prompt.to_vec();
    let stopped = loop {
        if ids.len() == count {
            break Stopped::Length;
        }
        if !ids.is_empty() && cache.len() == context {
            break Stopped::Context;
        }
        let next = sampler.next(model.forward(&mut cache, &input, Logits::Last)?);
        if first.is_zero() {
            first = start.elapsed();
        }
        if model.config().eos.contains(&next) {
            break Stopped::EndOfText;
        }
        ids.push(next);
        let part = stream.push(next)?;
        show(&part)?;
        said.push_str(&part);
        input.clear();
        input.push(next);
    };
    let rest = stream.finish()?;
    show(&rest)?;
    said.push_str(&rest);
    Ok(Generated {
        prompt_tokens: prompt.len(),
        ids,
        text: said,
        stopped,
        prompt_seconds: first.as_secs_f64(),
        decode_seconds: (start.elapsed() - first).as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_that_ends_a_text_was_decoded_too() {
        let speed = |tokens, stopped| {
            let (prompt_tokens, ids, text) = (1, vec![0; tokens], String::new());
            Generated { prompt_tokens, ids, text, stopped, prompt_seconds: 1.0, decode_seconds: 2.0 }
                .decode_speed()
        };
        assert_eq!([1, 5].map(|tokens| speed(tokens, Stopped::Length)), [None, Some(2.0)]);
        assert_eq!([0, 1, 5].map(|tokens| speed(tokens, Stopped::EndOfText)), [None, Some(0.5), Some(2.5)]);
    }
}
