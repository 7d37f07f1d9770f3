//! What can be said of two measurements of one arm.
//!
//! Verdicts on speed rest on the *fastest run of each round*, of which the 90 % quantile over the
//! rounds is compared: other load only ever makes a run slower, so these are what it disturbed least
//! (after Chen & Revels, "Robust benchmarking in noisy environments", 2016). A slower program is
//! slower at its fastest too. What this cannot see, a program whose typical run got slower while its
//! fastest did not, shows in the medians, and is told where nothing else explains it and they do not
//! scatter: who shares a core with a virtual machine slows some rounds of vector code by a third, and
//! controls do not see it. Where other load hardly ever pauses, the fastest runs are those that met one of
//! its pauses, and scatter; if the medians do not, and agree, they show that typical runs are the same.
//!
//! A virtual machine moves between cores that share a cache and cores that do not. How fast threads
//! hand each other a cache line tells which, and is kept beside each sample. Where both records hold
//! enough rounds of one such state, only these are held against each other, and the others are named.
//! They are chosen by that speed alone, never by the figures that are compared.

use super::{Options, Row, Verdict};
use crate::record::state::{ENOUGH_ROUNDS, FASTEST, ONE_STATE, of_state};
use crate::record::{Control, Record, Speed};
use crate::stats;
use crate::words::counted;

/// Share of the differences that chance alone is allowed to pass off as real.
pub const SIGNIFICANT: f64 = 0.01;
/// Greatest upper over lower end of a ratio's interval that still tells something.
const WIDEST: f64 = 1.25;
/// The power of the change of memory's speed that an arm follows which is held back by arithmetic: what it
/// works on has its own place in caches, but others displace it. Prefill of a model that fits a cache
/// followed it by the power of 0.14 to 0.19 on a shared machine.
const FOLLOWS: f64 = 0.2;
/// What a ratio may be off by through rounding.
const ROUNDING: f64 = 1e-9;
/// Share of the CPUs' time that others may take from arms whose threads need a CPU each.
const QUIET: f64 = 0.05;

/// The two speeds that are compared, and the records they stand in.
pub(super) struct Sides<'a> {
    records: [&'a Record; 2],
    /// [`Arm::run`](crate::record::Arm::run) of both.
    runs: [u32; 2],
    speeds: [&'a Speed; 2],
    /// The rounds to compare, where it is not all of them.
    rounds: Option<[Vec<usize>; 2]>,
    /// Whether the rounds to compare met the machine in one state.
    one_state: bool,
}

/// The least and the greatest of some values.
fn range(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    values
        .fold(None, |range, v| Some(range.map_or([v; 2], |[low, high]: [f64; 2]| [low.min(v), high.max(v)])))
}

/// The rounds of both sides in that state of the machine of which both have the most, if these are
/// enough: those before and after which threads handed each other data at a speed within one stretch
/// of [`ONE_STATE`].
pub(super) fn of_one_state(a: &[Option<[f64; 2]>], b: &[Option<[f64; 2]>]) -> Option<[Vec<usize>; 2]> {
    let states =
        a.iter().chain(b).flatten().flatten().map(|&low| (low, [of_state(a, low), of_state(b, low)]));
    let size = |rounds: &[Vec<usize>; 2]| {
        let [a, b] = rounds.each_ref().map(Vec::len);
        (a.min(b), a + b)
    };
    let most = states.max_by(|x, y| size(&x.1).cmp(&size(&y.1)).then(x.0.total_cmp(&y.0)))?.1;
    (size(&most).0 >= ENOUGH_ROUNDS).then_some(most)
}

/// Two sets of samples held against each other at one quantile.
struct Contrast {
    ratio: f64,
    interval: [f64; 2],
    p: f64,
}

impl Contrast {
    fn new(a: &[f64], b: &[f64], q: f64, seed: u64) -> Self {
        Self {
            ratio: stats::quantile(b, q) / stats::quantile(a, q),
            interval: stats::quantile_ratio_interval(a, b, q, seed),
            p: stats::mann_whitney(a, b),
        }
    }

    fn too_wide(&self) -> bool {
        self.interval[1] / self.interval[0] > WIDEST
    }

    /// Whether chance does not explain the difference.
    fn certain(&self) -> bool {
        let [low, high] = self.interval;
        self.p < SIGNIFICANT && !(low..=high).contains(&1.0)
    }

    /// Whether chance does not explain the difference and it is one that matters.
    fn differs(&self, tolerance: f64) -> bool {
        self.certain() && (self.ratio - 1.0).abs() > tolerance + ROUNDING
    }

    /// Whether the interval alone says that there is a difference, and that it is more than what is tolerated, or
    /// leaves room for one of twice that.
    fn suspect(&self, tolerance: f64) -> bool {
        let [low, high] = self.interval;
        let slower = high < 1.0 - tolerance || high < 1.0 && low < 1.0 - 2.0 * tolerance;
        slower || low > 1.0 + tolerance || low > 1.0 && high > 1.0 + 2.0 * tolerance
    }

    /// Whether the machine's own change reaches as far.
    fn explained_by(&self, shift: [f64; 2]) -> bool {
        let [low, high] = self.interval;
        if self.ratio < 1.0 { high >= shift[0] } else { low <= shift[1] }
    }
}

impl<'a> Sides<'a> {
    pub(super) fn new(records: [&'a Record; 2], runs: [u32; 2], speeds: [&'a Speed; 2]) -> Self {
        let [a, b] = speeds.map(|s| &s.handoff[..]);
        let all = |rounds: &[Vec<usize>; 2]| rounds[0].len() == a.len() && rounds[1].len() == b.len();
        let alike = of_one_state(a, b);
        let rounds = alike.clone().filter(|rounds| !all(rounds));
        Self { records, runs, speeds, one_state: alike.is_some(), rounds }
    }

    /// Of values of both sides, one for each of their rounds, those of the rounds to compare; all of a
    /// side that has other than one for each.
    fn of(&self, values: [&[f64]; 2]) -> [Vec<f64>; 2] {
        [0, 1].map(|side| match &self.rounds {
            Some(rounds) if values[side].len() == self.speeds[side].samples.len() => {
                rounds[side].iter().map(|&i| values[side][i]).collect()
            }
            _ => values[side].to_vec(),
        })
    }

    /// Which rounds are compared and why the others are not.
    fn words(&self) -> Option<String> {
        let rounds = self.rounds.as_ref()?;
        let of = |compared: bool| {
            let rates = [0, 1].into_iter().flat_map(move |side| {
                let rates = self.speeds[side].handoff.iter().enumerate();
                rates.filter(move |(i, _)| rounds[side].contains(i) == compared).flat_map(|(_, pair)| *pair)
            });
            range(rates.flatten()).map(|[low, high]| format!("{low:.1} to {high:.1}"))
        };
        let why = match of(false) {
            Some(others) => format!("before or after those left out it was {others}"),
            None => "in those left out other programs held the CPUs, so that it was not measured".into(),
        };
        let [a, b] = [0, 1]
            .map(|side| format!("{} of {} rounds", rounds[side].len(), self.speeds[side].samples.len()));
        Some(format!(
            "compared over {a} before and {b} after, in which threads handed each other {} million cache lines \
             a second; {why}",
            of(true).unwrap_or_default()
        ))
    }

    /// Whether both hold the fastest run of each round.
    fn have_fastest(&self) -> bool {
        self.speeds.iter().all(|s| !s.best.is_empty())
    }

    /// Of the rounds compared the slower of the hand-overs before and after.
    fn handoff(&self) -> [Vec<f64>; 2] {
        [0, 1].map(|side| {
            let compared = |i: &usize| self.rounds.as_ref().is_none_or(|r| r[side].contains(i));
            let pairs = self.speeds[side].handoff.iter().enumerate().filter(|(i, _)| compared(i));
            pairs.filter_map(|(_, pair)| pair.map(|[x, y]| x.min(y))).collect()
        })
    }

    /// Why the samples scatter too widely.
    fn scatter(&self) -> String {
        let handoff = self.handoff();
        if handoff.iter().all(|rates| !rates.is_empty()) {
            let [a, b] = handoff.map(|rates| stats::median(&rates));
            if a.max(b) > ONE_STATE * a.min(b) {
                return format!(
                    "most rounds before and after met the machine in different states, in which threads handed each \
                     other {a:.1} and {b:.1} million cache lines a second; measure again, with more --rounds"
                );
            }
        }
        "the samples scatter too widely".into()
    }

    /// The power of a control's change that the arm follows.
    fn follows(&self, control: &Control) -> f64 {
        let memory = self.speeds.iter().any(|s| s.bound.as_ref().is_none_or(|b| b.memory));
        match control.threads {
            _ if memory || control.name != "read" => 1.0,
            1 => FOLLOWS,
            // How fast several threads read is up to the state of the machine above all, and of the arm only
            // rounds of one are compared.
            _ => 0.0,
        }
    }

    /// How much faster or slower the machine itself became, by the controls of that many threads that the arm follows
    /// and, in different states, the hand-overs between them: the interval of each ratio.
    fn changes(&self, threads: u32, fastest: bool, seed: u64) -> Vec<[f64; 2]> {
        let [a, b] = self.records;
        let mut changes = Vec::new();
        let mut add = |values: [&[f64]; 2], q: f64, power: f64| {
            let [before, after] = self.of(values);
            if power > 0.0 && !before.is_empty() && !after.is_empty() {
                let interval = stats::quantile_ratio_interval(&before, &after, q, seed);
                changes.push(interval.map(|end| end.powf(power)));
            }
        };
        // Within a state arms do not follow it: over the rounds of 188 arms of two threads (an Emerald Rapids) the
        // power of its change with which they changed was 0.02, the mean weighted by certainty.
        if !self.one_state {
            add(self.handoff().each_ref().map(Vec::as_slice), if fastest { FASTEST } else { 0.5 }, 1.0);
        }
        let [first, second] = self.runs;
        for after in b.controls.iter().filter(|c| (c.threads, c.run) == (threads, second)) {
            let alike = |c: &&Control| (c.threads, c.run) == (threads, first) && c.name == after.name;
            let Some(before) = a.controls.iter().find(alike) else { continue };
            let fastest = fastest && !before.best.is_empty() && !after.best.is_empty();
            if fastest {
                add([&before.best, &after.best], FASTEST, self.follows(after));
            } else {
                add([&before.samples, &after.samples], 0.5, self.follows(after));
            }
        }
        changes
    }

    /// How far the machine's change may reach.
    fn shift(&self, threads: u32, fastest: bool, seed: u64) -> [f64; 2] {
        reach(&self.changes(threads, fastest, seed))
    }

    /// What others took of the CPUs, if the arm's threads did not have a CPU each because of it.
    fn crowded(&self, threads: u32) -> Option<f64> {
        let of_side = self.records.iter().zip(self.speeds).filter_map(|(record, speed)| {
            let (cpus, taken) = (f64::from(record.environment.threads), speed.disturbance?);
            (taken > QUIET && f64::from(threads) > cpus * (1.0 - taken)).then_some(taken)
        });
        of_side.reduce(f64::max)
    }

    fn disturbed(&self) -> bool {
        self.speeds.iter().any(|s| s.disturbance.is_none_or(|taken| taken > QUIET))
    }
}

pub(super) fn judge_speed(row: &mut Row, sides: &Sides<'_>, options: &Options) {
    let [a, b] = sides.speeds;
    let have_fastest = sides.have_fastest();
    row.ratio_of = if have_fastest { "fastest runs" } else { "medians" };
    if a.samples == b.samples && a.best == b.best {
        (row.interval, row.p, row.verdict) = (Some([1.0, 1.0]), Some(1.0), Verdict::Same);
        return;
    }
    let threads = row.subject.threads;
    row.rounds = sides.words();
    let contrast = |values: [&[f64]; 2], q: f64| {
        let [a, b] = sides.of(values);
        Contrast::new(&a, &b, q, options.seed)
    };
    let medians = contrast([&a.samples, &b.samples], 0.5);
    let fastest = have_fastest.then(|| contrast([&a.best, &b.best], FASTEST));
    let scattered = |c: &Contrast| c.too_wide() && !medians.too_wide() && !medians.differs(options.tolerance);
    let by_medians = fastest.as_ref().is_some_and(scattered);
    if by_medians {
        row.ratio_of = "medians";
    }
    let main = fastest.as_ref().filter(|_| !by_medians).unwrap_or(&medians);
    (row.ratio, row.interval, row.p) = (main.ratio, Some(main.interval), Some(main.p));
    // One sample says nothing of chance.
    if [a, b].iter().any(|speed| speed.known_interval().is_none()) {
        (row.interval, row.p) = (None, None);
    }
    let percent = |ratio: f64| format!("{:.1} %", 100.0 * (ratio - 1.0).abs());
    let word = |ratio: f64| if ratio < 1.0 { "slower" } else { "faster" };
    let of_program = |ratio: f64| if ratio < 1.0 { Verdict::Slower } else { Verdict::Faster };

    let few = a.samples.len().min(b.samples.len()) < ENOUGH_ROUNDS;
    // Only what is certain, or suspected, needs an explanation.
    let (certain, suspect) = (main.certain(), main.suspect(options.tolerance));
    let asked = !few && !main.too_wide() && (certain || suspect);
    let shift = if asked { sides.shift(threads, have_fastest, options.seed) } else { [1.0; 2] };
    row.gain = shift[1];
    let crowded = sides.crowded(threads).filter(|_| asked);
    row.doubt = if few {
        Some(format!("fewer than {ENOUGH_ROUNDS} samples"))
    } else if main.too_wide() {
        Some(sides.scatter())
    } else if !asked {
        None
    } else if let Some(taken) = crowded {
        Some(format!(
            "other programs took {:.0} % of the CPUs, so {} had none {}",
            100.0 * taken,
            counted(threads, "thread"),
            if threads == 1 { "of its own" } else { "each" }
        ))
    } else {
        main.explained_by(shift).then(|| {
            let end = if main.ratio < 1.0 { shift[0] } else { shift[1] };
            format!("the machine itself was up to {} {}", percent(end), word(main.ratio))
        })
    };
    let doubted = if crowded.is_some() { Verdict::CannotTell } else { of_machine(shift) };
    (row.verdict, row.reason) = if few || main.too_wide() {
        (Verdict::CannotTell, row.doubt.clone())
    } else if main.differs(options.tolerance) {
        (if row.doubt.is_some() { doubted } else { of_program(main.ratio) }, row.doubt.clone())
    } else if fastest.is_some()
        && !sides.disturbed()
        && medians.differs(options.tolerance)
        && !medians.too_wide()
        && !medians.explained_by(sides.shift(threads, false, options.seed))
    {
        (row.ratio, row.interval, row.p) = (medians.ratio, Some(medians.interval), Some(medians.p));
        row.ratio_of = "medians";
        let fastest = match certain {
            true => format!("{} {}, within the tolerance", percent(main.ratio), word(main.ratio)),
            false => "the same".into(),
        };
        let reason =
            format!("typical runs, by their medians, and without other load; the fastest are {fastest}");
        (of_program(medians.ratio), Some(reason))
    } else if by_medians && !suspect {
        (Verdict::Same, Some("typical runs, by their medians; the fastest scatter too widely".into()))
    } else if certain {
        let reason = format!("{} {}, within the tolerance", percent(main.ratio), word(main.ratio));
        (Verdict::Same, Some(reason))
    } else if suspect && row.doubt.is_some() {
        (doubted, row.doubt.clone())
    } else if suspect {
        let reason = format!("the interval says {}, the ranks of the samples do not", word(main.ratio));
        (Verdict::CannotTell, Some(reason))
    } else {
        (Verdict::Same, None)
    };
    // A change of the program may hide behind one of the machine, where all that tells of it is certain of one.
    let changes = if row.verdict == Verdict::Same && row.doubt.is_none() {
        sides.changes(threads, have_fastest, options.seed)
    } else {
        Vec::new()
    };
    let faster = changes.iter().all(|change| change[0] > 1.0 + options.tolerance);
    let slower = changes.iter().all(|change| change[1] < 1.0 - options.tolerance);
    let mut hidden = 0.0;
    if !changes.is_empty() && (faster || slower) {
        let shift = reach(&changes);
        hidden = shift[1] - shift[0];
        row.gain = shift[1];
        let end = if faster { shift[1] } else { shift[0] };
        row.doubt = Some(format!(
            "the machine itself was up to {} {}, which may hide as much",
            percent(end),
            word(end)
        ));
        (row.verdict, row.reason) = (of_machine(shift), row.doubt.clone());
    }
    if row.verdict == Verdict::Same && !certain {
        let [low, high] = main.interval;
        row.seen_above = Some(options.tolerance.max(row.ratio - low).max(high - row.ratio) + hidden);
    }
}

/// The range from the lowest to the highest end of intervals of ratios and 1.
fn reach(intervals: &[[f64; 2]]) -> [f64; 2] {
    intervals.iter().fold([1.0; 2], |range, [low, high]| [range[0].min(*low), range[1].max(*high)])
}

/// A difference that is no larger than the machine's own: none found, unless the machine changed so
/// much that it would hide a large one.
fn of_machine([low, high]: [f64; 2]) -> Verdict {
    if high / low > WIDEST { Verdict::CannotTell } else { Verdict::Same }
}
