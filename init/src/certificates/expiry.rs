//! When a certificate is renewed: at two thirds of its life, a little earlier for some, so that they do not all fall
//! due at once.

use serde::Serialize;

use super::{DAY, Unix};

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Validity {
    /// First second of validity.
    pub not_before: Unix,
    /// Last second of validity.
    pub not_after: Unix,
}

/// Where a certificate stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Its validity begins in the future: this clock or the one it was issued by is wrong.
    NotYetValid,
    /// Valid, and not due.
    Good,
    /// Valid, and to be renewed.
    Due,
    /// No longer valid.
    Expired,
}

/// How long before now an issued certificate says that it became valid, in seconds. Other machines' clocks may be
/// behind, and so may be this one's, once a time server is heard: a hardware clock that runs on local time instead of
/// UTC is up to 14 hours ahead.
pub const BACKDATE: u64 = DAY;

impl Validity {
    /// The validity of what is issued at `now` for `lifetime` seconds.
    pub fn starting(now: Unix, lifetime: u64) -> Self {
        Validity { not_before: now.saturating_sub(BACKDATE), not_after: now.saturating_add(lifetime) }
    }

    /// The validity of an authority that is made at `now`. It begins when the image was made, because no clock that is
    /// right says earlier: an authority from the future would make every certificate below it worthless.
    pub fn of_authority(now: Unix, lifetime: u64, image: Unix) -> Self {
        let starting = Validity::starting(now, lifetime);
        Validity { not_before: starting.not_before.min(image), ..starting }
    }

    /// Its length in seconds.
    pub fn life(self) -> u64 {
        self.not_after.saturating_sub(self.not_before)
    }

    /// When it is to be renewed. `stagger` is any byte that differs between certificates (their serial's first): it
    /// moves the moment earlier by up to a thirtieth of the life.
    pub fn renew_at(self, stagger: u8) -> Unix {
        let earlier = self.life() / 30 * u64::from(stagger) / 255;
        (self.not_before + self.life() / 3 * 2).saturating_sub(earlier)
    }

    /// Where it stands at `now`.
    pub fn standing(self, now: Unix, stagger: u8) -> Standing {
        if now < self.not_before {
            Standing::NotYetValid
        } else if now > self.not_after {
            Standing::Expired
        } else if now >= self.renew_at(stagger) {
            Standing::Due
        } else {
            Standing::Good
        }
    }
}

/// One certificate in the list that `kubeboot status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listed {
    /// Its name, as in `kubeadm certs check-expiration`; for an authority its common name.
    pub name: String,
    /// The file that holds it.
    pub path: String,
    /// Its validity; none when it can't be read.
    pub validity: Option<Validity>,
    /// Where it stands; none when it can't be read.
    pub standing: Option<Standing>,
    /// Whether it signs others: those are never renewed unattended.
    pub authority: bool,
    /// When it is to be renewed; none for authorities and what can't be read.
    pub renew_at: Option<Unix>,
}

/// The certificates of `listed` that have to be issued again at `now`, and the moment of the next one that will be.
pub fn renewals(now: Unix, listed: &[Listed]) -> (Vec<&Listed>, Option<Unix>) {
    let leaves = || listed.iter().filter(|one| !one.authority);
    let due = leaves().filter(|one| one.renew_at.is_none_or(|at| at <= now)).collect();
    let next = leaves().filter_map(|one| one.renew_at).filter(|at| *at > now).min();
    (due, next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_week_is_renewed_after_four_to_five_days() {
        let now = 1_800_000_000;
        let week = Validity::starting(now, 7 * DAY);
        for stagger in [0, 128, 255] {
            let at = week.renew_at(stagger);
            assert!(at > now + 4 * DAY && at < now + 5 * DAY, "{at}");
            assert_eq!(week.standing(at - 1, stagger), Standing::Good);
            assert_eq!(week.standing(at, stagger), Standing::Due);
        }
        assert_eq!(week.standing(now - BACKDATE - 1, 0), Standing::NotYetValid);
        assert_eq!(week.standing(now + 7 * DAY + 1, 0), Standing::Expired);
    }

    #[test]
    fn an_authority_is_as_old_as_the_image_and_a_day_at_least() {
        let now = 1_800_000_000;
        let begins = |image| Validity::of_authority(now, 3650 * DAY, image).not_before;
        assert_eq!(begins(now - 90 * DAY), now - 90 * DAY);
        assert_eq!(begins(now - 60), now - DAY);
        assert_eq!(begins(now + DAY), now - DAY, "a clock that is behind");
        assert_eq!(Validity::of_authority(now, 3650 * DAY, 0).not_after, now + 3650 * DAY);
    }

    #[test]
    fn a_clock_that_is_set_back_from_local_time_finds_nothing_from_the_future() {
        let (local, utc) = (1_800_000_000 + 14 * 60 * 60, 1_800_000_000);
        for lifetime in [7 * DAY, 365 * DAY] {
            assert_eq!(Validity::starting(local, lifetime).standing(utc, 0), Standing::Good);
        }
    }

    #[test]
    fn renewals_name_what_is_due_and_when_the_next_one_is() {
        let one = |name: &str, authority, renew_at| Listed {
            name: name.into(),
            path: format!("/{name}"),
            validity: None,
            standing: None,
            authority,
            renew_at,
        };
        let listed =
            [one("ca", true, None), one("a", false, Some(10)), one("b", false, Some(30)), one("torn", false, None)];
        let (due, next) = renewals(20, &listed);
        assert_eq!(due.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "torn"]);
        assert_eq!(next, Some(30));
    }

    proptest! {
        #[test]
        fn renewal_comes_before_expiry_and_never_in_the_first_half(
            now in 1_600_000_000u64..4_000_000_000, days in 1u64..4000, stagger: u8,
        ) {
            let validity = Validity::starting(now, days * DAY);
            let at = validity.renew_at(stagger);
            prop_assert!(at < validity.not_after);
            prop_assert!(at > validity.not_before + validity.life() / 2);
        }
    }
}
