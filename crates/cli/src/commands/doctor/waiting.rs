//! Tasks that wait to be tried again because of a host or a storage, which no check of agents and workers shows: a host of repositories
//! whose key has changed, or that refuses credentials, or does not respond.

use std::collections::BTreeMap;
use std::time::Duration;

use rota_client::Client;
use rota_client::discover::Found;
use rota_proto::causes::{DELIVERY, RETRY_DELAY};
use rota_proto::names;
use rota_proto::v1::{Cause, ExplainTaskRequest, FailureClass, ListTasksRequest, TaskFilter, TaskState};
use tokio::time::timeout;

use super::Check;

/// Time for all calls of this check together.
const CALLS_TIMEOUT: Duration = Duration::from_secs(5);
/// Tasks whose reasons are looked up, newest first.
const MAX_TASKS: usize = 20;
/// Remedies that are reported at most.
const MAX_REASONS: usize = 5;
/// Codes of the causes that have the failure of the last attempt.
const CODES: [&str; 2] = [RETRY_DELAY, DELIVERY];

/// Returns a check for each remedy that tasks of the namespace wait for. None if there are none, or they cannot be read.
pub async fn checks(client: &Client, found: &Found) -> Vec<Check> {
    let parent = names::namespace(&found.namespace);
    timeout(CALLS_TIMEOUT, causes(client, parent)).await.map_or_else(|_| Vec::new(), report)
}

async fn causes(client: &Client, parent: String) -> Vec<Cause> {
    let classes = [FailureClass::Source, FailureClass::Delivery];
    let filter = TaskFilter {
        states: vec![TaskState::Pending.into()],
        failure_classes: classes.map(Into::into).to_vec(),
        ..TaskFilter::default()
    };
    let request = ListTasksRequest { parent, filter: Some(filter), ..ListTasksRequest::default() };
    let Ok(tasks) = client.all_tasks(request, Some(MAX_TASKS)).await else { return Vec::new() };
    let mut found = Vec::new();
    for task in tasks {
        // One that is removed meanwhile waits no more.
        let Ok(answer) = client.explain_task(ExplainTaskRequest { name: task.name }).await else { continue };
        found.extend(answer.causes.into_iter().find(|cause| CODES.contains(&cause.code.as_str())));
    }
    found
}

/// Reports each remedy once, with the reason of the first task that needs it.
fn report(causes: Vec<Cause>) -> Vec<Check> {
    let mut remedies: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for Cause { message, hint, .. } in causes.into_iter().filter(|cause| !cause.hint.is_empty()) {
        remedies.entry(hint).or_insert((message, 0)).1 += 1;
    }
    let check = |(hint, (message, tasks)): (String, (String, usize))| {
        let which = if tasks == 1 { "1 task waits".to_owned() } else { format!("{tasks} tasks wait") };
        Check::warn("tasks", format!("{which}: {message}"), hint)
    };
    remedies.into_iter().take(MAX_REASONS).map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn changed_host_keys_are_reported_once() {
        let cause = |message: &str, hint: &str| Cause {
            code: RETRY_DELAY.to_owned(),
            message: message.to_owned(),
            hint: hint.to_owned(),
        };
        let key = "if the host has a new key: `ssh-keygen -R 'git.example' -f '/state/git-home/known_hosts'`";
        let checks = report(vec![
            cause("git fetch: Host key verification failed.", key),
            cause("nothing is known to help", ""),
            cause("git fetch: Host key verification failed.", key),
            cause("the storage is full", "make room"),
        ]);
        assert_eq!(checks.len(), 2, "{checks:?}");
        assert!(checks.iter().all(|check| check.name == "tasks" && check.verdict == Verdict::Warn));
        assert_eq!(checks[0].hint, key);
        assert_eq!(checks[0].message, "2 tasks wait: git fetch: Host key verification failed.");
        assert_eq!(checks[1].message, "1 task waits: the storage is full");
        assert!(report(Vec::new()).is_empty());
    }
}
