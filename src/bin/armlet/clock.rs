//! The wall clock, for dates and seeds alone. It may jump, and stand before 1970 where a board has no battery for it; what is
//! measured takes `Instant`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Local, NaiveDateTime, TimeZone, Utc};

/// Since 1970; nothing before it.
pub(crate) fn since_1970() -> Duration {
    since(SystemTime::now())
}

pub(crate) fn utc() -> DateTime<Utc> {
    date(since_1970())
}

/// The local time.
pub(crate) fn local() -> NaiveDateTime {
    Local.from_utc_datetime(&utc().naive_utc()).naive_local()
}

fn since(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A time since 1970 as a date; 1970 if that is beyond all calendars.
fn date(since: Duration) -> DateTime<Utc> {
    let seconds = i64::try_from(since.as_secs()).ok();
    seconds.and_then(|seconds| DateTime::from_timestamp(seconds, since.subsec_nanos())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_wrong() {
        let day = Duration::from_secs(86_400);
        assert_eq!(since(UNIX_EPOCH - day), Duration::ZERO);
        assert_eq!(since(UNIX_EPOCH + day), day);
        assert_eq!(date(day).to_rfc3339(), "1970-01-02T00:00:00+00:00");
        assert_eq!(date(Duration::MAX), DateTime::UNIX_EPOCH);
    }
}
