//! Creation of tasks: idempotency, current state of dependencies, and assignment in the same commit.

use rota_core::task::{self, DependencyKey, DependencyState, State};
use rota_core::{TaskId, Timestamp};

use super::{Answer, Engine};
use crate::{Create, Error, Refused, WaitKey, WriteTxn};

impl<T: WriteTxn> Engine<T> {
    pub(super) fn create(
        &mut self,
        mut create: Create,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let (id, namespace) = (create.task.id, create.task.namespace.clone());
        if let Some(key) = &create.key
            && let Some(existing) = self.txn.key(&namespace, key)?
        {
            let found = self.load(existing)?.is_some();
            return Ok(if found {
                Ok(Answer::Existing(existing))
            } else {
                Err(Refused::KeyOutlived(existing))
            });
        }
        // The id is checked even if the caller did not choose it: a second row would fail the whole batch.
        if let Some(existing) = self.load(id)? {
            // Of another namespace, a caller learns no more than that the id is taken.
            let same = existing.namespace == namespace;
            return Ok(if same { Ok(Answer::Existing(id)) } else { Err(Refused::KeyOutlived(id)) });
        }
        if let Err(refused) = self.resolve(&mut create)? {
            return Ok(Err(refused));
        }

        if let Some(key) = &create.key {
            self.txn.put_key(&namespace, key, id)?;
        }
        create.task.has_secrets = create.secrets.is_some();
        if let Some(secrets) = &create.secrets {
            self.txn.put_secrets(id, secrets)?;
        }
        let alias = create.task.alias.clone();
        let (task, out) = task::create(create.task, now);
        let waiting = task.state == State::Pending;
        self.add(task, out, create.payload)?;
        if waiting {
            self.link(id)?;
        }
        if let Some(alias) = &alias {
            self.txn.put_alias(&namespace, alias, id)?;
        }
        let awaited = self.resolve_waits(id, alias)?;
        self.follow_up(now)?;
        if awaited {
            self.break_cycle(id)?;
        }

        if let Some(to) = create.offer
            && self.write_set.get(id).is_some_and(|entry| entry.task.state == State::Queued)
            && let Some(assign) = self.assignment(&namespace, to)
        {
            // After a rejection the task is in the queue.
            let _ = self.apply(id, assign, now)?;
        }
        Ok(Ok(Answer::Created(id)))
    }

    /// Resolves the agent and the dependencies; rejects a strict task if one is missing. Writes nothing.
    fn resolve(&mut self, create: &mut Create) -> Result<Result<(), Refused>, Error> {
        let new = &mut create.task;
        let agent = new.target.agent().cloned();
        new.agent_known = agent
            .as_ref()
            .is_none_or(|agent| self.agents.contains_key(&(new.namespace.clone(), agent.clone())));
        if create.strict
            && !new.agent_known
            && let Some(agent) = agent
        {
            return Ok(Err(Refused::Strict { what: "agent", name: agent.to_string(), index: 0 }));
        }
        let mut dependencies = std::mem::take(&mut new.dependencies);
        for (index, dependency) in dependencies.iter_mut().enumerate() {
            let found = match &dependency.key {
                DependencyKey::Id(id) => Some(*id),
                DependencyKey::Alias(alias) => self.txn.newest(&new.namespace, alias)?,
            };
            let record = match found {
                Some(found) => self.load(found)?.filter(|task| task.namespace == new.namespace),
                None => None,
            };
            dependency.state = match record {
                Some(task) if task.state.is_final() => DependencyState::Ended(task.id, task.state),
                Some(task) => DependencyState::Waiting(task.id),
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

    /// Resolves the missing dependencies of tasks that wait for this id or alias. Returns whether there were any.
    fn resolve_waits(&mut self, id: TaskId, alias: Option<String>) -> Result<bool, Error> {
        let mut awaited = false;
        let Some(entry) = self.write_set.get(id) else { return Ok(awaited) };
        let namespace = entry.task.namespace.clone();
        let keys = [
            Some((WaitKey::Id(id), DependencyKey::Id(id))),
            alias.map(|alias| (WaitKey::Alias(alias.clone()), DependencyKey::Alias(alias))),
        ];
        for (wait, key) in keys.into_iter().flatten() {
            for waiter in self.txn.take_waits(&namespace, &wait)? {
                awaited = true;
                self.found(waiter, key.clone(), id)?;
            }
        }
        Ok(awaited)
    }
}
