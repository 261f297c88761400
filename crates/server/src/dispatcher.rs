//! Messages from commits to workers: assignments, cancels and inputs. Sends only what is durable already, never waits
//! for a worker, and repeats nothing: a message that is lost with its session is made up for by the next session.

use std::sync::Arc;
use std::time::Duration;

use rota_core::failure::Failure;
use rota_core::task::{
    AttemptRef, Body, Command, Completion, Desired, Loss, STOPPING, State, Task, WorkerRef,
};
use rota_core::{Fence, Namespace, TaskId};
use rota_proto::worker::v1::{self as wire, session_response::Kind};
use rota_proto::{num, v1};
use rota_store::{Dispatch, TaskChange};
use rota_telemetry::{OnExit, spawn};
use tonic::Code;
use tracing::Instrument;

use crate::agents::AgentRegistry;
use crate::artifacts::Artifacts;
use crate::assign::{Unassignable, assign};
use crate::clock::now;
use crate::keys::WorkerKey;
use crate::result_schemas::ResultSchemas;
use crate::scheduler::{Recipient, Scheduler, SessionHandle};
use crate::seal::Sealer;
use crate::spans;
use crate::store_client::StoreClient;
use crate::wire::{event, time};

/// Grace period for a worker to end an attempt of which it learns by a stale acknowledgment.
pub(crate) const STALE_ATTEMPT_GRACE: Duration = Duration::from_secs(10);

/// Delay before the end of an attempt is committed again after the store was unavailable, and how often that is tried: its
/// timeouts end the attempt all the same.
const END_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_END_RETRIES: u32 = 600;

/// Sends workers what commits mean for them.
pub(crate) struct Dispatcher {
    pub(crate) store: StoreClient,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) agents: Arc<AgentRegistry>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) artifacts: Artifacts,
    pub(crate) result_schemas: Arc<ResultSchemas>,
    /// How long a worker's confirmation may take after its grace period.
    pub(crate) heartbeat_timeout: Duration,
}

impl Dispatcher {
    /// Sends whatever a change means for a worker. An assignment without a recipient returns to the queue.
    pub(crate) fn send_change(self: &Arc<Self>, change: &TaskChange, recipient: Option<Recipient>) {
        if let Some(dispatch) = &change.dispatch {
            match recipient {
                Some(recipient) => self.send_assign(&change.task, dispatch, &recipient),
                None => self.requeue_unsent(&change.task),
            }
        }
        let on_worker = change.task.state.is_on_worker();
        for entry in change.events.iter() {
            match &entry.body {
                Body::Input { seq, payload } if on_worker => {
                    self.send_input(&change.task, *seq, event::input(payload))
                }
                Body::Change { fields, message }
                    if on_worker
                        && change.task.desired == Desired::Cancelled
                        && fields.iter().any(|field| field == "desired_state") =>
                {
                    self.send_cancel(&change.task, message);
                }
                Body::Notice { code, message, .. } if on_worker && *code == STOPPING => {
                    self.send_stop(&change.task, message);
                }
                _ => {}
            }
        }
        if change.before.is_some_and(State::is_on_worker) {
            self.cancel_superseded(&change.task);
        }
    }

    fn send_assign(self: &Arc<Self>, task: &Task, dispatch: &Dispatch, recipient: &Recipient) {
        let known = self.agents.get(&(task.namespace.clone(), recipient.agent.clone()));
        let agent_spec = known.as_ref().map(|known| &*known.spec);
        // Its agent would work again in vain.
        if !task.delivers()
            && let Some(failure) = task.last_failure.as_ref().filter(|failure| failure.of_storage)
            && let bytes = failure.upload_bytes
            && bytes != Some(0)
            && let Err(full) = self.artifacts.check_room(&task.namespace, bytes.unwrap_or_default())
        {
            let no_room = Unassignable::NoRoom { reason: full.message, hint: full.hint, bytes };
            return self.fail_unassignable(task, &no_room);
        }
        match assign(task, dispatch, &recipient.agent, agent_spec, &self.sealer) {
            Ok(message) if !recipient.fetches_results && message.previous.iter().any(|one| one.omitted) => {
                self.requeue(
                    task,
                    "uses protocol version 1, which cannot fetch the large results of the task's dependencies",
                );
            }
            Ok(_) if task.delivers() && !recipient.delivers => {
                self.requeue(task, "would do again the work that is only to be delivered");
            }
            Ok(message) => {
                self.result_schemas.note_sent(task, message.spec.as_ref());
                recipient.session.send(Kind::Assign(Box::new(message)));
            }
            Err(error) => self.fail_unassignable(task, &error),
        }
    }

    /// Returns a task to the queue whose worker has disconnected since it was chosen.
    fn requeue_unsent(self: &Arc<Self>, task: &Task) {
        let Some(session) = self.release_unsent(task) else { return };
        let message = "the worker disconnected before it was sent the task".to_owned();
        let command = Command::LoseWorker { session, loss: Loss::Undelivered, seen: None, message };
        self.end_attempt(task.namespace.clone(), task.id, command);
    }

    /// Fails an attempt that no worker could execute. The worker does not know of it.
    fn fail_unassignable(self: &Arc<Self>, task: &Task, error: &Unassignable) {
        let Some(worker) = self.release_unsent(task) else { return };
        let _logged = spans::logged(task).entered();
        tracing::warn!(%error, "failed to assign a task");
        self.fail_attempt(task.namespace.clone(), worker, task.id, task.fence, error.failure());
    }

    /// Returns a task to the queue, as if its worker had rejected it, which is too old for what the task needs. Costs
    /// no attempt: another worker, or the same one after an upgrade, can run it.
    fn requeue(self: &Arc<Self>, task: &Task, why: &str) {
        let Some(by) = self.release_unsent(task) else { return };
        let _logged = spans::logged(task).entered();
        let reason = format!("worker {} {why}: upgrade the worker", by.worker);
        tracing::warn!(reason, "returning a task to the queue");
        let attempt = AttemptRef { by, fence: task.fence };
        self.end_attempt(task.namespace.clone(), task.id, Command::Reject { attempt, reason });
    }

    /// Releases the slot of an assignment that is not sent. Returns the worker's session.
    fn release_unsent(&self, task: &Task) -> Option<WorkerRef> {
        let assignment = task.assignment.as_ref()?;
        let worker = WorkerRef { worker: assignment.worker.clone(), epoch: assignment.epoch };
        let key = (task.namespace.clone(), assignment.worker.clone());
        self.scheduler.release_attempt(&key, &worker, task.id, task.fence, now());
        Some(worker)
    }

    /// Ends an attempt that cannot continue, on behalf of its worker.
    pub(crate) fn fail_attempt(
        &self,
        namespace: Namespace,
        by: WorkerRef,
        id: TaskId,
        fence: Fence,
        failed: Failure,
    ) {
        let (attempt, completion, jitter) =
            (AttemptRef { by, fence }, Completion::Failed(failed), rand::random());
        let command =
            Command::Finish { attempt, last: 0, completion, usage: None, session: String::new(), jitter };
        self.end_attempt(namespace, id, command);
    }

    fn end_attempt(&self, namespace: Namespace, id: TaskId, command: Command) {
        let store = self.store.clone();
        let end = async move {
            for _ in 0..MAX_END_RETRIES {
                match store.command(namespace.clone(), id, command.clone(), false).await {
                    Err(status) if status.code() == Code::Unavailable => {
                        tracing::warn!(task = %id, %status, "failed to end an attempt, retrying");
                        tokio::time::sleep(END_RETRY_DELAY).await;
                    }
                    Err(status) => return tracing::warn!(task = %id, %status, "failed to end an attempt"),
                    Ok(_) => return,
                }
            }
        };
        spawn("end-attempt", OnExit::Done, end.in_current_span());
    }

    /// Asks a worker to end a task's live attempt.
    pub(crate) fn send_cancel(&self, task: &Task, reason: &str) {
        if let Some(session) = self.scheduler.session_of(task) {
            session.send(Kind::Cancel(cancel(task, task.fence, reason).into()));
        }
    }

    /// Asks a worker to end the work of a task's live attempt, for which there is no money.
    pub(crate) fn send_stop(&self, task: &Task, reason: &str) {
        if let Some(session) = self.scheduler.session_of(task) {
            let stop = wire::Cancel { unless_finished: true, ..cancel(task, task.fence, reason) };
            session.send(Kind::Cancel(stop.into()));
        }
    }

    /// Sends an input, unless its worker is still being sent earlier ones: inputs keep their order.
    fn send_input(&self, task: &Task, seq: u64, input: Option<v1::TaskInput>) {
        let waits = task.assignment.as_ref().is_some_and(|assignment| {
            let key: WorkerKey = (task.namespace.clone(), assignment.worker.clone());
            self.scheduler.update_any(&key, |entry| {
                entry.missed_input |= entry.catching_up;
                entry.catching_up
            }) == Some(true)
        });
        if !waits {
            self.resend_input(task, seq, input);
        }
    }

    pub(crate) fn resend_input(&self, task: &Task, seq: u64, input: Option<v1::TaskInput>) {
        if let Some(session) = self.scheduler.session_of(task) {
            let input = wire::Input {
                task_id: task.id.to_string(),
                fence: num::to_i64(task.fence.0),
                input_seq: num::to_i64(seq),
                input,
            };
            session.send(Kind::Input(input.into()));
        }
    }

    /// Cancels the old attempt of a task that was reassigned or ended without its worker reporting so.
    fn cancel_superseded(self: &Arc<Self>, task: &Task) {
        if let Some((key, fence)) = self.scheduler.superseded_attempt(task) {
            self.cancel_stale_attempt(&key, fence, task);
        }
    }

    /// Cancels an attempt that was superseded, whichever worker has its task now.
    pub(crate) fn cancel_stale_attempt(self: &Arc<Self>, key: &WorkerKey, fence: Fence, task: &Task) {
        let connected =
            self.scheduler.inspect(key, |entry| Some((entry.worker_ref(), entry.session.clone()?)));
        if let Some((worker, session)) = connected.flatten() {
            self.mark_abandoned(key, &worker, task.id, fence, task.cancel_grace());
            session.send(Kind::Cancel(cancel(task, fence, "the attempt was superseded").into()));
        }
    }

    /// Marks a running attempt as abandoned: its slot is free when the worker confirms the end, or after a grace period.
    pub(crate) fn mark_abandoned(
        self: &Arc<Self>,
        key: &WorkerKey,
        worker: &WorkerRef,
        id: TaskId,
        fence: Fence,
        grace: Duration,
    ) {
        if self.scheduler.abandon_attempt(key, worker, id, fence) {
            self.release_slot_after(key, worker, id, fence, grace);
        }
    }

    /// Releases the slot of an abandoned attempt whose end the worker never confirms.
    pub(crate) fn release_slot_after(
        self: &Arc<Self>,
        key: &WorkerKey,
        worker: &WorkerRef,
        id: TaskId,
        fence: Fence,
        grace: Duration,
    ) {
        let session = self.scheduler.inspect_session(key, worker, |entry| entry.session.clone()).flatten();
        let Some(SessionHandle { closed, .. }) = session else { return };
        let (scheduler, key, worker) = (Arc::clone(&self.scheduler), key.clone(), worker.clone());
        let timeout = grace + self.heartbeat_timeout;
        spawn("release-slot", OnExit::Done, async move {
            tokio::select! {
                // Each session starts from the attempts that the worker reports.
                () = closed.cancelled() => {}
                // After the grace period the worker has killed everything; its confirmation may take as long as any
                // sign of life.
                () = tokio::time::sleep(timeout) => {
                    scheduler.release_attempt(&key, &worker, id, fence, now());
                }
            }
        });
    }
}

fn cancel(task: &Task, fence: Fence, reason: &str) -> wire::Cancel {
    wire::Cancel {
        task_id: task.id.to_string(),
        fence: num::to_i64(fence.0),
        grace: Some(time::duration(task.cancel_grace())),
        reason: reason.to_owned(),
        unless_finished: false,
    }
}
