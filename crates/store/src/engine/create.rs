//! Creation of tasks: idempotency, current state of dependencies, and assignment in the same commit.

use rota_core::task::{self, DependencyKey, DependencyState, State};
use rota_core::{TaskId, Timestamp};

use super::{Answer, Engine};
use crate::{Backend, Create, Error, Refused, WaitKey};

impl<B: Backend> Engine<B> {
    pub(super) fn create(
        &mut self,
        mut create: Create,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let (id, namespace) = (create.task.id, create.task.namespace.clone());
        let key = create.key.clone().map(|key| (namespace.clone(), key));
        if let Some(existing) = key.as_ref().and_then(|key| self.write_set.cache.keys.get(key)).copied() {
            let found = self.load(existing)?.is_some();
            return Ok(if found {
                Ok(Answer::Existing(existing))
            } else if self.write_set.undecodable.contains_key(&existing) {
                Err(self.absent(existing))
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

        if self.write_set.undecodable.contains_key(&id) {
            return Ok(Err(self.absent(id)));
        }
        if let Some(key) = key {
            self.write_set.cache.keys.put(key, id);
        }
        create.task.has_secrets = create.secrets.is_some();
        if let Some(secrets) = create.secrets {
            self.write_set.secrets.insert(id, secrets);
        }
        let alias = create.task.alias.clone();
        let (task, out) = task::create(create.task, now);
        let waiting = task.state == State::Pending;
        self.add(task, out, create.payload)?;
        if waiting {
            self.link(id);
        }
        if let Some(alias) = &alias {
            self.write_set.cache.aliases.put((namespace.clone(), alias.clone()), id);
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
        new.agent_known =
            agent.as_ref().is_none_or(|agent| self.agent(&(new.namespace.clone(), agent.clone())).is_some());
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
                DependencyKey::Alias(alias) => {
                    self.write_set.cache.aliases.get(&(new.namespace.clone(), alias.clone())).copied()
                }
            };
            let record = match found {
                Some(found) => {
                    self.load(found)?;
                    if self.write_set.undecodable.contains_key(&found) {
                        return Ok(Err(self.absent(found)));
                    }
                    self.load(found)?.filter(|task| task.namespace == new.namespace)
                }
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
            for waiter in self.take_waits((namespace.clone(), wait))? {
                awaited = true;
                self.found(waiter, key.clone(), id)?;
            }
        }
        Ok(awaited)
    }
}
