//! Reports why a task is pending while the user waits for it.

use std::collections::BTreeSet;
use std::time::Duration;

use rota_proto::v1::{ExplainTaskRequest, Task, TaskState, WaitReason};
use rota_proto::{causes, names};
use tokio::time::{Instant, sleep_until, timeout};

use super::state_of;
use crate::context::Context;

/// Delay before the first report: most waits end earlier, since workers start on demand.
const REPORT_DELAY: Duration = Duration::from_secs(2);
/// Interval between explanations: the reason can change without an event in the task's log.
const EXPLAIN_INTERVAL: Duration = Duration::from_secs(30);
/// Timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of tasks explained.
const MAX_TASKS: usize = 10;
/// Maximum number of agents listed in a hint.
const MAX_AGENTS: usize = 5;
/// Causes that resolve themselves or change all the time.
const TRANSIENT_CAUSES: [&str; 5] =
    [causes::DISPATCHING, causes::BEHIND, causes::NOT_TAKEN_YET, causes::BUSY_WITH, causes::POOL_STARTING];

/// Reporter of the causes of a wait.
#[derive(Debug)]
pub struct Waiting {
    next_report: Instant,
    reported: BTreeSet<String>,
}

impl Waiting {
    pub fn new() -> Self {
        Self { next_report: Instant::now() + REPORT_DELAY, reported: BTreeSet::new() }
    }

    /// Schedules a report soon: the cause may be another one now.
    pub fn task_changed(&mut self) {
        self.next_report = self.next_report.min(Instant::now() + REPORT_DELAY);
    }

    /// Waits until the next [`Waiting::report`] is due.
    pub async fn due(&self) {
        sleep_until(self.next_report).await;
    }

    /// Reports why tasks are pending, each cause once.
    pub async fn report(&mut self, context: &Context, tasks: &[&str]) {
        self.next_report = Instant::now() + EXPLAIN_INTERVAL;
        for task in tasks.iter().take(MAX_TASKS) {
            let request = ExplainTaskRequest { name: (*task).to_owned() };
            // The wait itself reports a lost server.
            let Ok(Ok(answer)) = timeout(CALL_TIMEOUT, context.client.explain_task(request)).await else {
                return;
            };
            let missing = answer.task.as_ref().and_then(missing_agent);
            for cause in answer.causes.iter().filter(|cause| !TRANSIENT_CAUSES.contains(&cause.code.as_str()))
            {
                let of = if tasks.len() > 1 { format!("{}: ", names::last(task)) } else { String::new() };
                if !self.reported.insert(format!("{of}{}", cause.message)) {
                    continue;
                }
                context.reporter.note("waiting", &format!("{of}{}", cause.message));
                let known = match missing.as_deref().filter(|_| cause.code == causes::AGENT_MISSING) {
                    Some(missing) => known_agents(context, answer.task.as_ref(), missing).await,
                    None => None,
                };
                let hint = known.as_ref().unwrap_or(&cause.hint);
                if !hint.is_empty() {
                    context.reporter.hint(hint);
                }
            }
        }
    }
}

/// Returns the names of the tasks that are not running yet.
pub fn pending(tasks: &[Task]) -> Vec<&str> {
    let is_pending = |task: &&Task| {
        let state = state_of(task);
        !state.is_final() && state != TaskState::Running
    };
    tasks.iter().filter(is_pending).map(|task| task.name.as_str()).collect()
}

fn missing_agent(task: &Task) -> Option<String> {
    let waits = task.status.as_ref()?.waiting.iter();
    waits.filter(|wait| wait.reason() == WaitReason::AgentMissing).map(|wait| wait.subject.clone()).next()
}

/// Returns a hint with the existing agents, the one most similar to the missing one first.
async fn known_agents(context: &Context, task: Option<&Task>, missing: &str) -> Option<String> {
    let (namespace, _) = names::parse(&task?.name, "tasks")?;
    let all =
        timeout(CALL_TIMEOUT, context.client.all_agents(&names::namespace(namespace))).await.ok()?.ok()?;
    nearest(missing, all.iter().map(|agent| names::last(&agent.name)).collect())
}

fn nearest(wanted: &str, mut agents: Vec<&str>) -> Option<String> {
    agents.sort_by_key(|name| (strsim::damerau_levenshtein(wanted, name), *name));
    let more = if agents.len() > MAX_AGENTS { ", …" } else { "" };
    agents.truncate(MAX_AGENTS);
    (!agents.is_empty())
        .then(|| format!("existing agents: {}{more}; or apply a manifest of {wanted}", agents.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_agent_is_listed_first() {
        let hint = nearest("coder", vec!["reviewer", "shell", "codre"]).unwrap();
        assert!(hint.starts_with("existing agents: codre, shell, reviewer;"), "{hint}");
        assert!(nearest("x", vec!["a", "b", "c", "d", "e", "f"]).unwrap().contains("e, …;"));
        assert_eq!(nearest("coder", Vec::new()), None);
    }
}
