//! Why a task is not running now: the record's own reasons, then what the fleet says.

use std::collections::BTreeMap;

use super::{DependencyState, Desired, Refusal, State, Task};
use crate::failure::Failure;
use crate::target::Target;
use crate::{AgentName, TaskId, Timestamp};

/// One thing that a task waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A task that has not ended.
    Dependency {
        /// As it was named.
        name: String,
        /// Its id.
        id: TaskId,
    },
    /// A task that does not exist yet.
    DependencyMissing(String),
    /// Its agent does not exist yet.
    AgentMissing(String),
    /// Its start time.
    StartTime(Timestamp),
    /// The next try.
    RetryDelay(Timestamp),
    /// It is suspended.
    Suspended,
}

impl Task {
    /// All that it waits for while PENDING.
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
                DependencyState::Waiting(id) => {
                    waits.push(Wait::Dependency { name: dependency.key.to_string(), id });
                }
                DependencyState::Ended(..) => {}
            }
        }
        if let (false, Some(agent)) = (self.agent_known, self.agent()) {
            waits.push(Wait::AgentMissing(agent.to_string()));
        }
        waits.extend(self.not_before.map(Wait::StartTime));
        waits.extend(self.retry_at.map(Wait::RetryDelay));
        waits
    }
}

/// What the fleet looks like from a task's route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Workers that may take it, drained ones left out.
    pub workers: u32,
    /// Workers that may take it but take nothing new.
    pub draining: u32,
    /// Slots of the first kind.
    pub slots: u32,
    /// Free ones among them.
    pub free: u32,
    /// Ready tasks of the same route that go first.
    pub ahead: u64,
}

/// The pool whose workers shall do a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its agent.
    pub agent: AgentName,
    /// Whether somebody starts its workers by demand.
    pub managed: bool,
    /// The workers there are, those with a cut connection included.
    pub workers: u32,
    /// Most workers that demand may start.
    pub ceiling: u32,
    /// Workers that the demand asks for and that have not connected yet.
    pub starting: u32,
    /// What whoever starts the workers says is wrong; empty if nothing is.
    pub trouble: String,
}

/// What is to be seen around a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The workers that may take it.
    pub fleet: Fleet,
    /// The pool that shall do it.
    pub pool: Option<Pool>,
    /// Names of some tasks on those workers.
    pub busy_with: Vec<String>,
    /// How many more there are.
    pub busy_with_more: usize,
    /// States of tasks that it depends on, as far as they are known.
    pub dependencies: BTreeMap<TaskId, State>,
    /// Why its last attempt failed.
    pub failure: Option<Failure>,
}

/// One thing that holds a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// A word for programs.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
    /// What to do.
    pub hint: String,
}

fn cause(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Cause {
    Cause { code, message: message.into(), hint: hint.into() }
}

/// A span of time for people, in whole seconds.
fn seconds(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.since(from).as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// Everything that holds a task, the most important first. Empty for a task that runs or has ended, unless something
/// can be done about its failure.
pub fn causes(task: &Task, seen: &Seen, now: Timestamp) -> Vec<Cause> {
    match task.state {
        State::Pending => {
            let waits = task.waits().into_iter().map(|wait| of_wait(wait, seen, now));
            of_refusal(task).into_iter().chain(waits).collect()
        }
        State::Queued => {
            let trouble = of_trouble(seen).into_iter().chain(of_refusal(task));
            trouble.chain(of_queue(task, seen)).collect()
        }
        State::Assigned => {
            let worker = task.assignment.as_ref().map_or("a worker", |a| a.worker.as_str());
            vec![cause(
                "not_taken_yet",
                format!("it has been sent to {worker}, which has not yet taken it"),
                "",
            )]
        }
        State::InputRequired => vec![cause(
            "input_required",
            "it runs, and waits for a person's answer",
            format!("answer with `rota attach {}`", task.id),
        )],
        State::Failed => {
            let known = task.failure.as_ref().filter(|failure| !failure.hint.is_empty());
            known.map(|failure| cause("failed", &failure.message, &failure.hint)).into_iter().collect()
        }
        State::Running | State::Succeeded | State::Cancelled => Vec::new(),
    }
}

fn of_wait(wait: Wait, seen: &Seen, now: Timestamp) -> Cause {
    match wait {
        Wait::Dependency { name, id } => {
            let state = seen.dependencies.get(&id).map(|state| format!(": it is {}", state.name()));
            cause(
                "dependency",
                format!("the task {name} that it depends on has not ended{}", state.unwrap_or_default()),
                format!("see `rota explain {id}`"),
            )
        }
        Wait::DependencyMissing(name) => cause(
            "dependency_missing",
            format!("the task {name} that it depends on does not exist yet"),
            "hand that task in, or check how it is spelled",
        ),
        Wait::AgentMissing(agent) => cause(
            "agent_missing",
            format!("its agent {agent} does not exist yet"),
            format!("apply a manifest of the agent {agent}, or see `rota agents` for those there are"),
        ),
        Wait::StartTime(at) => cause("start_time", format!("it starts in {}", seconds(now, at)), ""),
        Wait::RetryDelay(at) => {
            let (why, hint) = match &seen.failure {
                Some(failure) => (format!(": {}", failure.message), failure.hint.as_str()),
                None => (String::new(), ""),
            };
            cause("retry_delay", format!("it is tried again in {}{why}", seconds(now, at)), hint)
        }
        Wait::Suspended => cause("suspended", "it is suspended", "`rota update TASK --resume` lets it go on"),
    }
}

fn of_refusal(task: &Task) -> Option<Cause> {
    let Refusal { worker, reason } = task.refusal.as_ref()?;
    let message = match task.refusals {
        0 | 1 => format!("the worker {worker} did not take it ({reason})"),
        times => {
            format!("{times} assignments in a row were not taken, the last by the worker {worker} ({reason})")
        }
    };
    Some(cause("refused", message, format!("see what is wrong with {worker}, or start another worker")))
}

/// What whoever starts the workers says, while no slot is free.
fn of_trouble(seen: &Seen) -> Option<Cause> {
    let pool = seen.pool.as_ref().filter(|pool| seen.fleet.free == 0 && !pool.trouble.is_empty())?;
    let agent = &pool.agent;
    Some(cause(
        "workers_cannot_start",
        format!("workers of the agent {agent} cannot start: {}", pool.trouble),
        format!("see `rota describe agent {agent}`"),
    ))
}

/// What the pool does about a task that finds no free slot.
fn of_pool(task: &Task, pool: &Pool) -> Option<Cause> {
    // More workers do nothing for a task that only one may do.
    if !pool.managed || matches!(task.target, Target::Worker(_) | Target::Task { .. }) {
        return None;
    }
    let Pool { agent, workers, ceiling, starting, .. } = pool;
    if *starting > 0 {
        return Some(cause(
            "pool_starting",
            format!(
                "{starting} more workers of the agent {agent} are to start; {workers} of at most {ceiling} are there"
            ),
            "if none comes, see whether what starts workers is there: `rota dev`, or the operator",
        ));
    }
    (workers >= ceiling).then(|| {
        cause(
            "at_ceiling",
            format!("the pool of the agent {agent} is at its ceiling of {ceiling} workers"),
            "wait, or raise the agent's maxReplicas",
        )
    })
}

fn of_queue(task: &Task, seen: &Seen) -> Vec<Cause> {
    let fleet = seen.fleet;
    let who = match &task.target {
        Target::Agent(agent) => format!("the agent {agent}"),
        Target::Worker(worker) => format!("the worker {worker}"),
        Target::Capabilities(words) => {
            format!("the capabilities {}", words.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
        }
        Target::Task { .. } => "this task alone".to_owned(),
    };
    let mut causes = Vec::new();
    if fleet.workers == 0 && fleet.draining == 0 && task.target.is_own() {
        causes.push(cause(
            "no_worker",
            "its own worker is not connected yet",
            "whoever starts workers starts one for it; the agent's message says why one cannot start",
        ));
    } else if fleet.workers == 0 && fleet.draining == 0 {
        causes.push(cause(
            "no_worker",
            format!("no worker for {who} is connected"),
            match &seen.pool {
                Some(pool) if pool.managed => format!("see `rota describe agent {}`", pool.agent),
                Some(pool) => format!("start one with `rota worker --agent {}`", pool.agent),
                None => "start one with `rota worker`".to_owned(),
            },
        ));
    } else if fleet.workers == 0 {
        causes.push(cause(
            "all_draining",
            format!("every worker for {who} is draining and takes nothing new"),
            "start another one, or wait until they are replaced",
        ));
    } else if fleet.free == 0 {
        causes.push(cause(
            "no_free_slot",
            format!("all {} slots of the {} workers for {who} are busy", fleet.slots, fleet.workers),
            "wait, raise the agent's maxReplicas or slots, or raise the task's priority",
        ));
    } else {
        causes.push(cause("dispatching", "a slot is free; it is about to be assigned", ""));
    }
    if fleet.free == 0 {
        causes.extend(seen.pool.as_ref().and_then(|pool| of_pool(task, pool)));
        if !seen.busy_with.is_empty() {
            let more = match seen.busy_with_more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let message = format!("its workers are busy with {}{more}", seen.busy_with.join(", "));
            causes.push(cause("busy_with", message, ""));
        }
    }
    if fleet.ahead > 0 {
        let (place, ahead) = (fleet.ahead + 1, fleet.ahead);
        let message = format!("it is number {place} in the queue: {ahead} tasks of the same route go first");
        causes.push(cause("behind", message, ""));
    }
    causes
}

/// Where a task stands, in a sentence.
pub fn summary(task: &Task, causes: &[Cause], now: Timestamp) -> String {
    match task.state {
        State::Pending | State::Queued | State::Assigned | State::InputRequired => {
            let why = causes.first().map_or("it is about to go on", |cause| cause.message.as_str());
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
            let why = task.failure.as_ref().map_or("no reason is known", |failure| failure.message.as_str());
            format!("The task has FAILED: {why}.")
        }
        State::Cancelled => "The task was CANCELLED.".to_owned(),
    }
}
