//! From commits to workers: assignments, cancels and inputs go out only after they are durable.

use std::sync::Arc;

use prost::Message;
use rota_core::failure::{Class, Failure};
use rota_core::task::{Body, Command, Desired, Ending, Held, State, Task, WorkerRef};
use rota_core::{Fence, TaskId};
use rota_proto::v1;
use rota_proto::worker::v1::{self as wire, session_response::Kind};
use rota_store::{Dispatch, TaskChange};
use rota_telemetry::{OnExit, spawn, trace};

use super::{Outgoing, SeatKey};
use crate::shared::Shared;
use crate::wire::{event, merge, time};

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
            seat.held.insert(task.id, fence);
            seat.idle_since = None;
            Some((seat.outgoing.clone()?, seat.profile.agent.clone()))
        });
        // No session any more: the assignment goes back when it is not taken in time, or with its session.
        let Some((outgoing, agent)) = seat.flatten() else { return };
        let mut spec = v1::TaskSpec::decode(&dispatch.payload[..]).unwrap_or_default();
        if let Some(known) = self.agent(&task.namespace, &agent) {
            merge::complete(&mut spec, &known.spec);
        } else {
            merge::complete(&mut spec, &v1::AgentSpec::default());
        }
        let secrets = match &dispatch.secrets {
            None => std::collections::BTreeMap::new(),
            Some(sealed) => match self.sealer.open_sealed(task.id, sealed) {
                Ok(secrets) => secrets,
                Err(error) => {
                    tracing::error!(task = %task.id, %error, "a task cannot be sent to its worker");
                    let worker = WorkerRef { worker: assignment.worker.clone(), epoch: assignment.epoch };
                    let mut failed = Failure::new(Class::Start, error.to_string());
                    failed.hint =
                        "hand the task in again with its secrets, and keep the server's key file".to_owned();
                    self.fail_attempt(&key, worker, task.id, fence, failed);
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
            deadline: Some(time::timestamp(started + task.limits.timeout)),
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

    /// Ends an attempt that cannot go on, in its worker's place, and frees its slot.
    pub(crate) fn fail_attempt(
        self: &Arc<Self>,
        key: &SeatKey,
        worker: WorkerRef,
        id: TaskId,
        fence: Fence,
        failed: Failure,
    ) {
        let (shared, key) = (Arc::clone(self), key.clone());
        spawn("fail-attempt", OnExit::Done, async move {
            let held = Held { by: worker.clone(), fence };
            let ending = Ending::Failed(failed);
            let jitter = rand::random();
            let command = Command::Finish { held, ending, usage: None, session: String::new(), jitter };
            let command = rota_store::Command::Task { namespace: key.0.clone(), id, command };
            if let Err(status) = shared.apply(command).await {
                // Its timeouts end it all the same.
                tracing::warn!(task = %id, %status, "an attempt could not be ended");
            }
            shared.fleet.freed(&key, &worker, id, fence, crate::shared::now());
        });
    }

    fn send_cancel(&self, task: &Task, reason: &str) {
        if let Some(outgoing) = self.worker_of(task) {
            outgoing.send(Kind::Cancel(wire::Cancel {
                task_id: task.id.to_string(),
                fence: signed(task.fence.0),
                grace: Some(time::duration(task.limits.cancel_grace)),
                reason: reason.to_owned(),
            }));
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
    fn send_abandon(&self, task: &Task) {
        let Some(worker) = &task.last_worker else { return };
        let key: SeatKey = (task.namespace.clone(), worker.clone());
        // What is in `ending` was ended by the worker itself.
        let fence = self.fleet.look(&key).and_then(|seat| seat.held.get(&task.id).copied());
        if let Some(fence) = fence.filter(|fence| *fence != task.fence || !task.state.is_on_worker()) {
            self.send_end(&key, task.id, fence, task, "the attempt no longer counts");
        }
    }

    /// Tells a worker to end an attempt, whoever has its task now.
    pub(crate) fn send_end(&self, key: &SeatKey, id: TaskId, fence: Fence, task: &Task, reason: &str) {
        let outgoing = self.fleet.look(key).and_then(|seat| seat.outgoing.clone());
        if let Some(outgoing) = outgoing {
            cancel(&outgoing, id, fence, task, reason);
        }
    }

    fn worker_of(&self, task: &Task) -> Option<Outgoing> {
        let assignment = task.assignment.as_ref()?;
        let key: SeatKey = (task.namespace.clone(), assignment.worker.clone());
        let seat = self.fleet.look(&key)?;
        if seat.epoch == assignment.epoch { seat.outgoing.clone() } else { None }
    }
}

fn cancel(outgoing: &Outgoing, id: TaskId, fence: Fence, task: &Task, reason: &str) {
    outgoing.send(Kind::Cancel(wire::Cancel {
        task_id: id.to_string(),
        fence: signed(fence.0),
        grace: Some(time::duration(task.limits.cancel_grace)),
        reason: reason.to_owned(),
    }));
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
