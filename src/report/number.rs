//! Numbers as people read them.

/// Thin space between groups of digits and before units; does not break.
const THIN: char = '\u{202f}';

/// A number with so many significant digits: `152`, `15.2`, `0.0152`, `1.5×10⁻⁸`.
pub fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "not finite".into();
    }
    if value == 0.0 {
        return "0".into();
    }
    let scientific = format!("{:.*e}", digits - 1, value.abs());
    let (mantissa, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let sign = if value < 0.0 { "−" } else { "" };
    if !(-4..=6).contains(&exponent) {
        return format!("{sign}{mantissa}×10{}", superscript(exponent));
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    let rounded: f64 = scientific.parse().expect("a number");
    format!("{sign}{}", grouped(&format!("{rounded:.decimals$}")))
}

/// A number for an axis: no more digits than it needs.
pub fn short(value: f64) -> String {
    let text = significant(value, 3);
    match text.split_once('.') {
        Some((whole, fraction)) if fraction.chars().all(|c| c.is_ascii_digit()) => {
            let fraction = fraction.trim_end_matches('0');
            if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
        }
        _ => text,
    }
}

/// A whole number with its digits in groups of three.
pub fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// With sign, for differences.
pub fn signed(value: f64, digits: usize) -> String {
    let text = significant(value, digits);
    if value > 0.0 { format!("+{text}") } else { text }
}

/// A share as percent with one decimal, more where it is all but whole.
pub fn percent(share: f64) -> String {
    let value = 100.0 * share;
    let decimals = if value > 99.9 && value < 100.0 { 3 } else { 1 };
    // Rounding up to 100 would claim what is not so.
    let value = if value < 100.0 { value.min(99.999) } else { value };
    format!("{value:.decimals$}{THIN}%")
}

/// Bytes in powers of ten.
pub fn bytes(value: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match units.iter().find(|(_, size)| value as f64 >= *size) {
        Some((unit, size)) => format!("{}{THIN}{unit}", significant(value as f64 / size, 3)),
        None => format!("{value}{THIN}B"),
    }
}

/// Numbers of parameters: `2.08 B`, `4.72 M`.
pub fn params(value: u64) -> String {
    let units = [("B", 1e9), ("M", 1e6), ("k", 1e3)];
    match units.iter().find(|(_, size)| value as f64 >= *size) {
        Some((unit, size)) => format!("{}{THIN}{unit}", significant(value as f64 / size, 3)),
        None => value.to_string(),
    }
}

/// Joules with the prefix that fits.
pub fn joules(value: f64) -> String {
    let units = [("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9)];
    let (unit, size) = units.iter().find(|(_, size)| value.abs() >= *size).unwrap_or(&units[3]);
    format!("{}{THIN}{unit}", significant(value / size, 3))
}

fn grouped(text: &str) -> String {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    let mut out = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && whole.len() > 4 && (whole.len() - i).is_multiple_of(3) {
            out.push(THIN);
        }
        out.push(digit);
    }
    fraction.map_or(out.clone(), |f| format!("{out}.{f}"))
}

fn superscript(exponent: i32) -> String {
    let digits = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let text = exponent.to_string();
    text.chars().map(|c| c.to_digit(10).map_or('⁻', |d| digits[d as usize])).collect()
}

/// Steps of an axis from 0 to at least `max`: about `count` of them, at 1, 2 or 5 times a power of ten.
pub fn ticks(max: f64, count: usize) -> Vec<f64> {
    let rough = max / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough * 0.999).unwrap_or(rough);
    (0..=(max / step).ceil() as usize).map(|i| i as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well() {
        assert_eq!(significant(152.34, 3), "152");
        assert_eq!(significant(0.015234, 3), "0.0152");
        assert_eq!(significant(-1.5e-8, 2), "−1.5×10⁻⁸");
        assert_eq!(significant(9.996, 3), "10.0");
        assert_eq!(significant(123456.0, 3), "123\u{202f}000");
        assert_eq!(significant(0.0, 3), "0");
        assert_eq!(["0.5", "1", "2.06"], [0.5, 1.0, 2.06].map(short));
        assert_eq!(signed(0.012, 2), "+0.012");
        assert_eq!(count(36322), "36\u{202f}322");
        assert_eq!(count(1024), "1024");
        assert_eq!(bytes(1_186_000_000), "1.19\u{202f}GB");
        assert_eq!(params(2_084_000_000), "2.08\u{202f}B");
        assert_eq!(joules(0.00079), "790\u{202f}µJ");
    }

    #[test]
    fn percent_never_rounds_up_to_everything() {
        assert_eq!(percent(1.0), "100.0\u{202f}%");
        assert_eq!(percent(0.9999999), "99.999\u{202f}%");
        assert_eq!(percent(0.876), "87.6\u{202f}%");
    }

    #[test]
    fn ticks_cover_the_range() {
        assert_eq!(ticks(152.0, 4), [0.0, 50.0, 100.0, 150.0, 200.0]);
        assert_eq!(ticks(0.9, 4), [0.0, 0.5, 1.0]);
        for max in [1e-6, 0.3, 7.0, 99.9, 1e9] {
            let t = ticks(max, 5);
            assert!(*t.last().unwrap() >= max && t.len() < 12, "{max} {t:?}");
        }
    }
}
