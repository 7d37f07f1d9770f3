//! Vertical columns over ordered bins: a histogram.

use super::Chart;
use super::canvas::{Anchor, Canvas, Ink};
use crate::report::number::{short, ticks};

/// A histogram.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// What the bins are.
    pub x: String,
    /// What is counted.
    pub y: String,
    /// Upper edge of each bin, as shown, and its count.
    pub bins: Vec<(String, f64)>,
}

impl Chart for Columns {
    fn height(&self, width: u32) -> u32 {
        if width < 500 { 240 } else { 280 }
    }

    fn draw(&self, c: &Canvas) {
        let (left, right) = (52.0, f64::from(c.width) - 12.0);
        let (top, bottom) = (26.0, f64::from(c.height) - 46.0);
        let greatest = self.bins.iter().map(|b| b.1).fold(0.0, f64::max);
        let steps = ticks(greatest, 4);
        let end = steps.last().copied().unwrap_or(1.0);
        let y = |value: f64| bottom - value / end * (bottom - top);
        for step in steps {
            c.line(&[(left, y(step)), (right, y(step))], Ink::Grid, 1, false);
            c.text(left - 6.0, y(step), &short(step), 12, Ink::Muted, Anchor::End);
        }
        let step = (right - left) / self.bins.len().max(1) as f64;
        // So many labels as there is room for.
        let every = (60.0 / step).ceil().max(1.0) as usize;
        for (i, (edge, count)) in self.bins.iter().enumerate() {
            let x = left + step * i as f64;
            c.rect(x + 1.0, y(*count), (step - 2.0).max(1.0), bottom - y(*count), Ink::Series(0));
            if (self.bins.len() - 1 - i).is_multiple_of(every) {
                c.text((x + step).min(right - 8.0), bottom + 14.0, edge, 12, Ink::Muted, Anchor::Middle);
            }
        }
        c.line(&[(left, bottom), (right, bottom)], Ink::Muted, 1, false);
        c.text((left + right) / 2.0, bottom + 34.0, &self.x, 12, Ink::Muted, Anchor::Middle);
        c.text(4.0, 10.0, &self.y, 12, Ink::Muted, Anchor::Start);
    }
}
