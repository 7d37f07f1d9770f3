//! Logs of llama-perplexity, of llama.cpp and its relatives.

use super::{Options, base_name, foreign};
use crate::record::{Accuracy, Arm, Record, Subject, Test, now};

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
    let n_ctx = run.split_once("n_ctx=").and_then(|(_, n)| whole(n)).ok_or_else(|| {
        "the log states no n_ctx with its chunks: perplexity with a stride is another convention, which is not imported".to_owned()
    })?;
    let threads =
        after("system_info: n_threads =").and_then(whole).ok_or_else(|| missing("'n_threads ='"))?;
    // Without -v it prints neither its total time nor the model's file, but stamps every line.
    let stamps = || Some(stamp(log, "Final estimate: PPL")? - stamp(log, "calculating perplexity over")?);
    let seconds = after("total time =").and_then(number).map(|ms| ms / 1e3).or_else(stamps);
    let seconds = seconds.filter(|s| *s >= 0.0).ok_or_else(|| missing("'total time ='"))?;
    let model = match (after("tensors from").and_then(|rest| rest.split(" (version").next()), &options.model)
    {
        (_, Some(model)) => model,
        (Some(model), None) => model,
        (None, None) => {
            return Err("the log does not name the model's file; give it with --model, or log with -v".into());
        }
    };
    let model = base_name(model);
    let build = after("build:").or_else(|| after("build ="));
    let version = build.and_then(|b| b.split_whitespace().next()).unwrap_or("not stated").to_owned();
    let commit = build.and_then(|b| Some(b.split_once('(')?.1.split_once(')')?.0.to_owned()));
    let nll = ppl.ln();
    // Of each window the first half and the last position, which predicts what is not there, do not
    // count.
    let scored = u64::from(chunks) * u64::from(n_ctx - 1 - n_ctx / 2);
    let arm = Arm {
        subject: Subject {
            model,
            engine: options.program.clone(),
            layout: None,
            tier: None,
            variant: after("print_info: file type   =")
                .or_else(|| after("model ftype      ="))
                .map(str::to_owned),
            threads,
        },
        test: Test::Perplexity { convention: "llama.cpp".into(), n_ctx, text: options.text.clone() },
        imported: Some(format!("llama-perplexity of {} build {version}, from {file}", options.program)),
        speed: None,
        choices: None,
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
        energy_measured: None,
        energy_modelled: None,
        energy_rated: None,
    };
    let method = "Imported from a log of llama-perplexity, which prints four decimals.";
    let now = now();
    Ok(foreign(options, (version, commit), String::new(), (now.clone(), now), method, vec![arm]))
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
        perplexity: calculating perplexity over 655 chunks, n_ctx=512, batch_size=2048, n_seq=4\n\
        [1]4.2,[2]4.9,\n\
        Final estimate: PPL = 17.1090 +/- 0.12781\n\
        llama_perf_context_print:       total time =  123456.00 ms / 335361 tokens\n";

    #[test]
    fn a_perplexity_log_is_read() {
        let record = perplexity(LOG, "f", &options()).unwrap();
        check(&record).unwrap();
        let arm = &record.arms[0];
        let accuracy = arm.accuracy.as_ref().unwrap();
        assert_eq!((accuracy.ppl, accuracy.ppl_stderr, accuracy.seconds), (17.109, 0.12781, 123.456));
        assert_eq!((accuracy.windows, accuracy.scored), (655, 655 * 255));
        assert_eq!(arm.test.to_string(), "ppl llama.cpp n_ctx 512 wiki");
        assert_eq!((arm.subject.model.as_str(), arm.subject.threads), ("b.gguf", 2));
    }

    #[test]
    fn a_log_of_today_needs_the_models_name_and_has_its_time_in_stamps() {
        let log = "0.00.129.016 I cmn          init: llama threadpool init, n_threads = 1\n\
            0.00.139.429 I system_info: n_threads = 2 (n_threads_batch = 2) / 2 | CPU : SSE3 = 1\n\
            0.00.141.971 I perplexity: calculating perplexity over 230 chunks, n_ctx=128, batch_size=2048, n_seq=16\n\
            [1]71419.7242,[2]73253.2824,\n\
            1.26.279.080 I Final estimate: PPL = 29.7406 +/- 0.77911\n";
        assert!(perplexity(log, "f", &options()).unwrap_err().contains("--model"));
        let record = perplexity(log, "f", &Options { model: Some("/m/c.gguf".into()), ..options() }).unwrap();
        check(&record).unwrap();
        let (arm, accuracy) = (&record.arms[0], record.arms[0].accuracy.as_ref().unwrap());
        assert!((accuracy.seconds - 86.137109).abs() < 1e-9, "{}", accuracy.seconds);
        assert_eq!((arm.subject.model.as_str(), arm.subject.threads), ("c.gguf", 2));
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
        let ik = LOG.replace("PPL = ", "PPL over 655 chunks for n_ctx=512 = ");
        assert_eq!(
            perplexity(&ik, "f", &options()).unwrap().arms,
            perplexity(LOG, "f", &options()).unwrap().arms
        );
        let great = perplexity(&LOG.replace("17.1090", "1.7109e+04"), "f", &options()).unwrap();
        assert_eq!(great.arms[0].accuracy.as_ref().unwrap().ppl, 17109.0);
    }
}
