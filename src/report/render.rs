//! Printing a document: templates from `reports/`, with everything that came from outside escaped.

use super::document::Document;
use super::plot::PALETTE;
use crate::error::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, context};

const PAGE: &str = include_str!("../../reports/report.html");
const STYLE: &str = include_str!("../../reports/report.css");
const SCRIPT: &str = include_str!("../../reports/report.js");
const MARKDOWN: &str = include_str!("../../reports/report.md");

/// The self-contained page with `data`, a JSON text, inside.
///
/// # Errors
/// If a template is wrong, which is a bug.
pub fn html(document: &Document, data: &str) -> Result<String> {
    // Inside of a script element nothing is escaped but what would end it.
    let data = data.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    let colors: String =
        PALETTE.iter().map(|(name, light, dark)| format!("--{name}:light-dark({light},{dark});")).collect();
    let inks: String = PALETTE
        .iter()
        .map(|(name, ..)| format!(".f-{name}{{fill:var(--{name})}}.l-{name}{{stroke:var(--{name})}}"))
        .collect();
    let style = format!(":root{{{colors}}}{inks}{STYLE}");
    render(
        "report.html",
        PAGE,
        context! { doc => Value::from(Serde(document)), data, style, script => SCRIPT },
    )
}

/// Markdown as GitHub shows it; figures are left to the page and their tables.
///
/// # Errors
/// If a template is wrong, which is a bug.
pub fn markdown(document: &Document) -> Result<String> {
    render("report.md", MARKDOWN, context! { doc => Value::from(Serde(document)) })
}

fn render(name: &str, template: &str, context: Value) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|name| {
        if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
    });
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.add_filter("md", |text: String| escape_markdown(&text));
    let bug = |e: minijinja::Error| Error::Bug(format!("template {name}: {e:#}"));
    environment.set_syntax(syntax.map_err(bug)?);
    environment.add_template(name, template).map_err(bug)?;
    environment.get_template(name).and_then(|t| t.render(context)).map_err(bug)
}

/// Keeps text from being read as Markdown or HTML, also inside of a table.
fn escape_markdown(text: &str) -> String {
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
