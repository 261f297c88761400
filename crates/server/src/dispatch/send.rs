//! From commits to workers: assignments, cancels and inputs go out only after they are durable.

use prost::Message;
use rota_core::task::{Body, Desired, State, Task};
use rota_core::{Fence, TaskId};
use rota_proto::v1;
use rota_proto::worker::v1::{self as wire, session_response::Kind};
use rota_store::{Dispatch, TaskChange};
use rota_telemetry::trace;

use super::{Outgoing, SeatKey};
use crate::shared::Shared;
use crate::wire::{event, merge, time};

impl Shared {
    /// Sends whatever a change means for a worker.
    pub(crate) fn send_change(&self, change: &TaskChange) {
        if let Some(dispatch) = &change.dispatch {
            self.send_assign(&change.task, dispatch);
        }
        let on_worker = change.task.state.is_on_worker();
        for entry in change.events.iter() {
            match &entry.body {
                Body::Input { seq, payload } if on_worker => self.send_input(&change.task, *seq, event::input(payload)),
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
        if change.before.is_some_and(State::is_on_worker) && !on_worker {
            self.send_abandon(&change.task);
        }
    }

    fn send_assign(&self, task: &Task, dispatch: &Dispatch) {
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

    pub(crate) fn send_cancel(&self, task: &Task, reason: &str) {
        if let Some(outgoing) = self.worker_of(task) {
            outgoing.send(Kind::Cancel(wire::Cancel {
                task_id: task.id.to_string(),
                fence: signed(task.fence.0),
                grace: Some(time::duration(task.limits.cancel_grace)),
                reason: reason.to_owned(),
            }));
        }
    }

    pub(crate) fn send_input(&self, task: &Task, seq: u64, input: Option<v1::TaskInput>) {
        if let Some(outgoing) = self.worker_of(task) {
            outgoing.send(Kind::Input(wire::Input {
                task_id: task.id.to_string(),
                fence: signed(task.fence.0),
                input_seq: signed(seq),
                input,
            }));
        }
    }

    /// A task has left its worker other than by the worker's own word: the attempt must end.
    fn send_abandon(&self, task: &Task) {
        let Some(worker) = &task.last_worker else { return };
        let key: SeatKey = (task.namespace.clone(), worker.clone());
        let Some((outgoing, fence)) = self.fleet.look(&key).and_then(|seat| {
            // What is in `ending` was ended by the worker itself.
            Some((seat.outgoing.clone()?, *seat.held.get(&task.id)?))
        }) else {
            return;
        };
        cancel(&outgoing, task.id, fence, task, "the attempt no longer counts");
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
