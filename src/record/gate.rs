//! Limits that a comparison must keep: `tg>3%`, `ppl>0.01`.

use super::Test;
use super::compare::{Comparison, Metric, Row, Verdict};
use crate::error::{Error, Result};
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
    Energy,
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "'{text}' is no limit: {why}; expected e.g. tg>3%, ppl>0.01 (one of pp, tg, pg, kernel, speed, ppl, energy)"
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
            "energy" => What::Energy,
            other => return Err(wrong(&format!("nothing is called '{other}'"))),
        };
        let limit = limit.trim();
        let (number, relative) =
            limit.strip_suffix('%').map_or((limit, false), |number| (number.trim(), true));
        let limit = number.parse::<f64>().ok().filter(|l| l.is_finite() && *l >= 0.0);
        let limit = limit.ok_or_else(|| wrong("what follows '>' is no number of at least 0"))?;
        if !relative && what != What::Perplexity && what != What::Energy {
            return Err(wrong("a limit of speed must end in %"));
        }
        Ok(Self { text: text.into(), what, limit: if relative { limit / 100.0 } else { limit }, relative })
    }
}

impl Gate {
    fn covers(&self, row: &Row) -> bool {
        let speed = |wanted: bool| row.metric == Metric::Speed && wanted;
        match (self.what, &row.test) {
            (What::Perplexity, _) => row.metric == Metric::Perplexity,
            (What::Energy, _) => row.metric == Metric::Energy,
            (What::Speed, _) => speed(true),
            (What::Kernel, test) => speed(matches!(test, Test::Kernel { .. })),
            (What::Prompt, Test::Model { prompt, generate, .. }) => speed(*prompt > 0 && *generate == 0),
            (What::Generate, Test::Model { prompt, generate, .. }) => speed(*prompt == 0 && *generate > 0),
            (What::Both, Test::Model { prompt, generate, .. }) => speed(*prompt > 0 && *generate > 0),
            _ => false,
        }
    }

    /// Whether `b` in place of `a` passes the limit.
    fn passed(&self, metric: Metric, a: f64, b: f64) -> bool {
        let worse = if metric == Metric::Speed { a - b } else { b - a };
        worse > if self.relative { self.limit * a } else { self.limit }
    }
}

/// Holds a comparison against limits.
///
/// # Errors
/// [`Error::Proof`] where a limit is passed for certain, else [`Error::Inconclusive`] where one may
/// be or nothing was measured that it speaks of.
pub fn check(gates: &[Gate], comparisons: &[Comparison]) -> Result<()> {
    let (mut failed, mut open) = (Vec::new(), Vec::new());
    for gate in gates {
        let rows: Vec<&Row> = comparisons.iter().flat_map(|c| &c.rows).filter(|r| gate.covers(r)).collect();
        if rows.is_empty() {
            open.push(format!("{}: no such figure is in both records", gate.text));
        }
        for row in rows {
            let line = || {
                let Row { a, b, ratio, unit, .. } = row;
                format!("{}: {}: {a:.4} → {b:.4} {unit}, ratio {ratio:.4}", gate.text, row.name())
            };
            let sampled = row.interval.is_some();
            if gate.passed(row.metric, row.a, row.a * row.ratio)
                && (!sampled || row.verdict == Verdict::Slower)
            {
                failed.push(line());
            } else if let Some([low, high]) = row.interval
                && gate.passed(row.metric, row.a, row.a * low)
            {
                open.push(format!("{}: the ratio may be {low:.3} to {high:.3}", line()));
            }
        }
    }
    if !failed.is_empty() {
        return Err(Error::Proof(format!("worse than allowed:\n  {}", failed.join("\n  "))));
    }
    if !open.is_empty() {
        return Err(Error::Inconclusive(format!("a limit cannot be checked:\n  {}", open.join("\n  "))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::compare::{Options, compare};
    use crate::record::{Record, example};
    use crate::speed::stats;

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
        for good in
            ["tg>3%", "pp > 3.5 %", "pg>0%", "kernel>1%", "speed>1%", "ppl>0.01", "ppl>1%", "energy>5%"]
        {
            good.parse::<Gate>().unwrap();
        }
        for bad in ["tg>3", "tg<3%", "tg", "x>3%", "tg>-1%", "tg>NaN%", "ppl>", "ppl>inf"] {
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
}
