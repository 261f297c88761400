//! One call from a prompt to its result: a task is created and followed to its end. Knows no kinds; the control plane does.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use pbjson_types::{Struct, Timestamp};
use rota_proto::names;
use rota_proto::v1::{self, event, target};

use crate::{Client, Error};

/// Namespace in which [`Client::execute`] creates tasks.
const NAMESPACE: &str = "default";

/// An ended task, and what it took.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Execution {
    /// Whether the task succeeded; if it did not, `task.status.failure` has the cause.
    pub success: bool,
    /// Text of the result; empty if there is none.
    pub output: String,
    /// Data of the result, which match the result schema of the kind.
    pub data: Option<Struct>,
    /// Cost of all attempts, in millionths of a US dollar.
    pub cost_micro_usd: i64,
    /// Time from the start of the first attempt to the end of the task.
    pub time: Duration,
    /// Agents whose workers the task was assigned to. A worker that left before its agent was known is not counted.
    pub agents: Vec<String>,
    /// The task, with its result.
    pub task: v1::Task,
}

impl Client {
    /// Executes a prompt as a task of a kind, in the namespace `default`, and returns the task when it has ended, whatever the outcome. An
    /// empty kind presets nothing. Waits as long as the task takes: dropping the future leaves the task running.
    pub async fn execute(&self, prompt: &str, kind: &str) -> Result<Execution, Error> {
        let spec = v1::TaskSpec { prompt: prompt.to_owned(), kind: kind.to_owned(), ..Default::default() };
        let task = v1::Task { spec: Some(Box::new(spec)), ..Default::default() };
        self.execute_task(&names::namespace(NAMESPACE), task).await
    }

    /// As [`Client::execute`], for any task in any namespace, such as `namespaces/team`.
    pub async fn execute_task(&self, parent: &str, task: v1::Task) -> Result<Execution, Error> {
        let request =
            v1::CreateTaskRequest { parent: parent.to_owned(), task: Some(task), ..Default::default() };
        let mut task = Box::pin(self.create_task(request)).await?;
        let (mut seen, mut agents) = (BTreeSet::new(), BTreeSet::new());
        let mut watch = self.watch_task(task.name.clone(), 0);
        while let Some(update) = watch.next().await {
            let update = update?;
            for event in &update.events {
                if let Some(event::Kind::State(change)) = &event.kind
                    && change.to() == v1::TaskState::Assigned
                    && seen.insert(change.worker.clone())
                {
                    // Now, since the worker may leave before the task ends.
                    agents.extend(self.agents_used(&task, &BTreeSet::from([change.worker.clone()])).await);
                }
            }
            task = update.task.unwrap_or(task);
        }
        Ok(Execution::new(task, agents))
    }

    /// Returns the agents of workers that a task was assigned to. Those of workers that have left are not known; a namespace that
    /// cannot be listed leaves out names, and not the result of a task that runs.
    pub async fn agents_used(&self, task: &v1::Task, workers: &BTreeSet<String>) -> BTreeSet<String> {
        let spec = task.spec.as_ref();
        let target = spec.and_then(|spec| spec.target.as_ref()?.kind.as_ref());
        let escalates = |policy: &v1::RetryPolicy| policy.escalate.iter().any(|to| to.starts_with("agent/"));
        let may_change = spec.and_then(|spec| spec.retry.as_ref()).is_some_and(escalates);
        match target {
            _ if workers.is_empty() => BTreeSet::new(),
            // No other agent has workers for it.
            Some(target::Kind::Agent(agent)) if !may_change => BTreeSet::from([agent.clone()]),
            _ => {
                let namespace =
                    names::parse(&task.name, "tasks").map(|(namespace, _)| names::namespace(namespace));
                let Ok(all) = self.all_workers(&namespace.unwrap_or_default(), "").await else {
                    return BTreeSet::new();
                };
                let used = |worker: &v1::Worker| workers.contains(names::last(&worker.name));
                all.into_iter().filter(used).map(|worker| worker.agent).collect()
            }
        }
    }
}

impl Execution {
    fn new(task: v1::Task, agents: BTreeSet<String>) -> Self {
        let status = task.status.clone().unwrap_or_default();
        let micros = |time: &Timestamp| i128::from(time.seconds) * 1_000_000 + i128::from(time.nanos / 1000);
        let took = status.start_time.as_ref().zip(status.end_time.as_ref());
        let took = took.map_or(0, |(start, end)| micros(end) - micros(start));
        let success = status.state() == v1::TaskState::Succeeded;
        let result = status.result.unwrap_or_default();
        Self {
            success,
            output: result.text,
            data: result.data,
            cost_micro_usd: status.usage.map_or(0, |usage| usage.cost_micro_usd),
            time: Duration::from_micros(u64::try_from(took).unwrap_or(0)),
            agents: agents.into_iter().collect(),
            task,
        }
    }
}
