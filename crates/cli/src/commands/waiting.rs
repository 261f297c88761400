//! Says what a task waits for, while one waits for it: nobody should look at nothing and wonder.

use std::collections::BTreeSet;
use std::time::Duration;

use rota_client::watch::is_final;
use rota_proto::names;
use rota_proto::v1::{ExplainTaskRequest, Task, TaskState, WaitReason};
use tokio::time::{Instant, sleep_until, timeout};

use super::state_of;
use crate::context::Context;

/// Before anything is said: most waits are over by then, since workers start on demand.
const SOON: Duration = Duration::from_secs(2);
/// Until it is looked at again: what a task waits for changes without a word in its log.
const AGAIN: Duration = Duration::from_secs(30);
/// For the server to explain.
const PATIENCE: Duration = Duration::from_secs(5);
/// Tasks that are looked at.
const MOST: usize = 10;
/// Agents that are named.
const NAMES: usize = 5;
/// What is over by itself, or changes all the time.
const PASSING: [&str; 5] = ["dispatching", "behind", "not_taken_yet", "busy_with", "pool_starting"];

/// What has been said so far.
#[derive(Debug)]
pub struct Waiting {
    look_at: Instant,
    said: BTreeSet<String>,
}

impl Waiting {
    pub fn new() -> Self {
        Self { look_at: Instant::now() + SOON, said: BTreeSet::new() }
    }

    /// Something has happened: what holds a task now is perhaps another thing.
    pub fn moved(&mut self) {
        self.look_at = self.look_at.min(Instant::now() + SOON);
    }

    /// When it is time to [`Waiting::look`].
    pub async fn due(&self) {
        sleep_until(self.look_at).await;
    }

    /// Says what these tasks wait for, each reason once.
    pub async fn look(&mut self, context: &Context, tasks: &[&str]) {
        self.look_at = Instant::now() + AGAIN;
        for task in tasks.iter().take(MOST) {
            let request = ExplainTaskRequest { name: (*task).to_owned() };
            // Whoever waits learns of a lost server from the wait itself.
            let Ok(Ok(told)) = timeout(PATIENCE, context.client.explain_task(request)).await else { return };
            let missing = told.task.as_ref().and_then(missing_agent);
            for cause in told.causes.iter().filter(|cause| !PASSING.contains(&cause.code.as_str())) {
                let of = if tasks.len() > 1 { format!("{}: ", names::last(task)) } else { String::new() };
                if !self.said.insert(format!("{of}{}", cause.message)) {
                    continue;
                }
                context.talk.note("waiting", &format!("{of}{}", cause.message));
                let known = match missing.as_deref().filter(|_| cause.code == "agent_missing") {
                    Some(missing) => known_agents(context, told.task.as_ref(), missing).await,
                    None => None,
                };
                let hint = known.as_ref().unwrap_or(&cause.hint);
                if !hint.is_empty() {
                    context.talk.hint(hint);
                }
            }
        }
    }
}

/// Those of some tasks that are not on a worker yet.
pub fn waiting(tasks: &[Task]) -> Vec<&str> {
    let waits = |task: &&Task| {
        let state = state_of(task);
        !is_final(state) && state != TaskState::Running
    };
    tasks.iter().filter(waits).map(|task| task.name.as_str()).collect()
}

fn missing_agent(task: &Task) -> Option<String> {
    let waits = task.status.as_ref()?.waiting.iter();
    waits.filter(|wait| wait.reason() == WaitReason::AgentMissing).map(|wait| wait.what.clone()).next()
}

/// The agents that there are, the one most like the missing one first.
async fn known_agents(context: &Context, task: Option<&Task>, missing: &str) -> Option<String> {
    let (namespace, _) = names::parse(&task?.name, "tasks")?;
    let all = timeout(PATIENCE, context.client.all_agents(&names::namespace(namespace))).await.ok()?.ok()?;
    nearest(missing, all.iter().map(|agent| names::last(&agent.name)).collect())
}

fn nearest(wanted: &str, mut there: Vec<&str>) -> Option<String> {
    there.sort_by_key(|name| (strsim::damerau_levenshtein(wanted, name), *name));
    let more = if there.len() > NAMES { ", …" } else { "" };
    there.truncate(NAMES);
    (!there.is_empty())
        .then(|| format!("there are the agents {}{more}; or apply a manifest of {wanted}", there.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_comes_first() {
        let hint = nearest("coder", vec!["reviewer", "shell", "codre"]).unwrap();
        assert!(hint.starts_with("there are the agents codre, shell, reviewer;"), "{hint}");
        assert!(nearest("x", vec!["a", "b", "c", "d", "e", "f"]).unwrap().contains("e, …;"));
        assert_eq!(nearest("coder", Vec::new()), None);
    }
}
