//! A drawing surface over plotters' SVG backend: pixels, few primitives, named inks.

use super::Chart;
use crate::report::visible;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A colour by its purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Text and axes.
    Text,
    /// Text of less weight.
    Muted,
    /// Grid lines.
    Grid,
    /// Behind everything.
    Paper,
    /// The machine's limits.
    Limit,
    /// One of the series; taken modulo their number.
    Series(usize),
}

/// Name of each ink and its colours in the light and the dark scheme. Series differ in lightness
/// and hue and hold a contrast of 3:1 against the paper; text inks hold 4.5:1.
pub const PALETTE: [(&str, &str, &str); 13] = [
    ("ink", "#1d2126", "#e9e9e6"),
    ("muted", "#59616b", "#a9b0b9"),
    ("grid", "#e2e5e9", "#343a41"),
    ("paper", "#ffffff", "#17191c"),
    ("limit", "#b3262e", "#ff8d88"),
    ("s0", "#22609f", "#74abe8"),
    ("s1", "#b8540c", "#f0985a"),
    ("s2", "#28794a", "#66c48d"),
    ("s3", "#7549a0", "#bd9ae4"),
    ("s4", "#0c757c", "#55c2c9"),
    ("s5", "#8a6500", "#d9b745"),
    ("s6", "#a33a72", "#ec8fbe"),
    ("s7", "#505a66", "#aab4c0"),
];
const FIRST_SERIES: usize = 5;
/// The SVG backend divides font sizes by this.
const BACKEND_SCALE: f64 = 1.24;

impl Ink {
    fn index(self) -> usize {
        match self {
            Ink::Text => 0,
            Ink::Muted => 1,
            Ink::Grid => 2,
            Ink::Paper => 3,
            Ink::Limit => 4,
            Ink::Series(i) => FIRST_SERIES + i % (PALETTE.len() - FIRST_SERIES),
        }
    }

    /// A stand-in that is replaced in the finished SVG.
    fn color(self) -> RGBColor {
        RGBColor(0, 0, self.index() as u8)
    }
}

/// A surface of some width and height in pixels.
pub struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
    /// Width in pixels.
    pub width: i32,
    /// Height in pixels.
    pub height: i32,
}

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Begins there.
    Start,
    /// Is centred there.
    Middle,
    /// Ends there.
    End,
}

impl Canvas<'_> {
    /// Draws a chart; the inks are still stand-ins.
    pub fn paint(width: u32, chart: &impl Chart) -> String {
        let height = chart.height(width);
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        chart.draw(&Canvas { area, width: width as i32, height: height as i32 });
        svg
    }

    /// Whether this is the drawing for small screens.
    pub fn narrow(&self) -> bool {
        self.width < 500
    }

    /// A line of text, its middle at height `y`.
    pub fn text(&self, x: f64, y: f64, text: &str, size: u32, ink: Ink, anchor: Anchor) {
        let h = match anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let color = ink.color();
        let style = TextStyle::from(("sans-serif", f64::from(size) * BACKEND_SCALE).into_font())
            .color(&color)
            .pos(Pos::new(h, VPos::Center));
        self.area
            .draw(&Text::new(visible(text).into_owned(), at(x, y), style))
            .expect("drawing into a string does not fail");
    }

    /// A path of straight lines.
    pub fn line(&self, points: &[(f64, f64)], ink: Ink, width: u32, dashed: bool) {
        let points: Vec<_> = points.iter().map(|&(x, y)| at(x, y)).collect();
        let style = ink.color().stroke_width(width);
        let drawn = if dashed {
            self.area.draw(&DashedPathElement::new(points, 5, 4, style))
        } else {
            self.area.draw(&PathElement::new(points, style))
        };
        drawn.expect("drawing into a string does not fail");
    }

    /// A filled rectangle.
    pub fn rect(&self, x: f64, y: f64, width: f64, height: f64, ink: Ink) {
        let shape = Rectangle::new([at(x, y), at(x + width, y + height)], ink.color().filled());
        self.area.draw(&shape).expect("drawing into a string does not fail");
    }

    /// A marker whose shape tells series apart where colours cannot.
    pub fn marker(&self, x: f64, y: f64, radius: f64, shape: usize, ink: Ink) {
        let r = radius;
        let corners: &[(f64, f64)] = match shape % 4 {
            0 => {
                let circle = Circle::new(at(x, y), r as i32, ink.color().filled());
                return self.area.draw(&circle).expect("drawing into a string does not fail");
            }
            1 => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            2 => &[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
            _ => &[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)],
        };
        let points: Vec<_> = corners.iter().map(|(dx, dy)| at(x + dx * r, y + dy * r)).collect();
        self.area
            .draw(&Polygon::new(points, ink.color().filled()))
            .expect("drawing into a string does not fail");
    }

    /// A ring.
    pub fn ring(&self, x: f64, y: f64, radius: i32, ink: Ink) {
        self.area
            .draw(&Circle::new(at(x, y), radius, ink.color().stroke_width(2)))
            .expect("drawing into a string does not fail");
    }
}

fn at(x: f64, y: f64) -> (i32, i32) {
    (x.round() as i32, y.round() as i32)
}

/// Estimated width of a text in pixels; good enough to keep labels apart.
pub fn text_width(text: &str, size: u32) -> f64 {
    text.chars().count() as f64 * f64::from(size) * 0.59
}

/// As much of a text as has room in so many pixels, estimated alike; what is left out is named by the tables.
pub fn shortened(text: &str, size: u32, room: f64) -> String {
    if text_width(text, size) <= room {
        return text.into();
    }
    let mut short = String::new();
    for c in text.chars() {
        if text_width(&short, size) + text_width("c…", size) > room {
            break;
        }
        short.push(c);
    }
    short + "…"
}

/// Replaces the stand-ins by classes that the page's style colours.
pub fn inline(svg: &str) -> String {
    let svg = PALETTE.iter().enumerate().fold(svg.to_owned(), |svg, (i, (name, ..))| {
        svg.replace(&format!("fill=\"#0000{i:02X}\""), &format!("class=\"f-{name}\""))
            .replace(&format!("stroke=\"#0000{i:02X}\""), &format!("class=\"l-{name}\""))
    });
    // The figure around it is named; its parts are no news to a screen reader. Size comes from CSS.
    svg.replacen("<svg ", "<svg aria-hidden=\"true\" focusable=\"false\" ", 1)
        .replace(" opacity=\"1\"", "")
        .replace(" font-family=\"sans-serif\"", "")
}

/// Replaces the stand-ins by the colours of the light scheme, on paper.
pub fn standalone(svg: &str) -> String {
    let svg = PALETTE
        .iter()
        .enumerate()
        .fold(svg.to_owned(), |svg, (i, (_, light, _))| svg.replace(&format!("#0000{i:02X}"), light));
    let start = svg.find('>').map_or(0, |end| end + 1);
    format!(
        "{}\n<rect width=\"100%\" height=\"100%\" fill=\"{}\"/>{}",
        &svg[..start],
        PALETTE[3].1,
        &svg[start..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_their_room() {
        assert_eq!(shortened("tm2/avx2", 12, 100.0), "tm2/avx2");
        for room in [10.0, 50.0, 260.0] {
            let short = shortened(&"a long name ".repeat(20), 12, room);
            assert!(short.ends_with('…') && text_width(&short, 12) <= room, "{short}");
        }
    }

    struct Everything;

    impl Chart for Everything {
        fn height(&self, _: u32) -> u32 {
            100
        }

        fn draw(&self, c: &Canvas) {
            c.text(1.0, 2.0, "<script>alert(1)</script> & \"x\"", 12, Ink::Muted, Anchor::End);
            c.line(&[(0.0, 0.0), (50.0, 50.0)], Ink::Limit, 2, true);
            c.rect(0.0, 0.0, 10.0, 10.0, Ink::Series(9));
            (0..4).for_each(|shape| c.marker(5.0, 5.0, 4.0, shape, Ink::Series(shape)));
            c.ring(5.0, 5.0, 3, Ink::Text);
        }
    }

    #[test]
    fn every_ink_is_replaced_and_text_is_harmless() {
        let raw = Canvas::paint(300, &Everything);
        let (inline, standalone) = (inline(&raw), standalone(&raw));
        assert!(inline.contains("class=\"l-limit\"") && inline.contains("class=\"f-s1\""));
        assert!(standalone.contains("#b3262e") && standalone.contains("fill=\"#ffffff\""));
        for svg in [&inline, &standalone] {
            assert!(!svg.contains("\"#0000"), "{svg}");
            assert!(!svg.contains("<script"), "{svg}");
        }
    }

    #[test]
    fn colours_have_contrast() {
        let luminance = |hex: &str| {
            let part = |i: usize| {
                let c = f64::from(u8::from_str_radix(&hex[i..i + 2], 16).unwrap()) / 255.0;
                if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
        };
        let contrast = |a: &str, b: &str| {
            let (a, b) = (luminance(a), luminance(b));
            (a.max(b) + 0.05) / (a.min(b) + 0.05)
        };
        let (_, light, dark) = PALETTE[3];
        for (name, l, d) in PALETTE.iter().filter(|p| !["grid", "paper"].contains(&p.0)) {
            assert!(contrast(l, light) >= 4.5, "{name} light {}", contrast(l, light));
            assert!(contrast(d, dark) >= 4.5, "{name} dark {}", contrast(d, dark));
        }
    }
}
