//! Horizontal bars with intervals, the machine's limit, and other values of the same subject.

use super::Chart;
use super::canvas::{Anchor, Canvas, Ink, shortened, text_width};
use crate::report::number::{short, significant, ticks};

/// A bar chart.
#[derive(Debug, Clone, Default)]
pub struct Bars {
    /// Unit of the values.
    pub unit: String,
    /// The bars from top to bottom.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Debug, Clone, Default)]
pub struct Bar {
    /// What it is.
    pub label: String,
    /// More about it, shown smaller.
    pub detail: String,
    /// Its length.
    pub value: f64,
    /// 95 % interval.
    pub interval: [f64; 2],
    /// The machine's limit for it.
    pub limit: Option<f64>,
    /// Values of the same subject under other conditions.
    pub others: Vec<f64>,
    /// Written behind it.
    pub note: String,
    /// Which colour.
    pub series: usize,
}

/// Height of a row and of the axis below.
const ROW: [i32; 2] = [34, 46];
const AXIS: i32 = 40;
/// Most pixels that names beside the bars take.
const NAMES: f64 = 260.0;

impl Chart for Bars {
    fn height(&self, width: u32) -> u32 {
        (self.bars.len() as i32 * ROW[usize::from(width < 500)] + AXIS + 6) as u32
    }

    fn draw(&self, c: &Canvas) {
        let narrow = c.narrow();
        let row = f64::from(ROW[usize::from(narrow)]);
        let longest = self.bars.iter().map(|b| text_width(&b.label, 14).max(text_width(&b.detail, 12)));
        let left = if narrow { 2.0 } else { longest.fold(60.0, f64::max).min(NAMES) + 12.0 };
        let right = f64::from(c.width) - if narrow { 14.0 } else { 150.0 };
        let bottom = f64::from(c.height - AXIS);

        // A limit far above everything would press the bars against the axis; it is then written only.
        let values = self.bars.iter().flat_map(|b| b.others.iter().copied().chain([b.value, b.interval[1]]));
        let top = values.fold(0.0, f64::max);
        let shown = |limit: &f64| *limit <= 1.6 * top;
        let top = self.bars.iter().filter_map(|b| b.limit).filter(shown).fold(top, f64::max);
        let steps = ticks(top, if narrow { 3 } else { 5 });
        let end = top * 1.02;
        let x = |value: f64| left + value / end * (right - left);

        for tick in steps.iter().filter(|t| **t <= end) {
            c.line(&[(x(*tick), 4.0), (x(*tick), bottom)], Ink::Grid, 1, false);
            c.text(
                x(*tick),
                bottom + 12.0,
                &short(*tick),
                12,
                Ink::Muted,
                if *tick == 0.0 && narrow { Anchor::Start } else { Anchor::Middle },
            );
        }
        c.text((left + right) / 2.0, bottom + 30.0, &self.unit, 12, Ink::Muted, Anchor::Middle);

        for (i, bar) in self.bars.iter().enumerate() {
            let y = 4.0 + row * i as f64 + if narrow { 31.0 } else { row / 2.0 };
            let half = if narrow { 6.0 } else { 8.0 };
            if narrow {
                // The value stands at the end of the line.
                let room = f64::from(c.width) - 80.0;
                let label = shortened(&bar.label, 13, room);
                let behind = text_width(&label, 13) + 10.0;
                c.text(left, y - 19.0, &label, 13, Ink::Text, Anchor::Start);
                c.text(
                    left + behind,
                    y - 19.0,
                    &shortened(&bar.detail, 11, room - behind),
                    11,
                    Ink::Muted,
                    Anchor::Start,
                );
                c.text(
                    f64::from(c.width) - 2.0,
                    y - 19.0,
                    &significant(bar.value, 3),
                    13,
                    Ink::Text,
                    Anchor::End,
                );
            } else {
                c.text(left - 10.0, y - 6.0, &shortened(&bar.label, 14, NAMES), 14, Ink::Text, Anchor::End);
                c.text(left - 10.0, y + 8.0, &shortened(&bar.detail, 11, NAMES), 11, Ink::Muted, Anchor::End);
                c.text(right + 12.0, y - 6.0, &significant(bar.value, 3), 14, Ink::Text, Anchor::Start);
                c.text(right + 12.0, y + 8.0, &bar.note, 11, Ink::Muted, Anchor::Start);
            }
            c.rect(left, y - half, x(bar.value) - left, 2.0 * half, Ink::Series(bar.series));
            for other in &bar.others {
                // A ring on paper, so that it is seen on the bar as well as beside it.
                c.marker(x(*other), y, 4.0, 0, Ink::Paper);
                c.ring(x(*other), y, 4, Ink::Series(bar.series));
            }
            let [low, high] = bar.interval.map(x);
            if high - low >= 1.0 {
                c.line(&[(low, y), (high, y)], Ink::Text, 2, false);
                c.line(&[(low, y - 4.0), (low, y + 4.0)], Ink::Text, 2, false);
                c.line(&[(high, y - 4.0), (high, y + 4.0)], Ink::Text, 2, false);
            }
            if let Some(limit) = bar.limit.filter(shown) {
                c.line(&[(x(limit), y - half - 3.0), (x(limit), y + half + 3.0)], Ink::Limit, 3, false);
            }
        }
    }
}
