//! A report's content apart from its looks: sections of paragraphs, tables and figures. HTML and
//! Markdown are two ways to print the same document, so they cannot say different things.

use super::plot::Plot;
use serde::Serialize;

/// A report.
#[derive(Debug, Clone, Serialize)]
pub struct Document {
    /// Its heading.
    pub title: String,
    /// When, on what, by what.
    pub subtitle: String,
    /// The figures that people look for first.
    pub facts: Vec<Fact>,
    /// What follows from the figures: a sentence each on exactness, speed, and cost.
    pub verdict: Vec<String>,
    /// The rest, in reading order.
    pub sections: Vec<Section>,
}

/// A headline figure.
#[derive(Debug, Clone, Serialize)]
pub struct Fact {
    /// What it is.
    pub label: String,
    /// The figure with its unit.
    pub value: String,
    /// Of what, under which conditions.
    pub detail: String,
}

/// A section.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// Its anchor.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// Its content.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Block {
    /// A heading below the section's.
    Heading {
        /// Its text.
        text: String,
    },
    /// A paragraph.
    Text {
        /// Its text.
        text: String,
    },
    /// A paragraph that must not be overlooked.
    Warning {
        /// Its text.
        text: String,
    },
    /// A list of sentences.
    List {
        /// The sentences.
        items: Vec<String>,
    },
    /// Something to copy.
    Code {
        /// Its text.
        text: String,
    },
    /// Something to copy that is too long to stand open.
    Details {
        /// What it is.
        title: String,
        /// Its text.
        text: String,
    },
    /// A table.
    Table(Table),
    /// A figure.
    Figure(Plot),
}

/// A table; the first column names its rows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, each with a cell for every column.
    pub rows: Vec<Vec<Cell>>,
    /// Whether a reader may sort and filter it.
    pub interactive: bool,
}

/// A column of a table.
#[derive(Debug, Clone, Serialize)]
pub struct Column {
    /// Its heading.
    pub title: String,
    /// Whether it holds numbers.
    pub numeric: bool,
}

/// A cell of a table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cell {
    /// What is shown.
    pub text: String,
    /// Shown smaller behind it: an interval, a condition.
    pub detail: String,
    /// The exact value, to sort by and to find again in the data.
    pub value: Option<f64>,
    /// Share of the best value of its kind, 0 to 1: drawn as a bar behind the figure.
    pub bar: Option<f64>,
    /// Whether it says that something is missing.
    pub missing: bool,
}

impl Cell {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// A figure and how it is shown.
    pub fn figure(value: f64, text: impl Into<String>) -> Self {
        Self { text: text.into(), value: Some(value), ..Self::default() }
    }

    /// A figure that is not there, with the reason.
    pub fn not_measured(reason: &str) -> Self {
        Self { text: format!("not measured: {reason}"), missing: true, ..Self::default() }
    }

    /// A figure that the row cannot have.
    pub fn none() -> Self {
        Self { text: "–".into(), missing: true, ..Self::default() }
    }

    /// Adds what is shown smaller.
    pub fn detail(mut self, text: impl Into<String>) -> Self {
        self.detail = text.into();
        self
    }

    /// Adds a bar.
    pub fn bar(mut self, share: f64) -> Self {
        self.bar = Some(share.clamp(0.0, 1.0));
        self
    }
}

impl Table {
    /// A table of such columns; a heading that ends in `#` holds numbers.
    pub fn new(caption: impl Into<String>, headings: &[&str]) -> Self {
        let column = |h: &&str| Column { title: h.trim_end_matches('#').into(), numeric: h.ends_with('#') };
        Self { caption: caption.into(), columns: headings.iter().map(column).collect(), ..Self::default() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "{}", self.caption);
        self.rows.push(cells);
    }
}

impl Block {
    /// A paragraph.
    pub fn text(text: impl Into<String>) -> Self {
        Block::Text { text: text.into() }
    }

    /// A heading below the section's.
    pub fn heading(text: impl Into<String>) -> Self {
        Block::Heading { text: text.into() }
    }

    /// A paragraph that must not be overlooked.
    pub fn warning(text: impl Into<String>) -> Self {
        Block::Warning { text: text.into() }
    }
}
