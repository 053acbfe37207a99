//! Times as text: a small strict reader of RFC 3339.
//!
//! Accepts a date (`2026-11-21`, midnight UTC) or a date, a time and an offset
//! (`2026-11-21T05:00:00Z`, `2026-11-21 05:00:00.25+02:00`), years 0000 to 9999. What is
//! finer than a microsecond is cut off, towards the past. It never guesses a time zone: a time without an
//! offset is refused, because the same filter must mean the same on every machine. Leap seconds
//! (`:60`) are refused too: the count of microseconds since 1970 has no place for them.

use crate::words::id::Timestamp;

const DAY_SECONDS: i64 = 86_400;

/// Reads a time. The error says what is wrong, for the end of a sentence.
pub(super) fn parse(text: &str) -> Result<Timestamp, &'static str> {
    const SHAPE: &str = "write it like 2026-11-21 or 2026-11-21T05:00:00Z";
    let mut rest = Digits(text.as_bytes());
    let year = rest.number(4).ok_or(SHAPE)?;
    rest.byte(b"-").ok_or(SHAPE)?;
    let month = rest.number(2).ok_or(SHAPE)?;
    rest.byte(b"-").ok_or(SHAPE)?;
    let day = rest.number(2).ok_or(SHAPE)?;
    if !(1..=12).contains(&month) {
        return Err("a month is 01 to 12");
    }
    if !(1..=days_in_month(year, month)).contains(&day) {
        return Err("this month has no such day");
    }
    let midnight = days_since_1970(year, month, day) * DAY_SECONDS;
    if rest.0.is_empty() {
        return Ok(Timestamp(midnight * 1_000_000));
    }

    rest.byte(b"Tt ").ok_or(SHAPE)?;
    let hour = rest.number(2).ok_or(SHAPE)?;
    rest.byte(b":").ok_or(SHAPE)?;
    let minute = rest.number(2).ok_or(SHAPE)?;
    rest.byte(b":").ok_or(SHAPE)?;
    let second = rest.number(2).ok_or(SHAPE)?;
    if hour > 23 || minute > 59 || second > 59 {
        return Err("a time is 00:00:00 to 23:59:59");
    }
    let micros = match rest.byte(b".") {
        Some(_) => rest.fraction().ok_or("a fraction of a second has 1 to 9 digits")?,
        None => 0,
    };
    let offset = match rest.byte(b"Zz+-") {
        None if rest.0.is_empty() => return Err("a time needs an offset: Z, or such as +02:00"),
        None => return Err(SHAPE),
        Some(b'Z' | b'z') => 0,
        Some(sign) => {
            let hours = rest.number(2).ok_or("an offset is such as +02:00")?;
            rest.byte(b":").ok_or("an offset is such as +02:00")?;
            let minutes = rest.number(2).ok_or("an offset is such as +02:00")?;
            if hours > 23 || minutes > 59 {
                return Err("an offset is 00:00 to 23:59");
            }
            let seconds = hours * 3600 + minutes * 60;
            if sign == b'-' { -seconds } else { seconds }
        }
    };
    if !rest.0.is_empty() {
        return Err("something follows the time");
    }
    // At most 10^4 years of microseconds, 3.2e17: far inside an i64.
    let seconds = midnight + hour * 3600 + minute * 60 + second - offset;
    Ok(Timestamp(seconds * 1_000_000 + micros))
}

/// The bytes not yet read.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    /// Takes one byte, if it is one of these.
    fn byte(&mut self, choices: &[u8]) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        if !choices.contains(&first) {
            return None;
        }
        self.0 = rest;
        Some(first)
    }

    /// Takes exactly this many digits.
    fn number(&mut self, count: usize) -> Option<i64> {
        let mut number = 0;
        for _ in 0..count {
            number = number * 10 + i64::from(self.byte(b"0123456789")? - b'0');
        }
        Some(number)
    }

    /// Takes 1 to 9 digits after the point; whole microseconds.
    fn fraction(&mut self) -> Option<i64> {
        let mut nanos = 0;
        let mut unit = 100_000_000;
        while let Some(digit) = self.byte(b"0123456789") {
            if unit == 0 {
                return None;
            }
            nanos += i64::from(digit - b'0') * unit;
            unit /= 10;
        }
        // The first digit lowers the unit, so an untouched one means there was none.
        (unit < 100_000_000).then_some(nanos / 1000)
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar, also before 1582.
///
/// Years are counted from March, so that the leap day is the last of its year: month lengths from
/// March on are then a straight line, (153 m + 2) / 5 days before month m. 719,468 is what the sum
/// gives for 1970-01-01.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leaps + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_ten_thousand_years_follows_the_one_before() {
        let mut expected = -719_528; // 0000-01-01
        for year in 0..=9999 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    assert_eq!(days_since_1970(year, month, day), expected);
                    expected += 1;
                }
            }
        }
        assert_eq!(days_since_1970(1970, 1, 1), 0);
    }

    #[test]
    fn reads_what_rfc_3339_allows() {
        let check =
            |text: &str, micros: i64| assert_eq!(parse(text), Ok(Timestamp(micros)), "{text}");
        check("1970-01-01", 0);
        check("1970-01-01T00:00:00Z", 0);
        check("1969-12-31T23:59:59.999999Z", -1);
        check("1969-12-31T23:59:59.9999999Z", -1);
        check("1970-01-01T00:00:00.000001Z", 1);
        check("1970-01-01t02:00:00+02:00", 0);
        check("1969-12-31 22:30:00.5-01:30", 500_000);
        check("2001-09-09T01:46:40z", 1_000_000_000_000_000);
        check("2024-02-29", 1_709_164_800_000_000);
        check("1970-01-01T00:00:00.123456789-00:00", 123_456);
        check("0000-01-01T00:00:00+23:59", (-719_528 * DAY_SECONDS - 86_340) * 1_000_000);
        check("9999-12-31T23:59:59Z", 253_402_300_799_000_000);
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "2026",
            "2026-11",
            "2026-1-2",
            "2026-13-01",
            "2026-00-01",
            "2026-02-29",
            "1900-02-29",
            "2026-11-31",
            "2026-11-00",
            "2026-11-21T",
            "2026-11-21T05:00Z",
            "2026-11-21T05:00:00",
            "2026-11-21T24:00:00Z",
            "2026-11-21T05:60:00Z",
            "2026-11-21T05:00:60Z",
            "2026-11-21T05:00:00.Z",
            "2026-11-21T05:00:00.1234567890Z",
            "2026-11-21T05:00:00+2:00",
            "2026-11-21T05:00:00+0200",
            "2026-11-21T05:00:00+24:00",
            "2026-11-21T05:00:00Zx",
            "2026-11-21x",
            "+2026-11-21",
            " 2026-11-21",
            "\u{662}026-11-21",
        ] {
            assert!(parse(text).is_err(), "{text:?} was read as {:?}", parse(text));
        }
    }
}
