//! Clocks of a task: how long it may wait and work, and when time next changes it.

use std::time::Duration;

use super::storing::MAX_STORING_TIME;
use super::{ACCEPT_TIMEOUT, CONFIRM_SLACK, DEFAULT_CANCEL_GRACE, DEFAULT_TIMEOUT, State, Task};
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

    /// Returns when [`Command::Tick`](super::Command::Tick) next has an effect, or when an ended task expires; `None` for a task that only waits for
    /// others, or for a person.
    /// A worker that comes back has a moment to report what ended while it was away.
    pub fn due(&self) -> Option<Timestamp> {
        self.due_with_send_time(|at| at)
    }

    /// As [`due`](Self::due), where `sent` returns when an assignment of a time was sent: its worker may accept it for some time since then.
    pub fn due_with_send_time(&self, sent: impl FnOnce(Timestamp) -> Timestamp) -> Option<Timestamp> {
        fn earliest<const N: usize>(times: [Option<Timestamp>; N]) -> Option<Timestamp> {
            times.into_iter().flatten().min()
        }
        match self.state {
            State::Pending => earliest([self.not_before, self.retry_at, self.queue_deadline()]),
            State::Queued => self.queue_deadline(),
            State::Assigned => {
                let taken_by =
                    self.assignment.as_ref().map(|assignment| sent(assignment.at) + ACCEPT_TIMEOUT);
                earliest([taken_by, self.confirm_by])
            }
            State::Running | State::InputRequired => {
                let resumed = self.assignment.as_ref().and_then(|assignment| assignment.resumed_at);
                let overdue = self.deadline().map(|at| at + self.cancel_grace() + CONFIRM_SLACK);
                let due = earliest([overdue, self.confirm_by])?;
                Some(resumed.map_or(due, |at| due.max(at + CONFIRM_SLACK)))
            }
            State::Succeeded | State::Failed | State::Cancelled => self.expires_at(),
        }
    }

    /// Returns when an ended task is removed by its own TTL.
    pub fn expires_at(&self) -> Option<Timestamp> {
        Some(self.ended_at? + self.ttl?)
    }
}
