//! Clocks of a task: how long it may wait and work.

use std::time::Duration;

use super::storing::MAX_STORING_TIME;
use super::{DEFAULT_CANCEL_GRACE, DEFAULT_TIMEOUT, State, Task};
use crate::Timestamp;

/// Time for a worker to store what an attempt has left, once its work has ended: the storage may be down for long, and a worker
/// that only claims it must not occupy the task without end.
const MAX_KEEPING_TIME: Duration = Duration::from_hours(24);
/// Time for an attempt to get its workspace: a worker that never reports the end of the wait must not occupy the task without end.
const MAX_HELD_UP_TIME: Duration = Duration::from_hours(24);

impl Task {
    /// Total time of all attempts on workers, without the time for which they wait for a person, or for their workspace.
    pub fn timeout(&self) -> Duration {
        self.limits.timeout.or(self.defaults.timeout).unwrap_or(DEFAULT_TIMEOUT)
    }

    /// Longest time from ready to started; `None` for no limit.
    pub fn queue_timeout(&self) -> Option<Duration> {
        self.limits.queue_timeout.or(self.defaults.queue_timeout)
    }

    /// Time between the request to stop and the kill.
    pub fn cancel_grace(&self) -> Duration {
        self.limits.cancel_grace.or(self.defaults.cancel_grace).unwrap_or(DEFAULT_CANCEL_GRACE)
    }

    /// Returns what is left of its total time for the next attempt, or for the current one since its start.
    pub fn time_left(&self) -> Duration {
        if self.delivers() {
            return MAX_KEEPING_TIME;
        }
        self.timeout().saturating_sub(self.worked)
    }

    /// Returns the end of its total time; `None` while its attempt waits for a person. One that waits for its workspace, or only stores what is
    /// left, has a limit of its own.
    pub fn deadline(&self) -> Option<Timestamp> {
        let assignment = self.assignment.as_ref().filter(|_| self.state == State::Running)?;
        if let Some(storing) = assignment.storing {
            return Some(storing.since + MAX_STORING_TIME);
        }
        if assignment.work_ended {
            return assignment.paused_at.map(|since| since + MAX_KEEPING_TIME);
        }
        if let Some(since) = self.held_up_since() {
            return Some(since + MAX_HELD_UP_TIME);
        }
        let started = assignment.started_at.unwrap_or(assignment.at);
        Some(started + self.time_left() + assignment.paused)
    }

    /// Returns since when its attempt waits for a workspace that another one uses.
    pub fn held_up_since(&self) -> Option<Timestamp> {
        let assignment = self.assignment.as_ref().filter(|_| self.state == State::Running)?;
        assignment.paused_at.filter(|_| !assignment.work_ended)
    }
}
