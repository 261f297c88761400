//! Time and agents whose metrics are wanted, and the periods of a tier that have them.

use pbjson_types::Timestamp;
use rota_core::{AgentName, Namespace};
use tonic::Status;

use super::row::Row;
use super::{DAY, HOURS, MINUTES, Tier};
use crate::wire::names;
use crate::wire::status::invalid;

/// Longest time that is shown by the minute, in seconds.
const MAX_BY_MINUTE: i64 = 12 * 3600;

/// Latest time of a query, in seconds since 1970: the year 9999.
const MAX_TIME: i64 = 253_402_300_799;

/// Time and agents whose metrics are wanted.
#[derive(Debug)]
pub(super) struct Query {
    /// All if it is `None`.
    pub(super) namespace: Option<Namespace>,
    pub(super) agent: Option<AgentName>,
    /// Begin of the wanted time, in seconds since 1970.
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Query {
    /// Checks a query of the API, whose time has the usual length if it has no begin.
    pub(super) fn new(
        (parent, agent): (&str, &str),
        (start, end): (Option<&Timestamp>, Option<&Timestamp>),
        usual_length: i64,
        now: i64,
    ) -> Result<Self, Status> {
        let agent = match agent {
            "" => None,
            agent => Some(names::agent_id("agent", agent)?),
        };
        let seconds = |at: &Timestamp| at.seconds.clamp(0, MAX_TIME);
        let end = end.map_or(now, seconds);
        let start = start.map_or(end.saturating_sub(usual_length), seconds);
        if start >= end {
            return Err(invalid("start_time", "must be before the end"));
        }
        Ok(Self { namespace: names::parent_or_all("parent", parent)?, agent, start, end })
    }

    pub(super) fn tier(&self, now: i64) -> &'static Tier {
        let is_known = self.start > now - MINUTES.length * MINUTES.slots;
        if self.end - self.start <= MAX_BY_MINUTE && is_known { &MINUTES } else { &HOURS }
    }

    pub(super) fn matches(&self, row: &Row) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| namespace.as_str() == row.namespace)
            && self.agent.as_ref().is_none_or(|agent| agent.as_str() == row.agent)
    }
}

/// Consecutive periods of a tier.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) tier: &'static Tier,
    /// Begin of the first and of the last period.
    pub(super) first: i64,
    last: i64,
}

impl Span {
    /// Returns the periods that have some of a time, its end included, as far as they are kept.
    pub(super) fn new(tier: &'static Tier, (start, end): (i64, i64), now: i64) -> Self {
        let last = tier.start(end.min(now));
        let first = tier.start(start).max(last - (tier.slots - 1) * tier.length);
        Self { tier, first, last }
    }

    /// Returns the periods by day of UTC. A period is within one.
    pub(super) fn days(&self) -> impl Iterator<Item = Self> + use<> {
        let Self { tier, first, last } = *self;
        let days = first.div_euclid(DAY)..=last.div_euclid(DAY);
        let starts = days.map(|day| day * DAY);
        starts.map(move |day| Self { tier, first: first.max(day), last: last.min(day + DAY - tier.length) })
    }

    /// Returns the begin of the day of which these are all periods, if it ended a period ago or earlier: they change no more.
    pub(super) fn ended_day(&self, now: i64) -> Option<i64> {
        let is_day = self.last - self.first == DAY - self.tier.length;
        (is_day && now - self.first >= DAY + self.tier.length).then_some(self.first)
    }

    /// Returns the slots of the periods, first and last of each range, in which names are in order.
    pub(super) fn slots(&self) -> Vec<(i64, i64)> {
        if self.first > self.last {
            return Vec::new();
        }
        let (first, last) = (self.tier.slot(self.first), self.tier.slot(self.last));
        if first <= last { vec![(first, last)] } else { vec![(first, self.tier.slots - 1), (0, last)] }
    }

    /// Whether a period is one of them. What stands at the name of one may be of an earlier round.
    pub(super) fn contains(&self, start: i64) -> bool {
        (self.first..=self.last).contains(&start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_times_are_by_the_minute() {
        let now = 100 * 3600;
        for (start, end, expected) in [
            (now - 3600, now, &MINUTES),
            (now - 47 * 3600, now - 46 * 3600, &MINUTES),
            (now - 13 * 3600, now, &HOURS),
            (now - 49 * 3600, now - 48 * 3600, &HOURS),
        ] {
            let query = Query { namespace: None, agent: None, start, end };
            assert_eq!(query.tier(now), expected, "{start}");
        }
    }

    #[test]
    fn slots_wrap_around() {
        let round = MINUTES.length * MINUTES.slots;
        let slots = |start, end| Span::new(&MINUTES, (start, end), end).slots();
        assert_eq!(slots(round, round + 120), [(0, 2)]);
        assert_eq!(slots(round - 60, round + 60), [(MINUTES.slots - 1, MINUTES.slots - 1), (0, 1)]);
        assert_eq!(slots(round + 60, round), []);
        // Never more than there are.
        let whole: i64 = slots(0, 5 * round).iter().map(|(first, last)| last - first + 1).sum();
        assert_eq!(whole, MINUTES.slots);
    }

    #[test]
    fn spans_are_split_by_day() {
        let span = Span::new(&HOURS, (DAY - 3600, 2 * DAY + 1), 3 * DAY);
        let days: Vec<_> = span.days().map(|day| (day.first, day.last, day.ended_day(3 * DAY))).collect();
        let hour = 3600;
        let whole = (DAY, 2 * DAY - hour, Some(DAY));
        assert_eq!(days, [(DAY - hour, DAY - hour, None), whole, (2 * DAY, 2 * DAY, None)]);
        let day = span.days().nth(1).unwrap();
        assert_eq!([2 * DAY, 2 * DAY + hour - 1].map(|now| day.ended_day(now)), [None; 2]);
        assert_eq!(day.ended_day(2 * DAY + hour), Some(DAY));
        assert_eq!(Span::new(&HOURS, (5 * DAY, 6 * DAY), DAY).days().count(), 0);
    }

    #[test]
    fn periods_of_an_earlier_round_are_left_out() {
        let span = Span::new(&MINUTES, (3600, 3720), 4000);
        let starts = [3600, 3660, 3720, 3600 - MINUTES.length * MINUTES.slots, 3780];
        assert_eq!(starts.map(|start| span.contains(start)), [true, true, true, false, false]);
    }
}
