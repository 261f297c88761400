//! Which times of a schedule are due, and which of them run. Pure: the caller passes the time in.

use std::collections::VecDeque;
use std::time::Duration;

use rota_core::Timestamp;
use rota_proto::v1::ScheduleCatchUp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::timetable::Timetable;

/// Times of one evaluation that can run.
pub(super) const MAX_RUNS: usize = 100;
/// Times that one evaluation looks at; beyond, it continues before the last one.
const MAX_TIMES: usize = 20_000;
/// Time before the last one from which an evaluation continues.
const TAIL: Duration = Duration::from_hours(1);
/// Start deadline of schedules that catch up on nothing.
const SKIP_DEADLINE: Duration = Duration::from_secs(60);

/// What decides about the times of a schedule.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) uid: Uuid,
    pub(super) jitter: Duration,
    pub(super) deadline: Option<Duration>,
    pub(super) catch_up: ScheduleCatchUp,
}

/// A time, and when it is due: with its jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) time: Timestamp,
    pub(super) due: Timestamp,
}

/// Decision about the times that are due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Times to run, oldest first.
    pub(super) runs: Vec<Slot>,
    /// Number of times that are skipped.
    pub(super) skipped: u64,
    /// The last of them, with the reason.
    pub(super) last_skip: Option<(Timestamp, String)>,
    /// The last time that is due; `None` if no time is.
    pub(super) cursor: Option<Timestamp>,
}

impl Rules {
    /// Returns when a time is due. Its delay is always the same, different for each time and schedule, and ends before the next time:
    /// times are due in their order.
    pub(super) fn slot(&self, timetable: &Timetable, time: Timestamp) -> Slot {
        let jitter = u64::try_from(self.jitter.as_micros()).unwrap_or(0);
        if jitter == 0 {
            return Slot { time, due: time };
        }
        let distance = timetable.next(time).and_then(|next| u64::try_from(next.0 - time.0 - 1).ok());
        let span = distance.map_or(jitter, |distance| jitter.min(distance));
        let hash =
            Sha256::new().chain_update(self.uid.as_bytes()).chain_update(time.0.to_be_bytes()).finalize();
        let number = hash.iter().take(8).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        Slot { time, due: time + Duration::from_micros(number % (span + 1)) }
    }

    /// Returns the next time after a position.
    pub(super) fn next(&self, timetable: &Timetable, cursor: Timestamp) -> Option<Slot> {
        timetable.next(cursor).map(|time| self.slot(timetable, time))
    }

    /// Returns the latest start of the run of a time; `None` without a bound.
    pub(super) fn latest_start(&self, slot: Slot) -> Option<Timestamp> {
        let skips = self.catch_up == ScheduleCatchUp::Skip;
        self.deadline.or(skips.then_some(SKIP_DEADLINE)).map(|deadline| slot.due + deadline)
    }

    /// Decides about the times between a position and now.
    pub(super) fn plan(&self, timetable: &Timetable, cursor: Timestamp, now: Timestamp) -> Plan {
        let (slots, passed) = self.due(timetable, cursor, now);
        let Some(last) = slots.back() else { return Plan::default() };
        let mut plan = Plan { cursor: Some(last.time), ..Plan::default() };
        let newest = if self.catch_up == ScheduleCatchUp::All { MAX_RUNS } else { 1 };
        // Within its deadline, each time runs that is not caught up.
        let first = match self.catch_up {
            ScheduleCatchUp::Skip => 0,
            _ => slots.len().saturating_sub(newest),
        };
        plan.skipped = passed;
        for (index, slot) in slots.into_iter().enumerate() {
            let reason = match self.latest_start(slot) {
                _ if index < first => "a later time has passed as well".to_owned(),
                Some(latest) if now > latest => "its start deadline has passed".to_owned(),
                _ => {
                    plan.runs.push(slot);
                    continue;
                }
            };
            plan.skipped += 1;
            plan.last_skip = Some((slot.time, reason));
        }
        plan
    }

    /// Returns the last times that are due, at most [`MAX_RUNS`], and how many were before them, as far as they were counted.
    fn due(&self, timetable: &Timetable, cursor: Timestamp, now: Timestamp) -> (VecDeque<Slot>, u64) {
        let (mut slots, mut passed, mut at) = (VecDeque::new(), 0, cursor);
        let mut left = MAX_TIMES;
        while let Some(slot) = self.next(timetable, at).filter(|slot| slot.due <= now) {
            at = slot.time;
            slots.push_back(slot);
            if slots.len() > MAX_RUNS {
                slots.pop_front();
                passed += 1;
            }
            left = left.saturating_sub(1);
            if left == 0 {
                let last = timetable.last(now).map(|last| last - TAIL).filter(|from| *from > at);
                at = last.unwrap_or(at);
                left = MAX_TIMES;
            }
        }
        (slots, passed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn rules(catch_up: ScheduleCatchUp, deadline: Option<u64>) -> Rules {
        let deadline = deadline.map(Duration::from_secs);
        Rules { uid: Uuid::nil(), jitter: Duration::ZERO, deadline, catch_up }
    }

    fn hourly() -> Timetable {
        Timetable::parse("0 * * * *", "").unwrap()
    }

    fn hours(plan: &Plan) -> Vec<i64> {
        plan.runs.iter().map(|slot| slot.time.0 / 3_600_000_000 % 24).collect()
    }

    const START: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn catch_up_rules_decide_about_passed_times() {
        let now = at("2026-01-01T05:00:30Z");
        let plan = |catch_up, deadline| rules(catch_up, deadline).plan(&hourly(), at(START), now);
        let latest = plan(ScheduleCatchUp::Latest, None);
        assert_eq!((hours(&latest), latest.skipped), (vec![5], 4));
        assert_eq!(latest.cursor, Some(at("2026-01-01T05:00:00Z")));
        assert_eq!(hours(&plan(ScheduleCatchUp::All, None)), [1, 2, 3, 4, 5]);
        assert_eq!(hours(&plan(ScheduleCatchUp::All, Some(2 * 3600))), [4, 5]);
        assert_eq!(hours(&plan(ScheduleCatchUp::Skip, None)), [5]);
        let late = plan(ScheduleCatchUp::Skip, Some(10));
        assert_eq!((hours(&late), late.skipped), (vec![], 5));
        assert_eq!(late.last_skip.unwrap().1, "its start deadline has passed");
        assert_eq!(late.cursor, Some(at("2026-01-01T05:00:00Z")));
    }

    #[test]
    fn nothing_is_due_before_the_next_time() {
        let plan = rules(ScheduleCatchUp::All, None).plan(&hourly(), at(START), at("2026-01-01T00:59:59Z"));
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn clock_set_back_repeats_no_time() {
        let rules = rules(ScheduleCatchUp::All, None);
        let cursor = rules.plan(&hourly(), at(START), at("2026-01-01T03:10:00Z")).cursor.unwrap();
        assert_eq!(rules.plan(&hourly(), cursor, at("2026-01-01T01:30:00Z")), Plan::default());
        assert_eq!(hours(&rules.plan(&hourly(), cursor, at("2026-01-01T04:00:00Z"))), [4]);
    }

    #[test]
    fn jitter_is_bounded_stable_and_different() {
        let jitter = Duration::from_secs(600);
        let rules = Rules { jitter, ..rules(ScheduleCatchUp::Latest, None) };
        let slots: Vec<_> =
            hourly().upcoming(at(START)).take(20).map(|time| rules.slot(&hourly(), time)).collect();
        assert!(slots.iter().all(|slot| slot.due >= slot.time && slot.due <= slot.time + jitter));
        let delays: std::collections::BTreeSet<_> =
            slots.iter().map(|slot| slot.due.0 - slot.time.0).collect();
        assert!(delays.len() > 10);
        assert_eq!(slots[0], rules.slot(&hourly(), slots[0].time));
        let other = Rules { uid: Uuid::max(), ..rules };
        assert_ne!(slots[0], other.slot(&hourly(), slots[0].time));
        // Not due before its jitter.
        let before = Timestamp(slots[0].due.0 - 1);
        assert_eq!(rules.plan(&hourly(), at(START), before), Plan::default());
        assert_eq!(rules.plan(&hourly(), at(START), slots[0].due).runs, [slots[0]]);
    }

    proptest! {
        /// A jitter that is longer than the distance of two times does not have one overtake the other.
        #[test]
        fn each_time_runs_once_with_any_jitter(
            jitter in 0_u64..=3600,
            cron in prop::sample::select(vec!["*/5 * * * *", "*/20 * * * * *", "0,1,30 * * * *", "0 */2 * * *"]),
            uid in any::<u128>(),
        ) {
            let timetable = Timetable::parse(cron, "Europe/Berlin").unwrap();
            let (jitter, uid) = (Duration::from_secs(jitter), Uuid::from_u128(uid));
            let rules = Rules { jitter, uid, ..rules(ScheduleCatchUp::Latest, None) };
            let mut cursor = at(START);
            let mut ran = Vec::new();
            for _ in 0..30 {
                let slot = rules.next(&timetable, cursor).unwrap();
                prop_assert!(slot.due <= slot.time + jitter);
                let plan = rules.plan(&timetable, cursor, slot.due);
                prop_assert_eq!((plan.runs.len(), plan.skipped), (1, 0));
                ran.push(plan.runs[0].time);
                cursor = plan.cursor.unwrap();
            }
            prop_assert_eq!(ran, timetable.upcoming(at(START)).take(30).collect::<Vec<_>>());
        }
    }

    #[test]
    fn long_absence_of_a_fast_schedule_is_bounded() {
        let fast = Timetable::parse("* * * * * *", "").unwrap();
        let now = at("2026-03-01T00:00:00Z");
        let latest = rules(ScheduleCatchUp::Latest, None).plan(&fast, at(START), now);
        assert_eq!((latest.runs.len(), latest.cursor), (1, Some(now)));
        let all = rules(ScheduleCatchUp::All, None).plan(&fast, at(START), now);
        assert_eq!((all.runs.len(), all.runs[99].time), (MAX_RUNS, now));
    }
}
