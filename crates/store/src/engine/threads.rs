//! Threads: the index of their last tasks and conversations, and the order in which their tasks run.
//!
//! The last task with a conversation has an edge to itself as long as it is the last one: it is not pruned before the thread.

use rota_core::task::{Dependency, Task};
use rota_core::{TaskId, TaskKey, Timestamp};

use super::Engine;
use super::write_set::Found;
use crate::{Backend, Command, Error, Load, NameKey, Refused, ScopedId, Thread};

/// Returns the thread of a task.
pub(super) fn thread_of(task: &Task) -> Option<NameKey> {
    Some((task.namespace.clone(), task.thread.clone()?))
}

/// Returns the threads that the new tasks of a batch join.
pub(super) fn joined(batch: &[Command]) -> Vec<NameKey> {
    let thread = |command: &Command| match command {
        Command::Create(create) => thread_of(&create.task),
        _ => None,
    };
    batch.iter().filter_map(thread).collect()
}

impl<B: Backend> Engine<B> {
    /// Makes a new task wait for the last one of its thread, unless that has ended.
    pub(super) fn join_thread(&mut self, new: &mut Task) -> Result<Result<(), Refused>, Error> {
        let Some(name) = thread_of(new) else { return Ok(Ok(())) };
        if let Some(reason) = self.load_thread(&name)? {
            return Ok(Err(Refused::Corrupt { what: format!("thread {}", name.1), reason }));
        }
        let tail = self.write_set.threads.get(&name).and_then(|thread| thread.tail);
        let before = match tail {
            // It may have ended in this batch.
            Some((key, id)) => {
                self.load(key)?;
                self.write_set.ids.entry((new.namespace.clone(), id)).or_insert(Found::Task(key));
                self.unended(&new.namespace, id)?
            }
            None => None,
        };
        if let Some((key, id)) = before {
            self.write_set.ids.entry((new.namespace.clone(), id)).or_insert(Found::Task(key));
            new.dependencies.push(Dependency::of_thread(id));
        }
        Ok(Ok(()))
    }

    /// Adds a new task to its thread.
    pub(super) fn add_to_thread(&mut self, key: TaskKey, now: Timestamp) {
        let Some(task) = self.write_set.get(key).map(|entry| entry.task.clone()) else { return };
        let Some(name) = thread_of(&task) else { return };
        let (last, own) = (task.id, (!task.state.is_final()).then_some((key, task.id)));
        let thread = match self.write_set.threads.get(&name).cloned() {
            Some(known) => {
                let tail = own.or(known.tail);
                Thread { tasks: known.tasks + 1, open: known.open + 1, last, tail, used_at: now, ..known }
            }
            None => {
                let usage = Default::default();
                Thread { tasks: 1, open: 1, last, tail: own, conversation: None, usage, used_at: now }
            }
        };
        self.write_set.threads.put(name, thread);
    }

    /// Takes in the ends of tasks of threads.
    pub(super) fn settle_threads(&mut self, now: Timestamp) -> Result<(), Error> {
        let ended = std::mem::take(&mut self.write_set.ended_in_threads);
        self.load_threads(&ended)?;
        for key in ended {
            let Some(task) = self.write_set.get(key).map(|entry| entry.task.clone()) else { continue };
            let Some(name) = thread_of(&task) else { continue };
            // One that cannot be decoded, or was removed, has no conversation to keep.
            if self.load_thread(&name)?.is_some() {
                continue;
            }
            let Some(mut thread) = self.write_set.threads.get(&name).cloned() else { continue };
            thread.open = thread.open.saturating_sub(1);
            thread.usage = thread.usage.plus(&task.usage);
            thread.used_at = now;
            if thread.tail.is_some_and(|(tail, _)| tail == key) {
                thread.tail = match task.waits_in_thread() {
                    Some(before) => self.unended(&name.0, before)?,
                    None => None,
                };
            }
            if task.checkpointed > 0 {
                let before = thread.conversation.replace((key, task.id));
                self.write_set.changes.removed_dependents.extend(before.map(|(before, _)| before));
                self.write_set.changes.edges.push((key, key));
            }
            self.write_set.threads.put(name, thread);
        }
        Ok(())
    }

    /// Returns the task of a thread that has not ended, of those that come before one that has.
    pub(super) fn unended(
        &mut self,
        namespace: &rota_core::Namespace,
        mut id: TaskId,
    ) -> Result<Option<(TaskKey, TaskId)>, Error> {
        loop {
            let Some(key) = self.find(&(namespace.clone(), id))? else { return Ok(None) };
            let Some(task) = self.load(key)? else { return Ok(None) };
            if !task.state.is_final() {
                return Ok(Some((key, id)));
            }
            match task.waits_in_thread() {
                Some(before) => id = before,
                None => return Ok(None),
            }
        }
    }

    /// Loads, in one call, the threads of tasks that have ended, and the tasks that come before them.
    fn load_threads(&mut self, ended: &[TaskKey]) -> Result<(), Error> {
        let tasks = || ended.iter().filter_map(|key| Some(&self.write_set.get(*key)?.task));
        let mut threads: Vec<_> = tasks().filter_map(|task| thread_of(task)).collect();
        threads.retain(|name| !self.write_set.threads.knows(name));
        threads.sort_unstable();
        threads.dedup();
        let before = tasks().filter_map(|task| Some((task.namespace.clone(), task.waits_in_thread()?)));
        let before: Vec<_> = before.collect();
        let mut ids: Vec<_> = before.iter().filter(|id| !self.knows_id(id)).cloned().collect();
        ids.sort_unstable();
        ids.dedup();
        self.fetch(&Load { threads, ids, ..Load::default() })?;
        self.load_predecessors(before)
    }

    /// Loads tasks of threads, and those before each down to one that has not ended: one call for each level of all threads.
    pub(super) fn load_predecessors(&mut self, mut ids: Vec<ScopedId>) -> Result<(), Error> {
        while !ids.is_empty() {
            ids.sort_unstable();
            ids.dedup();
            self.load_ids(&ids)?;
            ids = ids.iter().filter_map(|id| self.predecessor(id)).collect();
        }
        Ok(())
    }

    /// Returns the task before one that has ended; of one on a worker, none is needed.
    fn predecessor(&self, (namespace, id): &ScopedId) -> Option<ScopedId> {
        let key = self.known(&(namespace.clone(), *id))?;
        let task = &self.write_set.get(key)?.task;
        let before = task.waits_in_thread().filter(|_| task.state.is_final())?;
        Some((namespace.clone(), before))
    }

    /// Loads a thread, unless it is known. Returns why it cannot be decoded, if it cannot.
    fn load_thread(&mut self, name: &NameKey) -> Result<Option<String>, Error> {
        if !self.write_set.threads.knows(name) {
            self.fetch(&Load { threads: vec![name.clone()], ..Load::default() })?;
        }
        Ok(self.write_set.undecodable_threads.get(name).cloned())
    }
}
