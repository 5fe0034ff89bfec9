//! What the build commands say while they work: one line for each step, with how long it took.

use std::time::Instant;

/// Steps and their durations.
#[derive(Debug)]
pub struct Progress {
    last: Instant,
    steps: Vec<(String, f64)>,
}

impl Progress {
    /// Starts the clock of the first step.
    #[must_use]
    pub fn start() -> Self {
        Self { last: Instant::now(), steps: Vec::new() }
    }

    /// Says that a step has ended; the next one starts now.
    pub fn done(&mut self, what: &str) {
        let seconds = self.last.elapsed().as_secs_f64();
        eprintln!("[done] {what} ({seconds:.1} s)");
        self.steps.push((what.to_owned(), seconds));
        self.last = Instant::now();
    }

    /// What was done so far, with seconds.
    #[must_use]
    pub fn steps(&self) -> &[(String, f64)] {
        &self.steps
    }
}
