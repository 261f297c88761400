//! Making tasks: idempotency, dependencies as they are now, and the assignment in the same commit.

use rota_core::task::{self, DependencyKey, DependencyState, State};
use rota_core::{TaskId, Timestamp};

use super::{Answer, Engine};
use crate::{Create, Error, Refused, Tables, WaitKey};

impl<T: Tables> Engine<T> {
    pub(super) fn create(
        &mut self,
        mut create: Create,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let (id, namespace) = (create.new.id, create.new.namespace.clone());
        if let Some(key) = &create.key
            && let Some(existing) = self.tables.key(&namespace, key)?
        {
            let found = self.load(existing)?.is_some();
            return Ok(if found {
                Ok(Answer::Existing(existing))
            } else {
                Err(Refused::KeyOutlived(existing))
            });
        }
        // An id is looked for even if it did not come from outside: a second row of it would fail the whole batch.
        if let Some(existing) = self.load(id)? {
            // Nobody learns anything of another namespace, apart from that the id is taken.
            let same = existing.namespace == namespace;
            return Ok(if same { Ok(Answer::Existing(id)) } else { Err(Refused::KeyOutlived(id)) });
        }
        if let Err(refused) = self.look_around(&mut create)? {
            return Ok(Err(refused));
        }

        if let Some(key) = &create.key {
            self.tables.put_key(&namespace, key, id)?;
        }
        create.new.has_secrets = create.secrets.is_some();
        if let Some(secrets) = &create.secrets {
            self.tables.put_secrets(id, secrets)?;
        }
        let alias = create.new.alias.clone();
        let (task, out) = task::create(create.new, now);
        let waiting = task.state == State::Pending;
        self.add(task, out, create.payload)?;
        if waiting {
            self.link(id)?;
        }
        if let Some(alias) = &alias {
            self.tables.put_alias(&namespace, alias, id)?;
        }
        let awaited = self.announce(id, alias)?;
        self.follow_up(now)?;
        if awaited {
            self.break_cycle(id)?;
        }

        if let Some(to) = create.offer
            && self.has_session(&namespace, &to)
            && self.working.get(id).is_some_and(|entry| entry.task.state == State::Queued)
        {
            let assign = self.assign(&namespace, to);
            // A refusal leaves the task in the queue, where it is found.
            let _ = self.apply(id, assign, now)?;
        }
        Ok(Ok(Answer::Created(id)))
    }

    /// Fills in what exists now; refuses what a strict task misses. Writes nothing.
    fn look_around(&mut self, create: &mut Create) -> Result<Result<(), Refused>, Error> {
        let new = &mut create.new;
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
                DependencyKey::Alias(alias) => self.tables.newest(&new.namespace, alias)?,
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
        create.new.dependencies = dependencies;
        Ok(Ok(()))
    }

    /// Tells those who waited for a task of this id or alias; whether there were any.
    fn announce(&mut self, id: TaskId, alias: Option<String>) -> Result<bool, Error> {
        let mut awaited = false;
        let Some(entry) = self.working.get(id) else { return Ok(awaited) };
        let namespace = entry.task.namespace.clone();
        let keys = [
            Some((WaitKey::Id(id), DependencyKey::Id(id))),
            alias.map(|alias| (WaitKey::Alias(alias.clone()), DependencyKey::Alias(alias))),
        ];
        for (wait, key) in keys.into_iter().flatten() {
            for waiter in self.tables.take_waits(&namespace, &wait)? {
                awaited = true;
                self.found(waiter, key.clone(), id)?;
            }
        }
        Ok(awaited)
    }
}
