//! Pictures over two quantities: size against speed against perplexity, threads, roofline.

use super::super::document::{Block, Cell, Section, Table};
use super::super::number::{bytes, percent, significant};
use super::super::plot::{Axis, Plot, Series, Xy};
use super::super::row::{subject_name, weight_bits, weight_bytes, work};
use super::speed::speed_cell;
use super::verdict::by_model;
use super::{
    Family, Ranked, dedup, median, model_name, plot_prefix, ranking, record_heading, section, several_timed,
    slug, speed_tests,
};
use crate::machine::Limits;
use crate::record::{Arm, Outcome, Record, Test};
use crate::stats;
use crate::words::counted;

/// Size against decoding speed for each layout, size against perplexity for several models.
pub fn trade_off(records: &[Record]) -> Option<Section> {
    let mut blocks = Vec::new();
    for (i, record) in records.iter().enumerate() {
        let prefix = plot_prefix(records, i);
        let figures = size_and_speed(record, &prefix).into_iter().chain(size_and_perplexity(record, &prefix));
        let figures: Vec<Block> = figures.map(Block::Figure).collect();
        if !figures.is_empty() {
            blocks.extend(record_heading(records, i));
            blocks.extend(figures);
            blocks.extend(sizes(record).map(Block::Table));
        }
    }
    section("trade-off", "Size, speed, perplexity", blocks)
}

/// The figures behind both pictures: layouts and references, the smallest first.
fn sizes(record: &Record) -> Option<Table> {
    let tests = speed_tests(record);
    let decode = tests.iter().map(|(_, t)| *t).find(|t| matches!(t, Test::Model { prompt: 0, .. }));
    let speed = decode.map_or("Speed#".into(), |t| format!("Decode, {t}#"));
    let headings = ["Subject", "Bits a weight#", "All weights#", "Perplexity#", &speed];
    let mut table =
        Table::new("Size, perplexity and speed of decoding, each on its fastest kernel", &headings);
    let perplexities = by_model(record);
    for model in &record.models {
        let mut arms: Vec<&Arm> = Vec::new();
        let timed = decode.map(|t| ranking(record, &model.id, t)).unwrap_or_default();
        arms.extend(timed.iter().map(Ranked::best));
        for arm in record.arms.iter().filter(|a| a.subject.model == model.id && a.accuracy.is_some()) {
            if arm.subject.head().is_none() && !arms.iter().any(|a| Family::of(a) == Family::of(arm)) {
                arms.push(arm);
            }
        }
        arms.retain(|a| weight_bytes(record, a).is_some());
        arms.sort_by_key(|a| weight_bytes(record, a));
        for arm in arms {
            let same = |a: &&Arm| a.subject.model == model.id && Family::of(a) == Family::of(arm);
            let own =
                record.arms.iter().filter(same).filter_map(|a| a.accuracy.as_ref()).max_by_key(|a| a.scored);
            // Our kernels agree, so that a layout that was not run over the text has the model's.
            let of_model = || perplexities.iter().find(|(m, _)| m.id == model.id).map(|(_, a)| *a);
            let accuracy = own.or_else(|| arm.subject.layout.as_ref().and_then(|_| of_model()));
            let bits =
                weight_bits(record, arm).map_or_else(Cell::none, |b| Cell::figure(b, significant(b, 3)));
            let size =
                weight_bytes(record, arm).map_or_else(Cell::none, |n| Cell::figure(n as f64, bytes(n)));
            let several = if record.models.len() > 1 { model.name.as_str() } else { "" };
            table.row(vec![
                Cell::text(Family::of(arm).name()).detail(several),
                bits,
                size,
                accuracy.map_or_else(Cell::none, |a| Cell::figure(a.ppl, significant(a.ppl, 5))),
                if Some(&arm.test) == decode { speed_cell(arm) } else { Cell::none() },
            ]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

fn size_and_speed(record: &Record, prefix: &str) -> Option<Plot> {
    let (_, test) =
        speed_tests(record).into_iter().find(|(_, t)| matches!(t, Test::Model { prompt: 0, .. }))?;
    let (mut series, mut fronts) = (Vec::new(), Vec::new());
    for (index, model) in record.models.iter().enumerate() {
        let mut found = Vec::new();
        for ranked in ranking(record, &model.id, test) {
            let Some(bits) = weight_bits(record, ranked.best()) else { continue };
            found.push((bits, median(ranked.best()), ranked.family.name(), ranked.best()));
        }
        if found.is_empty() {
            continue;
        }
        let perplexity = record
            .arms
            .iter()
            .filter(|a| a.subject.model == model.id && a.subject.head().is_none())
            .filter_map(|a| Some((a.subject.engine == "tritmark", a.accuracy.as_ref()?)))
            .max_by_key(|(ours, a)| (a.scored, *ours));
        let perplexity = perplexity.map_or("perplexity not measured".into(), |(_, a)| {
            format!("perplexity {}", significant(a.ppl, 4))
        });
        // Each model has a front of its own: a faster or smaller one that predicts worse does not
        // take its place.
        let front = frontier(found.iter().map(|f| (f.0, f.1)).collect());
        if front.len() > 1 {
            fronts.push(Series {
                style: Some(index),
                line: true,
                guide: true,
                points: front,
                ..Series::default()
            });
        }
        series.push(Series {
            name: format!("{}, {perplexity}", model.name),
            style: Some(index),
            points: found.iter().map(|f| (f.0, f.1)).collect(),
            intervals: found.iter().map(|f| f.3.speed.as_ref().map_or([f.1; 2], |s| s.interval)).collect(),
            labels: found.iter().map(|f| f.2.clone()).collect(),
            ..Series::default()
        });
    }
    let count: usize = series.iter().map(|s| s.points.len()).sum();
    if count < 2 {
        return None;
    }
    let series: Vec<Series> = fronts.into_iter().chain(series).collect();
    let unit = "decode, tokens/s";
    let chart = Xy {
        x: Axis { label: "bits a ternary weight".into(), close: true, ..Axis::default() },
        y: Axis { label: unit.into(), ..Axis::default() },
        series,
    };
    let title = format!("Size against speed of decoding ({test})");
    let alt = format!(
        "Scatter plot of {count} layouts: bits a weight against tokens a second; both stand in the tables above."
    );
    Some(Plot::new(format!("{prefix}size-speed"), title, "Each point is a layout at its fastest instruction set and number of threads. Left is smaller, up is faster. A model's perplexity does not depend on the layout. Dashed, for each model by itself: no layout of it is both smaller and faster.".into(), alt, &chart))
}

/// Points that no other beats in both, from left to right.
fn frontier(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut best = f64::MIN;
    points.retain(|p| {
        let keeps = p.1 > best;
        best = best.max(p.1);
        keeps
    });
    points
}

/// One point for each layout and reference that went over the same text; the text that most did.
fn size_and_perplexity(record: &Record, prefix: &str) -> Option<Plot> {
    let mut tests: Vec<&Test> =
        record.arms.iter().filter(|a| a.accuracy.is_some()).map(|a| &a.test).collect();
    dedup(&mut tests);
    // Kernels and threads of a layout give the same bits, so that one of them stands for all.
    let per_test = |test: &Test| -> Vec<(usize, u64, &Arm)> {
        let mut found: Vec<(usize, u64, &Arm)> = Vec::new();
        for arm in record
            .arms
            .iter()
            .filter(|a| a.test == *test && a.accuracy.is_some() && a.subject.head().is_none())
        {
            let Some(index) = record.models.iter().position(|m| m.id == arm.subject.model) else { continue };
            let known = |f: &(usize, u64, &Arm)| {
                let (a, b) = (&f.2.subject, &arm.subject);
                (&a.model, &a.engine, &a.layout, &a.variant) == (&b.model, &b.engine, &b.layout, &b.variant)
            };
            if !found.iter().any(known)
                && let Some(size) = weight_bytes(record, arm)
            {
                found.push((index, size, arm));
            }
        }
        found.sort_by_key(|f| (f.0, f.1));
        found
    };
    let sizes = |points: &[(usize, u64, &Arm)]| {
        let mut sizes: Vec<u64> = points.iter().map(|p| p.1).collect();
        sizes.dedup();
        // Rather a text that a reference went over too, then the one with the most points.
        (points.iter().any(|p| p.2.subject.layout.is_none()), sizes.len())
    };
    let (test, points) = tests.iter().map(|t| (*t, per_test(t))).max_by_key(|(_, p)| sizes(p))?;
    if sizes(&points).1 < 2 {
        return None;
    }
    let mut series = Vec::new();
    for (index, model) in record.models.iter().enumerate() {
        let mine: Vec<_> = points.iter().filter(|p| p.0 == index).collect();
        let accuracies: Vec<_> = mine.iter().filter_map(|p| p.2.accuracy.as_ref()).collect();
        let packed: Vec<_> = mine.iter().filter(|p| p.2.subject.layout.is_some()).collect();
        // Layouts lie close together; the largest bears the name of all.
        let label = |p: &(usize, u64, &Arm)| match &p.2.subject.layout {
            None => {
                let s = &p.2.subject;
                let precision = if s.engine == "candle" { " (f32)" } else { "" };
                format!("{}{precision}", s.variant.as_deref().unwrap_or(&s.engine))
            }
            Some(layout) if packed.len() == 1 => layout.clone(),
            Some(_) if packed.last().is_some_and(|last| last.2.subject == p.2.subject) => {
                format!("{} layouts", packed.len())
            }
            Some(_) => String::new(),
        };
        series.push(Series {
            name: model.name.clone(),
            style: Some(index),
            points: mine.iter().zip(&accuracies).map(|(p, a)| (p.1 as f64 / 1e6, a.ppl)).collect(),
            intervals: accuracies
                .iter()
                .map(|a| [a.ppl - 1.96 * a.ppl_stderr, a.ppl + 1.96 * a.ppl_stderr])
                .collect(),
            labels: mine.iter().map(|p| label(p)).collect(),
            ..Series::default()
        });
    }
    let all = || series.iter().flat_map(|s: &Series| s.points.iter().map(|p| p.1));
    let (best, worst) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    let chart = Xy {
        x: Axis { label: "MB of the blocks' weights".into(), log: true, ..Axis::default() },
        y: Axis {
            label: "perplexity (lower is better)".into(),
            // On one linear axis a model that fails would press all others together.
            log: worst > 4.0 * best,
            close: true,
            ..Axis::default()
        },
        series,
    };
    let alt = format!(
        "Scatter plot of {} subjects: size against perplexity; both stand in the tables.",
        points.len()
    );
    Some(Plot::new(
        format!("{prefix}size-perplexity"),
        format!("Accuracy against size ({test})"),
        "Whiskers: 95 % interval of the perplexity over the text, which is common to all points of a model: \
         see the table of divergences for differences between them. Left is smaller, down is better."
            .into(),
        alt,
        &chart,
    ))
}

/// Speed by number of threads for the fastest instruction set of each layout.
pub fn threads(records: &[Record]) -> Option<Section> {
    let mut blocks = Vec::new();
    for (i, record) in records.iter().enumerate() {
        let mut figures = Vec::new();
        for (model, test) in speed_tests(record) {
            figures.extend(sweep(record, model, test, &plot_prefix(records, i)));
        }
        if !figures.is_empty() {
            blocks.extend(record_heading(records, i));
            blocks.extend(figures);
        }
    }
    section("threads", "Thread scaling", blocks)
}

fn sweep(record: &Record, model: &str, test: &Test, prefix: &str) -> Vec<Block> {
    let mut series = Vec::new();
    let mut knees = Vec::new();
    for (index, ranked) in ranking(record, model, test).iter().enumerate() {
        let tier = &ranked.best().subject.tier;
        let mine = |a: &&Arm| {
            a.subject.model == model
                && a.test == *test
                && Family::of(a) == ranked.family
                && a.subject.tier == *tier
                && a.speed.is_some()
        };
        let mut arms: Vec<&Arm> = record.arms.iter().filter(mine).collect();
        arms.sort_by_key(|a| a.subject.threads);
        if arms.len() < 2 {
            continue;
        }
        let points: Vec<(u32, f64)> = arms.iter().map(|a| (a.subject.threads, median(a))).collect();
        let last = points[points.len() - 1];
        let gain = format!(
            "{} times from {} to {}",
            significant(last.1 / points[0].1, 3),
            points[0].0,
            counted(last.0, "thread")
        );
        let knee = stats::knee(&points)
            .filter(|k| k.0 < last.0)
            .map_or(String::new(), |k| format!("; 95 % of the best with {}", counted(k.0, "thread")));
        knees.push(format!("{}, {test}: {gain}{knee}.", subject_name(ranked.best())));
        series.push(Series {
            name: subject_name(ranked.best()),
            style: Some(index),
            line: true,
            points: points.iter().map(|p| (f64::from(p.0), p.1)).collect(),
            intervals: arms.iter().map(|a| a.speed.as_ref().map_or([0.0; 2], |s| s.interval)).collect(),
            ..Series::default()
        });
    }
    if series.is_empty() {
        return Vec::new();
    }
    let mut counts: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).collect();
    counts.sort_by(f64::total_cmp);
    counts.dedup();
    let first = series[0].points[0];
    let ideal = counts.iter().map(|&n| (n, first.1 / first.0 * n)).collect();
    series.insert(
        0,
        Series {
            name: "proportional to threads".into(),
            style: Some(7),
            line: true,
            guide: true,
            points: ideal,
            ..Series::default()
        },
    );
    let unit = series_unit(record, test);
    let chart = Xy {
        x: Axis {
            label: "threads".into(),
            ticks: counts.iter().map(|n| (*n, format!("{n}"))).collect(),
            ..Axis::default()
        },
        y: Axis { label: unit, ..Axis::default() },
        series,
    };
    let name = if several_timed(record) {
        format!("{test} of {}", model_name(record, model))
    } else {
        test.to_string()
    };
    let alt = format!("Line chart of speed by threads for {} subjects. {}", knees.len(), knees[0]);
    let file = format!("{prefix}threads-{}-{}", slug(model), slug(&test.to_string()));
    let plot = Plot::new(
        file,
        format!("Speed by threads: {name}"),
        "Whiskers: bootstrap 95 % interval.".into(),
        alt,
        &chart,
    );
    vec![Block::Figure(plot), Block::List { items: knees }]
}

fn series_unit(record: &Record, test: &Test) -> String {
    record
        .arms
        .iter()
        .find(|a| a.test == *test)
        .and_then(|a| a.speed.as_ref())
        .map_or_else(String::new, |s| s.unit.clone())
}

/// Work done a second against work for each byte of weights, below the machine's measured limits.
pub fn roofline(records: &[Record]) -> Option<Section> {
    let mut blocks = Vec::new();
    for (i, record) in records.iter().enumerate() {
        blocks.extend(match &record.limits {
            Outcome::Measured(limits) => {
                let figure = roof(record, limits, &plot_prefix(records, i)).map(Block::Figure);
                let table = figure.as_ref().map(|_| Block::Table(work_done(record)));
                figure.into_iter().chain(table).collect::<Vec<_>>()
            }
            Outcome::NotMeasured(reason) => vec![Block::text(format!("Not measured: {reason}"))],
        });
    }
    section("roofline", "Roofline", blocks)
}

/// The points of the picture.
fn work_done(record: &Record) -> Table {
    let headings = ["Subject", "Test", "MACs a byte#", "10⁹ MACs a second#", "Of limit#"];
    let mut table = Table::new("Multiply-accumulates (MACs) of the packed matrices", &headings);
    for (model, test) in speed_tests(record) {
        for ranked in ranking(record, model, test) {
            let arm = ranked.best();
            let Some((density, rate)) = work(record, arm) else { continue };
            let limit = arm.speed.as_ref().and_then(|s| Some(100.0 * s.median / s.bound.as_ref()?.value));
            let several = if several_timed(record) { model_name(record, model) } else { "" };
            table.row(vec![
                Cell::text(subject_name(arm)).detail(several),
                Cell::text(test.to_string()),
                Cell::figure(density, significant(density, 3)),
                Cell::figure(rate, significant(rate, 3)),
                limit.map_or_else(Cell::none, |l| Cell::figure(l, percent(l / 100.0))),
            ]);
        }
    }
    table
}

fn roof(record: &Record, limits: &Limits, prefix: &str) -> Option<Plot> {
    let mut points: Vec<Series> = Vec::new();
    let mut most = 1;
    for (index, (model, test)) in speed_tests(record).into_iter().enumerate() {
        let mut series = Series {
            name: if several_timed(record) {
                format!("{test} of {}", model_name(record, model))
            } else {
                test.to_string()
            },
            style: Some(index),
            ..Series::default()
        };
        for ranked in ranking(record, model, test) {
            let Some(point) = work(record, ranked.best()) else { continue };
            most = most.max(ranked.best().subject.threads);
            series.points.push(point);
            series.labels.push(ranked.family.name());
        }
        if !series.points.is_empty() {
            points.push(series);
        }
    }
    let xs = || points.iter().flat_map(|s| s.points.iter().map(|p| p.0));
    let (low, high) = (xs().reduce(f64::min)? / 2.0, xs().reduce(f64::max)? * 2.0);
    // The limits for as many threads as the points had, or the nearest below.
    let at = |n: u32| n <= most;
    let peak =
        limits.int8.iter().filter(|l| at(l.threads)).max_by(|a, b| a.gmac_per_s.total_cmp(&b.gmac_per_s))?;
    let mut series = vec![Series {
        name: format!("int8 peak, {}, {}", peak.tier, counted(peak.threads, "thread")),
        line: true,
        guide: true,
        points: vec![(low, peak.gmac_per_s), (high, peak.gmac_per_s)],
        ..Series::default()
    }];
    let mut levels: Vec<&str> = limits.read.iter().map(|l| l.level.as_str()).collect();
    dedup(&mut levels);
    for (i, level) in levels.iter().enumerate() {
        let read = limits
            .read
            .iter()
            .filter(|l| l.level == *level && at(l.threads))
            .max_by(|a, b| a.gb_per_s.total_cmp(&b.gb_per_s));
        let Some(read) = read else { continue };
        // Up to where it meets the peak; left of all points it binds none of them.
        let end = (peak.gmac_per_s / read.gb_per_s).min(high);
        if end <= low {
            continue;
        }
        series.push(Series {
            name: format!("{level}, {} GB/s", significant(read.gb_per_s, 3)),
            style: Some([7, 5, 4, 3][i % 4]),
            line: true,
            guide: true,
            points: vec![(low, low * read.gb_per_s), (end, end * read.gb_per_s)],
            ..Series::default()
        });
    }
    series.extend(points);
    let chart = Xy {
        x: Axis {
            label: "multiply-accumulates for each byte of weights".into(),
            log: true,
            ..Axis::default()
        },
        y: Axis { label: "10⁹ multiply-accumulates a second".into(), log: true, ..Axis::default() },
        series,
    };
    let caption = "Points: the fastest instruction set of each layout. Counted are the ternary matrices alone; time is that of the whole model, so attention, norms and head lower a point. Lines: what reading the weights once a batch allows from each level of memory, and the arithmetic peak, both measured on this machine.";
    Some(Plot::new(format!("{prefix}roofline"), "Roofline".into(), caption.into(), "Log-log chart of work against work for each byte, below the measured limits of memory and arithmetic; the figures stand in the tables of speed and of limits.".into(), &chart))
}
