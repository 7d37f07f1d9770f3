//! Plots as pixels. The font is part of the program, so that pictures are the same on every machine.

use crate::error::{Error, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb};
use std::sync::{Arc, OnceLock};

/// Pixels for each unit of the drawing.
const SCALE: f32 = 2.0;

/// Draws an SVG of ours.
///
/// # Errors
/// If it is none, which is a bug.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let fonts = FONTS.get_or_init(|| {
        let mut fonts = fontdb::Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        Arc::new(fonts)
    });
    let bug = |e: String| Error::Bug(format!("a plot cannot be drawn: {e}"));
    let options =
        usvg::Options { fontdb: fonts.clone(), font_family: "DejaVu Sans".into(), ..Default::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|e| bug(e.to_string()))?;
    let size = tree.size().to_int_size();
    let (width, height) = (size.width() * SCALE as u32, size.height() * SCALE as u32);
    let mut picture = Pixmap::new(width, height).ok_or_else(|| bug(format!("{width}x{height} pixels")))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut picture.as_mut());
    picture.encode_png().map_err(|e| bug(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_shapes_are_drawn() {
        let svg = |inner: &str| {
            format!("<svg width=\"60\" height=\"20\" xmlns=\"http://www.w3.org/2000/svg\">{inner}</svg>")
        };
        let drawn = |inner: &str| {
            let png = png(&svg(inner)).unwrap();
            let pixels = Pixmap::decode_png(&png).unwrap();
            assert_eq!((pixels.width(), pixels.height()), (120, 40));
            pixels.pixels().iter().filter(|p| p.alpha() > 0).count()
        };
        assert_eq!(drawn(""), 0);
        assert_eq!(drawn("<rect width=\"10\" height=\"5\" fill=\"#22609f\"/>"), 200);
        let text = "<text x=\"2\" y=\"15\" font-family=\"sans-serif\" font-size=\"12\">pp128 ×</text>";
        assert!(drawn(text) > 100);
        assert!(png("no picture").is_err());
    }
}
