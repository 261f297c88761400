//! Statistics over the tasks of a time range. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rota_proto::v1::{Task, TaskState, TaskStatus, Wait, WaitReason};
use serde::Serialize;

use super::section::Section;
use crate::commands::describe::flow::ApiDuration;
use crate::commands::state_of;
use crate::output::{
    between, count, duration, first_line, moment, money, name, plain, state, target, time, word,
};

/// Maximum number of tasks listed as slowest.
const MAX_SLOWEST: usize = 10;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    since: String,
    until: String,
    tasks: usize,
    /// The time range has more tasks than the limit.
    more: bool,
    outcomes: BTreeMap<&'static str, usize>,
    times: Vec<Times>,
    retries: Retries,
    by_agent: Vec<Spent>,
    by_model: Vec<Spent>,
    failures: Vec<Failures>,
    /// Tasks that wait for a model credential, by limit.
    limits: Vec<Limited>,
    slowest: Vec<Slow>,
}

/// Distribution of a duration.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Times {
    what: &'static str,
    tasks: usize,
    median: ApiDuration,
    p95: ApiDuration,
    longest: ApiDuration,
    all: ApiDuration,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Retries {
    /// Tasks that needed more than one attempt.
    tasks: usize,
    /// Attempts beyond each task's first.
    attempts: i64,
    workers_lost: i64,
}

/// Usage by an agent or a model.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spent {
    name: String,
    tasks: usize,
    succeeded: usize,
    failed: usize,
    tokens_in: i64,
    tokens_out: i64,
    cost_micro_usd: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failures {
    class: String,
    tasks: usize,
    /// Message of one of them.
    example: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Limited {
    limit: String,
    tasks: usize,
    /// When the last of them continues.
    until: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Slow {
    task: String,
    name: String,
    state: &'static str,
    tries: i32,
    /// Time from the first start to the end.
    ran: ApiDuration,
}

impl Report {
    pub fn of(tasks: &[Task], from: SystemTime, now: SystemTime, more: bool) -> Self {
        let mut outcomes = BTreeMap::new();
        let mut retries = Retries::default();
        let (mut agents, mut models) = (BTreeMap::new(), BTreeMap::new());
        let mut failures: BTreeMap<String, Failures> = BTreeMap::new();
        let mut limits: BTreeMap<String, Limited> = BTreeMap::new();
        let (mut waited, mut ran, mut slowest) = (Vec::new(), Vec::new(), Vec::new());
        for task in tasks {
            let status = task.status.clone().unwrap_or_default();
            *outcomes.entry(state(status.state())).or_default() += 1;
            retries.tasks += usize::from(status.attempt > 1);
            retries.attempts += i64::from((status.attempt - 1).max(0));
            retries.workers_lost += i64::from(status.worker_losses);
            spend(&mut agents, target(task), task, &status);
            let model = status.usage.as_ref().map_or("", |usage| &usage.model);
            if !model.is_empty() {
                spend(&mut models, model.to_owned(), task, &status);
            }
            let is_limit = |wait: &&Wait| matches!(wait.reason(), WaitReason::Quota | WaitReason::Budget);
            if let Some(wait) = status.waiting.iter().find(is_limit) {
                let new = || Limited { limit: wait.subject.clone(), tasks: 0, until: String::new() };
                let one = limits.entry(wait.subject.clone()).or_insert_with(new);
                one.tasks += 1;
                one.until = time(wait.until.as_ref()).max(std::mem::take(&mut one.until));
            }
            if let Some(failure) = &status.failure {
                let class = word(failure.class().as_str_name(), "FAILURE_CLASS_");
                let new = || Failures {
                    class: class.clone(),
                    tasks: 0,
                    example: first_line(&failure.message, 100),
                };
                failures.entry(class.clone()).or_insert_with(new).tasks += 1;
            }
            let time = |at: &Option<pbjson_types::Timestamp>| at.as_ref().map(moment);
            let end = time(&status.end_time);
            let start = time(&status.start_time);
            // A record has the ready time of the last attempt and the start time of the first: the wait of a task with
            // several attempts is unknown.
            if let (Some(ready), Some(start), true) = (time(&status.ready_time), start, status.attempt <= 1)
                && ready <= start
            {
                waited.push(between(ready, start));
            }
            if let (Some(start), Some(end)) = (start, end) {
                ran.push(between(start, end));
                slowest.push((between(start, end), task));
            }
        }
        slowest.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.uid.cmp(&other.uid)));
        let slow = |(span, task): (Duration, &Task)| Slow {
            task: task.name.clone(),
            name: name(task).to_owned(),
            state: state(state_of(task)),
            tries: task.status.as_ref().map_or(0, |status| status.attempt),
            ran: ApiDuration(span),
        };
        let mut failures: Vec<_> = failures.into_values().collect();
        failures.sort_by_key(|one| std::cmp::Reverse(one.tasks));
        let moments = |at| humantime::format_rfc3339_seconds(at).to_string();
        Self {
            since: moments(from),
            until: moments(now),
            tasks: tasks.len(),
            more,
            outcomes,
            times: [times("queued", waited), times("first start to end", ran)]
                .into_iter()
                .flatten()
                .collect(),
            retries,
            by_agent: by_cost(agents),
            by_model: by_cost(models),
            failures,
            limits: limits.into_values().collect(),
            slowest: slowest.into_iter().take(MAX_SLOWEST).map(slow).collect(),
        }
    }

    pub fn title(&self) -> String {
        let tasks = count(rota_proto::num::to_i64(self.tasks), "task");
        format!("{tasks} from {} to {}", self.since, self.until)
    }

    pub fn sections(&self) -> Vec<Section> {
        let outcomes = self.outcomes.iter().map(|(state, count)| {
            vec![(*state).to_owned(), count.to_string(), format!("{}%", count * 100 / self.tasks.max(1))]
        });
        let times = self.times.iter().map(|one| {
            let spans = [one.median, one.p95, one.longest, one.all].map(|span| duration(span.0));
            [vec![one.what.to_owned(), one.tasks.to_string()], spans.to_vec()].concat()
        });
        let Retries { tasks, attempts, workers_lost } = &self.retries;
        let retries = match tasks + usize::from(*workers_lost > 0) {
            0 => Vec::new(),
            _ => vec![vec![tasks.to_string(), attempts.to_string(), workers_lost.to_string()]],
        };
        let spent = |all: &[Spent]| {
            let row = |one: &Spent| {
                let counts = [one.tasks, one.succeeded, one.failed].map(|count| count.to_string());
                let tokens = [one.tokens_in, one.tokens_out].map(|count| count.to_string());
                [vec![one.name.clone()], counts.to_vec(), tokens.to_vec(), vec![money(one.cost_micro_usd)]]
                    .concat()
            };
            all.iter().map(row).collect()
        };
        let columns = ["TASKS", "SUCCEEDED", "FAILED", "TOKENS IN", "TOKENS OUT", "COST"];
        let header = |first| [&[first][..], &columns].concat();
        let failures = self
            .failures
            .iter()
            .map(|one| vec![one.class.clone(), one.tasks.to_string(), one.example.clone()]);
        let limits =
            (self.limits.iter()).map(|one| vec![plain(&one.limit), one.tasks.to_string(), one.until.clone()]);
        let slowest = self.slowest.iter().map(|one| {
            vec![one.name.clone(), one.state.to_owned(), one.tries.to_string(), duration(one.ran.0)]
        });
        vec![
            Section::new("Outcomes", &["STATE", "TASKS", "SHARE"], outcomes.collect()),
            Section::new("Times", &["TIME", "TASKS", "MEDIAN", "P95", "MAX", "TOTAL"], times.collect()),
            Section::new("Retries", &["TASKS", "RETRIES", "WORKERS LOST"], retries),
            Section::new("By agent", &header("AGENT"), spent(&self.by_agent)),
            Section::new("By model", &header("MODEL"), spent(&self.by_model)),
            Section::new("Failures", &["CLASS", "TASKS", "EXAMPLE"], failures.collect()),
            Section::new("Waiting for a limit", &["LIMIT", "TASKS", "UNTIL"], limits.collect()),
            Section::new("Slowest", &["TASK", "STATE", "ATTEMPTS", "FIRST START TO END"], slowest.collect()),
        ]
    }
}

fn spend(all: &mut BTreeMap<String, Spent>, name: String, task: &Task, status: &TaskStatus) {
    let one = all.entry(name.clone()).or_insert_with(|| Spent { name, ..Spent::default() });
    one.tasks += 1;
    one.succeeded += usize::from(state_of(task) == TaskState::Succeeded);
    one.failed += usize::from(state_of(task) == TaskState::Failed);
    if let Some(usage) = &status.usage {
        one.tokens_in += usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens;
        one.tokens_out += usage.output_tokens;
        one.cost_micro_usd += usage.cost_micro_usd;
    }
}

/// Sorts by cost, then by number of tasks, both descending.
fn by_cost(all: BTreeMap<String, Spent>) -> Vec<Spent> {
    let mut all: Vec<_> = all.into_values().collect();
    all.sort_by_key(|one| (std::cmp::Reverse((one.cost_micro_usd, one.tasks)), one.name.clone()));
    all
}

fn times(what: &'static str, mut spans: Vec<Duration>) -> Option<Times> {
    spans.sort_unstable();
    let longest = *spans.last()?;
    // Nearest-rank percentile.
    let at = |percent: usize| ApiDuration(spans[(spans.len() * percent).div_ceil(100).saturating_sub(1)]);
    let all = ApiDuration(spans.iter().sum());
    Some(Times { what, tasks: spans.len(), median: at(50), p95: at(95), longest: ApiDuration(longest), all })
}

#[cfg(test)]
mod tests;
