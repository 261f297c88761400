//! Dependency graph reachable from one task; finds the cycles through that task.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};

use rota_core::TaskId;

/// Tasks that the text about one cycle names.
const MAX_NAMED: usize = 10;

/// Part of the graph that is reachable from one task.
#[derive(Debug)]
pub(super) struct Waits {
    start: TaskId,
    /// Dependencies of each task, in order of the visit, so that the result does not depend on hashes.
    visited: Vec<(TaskId, Vec<TaskId>)>,
    /// Task through which each was first reached, and the number of steps from the start.
    reached_by: HashMap<TaskId, (TaskId, usize)>,
    open: VecDeque<TaskId>,
    /// Next task on the way back to the start, where there is one, and the number of steps to it.
    back: BTreeMap<TaskId, (TaskId, usize)>,
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
        let steps = self.reached_by.get(&at).map_or(0, |(_, steps)| *steps) + 1;
        for &on in &on {
            if on != self.start && !self.reached_by.contains_key(&on) {
                self.reached_by.insert(on, (at, steps));
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
            let steps =
                if at == self.start { 0 } else { self.back.get(&at).map_or(0, |(_, steps)| *steps) } + 1;
            for &waiter in waiters.get(&at).into_iter().flatten() {
                if let Entry::Vacant(unknown) = self.back.entry(waiter) {
                    unknown.insert((at, steps));
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

    /// Returns the cycle from a member along its dependencies, by way of the start: at most [`MAX_NAMED`] tasks of it,
    /// and how many it has besides. With thousands of members, whole cycles would fill the memory.
    pub(super) fn path(&self, member: TaskId) -> (Vec<TaskId>, usize) {
        let steps_on = if member == self.start {
            0
        } else {
            self.reached_by.get(&member).map_or(0, |(_, steps)| *steps)
        };
        let length = self.back.get(&member).map_or(0, |(_, steps)| *steps) + steps_on;
        let mut path = Vec::with_capacity(length.min(MAX_NAMED));
        let mut at = member;
        // From the member to the start; for the start itself, all the way round.
        while path.len() < MAX_NAMED {
            path.push(at);
            let Some((next, _)) = self.back.get(&at) else { break };
            at = *next;
            if at == self.start {
                break;
            }
        }
        if length <= MAX_NAMED && member != self.start {
            let mut way = vec![self.start];
            let mut at = member;
            while let Some((before, _)) = self.reached_by.get(&at).filter(|(before, _)| *before != self.start)
            {
                way.insert(1, *before);
                at = *before;
            }
            path.extend(way);
        }
        let omitted = length.saturating_sub(path.len());
        (path, omitted)
    }
}
