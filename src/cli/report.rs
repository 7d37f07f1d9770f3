//! `tritmark report`.

use super::common::{print_json, print_line};
use crate::error::{Error, Result};
use crate::record;
use crate::report::{self, Format};
use std::path::PathBuf;

/// Render records as HTML, Markdown, CSV and JSON, and their plots as SVG and PNG.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark report my-run -o my-report
  tritmark report laptop.json server.json board.json -o machines
  tritmark report nightly/ -o trend --format html
  tritmark report record.json -o . --format md && cat report.md >> \"$GITHUB_STEP_SUMMARY\"

Several records give a matrix of machines and kernels, and a trend where one machine was measured
more than once.")]
pub struct Args {
    /// Records, as `run` and `bench --record` write them, merged ones too; the folder of a run; of a
    /// folder of records its .json files and the record.json of its folders
    #[arg(required = true, value_name = "RECORD|DIR")]
    records: Vec<PathBuf>,
    /// Folder to write to; made if need be
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Forms to write [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FORM")]
    format: Vec<Format>,
    /// Print the paths as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If a record cannot be read or a file not be written.
    pub fn run(self) -> Result<()> {
        let mut records = Vec::new();
        for path in files(&self.records)? {
            // A record that is named twice, or lies in two places, is one.
            for record in record::read(&path)? {
                if !records.contains(&record) {
                    records.push(record);
                }
            }
        }
        let formats = if self.format.is_empty() { Format::ALL.to_vec() } else { self.format };
        let written = report::write(&records, &self.output, &formats)?;
        if self.json {
            return print_json(&serde_json::json!({ "written": written }));
        }
        written.iter().try_for_each(|path| print_line(&path.display().to_string()))
    }
}

/// Records named one by one, and those of folders in the order of their names.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        // What `run` wrote: the record, and the reports made from it.
        let own = path.join("record.json");
        if own.is_file() {
            files.push(own);
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, e))?;
        let mut found: Vec<PathBuf> =
            entries.map(|e| e.map(|e| e.path()).map_err(|e| Error::io(path, e))).collect::<Result<_>>()?;
        found.retain_mut(|entry| {
            if entry.is_dir() {
                entry.push("record.json");
            }
            let report = entry.file_name().is_some_and(|n| n == "report.json");
            entry.is_file() && !report && entry.extension().is_some_and(|e| e == "json")
        });
        if found.is_empty() {
            return Err(Error::input(path, "expected records in this folder, found none"));
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}
