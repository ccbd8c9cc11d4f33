//! The course of a count, as a line one can read without numbers.

use std::fmt::{self, Write};

const WIDTH: f64 = 120.0;
const HEIGHT: f64 = 26.0;
/// So that the stroke is not cut at the edges.
const MARGIN: f64 = 2.0;
/// More points than this are not seen at that width, but weigh on the page.
const MAX_POINTS: usize = 60;

/// Draws `history`, oldest first; nothing where there are fewer than two points.
pub(super) fn draw(out: &mut String, history: &[u64]) -> fmt::Result {
    let (Some(low), Some(high)) = (history.iter().min(), history.iter().max()) else {
        return Ok(());
    };
    if history.len() < 2 {
        return Ok(());
    }
    write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"between {low} and {high} lately\"><polyline points=\""
    )?;
    // A small wobble of a large count must look small: the scale spans at least
    // a tenth of the highest value.
    let span = ((high - low) as f64).max(*high as f64 / 10.0).max(1.0);
    let middle = (*high as f64 + *low as f64) / 2.0;
    // The highest of each group, so that no peak is lost.
    let group = history.len().div_ceil(MAX_POINTS);
    let points = history.chunks(group).filter_map(|chunk| chunk.iter().max());
    let step = WIDTH / (history.len().div_ceil(group) - 1) as f64;
    for (i, value) in points.enumerate() {
        let above = (*value as f64 - middle) / span + 0.5;
        let y = HEIGHT - MARGIN - above * (HEIGHT - 2.0 * MARGIN);
        write!(out, "{}{:.1},{y:.1}", if i == 0 { "" } else { " " }, i as f64 * step)?;
    }
    out.write_str("\"/></svg>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(history: &[u64]) -> String {
        let mut out = String::new();
        draw(&mut out, history).unwrap();
        out.split("points=\"").nth(1).unwrap_or_default().trim_end_matches("\"/></svg>").to_owned()
    }

    #[test]
    fn a_rise_goes_up_and_a_level_stays_in_the_middle() {
        assert_eq!(points(&[0, 10]), "0.0,24.0 120.0,2.0");
        assert_eq!(points(&[7, 7, 7]), "0.0,13.0 60.0,13.0 120.0,13.0");
        let mut long = [0; 120];
        long[7] = 50;
        let long = points(&long);
        assert_eq!(long.split(' ').count(), 60);
        assert!(long.contains(",2.0"), "{long}");
        assert_eq!(points(&[]), "");
        assert_eq!(points(&[3]), "");
        // 1 in 1000 is a wobble, not a rise.
        assert_eq!(points(&[1000, 1001]), "0.0,13.1 120.0,12.9");
    }
}
