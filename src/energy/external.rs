//! The log of an external power meter: CSV of time stamps and watts.

use super::MOST_WATTS;
use super::sensors::LEAST;
use crate::checkpoint::file;
use crate::error::{Error, Result};
use crate::stats;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A log that a meter's own program writes, before or while we measure.
///
/// Columns stand between commas, semicolons or tabs. A line of names in front says which is the power and in what unit
/// (`power_mW`, `P (kW)`, `watts`) and which the time; without one there are two, time and watts. Times are RFC 3339,
/// `2026-01-31 12:00:00` in UTC, or seconds since 1970 or their thousandths, millionths or thousand-millionths. What
/// stands before the names, or before the first sample where there are none, is skipped, and so are lines that begin
/// with `#`. Numbers between semicolons or tabs may have decimal commas. Of samples of one time the
/// mean counts, as of a meter that writes more often than its clock shows. That clock must be this machine's.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
    /// Whether it held no sample when it was opened.
    empty: bool,
}

impl Log {
    /// Opens a log, which must be readable and in order but may be empty so far.
    ///
    /// # Errors
    /// If it is no such file; the message names the line.
    pub fn open(path: &Path) -> Result<Self> {
        let mut log = Self { path: path.into(), empty: true };
        log.empty = log.samples()?.is_empty();
        Ok(log)
    }

    /// Whether it held no sample when it was opened.
    pub fn is_empty(&self) -> bool {
        self.empty
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
                "expected lines of TIME,WATTS in order (or with ; or a tab between), or a line of names with one \
                 column of power, as time,volt,power_mW; the time in RFC 3339, as 2026-01-31 12:00:00 (UTC), or in \
                 seconds since 1970 or their thousandths, millionths or thousand-millionths",
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
                    let shown = |seconds: f64| (1e3 * seconds).round() / 1e3;
                    let covered = match samples.first().zip(samples.last()) {
                        Some((a, b)) => format!("covers {} to {}", shown(a.0), shown(b.0)),
                        None => "holds no sample".into(),
                    };
                    format!(
                        "{} {covered}, but the window was {} to {} (seconds since 1970); the meter must write the log \
                         meanwhile, by this machine's clock",
                        self.name(),
                        shown(from),
                        shown(to)
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
    let time_in = |cell: &str| time(&with_point(cell, delimiter));
    let mut samples: Vec<(f64, f64)> = Vec::new();
    // With how many are named.
    let (mut columns, mut names): (Result<_, String>, _) = (Ok(Columns::FIRST_TWO), None);
    // Of the time of the last sample.
    let mut of_one_time = 0.0;
    // What is wrong with what was skipped, but for a first line of names of columns.
    let mut wrong_front = None;
    for (index, row) in reader.records().enumerate() {
        let row = row.map_err(|e| e.to_string())?;
        let line = row.position().map_or(0, csv::Position::line);
        let sample = match &columns {
            Ok(columns) => columns.sample(&row, delimiter).map_err(|wrong| format!("line {line} {wrong}")),
            Err(wrong) if row.get(0).and_then(time_in).is_some() => return Err(wrong.clone()),
            Err(wrong) => Err(wrong.clone()),
        };
        let (at, watts) = match sample {
            Ok(_) if row.iter().skip(names.unwrap_or(2)).any(|cell| time_in(cell).is_some()) => {
                return Err(match names {
                    None => format!(
                        "line {line} has more than two columns of numbers and no line of names says which is the power"
                    ),
                    Some(names) => format!(
                        "line {line} has more numbers than the {names} columns that are named; where numbers hold commas, \
                         columns must stand between semicolons or tabs"
                    ),
                });
            }
            Ok(sample) => sample,
            // Below names that tell the columns stand samples.
            Err(wrong)
                if columns
                    .as_ref()
                    .is_ok_and(|c| names.is_some() && row.get(c.time).and_then(time_in).is_some()) =>
            {
                return Err(wrong);
            }
            Err(wrong) if samples.is_empty() => {
                if index > 0 || row.len() < 2 {
                    wrong_front.get_or_insert(wrong);
                }
                if row.len() > 1 && row.iter().all(|cell| time_in(cell).is_none()) {
                    names = Some(row.len());
                    columns = Columns::named(&row).map_err(|wrong| format!("line {line} {wrong}"));
                }
                continue;
            }
            Err(wrong) => return Err(wrong),
        };
        if !at.is_finite() || !(LEAST..=MOST_WATTS).contains(&watts) {
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

/// Where time and power stand in a line.
#[derive(Debug)]
struct Columns {
    time: usize,
    power: usize,
    /// Watts of one in that column.
    unit: f64,
}

impl Columns {
    const FIRST_TWO: Self = Self { time: 0, power: 1, unit: 1.0 };

    /// By a line of names, one of which must be a power's.
    fn named(names: &csv::StringRecord) -> Result<Self, String> {
        let mut powers = names.iter().enumerate().filter_map(|(i, name)| Some((i, unit(name)?)));
        let all = || names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        match (powers.next(), powers.next()) {
            (Some((power, unit)), None) => {
                let called = |what: &str| {
                    let mut names = names.iter().enumerate();
                    names.position(|(i, name)| i != power && name.to_ascii_lowercase().contains(what))
                };
                let time = called("time").or_else(|| called("date")).or((power != 0).then_some(0));
                let time = time.ok_or_else(|| format!("names no column of time, but {}", all()))?;
                Ok(Self { time, power, unit })
            }
            (None, _) => Err(format!("names no column of power in watts, but {}", all())),
            _ => Err(format!("names more than one column of power: {}; leave one", all())),
        }
    }

    /// Time and watts of a line.
    fn sample(&self, row: &csv::StringRecord, delimiter: u8) -> Result<(f64, f64), String> {
        let [Some(at), Some(power)] = [self.time, self.power].map(|i| row.get(i)) else {
            return Err(format!("has fewer than {} columns", self.time.max(self.power) + 1));
        };
        let sample = time(&with_point(at, delimiter)).zip(with_point(power, delimiter).parse::<f64>().ok());
        let (time, number) =
            sample.ok_or_else(|| format!("holds '{at}' and '{power}', which are no time and power"))?;
        Ok((time, number * self.unit))
    }
}

/// A number with a point: where commas part columns, one within a number may part thousands.
fn with_point(number: &str, delimiter: u8) -> Cow<'_, str> {
    if delimiter == b',' { number.into() } else { number.replacen(',', ".", 1).into() }
}

/// Seconds since 1970.
fn time(text: &str) -> Option<f64> {
    let number = text.parse::<f64>().ok().map(of_number);
    number.or_else(|| text.parse().ok().map(seconds)).or_else(|| text.parse().ok().map(of_utc))
}

/// Watts of one in a column of that name, if it is power.
fn unit(name: &str) -> Option<f64> {
    let words = || name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let unit = |word: &str| match word {
        // The case tells thousandths from millions.
        "MW" => None,
        _ => match &word.to_lowercase()[..] {
            "w" | "watt" | "watts" => Some(1.0),
            "kw" | "kilowatt" | "kilowatts" => Some(1e3),
            "mw" | "milliwatt" | "milliwatts" => Some(1e-3),
            "uw" | "µw" | "μw" | "microwatt" | "microwatts" => Some(1e-6),
            _ => None,
        },
    };
    // Without a unit the last word says what it is: an active power, but no power factor.
    let power =
        || words().next_back().is_some_and(|word| word.to_lowercase().ends_with("power")).then_some(1.0);
    // Watts times hours are energy.
    let others = ["apparent", "reactive", "h", "hour", "hours", "wh", "kwh"];
    let other = words().any(|word| others.contains(&&word.to_lowercase()[..]));
    words().find_map(unit).or_else(power).filter(|_| !other)
}

/// Trapezoids over `from..to`, with the power at both ends interpolated; `None` where the samples do
/// not cover the window. Joules, mean time between samples, and the longest time of the window without a
/// sample where some are missing there.
fn integrate(samples: &[(f64, f64)], from: f64, to: f64) -> Option<(f64, f64, Option<f64>)> {
    if samples.first()?.0 > from || samples.last()?.0 < to {
        return None;
    }
    let (mut joules, mut inside, mut widest) = (0.0, Vec::new(), 0.0f64);
    let gaps: Vec<f64> = samples.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    // A sample that comes late or is lost does no harm.
    let hole = 5.0 * if gaps.is_empty() { f64::MAX } else { stats::median(&gaps) };
    for pair in samples.windows(2) {
        let [(t0, p0), (t1, p1)] = [pair[0], pair[1]];
        let (start, end) = (t0.max(from), t1.min(to));
        if start < end {
            let power = |t: f64| p0 + (p1 - p0) * (t - t0) / (t1 - t0);
            joules += (power(start) + power(end)) / 2.0 * (end - start);
            inside.push(t1 - t0);
            if t1 - t0 > hole {
                widest = widest.max(end - start);
            }
        }
    }
    let missing = (widest > 0.1 * (to - from)).then_some(widest);
    // Also what reaches over an end of the window is whole here.
    let period = inside.iter().sum::<f64>() / inside.len() as f64;
    (!inside.is_empty()).then_some((joules, period, missing))
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
        assert_eq!((period, hole), (10.0, None));
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
        assert_eq!(parse(b"a\tPower\n1\t2.5\tx\n").unwrap(), [(1.0, 2.5)]);
        assert_eq!(parse(b"1,2.5,ok\n").unwrap(), [(1.0, 2.5)]);
        assert_eq!(parse(b"time;power\n10,5;-0,3\n").unwrap(), [(10.5, -0.3)]);
        // A first sample that is none is not passed over.
        for first in ["10;1.234,5", "10,5;1.234,5"] {
            let error = parse(format!("time;power;id\n{first};7\n11;5;8\n").as_bytes()).unwrap_err();
            assert!(error.contains("line 2 holds '10"), "{error}");
        }
        let error = parse(b"10,5;230,1;50,5\n11,5;230,2;50,6\n").unwrap_err();
        assert!(error.contains("more than two columns"), "{error}");
        // Commas within numbers.
        for (line, wrong) in [("1,4,9", "line 2 has more numbers than the 2 columns"), ("1,0,50,5", "line 2")]
        {
            let error = parse(format!("time,watts\n{line}\n").as_bytes()).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_line_of_names_says_which_column_is_the_power_and_its_unit() {
        let front = "Meter,A7\nSerial,12\n";
        for (names, cells, watts) in [
            ("timestamp,voltage,watts", "1,230.1,50", 50.0),
            ("timestamp,watts,voltage", "1,50,230.1", 50.0),
            ("timestamp,current_A,voltage_V,power_W", "1,0.2,230,50", 50.0),
            ("timestamp,power_mW", "1,50000", 50.0),
            ("Time,P (kW)", "1,0.05", 50.0),
            ("Power [\u{b5}W],unix time", "250000,1", 0.25),
            ("time,Power Factor,Active Power", "1,0.9,50", 50.0),
            ("power_W,voltage,Date", "50,230.1,1", 50.0),
            ("time_W,Date", "50,1", 50.0),
        ] {
            for front in ["", front] {
                let text = format!("{front}{names}\n{cells}\n");
                let samples = parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text:?}: {e}"));
                assert!(
                    matches!(samples[..], [(1.0, w)] if (w - watts).abs() < 1e-9),
                    "{text:?}: {samples:?}"
                );
            }
        }
        for (text, found) in [
            ("time,voltage\n1,230\n", "line 1 names no column of power in watts, but 'time', 'voltage'"),
            ("time,energy_Wh\n1,230\n", "line 1 names no column"),
            ("time,Energy (Watt-hours)\n1,230\n", "line 1 names no column of power"),
            ("time,kW·h\n1,230\n", "line 1 names no column of power"),
            ("power_W,when\n50,1\n", "line 1 names no column of time, but 'power_W', 'when'"),
            ("time,power factor\n1,0.5\n", "line 1 names no column"),
            ("time,apparent power\n1,230\n", "line 1 names no column"),
            ("time,MW\n1,230\n", "line 1 names no column"),
            ("time,L1_W,L2_W\n1,20,30\n", "line 1 names more than one column of power"),
            ("time,W\n5,\n", "line 2 holds '5' and ''"),
            ("1,230,50\n", "line 1 has more than two columns of numbers and no line of names"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(found), "{text:?}: {error}");
        }
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
            ("a,W\n2026,watt\n", "line 2"),
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
