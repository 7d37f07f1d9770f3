//! Texts: where they come from, their tokens, and which bytes each token stands for.

use crate::error::{Error, Result};
use crate::files;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// A tokenised text.
#[derive(Debug, Clone)]
pub struct Text {
    /// Its name in results.
    pub name: String,
    /// Its tokens, with BOS in front where the model has one.
    pub ids: Vec<u32>,
    /// The token put in front.
    pub bos: Option<u32>,
    source: String,
    /// For each of `ids`: where in `source` what it and its predecessors stand for ends.
    ends: Vec<usize>,
}

impl Text {
    /// Tokenises `source` without special tokens and puts `bos` in front.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn tokenise(name: &str, source: String, tokenizer: &Tokenizer, bos: Option<u32>) -> Result<Self> {
        let encoding = tokenizer
            .encode(source.as_str(), false)
            .map_err(|e| Error::input(name, format!("the text cannot be tokenised: {e}")))?;
        // Tokens that are part of one character share its offsets, and some tokenizers leave white
        // space out of them; the running maximum gives every byte to exactly one token.
        let mut end = 0;
        let mut ends: Vec<usize> = bos.iter().map(|_| 0).collect();
        ends.extend(encoding.get_offsets().iter().map(|&(_, e)| {
            end = end.max(e);
            end
        }));
        let ids = bos.into_iter().chain(encoding.get_ids().iter().copied()).collect();
        Ok(Self { name: name.into(), ids, bos, source, ends })
    }

    /// A text of which only the tokens are known; it has no bytes.
    #[cfg(test)]
    pub(super) fn from_ids(name: &str, ids: Vec<u32>, bos: Option<u32>) -> Self {
        let ids: Vec<u32> = bos.into_iter().chain(ids).collect();
        Self { name: name.into(), ends: vec![0; ids.len()], ids, bos, source: String::new() }
    }

    /// The text itself.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Bytes of UTF-8 that the tokens `range` of [`Text::ids`] stand for.
    pub fn bytes(&self, range: std::ops::Range<usize>) -> u64 {
        let before = |i: usize| if i == 0 { 0 } else { self.ends[i - 1] };
        (before(range.end) - before(range.start)) as u64
    }

    /// The text before token `index`, at most `chars` characters of it, and that token's own.
    pub fn excerpt(&self, index: usize, chars: usize) -> (String, String) {
        let before = if index == 0 { 0 } else { self.ends[index - 1] };
        let context: Vec<char> = self.source[..before].chars().rev().take(chars).collect();
        (context.into_iter().rev().collect(), self.source[before..self.ends[index]].to_owned())
    }
}

/// Endings of the files that are texts.
const ENDINGS: [&str; 3] = ["txt", "raw", "md"];

/// Files below a directory in the order of their paths: those that are texts, by their ending, and
/// those that are not.
///
/// # Errors
/// If a directory cannot be read.
pub fn text_files(directory: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut texts, mut others) = (Vec::new(), Vec::new());
    let mut open = vec![directory.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
            let entry = entry.map_err(|e| Error::io(&folder, e))?;
            let path = entry.path();
            // Links to folders could lead in circles, and are not followed.
            if entry.file_type().map_err(|e| Error::io(&path, e))?.is_dir() {
                open.push(path);
            } else if path.is_file()
                && path.extension().is_some_and(|e| ENDINGS.iter().any(|known| e == *known))
            {
                texts.push(path);
            } else {
                others.push(path);
            }
        }
    }
    texts.sort();
    others.sort();
    Ok((texts, others))
}

/// Reads texts and joins them: a file, `-` for standard input, or a directory, whose
/// [texts](text_files) are taken.
///
/// # Errors
/// If one cannot be read, is not UTF-8, or nothing was found.
pub fn read_text(sources: &[PathBuf]) -> Result<String> {
    let mut text = String::new();
    for source in sources {
        if source.as_os_str() == "-" {
            read_from(Path::new("standard input"), std::io::stdin(), &mut text)?;
        } else if source.is_dir() {
            let (files, _) = text_files(source)?;
            if files.is_empty() {
                return Err(Error::input(
                    source,
                    "expected .txt, .raw or .md files in this directory, found none",
                ));
            }
            for file in files {
                read_file(&file, &mut text)?;
            }
        } else {
            read_file(source, &mut text)?;
        }
    }
    if text.is_empty() {
        Err(Error::Usage("the text is empty; name a file, a directory, or -".into()))
    } else {
        Ok(text)
    }
}

/// Most bytes of a text: a device never ends.
pub(super) const MOST: u64 = 1 << 30;

/// Appends a file of text.
///
/// # Errors
/// If it cannot be read, is longer than a text can be, or is not UTF-8.
pub(super) fn read_file(path: &Path, text: &mut String) -> Result<()> {
    read_from(path, fs::File::open(path).map_err(|e| Error::io(path, e))?, text)
}

/// As [`read_file`], from what was opened; `path` is for messages.
fn read_from(path: &Path, source: impl Read, text: &mut String) -> Result<()> {
    text.push_str(&files::text(path, files::read_from(path, source, MOST)?)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accuracy::{Convention, Window};
    use crate::checkpoint::Checkpoint;

    fn demo_tokenizer() -> Tokenizer {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/bench-suites/demo/tokenizer.json");
        Tokenizer::from_file(path).unwrap()
    }

    #[test]
    fn every_byte_belongs_to_one_token() {
        let source = "Ein Öl, für 3 €\n\n  und 中文.";
        let text = Text::tokenise("t", source.into(), &demo_tokenizer(), Some(0)).unwrap();
        assert_eq!(text.ids[0], 0);
        assert!(text.ids[1..].iter().all(|&id| id != 0), "only one BOS");
        assert_eq!(text.bytes(0..text.ids.len()), source.len() as u64);
        let each: u64 = (0..text.ids.len()).map(|i| text.bytes(i..i + 1)).sum();
        assert_eq!(each, source.len() as u64);
        let joined: String = (0..text.ids.len()).map(|i| text.excerpt(i, 0).1).collect();
        assert_eq!(joined, source);
        assert_eq!(text.excerpt(text.ids.len() - 1, 4).0, "d 中文");
    }

    #[test]
    fn the_demo_text_has_the_tokens_that_its_reference_figures_state() {
        let text =
            Text::tokenise("test", crate::checkpoint::demo::TEXT.into(), &demo_tokenizer(), Some(0)).unwrap();
        assert_eq!(text.ids.len(), 73_420 + 1);
        assert_eq!(text.ids[1..9], [39, 70, 1067, 14, 36, 3752, 269, 261]);
        assert_eq!(text.bytes(0..text.ids.len()), 321_477);
        let windows = Convention::LlamaCpp { n_ctx: 256 }.windows(&text).unwrap();
        assert_eq!((windows.len(), windows.iter().map(Window::scored).sum::<usize>()), (286, 36_322));
        let windows = Convention::Hf { len: 256, stride: 256 }.windows(&text).unwrap();
        assert_eq!((windows.len(), windows.iter().map(Window::scored).sum::<usize>()), (286, 72_930));
    }

    #[test]
    fn names_of_special_tokens_are_text_to_llama_cpp_and_tokens_to_transformers() {
        let demo = Checkpoint::open("demo").unwrap();
        let ids = |convention: Convention| {
            let text = convention.tokenise("t", "one <|end_of_text|> two".into(), &demo).unwrap();
            assert_eq!(text.bytes(0..text.ids.len()), 23);
            text.ids
        };
        assert!(!ids(Convention::LlamaCpp { n_ctx: 8 }).contains(&1));
        assert!(ids(Convention::Hf { len: 8, stride: 8 }).contains(&1));
    }

    #[test]
    fn reads_directories_in_order_and_refuses_other_encodings() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.txt"), "second").unwrap();
        fs::write(dir.path().join("a.txt"), "first ").unwrap();
        fs::write(dir.path().join("c.html"), "not this").unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/wiki.test.raw"), " third").unwrap();
        assert_eq!(read_text(&[dir.path().into()]).unwrap(), "first second third");
        assert_eq!(text_files(dir.path()).unwrap().1, [dir.path().join("c.html")]);
        fs::write(dir.path().join("a.txt"), b"\xff\xfe").unwrap();
        let error = read_text(&[dir.path().into()]).unwrap_err().to_string();
        assert!(error.contains("a.txt") && error.contains("UTF-8"), "{error}");
        assert!(read_text(&[dir.path().join("none")]).is_err());
    }
}
