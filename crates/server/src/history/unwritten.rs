//! Which periods of the history are to be written.

use super::period::Period;
use super::{HOURS, Latest, MINUTES, Tier};

impl Latest {
    /// Returns the periods to write: the hour that has not ended only with a minute that has rows, so that a control plane
    /// without agents and tasks writes nothing.
    pub(super) fn unwritten(&self) -> Vec<(&'static Tier, Period)> {
        let open = self.periods.iter().rposition(|(tier, _)| **tier == HOURS);
        let is_idle = self.periods.iter().all(|(tier, period)| **tier != MINUTES || period.is_empty());
        let due = self.periods.iter().enumerate().filter(|(index, _)| !is_idle || Some(*index) != open);
        due.map(|(_, period)| period.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Row;
    use super::*;

    #[test]
    fn open_hour_is_written_with_a_busy_minute() {
        let busy = |start| Period { rows: vec![Row::default()], ..Period::new(start) };
        let starts = |periods| {
            let due = Latest { periods, ..Latest::default() }.unwritten();
            due.into_iter()
                .filter(|(_, period)| !period.is_empty())
                .map(|(_, period)| period.start)
                .collect::<Vec<_>>()
        };
        assert_eq!(starts(vec![(&HOURS, busy(0)), (&MINUTES, busy(60))]), [0, 60]);
        assert_eq!(starts(vec![(&HOURS, busy(0)), (&MINUTES, Period::new(60))]), [0; 0]);
        let ended = vec![(&HOURS, busy(0)), (&MINUTES, Period::new(3600)), (&HOURS, busy(3600))];
        assert_eq!(starts(ended), [0], "the hour has ended");
    }
}
