//! Spans as a picture: one row each, on one axis of seconds (SVG 1.1; no script, no font of its own).

use super::{Group, Span};

/// Width of the whole picture, in pixels.
const WIDTH: f64 = 1200.0;
/// Where the axis begins: names stand before it.
const LEFT: f64 = 380.0;
/// Room after the axis.
const RIGHT: f64 = 70.0;
/// Height of a row.
const ROW: f64 = 20.0;
/// Room above the first row.
const TOP: f64 = 56.0;

/// The picture. What goes on is drawn to the last moment there is.
pub fn svg(spans: &[Span], title: &str) -> String {
    let last = spans.iter().map(|span| span.end.unwrap_or(span.begin)).fold(1.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / last;
    let height = TOP + ROW * spans.len() as f64 + 16.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"16\" font-weight=\"bold\" fill=\"#1f2933\">{}</text>\n",
        escaped(title)
    );
    out += &axis(last, scale, height);
    for (row, span) in spans.iter().enumerate() {
        out += &bar(span, TOP + ROW * row as f64, scale, last);
    }
    out + "</svg>\n"
}

fn axis(last: f64, scale: f64, height: f64) -> String {
    let mut out = String::new();
    let step = tick(last);
    let ticks = (last / step).floor() as u32;
    for tick in 0..=ticks {
        let seconds = f64::from(tick) * step;
        let x = LEFT + seconds * scale;
        out += &format!(
            "<line x1=\"{x:.1}\" y1=\"46\" x2=\"{x:.1}\" y2=\"{:.0}\" stroke=\"#e4e7eb\"/>\n\
             <text x=\"{x:.1}\" y=\"42\" text-anchor=\"middle\" fill=\"#7b8794\">{seconds} s</text>\n",
            height - 10.0
        );
    }
    out
}

/// A round number of seconds that divides the axis into at most twelve parts.
fn tick(last: f64) -> f64 {
    [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0].into_iter().find(|step| last / step <= 12.0).unwrap_or(600.0)
}

fn bar(span: &Span, y: f64, scale: f64, last: f64) -> String {
    let x = LEFT + span.begin * scale;
    let end = span.end.unwrap_or(last);
    let width = ((end - span.begin) * scale).max(1.5);
    let color = match span.group {
        Group::Stage => "#9aa5b1",
        Group::Unit => "#2b8fd6",
        Group::Step => "#3ebd93",
        Group::Milestone => "#d64545",
    };
    let shape = match span.group {
        Group::Milestone => {
            format!("<path d=\"M{x:.1} {:.1} l5 5 l-5 5 l-5 -5 z\" fill=\"{color}\"/>", y + ROW / 2.0 - 5.0)
        }
        _ => format!(
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"12\" rx=\"2\" fill=\"{color}\"{}/>",
            y + 4.0,
            if span.end.is_none() { " fill-opacity=\"0.4\"" } else { "" }
        ),
    };
    let when = match (span.group, span.end) {
        (Group::Milestone, _) => format!("{:.1} s", span.begin),
        (_, Some(end)) => format!("{:.2} s", end - span.begin),
        (_, None) => "goes on".to_owned(),
    };
    let weight = if matches!(span.group, Group::Stage | Group::Milestone) { " font-weight=\"bold\"" } else { "" };
    let after = if span.group == Group::Milestone { x + 10.0 } else { x + width + 6.0 };
    format!(
        "{shape}\n<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#323f4b\"{weight}>{}</text>\n\
         <text x=\"{after:.1}\" y=\"{:.1}\" fill=\"#7b8794\">{when}</text>\n",
        LEFT - 10.0,
        y + 14.0,
        escaped(&shortened(&span.name)),
        y + 14.0,
    )
}

/// Names are cut where they would leave the picture.
fn shortened(name: &str) -> String {
    const LONGEST: usize = 56;
    if name.chars().count() <= LONGEST {
        return name.to_owned();
    }
    name.chars().take(LONGEST - 1).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}
