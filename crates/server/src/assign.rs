//! The message that assigns a task to a worker, made from the task's record, its payload and its agent. Pure: sends and
//! changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use rota_core::failure::{Class, Failure};
use rota_core::task::{Question, State, Task};
use rota_core::{AgentName, WorkerName};
use rota_proto::times::FREED_AFTER;
use rota_proto::worker::v1 as wire;
use rota_proto::{num, v1};
use rota_store::{Dispatch, Previous};
use rota_telemetry::trace;

use crate::seal::{self, Sealer};
use crate::wire::overrides::{self, Forbidden};
use crate::wire::{event, failure, kind, merge, time};

/// Time for which attempts wait for a person on their workers, unless their agent sets another one.
const DEFAULT_RELEASE: Duration = Duration::from_secs(600);

/// Task that cannot be assigned to any worker of an agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unassignable {
    #[error(transparent)]
    Sealed(#[from] seal::Error),
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// Earlier attempts have used all that it may cost.
    #[error("earlier attempts have spent the budget: {used} of {budget} millionths of a US dollar")]
    Spent { used: i64, budget: i64 },
    /// An earlier attempt could not store what it made, and the next one could not either.
    #[error("no attempt is started, since what it makes could not be stored: {reason}")]
    NoRoom { reason: String, hint: &'static str, bytes: Option<u64> },
}

impl Unassignable {
    /// Returns what the user can change to have the task assigned.
    fn hint(&self) -> String {
        match self {
            Self::Sealed(error) => error.hint().to_owned(),
            Self::Forbidden(error) => error.hint(),
            Self::Spent { .. } => "create a task with a larger `limits.budgetUsd`".to_owned(),
            Self::NoRoom { hint, .. } => (*hint).to_owned(),
        }
    }

    /// Returns the failure of the attempt that does not start.
    pub(crate) fn failure(&self) -> Failure {
        let class = match self {
            Self::Sealed(_) | Self::Forbidden(_) => Class::Invalid,
            Self::Spent { .. } => Class::Budget,
            Self::NoRoom { .. } => Class::Source,
        };
        let mut failure = Failure::new(class, self.to_string());
        failure.hint = self.hint();
        if let Self::NoRoom { bytes, .. } = self {
            (failure.of_storage, failure.upload_bytes) = (true, *bytes);
            failure.retry_after = Some(FREED_AFTER);
        }
        failure
    }
}

/// Returns the assignment of a task to a worker of `agent`, whose spec completes the task's own as far as it lets tasks
/// override it. Fails if it does not, or if the task's secrets cannot be opened. `agent_spec` is `None` if the agent was
/// deleted since the worker was chosen.
pub(crate) fn assign(
    task: &Task,
    dispatch: &Dispatch,
    agent: &AgentName,
    agent_spec: Option<&v1::AgentSpec>,
    sealer: &Sealer,
) -> Result<wire::Assign, Unassignable> {
    let mut spec = v1::TaskSpec::decode(&dispatch.payload[..]).unwrap_or_default();
    if let Some(agent_spec) = agent_spec {
        overrides::check(agent_spec, &spec)?;
        // What a thread has is checked when it is fetched.
        let moved = task.escalated_to().is_some() && !spec.continue_from.is_empty();
        overrides::check_source(agent_spec, task.continues_other_agent || moved)?;
    }
    spec.prompt = kind::framed(&std::mem::take(&mut spec.prompt_frame), spec.prompt);
    let continues = !spec.continue_from.is_empty();
    let secrets = match &dispatch.secrets {
        Some(sealed) => sealer.open_sealed(&task.namespace, task.id, sealed)?.into_message(),
        None => BTreeMap::new(),
    };
    merge::complete(&mut spec, agent_spec.unwrap_or(&v1::AgentSpec::default()), task);
    if !task.delivers() {
        leave_budget(&mut spec, task.usage.cost_micro_usd)?;
    }
    let assignment = task.assignment.as_ref();
    let context = trace::TraceContext {
        trace_id: task.trace.trace_id,
        span_id: assignment.map_or([0; 8], |assignment| assignment.span_id),
        sampled: task.trace.sampled,
    };
    let assigned = assignment.map_or(task.created_at, |assignment| assignment.at);
    let on_worker = |worker: &WorkerName| assignment.is_some_and(|assignment| assignment.worker == *worker);
    let resume = task.session.as_ref().filter(|session| on_worker(&session.worker));
    Ok(wire::Assign {
        task_id: task.id.to_string(),
        attempt: num::to_i32(task.attempt()),
        fence: num::to_i64(task.fence.0),
        deadline: Some(time::timestamp(assigned + task.time_left())),
        time_left: Some(time::duration(task.time_left())),
        traceparent: context.to_string(),
        tracestate: task.trace.state.clone(),
        spec: Some(spec),
        secrets,
        previous: dispatch.previous.iter().map(previous).collect(),
        resume_session: resume.map(|session| session.session.clone()).unwrap_or_default(),
        alias: task.alias.clone().unwrap_or_default(),
        namespace: task.namespace.to_string(),
        agent: agent.to_string(),
        checkpoints: Some(wire::Checkpoints {
            exist: task.has_artifacts && task.attempt() > task.concluded + 1,
            last_failure: task.last_failure.as_deref().map(failure::to_wire),
            continues,
            thread: task.thread.is_some(),
            deliver: task.delivers(),
            attempt: if task.checkpointed > task.concluded { num::to_i32(task.checkpointed) } else { 0 },
        }),
        setup_cache: agent_spec.and_then(|spec| spec.setup_cache.clone()),
        credential_key: sealer.credential_key(&task.namespace).to_vec(),
        own_credentials: !task.uses_agents_credential(),
        messages: task
            .messages
            .iter()
            .filter_map(|message| v1::TaskInput::decode(&message[..]).ok())
            .collect(),
        release_after: release_after(agent_spec),
        has_step_results: task.step.as_ref().is_some_and(|place| place.follows),
        answers: task.questions.iter().filter_map(answered).collect(),
    })
}

/// Returns how long an attempt waits for a person on its worker; `None` for no limit.
fn release_after(agent_spec: Option<&v1::AgentSpec>) -> Option<pbjson_types::Duration> {
    let set = agent_spec.and_then(|spec| spec.release_waiting_after);
    set.map_or(Some(time::duration(DEFAULT_RELEASE)), |set| {
        (set != pbjson_types::Duration::default()).then_some(set)
    })
}

/// Returns a question of an earlier attempt with its answer.
fn answered(question: &Question) -> Option<wire::AnsweredQuestion> {
    let answer = event::input(question.answer.as_ref()?)?;
    let question = v1::InputRequest::decode(&question.asked[..]).ok()?;
    Some(wire::AnsweredQuestion { question: Some(question), answer: Some(answer) })
}

/// Reduces the budget of a complete spec to what earlier attempts have left: runtimes count each attempt from zero.
fn leave_budget(spec: &mut v1::TaskSpec, used: i64) -> Result<(), Unassignable> {
    let Some(limits) = spec.limits.as_mut().filter(|limits| limits.budget_micro_usd > 0) else {
        return Ok(());
    };
    if used >= limits.budget_micro_usd {
        return Err(Unassignable::Spent { used, budget: limits.budget_micro_usd });
    }
    limits.budget_micro_usd -= used;
    Ok(())
}

fn previous(previous: &Previous) -> wire::PreviousResult {
    let result = previous.result.as_ref().and_then(|bytes| v1::TaskResult::decode(&bytes[..]).ok());
    wire::PreviousResult {
        task_id: previous.task.id.to_string(),
        alias: previous.task.alias.clone().unwrap_or_default(),
        title: previous.task.title.clone(),
        state: event::state(previous.task.state).into(),
        omitted: result.is_none() && previous.task.has_result,
        has_artifacts: previous.task.has_artifacts && previous.task.state == State::Succeeded,
        result,
    }
}
