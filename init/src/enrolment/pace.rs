//! How fast something may be asked for: a burst, and then so much each second.

use std::collections::BTreeMap;
use std::time::Duration;

/// Who is remembered at most. Beyond, the one that was here longest ago is forgotten.
pub(super) const REMEMBERED: usize = 4096;
/// One time costs this much of an allowance.
const COST: u64 = 1000;

/// What one may still do.
#[derive(Debug)]
struct Allowance {
    left: u64,
    at: Duration,
}

/// The pace of each of many.
#[derive(Debug)]
pub struct Pace<Who> {
    burst: u32,
    each_second: u32,
    allowances: BTreeMap<Who, Allowance>,
}

impl<Who: Ord + Copy> Pace<Who> {
    /// So often in a burst, and so many times more each second.
    pub fn new(burst: u32, each_second: u32) -> Self {
        Pace { burst, each_second, allowances: BTreeMap::new() }
    }

    /// Whether `who` may now, on any clock that only runs forward; it counts as done then.
    pub fn allow(&mut self, now: Duration, who: Who) -> bool {
        let most = u64::from(self.burst) * COST;
        if self.allowances.len() >= REMEMBERED && !self.allowances.contains_key(&who) {
            let oldest = self.allowances.iter().min_by_key(|(_, allowance)| allowance.at).map(|(who, _)| *who);
            oldest.map(|who| self.allowances.remove(&who));
        }
        let allowance = self.allowances.entry(who).or_insert(Allowance { left: most, at: now });
        let passed = u64::try_from(now.saturating_sub(allowance.at).as_millis()).unwrap_or(u64::MAX);
        let more = passed.saturating_mul(u64::from(self.each_second)) * COST / 1000;
        if passed > 0 {
            *allowance = Allowance { left: allowance.left.saturating_add(more).min(most), at: now };
        }
        let allowed = allowance.left >= COST;
        if allowed {
            allowance.left -= COST;
        }
        allowed
    }

    /// How many are remembered.
    pub fn remembered(&self) -> usize {
        self.allowances.len()
    }
}
