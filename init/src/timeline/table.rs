//! Spans as text for a terminal.

use super::{Group, Span};

/// A line for each span: when it began, how long it took, and what it was.
pub fn table(spans: &[Span]) -> String {
    let mut text = format!("{:>9}  {:>9}  WHAT\n", "AT", "TOOK");
    for Span { group, name, begin, end } in spans {
        let took = match (group, end) {
            (Group::Milestone, _) => String::new(),
            (_, Some(end)) => format!("{:.2} s", end - begin),
            (_, None) => "goes on".to_owned(),
        };
        let mark = match group {
            Group::Stage => "",
            Group::Unit => "  ",
            Group::Step => "    ",
            Group::Milestone => "* ",
        };
        text += &format!("{:>9}  {took:>9}  {mark}{name}\n", format!("{begin:.2} s"));
    }
    text
}
