//! `tritmark merge`.

use super::common::{print_json, print_line};
use crate::error::Result;
use crate::files::writable;
use crate::record::{self, merge};
use crate::words::counted;
use std::path::PathBuf;

/// Put records of many machines, or shards of one run, into one file.
///
/// Records of one machine, program and protocol become one; those of different machines stay apart
/// within the file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  tritmark merge shard-*.json laptop.json -o all.json

Exit code 4: records contradict each other.")]
pub struct Args {
    /// Records
    #[arg(required = true, num_args = 1..)]
    records: Vec<PathBuf>,
    /// Where to write them
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If a file holds no record, two records contradict each other, or the output cannot be written.
    pub fn run(self) -> Result<()> {
        writable(&[&self.output], &[])?;
        let mut records = Vec::new();
        for path in &self.records {
            let name = path.display().to_string();
            records.extend(record::read(path)?.into_iter().map(|record| (name.clone(), record)));
        }
        let read = records.len();
        let merged = merge::merge(records)?;
        record::write(&self.output, &merged)?;
        if self.json {
            return print_json(&merged);
        }
        let arms: usize = merged.iter().map(|r| r.arms.len()).sum();
        print_line(&format!(
            "{}: {} became {}, with {}",
            self.output.display(),
            counted(read as u64, "record"),
            merged.len(),
            counted(arms as u64, "arm")
        ))
    }
}
