//! Moments in the one form that manifests use: RFC 3339 in UTC with whole seconds, `2027-10-27T12:01:04Z`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A moment, in seconds since 1970-01-01T00:00:00Z, of the years 1970 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment(u64);

/// 9999-12-31T23:59:59Z.
const LAST: u64 = 253_402_300_799;
const DAY: u64 = 86_400;

/// A text or number that is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no moment. Expected YYYY-MM-DDTHH:MM:SSZ, of the years 1970 to 9999")]
pub struct MomentError {
    /// What was given.
    pub found: String,
}

impl Moment {
    /// The moment that many seconds after the start of 1970.
    ///
    /// # Errors
    /// It is after the year 9999.
    pub fn from_unix(seconds: u64) -> Result<Self, MomentError> {
        if seconds > LAST { Err(MomentError { found: seconds.to_string() }) } else { Ok(Self(seconds)) }
    }

    /// Seconds since the start of 1970.
    #[must_use]
    pub fn unix(self) -> u64 {
        self.0
    }

    /// The moment that many days later, or the last moment there is.
    #[must_use]
    pub fn plus_days(self, days: u32) -> Self {
        Self((self.0 + u64::from(days) * DAY).min(LAST))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0 / DAY);
        let second = self.0 % DAY;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.as_bytes()).ok_or_else(|| MomentError { found: text.to_owned() })
    }
}

fn parse(text: &[u8]) -> Option<Moment> {
    const FORM: &[u8; 20] = b"0000-00-00T00:00:00Z";
    let fits = text.len() == FORM.len()
        && text.iter().zip(FORM).all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form });
    if !fits {
        return None;
    }
    let number =
        |from: usize, to: usize| text[from..to].iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
    if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_before(year, month) + day.checked_sub(1)?;
    // The 31st of April and its like become another date when they are written back.
    (civil(days) == (year, month, day)).then_some(Moment(days * DAY + hour * 3600 + minute * 60 + second))
}

/// Days from 1970-01-01 to the first of a month, `month` in 1 to 12, `year` from 1970.
fn days_before(year: u64, month: u64) -> u64 {
    (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum::<u64>()
        + (1..month).map(|month| month_length(year, month)).sum::<u64>()
}

/// Year, month and day of the day that many days after 1970-01-01.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while days >= if leap(year) { 366 } else { 365 } {
        days -= if leap(year) { 366 } else { 365 };
        year += 1;
    }
    let mut month = 1;
    while days >= month_length(year, month) {
        days -= month_length(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_length(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl TryFrom<String> for Moment {
    type Error = MomentError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_793_102_464, "2026-10-27T12:01:04Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (LAST, "9999-12-31T23:59:59Z"),
        ] {
            let moment = Moment::from_unix(seconds).unwrap();
            assert_eq!((moment.to_string().as_str(), text.parse()), (text, Ok(moment)));
        }
        assert!(Moment::from_unix(LAST + 1).is_err());
    }

    #[test]
    fn what_is_on_no_calendar_is_refused() {
        for text in [
            "",
            "2026-10-27",
            "2026-10-27 12:01:04Z",
            "2026-10-27T12:01:04",
            "2026-10-27T12:01:04z",
            "2026-10-27T12:01:04+00:00",
            "2026-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "1969-12-31T23:59:59Z",
            "2O26-01-01T00:00:00Z",
            "2026-10-27T12:01:04Z\n",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }

    #[test]
    fn days_are_added_across_leap_days_and_stop_at_the_end() {
        let moment = |text: &str| text.parse::<Moment>().unwrap();
        assert_eq!(moment("2027-03-01T06:00:00Z").plus_days(366), moment("2028-03-01T06:00:00Z"));
        assert_eq!(moment("9999-12-01T00:00:00Z").plus_days(u32::MAX).unix(), LAST);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_what_is_parsed(seconds in 0..=LAST) {
            let moment = Moment::from_unix(seconds).unwrap();
            prop_assert_eq!(moment.to_string().parse(), Ok(moment));
        }
    }
}
// xthin 16
