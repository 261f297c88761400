//! State of `rota top`: pools, demand and tasks from the watches, and snapshots of them. Knows no terminal, no
//! connection and no clock.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rota_core::scaling;
use rota_proto::names;
use rota_proto::v1::{
    Agent, Demand, Event, Task, TaskState, WatchAgentsResponse, WatchDemandResponse, event,
    watch_agents_response,
};
use serde::Serialize;

use super::super::state_of;
use super::view_options::{ViewOptions, cost};
use crate::output::{between, limits, moment, name, reason, state, target};

/// Maximum number of tasks kept; running tasks are always kept.
pub const MAX_TASKS: usize = 5000;
/// Time range of the cost rate.
const COST_WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Model {
    agents: BTreeMap<String, Agent>,
    demand: BTreeMap<String, Demand>,
    /// Unfinished tasks, and those that finished within the window.
    tasks: BTreeMap<String, Task>,
    /// Starts of the latest attempts, as far as observed: a record has only the start of the first.
    starts: BTreeMap<String, AttemptStart>,
    /// More tasks exist than are kept.
    more: bool,
    /// All agents have been received.
    pub synced: bool,
    pub has_demand: bool,
}

/// Start of an attempt.
#[derive(Debug, Clone, Copy)]
struct AttemptStart {
    attempt: i32,
    at: SystemTime,
    /// Cost of the attempts before it.
    cost_before: i64,
}

impl Model {
    pub fn agent(&mut self, change: WatchAgentsResponse) {
        use watch_agents_response::Kind;
        match change.kind {
            Some(Kind::Agent(agent)) => {
                self.agents.insert(agent.name.clone(), agent);
            }
            Some(Kind::Deleted(name)) => {
                self.agents.remove(&name);
            }
            Some(Kind::Synced(_)) => self.synced = true,
            None => {}
        }
    }

    /// Replaces demand: each response is complete.
    pub fn demand(&mut self, now: WatchDemandResponse) {
        self.demand = now.demands.into_iter().map(|one| (one.agent.clone(), one)).collect();
        self.has_demand = true;
    }

    /// Replaces all tasks. `more` means that others exist.
    pub fn load(&mut self, tasks: Vec<Task>, more: bool) {
        self.tasks = tasks.into_iter().map(|task| (task.uid.clone(), task)).collect();
        self.more = more;
    }

    /// Updates a task, with the new entries of its log.
    pub fn task(&mut self, task: Task, events: &[Event]) {
        let runs = !matches!(state_of(&task), TaskState::Pending | TaskState::Queued);
        if self.tasks.len() >= MAX_TASKS && !self.tasks.contains_key(&task.uid) && !runs {
            self.more = true;
            return;
        }
        let started = events.iter().rev().find(|event| starts_attempt(event));
        if let Some((attempt, at)) =
            started.and_then(|event| Some((event.attempt, moment(event.time.as_ref()?))))
        {
            let cost = self.tasks.get(&task.uid).map_or_else(|| cost(&task), cost);
            self.starts.insert(task.uid.clone(), AttemptStart { attempt, at, cost_before: cost });
        }
        self.tasks.insert(task.uid.clone(), task);
    }

    /// Removes tasks that finished before the window.
    pub fn forget(&mut self, now: SystemTime) {
        self.tasks.retain(|_, task| !state_of(task).is_final() || recent(task, now));
        self.starts.retain(|uid, _| self.tasks.contains_key(uid));
    }

    pub fn snapshot(&self, options: ViewOptions, now: SystemTime) -> Snapshot {
        let mut pools: Vec<_> =
            self.agents.values().map(|agent| pool(agent, self.demand.get(&agent.name))).collect();
        // Workers of deleted agents finish their tasks.
        let deleted = self.demand.iter().filter(|(name, _)| !self.agents.contains_key(*name));
        pools.extend(deleted.map(|(name, demand)| {
            let agent = Agent { name: name.clone(), ..Agent::default() };
            Pool { floor: 0, ceiling: 0, ..pool(&agent, Some(demand)) }
        }));
        let count = |wanted: TaskState| self.tasks.values().filter(|task| state_of(task) == wanted).count();
        let rate: f64 = self.tasks.values().map(|task| spent(task, self.attempt_start(task), now)).sum();
        #[expect(clippy::cast_possible_truncation, reason = "whole millionths are enough")]
        let totals = Totals {
            running: count(TaskState::Running) + count(TaskState::Assigned),
            input_required: count(TaskState::InputRequired),
            queued: pools.iter().map(|pool| pool.queued).sum::<i64>().max(count(TaskState::Queued) as i64),
            pending: count(TaskState::Pending),
            workers: pools.iter().map(|pool| pool.ready + pool.draining).sum(),
            cost_per_minute_micro_usd: rate as i64,
        };
        let mut tasks: Vec<_> =
            self.tasks.values().filter(|task| options.show.includes(state_of(task))).collect();
        tasks.sort_by_cached_key(|task| options.sort.key(task));
        let tasks = tasks.into_iter().map(|task| row(task, self.attempt_start(task), now)).collect();
        Snapshot { pools, totals, tasks, more: self.more }
    }

    /// Returns the start of a task's current attempt, if it is known.
    fn attempt_start(&self, task: &Task) -> Option<AttemptStart> {
        let status = task.status.as_ref()?;
        let first = status.start_time.as_ref().filter(|_| status.attempt <= 1).map(moment);
        let first = first.map(|at| AttemptStart { attempt: status.attempt, at, cost_before: 0 });
        first.or_else(|| self.starts.get(&task.uid).filter(|start| start.attempt == status.attempt).copied())
    }
}

/// Whether an event is the start of an attempt. Continuing after input is not.
fn starts_attempt(event: &Event) -> bool {
    match &event.kind {
        Some(event::Kind::State(change)) => {
            change.to() == TaskState::Running && change.from() != TaskState::InputRequired
        }
        _ => false,
    }
}

/// State at one moment.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    pub totals: Totals,
    pub pools: Vec<Pool>,
    pub tasks: Vec<Row>,
    /// More tasks exist than are listed.
    pub more: bool,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    pub running: usize,
    pub input_required: usize,
    pub queued: i64,
    pub pending: usize,
    pub workers: i64,
    /// Cost of the last minute; the cost of an attempt is spread evenly over its runtime.
    pub cost_per_minute_micro_usd: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    pub namespace: String,
    pub agent: String,
    pub ready: i64,
    pub busy: i64,
    pub idle: i64,
    pub draining: i64,
    pub queued: i64,
    pub running: i64,
    pub floor: u32,
    pub ceiling: u32,
    /// Limits of its model credentials that are reached, and until when.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub limit: String,
}

fn pool(agent: &Agent, demand: Option<&Demand>) -> Pool {
    let spec = agent.spec.clone().unwrap_or_default();
    let demand = demand.cloned().unwrap_or_default();
    let small = |number: i32| u32::try_from(number).unwrap_or_default();
    let connected = || demand.workers.iter().filter(|worker| worker.connected);
    let ready = || connected().filter(|worker| !worker.draining);
    let floor = small(spec.replicas);
    Pool {
        namespace: agent.name.split('/').nth(1).unwrap_or_default().to_owned(),
        agent: names::last(&agent.name).to_owned(),
        ready: ready().count() as i64,
        busy: ready().filter(|worker| worker.running > 0).count() as i64,
        idle: ready().filter(|worker| worker.running == 0).count() as i64,
        draining: connected().filter(|worker| worker.draining).count() as i64,
        queued: demand.queued,
        running: demand.running,
        floor,
        ceiling: scaling::ceiling(floor, spec.max_replicas.map(small)),
        limit: agent.status.as_ref().map(limits).unwrap_or_default(),
    }
}

/// Task in the table.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub task: String,
    pub name: String,
    pub state: &'static str,
    pub target: String,
    pub worker: String,
    pub attempt: i32,
    /// Seconds for which the attempt runs, the task waits for a slot, or exists, depending on its state. Unknown for a
    /// later attempt whose start was not observed.
    #[serde(rename = "forSeconds", serialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub lasted: Option<Duration>,
    pub cost_micro_usd: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// Current activity, or what the task waits for.
    pub doing: String,
    #[serde(skip)]
    pub is: TaskState,
}

#[expect(clippy::ref_option, reason = "required by serde")]
fn whole<S: serde::Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs()).serialize(serializer)
}

fn row(task: &Task, start: Option<AttemptStart>, now: SystemTime) -> Row {
    let status = task.status.clone().unwrap_or_default();
    let created = task.create_time.as_ref();
    let since = match status.state() {
        TaskState::Running | TaskState::InputRequired => start.map(|start| start.at),
        TaskState::Queued | TaskState::Assigned => status.ready_time.as_ref().or(created).map(moment),
        _ => created.map(moment),
    };
    let runs = status.state() == TaskState::Running;
    Row {
        task: task.name.clone(),
        name: name(task).to_owned(),
        state: state(status.state()),
        target: target(task),
        worker: if runs || status.state() == TaskState::InputRequired {
            status.worker.clone()
        } else {
            String::new()
        },
        attempt: status.attempt,
        lasted: since.map(|at| between(at, now)),
        cost_micro_usd: cost(task),
        progress: status.progress.as_ref().filter(|_| runs).map(|progress| progress.fraction),
        doing: reason(&status),
        is: status.state(),
    }
}

/// Returns the cost of a task's attempt within the window, spread evenly over its runtime; 0 if its start is unknown.
fn spent(task: &Task, start: Option<AttemptStart>, now: SystemTime) -> f64 {
    let (Some(start), Some(status)) = (start, &task.status) else { return 0.0 };
    let (start, cost) = (start.at, cost(task) - start.cost_before);
    if cost <= 0 {
        return 0.0;
    }
    let end = status.end_time.as_ref().map_or(now, moment);
    let from = now.checked_sub(COST_WINDOW).map_or(start, |from| from.max(start));
    let (within, ran) = (between(from, end.min(now)), between(start, end));
    #[expect(clippy::cast_precision_loss, reason = "a rate for display")]
    let cost = cost as f64;
    match ran.is_zero() {
        // No runtime: the whole cost counts if it is within the window.
        true => {
            if from <= end {
                cost
            } else {
                0.0
            }
        }
        false => cost * within.as_secs_f64() / ran.as_secs_f64(),
    }
}

fn recent(task: &Task, now: SystemTime) -> bool {
    let end = task.status.as_ref().and_then(|status| status.end_time.as_ref()).map(moment);
    end.is_some_and(|end| between(end, now) < COST_WINDOW)
}

#[cfg(test)]
mod tests;
