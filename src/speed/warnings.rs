//! What may be wrong with a timing, each a full sentence with advice.

use crate::words::counted;
use std::fmt;

/// A reason to trust a figure less.
#[derive(Debug, Clone, PartialEq)]
pub enum Warning {
    /// Too few samples for statistics.
    FewRounds(usize),
    /// Runs still varied when the warm-up ended.
    NotSettled {
        /// Warm-up runs.
        runs: usize,
        /// Runs that must agree.
        enough: usize,
        /// Standard deviation over mean of the last of them.
        variation: f64,
    },
    /// The first sample is a slow outlier.
    SlowFirstRound {
        /// How much slower than the median, as a share.
        by: f64,
    },
    /// The later half differs from the earlier one.
    Drift {
        /// Later median over earlier one, less 1.
        by: f64,
    },
    /// Samples scatter widely.
    Noisy {
        /// Median absolute deviation over median.
        spread: f64,
    },
    /// Some samples lie far from the others.
    Outliers {
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
    },
    /// A sample took too little time.
    TooShort {
        /// Median time of a sample, seconds.
        seconds: f64,
    },
    /// Other processes used the CPUs meanwhile.
    OtherLoad {
        /// Share of all CPUs' time.
        share: f64,
    },
    /// The hypervisor gave the CPUs to others meanwhile.
    Stolen {
        /// Share of all CPUs' time.
        share: f64,
    },
    /// The processor was slowed down by its temperature.
    Throttled {
        /// Throttling events of all cores.
        events: u64,
    },
    /// The clock changed from round to round.
    UnstableClock {
        /// Lowest and highest clock seen, MHz.
        mhz: [f64; 2],
    },
    /// More threads than CPUs.
    Oversubscribed {
        /// Threads of the arm.
        threads: u32,
        /// CPUs that this process may use.
        cpus: u32,
    },
    /// Faster than the machine's measured limit.
    AboveBound {
        /// Speed over bound.
        ratio: f64,
        /// Whether the bound is what memory gives.
        memory: bool,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        match self {
            Warning::FewRounds(n) => write!(
                f,
                "Only {} taken, too few for an interval to mean much; raise --rounds (and --budget, where given).",
                if *n == 1 { "1 sample was".into() } else { format!("{n} samples were") }
            ),
            Warning::NotSettled { runs, enough, .. } if runs < enough => write!(
                f,
                "The warm-up reached its cap of time after {}, too few to tell whether it settled.",
                counted(*runs as u64, "run")
            ),
            Warning::NotSettled { variation, .. } => write!(
                f,
                "The warm-up reached its cap of time while runs still varied by {}{}.",
                percent(*variation),
                if *variation > 0.1 { "; the machine was not steady, repeat when it is idle" } else { "" }
            ),
            Warning::SlowFirstRound { by } => write!(
                f,
                "The first round was {} slower than the rest, so something was still warming up; it is kept, \
                 and the median does not follow it.",
                percent(*by)
            ),
            Warning::Drift { by } => write!(
                f,
                "The second half of the rounds was {} {} than the first, more than chance explains: the \
                 machine drifted (temperature, clock or other load). Compare only arms of the same run.",
                percent(by.abs()),
                if *by < 0.0 { "slower" } else { "faster" }
            ),
            Warning::Noisy { spread } => write!(
                f,
                "Samples scatter by {} around their median; stop other programs or raise --rounds.",
                percent(*spread)
            ),
            Warning::Outliers { count, of } => {
                write!(f, "Far from the others: {count} of {of} samples, which are kept and marked.")
            }
            Warning::TooShort { seconds } => write!(
                f,
                "A sample took only {:.1} ms, in which interruptions weigh heavily; lengthen them (--min-time of \
                 `bench`, min_time_s of a suite).",
                1e3 * seconds
            ),
            Warning::OtherLoad { share } => write!(
                f,
                "Other programs used {} of the CPUs during the samples; stop them and repeat.",
                percent(*share)
            ),
            Warning::Stolen { share } => write!(
                f,
                "The hypervisor gave {} of the CPUs' time to others during the samples; figures of this \
                 virtual machine hold for its neighbours' load at the time only.",
                percent(*share)
            ),
            Warning::Throttled { events } => write!(
                f,
                "The processor throttled itself {events} times because it was too hot; improve its cooling \
                 or use fewer threads."
            ),
            Warning::UnstableClock { mhz: [low, high] } => write!(
                f,
                "The clock moved between {low:.0} and {high:.0} MHz; set the governor to `performance` and \
                 turbo off for comparable figures."
            ),
            Warning::Oversubscribed { threads, cpus } => {
                write!(f, "{threads} threads shared {}; use at most {cpus} of them.", counted(*cpus, "CPU"))
            }
            Warning::AboveBound { ratio, memory } => write!(
                f,
                "This is {} of what the machine's limit allows: {}do not quote it without an explanation.",
                percent(*ratio),
                if *memory {
                    "the limit was measured too low or the data came from a nearer cache than the bound assumes; "
                } else {
                    "its sums came from tables, of which one look-up stands for several multiply-adds, or the limit \
                     was measured too low; "
                }
            ),
        }
    }
}
