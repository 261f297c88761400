//! From commits to workers: assignments, cancels and inputs go out only after they are durable.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use rota_core::failure::{Class, Failure};
use rota_core::task::{Body, Command, Desired, Ending, Held, State, Task, WorkerRef};
use rota_core::{Fence, Namespace, TaskId};
use rota_proto::v1;
use rota_proto::worker::v1::{self as wire, session_response::Kind};
use rota_store::{Dispatch, TaskChange};
use rota_telemetry::{OnExit, spawn, trace};
use tracing::Instrument;

use super::{Outgoing, Phase, SeatKey};
use crate::shared::{Shared, now};
use crate::spans;
use crate::wire::{event, merge, time};

/// For a worker to end an attempt that it is told is stale.
pub(crate) const STALE_GRACE: Duration = Duration::from_secs(10);

impl Shared {
    /// Sends whatever a change means for a worker.
    pub(crate) fn send_change(self: &Arc<Self>, change: &TaskChange) {
        if let Some(dispatch) = &change.dispatch {
            self.send_assign(&change.task, dispatch);
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
                _ => {}
            }
        }
        if change.before.is_some_and(State::is_on_worker) {
            self.send_abandon(&change.task);
        }
    }

    fn send_assign(self: &Arc<Self>, task: &Task, dispatch: &Dispatch) {
        let Some(assignment) = &task.assignment else { return };
        let key: SeatKey = (task.namespace.clone(), assignment.worker.clone());
        let fence = task.fence;
        let seat = self.fleet.with_any(&key, |seat| {
            if seat.epoch != assignment.epoch {
                return None;
            }
            // The slot was kept for this task, or for a claim.
            if !seat.reserved.remove(&task.id) {
                seat.claiming = seat.claiming.saturating_sub(1);
            }
            seat.about.count(now(), seat.attempts.len());
            seat.attempts.insert((task.id, fence), Phase::Held);
            seat.about.idle_since = None;
            Some((seat.outgoing.clone()?, seat.profile.agent.clone()))
        });
        // No session any more: the assignment goes back when it is not taken in time, or with its session.
        let Some((outgoing, agent)) = seat.flatten() else { return };
        let mut spec = v1::TaskSpec::decode(&dispatch.payload[..]).unwrap_or_default();
        self.breakers.sent(task.id, &spec, dispatch.secrets.is_some());
        if let Some(known) = self.agent(&task.namespace, &agent) {
            merge::complete(&mut spec, &known.spec, task);
        } else {
            merge::complete(&mut spec, &v1::AgentSpec::default(), task);
        }
        let secrets = match &dispatch.secrets {
            None => std::collections::BTreeMap::new(),
            Some(sealed) => match self.sealer.open_sealed(task.id, sealed) {
                Ok(secrets) => secrets,
                Err(error) => {
                    let _logged = spans::logged(task).entered();
                    tracing::error!(%error, "a task cannot be sent to its worker");
                    let worker = WorkerRef { worker: assignment.worker.clone(), epoch: assignment.epoch };
                    let mut failed = Failure::new(Class::Invalid, error.to_string());
                    failed.hint =
                        "hand the task in again with its secrets, and keep the server's key file".to_owned();
                    // The worker has never heard of it.
                    self.fleet.freed(&key, &worker, task.id, fence, now());
                    self.fail_attempt(task.namespace.clone(), worker, task.id, fence, failed);
                    return;
                }
            },
        };
        let context = trace::Context {
            trace_id: task.trace.trace_id,
            span_id: assignment.span_id,
            sampled: task.trace.sampled,
        };
        let started = task.started_at.unwrap_or(assignment.at);
        let resume = task.session.as_ref().filter(|session| session.worker == assignment.worker);
        outgoing.send(Kind::Assign(wire::Assign {
            task_id: task.id.to_string(),
            attempt: i32::try_from(assignment.attempt).unwrap_or(i32::MAX),
            fence: signed(fence.0),
            deadline: Some(time::timestamp(started + task.timeout())),
            traceparent: context.to_string(),
            tracestate: task.trace.state.clone(),
            spec: Some(spec),
            secrets,
            previous: dispatch.previous.iter().map(previous).collect(),
            resume_session: resume.map(|session| session.session.clone()).unwrap_or_default(),
            alias: task.alias.clone().unwrap_or_default(),
            namespace: task.namespace.to_string(),
            agent: agent.to_string(),
        }));
    }

    /// Ends an attempt that cannot go on, in its worker's place.
    pub(crate) fn fail_attempt(
        self: &Arc<Self>,
        namespace: Namespace,
        by: WorkerRef,
        id: TaskId,
        fence: Fence,
        failed: Failure,
    ) {
        let shared = Arc::clone(self);
        let fail = async move {
            let (held, ending, jitter) = (Held { by, fence }, Ending::Failed(failed), rand::random());
            let command = Command::Finish { held, ending, usage: None, session: String::new(), jitter };
            if let Err(status) = shared.apply(rota_store::Command::Task { namespace, id, command }).await {
                // Its timeouts end it all the same.
                tracing::warn!(task = %id, %status, "an attempt could not be ended");
            }
        };
        spawn("fail-attempt", OnExit::Done, fail.in_current_span());
    }

    /// Tells a worker to end a task's live attempt.
    pub(crate) fn send_cancel(&self, task: &Task, reason: &str) {
        if let Some(outgoing) = self.worker_of(task) {
            outgoing.send(cancel(task, task.fence, reason));
        }
    }

    /// While a worker is told what it missed, inputs wait for that, to come in their order.
    fn send_input(&self, task: &Task, seq: u64, input: Option<v1::TaskInput>) {
        let waits = task.assignment.as_ref().is_some_and(|assignment| {
            let key: SeatKey = (task.namespace.clone(), assignment.worker.clone());
            self.fleet.with_any(&key, |seat| {
                seat.missed_input |= seat.catching_up;
                seat.catching_up
            }) == Some(true)
        });
        if !waits {
            self.resend_input(task, seq, input);
        }
    }

    pub(crate) fn resend_input(&self, task: &Task, seq: u64, input: Option<v1::TaskInput>) {
        if let Some(outgoing) = self.worker_of(task) {
            outgoing.send(Kind::Input(wire::Input {
                task_id: task.id.to_string(),
                fence: signed(task.fence.0),
                input_seq: signed(seq),
                input,
            }));
        }
    }

    /// A task has left its worker other than by the worker's own word, perhaps for another one in the same
    /// commit: the attempt must end.
    fn send_abandon(self: &Arc<Self>, task: &Task) {
        let Some(worker) = &task.last_worker else { return };
        let key: SeatKey = (task.namespace.clone(), worker.clone());
        let goes_on = |fence: Fence| fence == task.fence && task.state.is_on_worker();
        let old = self.fleet.look(&key).and_then(|seat| {
            let ours = seat.attempts.range((task.id, Fence(0))..=(task.id, Fence(u64::MAX)));
            let mut old = ours.filter(|((_, fence), phase)| **phase == Phase::Held && !goes_on(*fence));
            old.next().map(|((_, fence), _)| *fence)
        });
        if let Some(fence) = old {
            self.send_end(&key, fence, task);
        }
    }

    /// Tells a worker to end an attempt that no longer counts, whoever has its task now.
    pub(crate) fn send_end(self: &Arc<Self>, key: &SeatKey, fence: Fence, task: &Task) {
        let seat = self.fleet.look(key).and_then(|seat| Some((seat.worker(), seat.outgoing.clone()?)));
        if let Some((worker, outgoing)) = seat {
            self.leaving(key, &worker, task.id, fence, task.cancel_grace());
            outgoing.send(cancel(task, fence, "the attempt no longer counts"));
        }
    }

    /// An attempt no longer counts, and its worker is told to end it: only when the worker says that it has is its
    /// slot free.
    pub(crate) fn leaving(
        self: &Arc<Self>,
        key: &SeatKey,
        worker: &WorkerRef,
        id: TaskId,
        fence: Fence,
        grace: Duration,
    ) {
        if self.fleet.with(key, worker, |seat| seat.advance(id, fence, Phase::Leaving)) == Some(true) {
            self.free_at_last(key, worker, id, fence, grace);
        }
    }

    /// A worker that never says that it has ended an attempt must not keep the slot for ever.
    pub(crate) fn free_at_last(
        self: &Arc<Self>,
        key: &SeatKey,
        worker: &WorkerRef,
        id: TaskId,
        fence: Fence,
        grace: Duration,
    ) {
        let session = self.fleet.with(key, worker, |seat| seat.outgoing.clone()).flatten();
        let Some(session) = session.map(|outgoing| outgoing.hang_up) else { return };
        let (shared, key, worker) = (Arc::clone(self), key.clone(), worker.clone());
        spawn("free-at-last", OnExit::Done, async move {
            tokio::select! {
                // What a worker has is reckoned anew in each session.
                () = session.cancelled() => {}
                // After its grace everything has been killed; then its word has as long as any sign of life.
                () = tokio::time::sleep(grace + shared.timing.heartbeat_timeout) => {
                    shared.fleet.freed(&key, &worker, id, fence, now());
                }
            }
        });
    }

    fn worker_of(&self, task: &Task) -> Option<Outgoing> {
        let assignment = task.assignment.as_ref()?;
        let key: SeatKey = (task.namespace.clone(), assignment.worker.clone());
        let seat = self.fleet.look(&key)?;
        if seat.epoch == assignment.epoch { seat.outgoing.clone() } else { None }
    }
}

fn cancel(task: &Task, fence: Fence, reason: &str) -> Kind {
    Kind::Cancel(wire::Cancel {
        task_id: task.id.to_string(),
        fence: signed(fence.0),
        grace: Some(time::duration(task.cancel_grace())),
        reason: reason.to_owned(),
    })
}

fn previous(previous: &rota_store::Previous) -> wire::PreviousResult {
    let result = previous.result.as_ref().and_then(|bytes| v1::TaskResult::decode(&bytes[..]).ok());
    wire::PreviousResult {
        task_id: previous.task.id.to_string(),
        alias: previous.task.alias.clone().unwrap_or_default(),
        title: previous.task.title.clone(),
        state: event::state(previous.task.state).into(),
        result,
    }
}

pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
