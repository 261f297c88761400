//! Sessions of workers: each Hello raises the epoch, a drain lasts until the end of a session, and that releases the worker's tasks.

use std::collections::HashSet;

use rota_core::task::{self, Assignment, Command, Loss, WorkerRef};
use rota_core::{AgentName, Epoch, Namespace, TaskKey, Timestamp};

use super::{Answer, Engine};
use crate::{Backend, EndSession, Error, OpenSession, Refused, Reply, Session, SessionKey};

/// Sessions of one worker that a store can have lost. A worker that names a later epoch has it from nowhere.
const MAX_LOST_EPOCHS: u64 = 1 << 20;

impl<B: Backend> Engine<B> {
    pub(super) fn open_session(
        &mut self,
        open: OpenSession,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let key = (open.namespace.clone(), open.worker.clone());
        let row = self.write_set.session_rows.get(&key).cloned();
        let before = row.as_ref().map_or(Epoch(0), |row| row.epoch);
        // One that cannot be decoded counts as closed, and the worker's process as another one.
        let row = row.and_then(|row| row.session.ok());
        // Otherwise a disconnected process would take the name back from its replacement, together with the
        // replacement's attempts.
        // A store that has lost its last commits gives their epochs out again: two processes may name the same one.
        let taken = |row: &Session| {
            row.open && row.instance != open.instance && open.last.is_some_and(|last| last <= row.epoch)
        };
        if row.as_ref().is_some_and(taken) {
            return Ok(Err(Refused::Replaced));
        }
        // Tasks are aimed at workers by their names: one keeps its name while it is away.
        let is_foreign = |row: &&Session| {
            let agent = (row.namespace.clone(), row.agent.clone());
            row.agent != open.agent && (row.open || self.agent(&agent).is_some())
        };
        if let Some(row) = row.as_ref().filter(|row| !open.takes_name && is_foreign(row)) {
            return Ok(Err(Refused::NameTaken(row.agent.clone())));
        }
        let lost = open.last.filter(|last| last.0 <= before.0.saturating_add(MAX_LOST_EPOCHS));
        let epoch = Epoch(before.max(lost.unwrap_or_default()).0 + 1);
        let by = WorkerRef { worker: open.worker.clone(), epoch };

        let mut attempts = Vec::with_capacity(open.running.len());
        for (id, fence) in open.running {
            let live = match self.find(&(open.namespace.clone(), id))? {
                // A worker of another agent has taken the name: the attempts are not its own.
                Some(task) if self.is_of_agent(task, &open.agent)? => {
                    let command = Command::Resume { by: by.clone(), fence };
                    match self.apply(task, command, now)? {
                        Ok(task::Reply::Reported(seq)) => {
                            self.stop_continued(task, now);
                            Some((task, seq))
                        }
                        _ => None,
                    }
                }
                _ => None,
            };
            attempts.push((id, fence, live));
        }
        // An assigned attempt that the worker does not name, or names under an older fence, is not running: the
        // assignment never arrived, or its process ended.
        let resumed: HashSet<_> =
            attempts.iter().filter_map(|(.., live)| live.map(|(task, _)| task)).collect();
        let lost = self.tasks_of(&key);
        let (loss, message) = match &row {
            // An admin has given the name to another agent: that is to the blame of neither task nor worker.
            Some(row) if row.agent != open.agent => {
                (Loss::Planned, "a worker of another agent has taken the name")
            }
            Some(row) if row.instance == open.instance => {
                (Loss::Undelivered, "the assignment was lost on its way to the worker")
            }
            // What ended the control plane may have ended the worker.
            _ if self.absent.contains(&key) => (Loss::Unclear, "the worker's process ended and was replaced"),
            _ => (Loss::Died, "the worker's process ended and was replaced"),
        };
        let lost: Vec<_> = lost.into_iter().filter(|task| !resumed.contains(task)).collect();
        let loss = self.attributed(loss, &lost)?;
        for task in lost {
            let session = WorkerRef { worker: open.worker.clone(), epoch: before };
            let command = Command::LoseWorker { session, loss, seen: None, message: message.to_owned() };
            let _ = self.apply(task, command, now)?;
        }
        self.write_set.sessions.insert(key.clone(), Some((epoch, open.agent.clone())));
        // A drain that was requested while the worker was away still holds for the same process.
        let draining = row.is_some_and(|row| row.draining && row.instance == open.instance);
        let session = Session {
            namespace: open.namespace,
            worker: open.worker,
            agent: open.agent,
            epoch,
            instance: open.instance,
            replica: open.replica,
            open: true,
            since: now,
            draining,
        };
        self.write_set.session_rows.put(key, session.into());
        Ok(Ok(Answer::Session(epoch, attempts)))
    }

    pub(super) fn end_session(
        &mut self,
        end: EndSession,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let key = (end.namespace.clone(), end.session.worker.clone());
        let row = self.write_set.session_rows.get(&key).cloned();
        let Some(row) = row.filter(|row| row.epoch == end.session.epoch) else {
            return Ok(Err(Refused::Superseded));
        };
        let mut freed = 0;
        let mut lost = self.tasks_of(&key);
        let loss = self.attributed(end.loss, &lost)?;
        // The others are on the disk of the worker, which stores them once it is back.
        lost.retain(|task| self.write_set.get(*task).is_none_or(|entry| !entry.task.waits_for_its_worker()));
        for task in lost {
            let (session, message) = (end.session.clone(), end.message.clone());
            let command = Command::LoseWorker { session, loss, seen: end.seen, message };
            freed += usize::from(matches!(self.apply(task, command, now)?, Ok(task::Reply::Done)));
        }
        match row.session {
            Ok(row) if row.open => {
                self.write_set.sessions.insert(key.clone(), None);
                let ended = Session { open: false, since: now, draining: false, ..row };
                self.write_set.session_rows.put(key, ended.into());
            }
            Ok(_) => {}
            Err(_) => {
                self.write_set.sessions.insert(key.clone(), None);
                if self.write_set.session_rows.remove(&key) {
                    self.write_set.changes.removed_sessions.push(key);
                }
            }
        }
        Ok(Ok(Reply::Ended(freed).into()))
    }

    /// Marks a process of a worker as draining, if it has a session.
    pub(super) fn drain_worker(&mut self, key: SessionKey, instance: &str) -> Answer {
        let row = self.write_set.session_rows.get(&key).cloned().and_then(|row| row.session.ok());
        if let Some(row) = row.filter(|row| row.open && !row.draining && row.instance == instance) {
            self.write_set.session_rows.put(key, Session { draining: true, ..row }.into());
        }
        Reply::Deleted.into()
    }

    /// Returns the loss that these tasks of a worker have. Which of several running attempts ended it is not known.
    fn attributed(&mut self, loss: Loss, lost: &[TaskKey]) -> Result<Loss, Error> {
        let mut started = 0;
        for task in lost {
            self.load(*task)?;
            let assignment = self.write_set.get(*task).and_then(|entry| entry.task.assignment.as_ref());
            // One that only stores what it left runs no program.
            let runs =
                |assignment: &Assignment| assignment.started_at.is_some() && assignment.storing.is_none();
            started += usize::from(assignment.is_some_and(runs));
        }
        Ok(if loss == Loss::Died && started > 1 { Loss::Unclear } else { loss })
    }

    /// Whether the last attempt of a task was assigned to a worker of an agent. Records of early versions do not have it.
    fn is_of_agent(&mut self, task: TaskKey, agent: &AgentName) -> Result<bool, Error> {
        self.load(task)?;
        let Some(entry) = self.write_set.get(task) else { return Ok(true) };
        let lost = entry.task.lost.as_ref().map(|lost| &lost.assignment);
        let assignment = entry.task.assignment.as_ref().or(lost);
        Ok(assignment.and_then(|assignment| assignment.agent.as_ref()).is_none_or(|known| known == agent))
    }

    /// Whether a session is open and the worker's newest.
    pub(super) fn has_session(&self, namespace: &Namespace, session: &WorkerRef) -> bool {
        let known = self.session(&(namespace.clone(), session.worker.clone()));
        known.is_some_and(|(epoch, _)| *epoch == session.epoch)
    }

    /// Returns the agent that a worker serves, if the session is its present one.
    pub(super) fn agent_of(&self, namespace: &Namespace, to: &WorkerRef) -> Option<AgentName> {
        let (epoch, agent) = self.session(&(namespace.clone(), to.worker.clone()))?;
        (*epoch == to.epoch).then(|| agent.clone())
    }

    /// Returns the command that assigns a task to a worker, with the limits of its agent.
    pub(super) fn assignment(
        &mut self,
        namespace: &Namespace,
        to: WorkerRef,
        agent: AgentName,
        reserved: i64,
    ) -> Command {
        let known = self.agent(&(namespace.clone(), agent.clone()));
        let defaults = known.map(|known| known.defaults).unwrap_or_default();
        Command::Assign { to, agent, span_id: self.random(), defaults, reserved }
    }

    /// Returns the tasks on a worker in the current state of the batch, oldest first.
    fn tasks_of(&self, worker: &SessionKey) -> Vec<TaskKey> {
        let is_on = |key: &TaskKey| match self.write_set.get(*key) {
            Some(entry) => {
                entry.task.assignment.as_ref().is_some_and(|assignment| assignment.worker == worker.1)
            }
            None => true,
        };
        let assigned = self.write_set.assigned_to.get(worker).into_iter().flatten().copied();
        let mut tasks: Vec<_> = self.memory.on_worker(worker).chain(assigned).filter(is_on).collect();
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }
}
