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
            range(part.trim(), &mut numbers).ok_or_else(|| {
                format!("'{part}' is no number and no range; expected e.g. 4, 1,2,4, 1-8, 1-8+2 or 1-8*2")
            })?;
        }
        Ok(List(numbers))
    }
}

fn range(text: &str, numbers: &mut Vec<u32>) -> Option<()> {
    let Some((first, rest)) = text.split_once('-') else {
        numbers.push(text.parse().ok()?);
        return Some(());
    };
    let (last, step, factor) = if let Some((last, step)) = rest.split_once('+') {
        (last, step.parse().ok()?, 1)
    } else if let Some((last, factor)) = rest.split_once('*') {
        (last, 0, factor.parse().ok()?)
    } else {
        (rest, 1, 1)
    };
    let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
    // A step of 0, a factor of 1 and a start of 0 times a factor lead nowhere.
    let next = |n: &u32| n.checked_mul(factor)?.checked_add(step).filter(|next| next > n);
    next(&first)?;
    let all: Vec<u32> =
        std::iter::successors(Some(first), next).take_while(|n| *n <= last).take(MOST + 1).collect();
    if all.is_empty() || all.len() > MOST {
        return None;
    }
    numbers.extend(all);
    Some(())
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
        for wrong in ["", "x", "1-", "4-1", "1-8+0", "1-8*1", "0-8*2", "1--2", "0-4294967295"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(numbers(&[List(vec![4, 1]), List(vec![4])], &[9]), [4, 1]);
        assert_eq!(numbers(&[], &[9]), [9]);
    }
}
