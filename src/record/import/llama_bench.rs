//! Output of llama-bench, of llama.cpp and its relatives.

use super::{NOT_STATED, Options, foreign};
use crate::record::{Arm, Record, Speed, Subject, Test};
use crate::stats;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Rows of any of llama-bench's forms, every field as JSON. Where both output streams are in one file, what the program
/// says of its devices stands before, between and after them.
pub(super) fn rows(text: &str) -> Result<Vec<Map<String, Value>>, String> {
    if let Some(rows) = json_rows(text)? {
        let speeds = text.matches("\"avg_ts\":").count();
        let read = rows.iter().filter(|row| row.contains_key("avg_ts")).count();
        return match speeds > read {
            true => Err(format!(
                "holds {speeds} speeds (`avg_ts`), but only {read} of them in whole rows that start a line: take out what \
                 stands before the others, or what is left of a row that was cut off"
            )),
            false => Ok(rows),
        };
    }
    if text.contains("INSERT INTO tritmark_bench") {
        return Err(OURS.into());
    }
    if text.lines().any(|line| line.starts_with("INSERT INTO")) {
        return text.lines().filter(|line| line.starts_with("INSERT INTO")).map(sql_row).collect();
    }
    if text.lines().any(|line| line.trim_start().starts_with('|')) {
        return markdown_rows(text);
    }
    let mut lines =
        text.lines().skip_while(|line| !line.split(',').any(|name| name.trim_matches('"') == "avg_ts"));
    let header =
        lines.next().ok_or("is neither llama-bench output (no column `avg_ts`) nor a perplexity log")?;
    // The program puts every value in quotes, a spreadsheet may not. What was added to a file has its header again.
    let values = |line: &str| line.split(',').count();
    let quoted = lines.clone().any(|line| line.starts_with('"'));
    let row = |line: &&str| !quoted || line.starts_with('"') || values(line) >= values(header);
    let lines = lines.filter(|line| *line != header).filter(row);
    let table: String = [header].into_iter().chain(lines).flat_map(|line| [line, "\n"]).collect();
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let names = reader.headers().map_err(|e| e.to_string())?.clone();
    let row = |row: csv::Result<csv::StringRecord>| {
        let row = row.map_err(|e| e.to_string())?;
        Ok(names.iter().zip(&row).map(|(name, text)| (name.to_owned(), Value::from(text))).collect())
    };
    reader.records().map(row).collect()
}

/// The objects that begin at the start of a line, by themselves or in arrays; `None` where there is neither.
fn json_rows(text: &str) -> Result<Option<Vec<Map<String, Value>>>, String> {
    let mut rows = None;
    let mut rest = text;
    while !rest.is_empty() {
        let (line, next) = rest.split_once('\n').unwrap_or((rest, ""));
        let line = line.trim();
        // Other lines may begin with a bracket too, as `[load_backend]`.
        let list = line == "[" || line == "[]" || line.starts_with("[{") || line.starts_with("[ {");
        if !list && line != "{" && !line.starts_with("{\"") && !line.starts_with("{ \"") {
            rest = next;
            continue;
        }
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let wrong = |why: String| {
            format!(
                "is no JSON array of objects, and no object a line: {why}; only `-o jsonl` may have other lines \
                 between its rows"
            )
        };
        match stream.next() {
            Some(Ok(Value::Object(row))) => rows.get_or_insert_with(Vec::new).push(row),
            Some(Ok(value)) => {
                let list: Vec<Map<_, _>> = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
                rows.get_or_insert_with(Vec::new).extend(list);
            }
            Some(Err(e)) => return Err(wrong(e.to_string())),
            None => {}
        }
        rest = &rest[stream.byte_offset()..];
    }
    Ok(rows)
}

/// A row of `llama-bench -o sql`: `INSERT INTO llama_bench (a, b) VALUES ('x', 'y');`, in which the
/// program puts every value in quotes; quotes within are doubled by whoever wrote it anew for a database.
fn sql_row(line: &str) -> Result<Map<String, Value>, String> {
    let wrong = || format!("'{:.60}…' is no row as llama-bench writes it", line);
    let (_, rest) = line.split_once('(').ok_or_else(wrong)?;
    let (names, values) = rest.split_once(") VALUES ('").ok_or_else(wrong)?;
    let values: Vec<&str> = values.trim_end().strip_suffix("');").ok_or_else(wrong)?.split("', '").collect();
    let names: Vec<&str> = names.split(", ").collect();
    if names.len() != values.len() {
        return Err(format!("a row has {} names and {} values", names.len(), values.len()));
    }
    Ok(names
        .into_iter()
        .zip(values)
        .map(|(name, value)| (name.to_owned(), value.replace("''", "'").into()))
        .collect())
}

/// Rows of the table that llama-bench prints where no form is asked for. It names the model's type in
/// place of its file, and rounds.
fn markdown_rows(text: &str) -> Result<Vec<Map<String, Value>>, String> {
    let cells = |line: &str| -> Vec<String> {
        line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = text.lines().map(str::trim_start).filter(|line| line.starts_with('|'));
    let head = lines.next().map(cells).unwrap_or_default();
    let mut names = head.clone();
    for name in &mut names {
        if let Some((_, long)) = SHORT.iter().find(|(short, _)| short == name) {
            *name = (*long).into();
        }
    }
    let builds: BTreeSet<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("build: ")).collect();
    if builds.len() > 1 {
        let builds: Vec<_> = builds.into_iter().collect();
        return Err(format!("holds tables of several builds: {}; split the file", builds.join(", ")));
    }
    let build = builds.first().map(|build| {
        let (commit, number) = build.split_once(" (").unwrap_or((build, ""));
        [("build_commit", commit), ("build_number", number.trim_end_matches(')'))]
    });
    let mut rows = Vec::new();
    let of_rows = |line: &&str| !line.trim_matches(['|', '-', ':', ' ']).is_empty() && cells(line) != head;
    for (i, line) in lines.filter(of_rows).enumerate() {
        let wrong = |what: &str| format!("row {}: {what}", i + 1);
        let mut row: Map<String, Value> =
            names.iter().cloned().zip(cells(line).into_iter().map(Value::from)).collect();
        let mut take = |name: &str| match row.remove(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(wrong(&format!("column `{name}` is missing"))),
        };
        let (model, test, speed) = (take("model")?, take("test")?, take("t/s")?);
        let threads = take("threads").map_err(|e| {
            format!("{e}: tables of a GPU leave it out, but a record tells the threads; import `-o json` of that run")
        })?;
        // What it prints of these is rounded, and may not tell models apart.
        let (_size, _params) = (take("size"), take("params"));
        let [prompt, generate, depth] = test_name(&test)
            .ok_or_else(|| wrong(&format!("'{test}' is no test such as pp512+tg128 @ d64")))?;
        let (mean, deviation) = speed.split_once('±').unwrap_or((&speed, ""));
        for (name, value) in [
            ("model_filename", model.clone()),
            ("model_type", model),
            ("n_threads", threads),
            ("n_prompt", prompt.to_string()),
            ("n_gen", generate.to_string()),
            ("n_depth", depth.to_string()),
            ("avg_ts", mean.trim().to_owned()),
            ("stddev_ts", deviation.trim().to_owned()),
        ] {
            row.insert(name.into(), value.into());
        }
        row.extend(build.into_iter().flatten().map(|(name, value)| (name.to_owned(), value.into())));
        rows.push(row);
    }
    Ok(rows)
}

/// What the heads of the program's table stand for.
const SHORT: &[(&str, &str)] = &[
    ("backend", "backends"),
    ("ngl", "n_gpu_layers"),
    ("sm", "split_mode"),
    ("nkvo", "no_kv_offload"),
    ("fa", "flash_attn"),
    ("dev", "devices"),
    ("ts", "tensor_split"),
    ("ot", "tensor_buft_overrides"),
    ("mmap", "use_mmap"),
    ("dio", "use_direct_io"),
    ("lm", "load_mode"),
    ("noh", "no_host"),
    ("fitt", "fit_target"),
    ("fitc", "fit_min_ctx"),
    ("embd", "embeddings"),
    ("nopo", "no_op_offload"),
    ("mla", "mla_attn"),
    ("amb", "attn_max_batch"),
    ("fmoe", "fused_moe"),
    ("rtr", "repack"),
    ("thp", "use_thp"),
];

/// Tokens of prompt, generation and depth in `pp512+tg128 @ d64`, or `tg128@pp64` of ik_llama.cpp.
fn test_name(name: &str) -> Option<[u32; 3]> {
    let (test, depth) = match name.split_once(" @ d").or_else(|| name.split_once("@pp")) {
        Some((test, depth)) => (test, depth.parse().ok()?),
        None => (name, 0),
    };
    let mut tokens = [0, 0, depth];
    for part in test.split('+') {
        if let Some(prompt) = part.strip_prefix("pp") {
            // Before 2024 a blank stood between.
            tokens[0] = prompt.trim().parse().ok()?;
        } else {
            tokens[1] = part.strip_prefix("tg")?.trim().parse().ok()?;
        }
    }
    Some(tokens)
}

/// The first of two forms of the same samples, if they are.
fn matching(exact: Vec<f64>, rounded: &[f64]) -> Option<Vec<f64>> {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-4 * a;
    (exact.len() == rounded.len() && exact.iter().zip(rounded).all(near)).then_some(exact)
}

/// Why rows that name an engine are refused: only this program's do.
const OURS: &str = "is output of tritmark itself, which is no foreign result: `tritmark bench --record FILE` writes the \
                    record that `compare` and `report` read";

/// A value without the quotes that JSON puts around text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Greatest excess of a mean of speeds, as a share, where they scatter too widely to tell: a single repetition of
/// milliseconds may have waited for seconds.
const STALLED: f64 = 1e4;

/// A row of llama-bench with its number, for messages.
struct Fields<'a> {
    number: usize,
    row: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn get<T>(&self, name: &str, kind: &str, read: impl Fn(&Value) -> Option<T>) -> Result<T, String> {
        let value =
            self.row.get(name).ok_or_else(|| format!("row {}: field `{name}` is missing", self.number))?;
        read(value)
            .ok_or_else(|| format!("row {}: field `{name}` must be {kind}, it is {value}", self.number))
    }

    fn count(&self, name: &str) -> Result<u32, String> {
        // Forms other than JSON have numbers as text.
        self.get(name, "a whole number", |v| plain(v).parse().ok())
    }

    fn positive(&self, name: &str) -> Result<f64, String> {
        self.get(name, "a number above 0", |v| {
            plain(v).parse().ok().filter(|f: &f64| f.is_finite() && *f > 0.0)
        })
    }

    fn text(&self, name: &str) -> Result<String, String> {
        self.get(name, "text", |v| v.as_str().map(str::to_owned))
    }

    /// A standard deviation; `None` where none is stated, or rounding made it no number.
    fn deviation(&self, name: &str) -> Option<f64> {
        self.row.get(name).and_then(|v| plain(v).parse().ok()).filter(|f: &f64| f.is_finite() && *f >= 0.0)
    }

    /// Checks that the mean speed, of so many tokens, and the mean time are of the same repetitions.
    fn means_agree(&self, tokens: f64, mean: f64) -> Result<(), String> {
        if !self.row.contains_key("avg_ns") {
            return Ok(());
        }
        let of_time = 1e9 * tokens / self.positive("avg_ns")?;
        // A mean of speeds is no less than the speed of the mean time, and exceeds it by their variance over the
        // product of mean and slowest at most. Of a hundred repetitions none is more than ten standard deviations below
        // the mean. That of the times, `stddev_ns`, is of no use: the program's integers overflow after seconds.
        let most = self.deviation("stddev_ts").map(|d| d * d / (mean * (mean - 10.0 * d)));
        let most = most.filter(|most| *most >= 0.0).unwrap_or(STALLED);
        if (-0.02..=0.02 + most).contains(&(mean / of_time - 1.0)) {
            return Ok(());
        }
        Err(format!(
            "row {}: `avg_ts` and `avg_ns` contradict each other: {mean} tokens/s, but {tokens} tokens in the mean time \
             are {of_time:.2} tokens/s",
            self.number
        ))
    }

    /// Tokens of prompt, generation and depth.
    fn tokens(&self) -> Result<[u32; 3], String> {
        // Generation after a prompt that ik_llama.cpp does not time, which shows in the test's name alone.
        let test = self.row.get("test").and_then(Value::as_str);
        if let Some(test) = test.filter(|test| test.contains("@pp")) {
            return test_name(test).ok_or_else(|| {
                format!("row {}: field `test` must be as tg128@pp64, it is '{test}'", self.number)
            });
        }
        let depth = if self.row.contains_key("n_depth") { self.count("n_depth")? } else { 0 };
        let (prompt, generate) = (self.count("n_prompt")?, self.count("n_gen")?);
        match test.filter(|test| test_name(test).is_some_and(|named| named[..2] != [prompt, generate])) {
            Some(test) => Err(format!(
                "row {}: `test` is '{test}', but `n_prompt` is {prompt} and `n_gen` {generate}",
                self.number
            )),
            None => Ok([prompt, generate, depth]),
        }
    }

    /// A list of numbers above 0; `None` where the form has none.
    fn list(&self, name: &str) -> Result<Option<Vec<f64>>, String> {
        if !self.row.contains_key(name) {
            return Ok(None);
        }
        let list = self.get(name, "a list of numbers above 0", |v| {
            v.as_array()?.iter().map(|n| n.as_f64().filter(|f| *f > 0.0)).collect::<Option<Vec<_>>>()
        })?;
        Ok((!list.is_empty()).then_some(list))
    }
}

/// Fields that say what was found or when, or that have a place of their own in a record.
const NOT_SETTINGS: &[&str] = &[
    "build_commit",
    "build_number",
    "cpu_info",
    "model_filename",
    "model_type",
    "model_size",
    "model_n_params",
    "n_threads",
    "n_prompt",
    "n_gen",
    "n_depth",
    "test",
    "test_time",
    "avg_ns",
    "stddev_ns",
    "avg_ts",
    "stddev_ts",
    "samples_ns",
    "samples_ts",
];

/// Values of settings that go without saying. What is known by none of these is told, so that an arm has the same name
/// whatever stands beside it.
const USUAL: &[(&str, &[&str])] = &[
    ("backends", &["CPU"]),
    ("type_k", &["f16"]),
    ("type_v", &["f16"]),
    ("n_batch", &["2048"]),
    ("n_ubatch", &["512"]),
    ("use_mmap", &["1"]),
    ("load_mode", &["mmap", "auto"]),
    ("flash_attn", &["", "0", "-1", "auto", "none", "null"]),
    ("mul_mat_q", &["1"]),
    ("cpu_mask", &["0x0"]),
    ("poll", &["50"]),
    ("split_mode", &["layer"]),
    ("tensor_split", &["0.00"]),
];

/// The usual values of all other settings: nothing was asked for.
const NOTHING: &[&str] = &["", "0", "none", "auto", "null"];

/// Fields that say that a GPU took part.
const GPU: &[&str] =
    &["backends", "gpu_info", "cuda", "vulkan", "kompute", "metal", "sycl", "rpc", "gpu_blas"];

/// Greatest length of a setting's value: what is longer says what was found.
const LONGEST: usize = 250;

/// The value of a setting, written in one way, where it does not go without saying.
fn told(row: &Map<String, Value>, name: &str) -> Option<String> {
    let value = plain(row.get(name)?);
    if value.starts_with(['[', '{']) || value.len() > LONGEST {
        return None;
    }
    let value = match value.as_str() {
        "true" => "1".to_owned(),
        "false" => "0".to_owned(),
        value => value.to_owned(),
    };
    // Without a GPU it means nothing, and what it is unasked depends on the program's age.
    if name == "n_gpu_layers" && GPU.iter().all(|field| told(row, field).is_none()) {
        return None;
    }
    // llama.cpp repacks unless told otherwise, ik_llama.cpp, which has no such modes, only where it is told.
    if name == "repack" && value == "1" && row.contains_key("load_mode") {
        return None;
    }
    let usual = USUAL.iter().find(|(of, _)| *of == name).map_or(NOTHING, |(_, usual)| usual);
    (!usual.contains(&value.as_str()) || name == "n_gpu_layers").then_some(value)
}

/// The name of a model's file, with as many of its folders as tell it from the others: bitnet.cpp calls all files
/// alike.
fn name_among(path: &str, all: &BTreeSet<String>) -> String {
    let parts = |path: &str| -> Vec<String> { path.rsplit(['/', '\\']).map(str::to_owned).collect() };
    let own = parts(path);
    let same = |other: &&String| other.as_str() != path;
    let shared = all
        .iter()
        .filter(same)
        .map(|other| own.iter().zip(parts(other)).take_while(|(a, b)| *a == b).count());
    let name: Vec<String> = own.iter().take(1 + shared.max().unwrap_or(0)).rev().cloned().collect();
    name.join("/")
}

/// The record of rows of llama-bench.
pub(super) fn bench(rows: &[Map<String, Value>], file: &str, options: &Options) -> Result<Record, String> {
    let fields = |i: usize| Fields { number: i + 1, row: &rows[i] };
    let first = rows.first().map(|_| fields(0)).ok_or("holds no row")?;
    if rows.iter().any(|row| row.contains_key("engine")) {
        return Err(OURS.into());
    }
    let commit = first.text("build_commit").ok();
    let version = rows[0].get("build_number").map_or_else(|| NOT_STATED.into(), plain);
    let cpu = first.text("cpu_info").unwrap_or_default().trim().to_owned();
    for field in ["cpu_info", "build_commit", "build_number"] {
        if let Some(i) = rows.iter().position(|row| row.get(field) != rows[0].get(field)) {
            return Err(format!(
                "rows 1 and {} have another `{field}`: one record is of one machine and one build, so split the file",
                i + 1
            ));
        }
    }
    let files: BTreeSet<String> =
        (0..rows.len()).filter_map(|i| fields(i).text("model_filename").ok()).collect();
    let mut arms: Vec<Arm> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let fields = fields(i);
        let [prompt, generate, depth] = fields.tokens()?;
        let tokens = f64::from(prompt) + f64::from(generate);
        if tokens == 0.0 {
            return Err(format!("row {}: `n_prompt` and `n_gen` are both 0", i + 1));
        }
        let mean = fields.positive("avg_ts")?;
        let mut warnings = Vec::new();
        // Of the two forms of the samples one is exact, the other has six digits.
        let exact = fields.list("samples_ns")?.map(|ns| ns.iter().map(|t| 1e9 * tokens / t).collect());
        let samples: Vec<f64> = match (exact, fields.list("samples_ts")?) {
            (Some(exact), Some(rounded)) => matching(exact, &rounded).ok_or_else(|| {
                format!("row {}: `samples_ns` and `samples_ts` contradict each other", i + 1)
            })?,
            (Some(samples), None) | (None, Some(samples)) => samples,
            (None, None) => {
                fields.means_agree(tokens, mean)?;
                let deviation = fields.deviation("stddev_ts");
                // Of all forms JSON alone has numbers that are no text.
                let advice = if row["avg_ts"].is_number() {
                    "import the JSON as the program wrote it, with `samples_ns` or `samples_ts`"
                } else {
                    "import `llama-bench -o json` instead"
                };
                warnings.push(format!(
                    "The file gives only the mean of repetitions whose number it does not state (standard deviation {}), \
                     so that deviation, interval and number of rounds say nothing here; {advice}.",
                    deviation.map_or_else(|| NOT_STATED.into(), |d| format!("{d} tokens/s"))
                ));
                vec![mean]
            }
        };
        // The mean is that of speeds, and rounded.
        if (samples.iter().sum::<f64>() / samples.len() as f64 / mean - 1.0).abs() > 0.02 {
            return Err(format!("row {}: `avg_ts` is not the mean of the samples", i + 1));
        }
        let size = |name: &str, unit: &str| {
            let read = |v: &Value| plain(v).parse().ok().filter(|n| (0.0..=1e15).contains(n));
            let size = row.get(name).map(|_| fields.get(name, "a number of 0 to 1e15", read)).transpose()?;
            Ok::<_, String>(size.map(|n| format!("{:.3} {unit}", n / 1e9)))
        };
        let params = size("model_n_params", "B parameters")?.map(|n| format!(", {n}"));
        // Files of different models often have one name.
        let mut variant = vec![fields.text("model_type")?];
        variant.extend(size("model_size", "GB")?);
        let settings: BTreeSet<&String> =
            row.keys().filter(|name| !NOT_SETTINGS.contains(&name.as_str())).collect();
        variant.extend(settings.into_iter().filter_map(|name| Some(format!("{name}={}", told(row, name)?))));
        let subject = Subject {
            model: name_among(&fields.text("model_filename")?, &files),
            engine: options.program.clone(),
            layout: None,
            tier: None,
            variant: Some(variant.join(", ")),
            threads: fields.count("n_threads")?,
        };
        let test = Test::Model { prompt, generate, depth };
        if let Some(before) = arms.iter().position(|arm| arm.is_of(&subject, &test)) {
            return Err(format!(
                "rows {} and {} are both {test} of {} with the same settings: leave one of them out, or put it into a \
                 file of its own",
                before + 1,
                i + 1,
                subject.model
            ));
        }
        arms.push(Arm {
            imported: Some(format!(
                "llama-bench of {} build {version} ({}), from {file}{}",
                options.program,
                commit.as_deref().unwrap_or("commit not stated"),
                params.unwrap_or_default(),
            )),
            speed: Some(Speed {
                unit: "tokens/s".into(),
                median: stats::median(&samples),
                mad: stats::mad(&samples),
                interval: stats::median_interval(&samples, 0),
                outliers: stats::outliers(&samples),
                seconds: samples.iter().map(|s| tokens / s).collect(),
                samples,
                best: Vec::new(),
                handoff: Vec::new(),
                load: None,
                disturbance: None,
                warmup: 1,
                settled: None,
                bound: None,
                latency_ms: None,
                first_token_ms: None,
                warnings,
            }),
            ..Arm::new(subject, test)
        });
    }
    let times = (0..rows.len()).filter_map(|i| fields(i).text("test_time").ok());
    let times = times.clone().min().zip(times.max());
    let method = "Imported from llama-bench: its repetitions after one warm-up, arms one after the other. Medians \
                  and intervals are ours, from its samples.";
    Ok(foreign(options, (version, commit), cpu, times, method, arms))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ROW, options};
    use super::*;
    use crate::record::check;

    fn bench_of(text: &str) -> Result<Record, String> {
        rows(text).and_then(|rows| bench(&rows, "f", &options()))
    }

    #[test]
    fn json_and_jsonl_give_the_same_arms() {
        let record = bench_of(&format!("[{ROW}]")).unwrap();
        assert_eq!(record, bench_of(&ROW.replace('\n', " ")).unwrap());
        assert_eq!(record, bench_of(&format!("ggml: found 1 device\n[\n{ROW}\n]")).unwrap());
        check(&record).unwrap();
        let arm = &record.arms[0];
        assert_eq!(arm.test.to_string(), "tg128");
        assert_eq!((arm.subject.model.as_str(), arm.subject.threads), ("a.gguf", 2));
        let speed = arm.speed.as_ref().unwrap();
        assert!((speed.median - 28.5).abs() < 1e-6 && speed.samples.len() == 3);
        assert!((speed.seconds[1] - 4.491228070).abs() < 1e-12);
        assert!(arm.imported.as_ref().unwrap().contains("build 3960 (5dc9dd71)"));
        assert_eq!(record.environment.cpu, "AMD EPYC");
    }

    #[test]
    fn settings_that_differ_tell_arms_apart() {
        let other = ROW.replace("\"n_batch\": 2048", "\"n_batch\": 512");
        let record = bench_of(&format!("[{ROW},{other}]")).unwrap();
        check(&record).unwrap();
        let variants: Vec<_> = record.arms.iter().map(|a| a.subject.variant.clone().unwrap()).collect();
        let name = "bitnet 2B I2_S, 1.187 GB";
        assert_eq!(variants, [name.to_owned(), format!("{name}, n_batch=512")]);
        // What is not as usual is told, whatever else the file holds, and in one way.
        for (from, to, told) in [
            ("\"type_k\": \"f16\"", "\"type_k\": \"q8_0\"", Some("type_k=q8_0")),
            ("\"type_k\"", "\"backends\": \"CUDA\", \"type_k\"", Some("backends=CUDA")),
            ("\"type_k\"", "\"backends\": \"CPU\", \"n_gpu_layers\": 99, \"type_k\"", None),
            (
                "\"type_k\"",
                "\"vulkan\": true, \"n_gpu_layers\": 0, \"type_k\"",
                Some("n_gpu_layers=0, vulkan=1"),
            ),
            ("\"type_k\"", "\"flash_attn\": true, \"type_k\"", Some("flash_attn=1")),
            ("\"type_k\"", "\"flash_attn\": 1, \"type_k\"", Some("flash_attn=1")),
            ("\"type_k\"", "\"flash_attn\": -1, \"load_mode\": \"mmap\", \"type_k\"", None),
            ("\"type_k\"", "\"load_mode\": \"dio\", \"type_k\"", Some("load_mode=dio")),
            ("\"type_k\"", "\"use_mmap\": true, \"poll\": 50, \"test\": \"tg128\", \"type_k\"", None),
            ("\"type_k\"", "\"use_mmap\": \"0\", \"type_k\"", Some("use_mmap=0")),
            ("\"type_k\"", "\"new_setting\": 7, \"type_k\"", Some("new_setting=7")),
            ("\"type_k\"", "\"new_setting\": \"none\", \"type_k\"", None),
            ("\"type_k\"", "\"new_list\": [7], \"new_object\": {\"a\": 7}, \"type_k\"", None),
            ("\"type_k\"", &format!("\"new_text\": \"{}\", \"type_k\"", "word ".repeat(60)), None),
        ] {
            let record = bench_of(&format!("[{}]", ROW.replace(from, to))).unwrap();
            let told = told.map(|told| format!(", {told}")).unwrap_or_default();
            assert_eq!(record.arms[0].subject.variant, Some(format!("{name}{told}")));
        }
        // Two files of one name.
        let other = ROW.replace("1187000000", "2000000000");
        assert_eq!(bench_of(&format!("[{ROW},{other}]")).unwrap().arms.len(), 2);
        let error = bench_of(&format!("[{ROW},{ROW}]")).unwrap_err();
        assert!(error.contains("rows 1 and 2 are both tg128 of a.gguf"), "{error}");
        let windows = ROW.replace("/m/a.gguf", r"C:\\m\\a.gguf");
        assert_eq!(bench_of(&windows).unwrap().arms[0].subject.model, "a.gguf");
    }

    #[test]
    fn what_else_the_program_prints_is_passed_over() {
        let csv = format!("{CSV}llama_perf: done, all\n");
        let deep = ROW.replace("\"n_gen\"", "\"n_depth\": 64, \"n_gen\"");
        let lines = format!("{ROW}\nload: 1 of 2, [x]\n{deep}\n");
        for (text, rows) in
            [(format!("[\n{ROW}\n]"), 1), (csv, 1), (lines.clone(), 2), (ROW.replace(", ", ",\n"), 1)]
        {
            for around in [["", ""], ["[load_backend] loaded, all\n[1]4.2,\n{none}\n", "\n\n[end]\n"]] {
                let record = bench_of(&format!("{}{text}{}", around[0], around[1])).unwrap();
                assert_eq!(record.arms.len(), rows, "{text}");
            }
        }
        // What was cut is not passed over.
        assert!(bench_of(&format!("[\n{ROW},\n")).unwrap_err().contains("no JSON"));
        assert!(bench_of(&lines[..lines.len() - 9]).unwrap_err().contains("no JSON"));
    }

    #[test]
    fn generation_after_an_untimed_prompt_is_one_at_a_depth() {
        let ik = ROW.replace("\"n_prompt\": 0", "\"n_prompt\": 512, \"test\": \"tg128@pp512\"");
        let record = bench_of(&ik).unwrap();
        assert_eq!(record.arms[0].test.to_string(), "tg128 @ d512");
        assert!(bench_of(&ik.replace("tg128@", "128@")).unwrap_err().contains("`test`"));
        assert_eq!(test_name("tg32@pp512"), Some([0, 32, 512]));
    }

    const CSV: &str = "build_commit,build_number,cpu_info,model_filename,model_type,n_threads,n_prompt,n_gen,test_time,avg_ts\n\
        \"abc\",\"7\",\"CPU, fast\",\"m.gguf\",\"t\",\"4\",\"512\",\"0\",\"2026-01-01T00:00:00Z\",\"99.5\"\n";

    #[test]
    fn csv_has_means_only_and_says_so() {
        let record = bench_of(CSV).unwrap();
        let speed = record.arms[0].speed.as_ref().unwrap();
        assert_eq!((speed.median, speed.interval), (99.5, [99.5, 99.5]));
        assert!(speed.warnings[0].contains("only the mean"));
        assert!(speed.warnings[0].contains("(standard deviation not stated)"), "{}", speed.warnings[0]);
        assert!(speed.warnings[0].contains("import `llama-bench -o json` instead"));
        assert_eq!(record.environment.cpu, "CPU, fast");
        let json = ROW.replace("\"samples_ns\"", "\"a\"").replace("\"samples_ts\"", "\"b\"");
        let record = bench_of(&json.replace('\n', " ")).unwrap();
        let warning = &record.arms[0].speed.as_ref().unwrap().warnings[0];
        assert!(warning.contains("(standard deviation 0.1 tokens/s)"), "{warning}");
        assert!(warning.contains("import the JSON as the program wrote it"), "{warning}");
    }

    #[test]
    fn mean_speed_and_mean_time_must_agree() {
        let csv = |tokens: u32, ns: &str, ts: &str, deviation: &str| {
            bench_of(&format!(
                "model_filename,model_type,n_threads,n_prompt,n_gen,avg_ns,stddev_ns,avg_ts,stddev_ts\n\
                 \"m.gguf\",\"t\",\"1\",\"{tokens}\",\"0\",\"{ns}\",\"1\",\"{ts}\",\"{deviation}\"\n"
            ))
        };
        // As the program wrote them: quiet, and with one repetition that waited for half a second or for many.
        csv(32, "555898256", "57.902284", "6.254438").unwrap();
        csv(16, "413661247", "7057.467156", "12178.457009").unwrap();
        csv(8, "8261648667", "2.557183", "2.850610").unwrap();
        csv(16, "8597082328", "1.975046", "0.529884").unwrap();
        csv(32, "555898256", "99.9", "").unwrap();
        for (ts, deviation) in
            [("99.9", "6.254438"), ("60", "0"), ("50", "6.254438"), ("50", ""), ("1e9", "")]
        {
            let error = csv(32, "555898256", ts, deviation).unwrap_err();
            assert!(error.contains("`avg_ts` and `avg_ns` contradict"), "{error}");
        }
        // What samples say counts.
        let stalled = ROW.replace("4500000000", "9000000000");
        assert_eq!(bench_of(&stalled).unwrap().arms, bench_of(ROW).unwrap().arms);
    }

    #[test]
    fn files_of_one_name_are_told_apart_by_their_folders() {
        let named = |paths: &[&str]| {
            let rows: Vec<_> = paths.iter().map(|path| ROW.replace("/m/a.gguf", path)).collect();
            let record = bench_of(&format!("[{}]", rows.join(","))).unwrap();
            record.arms.into_iter().map(|arm| arm.subject.model).collect::<Vec<_>>()
        };
        assert_eq!(named(&["/m/x/a.gguf", "/m/x/b.gguf"]), ["a.gguf", "b.gguf"]);
        assert_eq!(named(&["/m/x/a.gguf", "/m/y/a.gguf", "c.gguf"]), ["x/a.gguf", "y/a.gguf", "c.gguf"]);
        assert_eq!(named(&["a/x/a.gguf", "b/x/a.gguf"]), ["a/x/a.gguf", "b/x/a.gguf"]);
        assert_eq!(named(&["a.gguf", "b/a.gguf"]), ["a.gguf", "b/a.gguf"]);
    }

    #[test]
    fn what_tritmark_printed_itself_is_refused() {
        let row = |form| crate::record::rows::write(&[crate::record::example()], form);
        use crate::record::rows::Format;
        for form in [Format::Json, Format::Jsonl, Format::Csv, Format::Sql] {
            let error = bench_of(&row(form)).unwrap_err();
            assert!(error.contains("output of tritmark itself") && error.contains("--record"), "{error}");
        }
    }

    #[test]
    fn sql_and_markdown_are_read_as_the_program_writes_them() {
        let sql = "CREATE TABLE IF NOT EXISTS llama_bench (\n  build_commit TEXT,\n  n_gen INTEGER\n);\n\n\
                   INSERT INTO llama_bench (build_commit, build_number, cpu_info, model_filename, model_type, n_threads, \
                   n_prompt, n_gen, n_depth, test_time, avg_ts) VALUES ('12345678', '7', 'CPU, fast', 'm.gguf', 't', '4', \
                   '512', '16', '32', '2026-01-01T00:00:00Z', '99.500000');\n";
        let record = bench_of(sql).unwrap();
        assert_eq!(record.arms[0].test.to_string(), "pp512+tg16 @ d32");
        assert_eq!(record.arms[0].speed.as_ref().unwrap().median, 99.5);
        assert_eq!(record.tool.git_revision.as_deref(), Some("12345678"));
        assert!(bench_of(&sql.replace("'7', ", "")).unwrap_err().contains("11 names and 10 values"));
        let quoted = bench_of(&sql.replace("'m.gguf'", "'m''x.gguf'")).unwrap();
        assert_eq!(quoted.arms[0].subject.model, "m'x.gguf");

        let table = "| model          |       size |     params | backend    | threads |            test |                  t/s |\n\
                     | -------------- | ---------: | ---------: | ---------- | ------: | --------------: | -------------------: |\n\
                     | bitnet 2B TQ2_0 |  1.11 GiB |     2.41 B | CPU        |       2 |           pp512 |        150.21 ± 1.30 |\n\
                     | bitnet 2B TQ2_0 |  1.11 GiB |     2.41 B | CPU        |       2 |   tg128 @ d4096 |         28.53 ± 0.11 |\n\
                     \nbuild: 0104b151 (7123)\n";
        let record = bench_of(table).unwrap();
        check(&record).unwrap();
        let tests: Vec<_> = record.arms.iter().map(|a| a.test.to_string()).collect();
        assert_eq!(tests, ["pp512", "tg128 @ d4096"]);
        assert_eq!((record.tool.version.as_str(), record.arms[1].subject.threads), ("7123", 2));
        assert_eq!(record.arms[1].speed.as_ref().unwrap().median, 28.53);
        for (from, to, named) in [
            ("tg128 @", "tx128 @", "row 2"),
            ("28.53", "fast", "`avg_ts`"),
            ("| threads", "| t", "`threads`"),
        ] {
            let error = bench_of(&table.replace(from, to)).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn no_row_is_passed_over_in_silence() {
        // A file that a spreadsheet wrote anew, and rows that were added to it.
        let row = CSV.lines().nth(1).unwrap();
        let bare = row.replace("\"CPU, fast\"", "CPU").replace('"', "").replace("512,0", "0,128");
        let quoted = CSV.replace("CPU, fast", "CPU");
        assert_eq!(
            bench_of(&format!("{quoted}{bare}\n{}\n", CSV.lines().next().unwrap())).unwrap().arms.len(),
            2
        );
        let line = ROW.replace('\n', " ");
        let other = line.replace("/m/a.gguf", "/m/b.gguf");
        assert_eq!(bench_of(&format!("{line}\n  {other}\n")).unwrap().arms.len(), 2);
        for odd in [format!("{line}\nmain: {other}\n"), format!("{}\n{line}", &other[20..])] {
            let error = bench_of(&odd).unwrap_err();
            assert!(error.contains("holds 2 speeds"), "{error}");
        }
        let table = "| model | size | params | backend | threads | test | t/s |\n| - | - | - | - | - | - | - |\n\
                     | a | 1 | 1 | CPU | 2 | pp 512 | 150.21 ± 1.30 |\n  | a | 1 | 1 | CPU | 2 | tg 128 | 28.53 ± 0.11 |\n";
        let tests: Vec<_> = bench_of(table).unwrap().arms.iter().map(|a| a.test.to_string()).collect();
        assert_eq!(tests, ["pp512", "tg128"]);
        let error = bench_of(&format!("{table}build: abc (1)\nbuild: def (2)\n")).unwrap_err();
        assert!(error.contains("several builds"), "{error}");
    }

    #[test]
    fn the_defaults_of_today_are_those_of_before() {
        let with = |more: &str| {
            let row = ROW.trim_end().strip_suffix('}').unwrap().to_owned() + more + "}";
            bench_of(&row).unwrap().arms.remove(0).subject.variant
        };
        assert_eq!(with(", \"load_mode\": \"auto\", \"repack\": true"), with(", \"load_mode\": \"mmap\""));
        assert_ne!(with(", \"repack\": true"), with(""));
    }

    #[test]
    fn wrong_rows_name_row_and_field() {
        for (from, to, named) in [
            ("\"n_gen\": 128", "\"n_gen\": -1", "`n_gen`"),
            ("\"n_gen\": 128", "\"n_gen\": 0", "both 0"),
            ("\"n_threads\": 2", "\"threads\": 2", "`n_threads`"),
            ("[28.4, 28.5, 28.7]", "[28.4, 0]", "`samples_ts`"),
            ("[28.4, 28.5, 28.7]", "[28.4, 28.5, 29.7]", "contradict"),
            ("\"avg_ts\": 28.5", "\"avg_ts\": \"fast\"", "`avg_ts`"),
            ("\"avg_ts\": 28.5", "\"avg_ts\": 1.5", "`avg_ts`"),
            ("1187000000", "-1", "`model_size`"),
            ("2410000000", "1e308", "`model_n_params`"),
            (
                "\"n_batch\"",
                "\"test\": \"tg16\", \"n_batch\"",
                "`test` is 'tg16', but `n_prompt` is 0 and `n_gen` 128",
            ),
        ] {
            let error = bench_of(&format!("[{ROW},{}]", ROW.replace(from, to))).unwrap_err();
            assert!(error.contains("row 2") && error.contains(named), "{error}");
        }
        assert!(bench_of("[]").unwrap_err().contains("no row"));
        assert!(bench_of("hello\n").unwrap_err().contains("neither"));
    }

    #[test]
    fn rows_of_several_machines_or_builds_are_refused_and_their_order_is_free() {
        let other = |from: &str, to: &str| bench_of(&format!("[{ROW}, {}]", ROW.replace(from, to)));
        for (from, to) in [("AMD EPYC", "Apple M2"), ("3960", "7000"), ("5dc9dd71", "ffffffff")] {
            let error = other(from, to).unwrap_err();
            assert!(error.contains("rows 1 and 2") && error.contains("split the file"), "{error}");
        }
        let earlier =
            ROW.replace("2026-01-01", "2025-01-01").replace("\"n_gen\"", "\"n_depth\": 64, \"n_gen\"");
        let record = bench_of(&format!("[{ROW}, {earlier}]")).unwrap();
        assert_eq!((&record.started[..4], &record.finished[..4]), ("2025", "2026"));
    }
}
