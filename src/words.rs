//! Words that depend on a number, and what may be shown of words that others wrote.

use serde_json::Value;
use std::borrow::Cow;

/// A number of things: `1 thread`, `2 threads`.
pub fn counted(n: impl Into<u64>, thing: &str) -> String {
    let n = n.into();
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// Text with a mark in place of each control character, which would work on the terminal that shows it.
pub fn printable(text: &str) -> Cow<'_, str> {
    let works = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(works) { text.replace(works, "\u{fffd}").into() } else { text.into() }
}

/// Text for a cell of a Markdown table: on one line, with its bars escaped.
pub fn table_cell(text: &str) -> String {
    text.replace(['\n', '\r', '\t'], " ").replace('|', "\\|")
}

/// Text that is not read as Markdown or HTML, also inside of a table.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' | '\r' => out.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' | '@' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

/// A value in a cell of a CSV file: text as it is, lists as JSON, nothing for null. A spreadsheet would run a text that
/// begins like a formula, so that an apostrophe, which it shows as text, goes before it.
pub fn csv_cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Lower-case hexadecimal digits of a hash.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Joules with a unit that leaves digits before the point.
pub fn joules(joules: f64) -> String {
    let units = [(1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ")];
    let (unit, name) = units.into_iter().find(|(unit, _)| joules.abs() >= *unit).unwrap_or(units[3]);
    format!("{:.3} {name}", joules / unit)
}

/// A time in words, in the unit that leaves digits before the point.
pub fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", 1e3 * seconds) } else { format!("{seconds:.2} s") }
}

#[cfg(test)]
mod tests {
    use super::{printable, table_cell};

    #[test]
    fn what_would_work_on_a_terminal_is_marked() {
        assert_eq!(printable("a\tb\nc é"), "a\tb\nc é");
        assert_eq!(table_cell("a\nb|c"), "a b\\|c");
        assert_eq!(printable("a\u{1b}[2Jb\rc\u{9b}"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
    }
}
