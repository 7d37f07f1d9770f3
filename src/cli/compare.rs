//! `tritmark compare`.

use super::common::print_line;
use crate::error::{Error, Result};
use crate::record::compare::{Options, compare};
use crate::record::compare_output::{self, Format};
use crate::record::gate::{self, Gate};
use crate::record::{self, Record};
use std::path::PathBuf;

/// Compare records: what got faster, slower, better or worse.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark compare before.json after.json
  tritmark compare main.json branch.json --fail-on 'tg>3%' --fail-on 'ppl>0.01' -o md
  tritmark compare base.json a.json b.json

Exit codes: 0 fine; 1 worse than --fail-on allows; 3 the measurements do not allow a verdict on
--fail-on; 4 different models, processors, CPU quotas, sizes of the machine, governors or
protocols, or one is virtual and the other is not, or there is nothing in common; 5 a file is no
record.
--fail-on asks where the whole 95 % interval lies: beyond the limit fails (where p < 0.01 too), within
it passes, else it is inconclusive, as is an arm that only the first record has. Of perplexity and accuracy
the figure itself counts. Energy has one window on each side, so more than the limit is inconclusive, as is
one that the other record lacks or took from another sensor.
Speeds are compared by the fastest run of each round (90 % quantile over the rounds): other load
only slows runs down, so these are what it disturbs least. A difference counts where the
Mann-Whitney U test gives p < 0.01, the 95 % interval of the ratio excludes 1, it exceeds
--tolerance, and it exceeds what the machine itself did between the records by the fixed loads
that were timed in the same rounds (of memory's change, what is bound by arithmetic follows the
power of 0.2 on one thread and nothing on more). Of two threads or more, only rounds are compared
around which these handed each other data about as fast (a virtual machine moves between near and
far cores); the rounds left out are named. Where the CPUs were quiet, a difference of the medians
that meets the same tests counts too; where the fastest runs scatter too widely to tell, medians
that do not and that agree count as the same. Where the interval alone speaks of a difference that
matters, nothing can be told; where nothing is found the column `sees` says how large a change
would have been noticed.")]
pub struct Args {
    /// Records: the first is what the others are held against
    #[arg(required = true)]
    records: Vec<PathBuf>,
    /// Fail if a figure got worse by more than a limit, as 'tg>3%' or 'ppl>0.01': pp (prompts), tg (generation), pg
    /// (both together), kernel, speed (all of these), ppl, acc (share of questions answered rightly) or energy; the
    /// last three also take an amount without %. May be given several times
    #[arg(long, value_name = "LIMIT")]
    fail_on: Vec<Gate>,
    /// Differences of speed up to this share are called the same, in percent
    #[arg(long, default_value_t = 3.0, value_name = "PERCENT", allow_negative_numbers = true)]
    tolerance: f64,
    /// Compare different models, processors and protocols; arms that are alone in their test and number of
    /// threads meet whatever they are
    #[arg(long)]
    force: bool,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    /// Form of the output
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,
    /// The same as -o json
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If a file holds no record, records cannot be compared, or a limit is passed or cannot be
    /// checked.
    pub fn run(self) -> Result<()> {
        if self.records.len() < 2 {
            return Err(Error::Usage(
                "at least two records are needed: the first is what the others are held against".into(),
            ));
        }
        if !(0.0..100.0).contains(&self.tolerance) {
            return Err(Error::Usage(format!(
                "--tolerance must be a share of 0 to 100 %, not {}",
                self.tolerance
            )));
        }
        let files: Vec<(String, Vec<Record>)> = self
            .records
            .iter()
            .map(|path| Ok((path.display().to_string(), record::read(path)?)))
            .collect::<Result<_>>()?;
        let options = Options { tolerance: self.tolerance / 100.0, force: self.force, seed: self.seed };
        let side = |i: usize| (files[i].0.as_str(), files[i].1.as_slice());
        let comparisons =
            (1..files.len()).map(|i| compare(side(0), side(i), &options)).collect::<Result<Vec<_>>>()?;
        let format = if self.json { Format::Json } else { self.output };
        let last = files.last().map_or(&[][..], |f| &f.1);
        let shown = print_line(compare_output::write(&comparisons, last, &self.fail_on, format).trim_end());
        // Whoever reads no further, as `| head`, still gets the verdict.
        gate::check(&self.fail_on, &comparisons).and(shown)
    }
}
