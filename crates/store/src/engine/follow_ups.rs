//! Follow-ups: consequences of commands for other tasks. A commit takes up at most [`MAX_FOLLOW_UPS`] of them; what is
//! left is stored, and continued by the next commits, so that no change of one object delays all others.

use std::collections::VecDeque;

use rota_core::task::{Command, DependencyKey, State};
use rota_core::{RouteId, TaskKey, Timestamp};

use super::collect::FIRST_DEPENDENTS;
use super::{AgentKey, Engine};
use crate::{
    Backend, Changes, DependentsPage, Error, FollowUp, Load, ReadyPage, WaitKey, WaitsKey, WaitsPage,
};

/// Tasks that the follow-ups of one commit visit.
pub(super) const MAX_FOLLOW_UPS: usize = 256;
/// Part of it for those of earlier commits, if there are any.
const RESERVED: usize = 64;

/// Follow-ups of a batch that visit any number of tasks.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// With their number, if they are stored.
    queue: VecDeque<(Option<u64>, FollowUp)>,
    /// Tasks that this commit may still visit.
    budget: usize,
    /// What the next commits continue.
    rest: Vec<FollowUp>,
    /// Stored ones that have ended, or have a new number.
    done: Vec<u64>,
}

impl Pending {
    pub(super) fn push(&mut self, follow_up: FollowUp) {
        self.queue.push_back((None, follow_up));
    }

    pub(super) fn budget(&self) -> usize {
        self.budget
    }

    pub(super) fn spend(&mut self, visited: usize) {
        self.budget = self.budget.saturating_sub(visited);
    }

    /// Returns those that are not stored yet.
    fn new_ones(&self) -> impl Iterator<Item = &FollowUp> {
        self.queue.iter().map(|(_, follow_up)| follow_up).chain(&self.rest)
    }

    /// Ends one, or leaves the rest of it to the next commits, behind all others.
    pub(super) fn finish(&mut self, number: Option<u64>, rest: Option<FollowUp>) {
        self.done.extend(number);
        self.rest.extend(rest);
    }

    /// Continues one in this commit, if it may visit more tasks.
    fn go_on(&mut self, number: Option<u64>, rest: FollowUp) {
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
            while let Some((key, command)) = self.write_set.next.pop_front() {
                // One that no longer applies, for example to a cancelled dependent, is dropped.
                let _ = self.apply(key, command, now)?;
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
        let stored =
            stored.take(pending.budget).map(|(number, follow_up)| (Some(*number), follow_up.clone()));
        let own = std::mem::replace(&mut pending.queue, stored.collect());
        pending.queue.extend(own);
        self.follow_up(now)
    }

    /// Visits the next tasks of the pending follow-ups: one load for all ends of tasks, or one for a page of another.
    fn visit(&mut self, now: Timestamp) -> Result<(), Error> {
        let pending = &mut self.write_set.pending;
        let is_end = |follow_up: &FollowUp| matches!(follow_up, FollowUp::Ended { .. });
        let ends = pending.queue.iter().take(pending.budget).take_while(|(_, next)| is_end(next)).count();
        if ends > 0 {
            let ends = pending.queue.drain(..ends).collect();
            return self.visit_dependents(ends);
        }
        match pending.queue.pop_front() {
            Some((number, FollowUp::Found { waits, task })) => self.visit_waiters(number, waits, task, now),
            Some((number, FollowUp::Agent { namespace, name, after })) => {
                self.visit_agent(number, (namespace, name), after)
            }
            Some((number, FollowUp::Cycle { task })) => self.visit_cycle(number, task),
            _ => Ok(()),
        }
    }

    /// Notifies dependents of ended tasks.
    fn visit_dependents(&mut self, ends: Vec<(Option<u64>, FollowUp)>) -> Result<(), Error> {
        let limit = (self.write_set.pending.budget / ends.len()).max(1);
        let (mut load, mut visits) = (Load::default(), Vec::new());
        for (number, follow_up) in ends {
            let FollowUp::Ended { task, after } = follow_up else { continue };
            let known = if after == TaskKey(0) { self.notify_new_dependents(task) } else { None };
            if known.is_none() {
                load.dependents.push(DependentsPage { task, after, limit });
            }
            visits.push((number, task, known));
        }
        let mut pages = self.fetch(&load)?.dependents.into_iter();
        for (number, task, known) in visits {
            let (dependents, whole) = known.unwrap_or_else(|| {
                let page = pages.next().unwrap_or_default();
                let whole = page.len() < limit;
                (page, whole)
            });
            let last = dependents.last().copied();
            self.write_set.pending.spend(dependents.len());
            self.notify(task, dependents)?;
            match last.filter(|_| !whole) {
                None => self.write_set.pending.finish(number, None),
                Some(after) => self.write_set.pending.go_on(number, FollowUp::Ended { task, after }),
            }
        }
        Ok(())
    }

    fn notify(&mut self, ended: TaskKey, dependents: Vec<TaskKey>) -> Result<(), Error> {
        if let Some((id, state)) = self.load(ended)?.map(|ended| (ended.id, ended.state)) {
            let notice = |dependent| (dependent, Command::DependencyEnded { id, state });
            self.write_set.next.extend(dependents.into_iter().map(notice));
        }
        Ok(())
    }

    /// Notifies the dependents that the batch has added. Returns the first stored ones, if they are known, and whether
    /// they are all.
    fn notify_new_dependents(&mut self, task: TaskKey) -> Option<(Vec<TaskKey>, bool)> {
        let entry = self.write_set.entries.get_mut(&task)?;
        let (id, state) = (entry.task.id, entry.task.state);
        let added = std::mem::take(&mut entry.new_dependents).into_iter();
        self.write_set.next.extend(added.map(|added| (added, Command::DependencyEnded { id, state })));
        if entry.new {
            return Some((Vec::new(), true));
        }
        let stored = self.write_set.dependents.remove(&task)?;
        let whole = stored.len() < FIRST_DEPENDENTS;
        Some((stored, whole))
    }

    /// Notifies tasks that wait for an id or an alias which task it is.
    fn visit_waiters(
        &mut self,
        number: Option<u64>,
        waits: WaitsKey,
        task: TaskKey,
        now: Timestamp,
    ) -> Result<(), Error> {
        let Some(task) = self.present_task(&waits, task)? else {
            // The tasks go on waiting for another one, whose creation adds a follow-up of its own.
            self.write_set.pending.finish(number, None);
            return Ok(());
        };
        let (waiters, more) = self.take_waits(&waits)?;
        let key = match &waits.1 {
            WaitKey::Id(id) => DependencyKey::Id(*id),
            WaitKey::Alias(alias) => DependencyKey::Alias(alias.clone()),
            WaitKey::Agent(_) => return Ok(()),
        };
        self.load_all(&waiters)?;
        let found = !waiters.is_empty();
        for waiter in waiters {
            self.found(waiter, key.clone(), task)?;
        }
        // Those that were taken are removed by this commit: only the next one finds the others.
        let rest = more.then_some(FollowUp::Found { waits, task });
        self.write_set.pending.finish(number, rest);
        while let Some((key, command)) = self.write_set.next.pop_front() {
            let _ = self.apply(key, command, now)?;
        }
        if !more && (found || number.is_some()) {
            self.search_cycle(task);
        }
        Ok(())
    }

    /// Returns the task that the waiting ones are notified of. If it was removed, or cannot be decoded, it is the one that
    /// has the name now: that one's creation has left them to this follow-up.
    fn present_task(&mut self, waits: &WaitsKey, task: TaskKey) -> Result<Option<TaskKey>, Error> {
        if self.load(task)?.is_some() {
            return Ok(Some(task));
        }
        let present = match &waits.1 {
            WaitKey::Id(id) => self.find(&(waits.0.clone(), *id))?,
            WaitKey::Alias(alias) => {
                let alias = (waits.0.clone(), alias.clone());
                if self.write_set.aliases.get(&alias).is_none() {
                    self.fetch(&Load { aliases: vec![alias.clone()], ..Load::default() })?;
                }
                self.write_set.aliases.get(&alias).copied()
            }
            WaitKey::Agent(_) => None,
        };
        match present {
            Some(present) => Ok(self.load(present)?.is_some().then_some(present)),
            None => Ok(None),
        }
    }

    /// Updates a page of the ready tasks that name an agent, then those that wait for it.
    fn visit_agent(
        &mut self,
        number: Option<u64>,
        agent: AgentKey,
        after: Option<(RouteId, i64, TaskKey)>,
    ) -> Result<(), Error> {
        let limit = self.write_set.pending.budget;
        let from = after.map_or(RouteId(0), |(route, ..)| route);
        let mut routes = self.memory.agent_routes(&agent, from);
        let (route, following) = (routes.next(), routes.next());
        drop(routes);
        let Some(route) = route else { return self.visit_agent_waiters(number, agent) };
        let place = after.filter(|(at, ..)| *at == route).map(|(_, rank, key)| (rank, key));
        let page = ReadyPage { route, after: place, limit, payloads: false };
        let page =
            self.fetch(&Load { ready: vec![page], ..Load::default() })?.ready.pop().unwrap_or_default();
        // An empty route costs a load, too.
        self.write_set.pending.spend(page.len().max(1));
        for (_, key) in &page {
            let named = |task: &rota_core::task::Task| {
                task.state == State::Queued && task.agent() == Some(&agent.1) && task.namespace == agent.0
            };
            if self.load(*key)?.is_some_and(named) {
                self.match_agent(*key, &agent);
            }
        }
        let last = page.last().filter(|_| page.len() >= limit).map(|(rank, key)| (route, *rank, *key));
        let next = last.or_else(|| following.map(|route| (route, i64::MIN, TaskKey(0))));
        match next {
            Some(_) => {
                let rest = FollowUp::Agent { namespace: agent.0, name: agent.1, after: next };
                self.write_set.pending.go_on(number, rest);
                Ok(())
            }
            None => self.visit_agent_waiters(number, agent),
        }
    }

    /// Resumes tasks that wait for an agent, if it exists.
    fn visit_agent_waiters(&mut self, number: Option<u64>, agent: AgentKey) -> Result<(), Error> {
        let mut rest = None;
        if let Some(defaults) = self.agent(&agent).map(|agent| agent.defaults) {
            let waits = (agent.0.clone(), WaitKey::Agent(agent.1.clone()));
            let (waiters, more) = self.take_waits(&waits)?;
            self.load_all(&waiters)?;
            let resume = |waiter| (waiter, Command::AgentAppeared { defaults });
            self.write_set.next.extend(waiters.into_iter().map(resume));
            // All ready tasks were updated: the next commit begins behind the last route.
            let behind = Some((RouteId(u32::MAX), i64::MAX, TaskKey(u64::MAX)));
            rest = more.then_some(FollowUp::Agent { namespace: agent.0, name: agent.1, after: behind });
        }
        self.write_set.pending.finish(number, rest);
        Ok(())
    }

    /// Removes and returns the first tasks that wait for an object, and whether there are more.
    pub(super) fn take_waits(&mut self, key: &WaitsKey) -> Result<(Vec<TaskKey>, bool), Error> {
        if !self.write_set.waits.knows(key) {
            let page = WaitsPage { key: key.clone(), limit: MAX_FOLLOW_UPS };
            self.fetch(&Load { waits: vec![page], ..Load::default() })?;
        }
        let (waiters, more) = self.write_set.waits.take(key);
        self.write_set.pending.spend(waiters.len());
        Ok((waiters, more))
    }

    /// Adds the follow-up of a change of an agent, in place of an earlier one that has not come to its end.
    pub(super) fn agent_changed(&mut self, agent: &AgentKey) {
        let is_earlier = |follow_up: &FollowUp| matches!(follow_up, FollowUp::Agent { namespace, name, .. } if *namespace == agent.0 && *name == agent.1);
        let pending = &mut self.write_set.pending;
        pending.queue.retain(|(_, follow_up)| !is_earlier(follow_up));
        pending.rest.retain(|follow_up| !is_earlier(follow_up));
        let stored = self.memory.follow_ups.iter().filter(|(_, follow_up)| is_earlier(follow_up));
        pending.done.extend(stored.map(|(number, _)| *number));
        let (namespace, name) = agent.clone();
        pending.push(FollowUp::Agent { namespace, name, after: None });
    }

    /// Whether tasks that wait for an object will be notified of an earlier task.
    pub(super) fn is_being_found(&self, waits: &WaitsKey) -> bool {
        let is_found = |follow_up: &FollowUp| matches!(follow_up, FollowUp::Found { waits: found, .. } if found == waits);
        self.memory.follow_ups.values().any(is_found) || self.write_set.pending.new_ones().any(is_found)
    }

    /// Adds what is left to what the batch writes.
    pub(super) fn store_follow_ups(&mut self, changes: &mut Changes) {
        let pending = std::mem::take(&mut self.write_set.pending);
        changes.removed_follow_ups = pending.done;
        changes.removed_follow_ups.sort_unstable();
        changes.removed_follow_ups.dedup();
        // Those that are stored and were not visited stay as they are.
        let new = pending.queue.into_iter().filter(|(number, _)| number.is_none());
        let left = pending.rest.into_iter().chain(new.map(|(_, follow_up)| follow_up));
        let last = self.memory.follow_ups.last_key_value().map_or(0, |(last, _)| *last);
        changes.follow_ups = (last + 1..).zip(left).collect();
    }
}
