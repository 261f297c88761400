//! Making tasks: checked, matched with a free slot where there is one, committed, answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rota_core::agent::Agent;
use rota_core::target::Target;
use rota_core::task::{Task, Trace};
use rota_core::{Namespace, TaskId};
use rota_proto::v1;
use rota_store::{Command, Create, PutAgent, Refused, Reply};
use rota_telemetry::{OnExit, spawn, trace, traces};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};
use uuid::Uuid;

use super::traced;
use crate::dispatch::Offer;
use crate::shared::Shared;
use crate::wire::spec::{self, Checked};
use crate::wire::{check, status, task};

const MAX_KEY: usize = 256;

/// A creation that is ready for the store.
pub(super) struct Prepared {
    command: Create,
    rest: Rest,
}

/// What its answer is made from.
struct Rest {
    offer: Option<Held>,
    payload: v1::TaskSpec,
    alias: String,
}

/// A slot that is kept while its creation is under way, and given back however that ends, unless the
/// commit took it over.
struct Held {
    shared: Arc<Shared>,
    offer: Offer,
    id: TaskId,
    used: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.used {
            self.shared.fleet.release(&self.offer, self.id);
        }
    }
}

/// The trace of the call, or the caller's, or a new one.
pub(super) fn trace<T>(request: &Request<T>) -> Trace {
    let metadata = request.metadata();
    // Where there is a call's span, it was decided with that whether the trace is recorded.
    let call = request.extensions().get::<trace::Context>().copied();
    let span_id = traces::span_id();
    match call.or_else(|| traced::caller(metadata.as_ref())) {
        Some(parent) => Trace {
            trace_id: parent.trace_id,
            span_id,
            parent_id: parent.span_id,
            sampled: parent.sampled,
            state: state(metadata),
        },
        None => {
            // All of it by chance: samplers look at its last bytes, of which a UUID fixes some.
            let trace_id = traces::trace_id();
            Trace { trace_id, span_id, sampled: traces::sampled(trace_id, None), ..Trace::default() }
        }
    }
}

fn state(metadata: &MetadataMap) -> String {
    let state = metadata.get("tracestate").and_then(|value| value.to_str().ok());
    state.unwrap_or_default().chars().take(512).collect()
}

/// Checks one request. Keeps a free slot for it, where one fits.
pub(super) fn prepare(
    shared: &Arc<Shared>,
    namespace: Namespace,
    trace: Trace,
    request: v1::CreateTaskRequest,
    retry_of: Option<TaskId>,
) -> Result<Prepared, Status> {
    check::length("idempotency_key", &request.idempotency_key, MAX_KEY)?;
    let mut given = request.task.ok_or_else(|| status::invalid("task", "is required"))?;
    if let Some(spec) = given.spec.as_mut().filter(|_| !shared.isolates) {
        spec.isolation = v1::Isolation::Unspecified.into();
    }
    let alias = given.alias.clone();
    let foreign_id = !request.task_id.is_empty();
    let id = match request.task_id.as_str() {
        "" => TaskId(Uuid::now_v7()),
        text => text.parse().map_err(|_| status::invalid("task_id", "is not a UUID"))?,
    };
    let Checked { mut new, payload, secrets, strict } = spec::check(namespace, id, trace, given)?;
    new.retry_of = retry_of;
    let secrets = seal(shared, id, &secrets)?;
    let route = rota_core::target::Route { namespace: new.namespace.clone(), target: new.target.clone() };
    let offer = if request.validate_only || !new.dependencies.is_empty() || new.not_before.is_some() {
        None
    } else {
        shared.fleet.reserve(&route, id)
    };
    let command = Create {
        new,
        payload: payload.encode_to_vec().into(),
        secrets,
        key: Some(request.idempotency_key).filter(|key| !key.is_empty()),
        foreign_id,
        strict,
        offer: offer.as_ref().map(|offer| offer.worker.clone()),
    };
    let offer = offer.map(|offer| Held { shared: Arc::clone(shared), offer, id, used: false });
    Ok(Prepared { command, rest: Rest { offer, payload, alias } })
}

fn seal(shared: &Shared, id: TaskId, secrets: &BTreeMap<String, String>) -> Result<Option<Bytes>, Status> {
    if secrets.is_empty() {
        return Ok(None);
    }
    let sealed = shared.sealer.seal(id, secrets);
    sealed.map(Some).map_err(|error| Status::internal(error.to_string()))
}

/// Commits prepared creations together; each is answered by itself.
pub(super) async fn commit(
    shared: &Arc<Shared>,
    prepared: Vec<Prepared>,
) -> Result<Vec<Result<v1::Task, Status>>, Status> {
    if prepared.iter().all(|one| one.rest.offer.is_none()) {
        return commit_now(shared, prepared).await;
    }
    // A caller that goes away must not give a slot back that the commit then fills.
    let shared = Arc::clone(shared);
    let made = spawn("create", OnExit::Done, async move { commit_now(&shared, prepared).await });
    made.await.map_err(|_| Status::internal("the creation was interrupted"))?
}

async fn commit_now(
    shared: &Arc<Shared>,
    prepared: Vec<Prepared>,
) -> Result<Vec<Result<v1::Task, Status>>, Status> {
    let (commands, rest) = split(prepared);
    let replies = shared.write(commands).await.map_err(status::store)?;
    answers(shared, replies, rest, &[]).await
}

/// Answers as [`commit`] would, once these agents exist, and changes nothing.
pub(super) async fn rehearse(
    shared: &Arc<Shared>,
    prepared: Vec<Prepared>,
    agents: Vec<Agent>,
) -> Result<Vec<Result<v1::Task, Status>>, Status> {
    let made: Vec<_> = prepared.iter().map(|one| (one.command.new.id, one.command.payload.clone())).collect();
    let (creations, rest) = split(prepared);
    // One that exists is refused, which leaves it as it is.
    let put = |agent| Command::PutAgent(PutAgent { agent, must_exist: Some(false) });
    let mut commands: Vec<_> = agents.into_iter().map(put).collect();
    let before = commands.len();
    commands.extend(creations);
    let mut replies = shared.store.rehearse(commands).await.map_err(status::store)?;
    replies.drain(..before.min(replies.len()));
    answers(shared, replies, rest, &made).await
}

fn split(prepared: Vec<Prepared>) -> (Vec<Command>, Vec<Rest>) {
    prepared.into_iter().map(|one| (Command::Create(Box::new(one.command)), one.rest)).unzip()
}

/// `made` has what was handed in with tasks that the store does not know.
async fn answers(
    shared: &Shared,
    replies: Vec<Result<Reply, Refused>>,
    rest: Vec<Rest>,
    made: &[(TaskId, Bytes)],
) -> Result<Vec<Result<v1::Task, Status>>, Status> {
    let mut answers = Vec::with_capacity(replies.len());
    for (reply, rest) in replies.into_iter().zip(rest) {
        answers.push(answer(shared, reply, rest, made).await);
    }
    Ok(answers)
}

async fn answer(
    shared: &Shared,
    reply: Result<Reply, Refused>,
    rest: Rest,
    made: &[(TaskId, Bytes)],
) -> Result<v1::Task, Status> {
    let Rest { offer, mut payload, alias } = rest;
    match reply.map_err(status::refused)? {
        Reply::Created(made) => {
            if let Some(mut offer) = offer {
                // The commit's way to the worker takes the slot over.
                offer.used = made.state.is_on_worker() || made.fence.0 > 0;
            }
            let mut told = task::to_wire(&made, None, None);
            payload.target = Some(target(&made.target));
            told.spec = Some(payload);
            Ok(told)
        }
        Reply::Existing(known) => {
            drop(offer);
            let kept = shared.store.payload(known.id).await.map_err(status::store)?;
            let made = || made.iter().find(|(id, _)| *id == known.id).map(|(_, payload)| payload.clone());
            existing(shared, &known, &kept.or_else(made).unwrap_or_default(), &payload, &alias).await
        }
        _ => Err(Status::internal("the store gave another answer than was asked for")),
    }
}

fn target(target: &Target) -> v1::Target {
    spec::target(target)
}

/// The task that exists, if it is what the caller meant.
async fn existing(
    shared: &Shared,
    known: &Task,
    kept: &Bytes,
    given: &v1::TaskSpec,
    alias: &str,
) -> Result<v1::Task, Status> {
    let mut fields = spec::differences(kept, given);
    if known.alias.as_deref().unwrap_or_default() != alias {
        fields.push("alias".to_owned());
    }
    if !fields.is_empty() {
        return Err(status::reused(known.id, &fields));
    }
    let result =
        if known.has_result { shared.store.result(known.id).await.map_err(status::store)? } else { None };
    Ok(task::to_wire(known, Some(kept), result.as_ref()))
}
