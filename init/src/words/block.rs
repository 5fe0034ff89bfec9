//! An error as people need it: what, why, what state it left, and the fix.

use super::{Paint, Tone, one_line};

/// An error for the console, the journal and `systemctl status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What went wrong, without a full stop.
    pub what: String,
    /// The reasons, one a line.
    pub why: Vec<String>,
    /// The state that the machine is left in, a sentence.
    pub state: String,
    /// What to do, one step a line.
    pub fix: Vec<String>,
}

impl Block {
    /// The block as text, ending in a newline.
    pub fn text(&self, paint: Paint) -> String {
        let mut out = format!("{}\n", paint.tone(Tone::Bad, &format!("{}:", one_line(&self.what))));
        for reason in &self.why {
            out += &format!("  {}\n", one_line(reason));
        }
        if !self.state.is_empty() {
            out += &format!("{}\n", one_line(&self.state));
        }
        let label = paint.tone(Tone::Strong, "Fix:");
        match self.fix.as_slice() {
            [] => {}
            [one] => out += &format!("{label} {}\n", one_line(one)),
            several => {
                out += &format!("{label}\n");
                for step in several {
                    out += &format!("  {}\n", one_line(step));
                }
            }
        }
        out
    }

    /// The block on one line, for `systemctl status` and events.
    pub fn line(&self) -> String {
        let fix = if self.fix.is_empty() { String::new() } else { format!(" Fix: {}", self.fix.join(" ")) };
        one_line(&format!("{}: {}. {}{fix}", self.what, self.why.join("; "), self.state))
    }
}
