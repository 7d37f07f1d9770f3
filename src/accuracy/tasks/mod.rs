//! Multiple choice by log-likelihood, with the prompts and the scoring of lm-evaluation-harness.
//!
//! Each choice is appended to its context; the one whose tokens are the likeliest in sum is the
//! answer (`acc`), or the one that is the likeliest for its length in characters (`acc_norm`).

mod formats;

pub use formats::{Format, read, read_binary};

use super::model::LanguageModel;
use super::softmax::nll;
use super::text::{MOST, read_file};
use crate::checkpoint::{Checkpoint, file};
use crate::error::{Error, Result};
use crate::model::text::tokenizer_of;
use crate::record::{Choices, Test};
use crate::words::hex;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Instant;
use tokenizers::Tokenizer;

/// The task built into the program: endings of sentences of the demo's held-out text.
const SOTU: &str = include_str!("../../../bench-suites/tasks/sotu.jsonl");

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Its choices.
    pub choices: Vec<Choice>,
    /// Index of the right one.
    pub gold: usize,
}

/// A choice: the likelihood of `continuation` after `context` decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// What stands before; differs between choices where they fill a gap.
    pub context: String,
    /// What is scored, with the space before it.
    pub continuation: String,
}

/// A set of questions.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name in results.
    pub name: String,
    /// How its questions were written.
    pub format: Format,
    /// They.
    pub questions: Vec<Question>,
}

impl Task {
    /// Name of the task that is built into the program.
    pub const BUILTIN: &str = "sotu";

    /// The built-in task by its name, or a file's; of JSON lines `format` is found out where not given.
    ///
    /// # Errors
    /// If the file cannot be read or holds no questions.
    pub fn open(name: &str, format: Option<Format>) -> Result<Self> {
        let path = Path::new(name);
        if path.is_dir() {
            return Err(Error::Usage(format!(
                "{name} is a directory: name the files of questions in it, e.g. {}",
                path.join("validation.jsonl").display()
            )));
        }
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let own = [("txt", Format::Hellaswag), ("csv", Format::Winogrande), ("bin", Format::Choices)];
        if let Some((_, own)) = own.iter().find(|(e, own)| *e == ending && format.is_some_and(|f| f != *own))
        {
            return Err(Error::Usage(format!(
                "{name}: --task is for JSON lines; files of .{ending} are {}; leave --task out, or rename the file",
                own.name()
            )));
        }
        let (format, questions) = match name {
            Self::BUILTIN if format.is_some() => {
                return Err(Error::Usage(format!("--task is for files of questions; {name} is built in")));
            }
            Self::BUILTIN => read("sotu.jsonl".as_ref(), SOTU, None)?,
            _ if path.extension().is_some_and(|e| e == "bin") => {
                let bytes = file::read(path, MOST)?;
                (Format::Choices, read_binary(path, &bytes)?)
            }
            _ => {
                let mut text = String::new();
                read_file(path, &mut text)?;
                read(path, &text, format)?
            }
        };
        let name = path.file_name().map_or_else(|| name.into(), |n| n.to_string_lossy().into_owned());
        Ok(Self { name, format, questions })
    }

    /// As [`open`](Self::open), each of several.
    ///
    /// # Errors
    /// As there, or if two have one name.
    pub fn open_all(names: &[String], format: Option<Format>) -> Result<Vec<Self>> {
        let mut tasks: Vec<Self> = Vec::new();
        for name in names {
            let task = Self::open(name, format)?;
            if let Some(i) = tasks.iter().position(|other| other.name == task.name) {
                return Err(Error::Usage(format!(
                    "{} and {name} are both called {}, by which results know them; rename one, or name it once",
                    names[i], task.name
                )));
            }
            tasks.push(task);
        }
        Ok(tasks)
    }

    /// What it is in a record.
    pub fn test(&self) -> Test {
        Test::Choices {
            task: self.name.clone(),
            format: self.format.name().into(),
            questions: self.questions.len() as u32,
        }
    }
}

/// Turns choices into tokens for one model.
pub struct Encoder {
    /// Name of the model, for messages.
    pub model: String,
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// Token put in front.
    pub bos: Option<u32>,
    /// Longest sequence; longer ones lose their beginning.
    pub context: usize,
}

impl Encoder {
    /// For a model.
    ///
    /// # Errors
    /// If it brings no tokenizer.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self> {
        let config = &checkpoint.config;
        let model = checkpoint.provenance.name.clone();
        Ok(Self { model, tokenizer: tokenizer_of(checkpoint)?, bos: config.bos, context: config.context })
    }

    /// Tokens of a choice, and how many at the end are scored.
    fn encode(&self, choice: &Choice) -> Result<(Vec<u32>, usize)> {
        let ids = |text: &str| {
            let encoding = self.tokenizer.encode(text, false);
            encoding.map(|e| e.get_ids().to_vec()).map_err(|e| Error::Bug(format!("tokenizer: {e}")))
        };
        // White space at the end of a context belongs to what follows: tokens begin with spaces.
        let context = ids(choice.context.trim_end())?;
        let mut whole: Vec<u32> = self.bos.into_iter().collect();
        whole.extend(ids(&format!("{}{}", choice.context, choice.continuation))?);
        let first = context.len() + usize::from(self.bos.is_some());
        let scored = whole.len().saturating_sub(first.max(1)).min(self.context - 1);
        if scored == 0 {
            return Err(Error::Usage(format!(
                "the choice '{}' has no token of its own",
                choice.continuation
            )));
        }
        Ok((whole.split_off(whole.len().saturating_sub(self.context)), scored))
    }
}

/// A question as a model answered it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// Log-likelihood of each choice, nats.
    pub log_likelihoods: Vec<f64>,
    /// Tokens of each choice that are scored.
    pub tokens: Vec<usize>,
    /// Characters of each choice.
    pub characters: Vec<usize>,
    /// The likeliest choice.
    pub choice: usize,
    /// The likeliest for its length in characters.
    pub choice_norm: usize,
    /// The right one.
    pub gold: usize,
}

/// Asks one question: all choices together, so that what they begin with is read once.
///
/// # Errors
/// If a choice is empty, the model fails, or a likelihood is not finite.
pub fn answer(model: &mut dyn LanguageModel, encoder: &Encoder, question: &Question) -> Result<Answer> {
    let encoded: Vec<_> = question.choices.iter().map(|c| encoder.encode(c)).collect::<Result<_>>()?;
    // The last token has no successor, so its logits are not asked for.
    let sequences: Vec<(&[u32], usize)> =
        encoded.iter().map(|(ids, scored)| (&ids[..ids.len() - 1], ids.len() - 1 - scored)).collect();
    let mut sums = vec![0.0; encoded.len()];
    model.logits_of(&sequences, &mut |i, rows| {
        let targets = &encoded[i].0[rows.first + 1..];
        sums[i] -= rows.logits.chunks_exact(rows.vocab).zip(targets).map(|(l, &t)| nll(l, t)).sum::<f64>();
        Ok(())
    })?;
    if let Some(i) = sums.iter().position(|sum| !sum.is_finite()) {
        let choice = &question.choices[i].continuation;
        return Err(Error::input(
            &encoder.model,
            format!("the likelihood of the choice '{choice}' is not finite"),
        )
        .hint("a scale or a weight is damaged; `tritmark verify` tells which"));
    }
    let characters: Vec<usize> =
        question.choices.iter().map(|c| c.continuation.trim_start().chars().count().max(1)).collect();
    let each: Vec<f64> = sums.iter().zip(&characters).map(|(sum, &n)| sum / n as f64).collect();
    Ok(Answer {
        choice: argmax(&sums),
        choice_norm: argmax(&each),
        log_likelihoods: sums,
        tokens: encoded.iter().map(|e| e.1).collect(),
        characters,
        gold: question.gold,
    })
}

/// Asks every question; `progress` is told how many are done, and the latest answer.
///
/// # Errors
/// If there is no question, a choice is empty, or the model fails.
pub fn evaluate(
    model: &mut dyn LanguageModel,
    encoder: &Encoder,
    questions: &[Question],
    progress: &mut dyn FnMut(usize, &Answer),
) -> Result<Choices> {
    let start = Instant::now();
    if questions.is_empty() {
        return Err(Error::Usage("no question to ask".into()));
    }
    let (mut right, mut right_norm, mut chance) = (0usize, 0usize, 0.0);
    let normalised =
        questions.iter().any(|q| q.choices[1..].iter().any(|c| c.context == q.choices[0].context));
    for (done, question) in questions.iter().enumerate() {
        let answer = answer(model, encoder, question)?;
        right += usize::from(answer.choice == question.gold);
        right_norm += usize::from(answer.choice_norm == question.gold);
        chance += 1.0 / question.choices.len() as f64;
        progress(done + 1, &answer);
    }
    let n = questions.len() as f64;
    let share = |right: usize| right as f64 / n;
    // Of the mean of zeros and ones, with the sample's variance.
    let stderr = |p: f64| (n > 1.0).then(|| (p * (1.0 - p) / (n - 1.0)).sqrt());
    Ok(Choices {
        questions: questions.len() as u64,
        acc: share(right),
        acc_stderr: stderr(share(right)),
        acc_norm: normalised.then(|| share(right_norm)),
        acc_norm_stderr: if normalised { stderr(share(right_norm)) } else { None },
        chance: chance / n,
        questions_sha256: Some(digest(questions)),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// See [`Choices::questions_sha256`].
fn digest(questions: &[Question]) -> String {
    let choices = |q: &Question| {
        q.choices.iter().map(|c| [c.context.clone(), c.continuation.clone()]).collect::<Vec<_>>()
    };
    let all: Vec<_> = questions.iter().map(|q| (q.gold, choices(q))).collect();
    hex(&Sha256::digest(serde_json::to_vec(&all).expect("strings and numbers have a JSON form")))
}

/// Index of the greatest value; of equal ones the first.
fn argmax(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accuracy::{Rows, Sink};

    /// Prefers one token to all others, which are equally likely.
    struct Likes(u32);

    impl LanguageModel for Likes {
        fn logits(&mut self, ids: &[u32], from: usize, sink: &mut Sink) -> Result<()> {
            let mut row = vec![0f32; 4096];
            row[self.0 as usize] = 2.0;
            sink(Rows { first: from, vocab: 4096, logits: &row.repeat(ids.len() - from) })
        }
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_file(concat!(env!("CARGO_MANIFEST_DIR"), "/bench-suites/demo/tokenizer.json"))
            .unwrap()
    }

    fn question(choices: [&str; 2], gold: usize) -> Question {
        let choice = |c: &str| Choice { context: "We are".into(), continuation: format!(" {c}") };
        Question { choices: choices.map(choice).to_vec(), gold }
    }

    #[test]
    fn a_hand_made_case() {
        let tokenizer = tokenizer();
        let id = |text: &str| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        let (the, of) = (id(" the"), id(" of"));
        assert_eq!((the.len(), of.len()), (1, 1));
        let encoder = Encoder { model: "m".into(), tokenizer: tokenizer.clone(), bos: Some(0), context: 64 };
        let mut model = Likes(the[0]);
        // One token liked; the other one not; ln(e²/(4095 + e²)) and ln(1/(4095 + e²)).
        let total = (4095.0 + 2f64.exp()).ln();
        let got = answer(&mut model, &encoder, &question(["the", "of of"], 0)).unwrap();
        assert!((got.log_likelihoods[0] - (2.0 - total)).abs() < 1e-9);
        assert!((got.log_likelihoods[1] + 2.0 * total).abs() < 1e-9);
        assert_eq!((got.tokens, got.characters, got.choice), (vec![1, 2], vec![3, 5], 0));

        // " of of of" has more tokens, so it is less likely; for each character " the" still wins.
        let questions =
            [question(["the", "of"], 0), question(["of", "the"], 0), question(["the", "of of of"], 0)];
        let score = evaluate(&mut model, &encoder, &questions, &mut |_, _| {}).unwrap();
        assert!((score.acc - 2.0 / 3.0).abs() < 1e-12);
        // p (1 − p) / (n − 1) = 2/9 / 2
        assert!((score.acc_stderr.unwrap() - (1.0 / 9.0f64).sqrt()).abs() < 1e-12);
        assert_eq!(score.acc_norm.map(|a| (a * 3.0).round()), Some(2.0));
        assert_eq!(score.chance, 0.5);
        let one = evaluate(&mut model, &encoder, &questions[..1], &mut |_, _| {}).unwrap();
        assert_eq!((one.acc, one.acc_stderr), (1.0, None));
    }

    #[test]
    fn what_choices_share_is_read_once_and_changes_nothing() {
        let checkpoint = Checkpoint::open("demo").unwrap();
        let encoder = Encoder::new(&checkpoint).unwrap();
        let options =
            crate::model::LoadOptions { layout: None, tier: None, threads: 1, head: Default::default() };
        let mut model = crate::model::Model::load(&checkpoint, &options).unwrap();
        let context = "The state of the Union is ".repeat(60);
        let choice = |c: &str| Choice { context: context.clone(), continuation: c.into() };
        let question = Question { choices: [" strong", " of of it", " the"].map(choice).to_vec(), gold: 0 };
        let together = answer(&mut model, &encoder, &question).unwrap();
        for (choice, sum) in question.choices.iter().zip(&together.log_likelihoods) {
            let (ids, scored) = encoder.encode(choice).unwrap();
            assert!(ids.len() > 256, "more than one batch");
            let mut alone = 0.0;
            model
                .logits(&ids[..ids.len() - 1], ids.len() - 1 - scored, &mut |rows| {
                    let rows_of = rows.logits.chunks_exact(rows.vocab).zip(&ids[rows.first + 1..]);
                    alone -= rows_of.map(|(l, &t)| nll(l, t)).sum::<f64>();
                    Ok(())
                })
                .unwrap();
            assert_eq!(alone.to_bits(), sum.to_bits(), "equal, bit for bit");
        }
    }

    #[test]
    fn long_contexts_lose_their_beginning() {
        let tokenizer = tokenizer();
        let encoder = Encoder { model: "m".into(), tokenizer: tokenizer.clone(), bos: Some(0), context: 8 };
        let choice = Choice {
            context: "of the people by the people for the people and".into(),
            continuation: " the of".into(),
        };
        let (ids, scored) = encoder.encode(&choice).unwrap();
        assert_eq!((ids.len(), scored), (8, 2));
        let empty = Choice { context: "of".into(), continuation: String::new() };
        assert!(encoder.encode(&empty).is_err());
    }
}
