//! Jumps of the clock: the deadlines of all tasks on workers move with one, a piece in each commit. A task that has a command
//! before its turn moves before that. No deadline on a worker is judged until all have moved.

use std::time::Duration;

use rota_core::task::{self, Command};
use rota_core::{TaskKey, Timestamp};

use super::{Answer, Engine};
use crate::{Backend, Error, FollowUp, Refused, Reply, Tick};

/// A jump of the clock that tasks on workers may not have moved with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Jump {
    /// When the timer noticed it.
    pub(super) at: Timestamp,
    pub(super) by: Duration,
}

impl<B: Backend> Engine<B> {
    /// Begins to move the deadlines of all tasks on workers. The workers' own clocks have not jumped.
    pub(super) fn clock_jumped(&mut self, by: Duration, now: Timestamp) -> Answer {
        self.away.add(now - by, now);
        self.write_set.jumps.push(Jump { at: now, by });
        let until = TaskKey(self.memory.revision);
        let jumped = FollowUp::ClockJumped { by, at: now, after: TaskKey(0), until };
        self.write_set.pending.push(jumped);
        Reply::Ticked(self.memory.on_workers().len()).into()
    }

    /// Moves the deadlines of the next tasks.
    pub(super) fn visit_jump(
        &mut self,
        number: Option<u64>,
        Jump { at, by }: Jump,
        (after, until): (TaskKey, TaskKey),
        now: Timestamp,
    ) -> Result<(), Error> {
        let limit = self.write_set.pending.budget();
        let keys: Vec<_> = self.memory.on_workers_between(after, until).take(limit).collect();
        self.write_set.pending.spend(keys.len().max(1));
        for key in &keys {
            self.move_deadlines(*key, now)?;
        }
        match keys.last().filter(|_| keys.len() >= limit) {
            Some(last) => {
                let rest = FollowUp::ClockJumped { by, at, after: *last, until };
                self.write_set.pending.go_on(number, rest);
            }
            None => self.write_set.pending.finish(number, None),
        }
        Ok(())
    }

    /// Executes a command on a task.
    pub(super) fn apply(
        &mut self,
        key: TaskKey,
        command: Command,
        now: Timestamp,
    ) -> Result<Result<task::Reply, Refused>, Error> {
        if self.are_deadlines_moving() && self.memory.holds(key) {
            self.move_deadlines(key, now)?;
        }
        self.transition(key, command, now)
    }

    /// Returns the tasks on workers whose deadlines have passed, earliest first.
    pub(super) fn due_on_workers(&self, now: Timestamp, tick: &Tick) -> Vec<TaskKey> {
        if self.are_deadlines_moving() { Vec::new() } else { self.memory.due(now, tick, &self.absent) }
    }

    fn are_deadlines_moving(&self) -> bool {
        self.jumps().next().is_some()
    }

    fn jumps(&self) -> impl Iterator<Item = Jump> {
        self.memory.follow_ups.jumps().chain(self.write_set.jumps.iter().copied())
    }

    /// Moves the deadlines of a task with each jump that it has not moved with.
    fn move_deadlines(&mut self, key: TaskKey, now: Timestamp) -> Result<(), Error> {
        let mut jumps: Vec<_> = self.jumps().collect();
        jumps.sort_unstable();
        for Jump { at, by } in jumps {
            // An earlier command of the batch may have ended it.
            let _ = self.transition(key, Command::ClockJumped { by, at }, now)?;
        }
        Ok(())
    }
}
