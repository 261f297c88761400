//! Dependency cycles: a breadth-first search from a task that others have found, along what it waits for. It is a
//! follow-up, since the graph may have any size.
//!
//! A cycle is closed by its last edge, which leads from a waiting task to the found one. From then on none of its members can
//! become ready: the search may take several commits, and begin again after a restart. What it has visited is in memory
//! only. Only the found task fails of the cycle; its end reaches the other members like that of any dependency.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use rota_core::task::{Command, DependencyState, State, Task};
use rota_core::{Namespace, TaskId, TaskKey};

use super::Engine;
use crate::{Backend, Error, FollowUp, Load, ScopedId};

/// Tasks that the text about a cycle names.
const MAX_NAMED: usize = 10;

/// Search for a cycle through one task.
#[derive(Debug)]
pub(super) struct CycleSearch {
    start: TaskId,
    /// Tasks that were reached and are still to be visited.
    open: VecDeque<TaskId>,
    /// Task through which each was first reached.
    reached_by: HashMap<TaskId, TaskId>,
    /// A cycle that was found, from the start, and how many of its steps were checked to exist still.
    found: Option<(Vec<TaskId>, usize)>,
}

impl CycleSearch {
    pub(super) fn new(start: TaskId) -> Self {
        Self { start, open: [start].into(), reached_by: HashMap::new(), found: None }
    }

    /// Adds what a visited task waits for.
    fn visit(&mut self, at: TaskId, waits_for: impl Iterator<Item = TaskId>) {
        for on in waits_for {
            if on == self.start {
                self.found.get_or_insert_with(|| (path(&self.reached_by, self.start, at), 0));
            } else if let Entry::Vacant(place) = self.reached_by.entry(on) {
                place.insert(at);
                self.open.push_back(on);
            }
        }
    }

    /// Returns the next tasks to look at.
    fn next(&mut self, limit: usize) -> Vec<TaskId> {
        match &self.found {
            Some((path, checked)) => path.iter().skip(*checked).take(limit).copied().collect(),
            None => self.open.drain(..self.open.len().min(limit)).collect(),
        }
    }

    /// Returns the tasks that are looked at next.
    fn upcoming(&self) -> Vec<TaskId> {
        match &self.found {
            Some((path, checked)) => path.iter().skip(*checked).copied().collect(),
            None => self.open.iter().copied().collect(),
        }
    }

    /// Checks the next step of the cycle. Begins again if it does not exist any more.
    fn check(&mut self, waits_for: impl IntoIterator<Item = TaskId>) {
        let Some((path, checked)) = &mut self.found else { return };
        let next = path.get(*checked + 1).copied().unwrap_or(self.start);
        if waits_for.into_iter().any(|on| on == next) {
            *checked += 1;
        } else {
            *self = Self::new(self.start);
        }
    }

    /// Returns the cycle, once all of it was checked.
    fn cycle(&self) -> Option<&[TaskId]> {
        self.found.as_ref().filter(|(path, checked)| *checked == path.len()).map(|(path, _)| &**path)
    }
}

/// Returns the way from the start to a task, both included.
fn path(reached_by: &HashMap<TaskId, TaskId>, start: TaskId, to: TaskId) -> Vec<TaskId> {
    let mut path = vec![to];
    let mut at = to;
    while at != start
        && let Some(before) = reached_by.get(&at)
    {
        path.push(*before);
        at = *before;
    }
    path.reverse();
    path
}

/// Returns the tasks that a task waits for.
fn waits_for(task: &Task) -> impl Iterator<Item = TaskId> {
    let dependencies = if task.state == State::Pending { &task.dependencies[..] } else { &[] };
    dependencies.iter().filter_map(|dependency| match dependency.state {
        DependencyState::Waiting(on) => Some(on),
        _ => None,
    })
}

impl<B: Backend> Engine<B> {
    /// Adds a search for a cycle through a task that others have found. Most tasks wait for none and need no search.
    pub(super) fn search_cycle(&mut self, key: TaskKey) {
        let Some(entry) = self.write_set.get(key) else { return };
        if waits_for(&entry.task).next().is_some() {
            // In place of a search that may have passed the new edges already.
            self.write_set.searches.insert(key, CycleSearch::new(entry.task.id));
            self.write_set.pending.push(FollowUp::Cycle { task: key });
        }
    }

    /// Continues searches one after the other, as far as this commit may.
    pub(super) fn visit_cycles(
        &mut self,
        mut searches: VecDeque<(Option<u64>, TaskKey)>,
    ) -> Result<(), Error> {
        if searches.len() > 1 {
            let tasks: Vec<_> = searches.iter().map(|(_, task)| *task).collect();
            self.fetch_cycles(&tasks)?;
        }
        while let Some((number, task)) = searches.pop_front() {
            self.visit_cycle(number, task)?;
            // The command for a cycle changes what the next searches find.
            if self.write_set.pending.budget() == 0 || !self.write_set.next.is_empty() {
                break;
            }
        }
        for (number, task) in searches.into_iter().rev() {
            self.write_set.pending.queue.push_front((number, FollowUp::Cycle { task }));
        }
        Ok(())
    }

    /// Loads what several searches visit first: one call for each level of all of them.
    fn fetch_cycles(&mut self, tasks: &[TaskKey]) -> Result<(), Error> {
        self.load_all(tasks)?;
        let mut level: Vec<ScopedId> = Vec::new();
        for key in tasks {
            let Some((task, _)) = self.record(*key) else { continue };
            let known = self.write_set.searches.get(key).or_else(|| self.memory.searches.get(key));
            let upcoming = known.map_or_else(|| vec![task.id], CycleSearch::upcoming);
            level.extend(upcoming.into_iter().map(|id| (task.namespace.clone(), id)));
        }
        let (mut seen, mut left) = (HashSet::new(), self.write_set.pending.budget());
        loop {
            level.retain(|id| seen.insert(id.clone()));
            level.truncate(left);
            if level.is_empty() {
                return Ok(());
            }
            left -= level.len();
            self.load_ids(&level)?;
            let mut next = Vec::new();
            for id in &level {
                if let Some((task, _)) = self.known(id).and_then(|key| self.record(key)) {
                    next.extend(waits_for(task).map(|on| (id.0.clone(), on)));
                }
            }
            level = next;
        }
    }

    /// Continues a search as far as this commit may. Fails the task if it is in a cycle.
    fn visit_cycle(&mut self, number: Option<u64>, key: TaskKey) -> Result<(), Error> {
        let start = self.load(key)?.filter(|task| task.state == State::Pending);
        let Some((namespace, id)) = start.map(|task| (task.namespace.clone(), task.id)) else {
            self.write_set.searches.remove(&key);
            self.memory.searches.remove(&key);
            self.write_set.pending.finish(number, None);
            return Ok(());
        };
        let known = self.write_set.searches.remove(&key).or_else(|| self.memory.searches.remove(&key));
        let mut search = known.unwrap_or_else(|| CycleSearch::new(id));
        while self.write_set.pending.budget() > 0 {
            let next = search.next(self.write_set.pending.budget());
            if next.is_empty() {
                self.write_set.pending.finish(number, None);
                return Ok(());
            }
            self.write_set.pending.spend(next.len());
            self.visit_members(&namespace, &mut search, next)?;
            if let Some(cycle) = search.cycle() {
                let omitted = cycle.len().saturating_sub(MAX_NAMED);
                let path = cycle.iter().take(MAX_NAMED).copied().collect();
                self.write_set.next.push_back((key, Command::Cycle { path, omitted }));
                self.write_set.pending.finish(number, None);
                return Ok(());
            }
        }
        self.write_set.searches.insert(key, search);
        self.write_set.pending.finish(number, Some(FollowUp::Cycle { task: key }));
        Ok(())
    }

    /// Visits tasks of the graph, or checks steps of a cycle that was found.
    fn visit_members(
        &mut self,
        namespace: &Namespace,
        search: &mut CycleSearch,
        members: Vec<TaskId>,
    ) -> Result<(), Error> {
        let ids: Vec<_> = members.iter().map(|member| (namespace.clone(), *member)).collect();
        self.load_ids(&ids)?;
        let checks = search.found.is_some();
        for member in members {
            let task = match self.known(&(namespace.clone(), member)) {
                Some(key) => self.load(key)?,
                None => None,
            };
            let waits_for = task.into_iter().flat_map(waits_for);
            if checks {
                search.check(waits_for);
                if search.found.is_none() {
                    return Ok(());
                }
            } else {
                search.visit(member, waits_for);
            }
        }
        Ok(())
    }

    /// Loads the records of some tasks in one call.
    pub(super) fn load_ids(&mut self, ids: &[ScopedId]) -> Result<(), Error> {
        let mut load = Load::default();
        for id in ids {
            match self.known(id) {
                Some(key) if !self.knows(key) => load.tasks.push(key),
                None if !self.knows_id(id) => load.ids.push(id.clone()),
                _ => {}
            }
        }
        self.fetch(&load).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> TaskId {
        TaskId(Uuid::from_u128(number))
    }

    #[test]
    fn vanished_step_restarts_the_search() {
        let mut search = CycleSearch::new(id(1));
        assert_eq!(search.next(5), [id(1)]);
        search.visit(id(1), [id(2), id(3)].into_iter());
        assert_eq!(search.next(1), [id(2)]);
        search.visit(id(2), [id(1)].into_iter());
        assert_eq!(search.next(5), [id(1), id(2)]);
        search.check([id(2)]);
        search.check([]);
        assert!(search.cycle().is_none());
        assert_eq!(search.next(5), [id(1)]);
        search.visit(id(1), [id(3)].into_iter());
        assert_eq!(search.next(5), [id(3)]);
        search.visit(id(3), [id(1)].into_iter());
        search.check([id(3)]);
        search.check([id(1)]);
        assert_eq!(search.cycle(), Some(&[id(1), id(3)][..]));
    }
}
