//! Points and lines over two axes, each linear from zero or logarithmic.

use super::Chart;
use super::canvas::{Anchor, Canvas, Ink, shortened, text_width};
use crate::report::number::{short, ticks};

/// A chart of series over two axes.
#[derive(Debug, Clone, Default)]
pub struct Xy {
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn, later over earlier.
    pub series: Vec<Series>,
}

/// An axis.
#[derive(Debug, Clone, Default)]
pub struct Axis {
    /// Quantity and unit.
    pub label: String,
    /// Logarithmic; all values must be above 0 then.
    pub log: bool,
    /// Begins near the least value rather than at zero: for quantities whose size nobody reads off.
    pub close: bool,
    /// Where ticks stand and what is written there; chosen from the values where empty.
    pub ticks: Vec<(f64, String)>,
}

/// A series.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// Its name in the legend; not in it where empty.
    pub name: String,
    /// Colour and shape; `None` for a limit of the machine.
    pub style: Option<usize>,
    /// Whether its points are joined.
    pub line: bool,
    /// Whether its line is dashed and has no markers.
    pub guide: bool,
    /// The points.
    pub points: Vec<(f64, f64)>,
    /// 95 % intervals in y, for all points or none.
    pub intervals: Vec<[f64; 2]>,
    /// Labels, for all points or none.
    pub labels: Vec<String>,
}

/// An axis that knows its range in pixels.
struct Scale {
    log: bool,
    from: f64,
    to: f64,
    pixels: [f64; 2],
    ticks: Vec<(f64, String)>,
}

impl Scale {
    fn new(axis: &Axis, values: &[f64], pixels: [f64; 2], count: usize) -> Self {
        let shown = |v: &&f64| v.is_finite() && (**v > 0.0 || !axis.log);
        let (low, high) = values
            .iter()
            .filter(shown)
            .fold((f64::MAX, f64::MIN_POSITIVE), |(l, h), &v| (l.min(v), h.max(v)));
        let own = |values: Vec<f64>| values.into_iter().map(|v| (v, short(v))).collect();
        let (from, to, chosen): (f64, f64, Vec<(f64, String)>) = if axis.log {
            let (from, to) = (low.log10() - 0.08, high.log10() + 0.12);
            // Powers of ten; between them 2 and 5 where there are few.
            let steps: &[f64] = if to - from > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
            let decades = from.floor() as i32..=to.ceil() as i32;
            let all = decades.flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d)));
            (from, to, own(all.filter(|v| (from..=to).contains(&v.log10())).collect()))
        } else {
            // Not so close that what is nearly equal stands at both ends.
            let spread = (high - low).max(0.1 * high);
            let from = if axis.close { high - 1.15 * spread } else { 0.0 };
            let fine = if axis.close { (count as f64 * high / (high - from)) as usize } else { count };
            let steps = ticks(high, fine);
            let to = steps.last().copied().unwrap_or(high).min(high + 0.12 * (high - from));
            (from, to, own(steps.into_iter().filter(|s| (from..=to).contains(s)).collect()))
        };
        let ticks = if axis.ticks.is_empty() { chosen } else { axis.ticks.clone() };
        Self { log: axis.log, from, to, pixels, ticks }
    }

    fn at(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        self.pixels[0] + (value - self.from) / (self.to - self.from) * (self.pixels[1] - self.pixels[0])
    }
}

impl Xy {
    /// Places of the legend's entries: (x, row, series, name).
    fn legend(&self, width: f64) -> Vec<(f64, usize, &Series, String)> {
        let (mut x, mut row) = (0.0, 0);
        let named = self.series.iter().filter(|s| !s.name.is_empty());
        named
            .map(|series| {
                let name = shortened(&series.name, 12, width - 34.0);
                let wide = text_width(&name, 12) + 34.0;
                if x > 0.0 && x + wide > width {
                    (x, row) = (0.0, row + 1);
                }
                x += wide;
                (x - wide, row, series, name)
            })
            .collect()
    }
}

const LEFT: f64 = 56.0;

impl Chart for Xy {
    fn height(&self, width: u32) -> u32 {
        let rows = self.legend(f64::from(width) - 8.0).last().map_or(0, |l| l.1 + 1);
        (if width < 500 { 300 } else { 400 }) + 20 * rows as u32
    }

    fn draw(&self, c: &Canvas) {
        let legend = self.legend(f64::from(c.width) - 8.0);
        let rows = legend.last().map_or(0, |l| l.1 + 1);
        let (right, top) = (f64::from(c.width) - 16.0, 28.0);
        let bottom = f64::from(c.height) - 46.0 - 20.0 * rows as f64;
        let part = |f: fn(&(f64, f64)) -> f64| -> Vec<f64> {
            self.series.iter().flat_map(|s| s.points.iter().map(f)).collect()
        };
        let mut ys = part(|p| p.1);
        ys.extend(self.series.iter().flat_map(|s| s.intervals.iter().flatten()));
        let x = Scale::new(&self.x, &part(|p| p.0), [LEFT, right], if c.narrow() { 4 } else { 7 });
        let y = Scale::new(&self.y, &ys, [bottom, top], 5);

        for (value, label) in &y.ticks {
            c.line(&[(LEFT, y.at(*value)), (right, y.at(*value))], Ink::Grid, 1, false);
            c.text(LEFT - 6.0, y.at(*value), label, 12, Ink::Muted, Anchor::End);
        }
        let mut free = f64::MIN;
        for (value, label) in &x.ticks {
            let (at, half) = (x.at(*value), text_width(label, 12) / 2.0);
            c.line(&[(at, top), (at, bottom)], Ink::Grid, 1, false);
            // Labels that would run into the one before are left out.
            if at - half > free {
                let at = at.min(f64::from(c.width) - half - 1.0);
                c.text(at, bottom + 14.0, label, 12, Ink::Muted, Anchor::Middle);
                free = at + half + 6.0;
            }
        }
        c.line(&[(LEFT, bottom), (right, bottom)], Ink::Muted, 1, false);
        c.text(4.0, 10.0, &self.y.label, 12, Ink::Muted, Anchor::Start);
        c.text((LEFT + right) / 2.0, bottom + 34.0, &self.x.label, 12, Ink::Muted, Anchor::Middle);

        let mut room = Room { bounds: [LEFT, top - 10.0, right + 12.0, bottom], ..Room::default() };
        for series in self.series.iter().filter(|s| !s.guide) {
            room.points.extend(series.points.iter().map(|p| (x.at(p.0), y.at(p.1))));
            room.whiskers.extend(
                series
                    .points
                    .iter()
                    .zip(&series.intervals)
                    .map(|(p, [low, high])| [x.at(p.0) - 2.0, y.at(*high), x.at(p.0) + 2.0, y.at(*low)]),
            );
        }
        for series in &self.series {
            let ink = series.style.map_or(Ink::Limit, Ink::Series);
            let points: Vec<(f64, f64)> = series.points.iter().map(|p| (x.at(p.0), y.at(p.1))).collect();
            if series.line && points.len() > 1 {
                c.line(&points, ink, 2, series.guide);
            }
            for (&(px, _), [low, high]) in points.iter().zip(&series.intervals) {
                c.line(&[(px, y.at(*low)), (px, y.at(*high))], ink, 2, false);
            }
            if !series.guide {
                points.iter().for_each(|&(px, py)| c.marker(px, py, 5.0, series.style.unwrap_or(1), ink));
            }
            let labelled = points.iter().zip(&series.labels).filter(|(_, label)| !label.is_empty());
            for (&(px, py), label) in labelled {
                room.label(c, px, py, label);
            }
        }
        for (lx, row, series, name) in legend {
            let (lx, ly) = (lx + 8.0, bottom + 56.0 + 20.0 * row as f64);
            let ink = series.style.map_or(Ink::Limit, Ink::Series);
            if series.line {
                c.line(&[(lx - 6.0, ly), (lx + 14.0, ly)], ink, 2, series.guide);
            }
            if !series.guide {
                c.marker(lx + 4.0, ly, 5.0, series.style.unwrap_or(1), ink);
            }
            c.text(lx + 20.0, ly, &name, 12, Ink::Text, Anchor::Start);
        }
    }
}

/// Where labels may stand; boxes are left, top, right, bottom.
#[derive(Default)]
struct Room {
    bounds: [f64; 4],
    points: Vec<(f64, f64)>,
    whiskers: Vec<[f64; 4]>,
    labels: Vec<[f64; 4]>,
}

impl Room {
    /// Writes a label beside its point where it covers no other label and is nearer to no other
    /// point, and where it covers no whisker either if there is such a place.
    fn label(&mut self, c: &Canvas, x: f64, y: f64, label: &str) {
        let (w, h) = (text_width(label, 12), 13.0);
        let spots = [
            (9.0, 0.0),
            (-9.0 - w, 0.0),
            (-w / 2.0, -15.0),
            (-w / 2.0, 15.0),
            (9.0, -14.0),
            (9.0, 14.0),
            (-9.0 - w, -14.0),
            (-9.0 - w, 14.0),
        ];
        let boxes = spots.map(|(dx, dy)| [x + dx, y + dy - h / 2.0, x + dx + w, y + dy + h / 2.0]);
        let apart = |a: &[f64; 4], b: &[f64; 4], gap: f64| {
            a[2] + gap < b[0] || b[2] + gap < a[0] || a[3] + gap < b[1] || b[3] + gap < a[1]
        };
        let fits = |spot: &&[f64; 4]| {
            let [left, top, right, bottom] = self.bounds;
            let others = self.points.iter().filter(|p| **p != (x, y));
            spot[0] >= left
                && spot[1] >= top
                && spot[2] <= right
                && spot[3] <= bottom
                && others.map(|&(px, py)| [px, py, px, py]).all(|p| apart(spot, &p, 8.0))
                && self.labels.iter().all(|other| apart(spot, other, 0.0))
        };
        let free = |spot: &&[f64; 4]| self.whiskers.iter().all(|whisker| apart(spot, whisker, 0.0));
        let found = boxes.iter().filter(fits).find(free).or_else(|| boxes.iter().find(fits));
        // Where all places are taken the label would only be a blot; the tables name every point.
        let Some(&spot) = found else { return };
        c.text(spot[0], (spot[1] + spot[3]) / 2.0, label, 12, Ink::Text, Anchor::Start);
        self.labels.push(spot);
    }
}
