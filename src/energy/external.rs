//! The log of an external power meter: CSV of time stamps and watts.

use crate::checkpoint::file;
use crate::error::{Error, Result};
use crate::speed::stats;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A log that a meter's own program writes, before or while we measure.
///
/// The first two columns, between commas, semicolons or tabs, are the time (RFC 3339, `2026-01-31 12:00:00` in UTC, or
/// seconds since 1970 or their thousandths, millionths or thousand-millionths) and the power in watts. What stands before
/// the first sample is skipped, and so are lines that begin with `#`. Of samples of one time the mean counts, as of a
/// meter that writes more often than its clock shows. That clock must be this machine's.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// Opens a log, which must be readable and in order but may be empty so far.
    ///
    /// # Errors
    /// If it is no such file; the message names the line.
    pub fn open(path: &Path) -> Result<Self> {
        let log = Self { path: path.into() };
        log.samples()?;
        Ok(log)
    }

    /// What the user named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn samples(&self) -> Result<Vec<(f64, f64)>> {
        // It is read time and again, so a pipe will not do.
        let bytes = file::read(&self.path, MAX_BYTES)?;
        // A line that the meter is still writing has no end yet.
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        parse(&bytes[..whole]).map_err(|message| {
            Error::input(&self.path, message).hint(
                "expected lines of TIME,WATTS (or with ; or a tab between) with the time in RFC 3339, as \
                 2026-01-31 12:00:00 (UTC), or in seconds since 1970 or their thousandths, millionths or \
                 thousand-millionths",
            )
        })
    }

    /// Its file's name: records may travel, and a path would tell whose machine it was.
    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Joules from `start` to `end`, and the mean time between samples in there. Waits up to
    /// `patience` for the meter to write a sample at or after `end`.
    ///
    /// # Errors
    /// If the log does not cover the window, or cannot be read any more.
    pub fn joules(&self, start: Timestamp, end: Timestamp, patience: Duration) -> Result<(f64, f64), String> {
        let (from, to) = (seconds(start), seconds(end));
        let deadline = std::time::Instant::now() + patience;
        loop {
            let samples = self.samples().map_err(|e| match e {
                Error::Input { message, .. } => format!("{}: {message}", self.name()),
                Error::Io { source, .. } => format!("{}: {source}", self.name()),
                other => other.to_string(),
            })?;
            if samples.last().is_some_and(|s| s.0 >= to) || std::time::Instant::now() >= deadline {
                let integral = integrate(&samples, from, to);
                if let Some((_, _, Some(hole))) = integral {
                    return Err(format!(
                        "{} holds nothing for {hole:.1} s of a window of {:.1} s; measure again with a meter that writes \
                         all the while",
                        self.name(),
                        to - from
                    ));
                }
                return integral.map(|(joules, period, _)| (joules, period)).ok_or_else(|| {
                    let span =
                        samples.first().zip(samples.last()).map(|(a, b)| format!("{} to {}", a.0, b.0));
                    format!(
                        "{} covers {} but the window was {from} to {to} (seconds since 1970); the meter must \
                         write the log meanwhile, by this machine's clock",
                        self.name(),
                        span.unwrap_or_else(|| "nothing".into())
                    )
                });
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_nanosecond() as f64 / 1e9
}

/// Seconds of a number that counts them, or their thousandths, millionths or thousand-millionths, since
/// 1970: the first three thousand years of the one are the first three years of the next.
fn of_number(number: f64) -> f64 {
    let unit = [1.0, 1e3, 1e6, 1e9].into_iter().find(|unit| number.abs() < 1e11 * unit);
    number / unit.unwrap_or(1e9)
}

/// Seconds of a time of day without an offset.
fn of_utc(time: DateTime) -> f64 {
    time.to_zoned(TimeZone::UTC).map_or(f64::NAN, |zoned| seconds(zoned.timestamp()))
}

/// Greatest size of a log: years of a sample a second.
const MAX_BYTES: u64 = 4 << 30;

/// Most watts that a meter may show: a megawatt, which feeds a hall of machines.
const MOST: f64 = 1e6;

fn parse(bytes: &[u8]) -> Result<Vec<(f64, f64)>, String> {
    // Samples stand at the end, whatever is in front of them.
    let last = bytes.trim_ascii_end().rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let delimiter = [b';', b'\t'].into_iter().find(|d| last.contains(d)).unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .delimiter(delimiter)
        .comment(Some(b'#'))
        .from_reader(bytes);
    let mut samples: Vec<(f64, f64)> = Vec::new();
    // Of the time of the last sample.
    let mut of_one_time = 0.0;
    // What is wrong with what was skipped, but for a first line of names of columns.
    let mut wrong_front = None;
    for (index, row) in reader.records().enumerate() {
        let row = row.map_err(|e| e.to_string())?;
        let line = row.position().map_or(0, csv::Position::line);
        let sample = match (row.get(0), row.get(1)) {
            (Some(time), Some(watts)) => {
                // Where commas part columns, one within a number may part thousands.
                let watts = if delimiter == b',' { watts.into() } else { watts.replacen(',', ".", 1) };
                sample(time, &watts).map_err(|wrong| format!("line {line} {wrong}"))
            }
            _ => Err(format!("line {line} has fewer than two columns")),
        };
        let (at, watts) = match sample {
            Ok(sample) => sample,
            Err(wrong) if samples.is_empty() => {
                if index > 0 || row.len() < 2 {
                    wrong_front.get_or_insert(wrong);
                }
                continue;
            }
            Err(wrong) => return Err(wrong),
        };
        if !at.is_finite() || !(0.0..=MOST).contains(&watts) {
            return Err(format!("line {line} holds {watts} W at {at}, which cannot be"));
        }
        match samples.last_mut() {
            Some(last) if last.0 > at => return Err(format!("line {line} is earlier than the one before")),
            Some(last) if last.0 == at => {
                of_one_time += 1.0;
                last.1 += (watts - last.1) / of_one_time;
            }
            _ => {
                of_one_time = 1.0;
                samples.push((at, watts));
            }
        }
    }
    // A log that has just begun holds names of columns at most.
    wrong_front.filter(|_| samples.is_empty()).map_or(Ok(samples), Err)
}

/// Time and power of a line.
fn sample(time: &str, watts: &str) -> Result<(f64, f64), String> {
    let at = time.parse::<f64>().ok().map(of_number);
    let at = at.or_else(|| time.parse().ok().map(seconds)).or_else(|| time.parse().ok().map(of_utc));
    let power = watts.parse().ok();
    at.zip(power).ok_or_else(|| format!("holds '{time}' and '{watts}', which are no time and power"))
}

/// Trapezoids over `from..to`, with the power at both ends interpolated; `None` where the samples do
/// not cover the window. Joules, mean time between samples, and the longest time of the window without a
/// sample where some are missing there.
fn integrate(samples: &[(f64, f64)], from: f64, to: f64) -> Option<(f64, f64, Option<f64>)> {
    if samples.first()?.0 > from || samples.last()?.0 < to {
        return None;
    }
    let (mut joules, mut inside, mut widest) = (0.0, 0, 0.0f64);
    let gaps: Vec<f64> = samples.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    // A sample that comes late or is lost does no harm.
    let hole = 5.0 * if gaps.is_empty() { f64::MAX } else { stats::median(&gaps) };
    for pair in samples.windows(2) {
        let [(t0, p0), (t1, p1)] = [pair[0], pair[1]];
        let (start, end) = (t0.max(from), t1.min(to));
        if start < end {
            let power = |t: f64| p0 + (p1 - p0) * (t - t0) / (t1 - t0);
            joules += (power(start) + power(end)) / 2.0 * (end - start);
            inside += 1;
            if t1 - t0 > hole {
                widest = widest.max(end - start);
            }
        }
    }
    let missing = (widest > 0.1 * (to - from)).then_some(widest);
    (inside > 0).then(|| (joules, (to - from) / f64::from(inside), missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trapezoids_with_interpolated_ends() {
        let ramp = [(0.0, 0.0), (10.0, 100.0), (20.0, 100.0)];
        let (joules, period, hole) = integrate(&ramp, 5.0, 15.0).unwrap();
        // 5 s from 50 to 100 W, then 5 s at 100 W.
        assert!((joules - 875.0).abs() < 1e-9, "{joules}");
        assert_eq!((period, hole), (5.0, None));
        let mut lost: Vec<_> = (0..=40).map(|i| (f64::from(i) / 2.0, 100.0)).collect();
        lost.drain(10..14);
        assert_eq!(integrate(&lost, 0.0, 20.0).unwrap().2, None);
        lost.drain(10..12);
        assert_eq!(integrate(&lost, 0.0, 20.0).unwrap().2, Some(3.5));
        assert_eq!(integrate(&lost, 5.0, 7.0).unwrap().2, Some(2.0));
        assert_eq!(integrate(&ramp, 5.0, 20.5), None);
        assert_eq!(integrate(&ramp, -0.1, 5.0), None);
        assert_eq!(integrate(&[], 0.0, 1.0), None);
    }

    #[test]
    fn both_forms_of_time_and_a_line_of_names_are_read() {
        let text = "time,watts,note\n1970-01-01T00:00:10Z,5.5,a\n1970-01-01T01:00:20.5+01:00, 6\n30,7\n";
        assert_eq!(parse(text.as_bytes()).unwrap(), [(10.0, 5.5), (20.5, 6.0), (30.0, 7.0)]);
    }

    #[test]
    fn what_meters_write_around_and_between_samples_is_read() {
        let text = "Device: plug\n# of 2026\ntime;power\n10;5,5\n10;6,5\n10;9\n11;8\n";
        assert_eq!(parse(text.as_bytes()).unwrap(), [(10.0, 7.0), (11.0, 8.0)]);
        assert_eq!(parse(b"a\tb\n1\t2.5\tx\n").unwrap(), [(1.0, 2.5)]);
    }

    #[test]
    fn milliseconds_and_times_without_an_offset_are_read() {
        let text = "1700000000500,1\n2023-11-14 22:13:21,2\n1700000002,3\n";
        let times: Vec<f64> = parse(text.as_bytes()).unwrap().iter().map(|s| s.0).collect();
        assert_eq!(times, [1_700_000_000.5, 1_700_000_001.0, 1_700_000_002.0]);
    }

    #[test]
    fn damaged_logs_name_the_line() {
        for (text, line) in [
            ("1,2\nx,3\n", "line 2"),
            ("2,2\n1,3\n", "line 2"),
            ("1,2\n2,\"1,234\"\n", "line 2"),
            ("meter\nx,y\n", "line 1"),
            ("a,b\n2026,watt\n", "line 2"),
            ("1\n", "line 1"),
            ("1,-4\n", "line 1"),
            ("1,NaN\n", "line 1"),
            ("1,1e308\n", "line 1"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(line), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_window_that_the_log_does_not_cover_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.csv");
        std::fs::write(&path, "10,4\n20,8\n30,8\n40,1").unwrap();
        let log = Log::open(&path).unwrap();
        let at = |s| Timestamp::from_second(s).unwrap();
        assert_eq!(log.joules(at(10), at(30), Duration::ZERO).unwrap().0, 140.0);
        // The last line may not be whole yet.
        let error = log.joules(at(10), at(40), Duration::ZERO).unwrap_err();
        assert!(error.contains("10 to 30"), "{error}");
    }
}
