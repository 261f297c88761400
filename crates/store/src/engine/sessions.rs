//! Workers' session rows: each Hello raises the epoch; an end frees what the worker had.

use std::collections::HashSet;

use rota_core::task::{self, Command, WorkerRef};
use rota_core::{Epoch, Namespace, TaskId, Timestamp, WorkerName};

use super::{Answer, Engine};
use crate::{EndSession, Error, OpenSession, Refused, Reply, Session, Tables};

impl<T: Tables> Engine<T> {
    pub(super) fn open_session(
        &mut self,
        open: OpenSession,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let row = self.tables.session(&open.namespace, &open.worker)?;
        let before = row.as_ref().map_or(Epoch(0), |row| row.epoch);
        // Without this, a process that was cut off would take the name back from the one that came in its place, and
        // that one's attempts with it.
        let taken = |row: &Session| {
            row.open && row.instance != open.instance && open.last.is_some_and(|last| last < row.epoch)
        };
        if row.as_ref().is_some_and(taken) {
            return Ok(Err(Refused::Replaced));
        }
        let epoch = Epoch(before.0 + 1);
        let by = WorkerRef { worker: open.worker.clone(), epoch };

        let mut attempts = Vec::with_capacity(open.running.len());
        for (id, fence) in open.running {
            let live = match self.load(id)? {
                Some(task) if task.namespace == open.namespace => {
                    let command = Command::Resume { by: by.clone(), fence };
                    match self.apply(id, command, now)? {
                        Ok(task::Reply::Reported(seq)) => Some(seq),
                        _ => None,
                    }
                }
                _ => None,
            };
            attempts.push((id, fence, live));
        }
        // What the control plane gave it and it does not name, or under an older fence, is not running: it never
        // arrived, or its process ended.
        let resumed: HashSet<_> =
            attempts.iter().filter(|(_, _, seq)| seq.is_some()).map(|(id, ..)| *id).collect();
        let lost = self.tasks_of(&open.namespace, &open.worker);
        let message = match &row {
            Some(row) if row.instance == open.instance => "the assignment was lost on its way to the worker",
            _ => "the worker's process ended, and another one came in its place",
        };
        for id in lost.into_iter().filter(|id| !resumed.contains(id)) {
            let session = WorkerRef { worker: open.worker.clone(), epoch: before };
            let _ = self.apply(id, Command::LoseWorker { session, message: message.to_owned() }, now)?;
        }
        let key = (open.namespace.clone(), open.worker.clone());
        self.sessions.insert(key, (epoch, open.agent.clone()));
        self.tables.put_session(&Session {
            namespace: open.namespace,
            worker: open.worker,
            agent: open.agent,
            epoch,
            instance: open.instance,
            replica: open.replica,
            open: true,
            since: now,
        })?;
        Ok(Ok(Answer::Session(epoch, attempts)))
    }

    pub(super) fn end_session(
        &mut self,
        end: EndSession,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let row = self.tables.session(&end.namespace, &end.session.worker)?;
        let Some(row) = row.filter(|row| row.epoch == end.session.epoch) else {
            return Ok(Err(Refused::Superseded));
        };
        let mut freed = 0;
        for id in self.tasks_of(&end.namespace, &end.session.worker) {
            let command = Command::LoseWorker { session: end.session.clone(), message: end.message.clone() };
            freed += usize::from(matches!(self.apply(id, command, now)?, Ok(task::Reply::Done)));
        }
        if row.open {
            self.sessions.remove(&(end.namespace.clone(), end.session.worker.clone()));
            self.tables.put_session(&Session { open: false, since: now, ..row })?;
        }
        Ok(Ok(Reply::Ended(freed).into()))
    }

    /// Whether a session has not ended and is the worker's newest.
    pub(super) fn has_session(&self, namespace: &Namespace, session: &WorkerRef) -> bool {
        let known = self.sessions.get(&(namespace.clone(), session.worker.clone()));
        known.is_some_and(|(epoch, _)| *epoch == session.epoch)
    }

    /// An assignment to a worker, with the bounds that its agent sets.
    pub(super) fn assign(&mut self, namespace: &Namespace, to: WorkerRef) -> Command {
        let serves = self.sessions.get(&(namespace.clone(), to.worker.clone()));
        let agent = serves.and_then(|(_, agent)| self.agents.get(&(namespace.clone(), agent.clone())));
        let defaults = agent.map(|agent| agent.defaults).unwrap_or_default();
        Command::Assign { to, span_id: self.random(), defaults }
    }

    /// Tasks on a worker, as the batch has them now, oldest id first.
    fn tasks_of(&self, namespace: &Namespace, worker: &WorkerName) -> Vec<TaskId> {
        let key = (namespace.clone(), worker.clone());
        let has = |task: &task::Task| {
            task.namespace == *namespace && task.assignment.as_ref().is_some_and(|a| a.worker == *worker)
        };
        let before = self.by_worker.get(&key).into_iter().flatten().copied();
        let mut ids: HashSet<TaskId> = before.filter(|id| !self.working.holds(*id)).collect();
        ids.extend(self.working.entries().filter(|entry| has(&entry.task)).map(|entry| entry.task.id));
        let mut ids: Vec<_> = ids.into_iter().collect();
        ids.sort_unstable();
        ids
    }
}
