//! Files of questions: the JSON lines that lm-evaluation-harness reads, the text and CSV files that
//! llama-perplexity reads, and our own.

use super::{Choice, Question};
use crate::accuracy::text::MOST;
use crate::error::{Error, Result};
use crate::files;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// How questions are written, and with them how they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `context`, `choices`, `answer` (index); or llama-perplexity's binary of multiple choice
    Choices,
    /// HellaSwag: `activity_label`, `ctx_a`, `ctx_b`, `endings`, `label`; or llama-perplexity's text
    Hellaswag,
    /// WinoGrande: `sentence` with `_`, `option1`, `option2`, `answer`; or llama-perplexity's CSV
    Winogrande,
    /// ARC: `question`, `choices`, `answerKey`, in the original or the Hugging Face form
    Arc,
    /// PIQA: `goal`, `sol1`, `sol2`, `label`, or the labels in FILE-labels.lst beside as in its download
    Piqa,
    /// BoolQ: `passage`, `question`, `answer` or, as in SuperGLUE, `label`
    Boolq,
}

impl Format {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Choices => "choices",
            Format::Hellaswag => "hellaswag",
            Format::Winogrande => "winogrande",
            Format::Arc => "arc",
            Format::Piqa => "piqa",
            Format::Boolq => "boolq",
        }
    }

    /// The format whose fields a line has.
    fn detect(line: &Value) -> Option<Self> {
        let has = |name| line.get(name).is_some();
        match () {
            () if has("endings") => Some(Format::Hellaswag),
            () if has("option1") => Some(Format::Winogrande),
            () if has("answerKey") => Some(Format::Arc),
            () if has("sol1") => Some(Format::Piqa),
            () if has("passage") => Some(Format::Boolq),
            () if has("context") && has("choices") => Some(Format::Choices),
            () => None,
        }
    }

    /// The question of one line; the error says which field is wrong.
    fn question(self, line: &Value) -> Result<Question, String> {
        let text = |name: &str| {
            line[name].as_str().ok_or_else(|| format!("expected a text '{name}', found {}", line[name]))
        };
        let answer = |name: &str| {
            integer(&line[name]).ok_or_else(|| format!("expected an index '{name}', found {}", line[name]))
        };
        let spaced = |choices: Vec<String>| choices.into_iter().map(|c| format!(" {c}")).collect::<Vec<_>>();
        let (context, choices, gold) = match self {
            Format::Choices => {
                (text("context")?.to_owned(), spaced(texts(&line["choices"], "choices")?), answer("answer")?)
            }
            Format::Hellaswag => {
                let context = match (text("ctx_a"), text("ctx_b")) {
                    (Ok(a), Ok(b)) => format!("{a} {}", capitalised(b)),
                    _ => text("ctx")?.to_owned(),
                };
                let context = cleaned(&format!("{}: {context}", text("activity_label")?));
                let endings = texts(&line["endings"], "endings")?.iter().map(|e| cleaned(e)).collect();
                (context, spaced(endings), answer("label")?)
            }
            Format::Winogrande => {
                return gap(text("sentence")?, [text("option1")?, text("option2")?], answer("answer")?);
            }
            Format::Arc => {
                let (question, choices, labels) = match line["question"].as_str() {
                    Some(question) => (
                        question,
                        texts(&line["choices"]["text"], "choices.text")?,
                        texts(&line["choices"]["label"], "choices.label")?,
                    ),
                    None => {
                        let part = |name: &str| -> Result<Vec<String>, String> {
                            let choices =
                                line["question"]["choices"].as_array().ok_or("expected question.choices")?;
                            choices
                                .iter()
                                .map(|c| {
                                    Ok(c[name]
                                        .as_str()
                                        .ok_or("expected text in question.choices")?
                                        .to_owned())
                                })
                                .collect()
                        };
                        (
                            line["question"]["stem"].as_str().ok_or("expected question.stem")?,
                            part("text")?,
                            part("label")?,
                        )
                    }
                };
                if choices.len() != labels.len() {
                    return Err(format!("{} texts of choices, but {} labels", choices.len(), labels.len()));
                }
                let key = text("answerKey")?;
                let gold = labels
                    .iter()
                    .position(|l| l == key)
                    .ok_or_else(|| format!("no choice is labelled '{key}'"))?;
                (asked(question), spaced(choices), gold)
            }
            Format::Piqa => (
                asked(text("goal")?),
                spaced(vec![text("sol1")?.into(), text("sol2")?.into()]),
                answer("label")?,
            ),
            Format::Boolq => {
                let context = format!("{}\nQuestion: {}?\nAnswer:", text("passage")?, text("question")?);
                let gold = match line["answer"].as_bool().or(line["label"].as_bool()) {
                    Some(yes) => usize::from(yes),
                    None => answer("label")?,
                };
                (context, spaced(vec!["no".into(), "yes".into()]), gold)
            }
        };
        let choices: Vec<Choice> = choices
            .into_iter()
            .map(|continuation| Choice { context: context.clone(), continuation })
            .collect();
        checked(choices, gold)
    }
}

/// Reads the questions of `text`; `path` is for messages, and its ending tells llama-perplexity's
/// forms. `format` is found out from the fields where it is not given.
///
/// # Errors
/// If a line is not of that format or no format is recognised.
pub fn read(path: &Path, text: &str, format: Option<Format>) -> Result<(Format, Vec<Question>)> {
    let wrong = |line: usize, message: String| Error::input(path, format!("line {line}: {message}"));
    let none = || Error::input(path, "expected questions, found none");
    // Editors put a mark of the encoding first.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (format, questions) = match path.extension().and_then(|e| e.to_str()) {
        Some("txt") => (Format::Hellaswag, hellaswag_text(text).map_err(|(line, m)| wrong(line, m))?),
        Some("csv") => {
            let mut questions = Vec::new();
            // The files of llama-perplexity begin with a question; others name their columns first.
            let rows =
                csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes()).into_records();
            for (number, row) in (1..).zip(rows) {
                let row = row.map_err(|e| wrong(number, e.to_string()))?;
                let field = |i: usize| {
                    let expected = "expected index,sentence,choice1,choice2,answer";
                    row.get(i).ok_or_else(|| wrong(number, expected.into()))
                };
                let Ok(answer) = field(4)?.trim().parse() else {
                    if number == 1 && !field(1)?.contains('_') {
                        continue;
                    }
                    return Err(wrong(number, format!("expected 1 or 2 as answer, found '{}'", &row[4])));
                };
                let question = gap(field(1)?, [field(2)?, field(3)?], answer);
                questions.push(question.map_err(|m| wrong(number, m))?);
            }
            (Format::Winogrande, questions)
        }
        _ => {
            let (mut format, mut questions, mut labels) = (format, Vec::new(), None);
            for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
                let mut value: Value = serde_json::from_str(line)
                    .map_err(|e| wrong(number + 1, format!("expected a JSON object: {e}")))?;
                if value.get("sol1").is_some() && value.get("label").is_none() {
                    let labels = match &mut labels {
                        Some(labels) => labels,
                        unread => unread.insert(labels_beside(path)?),
                    };
                    value["label"] = label(labels, questions.len())?.into();
                }
                let found = format.or_else(|| Format::detect(&value)).ok_or_else(|| {
                    wrong(number + 1, "these fields are of no task known".into())
                        .hint("`tritmark eval --help` lists what is read; choose with --task")
                })?;
                questions.push(found.question(&value).map_err(|m| wrong(number + 1, m))?);
                format = Some(found);
            }
            (format.ok_or_else(none)?, questions)
        }
    };
    if questions.is_empty() { Err(none()) } else { Ok((format, questions)) }
}

/// The labels of questions, one a line, from `FILE-labels.lst` beside `FILE.jsonl`, and where that is.
fn labels_beside(path: &Path) -> Result<(PathBuf, String)> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let labels = path.with_file_name(format!("{stem}-labels.lst"));
    let text = files::read_text(&labels, MOST).map_err(|e| {
        Error::input(path, format!("a question has no field 'label', and no file beside it gives it: {e}"))
    })?;
    Ok((labels, text))
}

/// The label of a question.
fn label((file, labels): &(PathBuf, String), question: usize) -> Result<&str> {
    let none = || Error::input(file, format!("there is no label for question {}", question + 1));
    labels.lines().nth(question).ok_or_else(none)
}

/// llama-perplexity's binary of multiple choice (`--multiple-choice -bf`), little-endian: number of
/// questions, position of each, and the questions: text, answers and labels with one right answer, and
/// the same with several, which llama-perplexity does not score either. A text is its length and bytes,
/// answers are their number, texts, and an i32 label each.
///
/// # Errors
/// If it ends too early, or a question has no right answer.
pub fn read_binary(path: &Path, bytes: &[u8]) -> Result<Vec<Question>> {
    let mut rest = bytes;
    let mut questions = Vec::new();
    let mut all = || -> Result<Vec<Question>, String> {
        let count = number(&mut rest)? as usize;
        take(&mut rest, 4 * count)?;
        for _ in 0..count {
            let context = string(&mut rest)?;
            let (answers, labels) = answers(&mut rest)?;
            self::answers(&mut rest)?;
            let gold = labels.iter().position(|l| *l == 1).ok_or("no answer is marked as right")?;
            let choice = |a: &String| Choice { context: context.clone(), continuation: format!(" {a}") };
            questions.push(checked(answers.iter().map(choice).collect(), gold)?);
        }
        if questions.is_empty() {
            Err("expected questions, found none".into())
        } else {
            Ok(std::mem::take(&mut questions))
        }
    };
    let result = all();
    result.map_err(|message| {
        Error::input(path, format!("question {}: {message}", questions.len() + 1))
            .hint("a .bin file is read as llama-perplexity's binary of multiple choice")
    })
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], String> {
    let (head, tail) = rest.split_at_checked(n).ok_or("the file ends too early")?;
    *rest = tail;
    Ok(head)
}

fn number(rest: &mut &[u8]) -> Result<u32, String> {
    Ok(u32::from_le_bytes(take(rest, 4)?.try_into().expect("four bytes")))
}

fn string(rest: &mut &[u8]) -> Result<String, String> {
    let length = number(rest)? as usize;
    String::from_utf8(take(rest, length)?.to_vec()).map_err(|_| "a text is no UTF-8".into())
}

fn answers(rest: &mut &[u8]) -> Result<(Vec<String>, Vec<u32>), String> {
    let count = number(rest)?;
    if count > 100 {
        return Err(format!("{count} answers, at most 100 are expected"));
    }
    let texts = (0..count).map(|_| string(rest)).collect::<Result<_, _>>()?;
    let labels = (0..count).map(|_| number(rest)).collect::<Result<_, _>>()?;
    Ok((texts, labels))
}

/// Six lines a question: `activity: context`, index of the right ending, four endings.
fn hellaswag_text(text: &str) -> Result<Vec<Question>, (usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .chunks(6)
        .enumerate()
        .map(|(i, chunk)| {
            let fail = |m: &str| (i * 6 + 1, m.to_owned());
            let [context, gold, endings @ ..] = chunk else {
                return Err(fail("expected six lines a question"));
            };
            if endings.len() != 4 {
                return Err(fail("expected six lines a question"));
            }
            let gold = gold
                .trim()
                .parse()
                .map_err(|_| fail("expected the index of the right ending in the second line"))?;
            let choice =
                |e: &&str| Choice { context: context.trim().into(), continuation: format!(" {}", e.trim()) };
            checked(endings.iter().map(choice).collect(), gold).map_err(|m| fail(&m))
        })
        .collect()
}

/// A sentence with a gap: each option fills it, and the rest of the sentence is scored.
fn gap(sentence: &str, options: [&str; 2], answer: usize) -> Result<Question, String> {
    let (before, after) = sentence.split_once('_').ok_or("expected a gap '_' in the sentence")?;
    let choice = |option: &str| Choice {
        context: format!("{before}{option}"),
        continuation: format!(" {}", after.trim()),
    };
    checked(options.map(choice).to_vec(), answer.checked_sub(1).ok_or("expected 1 or 2 as answer")?)
}

fn checked(choices: Vec<Choice>, gold: usize) -> Result<Question, String> {
    if choices.len() < 2 || gold >= choices.len() {
        return Err(format!("answer {gold} of {} choices", choices.len()));
    }
    Ok(Question { choices, gold })
}

fn asked(question: &str) -> String {
    format!("Question: {question}\nAnswer:")
}

/// A number or a text that holds one: both occur in the same data sets.
fn integer(value: &Value) -> Option<usize> {
    value.as_u64().map(|n| n as usize).or_else(|| value.as_str()?.trim().parse().ok())
}

fn texts(value: &Value, name: &str) -> Result<Vec<String>, String> {
    let all = value.as_array().and_then(|a| a.iter().map(|v| v.as_str().map(str::to_owned)).collect());
    all.ok_or_else(|| format!("expected a list of texts '{name}', found {value}"))
}

/// As Python's `str.capitalize`: first letter upper case, all others lower case.
fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or(String::new(), |c| c.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect())
}

/// HellaSwag's own marks taken out: `[title]` ends a sentence, other brackets go.
fn cleaned(text: &str) -> String {
    let text = text.trim().replace(" [title]", ". ");
    let (mut out, mut rest) = (String::new(), text.as_str());
    while let Some((before, mark)) = rest.split_once('[') {
        let Some((_, after)) = mark.split_once(']') else { break };
        out.push_str(before);
        rest = after;
    }
    out.push_str(rest);
    out.replace("  ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(file: &str, text: &str) -> Question {
        let (_, mut questions) = read(Path::new(file), text, None).unwrap();
        assert_eq!(questions.len(), 1);
        questions.remove(0)
    }

    fn shown(q: &Question) -> Vec<String> {
        q.choices.iter().map(|c| format!("{}|{}", c.context, c.continuation)).collect()
    }

    #[test]
    fn hellaswag() {
        let line = r#"{"activity_label": "Baking", "ctx_a": "A man [header] kneads [step] dough.", "ctx_b": "then HE", "endings": ["sleeps. [title] Rest", "bakes  it."], "label": "1"}"#;
        let q = one("h.jsonl", line);
        assert_eq!(
            shown(&q),
            [
                "Baking: A man kneads dough. Then he| sleeps.. Rest",
                "Baking: A man kneads dough. Then he| bakes it."
            ]
        );
        assert_eq!(q.gold, 1);
        let q = one("h.txt", "Baking: A man\n2\na\nb\nc\nd\n");
        assert_eq!((q.gold, shown(&q)[3].as_str()), (2, "Baking: A man| d"));
    }

    #[test]
    fn winogrande() {
        let q = one(
            "w.jsonl",
            r#"{"sentence": "Ann thanked Eve because _ had helped.", "option1": "Ann", "option2": "Eve", "answer": "2"}"#,
        );
        assert_eq!(
            shown(&q),
            ["Ann thanked Eve because Ann| had helped.", "Ann thanked Eve because Eve| had helped."]
        );
        assert_eq!(q.gold, 1);
        let row = "0,\"Ann thanked Eve because _ had helped.\",Ann,Eve,2\n";
        assert_eq!(one("w.csv", row), q, "as llama-perplexity reads them");
        assert_eq!(one("w.csv", &format!("index,sentence,choice1,choice2,answer\n{row}")), q);
    }

    #[test]
    fn arc_in_both_forms() {
        let original = r#"{"id": "1", "question": {"stem": "What is wet?", "choices": [{"text": "fire", "label": "A"}, {"text": "water", "label": "B"}]}, "answerKey": "B"}"#;
        let hub = r#"{"id": "1", "question": "What is wet?", "choices": {"text": ["fire", "water"], "label": ["A", "B"]}, "answerKey": "B"}"#;
        let q = one("arc.jsonl", original);
        assert_eq!(shown(&q)[1], "Question: What is wet?\nAnswer:| water");
        assert_eq!((q.gold, q), (1, one("arc.jsonl", hub)));
        let unequal = r#"{"question": "q", "choices": {"text": ["a", "b", "c"], "label": ["A", "B"]}, "answerKey": "B"}"#;
        let error = read(Path::new("arc.jsonl"), unequal, None).unwrap_err().to_string();
        assert!(error.contains("line 1: 3 texts of choices, but 2 labels"), "{error}");
    }

    #[test]
    fn a_mark_of_the_encoding_is_no_text_and_no_questions_are_none() {
        let lines = "Baking: A man\n2\na\nb\nc\nd\n";
        assert_eq!(one("h.txt", &format!("\u{feff}{lines}")), one("h.txt", lines));
        for (name, text) in [
            ("e.jsonl", ""),
            ("e.txt", ""),
            ("e.csv", ""),
            ("e.csv", "index,sentence,option1,option2,answer\n"),
        ] {
            let error = read(Path::new(name), text, None).unwrap_err();
            assert_eq!(error.exit_code(), 5);
            assert!(error.to_string().contains("expected questions, found none"), "{error}");
        }
    }

    #[test]
    fn piqa_boolq_and_our_own() {
        let q =
            one("p.jsonl", r#"{"goal": "Boil an egg", "sol1": "in water", "sol2": "in sand", "label": 0}"#);
        assert_eq!((shown(&q)[0].as_str(), q.gold), ("Question: Boil an egg\nAnswer:| in water", 0));
        let q = one("b.jsonl", r#"{"passage": "Ice is cold.", "question": "is ice warm", "answer": false}"#);
        assert_eq!(
            (shown(&q)[1].as_str(), q.gold),
            ("Ice is cold.\nQuestion: is ice warm?\nAnswer:| yes", 0)
        );
        let (format, questions) = read(Path::new("sotu.jsonl"), super::super::SOTU, None).unwrap();
        assert_eq!((format, questions.len()), (Format::Choices, 100));
    }

    #[test]
    fn boolq_of_superglue_and_piqa_as_downloaded() {
        let q = one(
            "b.jsonl",
            "\u{feff}{\"passage\": \"Ice is cold.\", \"question\": \"is ice warm\", \"label\": false}",
        );
        assert_eq!(q.gold, 0);
        let dir = tempfile::tempdir().unwrap();
        let line = r#"{"goal": "Boil an egg", "sol1": "in water", "sol2": "in sand"}"#;
        let path = dir.path().join("valid.jsonl");
        let error = read(&path, line, None).unwrap_err().to_string();
        assert!(error.contains("valid-labels.lst"), "{error}");
        std::fs::write(dir.path().join("valid-labels.lst"), "1\n0\n").unwrap();
        let (format, questions) = read(&path, &format!("{line}\n{line}\n"), None).unwrap();
        assert_eq!((format, questions[0].gold, questions[1].gold), (Format::Piqa, 1, 0));
        assert!(read(&path, &format!("{line}\n{line}\n{line}"), None).is_err());
    }

    #[test]
    fn the_binary_of_multiple_choice() {
        let text = |t: &str| [&(t.len() as u32).to_le_bytes()[..], t.as_bytes()].concat();
        let answers = |all: &[&str], gold: u32| {
            let labels = (0..all.len() as u32).flat_map(|i| u32::from(i == gold).to_le_bytes());
            let texts = all.iter().flat_map(|t| text(t));
            [(all.len() as u32).to_le_bytes().to_vec(), texts.collect(), labels.collect()].concat()
        };
        let task = [text("What is wet?"), answers(&["fire", "water"], 1), answers(&[], 0)].concat();
        let file = [&1u32.to_le_bytes()[..], &8u32.to_le_bytes(), &task].concat();
        let questions = read_binary(Path::new("mc.bin"), &file).unwrap();
        assert_eq!((questions.len(), questions[0].gold), (1, 1));
        assert_eq!(shown(&questions[0]), ["What is wet?| fire", "What is wet?| water"]);
        for cut in 0..file.len() {
            assert!(read_binary(Path::new("mc.bin"), &file[..cut]).is_err(), "cut at {cut}");
        }
        let none = [
            &1u32.to_le_bytes()[..],
            &8u32.to_le_bytes(),
            &text("q"),
            &answers(&["a", "b"], 7),
            &answers(&[], 0),
        ]
        .concat();
        assert!(read_binary(Path::new("mc.bin"), &none).unwrap_err().to_string().contains("marked as right"));
        let huge = [0xff; 16];
        assert!(read_binary(Path::new("mc.bin"), &huge).is_err());
    }

    #[test]
    fn errors_name_line_and_field() {
        let cases = [
            ("x.jsonl", "{\"a\": 1}", "no task known"),
            ("x.jsonl", "not json", "line 1"),
            (
                "x.jsonl",
                "\n{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 2}",
                "line 2: answer 2 of 2",
            ),
            ("x.jsonl", "{\"goal\": 3, \"sol1\": \"\", \"sol2\": \"\", \"label\": 0}", "'goal'"),
            (
                "x.jsonl",
                "{\"sentence\": \"no gap\", \"option1\": \"a\", \"option2\": \"b\", \"answer\": 1}",
                "gap",
            ),
            ("x.csv", "i,s,a,b,c\n0,a _ b,x,y,three\n", "line 2"),
            ("x.csv", "0,a _ b,x,y,three\n", "line 1"),
            ("x.txt", "context\n1\na\nb\n", "six lines"),
            ("x.jsonl", "", "found none"),
        ];
        for (file, text, expected) in cases {
            let error = read(Path::new(file), text, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
