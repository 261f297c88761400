//! Dependency graph reachable from one task; finds the cycles through that task.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};

use rota_core::TaskId;

/// Part of the graph that is reachable from one task.
#[derive(Debug)]
pub(super) struct Waits {
    start: TaskId,
    /// Dependencies of each task, in order of the visit, so that the result does not depend on hashes.
    visited: Vec<(TaskId, Vec<TaskId>)>,
    /// Task through which each was first reached.
    reached_by: HashMap<TaskId, TaskId>,
    open: VecDeque<TaskId>,
    /// Next task on the way back to the start, where there is one.
    back: BTreeMap<TaskId, TaskId>,
}

impl Waits {
    pub(super) fn new(start: TaskId) -> Self {
        Self {
            start,
            visited: Vec::new(),
            reached_by: HashMap::new(),
            open: VecDeque::from([start]),
            back: BTreeMap::new(),
        }
    }

    /// Returns the next task to visit. After the last one, the ways back are known.
    pub(super) fn next(&mut self) -> Option<TaskId> {
        let next = self.open.pop_front();
        if next.is_none() {
            self.find_back();
        }
        next
    }

    /// Returns the tasks to visit after the next one.
    pub(super) fn open(&self) -> impl Iterator<Item = TaskId> {
        self.open.iter().copied()
    }

    /// Adds the dependencies of a visited task.
    pub(super) fn add(&mut self, at: TaskId, on: Vec<TaskId>) {
        for &on in &on {
            if on != self.start && !self.reached_by.contains_key(&on) {
                self.reached_by.insert(on, at);
                self.open.push_back(on);
            }
        }
        self.visited.push((at, on));
    }

    fn find_back(&mut self) {
        let mut waiters: HashMap<TaskId, Vec<TaskId>> = HashMap::new();
        for (at, on) in &self.visited {
            for on in on {
                waiters.entry(*on).or_default().push(*at);
            }
        }
        let mut open = VecDeque::from([self.start]);
        while let Some(at) = open.pop_front() {
            for &waiter in waiters.get(&at).into_iter().flatten() {
                if let Entry::Vacant(unknown) = self.back.entry(waiter) {
                    unknown.insert(at);
                    if waiter != self.start {
                        open.push_back(waiter);
                    }
                }
            }
        }
    }

    /// Returns the tasks in a cycle with the start, the start first.
    pub(super) fn members(&self) -> impl Iterator<Item = TaskId> {
        self.visited.iter().map(|(at, _)| *at).filter(|at| self.back.contains_key(at))
    }

    /// Returns the path from a member along its dependencies, by way of the start, back to itself.
    pub(super) fn path(&self, member: TaskId) -> Vec<TaskId> {
        let mut path = vec![member];
        let mut at = member;
        while let Some(&next) = self.back.get(&at) {
            path.push(next);
            at = next;
            if at == self.start {
                break;
            }
        }
        let mut way = Vec::new();
        let mut at = member;
        while at != self.start {
            way.push(at);
            let Some(&before) = self.reached_by.get(&at) else { break };
            at = before;
        }
        path.extend(way.into_iter().rev());
        path
    }
}
