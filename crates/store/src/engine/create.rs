//! Creation of tasks: idempotency, current state of dependencies, and assignment in the same commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use rota_core::task::{self, DependencyKey, DependencyState, State};
use rota_core::{TaskKey, Timestamp};

use super::funding::Funds;
use super::write_set::{Found, KeyOwner};
use super::{Answer, Engine};
use crate::{Backend, Create, Error, FollowUp, Given, Refused, WaitKey};

/// Number that artifacts of a task's input have in place of an attempt's.
const INPUT: u32 = 0;
/// Number of the attempt that has done the work of another task, as far as the task knows.
const WORK: u32 = 1;

impl<B: Backend> Engine<B> {
    pub(super) fn create(
        &mut self,
        mut create: Create,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let namespace = create.task.namespace.clone();
        let scoped = (namespace.clone(), create.task.id);
        let idempotency = create.key.take().map(|key| (namespace.clone(), key));
        if let Some(owner) = idempotency.as_ref().and_then(|key| self.write_set.idempotency_keys.get(key)) {
            let owner = owner.clone();
            let stored = match owner.task {
                Some(key) => self.load(key)?.is_some().then_some(key),
                None => None,
            };
            return Ok(match (stored, owner.task) {
                (Some(key), _) => Ok(Answer::Existing(key)),
                (None, Some(key)) if self.write_set.undecodable.contains_key(&key) => {
                    Err(self.absent_key(key))
                }
                (None, _) => Err(Refused::KeyOutlived(owner.id)),
            });
        }
        // An id that was chosen at random for this creation is looked up only in memory.
        let existing = if create.foreign_id { self.find(&scoped)? } else { self.known(&scoped) };
        if let Some(existing) = existing {
            self.load(existing)?;
            return Ok(Ok(Answer::Existing(existing)));
        }
        if let Some(Found::Undecodable(..)) = self.write_set.ids.get(&scoped) {
            return Ok(Err(self.absent(&scoped)));
        }
        if let Err(refused) = self.resolve(&mut create)? {
            return Ok(Err(refused));
        }
        if let Some(refused) = self.refuses(&create.task, now) {
            return Ok(Err(refused));
        }
        if let Err(refused) = self.join_thread(&mut create.task)? {
            return Ok(Err(refused));
        }
        let id = create.task.id;
        create.task.has_secrets = create.secrets.is_some();
        let Given { input, work } = std::mem::take(&mut create.given);
        create.task.has_artifacts = input.is_some() || work.is_some();
        if work.is_some() {
            create.task.deliver_for_another();
        }
        let (secrets, alias) = (create.secrets, create.task.alias.clone());
        let (task, out) = task::create(create.task, now);
        let key = self.add(task, out, create.payload);
        self.link(key);
        self.add_to_thread(key, now);
        self.add_to_parent(key, now)?;
        if let Some(secrets) = secrets {
            self.write_set.secrets.insert(key, secrets);
        }
        if let Some(entry) = self.write_set.entries.get_mut(&key) {
            entry.artifacts.extend(input.map(|list| (INPUT, list)));
            if let Some(work) = work {
                entry.artifacts.push((WORK, work.list));
                entry.result = work.result;
            }
        }
        if let Some(idempotency) = idempotency {
            self.write_set.idempotency_keys.put(idempotency, KeyOwner { id, task: Some(key) });
        }
        let names = [Some(WaitKey::Id(id)), alias.clone().map(WaitKey::Alias)];
        if let Some(alias) = alias {
            self.write_set.aliases.put((namespace.clone(), alias), key);
        }
        for wait in names.into_iter().flatten() {
            let waits = (namespace.clone(), wait);
            if self.write_set.waits.any(&waits) && !self.is_being_found(&waits) {
                self.write_set.pending.push(FollowUp::Found { waits, task: key });
            }
        }
        self.follow_up(now)?;

        // A task whose own credential cools down waits, whether a slot is free or not.
        if let Some(to) = create.offer
            && self.write_set.get(key).is_some_and(|entry| entry.task.state == State::Queued)
            && !self.cools_down(key, now)?
            && let Some(agent) = self.agent_of(&namespace, &to)
            && let Funds::Enough(reserved) = self.fund(key, &agent, &BTreeSet::new(), now)?
        {
            let assign = self.assignment(&namespace, to, agent, reserved);
            // After a rejection the task is in the queue.
            let _ = self.apply(key, assign, now)?;
        }
        Ok(Ok(Answer::Created(key)))
    }

    /// Adds a new task to the children of its parent, if that exists.
    fn add_to_parent(&mut self, key: TaskKey, now: Timestamp) -> Result<(), Error> {
        let Some(task) = self.write_set.get(key).map(|entry| Arc::clone(&entry.task)) else { return Ok(()) };
        let Some(parent) = task.parent.filter(|parent| *parent != task.id) else { return Ok(()) };
        let Some(parent) = self.find(&(task.namespace.clone(), parent))? else { return Ok(()) };
        if self.load(parent)?.is_some() {
            // It rejects none.
            let _ = self.apply(parent, task::Command::AddChild { id: task.id }, now)?;
        }
        Ok(())
    }

    /// Resolves the agent and the dependencies; rejects a strict task if one is missing. Writes nothing.
    fn resolve(&mut self, create: &mut Create) -> Result<Result<(), Refused>, Error> {
        let new = &mut create.task;
        let agent = new.target.agent().cloned();
        new.agent_known =
            agent.as_ref().is_none_or(|agent| self.agent(&(new.namespace.clone(), agent.clone())).is_some());
        if !new.agent_known
            && let Some(agent) = &agent
            && self.is_damaged(&(new.namespace.clone(), agent.clone()))
        {
            let (what, reason) = (format!("agent {agent}"), "delete it, or put it again".to_owned());
            return Ok(Err(Refused::Corrupt { what, reason }));
        }
        if create.strict
            && !new.agent_known
            && let Some(agent) = agent
        {
            return Ok(Err(Refused::Strict { what: "agent", name: agent.to_string(), index: 0 }));
        }
        let mut dependencies = std::mem::take(&mut new.dependencies);
        for (index, dependency) in dependencies.iter_mut().enumerate() {
            let found = match &dependency.key {
                DependencyKey::Id(id) => {
                    let scoped = (new.namespace.clone(), *id);
                    let found = self.find(&scoped)?;
                    if let Some(Found::Undecodable(..)) = self.write_set.ids.get(&scoped) {
                        return Ok(Err(self.absent(&scoped)));
                    }
                    found
                }
                DependencyKey::Alias(alias) => {
                    let alias = (new.namespace.clone(), alias.clone());
                    self.write_set.aliases.get(&alias).copied()
                }
            };
            if let Some(key) = found
                && self.write_set.undecodable.contains_key(&key)
            {
                return Ok(Err(self.absent_key(key)));
            }
            let id = match found {
                Some(key) => self.state(key)?,
                None => None,
            };
            if let (Some((id, _)), Some(key)) = (id, found) {
                self.write_set.ids.entry((new.namespace.clone(), id)).or_insert(Found::Task(key));
            }
            dependency.state = match id {
                Some((id, state)) if state.is_final() => DependencyState::Ended(id, state),
                Some((id, _)) => DependencyState::Waiting(id),
                None if create.strict => {
                    let name = dependency.key.to_string();
                    return Ok(Err(Refused::Strict { what: "dependency", name, index }));
                }
                None => DependencyState::Missing,
            };
        }
        create.task.dependencies = dependencies;
        Ok(Ok(()))
    }
}
