//! Time that a clock gives and that is not set back with it: what is due by it would wait for as long as it was set back.

use std::time::Duration;

use parking_lot::Mutex;

/// Part of the time that passes which is left out until a clock that was set back has caught up: an hour takes eight.
const LEFT_OUT: i64 = 8;
/// Least step back that is logged, in microseconds.
const LOGGED_STEP: i64 = 5_000_000;

/// Time that never runs backwards and never stands still. Where its source is set back, it continues, a little slower, until the source
/// has caught up. A source that is set forward is followed.
#[derive(Debug, Default)]
pub(crate) struct SteadyTime(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The last time that the source gave and that was not behind, and the monotonic time at that moment.
    anchor: (i64, i64),
    /// The last time that was given out.
    last: i64,
    is_behind: bool,
}

impl State {
    /// Returns the least time at a moment.
    fn least(&self, monotonic: i64) -> i64 {
        let passed = monotonic.saturating_sub(self.anchor.1).max(0);
        self.anchor.0.saturating_add(passed - passed / LEFT_OUT).max(self.last)
    }
}

impl SteadyTime {
    /// Returns the time at a moment at which the source and a clock that is never set have these, all in microseconds.
    pub(crate) fn at(&self, source: i64, monotonic: i64) -> i64 {
        let mut state = self.0.lock();
        let least = state.least(monotonic);
        if source >= least {
            (state.anchor, state.is_behind) = ((source, monotonic), false);
        } else if least - source >= LOGGED_STEP && !state.is_behind {
            state.is_behind = true;
            let by = Duration::from_micros(least.abs_diff(source));
            tracing::warn!(
                ?by,
                "the clock of the database was set back: time continues a little slower until it has caught up"
            );
        }
        state.last = source.max(least);
        state.last
    }

    /// Never returns a time before this one, from which it continues if the source is behind.
    pub(crate) fn not_before(&self, time: i64, monotonic: i64) {
        let mut state = self.0.lock();
        if time > state.least(monotonic) {
            (state.anchor, state.last) = ((time, monotonic), time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3600 * SECOND;

    #[test]
    fn time_continues_where_its_source_is_set_back() {
        let (time, start) = (SteadyTime::default(), 1000 * HOUR);
        assert_eq!(time.at(start, 0), start);
        assert_eq!(time.at(start + HOUR, SECOND), start + HOUR, "it follows a source that is set forward");
        // Back again. However often it is read, what waits for a time gets there.
        for second in 2..=80 {
            let read = time.at(start + second * SECOND, second * SECOND);
            assert_eq!(read, start + HOUR + (second - 1) * SECOND * 7 / 8);
        }
        // An hour is caught up with in eight.
        let caught_up = 8 * HOUR + SECOND;
        assert!(time.at(start + caught_up - HOUR, caught_up - HOUR) > start + caught_up - HOUR);
        assert_eq!(time.at(start + caught_up, caught_up), start + caught_up);
        assert_eq!(time.at(start + caught_up + 9, caught_up + 9), start + caught_up + 9);
    }

    #[test]
    fn time_never_runs_backwards() {
        let time = SteadyTime::default();
        time.at(HOUR, 80);
        // Two threads that have read the clocks in the other order.
        assert_eq!(time.at(HOUR - 10, 70), HOUR);
        time.not_before(2 * HOUR, 100);
        assert_eq!(time.at(HOUR + 80, 180), 2 * HOUR + 70);
        time.not_before(HOUR, 200);
        assert_eq!(time.at(3 * HOUR, 300), 3 * HOUR);
    }
}
