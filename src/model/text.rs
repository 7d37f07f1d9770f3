//! Text to tokens and back.

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use tokenizers::Tokenizer;

/// The tokenizer of a checkpoint.
pub struct Text {
    tokenizer: Tokenizer,
    bos: Option<u32>,
    vocab: usize,
}

/// The checkpoint's tokenizer.
///
/// # Errors
/// If it brings none, or one that the `tokenizers` crate cannot read.
pub fn tokenizer_of(checkpoint: &Checkpoint) -> Result<Tokenizer> {
    let name = &checkpoint.provenance.name;
    let json = checkpoint.tokenizer.as_deref().ok_or_else(|| {
        Error::input(name, "no tokenizer found, so text cannot be read or written")
            .hint("put the model's tokenizer.json beside its weights, or name it with --tokenizer PATH where a command has that")
    })?;
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(|e| {
        Error::input(name, format!("its tokenizer.json, or what stands for it, cannot be used: {e}"))
            .hint("take that file again from where the model came from, or name one with --tokenizer PATH")
    })?;
    // How its training cut and filled up texts is no part of what they become.
    tokenizer.with_padding(None).with_truncation(None).map_err(|e| Error::Bug(format!("tokenizer: {e}")))?;
    Ok(tokenizer)
}

impl Text {
    /// Reads the checkpoint's tokenizer.
    ///
    /// # Errors
    /// If it has none or a damaged one.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self> {
        let tokenizer = tokenizer_of(checkpoint)?;
        Ok(Self { tokenizer, bos: checkpoint.config.bos, vocab: checkpoint.config.vocab })
    }

    /// Tokens of a text, with the model's BOS in front where it has one.
    ///
    /// # Errors
    /// If the tokenizer refuses the text or names a token that the model has no embedding for.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode(text, true)
            .map_err(|e| Error::Usage(format!("the tokenizer refuses the text: {e}")))?;
        let mut ids = encoding.get_ids().to_vec();
        if let Some(bos) = self.bos
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocab) {
            return Err(Error::Usage(format!(
                "the tokenizer gives token {id}, but the model's vocabulary ends at {}: they do not belong together",
                self.vocab - 1
            )));
        }
        Ok(ids)
    }

    /// The text of tokens, special ones left out; parts of characters become U+FFFD.
    ///
    /// # Errors
    /// If the tokenizer fails, which is a bug in it.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, true).map_err(|e| Error::Bug(format!("the tokenizer cannot decode: {e}")))
    }

    /// Decodes tokens as they come.
    pub fn stream(&self) -> Stream<'_> {
        Stream { text: self, ids: Vec::new(), shown: 0 }
    }
}

/// Decodes tokens one by one: a character that several tokens make up comes whole, once it is.
pub struct Stream<'a> {
    text: &'a Text,
    /// Some tokens whose text was given out, for context, then the others.
    ids: Vec<u32>,
    /// How many were given out.
    shown: usize,
}

impl Stream<'_> {
    /// Takes the next token and returns what can be shown.
    ///
    /// # Errors
    /// As [`Text::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let (before, all) = self.texts()?;
        // An unfinished character decodes as U+FFFD. No character has more than four bytes, so four
        // tokens that leave one unfinished are no character at all.
        if all.ends_with('\u{fffd}') && self.ids.len() - self.shown < 4 {
            return Ok(String::new());
        }
        let new = all.get(before..).unwrap_or_default().to_owned();
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        Ok(new)
    }

    /// The rest, where the text ends inside a character.
    ///
    /// # Errors
    /// As [`Text::decode`].
    pub fn finish(self) -> Result<String> {
        let (before, all) = self.texts()?;
        Ok(all.get(before..).unwrap_or_default().to_owned())
    }

    /// Length of the text given out, and the whole text. Decoding needs the tokens before, because
    /// some tokenizers drop a space at the start of a text.
    fn texts(&self) -> Result<(usize, String)> {
        Ok((self.text.decode(&self.ids[..self.shown])?.len(), self.text.decode(&self.ids)?))
    }
}
