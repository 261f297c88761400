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
        let task = v1::Task { spec: Some(spec), ..Default::default() };
        self.execute_task(&names::namespace(NAMESPACE), task).await
    }

    /// As [`Client::execute`], for any task in any namespace, such as `namespaces/team`.
    pub async fn execute_task(&self, parent: &str, task: v1::Task) -> Result<Execution, Error> {
        let request =
            v1::CreateTaskRequest { parent: parent.to_owned(), task: Some(task), ..Default::default() };
        let mut task = Box::pin(self.create_task(request)).await?;
        let mut workers = Workers { parent, ..Workers::default() };
        if let Some(target::Kind::Agent(agent)) =
            task.spec.as_ref().and_then(|spec| spec.target.as_ref()?.kind.as_ref())
        {
            // No other agent has workers for it.
            workers.only = Some(agent.clone());
        }
        let mut watch = self.watch_task(task.name.clone(), 0);
        while let Some(update) = watch.next().await {
            let update = update?;
            for event in &update.events {
                if let Some(event::Kind::State(change)) = &event.kind {
                    workers.note(self, change).await;
                }
            }
            task = update.task.unwrap_or(task);
        }
        Ok(Execution::new(task, workers.agents))
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

/// Workers of a task, and their agents.
#[derive(Default)]
struct Workers<'a> {
    parent: &'a str,
    /// Agent of all of them, if the task names one.
    only: Option<String>,
    seen: BTreeSet<String>,
    agents: BTreeSet<String>,
}

impl Workers<'_> {
    /// Remembers the agent of a worker that has got the task. A namespace that cannot be listed leaves out a name, and not the
    /// result of a task that runs.
    async fn note(&mut self, client: &Client, change: &v1::StateChange) {
        let is_new = change.to() == v1::TaskState::Assigned && self.seen.insert(change.worker.clone());
        if !is_new {
            return;
        }
        if let Some(agent) = &self.only {
            self.agents.insert(agent.clone());
            return;
        }
        let Ok(workers) = client.all_workers(self.parent, "").await else { return };
        let named = workers.into_iter().find(|worker| names::last(&worker.name) == change.worker);
        self.agents.extend(named.map(|worker| worker.agent));
    }
}
