//! Visits of follow-ups: each takes a page of the tasks that an end, a creation or an agent concerns, and gives them their
//! commands.

use std::collections::VecDeque;

use rota_core::task::{Command, DependencyKey, State};
use rota_core::{RouteId, TaskId, TaskKey, Timestamp};

use super::clock::Jump;
use super::follow_ups::MAX_FOLLOW_UPS;
use super::funding::MAX_CANDIDATES;
use super::{AgentKey, Engine};
use crate::{
    Backend, DependentsPage, Error, FollowUp, Load, Place, ReadyPage, RoutePlace, WaitKey, WaitsKey,
    WaitsPage,
};

impl<B: Backend> Engine<B> {
    /// Visits the next tasks of the pending follow-ups: one load for all ends of tasks, or one for a page of another.
    pub(super) fn visit(&mut self, now: Timestamp) -> Result<(), Error> {
        let pending = &mut self.write_set.pending;
        let is_end = |follow_up: &FollowUp| matches!(follow_up, FollowUp::Ended { .. });
        let ends = pending.queue.iter().take(pending.budget()).take_while(|(_, next)| is_end(next)).count();
        if ends > 0 {
            let ends = pending.queue.drain(..ends).collect();
            return self.visit_dependents(ends);
        }
        if self.visit_round(now)? {
            return Ok(());
        }
        let cycle = |follow_up: &FollowUp| match follow_up {
            FollowUp::Cycle { task } => Some(*task),
            _ => None,
        };
        let pending = &mut self.write_set.pending;
        let searches: VecDeque<_> = pending
            .queue
            .iter()
            .take(pending.budget())
            .map_while(|(number, next)| Some((*number, cycle(next)?)))
            .collect();
        if !searches.is_empty() {
            drop(pending.queue.drain(..searches.len()));
            return self.visit_cycles(searches);
        }
        self.fetch_waits(now)?;
        match self.write_set.pending.queue.pop_front() {
            Some((number, FollowUp::Found { waits, task })) => self.visit_waiters(number, waits, task, now),
            Some((number, FollowUp::Lifted { waits })) => self.visit_lifted(number, waits, now),
            Some((number, FollowUp::Funded { waits })) => self.visit_funded(number, waits, now),
            Some((number, FollowUp::ClockJumped { by, at, after, until })) => {
                self.visit_jump(number, Jump { at, by }, (after, until), now)
            }
            _ => Ok(()),
        }
    }

    /// Loads what the next follow-ups visit that concern waiting tasks: their keys and the tasks that were created in one call, the
    /// records of those that wait in another.
    fn fetch_waits(&mut self, now: Timestamp) -> Result<(), Error> {
        let waits = |follow_up: &FollowUp| match follow_up {
            FollowUp::Found { waits, task } => Some((waits.clone(), Some(*task), MAX_FOLLOW_UPS)),
            FollowUp::Lifted { waits } => Some((waits.clone(), None, MAX_FOLLOW_UPS)),
            FollowUp::Funded { waits } => Some((waits.clone(), None, MAX_CANDIDATES)),
            _ => None,
        };
        let has_room = |key: &WaitsKey| match &key.1 {
            WaitKey::Budget(scope) => self.fundable(&(key.0.clone(), scope.clone()), now) > 0,
            _ => true,
        };
        let pending = &self.write_set.pending;
        let budget = pending.budget();
        let next: Vec<_> = pending.queue.iter().take(budget).map_while(|(_, next)| waits(next)).collect();
        let mut tasks: Vec<_> = next.iter().filter_map(|(_, task, _)| *task).collect();
        tasks.retain(|task| !self.knows(*task));
        let unknown = next.into_iter().filter(|(key, ..)| !self.write_set.waits.knows(key) && has_room(key));
        let mut keys: Vec<_> = unknown.map(|(key, _, most)| (key, most)).collect();
        keys.sort_unstable();
        keys.dedup_by(|next, kept| next.0 == kept.0);
        // A single one is loaded when it is visited, if it has to be.
        if keys.len() < 2 {
            return Ok(());
        }
        tasks.sort_unstable();
        tasks.dedup();
        let limit = (budget / keys.len()).max(1);
        // Of those that wait for a budget, the best ones of so many continue.
        let limit = |most: usize| if most == MAX_CANDIDATES { most } else { limit };
        let page = |(key, most): &(WaitsKey, usize)| WaitsPage { key: key.clone(), limit: limit(*most) };
        let pages = keys.iter().map(page).collect();
        self.fetch(&Load { waits: pages, tasks, ..Load::default() })?;
        let waiters = keys.iter().flat_map(|(key, _)| self.write_set.waits.stored(key)).copied();
        let waiters: Vec<_> = waiters.take(budget).collect();
        self.load_all(&waiters)
    }

    /// Notifies dependents of ended tasks: one load for all of them, and one for each level of the threads that they are in.
    fn visit_dependents(&mut self, ends: Vec<(Option<u64>, FollowUp)>) -> Result<(), Error> {
        let limit = (self.write_set.pending.budget() / ends.len()).max(1);
        let (mut load, mut visits) = (Load::default(), Vec::new());
        for (number, follow_up) in ends {
            let FollowUp::Ended { task, after, until, before, .. } = follow_up else { continue };
            let before =
                before.and_then(|before| Some((self.write_set.get(task)?.task.namespace.clone(), before)));
            load.ids.extend(before.filter(|before| !self.knows_id(before)));
            let is_first = after == TaskKey(0);
            let added = if is_first { self.new_dependents(task) } else { None };
            let known = if is_first { self.known_dependents(task) } else { None };
            if known.is_none() {
                load.dependents.push(DependentsPage { task, after, until, limit });
            }
            visits.push((number, follow_up, added, known));
        }
        load.ids.sort_unstable();
        load.ids.dedup();
        let mut pages = self.fetch(&load)?.dependents.into_iter();
        for (.., known) in &mut visits {
            known.get_or_insert_with(|| {
                let page = pages.next().unwrap_or_default();
                let whole = page.len() < limit;
                (page, whole)
            });
        }
        let mut before = Vec::new();
        for (_, follow_up, added, known) in &visits {
            let FollowUp::Ended { before: Some(id), .. } = follow_up else { continue };
            let added = added.iter().flat_map(|(dependents, ..)| dependents);
            let mut dependents = added.chain(known.iter().flat_map(|(dependents, _)| dependents));
            let record = dependents.find_map(|dependent| self.write_set.get(*dependent));
            before.extend(record.map(|entry| (entry.task.namespace.clone(), *id)));
        }
        self.load_predecessors(before)?;
        for (number, follow_up, added, known) in visits {
            let FollowUp::Ended { task, id, state, until, before, .. } = follow_up else { continue };
            if let Some((dependents, state, before)) = added {
                self.notify(dependents, id, state, before)?;
            }
            let (dependents, whole) = known.unwrap_or_default();
            let last = dependents.last().copied();
            self.write_set.pending.spend(dependents.len());
            self.notify(dependents, id, state, before)?;
            match last.filter(|_| !whole) {
                None => self.write_set.pending.finish(number, None),
                Some(after) => {
                    let rest = FollowUp::Ended { task, id, state, after, until, before };
                    self.write_set.pending.go_on(number, rest);
                }
            }
        }
        Ok(())
    }

    /// Takes the dependents of a task that the batch has added, with its state and the task before it in its thread.
    fn new_dependents(&mut self, task: TaskKey) -> Option<(Vec<TaskKey>, State, Option<TaskId>)> {
        let entry = self.write_set.entries.get_mut(&task)?;
        let added = std::mem::take(&mut entry.new_dependents);
        Some((added, entry.task.state, entry.task.waits_in_thread()))
    }

    /// Takes the first stored dependents of a task, if they are known, and whether they are all.
    fn known_dependents(&mut self, task: TaskKey) -> Option<(Vec<TaskKey>, bool)> {
        let entry = self.write_set.get(task)?;
        if entry.new {
            return Some((Vec::new(), true));
        }
        self.write_set.dependents.remove(&task)
    }

    /// Notifies dependents of the end of a task. If that has still waited for one `before` it in its thread, the task behind it
    /// waits for that one.
    fn notify(
        &mut self,
        dependents: Vec<TaskKey>,
        id: TaskId,
        state: State,
        before: Option<TaskId>,
    ) -> Result<(), Error> {
        for dependent in dependents {
            if let Some(before) = before
                && let Some(task) = self.load(dependent)?
                && task.waits_in_thread() == Some(id)
            {
                let namespace = task.namespace.clone();
                if let Some((key, next)) = self.unended(&namespace, before)? {
                    self.add_edge(key, dependent);
                    self.write_set.next.push_back((dependent, Command::ThreadPassedOn { id, next }));
                }
            }
            // Not what waits for another one now.
            self.write_set.next.push_back((dependent, Command::DependencyEnded { id, state }));
        }
        Ok(())
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
            self.write_set.pending.finds.remove(&waits);
            self.write_set.pending.finish(number, None);
            return Ok(());
        };
        let (waiters, more) = self.take_waits(&waits)?;
        let key = match &waits.1 {
            WaitKey::Id(id) => DependencyKey::Id(*id),
            WaitKey::Alias(alias) => DependencyKey::Alias(alias.clone()),
            WaitKey::Agent(_) | WaitKey::Credential(_) | WaitKey::Budget(_) => {
                self.write_set.pending.finish(number, None);
                return Ok(());
            }
        };
        self.load_all(&waiters)?;
        let found = !waiters.is_empty();
        for waiter in waiters {
            self.found(waiter, key.clone(), task)?;
        }
        // Those that were taken are removed by this commit: only the next one finds the others.
        if !more {
            self.write_set.pending.finds.remove(&waits);
        }
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
            WaitKey::Agent(_) | WaitKey::Credential(_) | WaitKey::Budget(_) => None,
        };
        match present {
            Some(present) => Ok(self.load(present)?.is_some().then_some(present)),
            None => Ok(None),
        }
    }

    /// Updates pages of the ready tasks that name an agent, one of each next route, then those that wait for it.
    pub(super) fn visit_agent(
        &mut self,
        number: Option<u64>,
        agent: AgentKey,
        (after, end): (Option<RoutePlace>, Option<RoutePlace>),
        pages: Vec<(ReadyPage, Vec<Place>)>,
    ) -> Result<(), Error> {
        let last = pages.last().map(|(page, _)| page.route);
        // The first page alone may have as many as may be visited.
        let mut left = pages.first().map_or(0, |(page, _)| page.limit);
        let mut next = None;
        for (ReadyPage { route, limit, .. }, mut page) in pages {
            let is_whole = page.len() < limit && page.len() <= left;
            page.truncate(left);
            // An empty route costs a visit, too.
            let cost = page.len().max(1);
            self.write_set.pending.spend(cost);
            left = left.saturating_sub(cost);
            self.match_page(&agent, &page)?;
            if !is_whole {
                next = page.last().map(|(rank, key)| (route, *rank, *key));
                break;
            }
            if left == 0 {
                next = Some((route, i64::MAX, TaskKey(u64::MAX)));
                break;
            }
        }
        let behind =
            last.and_then(|last| self.memory.agent_routes(&agent, RouteId(last.0.saturating_add(1))).next());
        let next = next.or_else(|| behind.map(|route| (route, i64::MIN, TaskKey(0))));
        // Behind the end are the tasks that were updated before the follow-up began at the first again.
        let is_second_round = after < end;
        let rest = match next {
            Some(next) if !is_second_round || Some(next) < end => Some((Some(next), end)),
            None if !is_second_round && end.is_some() => Some((None, end)),
            _ => None,
        };
        match rest {
            Some((after, end)) => {
                let rest = FollowUp::Agent { namespace: agent.0, name: agent.1, after, end };
                self.write_set.pending.go_on(number, rest);
                Ok(())
            }
            None => self.visit_agent_waiters(number, agent),
        }
    }

    /// Gives the tasks of a page that name an agent its current limits.
    fn match_page(&mut self, agent: &AgentKey, page: &[(i64, TaskKey)]) -> Result<(), Error> {
        let named = |task: &rota_core::task::Task| {
            task.state == State::Queued && task.agent() == Some(&agent.1) && task.namespace == agent.0
        };
        for (_, key) in page {
            if self.load(*key)?.is_some_and(named) {
                self.match_agent(*key, agent);
            }
        }
        Ok(())
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
            rest = more.then_some(FollowUp::Agent {
                namespace: agent.0,
                name: agent.1,
                after: behind,
                end: None,
            });
        }
        self.write_set.pending.finish(number, rest);
        Ok(())
    }

    /// Resumes tasks that wait for a credential, or for a budget, as long as that has room.
    fn visit_lifted(&mut self, number: Option<u64>, waits: WaitsKey, now: Timestamp) -> Result<(), Error> {
        if let WaitKey::Budget(scope) = &waits.1 {
            let id = (waits.0.clone(), scope.clone());
            // Those that continued have used the room up: more of them would only return.
            if self.write_set.full.contains(&id) || self.fundable(&id, now) == 0 {
                self.write_set.pending.finish(number, None);
                return Ok(());
            }
        }
        let resume = match &waits.1 {
            WaitKey::Credential(credential) => Command::QuotaLifted { credential: *credential },
            WaitKey::Budget(scope) => Command::BudgetLifted { scope: scope.clone() },
            WaitKey::Id(_) | WaitKey::Alias(_) | WaitKey::Agent(_) => return Ok(()),
        };
        let (waiters, more) = self.take_waits(&waits)?;
        self.load_all(&waiters)?;
        self.write_set.next.extend(waiters.into_iter().map(|waiter| (waiter, resume.clone())));
        if !more {
            self.no_more_waits(&waits);
        }
        let rest = more.then_some(FollowUp::Lifted { waits });
        self.write_set.pending.finish(number, rest);
        Ok(())
    }

    /// Removes and returns the first tasks that wait for an object, as many as this commit may visit, and whether there are more.
    pub(super) fn take_waits(&mut self, key: &WaitsKey) -> Result<(Vec<TaskKey>, bool), Error> {
        let limit = self.write_set.pending.budget().max(1);
        if !self.write_set.waits.knows(key) {
            let page = WaitsPage { key: key.clone(), limit: limit.min(MAX_FOLLOW_UPS) };
            self.fetch(&Load { waits: vec![page], ..Load::default() })?;
        }
        let (waiters, more) = self.write_set.waits.take(key, limit);
        self.write_set.pending.spend(waiters.len());
        Ok((waiters, more))
    }
}
