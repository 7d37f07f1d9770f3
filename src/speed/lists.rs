//! Lists and ranges of numbers as llama-bench's command line has them.

use std::str::FromStr;

/// Most numbers that a list may stand for.
const MOST: usize = 10_000;

/// Numbers of `1,2,4`, `1-8` (each), `1-8+2` (by steps) or `1-8*2` (by factors), or several of these
/// with commas in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List(pub Vec<u32>);

impl FromStr for List {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = Vec::new();
        for part in text.split(',') {
            let all = range(part.trim()).ok_or_else(|| {
                format!("'{part}' is no number and no range; expected e.g. 4, 1,2,4, 1-8, 1-8+2 or 1-8*2")
            })?;
            let more: Vec<u32> = all.take(MOST + 1).collect();
            if more.is_empty() {
                return Err(format!(
                    "'{part}' leads nowhere: ranges ascend, by steps of 1 or factors of 2 at least"
                ));
            }
            numbers.extend(more);
            if numbers.len() > MOST {
                return Err(format!("'{text}' stands for more than {MOST} numbers"));
            }
        }
        Ok(List(numbers))
    }
}

/// The numbers of a range; none where it leads nowhere.
fn range(text: &str) -> Option<impl Iterator<Item = u32> + use<>> {
    let (first, last, step, factor) = match text.split_once('-') {
        None => {
            let only: u32 = text.parse().ok()?;
            (only, only, 1, 1)
        }
        Some((first, rest)) => {
            let (last, step, factor) = if let Some((last, step)) = rest.split_once('+') {
                (last, step.parse().ok()?, 1)
            } else if let Some((last, factor)) = rest.split_once('*') {
                (last, 0, factor.parse().ok()?)
            } else {
                (rest, 1, 1)
            };
            (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?, step, factor)
        }
    };
    // A step of 0, a factor of 1 and a start of 0 times a factor lead nowhere.
    let next = move |n: &u32| n.checked_mul(factor)?.checked_add(step).filter(|next| next > n);
    let start = (first == last || next(&first).is_some()).then_some(first);
    Some(std::iter::successors(start, next).take_while(move |n| *n <= last))
}

/// The distinct numbers of lists in the order given, or `default` for none.
pub fn numbers(lists: &[List], default: &[u32]) -> Vec<u32> {
    let all: Vec<u32> = lists.iter().flat_map(|l| l.0.iter().copied()).collect();
    distinct(if lists.is_empty() { default.to_vec() } else { all })
}

/// Each item once, where it stood first.
pub fn distinct<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for item in items {
        if !distinct.contains(&item) {
            distinct.push(item);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_of_llama_bench() {
        let parse = |text: &str| text.parse::<List>().map(|l| l.0);
        assert_eq!(parse("1,2,4").unwrap(), [1, 2, 4]);
        assert_eq!(parse("1-4").unwrap(), [1, 2, 3, 4]);
        assert_eq!(parse("1-8+3").unwrap(), [1, 4, 7]);
        assert_eq!(parse("1-8*2,12").unwrap(), [1, 2, 4, 8, 12]);
        assert_eq!(parse("0").unwrap(), [0]);
        assert_eq!(parse("3-3").unwrap(), [3]);
        assert_eq!(parse("4294967295").unwrap(), [u32::MAX]);
        for (wrong, said) in [
            ("", "no range"),
            ("x", "no range"),
            ("1-", "no range"),
            ("-5", "no range"),
            ("1--2", "no range"),
            ("4-1", "leads nowhere"),
            ("1-8+0", "leads nowhere"),
            ("1-8*1", "leads nowhere"),
            ("0-8*2", "leads nowhere"),
            ("0-4294967295", "more than 10000"),
            ("1-6000,1-6000", "more than 10000"),
        ] {
            assert!(parse(wrong).unwrap_err().contains(said), "{wrong}");
        }
        assert_eq!(numbers(&[List(vec![4, 1]), List(vec![4])], &[9]), [4, 1]);
        assert_eq!(numbers(&[], &[9]), [9]);
    }
}
