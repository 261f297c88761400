//! Follow-ups that fail: a commit is executed again without them. One that finds damaged data, alone, again and again, is
//! set aside; one that the store does not take, as with a disk that is nearly full, is delayed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rota_core::Timestamp;

use super::{BatchOutcome, Engine};
use crate::{Backend, Command, Error, FollowUp, Snapshot};

/// Times that a follow-up finds damaged data before it is set aside.
const MAX_DAMAGE: u32 = 3;
/// Delay of a follow-up that the store has not taken.
const RETRY_DELAY: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Failed {
    damage: u32,
    /// When it is continued; `None` for immediately.
    retry_at: Option<Timestamp>,
}

impl Failed {
    /// Returns how long it is not continued yet. A clock that was set back does not prolong that.
    fn delay(&self, now: Timestamp) -> Duration {
        self.retry_at.map_or(Duration::ZERO, |at| at.since(now)).min(RETRY_DELAY)
    }
}

/// Record of the follow-ups that have failed since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Stored follow-ups that the batch continues.
    pub(super) continuing: Vec<u64>,
    failed: BTreeMap<u64, Failed>,
    set_aside: BTreeSet<u64>,
    /// Those that no commit has reported, with the reason.
    unreported: Vec<(u64, String)>,
}

impl Failures {
    /// Returns the follow-ups that the next commit continues. One that has failed, or was continued with one that did, is
    /// continued alone, so that the failure of another is not taken for its own.
    pub(super) fn select<'a>(
        &self,
        stored: impl Iterator<Item = (u64, &'a FollowUp)>,
        limit: usize,
        now: Timestamp,
    ) -> Vec<(u64, &'a FollowUp)> {
        if self.failed.is_empty() {
            return stored.take(limit).collect();
        }
        let mut stored: Vec<_> = stored.filter(|(number, _)| self.delay(*number, now).is_zero()).collect();
        match stored.iter().position(|(number, _)| self.failed.contains_key(number)) {
            Some(failed) => vec![stored.swap_remove(failed)],
            None => {
                stored.truncate(limit);
                stored
            }
        }
    }

    fn delay(&self, number: u64, now: Timestamp) -> Duration {
        self.failed.get(&number).map_or(Duration::ZERO, |failed| failed.delay(now))
    }

    fn add(&mut self, error: &Error, now: Timestamp) {
        let alone = self.continuing.len() == 1;
        for number in self.continuing.drain(..) {
            let failed = self.failed.entry(number).or_default();
            if !is_corrupt(error) {
                failed.retry_at = Some(now + RETRY_DELAY);
                continue;
            }
            failed.damage += 1;
            if alone && failed.damage >= MAX_DAMAGE {
                self.failed.remove(&number);
                self.set_aside.insert(number);
                self.unreported.push((number, error.to_string()));
            }
        }
    }

    fn succeeded(&mut self) {
        for number in self.continuing.drain(..) {
            self.failed.remove(&number);
        }
    }
}

impl<B: Backend> Engine<B> {
    /// Executes a batch and makes it durable. On an error, nothing of it has happened.
    pub fn run(&mut self, batch: Vec<Command>, now: Timestamp) -> Result<BatchOutcome, Error> {
        let again = self.has_backlog().then(|| batch.clone());
        let outcome = match self.attempt(batch, now, true) {
            Ok(outcome) => {
                self.failures.succeeded();
                Ok(outcome)
            }
            Err(error) => match again {
                // An empty batch would succeed whatever the state of the store.
                Some(again) if self.is_blamed(&error) && (!again.is_empty() || is_corrupt(&error)) => {
                    let outcome = self.attempt(again, now, false);
                    if outcome.is_ok() {
                        self.failures.add(&error, now);
                        self.set_aside();
                    }
                    outcome
                }
                _ => Err(error),
            },
        };
        self.failures.continuing.clear();
        let mut outcome = outcome?;
        outcome.commit.set_aside = std::mem::take(&mut self.failures.unreported);
        outcome.commit.undecodable.append(&mut self.damage.unreported);
        Ok(outcome)
    }

    /// Returns the time until the next batch has follow-ups of earlier ones to continue; `None` if there are none.
    pub fn backlog_delay(&self, now: Timestamp) -> Option<Duration> {
        let numbers = self.memory.follow_ups.iter().map(|(number, _)| number);
        if self.failures.failed.is_empty() {
            return self.has_backlog().then_some(Duration::ZERO);
        }
        numbers.map(|number| self.failures.delay(number, now)).min()
    }

    fn is_blamed(&self, error: &Error) -> bool {
        !error.is_fatal() && !self.failures.continuing.is_empty()
    }

    /// Notes the follow-ups that a snapshot could not decode.
    pub(super) fn note_undecodable(&mut self, snapshot: &Snapshot) {
        for (number, follow_up) in &snapshot.follow_ups {
            if let Err(reason) = follow_up
                && self.failures.set_aside.insert(*number)
            {
                self.failures.unreported.push((*number, reason.clone()));
            }
        }
    }

    /// Leaves alone the follow-ups that were set aside.
    pub(super) fn set_aside(&mut self) {
        for number in &self.failures.set_aside {
            self.memory.follow_ups.set_aside(*number);
        }
    }
}

fn is_corrupt(error: &Error) -> bool {
    matches!(error, Error::Corrupt(_))
}
