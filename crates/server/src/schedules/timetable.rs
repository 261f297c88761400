//! Times of a schedule: a cron expression in a time zone. Pure: the caller passes every time in.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use rota_core::Timestamp;

/// Largest cron expression, in bytes.
const MAX_EXPRESSION: usize = 256;
/// Bytes of the name of a time zone.
const MAX_ZONE: usize = 64;

/// Cron expression in a time zone.
#[derive(Debug, Clone)]
pub(crate) struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

/// Rejection of an expression or a time zone, with the name of its field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) field: &'static str,
    pub(crate) why: String,
}

impl Timetable {
    /// Parses an expression of five or six fields. An empty zone is UTC.
    pub(crate) fn parse(expression: &str, zone: &str) -> Result<Self, Invalid> {
        let invalid = |field, why: String| Err(Invalid { field, why });
        if expression.trim().is_empty() {
            return invalid("cron", "is required, for example \"0 3 * * *\"".to_owned());
        }
        if expression.len() > MAX_EXPRESSION {
            return invalid("cron", format!("must have at most {MAX_EXPRESSION} bytes"));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = match parser.parse(expression) {
            Ok(cron) => cron,
            Err(error) => {
                let help =
                    "it has five fields: minute, hour, day, month, weekday; or six, with seconds first";
                return invalid("cron", format!("is not a cron expression ({error}); {help}"));
            }
        };
        let name = if zone.is_empty() { "UTC" } else { zone };
        let known = (zone.len() <= MAX_ZONE).then(|| TimeZone::get(name).ok()).flatten();
        match known {
            Some(zone) => Ok(Self { cron, zone }),
            None => {
                let zone: String = zone.chars().take(MAX_ZONE).collect();
                invalid("time_zone", format!("{zone:?} is not a time zone; use a name such as Europe/Berlin"))
            }
        }
    }

    /// Returns the first time after another, if there is one.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let start = jiff::Timestamp::from_microsecond(after.0).ok()?.to_zoned(self.zone.clone());
        let found = self.cron.find_next_occurrence(&start, false).ok()?;
        Some(Timestamp(found.timestamp().as_microsecond())).filter(|found| *found > after)
    }

    /// Returns the last time up to another, if there is one.
    pub(crate) fn last(&self, until: Timestamp) -> Option<Timestamp> {
        let start = jiff::Timestamp::from_microsecond(until.0).ok()?.to_zoned(self.zone.clone());
        let found = self.cron.find_previous_occurrence(&start, true).ok()?;
        Some(Timestamp(found.timestamp().as_microsecond())).filter(|found| *found <= until)
    }

    /// Returns the next times, in order.
    pub(crate) fn upcoming(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.next(after), |last| self.next(*last))
    }

    /// Returns the offset from UTC at a time, as in `+02:00`.
    pub(crate) fn offset(&self, at: Timestamp) -> String {
        let Ok(at) = jiff::Timestamp::from_microsecond(at.0) else { return String::new() };
        let seconds = self.zone.to_offset(at).seconds();
        let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs() / 60);
        format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn times(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let table = Timetable::parse(expression, zone).unwrap();
        let upcoming = table.upcoming(at(after)).take(count);
        upcoming.map(|at| jiff::Timestamp::from_microsecond(at.0).unwrap().to_string()).collect()
    }

    #[test]
    fn fixed_times_run_once_through_both_changes() {
        // Clocks in Berlin skip 02:00–03:00 on 29 March 2026, and repeat it on 25 October.
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-10-23T12:00:00Z", 3),
            ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            times("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2),
            ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
        );
    }

    #[test]
    fn wildcards_follow_the_clock_through_both_changes() {
        assert_eq!(
            times("0 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3),
            ["2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z", "2026-03-29T03:00:00Z"]
        );
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 5),
            [
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:00:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-25T02:00:00Z",
                "2026-10-25T02:30:00Z"
            ]
        );
    }

    #[test]
    fn seconds_are_optional() {
        assert_eq!(
            times("*/20 * * * * *", "", "2026-01-01T00:00:05.5Z", 3),
            ["2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z", "2026-01-01T00:01:00Z"]
        );
        assert_eq!(times("@daily", "Asia/Tokyo", "2026-01-01T00:00:00Z", 1), ["2026-01-01T15:00:00Z"]);
        assert_eq!(times("0 0 * * MON#1", "", "2026-01-06T00:00:00Z", 1), ["2026-02-02T00:00:00Z"]);
    }

    #[test]
    fn last_and_next_agree() {
        for (expression, zone) in
            [("30 2 * * *", "Europe/Berlin"), ("*/15 * * * *", "Australia/Lord_Howe"), ("0 0 29 2 *", "")]
        {
            let table = Timetable::parse(expression, zone).unwrap();
            for found in table.upcoming(at("2026-03-27T00:00:00Z")).take(40) {
                assert_eq!(table.last(found), Some(found), "{expression}");
                assert_eq!(table.last(Timestamp(found.0 + 999_999)), Some(found), "{expression}");
            }
        }
    }

    #[test]
    fn errors_name_their_field() {
        for (expression, zone, field, word) in [
            ("", "", "cron", "required"),
            ("* * * *", "", "cron", "five fields"),
            ("61 * * * *", "", "cron", "not a cron expression"),
            ("0 0 1 1 * 2030", "", "cron", "not a cron expression"),
            ("* * * * *", "Berlin", "time_zone", "Europe/Berlin"),
            ("* * * * *", "../../etc/passwd", "time_zone", "not a time zone"),
        ] {
            let invalid = Timetable::parse(expression, zone).map(|_| ()).unwrap_err();
            assert_eq!(invalid.field, field, "{expression}");
            assert!(invalid.why.contains(word), "{}", invalid.why);
        }
        assert_eq!(Timetable::parse("0 0 30 2 *", "").unwrap().next(at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn offsets_change_with_daylight_saving() {
        let table = Timetable::parse("0 0 * * *", "America/St_Johns").unwrap();
        assert_eq!(table.offset(at("2026-01-01T00:00:00Z")), "-03:30");
        assert_eq!(table.offset(at("2026-07-01T00:00:00Z")), "-02:30");
    }
}
