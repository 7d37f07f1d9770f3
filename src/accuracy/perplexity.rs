//! Perplexity of a text, optionally with the divergence from a second subject in the same pass.

use super::divergence::{self, Pair};
use super::logits_file::LogitsFile;
use super::model::LanguageModel;
use super::softmax::nll;
use super::state::{State, WindowScore};
use super::text::Text;
use super::window::{Convention, Window};
use crate::error::{Error, Result};
use crate::record::Accuracy;
use crate::verify::sha256;
use crate::words::hex;
use rayon::prelude::*;
use std::path::PathBuf;
use std::time::Instant;

/// A model and what it is called. The name must tell apart whatever may give other logits but the
/// files: an interrupted run is only resumed under the same names.
pub struct Named<'a> {
    /// In results, messages and the state file.
    pub name: String,
    /// The model.
    pub model: &'a mut dyn LanguageModel,
}

/// What may be chosen beside the convention.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only so many windows from the start of the text.
    pub limit: Option<usize>,
    /// Where finished windows are kept, to go on from there.
    pub state: Option<PathBuf>,
    /// What else must be the same to go on: the files behind the names, so that a changed one is noticed.
    pub files: String,
    /// Where the logits of all scored positions are written: safetensors with `subject` and, where
    /// there is one, `reference`, both f32 `[positions, vocab]`, and `targets`, u32 `[positions]`.
    pub save_logits: Option<PathBuf>,
}

/// The estimate so far.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    /// Windows done.
    pub done: usize,
    /// Windows to do in all.
    pub total: usize,
    /// Perplexity over the windows done.
    pub ppl: f64,
    /// Its standard error.
    pub stderr: f64,
}

/// Measures the perplexity of `text`, and how far `subject` lies from `reference` where there is one.
///
/// # Errors
/// If the text is too short, a model fails or gives logits that are not finite, the two differ in
/// vocabulary, or a file cannot be used.
pub fn measure(
    mut subject: Named,
    mut reference: Option<Named>,
    text: &Text,
    convention: Convention,
    options: &Options,
    progress: &mut dyn FnMut(&Running),
) -> Result<Accuracy> {
    let mut windows = convention.windows(text)?;
    windows.truncate(options.limit.unwrap_or(usize::MAX));
    if windows.is_empty() {
        return Err(Error::Usage("--limit must leave at least one window".into()));
    }
    if options.state.is_some() && options.save_logits.is_some() {
        return Err(Error::Usage(
            "logits of a resumed run would be incomplete: choose --state or --save-logits".into(),
        ));
    }

    let (mut state, mut scores) = match &options.state {
        Some(path) => {
            let key = key(&subject, reference.as_ref(), text, convention) + &options.files;
            let (state, mut scores) = State::open(path, &key)?;
            scores.retain(|s| {
                let scored = windows.get(s.index).map(Window::scored);
                let pair = s.pair.as_ref().map(Pair::positions);
                scored == Some(s.nll.len()) && pair == reference.as_ref().map(|_| scored)
            });
            scores.sort_by_key(|s| s.index);
            scores.dedup_by_key(|s| s.index);
            (Some(state), scores)
        }
        None => (None, Vec::new()),
    };
    let scored: usize = windows.iter().map(Window::scored).sum();
    if scored < 2 {
        return Err(Error::Usage(
            "a standard error needs at least two scored tokens, found 1: raise --limit or --n-ctx".into(),
        ));
    }
    let mut file = options.save_logits.as_ref().map(|path| LogitsFile::create(path, scored)).transpose()?;

    let mut sums = Sums::default();
    scores.iter().for_each(|s| sums.add(&s.nll));
    for (index, window) in windows.iter().enumerate() {
        if scores.get(index).is_none_or(|s| s.index != index) {
            let score = score(index, window, &mut subject, reference.as_mut(), file.as_mut())?;
            if let Some(state) = &mut state {
                state.push(&score)?;
            }
            sums.add(&score.nll);
            scores.insert(index, score);
        }
        let (ppl, stderr) = sums.perplexity();
        progress(&Running { done: index + 1, total: windows.len(), ppl, stderr });
    }
    if let Some(file) = file {
        file.finish()?;
    }

    // Once more in the order of the text, which a resumed run may not have followed.
    let mut sums = Sums::default();
    scores.iter().for_each(|s| sums.add(&s.nll));
    let (ppl, ppl_stderr) = sums.perplexity();
    let end = windows.last().map_or(0, |w| w.start + w.ids.len());
    let bytes: u64 = windows.iter().map(|w| text.bytes(w.start + w.first..w.start + w.ids.len())).sum();
    Ok(Accuracy {
        nll: sums.mean(),
        ppl,
        ppl_stderr,
        scored: sums.count,
        windows: windows.len() as u64,
        tokens_sha256: Some(digest(&text.ids[..end])),
        bits_per_byte: (bytes > 0).then(|| sums.sum / std::f64::consts::LN_2 / bytes as f64),
        nll_bits: format!("{:016x}", sums.mean().to_bits()),
        seconds: scores.iter().map(|s| s.seconds).sum(),
        against: reference.and_then(|r| divergence::summarise(&r.name, &scores, &windows, text)),
    })
}

/// SHA-256 of tokens, each as four bytes in little-endian order.
fn digest(ids: &[u32]) -> String {
    hex(&sha256(ids, u32::to_le_bytes))
}

/// What a state file belongs to.
fn key(subject: &Named, reference: Option<&Named>, text: &Text, convention: Convention) -> String {
    let digest = digest(&text.ids);
    let against = reference.map(|r| format!(" against {}", r.name)).unwrap_or_default();
    format!("{}{against}; {}; tokens {digest}", subject.name, convention.describe())
}

/// Runs one window through one or two models.
fn score(
    index: usize,
    window: &Window,
    subject: &mut Named,
    reference: Option<&mut Named>,
    mut file: Option<&mut LogitsFile>,
) -> Result<WindowScore> {
    let start = Instant::now();
    let from = window.first - 1;
    let targets = &window.ids[1..];
    let (name, reference_name) =
        (subject.name.clone(), reference.as_ref().map(|reference| reference.name.clone()));

    let mut others: Vec<f32> = Vec::new();
    if let Some(reference) = reference {
        // The last position has no successor in the window, so its logits are not asked for.
        reference.model.logits(&window.ids[..targets.len()], from, &mut |rows| {
            others.extend_from_slice(rows.logits);
            file.as_mut().map_or(Ok(()), |f| f.push("reference", &rows, targets))
        })?;
    }

    let mut scores = WindowScore {
        index,
        seconds: 0.0,
        nll: Vec::new(),
        pair: reference_name.is_some().then(Pair::default),
    };
    subject.model.logits(&window.ids[..targets.len()], from, &mut |rows| {
        let targets_here = &targets[rows.first..];
        if let Some(pair) = &mut scores.pair {
            if others.len() != (targets.len() - from) * rows.vocab {
                return Err(Error::NotComparable(format!(
                    "{name} has {} logits a position, its reference {}: only models with the same vocabulary can be compared",
                    rows.vocab,
                    others.len() / (targets.len() - from)
                )));
            }
            let positions: Vec<divergence::Position> = rows
                .logits
                .par_chunks_exact(rows.vocab)
                .zip(others[(rows.first - from) * rows.vocab..].par_chunks_exact(rows.vocab))
                .zip(targets_here)
                .map(|((s, r), &target)| divergence::compare(s, r, target))
                .collect();
            for position in &positions {
                scores.nll.push(position.nll);
                pair.push(position);
            }
        } else {
            scores.nll.par_extend(
                rows.logits.par_chunks_exact(rows.vocab).zip(targets_here).map(|(s, &target)| nll(s, target)),
            );
        }
        file.as_mut().map_or(Ok(()), |f| f.push("subject", &rows, targets))
    })?;

    if scores.nll.len() != window.scored() {
        return Err(Error::Bug(format!("{} of {} positions scored", scores.nll.len(), window.scored())));
    }
    let of_pair = scores.pair.as_ref().and_then(|pair| {
        let (at, of_reference) = pair.not_finite()?;
        let reference = reference_name?;
        Some((if of_reference { reference } else { format!("{name} or {reference}") }, at))
    });
    let bad = scores.nll.iter().position(|x| !x.is_finite());
    if let Some((name, bad)) = bad.map(|bad| (name, bad)).or(of_pair) {
        return Err(Error::input(
            name,
            format!("window {index}, position {}: the logits are not finite", from + bad),
        )
        .hint("a scale or a weight is damaged; `tritmark inspect` shows which"));
    }
    scores.seconds = start.elapsed().as_secs_f64();
    Ok(scores)
}

/// Sums over tokens, window by window in the order of the text.
#[derive(Default)]
struct Sums {
    sum: f64,
    squares: f64,
    count: u64,
}

impl Sums {
    fn add(&mut self, nll: &[f64]) {
        self.sum += nll.iter().sum::<f64>();
        self.squares += nll.iter().map(|x| x * x).sum::<f64>();
        self.count += nll.len() as u64;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    /// Perplexity and its standard error, by llama.cpp's formula: that of the mean, to first order.
    fn perplexity(&self) -> (f64, f64) {
        let (mean, n) = (self.mean(), self.count as f64);
        let variance = (self.squares / n - mean * mean).max(0.0);
        (mean.exp(), mean.exp() * (variance / (n - 1.0)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accuracy::{Rows, Sink};

    const VOCAB: usize = 23;

    /// Logits are a fixed function of the token and its position; handed over in pieces.
    struct Fake {
        vocab: usize,
        scale: f32,
        piece: usize,
        calls: usize,
    }

    impl Fake {
        fn new(scale: f32) -> Self {
            Self { vocab: VOCAB, scale, piece: 3, calls: 0 }
        }

        fn row(&self, id: u32, position: usize) -> Vec<f32> {
            let hash = |j| (id as usize * 31 + position * 17 + j * j * 7) % 101;
            (0..self.vocab).map(|j| hash(j) as f32 * self.scale).collect()
        }
    }

    impl LanguageModel for Fake {
        fn logits(&mut self, ids: &[u32], from: usize, sink: &mut Sink) -> Result<()> {
            self.calls += 1;
            let positions: Vec<usize> = (from..ids.len()).collect();
            for piece in positions.chunks(self.piece) {
                let logits: Vec<f32> = piece.iter().flat_map(|&p| self.row(ids[p], p)).collect();
                sink(Rows { first: piece[0], vocab: self.vocab, logits: &logits })?;
            }
            Ok(())
        }
    }

    fn text(n: u32) -> Text {
        Text::from_ids("numbers", (1..n).map(|i| i * i % VOCAB as u32).collect(), Some(0))
    }

    fn run(subject: &mut Fake, reference: Option<&mut Fake>, options: &Options) -> Result<Accuracy> {
        let subject = Named { name: "subject".into(), model: subject };
        let reference = reference.map(|model| Named { name: "reference".into(), model });
        measure(subject, reference, &text(100), Convention::LlamaCpp { n_ctx: 16 }, options, &mut |_| {})
    }

    #[test]
    fn is_what_the_definition_says() {
        let mut model = Fake::new(0.05);
        let got = run(&mut model, None, &Options::default()).unwrap();
        let ids = text(100).ids;
        let mut nlls = Vec::new();
        for window in ids.chunks_exact(16) {
            for position in 8..15 {
                let id = if position == 0 { 0 } else { window[position] };
                let row: Vec<f64> = model.row(id, position).iter().map(|&x| f64::from(x)).collect();
                let lse = row.iter().map(|x| x.exp()).sum::<f64>().ln();
                nlls.push(lse - row[window[position + 1] as usize]);
            }
        }
        let n = nlls.len() as f64;
        let mean = nlls.iter().sum::<f64>() / n;
        let variance = nlls.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        assert_eq!((got.windows, got.scored), (6, 42));
        assert!((got.nll - mean).abs() < 1e-9);
        assert!((got.ppl - mean.exp()).abs() < 1e-7);
        assert!((got.ppl_stderr - mean.exp() * (variance / (n - 1.0)).sqrt()).abs() < 1e-7);
        assert_eq!(got.bits_per_byte, None);
    }

    #[test]
    fn pieces_do_not_matter() {
        let whole = run(&mut Fake { piece: 100, ..Fake::new(0.05) }, None, &Options::default()).unwrap();
        let pieces = run(&mut Fake { piece: 1, ..Fake::new(0.05) }, None, &Options::default()).unwrap();
        assert_eq!(whole.nll_bits, pieces.nll_bits);
    }

    #[test]
    fn resumes_to_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let (mut a, mut b) = (Fake::new(0.05), Fake::new(0.06));
        let whole = run(&mut a, Some(&mut b), &Options::default()).unwrap();
        let options = Options { state: Some(path.clone()), limit: Some(4), ..Options::default() };
        run(&mut a, Some(&mut b), &options).unwrap();
        // Killed in the middle of the fourth line.
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 100]).unwrap();
        a.calls = 0;
        let mut got = run(&mut a, Some(&mut b), &Options { limit: None, ..options.clone() }).unwrap();
        assert_eq!(a.calls, 3, "three windows were kept");
        got.seconds = whole.seconds;
        assert_eq!(got, whole);

        let other = Named { name: "another".into(), model: &mut a };
        let convention = Convention::LlamaCpp { n_ctx: 16 };
        let error =
            measure(other, None, &super::tests::text(100), convention, &options, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("another measurement"), "{error}");
    }

    #[test]
    fn divergence_agrees_with_the_saved_logits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logits.safetensors");
        let options = Options { save_logits: Some(path.clone()), ..Options::default() };
        let got = run(&mut Fake::new(0.05), Some(&mut Fake::new(0.06)), &options).unwrap();
        let against = got.against.unwrap();

        let bytes = std::fs::read(&path).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let rows = |name: &str| -> Vec<Vec<f64>> {
            let tensor = tensors.tensor(name).unwrap();
            assert_eq!(tensor.shape(), [42, VOCAB]);
            let values: Vec<f64> = tensor
                .data()
                .chunks_exact(4)
                .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                .collect();
            values.chunks_exact(VOCAB).map(<[f64]>::to_vec).collect()
        };
        let targets: Vec<usize> = tensors
            .tensor("targets")
            .unwrap()
            .data()
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes(b.try_into().unwrap()) as usize)
            .collect();
        let log_p = |row: &[f64]| -> Vec<f64> {
            let lse = row.iter().map(|x| x.exp()).sum::<f64>().ln();
            row.iter().map(|x| x - lse).collect()
        };
        let (mut kl, mut delta) = (Vec::new(), 0.0);
        for ((s, r), &t) in rows("subject").iter().zip(&rows("reference")).zip(&targets) {
            let (s, r) = (log_p(s), log_p(r));
            kl.push(s.iter().zip(&r).map(|(s, r)| r.exp() * (r - s)).sum::<f64>());
            delta += (r[t] - s[t]) / 42.0;
        }
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        close(against.kl_mean, kl.iter().sum::<f64>() / 42.0);
        close(against.kl_max, kl.iter().copied().fold(0.0, f64::max));
        close(against.delta_nll, delta);
        assert_eq!(against.positions, 42);
        assert_eq!(against.top1, 1.0, "a scaled copy prefers the same token");
        assert_eq!(against.kl_histogram.iter().map(|b| b.1).sum::<u64>(), 42);
        close(against.worst[0].kl, against.kl_max);
    }

    #[test]
    fn a_subject_does_not_diverge_from_itself() {
        let got = run(&mut Fake::new(0.05), Some(&mut Fake::new(0.05)), &Options::default()).unwrap();
        let d = got.against.unwrap();
        assert_eq!((d.kl_max, d.logit_max, d.delta_nll, d.delta_nll_stderr), (0.0, 0.0, 0.0, 0.0));
        assert_eq!((d.top1, d.top5), (1.0, 1.0));
    }

    #[test]
    fn what_cannot_be_scored_is_an_error() {
        let error = run(&mut Fake::new(f32::NAN), None, &Options::default()).unwrap_err().to_string();
        assert!(error.contains("subject") && error.contains("not finite"), "{error}");
        let error =
            run(&mut Fake::new(1.0), Some(&mut Fake { vocab: 7, ..Fake::new(1.0) }), &Options::default());
        assert!(matches!(error, Err(Error::NotComparable(_))));
        let none = Options { limit: Some(0), ..Options::default() };
        assert!(matches!(run(&mut Fake::new(1.0), None, &none), Err(Error::Usage(_))));
    }
}
