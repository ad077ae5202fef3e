//! The picture of `plan --svg`: memory of a session against its context, a line for each kind of attention.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 100.0;
const TOP: f64 = 50.0;
const COLOURS: [&str; 3] = ["#c0392b", "#1f6f43", "#2457a6"];

/// A point of a curve.
#[derive(Clone, Copy)]
pub(crate) struct Point {
    pub(crate) context: usize,
    /// Bytes of a session.
    pub(crate) session: usize,
}

pub(crate) struct Curve<'a> {
    pub(crate) name: &'a str,
    pub(crate) points: &'a [Point],
}

pub(crate) struct Drawing<'a> {
    /// The model and its cache; text of XML.
    pub(crate) title: &'a str,
    pub(crate) curves: Vec<Curve<'a>>,
    /// Bytes at the top.
    pub(crate) top: usize,
    /// Bytes that the user set.
    pub(crate) budget: Option<usize>,
}

impl Drawing<'_> {
    pub(crate) fn svg(&self) -> String {
        // Up to where a curve is within the plot.
        let points = self.curves.iter().flat_map(|curve| curve.points);
        let tokens = points.filter(|p| p.session <= self.top).map(|p| p.context).max().unwrap_or(1);
        let at = |context: usize, bytes: usize| {
            let (x, y) = (context as f64 / tokens as f64, bytes as f64 / self.top.max(1) as f64);
            (LEFT + x * WIDTH, TOP + HEIGHT - y * HEIGHT)
        };
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <clipPath id=\"plot\"><rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/></clipPath>\n\
             <text x=\"{LEFT}\" y=\"{}\" font-size=\"15\">{}</text>\n",
            LEFT + WIDTH + 130.0,
            TOP + HEIGHT + 60.0,
            TOP - 20.0,
            escaped(self.title)
        );
        // Writing to a String cannot fail.
        for context in ticks(tokens) {
            let (x, bottom) = at(context, 0);
            let _ = writeln!(
                out,
                "<path d=\"M{x:.1} {TOP}v{HEIGHT}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{context}</text>",
                bottom + 18.0
            );
        }
        for bytes in ticks(self.top) {
            let (x, y) = at(0, bytes);
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {y:.1}h{WIDTH}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                x - 6.0,
                y + 4.0,
                size(bytes)
            );
        }
        let (middle, bottom, side) = (LEFT + WIDTH / 2.0, TOP + HEIGHT + 42.0, TOP + HEIGHT / 2.0);
        let _ = writeln!(
            out,
            "<text x=\"{middle:.1}\" y=\"{bottom:.1}\" text-anchor=\"middle\">context, tokens</text>\n\
             <text transform=\"translate(18 {side:.1}) rotate(-90)\" text-anchor=\"middle\">memory of a session</text>"
        );
        for (curve, colour) in self.curves.iter().zip(COLOURS) {
            let line: Vec<_> = curve.points.iter().map(|p| at(p.context, p.session)).collect();
            let points: Vec<_> = line.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                out,
                "<polyline clip-path=\"url(#plot)\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
                points.join(" ")
            );
            // At the last point within the plot.
            let inside = line.iter().rev().find(|(x, y)| *x <= LEFT + WIDTH && *y >= TOP);
            label(&mut out, inside.map_or((LEFT, TOP + 14.0), |(x, y)| (*x, y + 14.0)), colour, curve.name);
        }
        if let Some(budget) = self.budget {
            let (_, y) = at(0, budget);
            let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}h{WIDTH}\" stroke=\"black\" stroke-dasharray=\"6 4\"/>");
            label(&mut out, (LEFT + WIDTH, y + 4.0), "black", &format!("budget {}", size(budget)));
        }
        out + "</svg>\n"
    }
}

fn label(out: &mut String, (x, y): (f64, f64), colour: &str, text: &str) {
    let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{}</text>", x + 8.0, escaped(text));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Multiples of a power of two up to `top`: four to seven of them, and 0.
fn ticks(top: usize) -> impl Iterator<Item = usize> {
    let step = (top / 4).checked_ilog2().map_or(1, |log| 1 << log);
    (0..=top / step).map(move |i| i * step)
}

/// Bytes in the largest unit that they fill.
fn size(bytes: usize) -> String {
    const UNITS: [(usize, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.iter().find(|(unit, _)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(unit, name)| {
            // No zeros behind the point.
            let tenths = (bytes as f64 / *unit as f64 * 100.0).round() / 100.0;
            format!("{tenths} {name}")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(8192).collect::<Vec<_>>(), [0, 2048, 4096, 6144, 8192]);
        assert_eq!(ticks(15).collect::<Vec<_>>(), [0, 2, 4, 6, 8, 10, 12, 14]);
        assert_eq!(ticks(3).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!([0, 512, 3 << 19, 64 << 20, 5 << 29].map(size), ["0 B", "512 B", "1.5 MiB", "64 MiB", "2.5 GiB"]);
    }
}
