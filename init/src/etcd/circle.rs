//! Whom a control plane asks for a word of etcd's members. Those that it knew may all have been replaced while it waited
//! or was off; then it asks the cluster's control planes, as a node that comes back, who there is now.

use std::time::Duration;

use super::Member;

/// How long nobody answers before control planes are asked who there is: members may just be starting again.
pub const QUIET: Duration = Duration::from_secs(10);
/// Between asking control planes, who issue certificates each time.
pub const EVERY: Duration = Duration::from_secs(60);
/// Members of the last answer, and of those on record, that are asked in one round, at most.
pub const MOST: usize = 16;

/// What follows when nobody answered for the majority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The same are asked again.
    Wait,
    /// The cluster's control planes are asked first where the API servers are, beside which etcd runs.
    AskControlPlanes,
}

/// Who is asked. All are told apart by their URL for clients.
#[derive(Debug, Default)]
pub struct Circle {
    /// The voting members of the last answer, and before them who gave it: who joins and who leaves is heard of while
    /// anybody answers.
    heard: Vec<String>,
    /// Since when nobody answers.
    silent: Option<Duration>,
    /// When control planes were asked last.
    asked: Option<Duration>,
    /// What came of that, until somebody answers.
    said: Option<String>,
}

impl Circle {
    /// Whom to ask, in this order and each once: who answered last, the members of that answer, and those `recorded` here,
    /// which others may have renewed. Never `own`.
    pub fn whom(&self, own: &str, recorded: &[String]) -> Vec<String> {
        let mut urls: Vec<String> = Vec::new();
        for url in self.heard.iter().take(MOST).chain(recorded.iter().take(MOST)) {
            if url != own && !urls.contains(url) {
                urls.push(url.clone());
            }
        }
        urls
    }

    /// The member at `url` answered for the majority, with these members.
    pub fn answered(&mut self, url: &str, members: &[Member]) {
        let voters = members.iter().filter(|member| !member.learner);
        let others = voters.flat_map(|member| &member.clients).filter(|other| *other != url);
        self.heard = std::iter::once(url).chain(others.map(String::as_str)).take(MOST).map(str::to_owned).collect();
        (self.silent, self.said) = (None, None);
    }

    /// Nobody answered. `now` is of a clock that is never set.
    pub fn silence(&mut self, now: Duration) -> Turn {
        let quiet = *self.silent.get_or_insert(now) + QUIET;
        let due = self.asked.map_or(quiet, |asked| quiet.max(asked + EVERY));
        if now < due {
            return Turn::Wait;
        }
        self.asked(now);
        Turn::AskControlPlanes
    }

    /// Control planes are asked, for another reason than [`Circle::silence`]'s.
    pub fn asked(&mut self, now: Duration) {
        self.asked = Some(now);
    }

    /// What came of asking control planes, `whom` in words.
    pub fn learned(&mut self, whom: &str, came: &str) {
        self.said = Some(format!("asked control planes, {whom}: {came}"));
    }

    /// Why nobody answers, with what control planes said when they were asked last.
    pub fn words(&self, why: &str) -> String {
        match &self.said {
            Some(said) => format!("{why}; {said}"),
            None => why.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(host: u8) -> String {
        format!("https://10.0.0.{host}:2379")
    }

    fn urls(hosts: &[u8]) -> Vec<String> {
        hosts.iter().copied().map(url).collect()
    }

    fn members(hosts: &[u8], learners: &[u8]) -> Vec<Member> {
        let member = |host: u8, learner| Member {
            id: host.into(),
            name: format!("cp-{host}"),
            peers: vec![url(host).replace("2379", "2380")],
            clients: vec![url(host)],
            learner,
        };
        let voters = hosts.iter().map(|host| member(*host, false));
        voters.chain(learners.iter().map(|host| member(*host, true))).collect()
    }

    #[test]
    fn who_answered_is_asked_first_and_members_that_it_named_are_asked_too() {
        let mut circle = Circle::default();
        assert_eq!(circle.whom(&url(9), &urls(&[1, 2, 9])), urls(&[1, 2]));
        circle.answered(&url(2), &members(&[1, 2, 3], &[4, 9]));
        assert_eq!(circle.whom(&url(9), &urls(&[1, 2])), urls(&[2, 1, 3]), "a learner can't answer");
        // The two that were on record have gone meanwhile.
        circle.answered(&url(3), &members(&[3, 5], &[]));
        assert_eq!(circle.whom(&url(9), &urls(&[1, 2])), urls(&[3, 5, 1, 2]));
    }

    #[test]
    fn a_short_silence_troubles_no_control_plane() {
        let mut circle = Circle::default();
        assert_eq!(circle.silence(Duration::ZERO), Turn::Wait);
        circle.answered(&url(1), &members(&[1], &[]));
        assert_eq!(circle.silence(QUIET), Turn::Wait, "the silence begins anew");
        assert_eq!(circle.silence(QUIET * 2), Turn::AskControlPlanes);
        assert_eq!(circle.silence(QUIET * 2), Turn::Wait);
    }

    #[test]
    fn what_control_planes_said_is_told_until_somebody_answers() {
        let mut circle = Circle::default();
        assert_eq!(circle.words("nobody answers"), "nobody answers");
        circle.learned("10.0.0.1:7440", "none answers");
        let words = circle.words("nobody answers");
        assert_eq!(words, "nobody answers; asked control planes, 10.0.0.1:7440: none answers");
        circle.answered(&url(1), &members(&[1], &[]));
        assert_eq!(circle.words("x"), "x");
    }

    proptest! {
        /// Whatever was heard, what is on record is asked, nobody twice, and never the machine itself.
        #[test]
        fn nobody_on_record_is_passed_over_and_a_round_is_bounded(
            recorded in proptest::collection::vec(0u8..60, 0..20),
            answers in proptest::collection::vec((0u8..60, proptest::collection::vec(0u8..60, 0..30)), 0..4),
            own in 0u8..60,
        ) {
            let mut circle = Circle::default();
            for (from, named) in &answers {
                circle.answered(&url(*from), &members(named, &[]));
            }
            let whom = circle.whom(&url(own), &urls(&recorded));
            prop_assert!(whom.len() <= 2 * MOST && !whom.contains(&url(own)));
            let mut once = whom.clone();
            once.sort();
            once.dedup();
            prop_assert_eq!(once.len(), whom.len());
            for one in urls(&recorded).iter().take(MOST).filter(|one| **one != url(own)) {
                prop_assert!(whom.contains(one));
            }
            if let Some((from, _)) = answers.last().filter(|(from, _)| *from != own) {
                prop_assert_eq!(&whom[0], &url(*from));
            }
        }

        /// Control planes are asked at most once in [`EVERY`], never within [`QUIET`] of an answer, and in the end always.
        #[test]
        fn control_planes_are_asked_in_the_end_and_not_too_often(
            rounds in proptest::collection::vec((1u64..15, prop::bool::weighted(0.1)), 1..200),
        ) {
            let (mut circle, mut now) = (Circle::default(), Duration::ZERO);
            let (mut asked, mut began): (Option<Duration>, Option<Duration>) = (None, None);
            for (pause, answers) in rounds {
                now += Duration::from_secs(pause);
                if answers {
                    circle.answered(&url(1), &members(&[1], &[]));
                    began = None;
                    continue;
                }
                let since = *began.get_or_insert(now);
                match circle.silence(now) {
                    Turn::AskControlPlanes => {
                        prop_assert!(now - since >= QUIET);
                        prop_assert!(asked.is_none_or(|before| now - before >= EVERY));
                        asked = Some(now);
                    }
                    Turn::Wait => {
                        let last = asked.map_or(since, |asked| asked.max(since));
                        prop_assert!(now - last < QUIET + EVERY, "silent for long, and asked nobody");
                    }
                }
            }
        }
    }
}
