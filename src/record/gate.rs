//! Limits that a comparison must keep: `tg>3%`, `ppl>0.01`.

use super::Test;
use super::compare::{Comparison, Metric, Row, SIGNIFICANT, Verdict};
use super::compare_output::figure;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A limit: what must not get worse by more than how much.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    text: String,
    what: What,
    limit: f64,
    relative: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Prompt,
    Generate,
    Both,
    Kernel,
    Speed,
    Perplexity,
    Accuracy,
    Energy,
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "'{text}' is no limit: {why}; expected e.g. tg>3%, ppl>0.01 (one of pp, tg, pg, kernel, speed, ppl, acc, energy)"
            )
        };
        let (what, limit) = text.split_once('>').ok_or_else(|| wrong("it has no '>'"))?;
        let what = match what.trim() {
            "pp" => What::Prompt,
            "tg" => What::Generate,
            "pg" => What::Both,
            "kernel" => What::Kernel,
            "speed" => What::Speed,
            "ppl" => What::Perplexity,
            "acc" => What::Accuracy,
            "energy" => What::Energy,
            other => return Err(wrong(&format!("nothing is called '{other}'"))),
        };
        let limit = limit.trim();
        let (number, relative) =
            limit.strip_suffix('%').map_or((limit, false), |number| (number.trim(), true));
        let limit = number.parse::<f64>().ok().filter(|l| l.is_finite() && *l >= 0.0);
        let limit = limit.ok_or_else(|| wrong("what follows '>' is no number of at least 0"))?;
        let of_speed = !matches!(what, What::Perplexity | What::Accuracy | What::Energy);
        if of_speed && !relative {
            return Err(wrong("a limit of speed must end in %"));
        }
        if of_speed && limit >= 100.0 {
            return Err(wrong("nothing is slower by 100 % or more, so it would always be kept"));
        }
        Ok(Self { text: text.into(), what, limit: if relative { limit / 100.0 } else { limit }, relative })
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a figure says of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It is within.
    Kept,
    /// It is beyond for certain.
    Passed,
    /// The measurements do not allow a verdict.
    Open,
}

impl Gate {
    /// Whether the limit speaks of a figure of a test.
    fn covers(&self, metric: Metric, test: &Test) -> bool {
        let speed = |wanted: bool| metric == Metric::Speed && wanted;
        match (self.what, test) {
            (What::Perplexity, _) => metric == Metric::Perplexity,
            (What::Accuracy, _) => metric == Metric::Accuracy,
            (What::Energy, _) => metric == Metric::Energy,
            (What::Speed, _) => speed(true),
            (What::Kernel, test) => speed(matches!(test, Test::Kernel { .. })),
            (What::Prompt, Test::Model { prompt, generate, .. }) => speed(*prompt > 0 && *generate == 0),
            (What::Generate, Test::Model { prompt, generate, .. }) => speed(*prompt == 0 && *generate > 0),
            (What::Both, Test::Model { prompt, generate, .. }) => speed(*prompt > 0 && *generate > 0),
            _ => false,
        }
    }

    /// What a figure says of the limit, if it is one that the limit speaks of.
    ///
    /// Of sampled figures the whole 95 % interval must lie on one side of the limit, and speak of the
    /// program alone; to be beyond, chance must not explain the difference by its ranks either. A perplexity is the
    /// same each time. One window of energy on each side tells a loss from chance in no case. Where the machine became
    /// faster, a loss may hide behind that.
    pub fn judge(&self, row: &Row) -> Option<Held> {
        if !self.covers(row.metric, &row.test) {
            return None;
        }
        let beyond = |b: f64| self.beyond(row.metric, row.a, b);
        let ends = row.interval.map_or([row.b; 2], |ends| ends.map(|ratio| row.a * ratio));
        let hidden = beyond(ends[0] / row.gain);
        let ends = ends.map(beyond);
        let chance = row.p.is_some_and(|p| p >= SIGNIFICANT);
        let doubted = row.doubt.is_some() || chance || row.metric == Metric::Energy;
        Some(match ends {
            [true, true] if !doubted && row.verdict != Verdict::CannotTell => Held::Passed,
            [false, false] if row.metric == Metric::Energy => Held::Kept,
            [false, false] if row.verdict != Verdict::CannotTell && !hidden => Held::Kept,
            _ => Held::Open,
        })
    }

    /// Of what the limit speaks but nothing can be said, and why: arms and figures that were lost, or that there is
    /// none.
    pub fn without(&self, comparison: &Comparison) -> Vec<(String, String)> {
        let Comparison { a, b, rows, only_a, lost, .. } = comparison;
        let arms = only_a.iter().filter(|arm| arm.metrics.iter().any(|&m| self.covers(m, &arm.test)));
        let arms = arms.map(|arm| (arm.name.clone(), format!("it is in {a} but not in {b}")));
        let figures = lost.iter().filter(|figure| self.covers(figure.metric, &figure.test));
        let figures = figures.map(|figure| (figure.name.clone(), figure.why.clone()));
        let none = !rows.iter().any(|row| self.covers(row.metric, &row.test));
        let none = none.then(|| ("every arm".to_owned(), format!("no such figure is in both {a} and {b}")));
        arms.chain(figures).chain(none).collect()
    }

    /// Whether `b` in place of `a` passes the limit.
    fn beyond(&self, metric: Metric, a: f64, b: f64) -> bool {
        /// Figures that are as much apart as the limit may seem to be a little more.
        const ROUNDING: f64 = 1e-9;
        let worse = if matches!(metric, Metric::Speed | Metric::Accuracy) { a - b } else { b - a };
        worse > (1.0 + ROUNDING) * if self.relative { self.limit * a } else { self.limit }
    }
}

/// Holds a comparison against limits.
///
/// # Errors
/// [`Error::Proof`] where a limit is passed for certain, else [`Error::Inconclusive`] where one may
/// be, or what it speaks of was not measured, or not again.
pub fn check(gates: &[Gate], comparisons: &[Comparison]) -> Result<()> {
    let (mut failed, mut open) = (Vec::new(), Vec::new());
    for (gate, comparison) in gates.iter().flat_map(|g| comparisons.iter().map(move |c| (g, c))) {
        // Of several it is told which.
        let of = if comparisons.len() > 1 { format!("{}: ", comparison.b) } else { String::new() };
        let without = gate.without(comparison).into_iter();
        open.extend(without.map(|(what, why)| format!("{of}{gate}: {what}: {why}")));
        for row in &comparison.rows {
            let Row { a, b, unit, ratio_of, .. } = row;
            let interval = row.interval.map(|[low, high]| format!(" ({low:.4} to {high:.4})"));
            let why = row.doubt.as_ref().or(row.reason.as_ref());
            let line = format!(
                "{of}{gate}: {}: {} → {}{}, ratio of {ratio_of} {}{}{}",
                row.name(),
                figure(row, *a),
                figure(row, *b),
                if unit.is_empty() { String::new() } else { format!(" {unit}") },
                row.ratio_in_words(),
                interval.unwrap_or_default(),
                why.map(|why| format!(": {why}")).unwrap_or_default()
            );
            match gate.judge(row) {
                Some(Held::Passed) => failed.push(line),
                Some(Held::Open) => open.push(line),
                Some(Held::Kept) | None => {}
            }
        }
    }
    let unchecked = || format!("a limit cannot be checked:\n  {}", open.join("\n  "));
    match (failed.is_empty(), open.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(Error::Inconclusive(unchecked())),
        (false, checked) => {
            let further = if checked { String::new() } else { format!("\n{}", unchecked()) };
            Err(Error::Proof(format!("worse than allowed:\n  {}{further}", failed.join("\n  "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::compare::{Options, compare};
    use crate::record::{MeasuredEnergy, Outcome, Record, example};
    use crate::stats;

    /// The example with its speeds times `factor`, stretched around their median by `spread`.
    fn scaled(factor: f64, spread: f64) -> Record {
        let mut record = example();
        for speed in record.arms.iter_mut().filter_map(|a| a.speed.as_mut()) {
            let centre = speed.median;
            speed.samples.iter_mut().for_each(|s| *s = factor * (centre + spread * (*s - centre)));
            speed.median = stats::median(&speed.samples);
        }
        record
    }

    fn checked(gates: &[&str], b: Record) -> Result<()> {
        let gates: Vec<Gate> = gates.iter().map(|g| g.parse().unwrap()).collect();
        let comparison = compare(("a", &[example()]), ("b", &[b]), &Options::default()).unwrap();
        check(&gates, &[comparison])
    }

    #[test]
    fn limits_are_read_or_refused_with_what_was_expected() {
        for good in [
            "tg>3%",
            "pp > 3.5 %",
            "pg>0%",
            "kernel>1%",
            "speed>1%",
            "ppl>0.01",
            "ppl>1%",
            "acc>0.02",
            "energy>500%",
        ] {
            good.parse::<Gate>().unwrap();
        }
        for bad in ["tg>3", "tg<3%", "tg", "x>3%", "tg>-1%", "tg>NaN%", "ppl>", "ppl>inf", "tg>100%"] {
            let error = bad.parse::<Gate>().unwrap_err();
            assert!(error.contains("expected e.g. tg>3%"), "{bad}: {error}");
        }
    }

    #[test]
    fn certain_regressions_fail_and_uncertain_ones_are_inconclusive() {
        assert!(checked(&["tg>3%", "ppl>0.01"], example()).is_ok());
        let error = checked(&["tg>3%"], scaled(0.9, 1.0)).unwrap_err();
        assert!(matches!(&error, Error::Proof(m) if m.contains("tg128") && !m.contains("pp512")), "{error}");
        assert!(checked(&["tg>15%"], scaled(0.9, 1.0)).is_ok());
        assert!(checked(&["speed>3%"], scaled(1.1, 1.0)).is_ok());
        // Ten times the noise: the interval of the ratio reaches beyond the limit.
        assert!(matches!(checked(&["tg>3%"], scaled(0.999, 10.0)), Err(Error::Inconclusive(_))));
        assert!(matches!(checked(&["kernel>3%"], example()), Err(Error::Inconclusive(_))));
    }

    #[test]
    fn perplexity_has_limits_in_its_own_unit_and_in_percent() {
        let mut worse = example();
        let accuracy = worse.arms[2].accuracy.as_mut().unwrap();
        accuracy.ppl += 0.05;
        accuracy.nll = accuracy.ppl.ln();
        accuracy.nll_bits = format!("{:016x}", accuracy.nll.to_bits());
        assert!(matches!(checked(&["ppl>0.01"], worse.clone()), Err(Error::Proof(_))));
        assert!(checked(&["ppl>0.1", "ppl>1%"], worse.clone()).is_ok());
        assert!(matches!(checked(&["ppl>0.1%"], worse), Err(Error::Proof(_))));
    }

    #[test]
    fn a_certain_loss_below_the_tolerance_passes_a_finer_limit() {
        // Ten samples around the centre that scatter by less than 0.5 %.
        let slower = scaled(0.98, 0.3);
        assert!(matches!(checked(&["tg>1%"], slower.clone()), Err(Error::Proof(_))));
        assert!(checked(&["tg>3%"], slower.clone()).is_ok());
        assert!(matches!(checked(&["tg>2%"], slower), Err(Error::Inconclusive(_))));
    }

    #[test]
    fn what_chance_explains_fails_nothing_and_is_checked_no_further() {
        // Two of eight were as slow before: the interval of the quantile says less than the limit, the ranks nothing.
        let with = |best: [f64; 8]| {
            let mut record = example();
            let arm = record.arms.iter_mut().find(|a| a.test.to_string() == "tg128").unwrap();
            let speed = arm.speed.as_mut().unwrap();
            (speed.samples, speed.best, speed.handoff) = (best.to_vec(), best.to_vec(), Vec::new());
            speed.median = stats::median(&best);
            record
        };
        let before = with([100.0, 100.1, 99.9, 100.05, 100.02, 95.0, 94.0, 96.0]);
        let after = with([97.5, 97.4, 97.6, 97.45, 96.9, 97.2, 97.1, 97.0]);
        let comparison = compare(("a", &[before]), ("b", &[after]), &Options::default()).unwrap();
        let row = comparison.rows.iter().find(|row| row.test.to_string() == "tg128").unwrap();
        assert!(row.interval.unwrap()[1] < 0.99 && row.p.unwrap() > SIGNIFICANT, "{row:?}");
        let error = check(&["tg>1%".parse().unwrap()], &[comparison]).unwrap_err();
        assert!(matches!(error, Error::Inconclusive(_)), "{error}");
    }

    #[test]
    fn a_limit_that_is_met_is_kept() {
        let gate = |limit: &str| limit.parse::<Gate>().unwrap();
        for right in 1..100 {
            let [before, after] = [right, right - 1].map(|n| f64::from(n) / 100.0);
            assert!(!gate("acc>0.01").beyond(Metric::Accuracy, before, after), "{right}");
            assert!(gate("acc>0.0099").beyond(Metric::Accuracy, before, after), "{right}");
        }
        assert!(!gate("energy>5%").beyond(Metric::Energy, 2.0, 2.1));
        assert!(gate("ppl>0").beyond(Metric::Perplexity, 17.0, 17.000_000_001));
    }

    #[test]
    fn one_window_of_energy_fails_nothing_for_certain() {
        let energy = |joules: f64| {
            let mut record = example();
            let measured = serde_json::json!({ "measured": {
                "source": "s", "domain": "d", "gross_joules": joules, "net_joules": null, "idle_watts": null,
                "seconds": 10.0, "tokens": 10, "joules_per_token": joules / 10.0, "warnings": [],
            }});
            record.arms[1].energy_measured = Some(serde_json::from_value(measured).unwrap());
            record
        };
        let gates: [Gate; 1] = ["energy>5%".parse().unwrap()];
        let held = |joules: f64| {
            let comparison = compare(("a", &[energy(10.0)]), ("b", &[energy(joules)]), &Options::default());
            check(&gates, &[comparison.unwrap()])
        };
        assert!(held(10.0).is_ok() && held(10.2).is_ok());
        assert!(matches!(held(20.0), Err(Error::Inconclusive(_))));
    }

    #[test]
    fn an_energy_that_is_not_measured_again_is_inconclusive_beside_one_that_is() {
        let energy = |source: &str| {
            let measured = serde_json::json!({ "measured": {
                "source": source, "domain": "d", "gross_joules": 20.0, "net_joules": null, "idle_watts": null,
                "seconds": 10.0, "tokens": 10, "joules_per_token": 2.0, "warnings": [],
            }});
            Some(serde_json::from_value::<Outcome<MeasuredEnergy>>(measured).unwrap())
        };
        let record = |second: Option<Outcome<MeasuredEnergy>>| {
            let mut record = example();
            record.arms[0].energy_measured = energy("s");
            record.arms[1].energy_measured = second;
            record
        };
        let gates: [Gate; 1] = ["energy>5%".parse().unwrap()];
        let held = |a: Option<Outcome<MeasuredEnergy>>, b: Option<Outcome<MeasuredEnergy>>| {
            let comparison = compare(("a", &[record(a)]), ("b", &[record(b)]), &Options::default()).unwrap();
            (check(&gates, std::slice::from_ref(&comparison)), comparison.notes)
        };
        let unplugged = || Some(Outcome::NotMeasured("no meter".into()));
        for (after, said) in [
            (unplugged(), "it was measured by s (d) before and not after: no meter"),
            (None, "it was measured by s (d) before and not after"),
            (energy("t"), "it was measured by s (d) and t (d)"),
        ] {
            let (checked, notes) = held(energy("s"), after);
            let error = checked.expect_err(said);
            let text = error.to_string();
            assert!(matches!(error, Error::Inconclusive(_)) && text.contains("tg128"), "{text}");
            assert!(text.contains(said) && !text.contains("pp512"), "{text}");
            assert!(notes.iter().any(|n| n.contains("tg128") && n.contains(said)), "{notes:?}");
        }
        assert!(held(energy("s"), energy("s")).0.is_ok());
        // What was not measured before is not lost.
        assert!(held(unplugged(), energy("s")).0.is_ok() && held(unplugged(), unplugged()).0.is_ok());
    }
}
