//! Making tasks: checked, matched with a free slot where there is one, committed, answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use rota_core::target::Target;
use rota_core::task::{Task, Trace};
use rota_core::{Namespace, TaskId};
use rota_proto::v1;
use rota_store::{Command, Create, Refused, Reply};
use rota_telemetry::{OnExit, spawn, trace};
use tonic::Status;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use crate::dispatch::Offer;
use crate::shared::{KnownAgent, Shared};
use crate::wire::spec::{self, Checked};
use crate::wire::{check, status, task};

const MAX_KEY: usize = 256;

/// A creation that is ready for the store.
pub(super) struct Prepared {
    command: Create,
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
            // Whatever became ready meanwhile found this slot taken.
            self.shared.pump();
            self.shared.watchers.fleet_changed();
        }
    }
}

/// The caller's trace, or a new one.
pub(super) fn trace(metadata: &MetadataMap) -> Trace {
    let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
    let span_id: [u8; 8] = rand::random();
    match text("traceparent").and_then(|header| header.parse::<trace::Context>().ok()) {
        Some(caller) => Trace {
            trace_id: caller.trace_id,
            span_id,
            parent_id: caller.span_id,
            sampled: caller.sampled,
            state: text("tracestate").unwrap_or_default().chars().take(512).collect(),
        },
        None => Trace { trace_id: Uuid::now_v7().into_bytes(), span_id, ..Trace::default() },
    }
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
    let agent = known_agent(shared, &namespace, given.spec.as_ref());
    let defaults = agent.as_ref().and_then(|known| known.spec.default_limits.as_ref());
    let Checked { mut new, payload, secrets, strict } = spec::check(namespace, id, trace, given, defaults)?;
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
    Ok(Prepared { command, offer, payload, alias })
}

fn known_agent(shared: &Shared, namespace: &Namespace, spec: Option<&v1::TaskSpec>) -> Option<KnownAgent> {
    match spec?.target.as_ref().and_then(|target| target.kind.as_ref()) {
        Some(v1::target::Kind::Agent(agent)) => shared.agent(namespace, &agent.parse().ok()?),
        None => shared.agent(namespace, &spec::DEFAULT_AGENT.parse().ok()?),
        Some(_) => None,
    }
}

fn seal(
    shared: &Shared,
    id: TaskId,
    secrets: &BTreeMap<String, String>,
) -> Result<Option<bytes::Bytes>, Status> {
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
    if prepared.iter().all(|one| one.offer.is_none()) {
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
    let mut commands = Vec::with_capacity(prepared.len());
    let mut rest = Vec::with_capacity(prepared.len());
    for one in prepared {
        rest.push((one.offer, one.payload, one.alias));
        commands.push(Command::Create(Box::new(one.command)));
    }
    let replies = shared.store.apply(commands).await.map_err(status::store)?;
    let mut answers = Vec::with_capacity(replies.len());
    for (reply, (offer, payload, alias)) in replies.into_iter().zip(rest) {
        answers.push(answer(shared, reply, offer, payload, &alias).await);
    }
    Ok(answers)
}

async fn answer(
    shared: &Shared,
    reply: Result<Reply, Refused>,
    offer: Option<Held>,
    mut payload: v1::TaskSpec,
    alias: &str,
) -> Result<v1::Task, Status> {
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
            existing(shared, &known, &payload, alias).await
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
    given: &v1::TaskSpec,
    alias: &str,
) -> Result<v1::Task, Status> {
    let payload = shared.store.payload(known.id).await.map_err(status::store)?.unwrap_or_default();
    let mut fields = spec::differences(&payload, given);
    if known.alias.as_deref().unwrap_or_default() != alias {
        fields.push("alias".to_owned());
    }
    if !fields.is_empty() {
        return Err(status::reused(known.id, &fields));
    }
    let result =
        if known.has_result { shared.store.result(known.id).await.map_err(status::store)? } else { None };
    Ok(task::to_wire(known, Some(&payload), result.as_ref()))
}
