//! Logs of llama-perplexity, of llama.cpp and its relatives.

use super::{NOT_STATED, Options, ROUNDING, base_name, foreign};
use crate::record::{Accuracy, Arm, Record, Subject, Test};
use std::path::Path;

/// The record of a log.
pub(super) fn perplexity(log: &str, file: &str, options: &Options) -> Result<Record, String> {
    let after = |key: &str| log.lines().find_map(|line| line.split_once(key)).map(|(_, rest)| rest.trim());
    let missing =
        |what: &str| format!("the log does not hold {what}; it must hold both output streams of a whole run");
    for line in ["calculating perplexity over", "Final estimate: PPL"] {
        let runs = log.matches(line).count();
        if runs > 1 {
            return Err(format!("holds '{line}' {runs} times: one log is of one run, so split it"));
        }
    }
    // A figure that ends where its word ends: what is written in another way is not guessed at.
    let figure = |text: &str| text.split_whitespace().next()?.parse::<f64>().ok();
    let number = |text: &str| {
        let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        text[..end].parse::<f64>().ok()
    };
    let whole =
        |text: &str| number(text).filter(|n| n.fract() == 0.0 && (1.0..1e9).contains(n)).map(|n| n as u32);

    // ik_llama.cpp says over how many chunks before it says how much.
    let estimate = after("Final estimate: PPL").and_then(|rest| Some(rest.rsplit_once('=')?.1.trim()));
    let estimate = estimate.ok_or_else(|| missing("a final estimate"))?;
    let ppl = figure(estimate).filter(|p| p.is_finite() && *p >= 1.0);
    let ppl = ppl.ok_or_else(|| format!("the final estimate '{estimate}' is no perplexity"))?;
    let error = estimate.split_once("+/-").and_then(|(_, e)| figure(e)).filter(|e| *e >= 0.0);
    let ppl_stderr = error.ok_or_else(|| format!("the final estimate '{estimate}' has no standard error"))?;
    let run = after("calculating perplexity over")
        .ok_or_else(|| missing("'calculating perplexity over … chunks'"))?;
    let chunks = whole(run).ok_or_else(|| missing("the number of chunks"))?;
    check_chunks(log, chunks, ppl)?;
    let n_ctx = run.split_once("n_ctx=").and_then(|(_, n)| whole(n)).ok_or_else(|| {
        "the log states no n_ctx with its chunks: it is of perplexity with a stride, which is another convention, or of a \
         llama.cpp of before March 2024, which does not tell the two apart; run a later one without --ppl-stride"
            .to_owned()
    })?;
    let threads =
        after("system_info: n_threads =").and_then(whole).ok_or_else(|| missing("'n_threads ='"))?;
    // Without -v it prints neither its total time nor the model's file, but stamps every line.
    let stamps = || Some(stamp(log, "Final estimate: PPL")? - stamp(log, "calculating perplexity over")?);
    // Other programs may have written to the same log before.
    let (_, since) = log.split_once("calculating perplexity over").unwrap_or_default();
    let total = since.split_once("total time =").map(|(_, rest)| rest.trim_start());
    let seconds = total.and_then(number).map(|ms| ms / 1e3).or_else(stamps);
    let seconds = seconds.filter(|s| *s >= 0.0).ok_or_else(|| missing("'total time ='"))?;
    let logged = after("tensors from").and_then(|rest| rest.split(" (version").next()).map(base_name);
    let model = match (logged, options.model.as_deref().map(base_name)) {
        (Some(logged), Some(given)) if logged != given && stem(&logged) != given => {
            return Err(format!(
                "the log names the model's file '{logged}', --model names '{given}'; leave --model out, or import the \
                 log of that model"
            ));
        }
        (Some(model), _) | (None, Some(model)) => model,
        (None, None) => {
            return Err("the log does not name the model's file; give it with --model, or log with -v".into());
        }
    };
    // Drivers tell theirs too, without a commit.
    let build = log.lines().find_map(|line| {
        let (_, build) = line.split_once("build: ").or_else(|| line.split_once("build = "))?;
        let (number, rest) = build.split_once(" (")?;
        let (commit, _) = rest.split_once(')')?;
        (!number.contains(' ') && commit.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(build)
    });
    let version = build.and_then(|b| b.split_whitespace().next()).unwrap_or(NOT_STATED).to_owned();
    let commit = build.and_then(|b| Some(b.split_once('(')?.1.split_once(')')?.0.to_owned()));
    let nll = ppl.ln();
    // Of each window the first half and the last position, which predicts what is not there, do not
    // count.
    let scored = u64::from(chunks) * u64::from(n_ctx - 1 - n_ctx / 2);
    let subject = Subject {
        model,
        engine: options.program.clone(),
        layout: None,
        tier: None,
        variant: after("print_info: file type   =")
            .or_else(|| after("model ftype      ="))
            .map(str::to_owned),
        threads,
    };
    let test = Test::Perplexity { convention: "llama.cpp".into(), n_ctx, text: options.text.clone() };
    let arm = Arm {
        imported: Some(format!("llama-perplexity of {} build {version}, from {file}", options.program)),
        accuracy: Some(Accuracy {
            nll,
            ppl,
            ppl_stderr,
            scored,
            windows: chunks.into(),
            tokens_sha256: None,
            bits_per_byte: None,
            nll_bits: format!("{:016x}", nll.to_bits()),
            seconds,
            against: None,
        }),
        ..Arm::new(subject, test)
    };
    let method = "Imported from a log of llama-perplexity, which prints four decimals of the perplexity; the likelihood is \
                  its logarithm and no more exact.";
    Ok(foreign(options, (version, commit), String::new(), None, method, vec![arm]))
}

/// A file's name without its extension.
fn stem(name: &str) -> &str {
    Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name)
}

/// Checks what a log prints of each chunk, `[1]4.5000,[2]5.1000,`, the perplexity so far, against what it says of the
/// whole. There may be nothing of chunks: `--ppl-output-type 1` prints a table instead.
fn check_chunks(log: &str, chunks: u32, ppl: f64) -> Result<(), String> {
    let printed = log.split('[').filter_map(|part| {
        let (number, rest) = part.split_once(']')?;
        Some((number.parse::<u32>().ok()?, rest.split_once(',')?.0.parse::<f64>().ok()?))
    });
    let printed: Vec<(u32, f64)> = printed.collect();
    let Some(&(last, so_far)) = printed.last() else { return Ok(()) };
    if last != chunks || printed.len() != chunks as usize {
        return Err(format!(
            "the log announces {chunks} chunks and prints {}, up to number {last}: it is no log of one whole run",
            printed.len()
        ));
    }
    if let Some((i, (number, so_far))) = (1..)
        .zip(&printed)
        .find(|(i, (number, so_far))| number != i || !(1.0..f64::INFINITY).contains(so_far))
    {
        return Err(format!("chunk {i} of the log is printed as '[{number}]{so_far}': the file is damaged"));
    }
    // Both are rounded; and no number is near to none.
    let same = (so_far - ppl).abs() <= 2.1 * ROUNDING;
    if !same {
        return Err(format!(
            "the final estimate {ppl} is not the perplexity after the last chunk, {so_far}: it is no log of one whole run"
        ));
    }
    Ok(())
}

/// Seconds of the time stamp `minutes.seconds.milliseconds.microseconds` of the first line that holds
/// `what`.
fn stamp(log: &str, what: &str) -> Option<f64> {
    let line = log.lines().find(|line| line.contains(what))?;
    let parts = line.split(' ').next()?.split('.').map(|part| part.parse().ok());
    let [minutes, seconds, milliseconds, microseconds]: [f64; 4] =
        parts.collect::<Option<Vec<f64>>>()?.try_into().ok()?;
    Some(60.0 * minutes + seconds + 1e-3 * milliseconds + 1e-6 * microseconds)
}

#[cfg(test)]
mod tests {
    use super::super::tests::options;
    use super::*;
    use crate::record::check;

    const LOG: &str = "build: 3960 (5dc9dd71) with clang\n\
        llama_model_loader: loaded meta data with 24 key-value pairs and 332 tensors from /m/b.gguf (version GGUF V3 (latest))\n\
        system_info: n_threads = 2 (n_threads_batch = 2) / 2 | AVX = 1\n\
        perplexity: calculating perplexity over 2 chunks, n_ctx=512, batch_size=2048, n_seq=4\n\
        [1]4.2000,[2]17.1090,\n\
        Final estimate: PPL = 17.1090 +/- 0.12781\n\
        llama_perf_context_print:       total time =  123456.00 ms / 335361 tokens\n";

    #[test]
    fn a_perplexity_log_is_read() {
        let record = perplexity(LOG, "f", &options()).unwrap();
        check(&record).unwrap();
        let arm = &record.arms[0];
        let accuracy = arm.accuracy.as_ref().unwrap();
        assert_eq!((accuracy.ppl, accuracy.ppl_stderr, accuracy.seconds), (17.109, 0.12781, 123.456));
        assert_eq!((accuracy.windows, accuracy.scored), (2, 2 * 255));
        assert_eq!(arm.test.to_string(), "ppl llama.cpp n_ctx 512 wiki");
        assert_eq!((arm.subject.model.as_str(), arm.subject.threads), ("b.gguf", 2));
    }

    #[test]
    fn what_other_programs_wrote_to_the_log_is_not_of_the_run() {
        let before =
            "ggml_opencl: driver: OpenCL 3.0 build: 0842.19.8 Compiler\nmain:    total time = 999.00 ms\n";
        let record = perplexity(&format!("{before}{LOG}"), "f", &options()).unwrap();
        assert_eq!(record.arms, perplexity(LOG, "f", &options()).unwrap().arms);
        assert_eq!(record.tool.version, "3960");
    }

    #[test]
    fn a_log_of_today_needs_the_models_name_and_has_its_time_in_stamps() {
        let log = "0.00.129.016 I cmn          init: llama threadpool init, n_threads = 1\n\
            0.00.139.429 I system_info: n_threads = 2 (n_threads_batch = 2) / 2 | CPU : SSE3 = 1\n\
            0.00.141.971 I perplexity: calculating perplexity over 2 chunks, n_ctx=128, batch_size=2048, n_seq=16\n\
            [1]71.7242,[2]29.7406,\n\
            1.26.279.080 I Final estimate: PPL = 29.7406 +/- 0.77911\n";
        assert!(perplexity(log, "f", &options()).unwrap_err().contains("--model"));
        let record = perplexity(log, "f", &Options { model: Some("/m/c.gguf".into()), ..options() }).unwrap();
        check(&record).unwrap();
        let (arm, accuracy) = (&record.arms[0], record.arms[0].accuracy.as_ref().unwrap());
        assert!((accuracy.seconds - 86.137109).abs() < 1e-9, "{}", accuracy.seconds);
        assert_eq!((arm.subject.model.as_str(), arm.subject.threads), ("c.gguf", 2));
    }

    #[test]
    fn chunks_stand_in_order() {
        for (from, to) in [("[1]", "[3]"), ("[1]4", "[1]-4"), ("[1]4.2000", "[1]inf")] {
            let error = perplexity(&LOG.replace(from, to), "f", &options()).unwrap_err();
            assert!(error.contains("chunk 1 of the log"), "{error}");
        }
    }

    #[test]
    fn a_log_of_two_runs_is_refused() {
        for first in [LOG.to_owned(), LOG.split("Final").next().unwrap().to_owned()] {
            let error = perplexity(&format!("{first}{LOG}"), "f", &options()).unwrap_err();
            assert!(error.contains("split it"), "{error}");
        }
    }

    #[test]
    fn an_incomplete_log_is_refused() {
        for line in ["Final", "llama_perf", "system_info", "llama_model", "perplexity:"] {
            let log: String =
                LOG.lines().filter(|l| !l.starts_with(line)).map(|l| format!("{l}\n")).collect();
            assert!(perplexity(&log, "f", &options()).is_err(), "without {line}");
        }
        for ppl in ["nan", "inf", "-17.1090", "1e-3", "17,1090"] {
            let log = LOG.replace("17.1090", ppl);
            assert!(perplexity(&log, "f", &options()).unwrap_err().contains("no perplexity"), "{ppl}");
        }
        let ik = LOG.replace("PPL = ", "PPL over 2 chunks for n_ctx=512 = ");
        assert_eq!(
            perplexity(&ik, "f", &options()).unwrap().arms,
            perplexity(LOG, "f", &options()).unwrap().arms
        );
        let great = perplexity(&LOG.replace("17.1090", "1.7109e+04"), "f", &options()).unwrap();
        assert_eq!(great.arms[0].accuracy.as_ref().unwrap().ppl, 17109.0);
    }

    #[test]
    fn chunks_that_contradict_the_whole_are_refused() {
        for (from, to, said) in [
            ("over 2 chunks", "over 400 chunks", "announces 400 chunks and prints 2"),
            ("[1]4.2000,", "", "announces 2 chunks and prints 1"),
            ("PPL = 17.1090", "PPL = 17.6090", "17.609 is not the perplexity after the last chunk, 17.109"),
            ("PPL = 17.1090", "PPL = 17.1092", "after the last chunk"),
            ("[2]17.1090", "[2]nan", "chunk 2 of the log is printed as '[2]NaN'"),
            ("PPL = 17.1090", "PPL = 5.4e40", "after the last chunk"),
        ] {
            let error = perplexity(&LOG.replace(from, to), "f", &options()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        // Other ways to print chunks, and lines between them.
        for to in ["     512  4.2000\n", "[1]4.2000,\nload: [x], 1\n[2]17.1090,"] {
            perplexity(&LOG.replace("[1]4.2000,[2]17.1090,", to), "f", &options()).unwrap();
        }
    }

    #[test]
    fn a_model_other_than_that_of_the_log_is_refused() {
        let import = |model: &str| {
            perplexity(LOG, "f", &Options { model: Some(model.into()), ..options() })
                .map(|record| record.arms[0].subject.model.clone())
        };
        for same in ["b.gguf", "b", "/elsewhere/b.gguf"] {
            assert_eq!(import(same).unwrap(), "b.gguf");
        }
        let error = import("/m/c.gguf").unwrap_err();
        assert!(error.contains("'b.gguf'") && error.contains("'c.gguf'"), "{error}");
    }

    #[test]
    fn what_a_log_does_not_state_is_noted() {
        let notes = perplexity(LOG, "f", &options()).unwrap().notes.join("\n");
        assert!(notes.contains("how many CPUs") && notes.contains("time of the import"), "{notes}");
    }
}
