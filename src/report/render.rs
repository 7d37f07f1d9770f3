//! Printing a document: templates from `reports/`, with everything that came from outside escaped.

use super::document::{Block, Document};
use super::plot::PALETTE;
use super::visible;
use crate::error::{Error, Result};
use crate::words::markdown as markdown_text;
use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::{Compression, write::GzEncoder};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, HtmlEscape, context, escape_formatter};
use std::borrow::Cow;
use std::io::Write;

const PAGE: &str = include_str!("../../reports/report.html");
const STYLE: &str = include_str!("../../reports/report.css");
const SCRIPT: &str = include_str!("../../reports/report.js");
const MARKDOWN: &str = include_str!("../../reports/report.md");

/// The self-contained page with `data`, a JSON text, inside: compressed, since arms repeat each
/// other's words, and in an alphabet that needs no escaping.
///
/// # Errors
/// If a template is wrong, which is a bug.
pub fn html(document: &Document, data: &str) -> Result<String> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    let packed = packed.write_all(data.as_bytes()).and_then(|()| packed.finish());
    let data = BASE64_STANDARD.encode(packed.map_err(|e| Error::Bug(e.to_string()))?);
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
    // A heading with nothing but pictures below it would stand alone.
    let told = |block: &Block| !matches!(block, Block::Figure(_) | Block::Heading { .. });
    let mut document = document.clone();
    document.sections.retain(|section| section.blocks.iter().any(told));
    render("report.md", MARKDOWN, context! { doc => Value::from(Serde(document)) })
}

fn render(name: &str, template: &str, context: Value) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|name| {
        if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
    });
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.add_filter("md", |text: String| isolated(&markdown_text(&text), ["&#x2068;", "&#x2069;"]));
    environment.add_filter("prose", |text: String| {
        let text = HtmlEscape(&visible(&text)).to_string();
        Value::from_safe_string(isolated(&text, ["<bdi>", "</bdi>"]))
    });
    environment.set_formatter(|out, state, value| match value.as_str().map(visible) {
        // What was marked safe passes through here too, and must stay so marked.
        Some(Cow::Owned(text)) if value.is_safe() => {
            escape_formatter(out, state, &Value::from_safe_string(text))
        }
        Some(Cow::Owned(text)) => escape_formatter(out, state, &Value::from(text)),
        _ => escape_formatter(out, state, value),
    });
    let bug = |e: minijinja::Error| Error::Bug(format!("template {name}: {e:#}"));
    environment.set_syntax(syntax.map_err(bug)?);
    environment.add_template(name, template).map_err(bug)?;
    environment.get_template(name).and_then(|t| t.render(context)).map_err(bug)
}

/// Puts words that are written from right to left, such as names of models, between marks that keep
/// them from turning what stands beside them. A text of nothing else needs none.
fn isolated(text: &str, [open, close]: [&str; 2]) -> String {
    let turns = |c: char| {
        matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}'
            | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
    };
    if !text.contains(turns) || !text.contains(char::is_whitespace) {
        return text.to_owned();
    }
    let word = |word: &str| {
        let name = word.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, ':' | ',' | '.' | ')'));
        if name.contains(turns) {
            format!("{open}{name}{close}{}", &word[name.len()..])
        } else {
            word.to_owned()
        }
    };
    text.split_inclusive(char::is_whitespace).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_right_to_left_turn_nothing_beside_them() {
        let bdi = |text| isolated(text, ["<bdi>", "</bdi>"]);
        assert_eq!(bdi("of מודל-2b: 5 tokens"), "of <bdi>מודל-2b</bdi>: 5 tokens");
        assert_eq!(bdi("מודל"), "מודל");
        assert_eq!(bdi("نموذج is\nfaster"), "<bdi>نموذج</bdi> is\nfaster");
        assert_eq!(bdi("plain &lt;é&gt; text"), "plain &lt;é&gt; text");
        assert_eq!(bdi("מודל&gt; is"), "<bdi>מודל&gt;</bdi> is");
    }
}
