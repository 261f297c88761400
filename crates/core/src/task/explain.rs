//! Explanation of why a task is not running: causes from its record, then from the scheduler's view of workers and
//! queues.

mod limits;
mod pool;
mod unavailable;

use std::collections::BTreeMap;

pub use self::limits::of_quota;
use super::{DependencyState, Desired, Refusal, State, Task, Undelivered};
use crate::failure::Failure;
use crate::quota::CredentialId;
use crate::spending::BudgetWait;
use crate::target::Target;
use crate::{AgentName, TaskId, Timestamp, WorkerName};

/// Condition that keeps a task PENDING.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    Dependency {
        /// Id or alias, as the dependency was declared.
        name: String,
        id: TaskId,
    },
    /// Task before it in its thread.
    Thread {
        thread: String,
        id: TaskId,
    },
    DependencyMissing(String),
    AgentMissing(String),
    StartTime(Timestamp),
    /// Backoff before the next attempt.
    RetryDelay(Timestamp),
    /// The same before the next delivery of work.
    Delivery(Undelivered, Timestamp),
    /// Cool-down of the credential that it would use.
    Quota {
        credential: CredentialId,
        limit: String,
        until: Timestamp,
    },
    /// Budget of its agent or namespace that has no room for it.
    Budget(BudgetWait),
    Suspended,
    Answer(TaskId),
}

impl Task {
    /// Returns every condition that keeps the task PENDING; empty in other states.
    pub fn waits(&self) -> Vec<Wait> {
        if self.state != State::Pending {
            return Vec::new();
        }
        let mut waits = Vec::new();
        if self.desired == Desired::Suspended {
            waits.push(Wait::Suspended);
        }
        for dependency in &self.dependencies {
            match dependency.state {
                DependencyState::Missing => waits.push(Wait::DependencyMissing(dependency.key.to_string())),
                DependencyState::Waiting(id) if dependency.of_thread => {
                    waits.push(Wait::Thread { thread: self.thread.clone().unwrap_or_default(), id });
                }
                DependencyState::Waiting(id) => {
                    waits.push(Wait::Dependency { name: dependency.key.to_string(), id });
                }
                DependencyState::Ended(..) => {}
            }
        }
        if let (false, Some(agent)) = (self.agent_known, self.agent()) {
            waits.push(Wait::AgentMissing(agent.to_string()));
        }
        waits.extend(self.waits_for_answer().then_some(Wait::Answer(self.id)));
        waits.extend(self.not_before.map(Wait::StartTime));
        waits.extend(self.retry_at.map(|until| match (&self.quota, &self.budget_wait) {
            (Some(quota), _) => Wait::Quota {
                credential: quota.credential,
                limit: quota.limit.clone(),
                until: until.max(quota.until),
            },
            (None, Some(wait)) => Wait::Budget(BudgetWait::clone(wait)),
            (None, None) => {
                self.undelivered.map_or(Wait::RetryDelay(until), |left| Wait::Delivery(left, until))
            }
        }));
        waits
    }
}

/// Workers and queue of a task's route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteCapacity {
    /// Workers that accept tasks of the route, without draining ones.
    pub workers: u32,
    /// Draining workers of the route.
    pub draining: u32,
    /// Workers among these that get none: suspended, not ready, or both.
    pub unavailable: u32,
    /// Slots of the other workers.
    pub slots: u32,
    pub free: u32,
    /// Workers whose circuit breaker is not closed.
    pub suspended: u32,
    /// Workers that take nothing, by their own statement.
    pub not_ready: u32,
    /// Ready tasks of the route with a better rank.
    pub ahead: u64,
}

/// Pool whose demand includes the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub agent: AgentName,
    /// Whether an operator or `rota dev` starts its workers by demand.
    pub managed: bool,
    /// Existing workers, including disconnected ones.
    pub workers: u32,
    /// Number of workers that always run.
    pub floor: u32,
    /// Largest number of workers that demand may start.
    pub ceiling: u32,
    /// Workers requested by the demand that have not connected yet.
    pub starting: u32,
    /// Reason why a worker that demand has started does not isolate its attempts, if there is one; may be empty.
    pub not_isolated: Option<String>,
    /// Reason why workers cannot start, as reported by their operator; empty if none.
    pub start_failure: String,
}

/// Context of a task, gathered by the control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    pub capacity: RouteCapacity,
    /// A worker that takes nothing, and why, if there is one.
    pub not_ready: Option<(WorkerName, String)>,
    pub pool: Option<Pool>,
    /// Names of some tasks that occupy these workers.
    pub busy_with: Vec<String>,
    /// Number of further such tasks.
    pub busy_with_more: usize,
    /// States of the task's dependencies, as far as known.
    pub dependencies: BTreeMap<TaskId, State>,
    /// Failure of the last attempt.
    pub failure: Option<Failure>,
}

/// Cause that keeps a task from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// A stable code, which programs may match.
    pub code: &'static str,
    pub message: String,
    /// Remedy; empty if there is none.
    pub hint: String,
}

fn cause(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Cause {
    Cause { code, message: message.into(), hint: hint.into() }
}

/// Formats a duration with one unit.
fn seconds(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.since(from).as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// Returns every cause that keeps a task from running, the most important first. Empty for a task that runs or has
/// ended, unless its failure has a remedy.
pub fn causes(task: &Task, context: &Context, now: Timestamp) -> Vec<Cause> {
    match task.state {
        State::Pending => {
            let waits = task.waits().into_iter().map(|wait| of_wait(wait, context, now));
            of_refusal(task).into_iter().chain(waits).collect()
        }
        State::Queued => {
            let start_failure = of_start_failure(context).into_iter().chain(of_refusal(task));
            start_failure.chain(of_queue(&task.target, context)).collect()
        }
        State::Assigned => {
            let worker = task.assignment.as_ref().map_or("a worker", |a| a.worker.as_str());
            vec![cause(
                "not_taken_yet",
                format!("the task was sent to {worker}, which has not accepted it yet"),
                "",
            )]
        }
        State::InputRequired => vec![cause(
            "input_required",
            "the attempt waits for an answer",
            format!("answer with `rota attach {}`", task.id),
        )],
        State::Failed => {
            let known = task.failure.as_ref().filter(|failure| !failure.hint.is_empty());
            known.map(|failure| cause("failed", &failure.message, &failure.hint)).into_iter().collect()
        }
        State::Running => limits::of_running(task).into_iter().collect(),
        State::Succeeded | State::Cancelled => Vec::new(),
    }
}

fn of_wait(wait: Wait, context: &Context, now: Timestamp) -> Cause {
    match wait {
        Wait::Dependency { name, id } => {
            let state = context.dependencies.get(&id).map(|state| format!(" ({})", state.name()));
            cause(
                "dependency",
                format!("dependency {name} has not ended{}", state.unwrap_or_default()),
                format!("see `rota explain {id}`"),
            )
        }
        Wait::Thread { thread, id } => {
            let state = context.dependencies.get(&id).map(|state| format!(" ({})", state.name()));
            cause(
                "thread",
                format!("waits for task {id} of thread {thread}{}", state.unwrap_or_default()),
                format!("see `rota explain {id}`"),
            )
        }
        Wait::DependencyMissing(name) => cause(
            "dependency_missing",
            format!("dependency {name} does not exist yet"),
            "create that task, or check the spelling",
        ),
        Wait::AgentMissing(agent) => cause(
            "agent_missing",
            format!("agent {agent} does not exist yet"),
            format!("apply a manifest of agent {agent}, or list the existing ones with `rota agents`"),
        ),
        Wait::StartTime(at) => cause("start_time", format!("the start time is in {}", seconds(now, at)), ""),
        Wait::RetryDelay(at) => {
            let (why, hint) = match &context.failure {
                Some(failure) => (format!(": {}", failure.message), failure.hint.as_str()),
                None => (String::new(), ""),
            };
            cause("retry_delay", format!("the next attempt starts in {}{why}", seconds(now, at)), hint)
        }
        Wait::Delivery(left, until) => limits::of_delivery(left, until, context, now),
        Wait::Quota { credential, limit, until } => of_quota(credential, &limit, until, now),
        Wait::Budget(wait) => limits::of_budget(&wait, now),
        Wait::Answer(id) => cause(
            "input_required",
            "the task waits for an answer; it has released its worker until then",
            format!("answer with `rota answer {id}`"),
        ),
        Wait::Suspended => {
            cause("suspended", "the task is suspended", "resume it with `rota update TASK --resume`")
        }
    }
}

/// Returns every cause that all queued tasks of a target have, the most important first.
pub fn of_route(target: &Target, context: &Context) -> Vec<Cause> {
    of_start_failure(context).into_iter().chain(of_queue(target, context)).collect()
}

/// Returns why workers did not accept the last assignments of a task, while it waits for another.
pub fn of_refusal(task: &Task) -> Option<Cause> {
    let waits = matches!(task.state, State::Pending | State::Queued);
    let Refusal { worker, reason } = task.refusal.as_ref().filter(|_| waits)?;
    let message = match task.refusals {
        0 | 1 => format!("worker {worker} did not accept the assignment ({reason})"),
        times => {
            format!(
                "{times} consecutive assignments were not accepted, the last by worker {worker} ({reason})"
            )
        }
    };
    Some(cause("refused", message, format!("check worker {worker}, or start another worker")))
}

/// Returns why workers cannot start, while no slot is free.
fn of_start_failure(context: &Context) -> Option<Cause> {
    let pool =
        context.pool.as_ref().filter(|pool| context.capacity.free == 0 && !pool.start_failure.is_empty())?;
    let agent = &pool.agent;
    Some(cause(
        "workers_cannot_start",
        format!("workers of agent {agent} cannot start: {}", pool.start_failure),
        format!("see `rota describe agent {agent}`"),
    ))
}

fn of_queue(target: &Target, context: &Context) -> Vec<Cause> {
    let capacity = context.capacity;
    let who = target.describe();
    let mut causes = Vec::new();
    if capacity.workers == 0 && capacity.draining == 0 && target.is_own() {
        causes.push(cause(
            "no_worker",
            "the worker for this task is not connected yet",
            "the operator starts one; the agent's message names the cause if it cannot start",
        ));
    } else if capacity.workers == 0 && capacity.draining == 0 {
        causes.push(cause(
            "no_worker",
            format!("no worker for {who} is connected"),
            match &context.pool {
                Some(pool) if pool.managed => format!("see `rota describe agent {}`", pool.agent),
                Some(pool) => format!("start one with `rota worker --agent {}`", pool.agent),
                None => "start one with `rota worker`".to_owned(),
            },
        ));
    } else if capacity.workers == 0 {
        causes.push(cause(
            "all_draining",
            format!("every worker for {who} is draining"),
            "start another worker, or wait until they are replaced",
        ));
    } else if capacity.free == 0 {
        causes.extend(unavailable::causes(&who, capacity, context));
        let available = capacity.workers.saturating_sub(capacity.unavailable);
        if available > 0 {
            causes.push(cause(
                "no_free_slot",
                format!("all {} slots of the {} workers for {who} are busy", capacity.slots, available),
                "wait, raise the agent's maxReplicas or slots, or raise the task's priority",
            ));
        }
    } else {
        causes.push(cause("dispatching", "a slot is free, the assignment follows", ""));
    }
    if capacity.free == 0 {
        causes.extend(context.pool.iter().flat_map(|pool| pool::causes(target, pool, capacity)));
        if !context.busy_with.is_empty() {
            let more = match context.busy_with_more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let message = format!("the workers are busy with {}{more}", context.busy_with.join(", "));
            causes.push(cause("busy_with", message, ""));
        }
    }
    if capacity.ahead > 0 {
        let (position, ahead) = (capacity.ahead + 1, capacity.ahead);
        let message = format!("position {position} in the queue: {ahead} tasks of the same route are first");
        causes.push(cause("behind", message, ""));
    }
    causes
}

/// Summarizes a task's state and its first cause in one sentence.
pub fn summary(task: &Task, causes: &[Cause], now: Timestamp) -> String {
    match task.state {
        State::Pending | State::Queued | State::Assigned | State::InputRequired => {
            let why = causes.first().map_or("about to continue", |cause| cause.message.as_str());
            format!("The task is {}: {why}.", task.state.name())
        }
        State::Running => {
            let worker = task.assignment.as_ref().map_or("a worker", |a| a.worker.as_str());
            let since = task.assignment.as_ref().map_or(now, |a| a.at);
            format!(
                "The task is RUNNING on {worker} since {}, attempt {}.",
                seconds(since, now),
                task.attempt()
            )
        }
        State::Succeeded => "The task has SUCCEEDED.".to_owned(),
        State::Failed => {
            let why =
                task.failure.as_ref().map_or("the cause is unknown", |failure| failure.message.as_str());
            format!("The task has FAILED: {why}.")
        }
        State::Cancelled => "The task was CANCELLED.".to_owned(),
    }
}
