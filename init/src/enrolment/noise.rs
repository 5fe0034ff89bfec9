//! What of a server's log is written, when somebody makes it say the same again and again.

use std::collections::BTreeMap;
use std::time::Duration;

/// For how long a line is not written again.
const QUIET: Duration = Duration::from_secs(60);
/// Lines that are remembered at most. Beyond, lines are only counted until the oldest are forgotten.
const LINES: usize = 64;

/// The lines that were written of late.
#[derive(Debug, Default)]
pub struct Noise {
    said: BTreeMap<String, Said>,
    /// How many were not written because too many others were.
    unsaid: u64,
}

#[derive(Debug)]
struct Said {
    at: Duration,
    again: u64,
}

impl Noise {
    /// What is to be written for a line at `now`: the line, and before it what was left out meanwhile.
    pub fn hear(&mut self, now: Duration, line: &str) -> Vec<String> {
        let mut written = self.forget(now);
        let full = self.said.len() >= LINES;
        match self.said.get_mut(line) {
            Some(said) => said.again += 1,
            None if full => self.unsaid += 1,
            None => {
                self.said.insert(line.to_owned(), Said { at: now, again: 0 });
                written.push(line.to_owned());
            }
        }
        written
    }

    /// Forgets what is old enough, and says how often it came.
    fn forget(&mut self, now: Duration) -> Vec<String> {
        let old = |said: &Said| now.saturating_sub(said.at) >= QUIET;
        let mut written = Vec::new();
        self.said.retain(|line, said| {
            let keep = !old(said);
            if !keep && said.again > 0 {
                written.push(format!("{line} ({} more times within the last minutes)", said.again));
            }
            keep
        });
        if self.unsaid > 0 && self.said.len() < LINES {
            written.push(format!("{} more lines were left out, because there were too many", self.unsaid));
            self.unsaid = 0;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_once_a_minute_and_then_with_how_often_it_came() {
        let mut noise = Noise::default();
        let at = Duration::from_secs;
        assert_eq!(noise.hear(at(0), "a"), ["a"]);
        assert_eq!(noise.hear(at(1), "a"), [] as [&str; 0]);
        assert_eq!(noise.hear(at(2), "b"), ["b"]);
        assert_eq!(noise.hear(at(59), "a"), [] as [&str; 0]);
        assert_eq!(noise.hear(at(60), "a"), ["a (2 more times within the last minutes)", "a"]);
        assert_eq!(noise.hear(at(200), "c"), ["c"]);
    }

    #[test]
    fn lines_that_all_differ_are_written_up_to_a_bound() {
        let mut noise = Noise::default();
        let lines: usize = (0..10_000).map(|n| noise.hear(Duration::from_millis(n), &n.to_string()).len()).sum();
        assert_eq!(lines, LINES);
        let later = noise.hear(Duration::from_secs(100), "x");
        assert_eq!(
            later,
            [format!("{} more lines were left out, because there were too many", 10_000 - LINES), "x".into()]
        );
    }
}
