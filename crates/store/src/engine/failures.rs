//! Follow-ups that fail: a commit is executed again without them, and one that fails alone, again and again, is set aside.

use std::collections::{BTreeMap, BTreeSet};

use rota_core::Timestamp;

use super::{BatchOutcome, Engine};
use crate::{Backend, Command, Error, FollowUp, Snapshot};

/// Failures after which a follow-up is set aside.
const MAX_FAILURES: u32 = 3;

/// Record of the follow-ups that have failed since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Stored follow-ups that the batch continues.
    pub(super) continuing: Vec<u64>,
    counts: BTreeMap<u64, u32>,
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
    ) -> Vec<(u64, &'a FollowUp)> {
        if self.counts.is_empty() {
            return stored.take(limit).collect();
        }
        let mut stored: Vec<_> = stored.collect();
        match stored.iter().position(|(number, _)| self.counts.contains_key(number)) {
            Some(failed) => vec![stored.swap_remove(failed)],
            None => {
                stored.truncate(limit);
                stored
            }
        }
    }

    fn add(&mut self, error: &Error) {
        let alone = self.continuing.len() == 1;
        for number in self.continuing.drain(..) {
            let count = self.counts.entry(number).or_default();
            *count += 1;
            if alone && *count >= MAX_FAILURES {
                self.counts.remove(&number);
                self.set_aside.insert(number);
                self.unreported.push((number, error.to_string()));
            }
        }
    }

    fn succeeded(&mut self) {
        for number in self.continuing.drain(..) {
            self.counts.remove(&number);
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
                        self.failures.add(&error);
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
