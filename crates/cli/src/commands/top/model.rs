//! What `rota top` knows: pools, demand and tasks as the watches tell them, and a snapshot of it all.
//! Knows no terminal, no connection and no clock.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rota_client::watch::is_final;
use rota_core::scaling;
use rota_proto::names;
use rota_proto::v1::{
    Agent, Demand, Event, Task, TaskState, WatchAgentsResponse, WatchDemandResponse, event,
    watch_agents_response,
};
use serde::Serialize;

use super::super::state_of;
use super::choice::Choice;
use crate::output::{between, moment, name, reason, state, target};

/// Tasks that are kept; those that run are kept whatever there is.
pub const MOST: usize = 5000;
/// The time over which cost is told.
const WINDOW: Duration = Duration::from_secs(60);

/// What is known.
#[derive(Debug, Default)]
pub struct Model {
    agents: BTreeMap<String, Agent>,
    demand: BTreeMap<String, Demand>,
    /// Those that have not ended, and those that ended within the window.
    tasks: BTreeMap<String, Task>,
    /// When the latest attempts of tasks began, as far as that was seen: a record tells it of the first alone.
    begun: BTreeMap<String, Begun>,
    /// There are more tasks than are kept.
    more: bool,
    /// All agents have been told.
    pub synced: bool,
    /// Demand has been told.
    pub demanded: bool,
}

/// The beginning of an attempt.
#[derive(Debug, Clone, Copy)]
struct Begun {
    attempt: i32,
    at: SystemTime,
    /// What the attempts before it cost.
    cost: i64,
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

    /// Every answer is all of it.
    pub fn demand(&mut self, now: WatchDemandResponse) {
        self.demand = now.demands.into_iter().map(|one| (one.agent.clone(), one)).collect();
        self.demanded = true;
    }

    /// The tasks anew. `more`: there are others.
    pub fn load(&mut self, tasks: Vec<Task>, more: bool) {
        self.tasks = tasks.into_iter().map(|task| (task.uid.clone(), task)).collect();
        self.more = more;
    }

    /// A task as it is, and the new entries of its log.
    pub fn task(&mut self, task: Task, events: &[Event]) {
        let runs = !matches!(state_of(&task), TaskState::Pending | TaskState::Queued);
        if self.tasks.len() >= MOST && !self.tasks.contains_key(&task.uid) && !runs {
            self.more = true;
            return;
        }
        let begun = events.iter().rev().find(|event| begins(event));
        if let Some((attempt, at)) =
            begun.and_then(|event| Some((event.attempt, moment(event.time.as_ref()?))))
        {
            let cost = self.tasks.get(&task.uid).map_or_else(|| cost(&task), cost);
            self.begun.insert(task.uid.clone(), Begun { attempt, at, cost });
        }
        self.tasks.insert(task.uid.clone(), task);
    }

    /// Forgets tasks that ended long ago.
    pub fn forget(&mut self, now: SystemTime) {
        self.tasks.retain(|_, task| !is_final(state_of(task)) || recent(task, now));
        self.begun.retain(|uid, _| self.tasks.contains_key(uid));
    }

    /// All of it as it is now.
    pub fn snapshot(&self, choice: Choice, now: SystemTime) -> Snapshot {
        let mut pools: Vec<_> =
            self.agents.values().map(|agent| pool(agent, self.demand.get(&agent.name))).collect();
        // Workers whose agent is gone finish what they have.
        let gone = self.demand.iter().filter(|(name, _)| !self.agents.contains_key(*name));
        pools.extend(gone.map(|(name, demand)| {
            let agent = Agent { name: name.clone(), ..Agent::default() };
            Pool { floor: 0, ceiling: 0, ..pool(&agent, Some(demand)) }
        }));
        let count = |wanted: TaskState| self.tasks.values().filter(|task| state_of(task) == wanted).count();
        let rate: f64 = self.tasks.values().map(|task| spent(task, self.begun(task), now)).sum();
        #[expect(clippy::cast_possible_truncation, reason = "whole millionths are enough")]
        let totals = Totals {
            running: count(TaskState::Running) + count(TaskState::Assigned),
            input_required: count(TaskState::InputRequired),
            queued: pools.iter().map(|pool| pool.queued).sum::<i64>().max(count(TaskState::Queued) as i64),
            pending: count(TaskState::Pending),
            workers: pools.iter().map(|pool| pool.ready + pool.draining).sum(),
            cost_per_minute_micro_usd: rate as i64,
        };
        let mut tasks: Vec<_> = self.tasks.values().filter(|task| choice.show.fits(state_of(task))).collect();
        tasks.sort_by_cached_key(|task| choice.sort.key(task));
        let tasks = tasks.into_iter().map(|task| row(task, self.begun(task), now)).collect();
        Snapshot { pools, totals, tasks, more: self.more }
    }

    /// The beginning of the attempt that a task is at, if it is known.
    fn begun(&self, task: &Task) -> Option<Begun> {
        let status = task.status.as_ref()?;
        let first = status.start_time.as_ref().filter(|_| status.attempt <= 1).map(moment);
        let first = first.map(|at| Begun { attempt: status.attempt, at, cost: 0 });
        first.or_else(|| self.begun.get(&task.uid).filter(|begun| begun.attempt == status.attempt).copied())
    }
}

/// Whether a worker took an attempt. Of an answer to its question it was not taken anew.
fn begins(event: &Event) -> bool {
    match &event.kind {
        Some(event::Kind::State(change)) => {
            change.to() == TaskState::Running && change.from() != TaskState::InputRequired
        }
        _ => false,
    }
}

pub fn cost(task: &Task) -> i64 {
    let usage = task.status.as_ref().and_then(|status| status.usage.as_ref());
    usage.map_or(0, |usage| usage.cost_micro_usd)
}

/// What there is to see.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    pub totals: Totals,
    pub pools: Vec<Pool>,
    pub tasks: Vec<Row>,
    /// There are more tasks than are listed.
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
    /// What the tasks of the last minute cost in it, each taken to spend evenly while it ran.
    pub cost_per_minute_micro_usd: i64,
}

/// An agent's pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    pub namespace: String,
    pub agent: String,
    /// Workers that take tasks.
    pub ready: i64,
    pub busy: i64,
    pub idle: i64,
    pub draining: i64,
    pub queued: i64,
    pub running: i64,
    pub floor: u32,
    pub ceiling: u32,
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
        ceiling: scaling::ceiling(floor, small(spec.max_replicas)),
    }
}

/// A task.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub task: String,
    pub name: String,
    pub state: &'static str,
    pub target: String,
    pub worker: String,
    pub attempt: i32,
    /// Seconds in which its attempt runs, or it waits for its slot, or exists, whichever is its state. Not known of a
    /// later attempt whose start was not seen.
    #[serde(rename = "forSeconds", serialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub lasted: Option<Duration>,
    pub cost_micro_usd: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// What it does, or waits for.
    pub doing: String,
    #[serde(skip)]
    pub is: TaskState,
}

#[expect(clippy::ref_option, reason = "serde asks so")]
fn whole<S: serde::Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs()).serialize(serializer)
}

fn row(task: &Task, begun: Option<Begun>, now: SystemTime) -> Row {
    let status = task.status.clone().unwrap_or_default();
    let made = task.create_time.as_ref();
    let since = match status.state() {
        TaskState::Running | TaskState::InputRequired => begun.map(|begun| begun.at),
        TaskState::Queued | TaskState::Assigned => status.ready_time.as_ref().or(made).map(moment),
        _ => made.map(moment),
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

/// What a task's attempt cost within the window, if it spent evenly while it ran. Nothing if nobody knows since when.
fn spent(task: &Task, begun: Option<Begun>, now: SystemTime) -> f64 {
    let (Some(begun), Some(status)) = (begun, &task.status) else { return 0.0 };
    let (start, cost) = (begun.at, cost(task) - begun.cost);
    if cost <= 0 {
        return 0.0;
    }
    let end = status.end_time.as_ref().map_or(now, moment);
    let begins = now.checked_sub(WINDOW).map_or(start, |from| from.max(start));
    let (within, ran) = (between(begins, end.min(now)), between(start, end));
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let cost = cost as f64;
    match ran.is_zero() {
        // It cost something in no time: all of it, if that was within the window.
        true => {
            if begins <= end {
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
    end.is_some_and(|end| between(end, now) < WINDOW)
}

#[cfg(test)]
mod tests;
