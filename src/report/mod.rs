//! Reports: records rendered as HTML, Markdown, CSV, JSON, and each plot as SVG and PNG.
//!
//! A document is made from the records alone; HTML and Markdown print it. CSV and JSON hold one row for each arm. JSON
//! also holds one for each approximation with its cost, one for each arm that was measured over time, and the records
//! themselves, so that every figure of a page is found again there.

mod document;
mod number;
mod plot;
mod render;
mod row;
mod sections;

use crate::error::{Error, Result};
use crate::files::{make_folder, write_whole};
use crate::record::Record;
use crate::words::csv_cell;
use document::Block;
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A form of report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One self-contained page
    Html,
    /// For pull requests and job summaries
    Md,
    /// One row an arm
    Csv,
    /// The same rows, and the records with their raw samples
    Json,
    /// Each plot as a file
    Svg,
    /// The same as pictures of pixels
    Png,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 6] =
        [Format::Html, Format::Md, Format::Csv, Format::Json, Format::Svg, Format::Png];
}

/// What the JSON report holds, and what the page embeds.
#[derive(Serialize)]
struct Data<'a> {
    verdict: &'a [String],
    rows: Vec<row::Row>,
    costs: Vec<sections::Cost>,
    trends: Vec<sections::Trend>,
    loads: Vec<sections::Load>,
    records: &'a [Record],
}

/// What follows from the figures of records, in sentences.
pub fn verdict(records: &[Record]) -> Vec<String> {
    sections::verdict::sentences(records)
}

/// Writes all forms of report into `dir`; see [`write()`].
///
/// # Errors
/// If a file cannot be written.
pub fn write_all(records: &[Record], dir: &Path) -> Result<Vec<PathBuf>> {
    write(records, dir, &Format::ALL)
}

/// Writes reports on `records` into `dir`, which is made if need be: `report.html`, `report.md`,
/// `report.csv`, `report.json`, `plots/*.svg`, `plots/*.png`. Gives the paths, the page first.
///
/// # Errors
/// If there is no record, or a file cannot be written.
pub fn write(records: &[Record], dir: &Path, formats: &[Format]) -> Result<Vec<PathBuf>> {
    if records.is_empty() {
        return Err(Error::Usage("no record to report on".into()));
    }
    make_folder(dir)?;
    let document = sections::document(records);
    let data = Data {
        verdict: &document.verdict,
        rows: row::rows(records),
        costs: sections::costs(records),
        trends: sections::trends(records),
        loads: sections::loads(records),
        records,
    };
    let mut written = Vec::new();
    let mut save = |name: &str, bytes: &[u8]| -> Result<()> {
        let path = dir.join(name);
        write_whole(&path, |file| file.write_all(bytes))?;
        written.push(path);
        Ok(())
    };
    for format in Format::ALL.iter().filter(|f| formats.contains(f)) {
        match format {
            Format::Html => save("report.html", render::html(&document, &json(&data, false)?)?.as_bytes())?,
            Format::Md => save("report.md", render::markdown(&document)?.as_bytes())?,
            Format::Csv => save("report.csv", csv(&data.rows)?.as_bytes())?,
            Format::Json => save("report.json", json(&data, true)?.as_bytes())?,
            Format::Svg | Format::Png => {
                let folder = dir.join("plots");
                make_folder(&folder)?;
                for block in document.sections.iter().flat_map(|s| &s.blocks) {
                    if let Block::Figure(plot) = block {
                        match format {
                            Format::Png => save(&format!("plots/{}.png", plot.name), &plot.png()?)?,
                            _ => save(&format!("plots/{}.svg", plot.name), plot.file.as_bytes())?,
                        }
                    }
                }
            }
        }
    }
    Ok(written)
}

fn json(data: &Data, pretty: bool) -> Result<String> {
    let text = if pretty { serde_json::to_string_pretty(data) } else { serde_json::to_string(data) };
    text.map_err(|e| Error::Bug(e.to_string()))
}

fn csv(rows: &[row::Row]) -> Result<String> {
    let bug = |e: String| Error::Bug(format!("CSV: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    for (i, row) in rows.iter().enumerate() {
        let fields = match serde_json::to_value(row) {
            Ok(Value::Object(fields)) => fields,
            _ => return Err(bug("a row is no object".into())),
        };
        let written = if i == 0 { writer.write_record(fields.keys()) } else { Ok(()) };
        let written = written.and_then(|()| writer.write_record(fields.values().map(csv_cell)));
        written.map_err(|e| bug(e.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|e| bug(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| bug(e.to_string()))
}

/// A text with the characters made visible that have no shape of their own and would turn or hide
/// what stands beside them: controls, and marks of writing direction.
fn visible(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| {
        matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
            || c.is_control() && !matches!(c, '\n' | '\r' | '\t')
    };
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| if hidden(c) { format!("‹U+{:04X}›", c as u32) } else { c.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_that_turns_or_hides_others_is_shown() {
        assert!(matches!(visible("plain ⟨é⟩\n\t"), Cow::Borrowed(_)));
        assert_eq!(visible("a\u{202e}b\u{2066}c\u{7}"), "a‹U+202E›b‹U+2066›c‹U+0007›");
    }

    #[test]
    fn cells_are_no_formulas_and_numbers_stay_numbers() {
        let cells = [json!("=1+2"), json!("@x"), json!("-1"), json!(-1.5), json!(null), json!("i2_s")];
        assert_eq!(cells.each_ref().map(csv_cell), ["'=1+2", "'@x", "'-1", "-1.5", "", "i2_s"]);
    }
}
