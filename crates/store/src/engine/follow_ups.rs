//! Follow-ups: consequences of commands for other tasks. A commit takes up at most [`MAX_FOLLOW_UPS`] of them; what is
//! left is stored, and continued by the next commits, so that no change of one object delays all others.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;

use rota_core::Timestamp;

use super::clock::Jump;
use super::{AgentKey, Engine};
use crate::{Backend, Changes, Error, FollowUp, WaitsKey};

/// Tasks that the follow-ups of one commit visit.
pub(super) const MAX_FOLLOW_UPS: usize = 256;
/// Part of it for those of earlier commits, if there are any.
const RESERVED: usize = 64;

/// Follow-ups that earlier commits have left, by number, with indexes of what commands ask for.
#[derive(Debug, Default)]
pub(super) struct StoredFollowUps {
    by_number: BTreeMap<u64, FollowUp>,
    agents: HashMap<AgentKey, BTreeSet<u64>>,
    found: HashMap<WaitsKey, BTreeSet<u64>>,
    jumps: BTreeMap<u64, Jump>,
    /// Highest number of a stored one that is set aside.
    pub(super) floor: u64,
}

impl StoredFollowUps {
    /// Leaves one alone, if it was decoded at all.
    pub(super) fn set_aside(&mut self, number: u64) {
        self.remove(number);
        self.floor = self.floor.max(number);
    }

    /// Returns an unused number, behind all others.
    fn next_number(&self) -> u64 {
        self.by_number.last_key_value().map_or(0, |(last, _)| *last).max(self.floor) + 1
    }

    /// Returns them, lowest number first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &FollowUp)> {
        self.by_number.iter().map(|(number, follow_up)| (*number, follow_up))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub(super) fn add(&mut self, follow_ups: impl IntoIterator<Item = (u64, FollowUp)>) {
        for (number, follow_up) in follow_ups {
            match &follow_up {
                FollowUp::Agent { namespace, name, .. } => {
                    let agent = (namespace.clone(), name.clone());
                    self.agents.entry(agent).or_default().insert(number);
                }
                FollowUp::Found { waits, .. } => {
                    self.found.entry(waits.clone()).or_default().insert(number);
                }
                FollowUp::Ended { .. }
                | FollowUp::Cycle { .. }
                | FollowUp::Lifted { .. }
                | FollowUp::Funded { .. }
                | FollowUp::StepEnded { .. }
                | FollowUp::ReleaseSteps { .. }
                | FollowUp::HaltSteps { .. }
                | FollowUp::ResumeSteps { .. }
                | FollowUp::StepTasks { .. }
                | FollowUp::Nested { .. }
                | FollowUp::AdmitMembers { .. }
                | FollowUp::ReplaceMembers { .. }
                | FollowUp::RemoveWorkflow { .. } => {}
                FollowUp::ClockJumped { by, at, .. } => {
                    self.jumps.insert(number, Jump { at: *at, by: *by });
                }
            }
            self.by_number.insert(number, follow_up);
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<FollowUp> {
        let follow_up = self.by_number.remove(&number)?;
        match &follow_up {
            FollowUp::Agent { namespace, name, .. } => {
                remove_number(&mut self.agents, (namespace.clone(), name.clone()), number);
            }
            FollowUp::Found { waits, .. } => remove_number(&mut self.found, waits.clone(), number),
            FollowUp::Ended { .. }
            | FollowUp::Cycle { .. }
            | FollowUp::Lifted { .. }
            | FollowUp::Funded { .. }
            | FollowUp::StepEnded { .. }
            | FollowUp::ReleaseSteps { .. }
            | FollowUp::HaltSteps { .. }
            | FollowUp::ResumeSteps { .. }
            | FollowUp::StepTasks { .. }
            | FollowUp::Nested { .. }
            | FollowUp::AdmitMembers { .. }
            | FollowUp::ReplaceMembers { .. }
            | FollowUp::RemoveWorkflow { .. } => {}
            FollowUp::ClockJumped { .. } => drop(self.jumps.remove(&number)),
        }
        Some(follow_up)
    }

    /// Returns the jumps of the clock that not all tasks have moved with.
    pub(super) fn jumps(&self) -> impl Iterator<Item = Jump> {
        self.jumps.values().copied()
    }

    /// Returns the follow-ups of an agent's changes.
    fn of_agent(&self, agent: &AgentKey) -> impl Iterator<Item = (u64, &FollowUp)> {
        let numbers = self.agents.get(agent).into_iter().flatten();
        numbers.filter_map(|number| Some((*number, self.by_number.get(number)?)))
    }

    /// Whether tasks that wait for an object will be notified.
    fn finds(&self, waits: &WaitsKey) -> bool {
        self.found.contains_key(waits)
    }
}

fn remove_number<K: Eq + Hash>(index: &mut HashMap<K, BTreeSet<u64>>, key: K, number: u64) {
    if let Entry::Occupied(mut numbers) = index.entry(key) {
        numbers.get_mut().remove(&number);
        if numbers.get().is_empty() {
            numbers.remove();
        }
    }
}

/// Follow-ups of a batch that visit any number of tasks.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// With their number, if they are stored.
    pub(super) queue: VecDeque<(Option<u64>, FollowUp)>,
    /// Tasks that this commit may still visit.
    budget: usize,
    /// What the next commits continue.
    rest: Vec<FollowUp>,
    /// Stored ones that have ended, or have a new number.
    done: HashSet<u64>,
    /// What new follow-ups of the batch notify tasks of.
    pub(super) finds: HashSet<WaitsKey>,
}

impl Pending {
    pub(super) fn push(&mut self, follow_up: FollowUp) {
        if let FollowUp::Found { waits, .. } = &follow_up {
            self.finds.insert(waits.clone());
        }
        self.queue.push_back((None, follow_up));
    }

    pub(super) fn budget(&self) -> usize {
        self.budget
    }

    pub(super) fn spend(&mut self, visited: usize) {
        self.budget = self.budget.saturating_sub(visited);
    }

    /// Ends one, or leaves the rest of it to the next commits, behind all others.
    pub(super) fn finish(&mut self, number: Option<u64>, rest: Option<FollowUp>) {
        self.done.extend(number);
        self.rest.extend(rest);
    }

    /// Continues one in this commit, if it may visit more tasks.
    pub(super) fn go_on(&mut self, number: Option<u64>, rest: FollowUp) {
        self.done.extend(number);
        self.queue.push_back((None, rest));
    }
}

impl<B: Backend> Engine<B> {
    /// Sets how many tasks the follow-ups of a batch's own commands may visit.
    pub(super) fn begin_follow_ups(&mut self) {
        let reserved = if self.memory.follow_ups.is_empty() { 0 } else { RESERVED };
        self.write_set.pending.budget = MAX_FOLLOW_UPS - reserved;
    }

    /// Executes the follow-ups of the last command, as far as this commit may.
    pub(super) fn follow_up(&mut self, now: Timestamp) -> Result<(), Error> {
        loop {
            if !self.write_set.next.is_empty() {
                let tasks: Vec<_> = self.write_set.next.iter().map(|(key, _)| *key).collect();
                self.load_all(&tasks)?;
            }
            while let Some((key, command)) = self.write_set.next.pop_front() {
                // One that no longer applies, for example to a cancelled dependent, is dropped.
                let _ = self.apply(key, command, now)?;
            }
            if !self.write_set.workflows.spent.is_empty() {
                self.spend_of_workflows(now)?;
                continue;
            }
            if !self.write_set.workflows.calls.is_empty() {
                self.call_steps(now)?;
                continue;
            }
            if self.write_set.pending.queue.is_empty() || self.write_set.pending.budget == 0 {
                return Ok(());
            }
            self.visit(now)?;
        }
    }

    /// Continues the follow-ups of earlier commits.
    pub(super) fn continue_follow_ups(&mut self, now: Timestamp) -> Result<(), Error> {
        if self.memory.follow_ups.is_empty() {
            return Ok(());
        }
        let pending = &mut self.write_set.pending;
        pending.budget += RESERVED;
        let stored = self.memory.follow_ups.iter().filter(|(number, _)| !pending.done.contains(number));
        let stored: Vec<_> = self
            .failures
            .select(stored, pending.budget, now)
            .into_iter()
            .map(|(number, one)| (number, one.clone()))
            .collect();
        self.failures.continuing = stored.iter().map(|(number, _)| *number).collect();
        let stored = stored.into_iter().map(|(number, follow_up)| (Some(number), follow_up));
        let own = std::mem::replace(&mut pending.queue, stored.collect());
        pending.queue.extend(own);
        self.follow_up(now)
    }

    /// Adds the follow-up of a change of an agent. One that has not come to its end continues from where it is, all the way
    /// round: an agent that changes again and again has no tasks that it never reaches.
    pub(super) fn agent_changed(&mut self, agent: &AgentKey) {
        let place = |follow_up: &FollowUp| match follow_up {
            FollowUp::Agent { namespace, name, after, .. } if *namespace == agent.0 && *name == agent.1 => {
                Some(*after)
            }
            _ => None,
        };
        let pending = &mut self.write_set.pending;
        let queued = pending.queue.iter().map(|(_, follow_up)| follow_up).chain(&pending.rest);
        let stored =
            self.memory.follow_ups.of_agent(agent).filter(|(number, _)| !pending.done.contains(number));
        let reached = queued.chain(stored.map(|(_, follow_up)| follow_up)).find_map(place).flatten();
        pending.queue.retain(|(_, follow_up)| place(follow_up).is_none());
        pending.rest.retain(|follow_up| place(follow_up).is_none());
        pending.done.extend(self.memory.follow_ups.of_agent(agent).map(|(number, _)| number));
        let (namespace, name) = agent.clone();
        pending.push(FollowUp::Agent { namespace, name, after: reached, end: reached });
    }

    /// Whether tasks that wait for an object will be notified of an earlier task.
    pub(super) fn is_being_found(&self, waits: &WaitsKey) -> bool {
        self.memory.follow_ups.finds(waits) || self.write_set.pending.finds.contains(waits)
    }

    /// Adds what is left to what the batch writes.
    pub(super) fn store_follow_ups(&mut self, changes: &mut Changes) {
        let pending = std::mem::take(&mut self.write_set.pending);
        changes.removed_follow_ups = pending.done.into_iter().collect();
        changes.removed_follow_ups.sort_unstable();
        // Those that are stored and were not visited stay as they are.
        let new = pending.queue.into_iter().filter(|(number, _)| number.is_none());
        let left = pending.rest.into_iter().chain(new.map(|(_, follow_up)| follow_up));
        changes.follow_ups = (self.memory.follow_ups.next_number()..).zip(left).collect();
    }
}
