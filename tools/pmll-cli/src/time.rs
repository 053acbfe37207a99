//! Times and durations as people write them, to the microseconds of the store and back.
//!
//! A time without an offset is read as UTC: an import must give the same store on every machine.
//! Written back, a time is RFC 3339 in UTC; a time outside the years jiff knows is a plain number
//! of microseconds, and is read back from one.

use std::time::Duration;

use jiff::civil;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::fault::{Fault, Result};

/// Reads RFC 3339, a date and time without offset, a date, or whole microseconds since 1970.
pub fn parse(text: &str) -> Result<i64> {
    let text = text.trim();
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_microsecond());
    }
    // A date alone is midnight; jiff's civil reader takes both forms.
    if let Ok(time) = text.parse::<civil::DateTime>() {
        return utc(time, text);
    }
    if let Ok(micros) = text.parse::<i64>() {
        return Ok(micros);
    }
    Err(Fault::invalid(format!("{text:?} is not a time; write it like 2026-11-21T05:00:00Z")))
}

/// Reads a time in a strptime format, such as `%I:%M %p on %d %B, %Y`. Without a time of day it is
/// midnight, without an offset UTC.
pub fn parse_with(format: &str, text: &str) -> Result<i64> {
    let parts = BrokenDownTime::parse(format, text.trim())
        .map_err(|e| Fault::invalid(format!("{text:?} does not have the form {format:?}: {e}")))?;
    if let Ok(time) = parts.to_timestamp() {
        return Ok(time.as_microsecond());
    }
    let civil = parts.to_datetime().or_else(|_| parts.to_date().map(|d| d.at(0, 0, 0, 0)));
    match civil {
        Ok(time) => utc(time, text),
        Err(e) => Err(Fault::invalid(format!("{text:?} read as {format:?} gives no time: {e}"))),
    }
}

/// The time in a field of a line: text in the given form or any [`parse`] takes, or a whole number
/// (of microseconds, unless a form such as `%s` says otherwise).
pub fn parse_value(value: &Value, format: Option<&str>) -> Result<i64> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => return Err(Fault::invalid(format!("{other} is not a time"))),
    };
    match format {
        Some(format) => parse_with(format, &text),
        None => parse(&text),
    }
}

/// RFC 3339 in UTC, or the plain number where that has no form.
#[must_use]
pub fn format(micros: i64) -> Value {
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(time) => Value::from(time.to_string()),
        Err(_) => Value::from(micros),
    }
}

/// A duration such as `90s`, `15m` or `7d`.
pub fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write it like 90s, 15m or 7d"))
}

/// A size such as `64MiB`, `10MB` or plain bytes.
pub fn parse_size(text: &str) -> std::result::Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|e| format!("{e}; write it like 64MiB"))
}

fn utc(time: civil::DateTime, text: &str) -> Result<i64> {
    let stamp = TimeZone::UTC
        .to_timestamp(time)
        .map_err(|e| Fault::invalid(format!("{text:?} is outside the range of times: {e}")))?;
    Ok(stamp.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        let want = 1_795_237_200_000_000;
        for text in [
            "2026-11-21T05:00:00Z",
            "2026-11-21T07:00:00+02:00",
            "2026-11-21T05:00:00",
            "2026-11-21 05:00:00",
            "2026-11-21 05:00",
            "1795237200000000",
        ] {
            assert_eq!(parse(text).unwrap(), want, "{text}");
        }
        assert_eq!(parse("2026-11-21").unwrap(), want - 5 * 3_600_000_000);
        assert_eq!(parse("2026-11-21T05:00:00.000001Z").unwrap(), want + 1);
        for text in ["", "yesterday", "2026-13-01", "2026-11-21T25:00:00Z"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_strptime_forms() {
        let format = "%I:%M %p on %d %B, %Y";
        let got = parse_with(format, "1:56 pm on 8 May, 2023").unwrap();
        assert_eq!(got, parse("2023-05-08T13:56:00Z").unwrap());
        let got = parse_with(format, "12:09 am on 13 September, 2023").unwrap();
        assert_eq!(got, parse("2023-09-13T00:09:00Z").unwrap());
        assert_eq!(parse_with("%d.%m.%Y", "21.11.2026").unwrap(), parse("2026-11-21").unwrap());
        let zoned = parse_with("%Y-%m-%d %H:%M %z", "2026-11-21 07:00 +0200").unwrap();
        assert_eq!(zoned, parse("2026-11-21T05:00:00Z").unwrap());
        let seconds = parse_value(&Value::from(1_795_237_200), Some("%s")).unwrap();
        assert_eq!(seconds, 1_795_237_200_000_000);
        assert!(parse_with(format, "8 May, 2023").is_err());
    }

    #[test]
    fn writes_what_it_reads() {
        for micros in [0, -1, 1, 1_795_237_200_123_456, i64::MAX, i64::MIN, -62_135_596_800_000_000]
        {
            assert_eq!(parse_value(&format(micros), None).unwrap(), micros);
        }
        assert_eq!(format(0), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(parse_size("64MiB").unwrap(), 64 << 20);
        assert_eq!(parse_size("1000").unwrap(), 1000);
        assert!(parse_size("many").is_err());
        assert_eq!(parse_duration("7d").unwrap(), Duration::from_secs(7 * 86_400));
        assert_eq!(parse_duration("15m").unwrap(), Duration::from_secs(900));
        assert_eq!(parse_duration("90s").unwrap(), Duration::from_secs(90));
        assert!(parse_duration("90").is_err());
    }
}
