//! What the kernels are tuned to: their defaults, or what `doctor --tune` measured on this CPU and
//! stored for later runs. No result depends on it.

use super::{Environment, cpu};
use crate::error::{Error, Result};
use crate::files;
use crate::words::counted;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Instant;
use tritmark_kernels::acts::Activations;
use tritmark_kernels::kernel::{self, Kernel, Packed};
use tritmark_kernels::layout::TM2;
use tritmark_kernels::matmul::{Matrix, matmul};
use tritmark_kernels::pool::Pool;
use tritmark_kernels::tuning::{LookupFrom, Tuning, tables_of};
use tritmark_kernels::{Tier, Trits};

/// A tuning in its file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// Name and identity of the CPU that it was measured on.
    cpu: String,
    /// By tier; no tokens: tables never pay.
    lookup: BTreeMap<String, Lookup>,
    prefetch: usize,
    /// Absent in files of earlier versions.
    #[serde(default = "default_sequences")]
    sequences: bool,
    tasks: usize,
    /// Absent in files of earlier versions. Not measured: what is best depends on which CPUs share a
    /// cache, which changes under a virtual machine while it runs.
    #[serde(default = "default_alone")]
    alone: usize,
}

fn default_sequences() -> bool {
    Tuning::default().sequences
}

fn default_alone() -> usize {
    Tuning::default().alone
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lookup {
    tokens: Option<usize>,
    rows: usize,
}

impl Stored {
    fn new(cpu: String, tuning: &Tuning) -> Self {
        let lookup = tuning.lookup.iter().map(|(tier, from)| {
            let tokens = Some(from.tokens).filter(|n| *n != LookupFrom::NEVER);
            (tier.to_string(), Lookup { tokens, rows: from.rows })
        });
        let Tuning { prefetch, sequences, tasks, alone, .. } = *tuning;
        Self { cpu, lookup: lookup.collect(), prefetch, sequences, tasks, alone }
    }

    /// The tuning, if its numbers make sense.
    fn tuning(&self) -> Result<Tuning, String> {
        let between = |name: &str, least: usize, n: usize| {
            let most = Tuning::MOST;
            let fits = (least..=most).contains(&n);
            if fits { Ok(n) } else { Err(format!("`{name}` must be {least} to {most}, it is {n}")) }
        };
        let lookup = self.lookup.iter().map(|(tier, from)| {
            let tokens = from.tokens.map_or(Ok(LookupFrom::NEVER), |n| between("tokens", 1, n))?;
            Ok((tier.parse::<Tier>()?, LookupFrom { tokens, rows: between("rows", 1, from.rows)? }))
        });
        let mut lookup: Vec<_> = lookup.collect::<Result<_, String>>()?;
        lookup.sort_by_key(|(tier, _)| *tier);
        let prefetch = between("prefetch", 0, self.prefetch)?;
        let (tasks, alone) = (between("tasks", 1, self.tasks)?, between("alone", 0, self.alone)?);
        Ok(Tuning { lookup, prefetch, sequences: self.sequences, tasks, alone })
    }
}

/// Where tunings are stored, if this user has a place for that.
pub fn path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let configs =
        set("XDG_CONFIG_HOME").or_else(|| set("APPDATA")).or_else(|| Some(set("HOME")?.join(".config")));
    Some(configs?.join("tritmark/tuning.json"))
}

/// Uses the stored tuning, if there is one; returns why it is not used, if there is one and it is not.
pub fn use_stored() -> Option<String> {
    let path = path()?;
    let text = match std::fs::metadata(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return None,
        // A pipe may never give anything.
        Ok(kind) if !kind.is_file() => Err("it is no file".into()),
        _ => std::fs::read_to_string(&path).map_err(|e| e.to_string()),
    };
    let stored = text.and_then(|text| serde_json::from_str::<Stored>(&text).map_err(|e| e.to_string()));
    let tuning = stored.and_then(|stored| {
        let here = this_cpu();
        if stored.cpu != here {
            return Err(format!("it was measured on '{}', and this CPU is '{here}'", stored.cpu));
        }
        stored.tuning()
    });
    match tuning {
        Ok(tuning) => {
            tuning.apply();
            None
        }
        Err(reason) => Some(format!(
            "the tuning in {} is not used: {reason}; `tritmark doctor --tune` measures it anew",
            path.display()
        )),
    }
}

/// Where a tuning will be stored, in a folder that is there and can be written to.
///
/// # Errors
/// If the user has no place for it, or it cannot be written.
pub fn place() -> Result<PathBuf> {
    let path = path().ok_or_else(|| {
        Error::Usage("there is no place to store a tuning: set XDG_CONFIG_HOME to a folder".into())
    })?;
    files::make_folder(files::parent(&path))?;
    files::writable(&[&path], &[])?;
    Ok(path)
}

/// Stores a tuning for later runs on this CPU.
///
/// # Errors
/// If the user has no place for it, or it cannot be written.
pub fn store(tuning: &Tuning) -> Result<PathBuf> {
    let path = place()?;
    let text = serde_json::to_string_pretty(&Stored::new(this_cpu(), tuning))
        .map_err(|e| Error::Bug(e.to_string()))?;
    files::write_whole(&path, |file| std::io::Write::write_all(file, format!("{text}\n").as_bytes()))?;
    Ok(path)
}

/// Name and identity of this CPU.
fn this_cpu() -> String {
    let mut env = Environment::default();
    cpu::describe(&mut env);
    format!("{} {}", env.cpu, env.cpu_id.as_deref().unwrap_or(std::env::consts::ARCH)).trim().to_owned()
}

/// The tuning in use, in words.
pub fn in_use() -> String {
    let tuning = Tuning::current();
    let mut out = String::from(if tuning == Tuning::default() { "default: " } else { "stored: " });
    for (tier, from) in tuning.lookup.iter().filter(|(tier, _)| tier.is_available()) {
        let _ = match from.tokens {
            LookupFrom::NEVER => write!(out, "{tier} without tables, "),
            tokens => {
                let of = match tables_of(*tier) {
                    own if own == *tier => String::new(),
                    lower => format!(" of {lower}"),
                };
                write!(out, "{tier} with tables{of} from {tokens} tokens and {} rows on, ", from.rows)
            }
        };
    }
    let Tuning { prefetch, sequences, tasks, alone, .. } = tuning;
    let of_sequences = if sequences { "of sequences too" } else { "not of sequences" };
    let _ = write!(
        out,
        "products below {alone} multiply-adds on one thread, prefetch {prefetch} bytes ahead ({of_sequences}), \
         {} a thread",
        counted(tasks as u64, "task")
    );
    out
}

/// Rows and columns of the matrices that are measured: those of a model of some size.
const ROWS: usize = 2560;
const COLS: usize = 2560;
/// What must be gained to change a number: less is noise.
const GAIN: f64 = 0.02;
/// Times that each choice is tried, in turns.
const ROUNDS: usize = 5;

/// Measures what is best on this CPU, with all its threads where they matter; `step` hears what comes
/// next and of how many.
pub fn measure(env: &Environment, step: &mut dyn FnMut(usize, usize, &str)) -> Tuning {
    let mut tuning = Tuning::default();
    let tiers: Vec<usize> = (0..tuning.lookup.len()).filter(|&i| tuning.lookup[i].0.is_available()).collect();
    let total = tiers.len() + 3;
    let trits = Trits::new(ROWS, COLS, (0..ROWS * COLS).map(|i| (i * 31 % 97 % 3) as i8 - 1).collect());
    let trits = trits.expect("trits in the right number");
    // Weights that no cache holds, as a model's.
    let copies = |layout| -> Vec<Packed> {
        let first = Packed::pack(layout, &trits).expect("our layouts hold every shape");
        let copies = (env.beyond_caches() / 2).div_ceil(first.bytes().len() as u64);
        let copy = |_| Packed::from_bytes(layout, ROWS, COLS, first.bytes()).expect("they were packed");
        (0..copies).map(copy).collect()
    };
    // The layout that no other way comes before tables for.
    let strips = copies(&TM2);
    for (done, &i) in tiers.iter().enumerate() {
        let (tier, default) = tuning.lookup[i];
        step(done, total, &format!("tables of {tier}"));
        tuning.lookup[i].1 = lookup_from(tier, default, &strips);
    }
    drop(strips);
    let pool = Pool::shared(env.threads as usize);
    let x = activations(1);
    let decoding = |layout| {
        let kernel = kernel::best(layout, None).expect("our layouts have kernels");
        let matrices: Vec<Matrix> =
            copies(layout).into_iter().map(|packed| Matrix::new(packed, 1.0, kernel)).collect();
        let (pool, x, mut out) = (&pool, &x, vec![0.0; ROWS]);
        move |tuning: &Tuning| {
            tuning.apply();
            for matrix in &matrices {
                matmul(pool, &[matrix], x, &mut [&mut out]);
            }
        }
    };
    step(tiers.len(), total, "prefetch of sequences");
    if cfg!(target_arch = "x86_64") {
        let other = Tuning { sequences: !tuning.sequences, ..tuning.clone() };
        tuning = best(tuning, &[other], &mut decoding(&TM2));
    }
    let mut decode = decoding(kernel::own_layout(None));
    step(tiers.len() + 1, total, "prefetch distance");
    if cfg!(target_arch = "x86_64") {
        let with = |prefetch| Tuning { prefetch, ..tuning.clone() };
        let choices = [1024, 2048, 4096, 6144, 8192, 12288, 16384, 32768].map(with);
        tuning = best(tuning, &choices, &mut decode);
    }
    step(tiers.len() + 2, total, "tasks a thread");
    if env.threads > 1 {
        let choices = [1, 2, 3, 6, 8, 12, 16].map(|tasks| Tuning { tasks, ..tuning.clone() });
        tuning = best(tuning, &choices, &mut decode);
    }
    tuning.apply();
    tuning
}

/// Tokens at once of some numbers.
fn activations(tokens: usize) -> Activations {
    let mut x = Activations::new();
    x.set_i8(tokens, COLS, &(0..tokens * COLS).map(|i| (i * 37) as i8).collect::<Vec<_>>());
    x
}

/// The choice with which `work` is fastest, or `now` where none gains enough.
fn best(now: Tuning, choices: &[Tuning], work: &mut dyn FnMut(&Tuning)) -> Tuning {
    let all: Vec<&Tuning> = std::iter::once(&now).chain(choices).collect();
    let times = times(all.len(), &mut |i| work(all[i]));
    let (first, least) =
        (0..all.len()).map(|i| (i, times[i])).min_by(|a, b| a.1.total_cmp(&b.1)).expect("choices");
    if least < times[0] * (1.0 - GAIN) { all[first].clone() } else { now }
}

/// Shortest seconds of each choice of `work`, tried in turns.
fn times(choices: usize, work: &mut dyn FnMut(usize)) -> Vec<f64> {
    let mut least = vec![f64::INFINITY; choices];
    for _ in 0..ROUNDS {
        for (i, least) in least.iter_mut().enumerate() {
            let start = Instant::now();
            work(i);
            *least = least.min(start.elapsed().as_secs_f64());
        }
    }
    least
}

/// From which tokens and rows on a tier gains by tables, on one thread, for copies of a matrix in turns.
fn lookup_from(tier: Tier, default: LookupFrom, copies: &[Packed]) -> LookupFrom {
    const TOKENS: [usize; 11] = [8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];
    const MANY: usize = 128;
    let Some(kernel) = kernel::find(&TM2, tier) else { return default };
    let next = RefCell::new(copies.iter().cycle());
    let gains = |tokens: usize, rows: usize| {
        let x = activations(tokens);
        let times = times(2, &mut |i| {
            let tokens = [LookupFrom::NEVER, 1][i];
            let lookup = vec![(tier, LookupFrom { tokens, rows: 1 })];
            Tuning { lookup, ..Tuning::current() }.apply();
            let packed = next.borrow_mut().next().expect("a cache holds no matrix");
            run(kernel, packed, &x, rows);
        });
        times[1] < times[0] * (1.0 - GAIN)
    };
    // The smallest of those from which on all gain.
    let from = |sizes: &[usize], gains: &dyn Fn(usize) -> bool| {
        sizes.iter().rev().take_while(|n| gains(**n)).last().copied()
    };
    let Some(tokens) = from(&TOKENS, &|tokens| gains(tokens, ROWS)) else {
        return LookupFrom { tokens: LookupFrom::NEVER, ..default };
    };
    let rows = from(&[64, 128, 256, 512, 1024, 2048], &|rows| gains(tokens.max(MANY), rows));
    LookupFrom { tokens, rows: rows.unwrap_or(ROWS) }
}

/// Multiplies the first rows.
fn run(kernel: &dyn Kernel, weights: &Packed, x: &Activations, rows: usize) {
    kernel.run(weights, x, 0..x.tokens(), 0..rows, &mut |_, _, sums| {
        black_box(sums);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_what_is_read() {
        let default = Tuning::default();
        let mut tuning = Tuning { prefetch: 0, sequences: !default.sequences, tasks: 3, ..default };
        for (_, lookup) in &mut tuning.lookup {
            lookup.tokens = LookupFrom::NEVER;
        }
        for tuning in [tuning, Tuning::default()] {
            let text = serde_json::to_string(&Stored::new("a CPU".into(), &tuning)).unwrap();
            let stored: Stored = serde_json::from_str(&text).unwrap();
            assert_eq!((stored.cpu.as_str(), stored.tuning()), ("a CPU", Ok(tuning)));
        }
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let stored = |lookup: &str, prefetch: &str, tasks: &str| {
            let text = format!(r#"{{"cpu":"","lookup":{lookup},"prefetch":{prefetch},"tasks":{tasks}}}"#);
            serde_json::from_str::<Stored>(&text).map_err(|e| e.to_string())?.tuning()
        };
        assert!(stored("{}", "0", "1").is_ok());
        for (lookup, prefetch, tasks) in [
            ("{}", "0", "0"),
            ("{}", "0", "1000000000000"),
            ("{}", "-1", "1"),
            ("{}", "2000000", "1"),
            (r#"{"avx9":{"tokens":1,"rows":1}}"#, "0", "1"),
            (r#"{"avx2":{"tokens":0,"rows":1}}"#, "0", "1"),
            (r#"{"avx2":{"tokens":1,"rows":0}}"#, "0", "1"),
            (r#"{"avx2":{"tokens":1,"rows":1,"more":1}}"#, "0", "1"),
        ] {
            assert!(stored(lookup, prefetch, tasks).is_err(), "{lookup} {prefetch} {tasks}");
        }
    }

    #[test]
    fn the_best_choice_wins_and_noise_does_not() {
        let tasks = |tasks| Tuning { tasks, ..Tuning::default() };
        let wait = |tuning: &Tuning| {
            let start = Instant::now();
            while start.elapsed().as_micros() < 200 * tuning.tasks as u128 {}
        };
        assert_eq!(best(tasks(4), &[tasks(8), tasks(1), tasks(2)], &mut { wait }).tasks, 1);
        assert_eq!(best(tasks(4), &[tasks(8)], &mut { wait }).tasks, 4);
    }
}
