//! Plots: plotters draws them as SVG once for wide and once for narrow screens, in named inks that
//! the page colours for its light and dark scheme and that files of their own get as plain colours.

mod bars;
mod canvas;
mod columns;
mod pixels;
mod xy;

pub use bars::{Bar, Bars};
pub use canvas::{Canvas, PALETTE};
pub use columns::Columns;
pub use xy::{Axis, Series, Xy};

use crate::error::Result;
use serde::Serialize;

/// Widths in pixels for wide and narrow screens.
const WIDTHS: [u32; 2] = [760, 342];

/// Something that can be drawn at a given width.
pub trait Chart {
    /// Height in pixels that it needs at this width.
    fn height(&self, width: u32) -> u32;

    /// Draws itself.
    fn draw(&self, canvas: &Canvas);
}

/// A drawn plot.
#[derive(Debug, Clone, Serialize)]
pub struct Plot {
    /// Its file name without the ending.
    pub name: String,
    /// What it shows, in a few words.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// What a reader who cannot see it should know.
    pub alt: String,
    /// For wide screens, coloured by the page.
    pub wide: String,
    /// For narrow screens, coloured by the page.
    pub narrow: String,
    /// As a file of its own.
    #[serde(skip)]
    pub file: String,
}

impl Plot {
    /// Draws a chart.
    pub fn new(name: String, title: String, caption: String, alt: String, chart: &impl Chart) -> Self {
        let [wide, narrow] = WIDTHS.map(|width| Canvas::paint(width, chart));
        Self {
            name,
            title,
            caption,
            alt,
            file: canvas::standalone(&wide),
            wide: canvas::inline(&wide),
            narrow: canvas::inline(&narrow),
        }
    }

    /// As a PNG file of twice the SVG's size in pixels.
    ///
    /// # Errors
    /// If the drawing is wrong, which is a bug.
    pub fn png(&self) -> Result<Vec<u8>> {
        pixels::png(&self.file)
    }
}
