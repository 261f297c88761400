//! Tasks that wait because of a host or a storage, which no check of agents and workers shows: a host of repositories whose key has
//! changed, or that refuses credentials, or does not respond; a storage that does not take what attempts leave.

use std::collections::BTreeMap;
use std::future::ready;
use std::time::Duration;

use futures::{StreamExt, stream};
use rota_client::discover::Found;
use rota_client::{Client, Code, Error};
use rota_proto::causes::{ARTIFACTS_FULL, ARTIFACTS_UNAVAILABLE, DELIVERY, RETRY_DELAY, STORING};
use rota_proto::names;
use rota_proto::v1::{
    Cause, ExplainTaskRequest, FailureClass, ListTasksRequest, Task, TaskFilter, TaskState,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Check;
use crate::output::duration;

const NAME: &str = "tasks";
/// Time for all calls of this check together.
const CALLS_TIMEOUT: Duration = Duration::from_secs(5);
/// Tasks of each state that are listed, newest first.
const MAX_LISTED: usize = 1000;
/// Tasks whose causes are looked up.
const MAX_TASKS: usize = 100;
/// Calls at the same time.
const CONCURRENCY: usize = 8;
/// Remedies that are reported at most.
const MAX_REASONS: usize = 5;
/// Codes of causes that are of a host or a storage, or have the failure of the last attempt.
const CODES: [&str; 5] = [RETRY_DELAY, DELIVERY, STORING, ARTIFACTS_UNAVAILABLE, ARTIFACTS_FULL];

/// Causes of the tasks that wait, as far as the control plane answered in time.
#[derive(Debug)]
struct Answers {
    causes: Vec<Cause>,
    /// Tasks beyond the largest number, and those without an answer.
    missing: usize,
}

/// Returns a check for each remedy that tasks of the namespace wait for. None if there are none, or they cannot be read.
pub async fn checks(client: &Client, found: &Found) -> Vec<Check> {
    let deadline = Instant::now() + CALLS_TIMEOUT;
    let names = match timeout_at(deadline, waiting(client, &names::namespace(&found.namespace))).await {
        Ok(Ok(names)) => names,
        Ok(Err(_)) => return Vec::new(),
        Err(_) => {
            let message = format!("those that wait were not listed within {}", duration(CALLS_TIMEOUT));
            return vec![Check::warn(NAME, message, "see the control plane's log and `rota admin status`")];
        }
    };
    let explain = async |name| {
        match client.explain_task(ExplainTaskRequest { name }).await {
            Ok(answer) => Ok(remedy(answer.causes)),
            // One that is removed meanwhile waits no more.
            Err(error) if error.code == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    };
    report(ask(names, explain, deadline).await)
}

/// Lists the tasks that wait to be tried again, and those whose attempt has only files to store or to deliver.
async fn waiting(client: &Client, parent: &str) -> Result<Vec<String>, Error> {
    let list = |state: TaskState, classes: &[FailureClass]| {
        let filter = TaskFilter {
            states: vec![state.into()],
            failure_classes: classes.iter().map(|class| (*class).into()).collect(),
            ..TaskFilter::default()
        };
        let parent = parent.to_owned();
        let request = ListTasksRequest { parent, filter: Some(filter), ..ListTasksRequest::default() };
        client.all_tasks(request, Some(MAX_LISTED))
    };
    let (pending, running) = tokio::try_join!(
        list(TaskState::Pending, &[FailureClass::Source, FailureClass::Delivery]),
        list(TaskState::Running, &[]),
    )?;
    let delivers = |task: &Task| task.status.as_ref().is_some_and(|status| status.delivering);
    let running = running.into_iter().filter(delivers);
    Ok(running.chain(pending).map(|task| task.name).collect())
}

/// Returns the first cause of a host or a storage for which there is a remedy.
fn remedy(causes: Vec<Cause>) -> Option<Cause> {
    causes.into_iter().find(|cause| CODES.contains(&&*cause.code) && !cause.hint.is_empty())
}

/// Asks about tasks until a deadline, some at the same time.
async fn ask<E>(
    names: Vec<String>,
    explain: impl AsyncFn(String) -> Result<Option<Cause>, E>,
    deadline: Instant,
) -> Answers {
    let all = names.len();
    let explain = &explain;
    let asked = names.into_iter().take(MAX_TASKS).enumerate();
    let answers = stream::iter(asked.map(|(index, name)| async move { (index, explain(name).await) }));
    let answers = answers.buffer_unordered(CONCURRENCY).take_until(sleep_until(deadline));
    let answers = answers.filter_map(|(index, answer)| ready(answer.ok().map(|cause| (index, cause))));
    // In the order in which they were listed.
    let answers: BTreeMap<usize, Option<Cause>> = answers.collect().await;
    Answers { missing: all - answers.len(), causes: answers.into_values().flatten().collect() }
}

/// Reports each remedy once, with the reason of the first task that needs it, and how many tasks are not known.
fn report(Answers { causes, missing }: Answers) -> Vec<Check> {
    let mut remedies: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for Cause { message, hint, .. } in causes {
        remedies.entry(hint).or_insert((message, 0)).1 += 1;
    }
    let check = |(hint, (message, tasks)): (String, (String, usize))| {
        let which = if tasks == 1 { "1 task waits".to_owned() } else { format!("{tasks} tasks wait") };
        Check::warn(NAME, format!("{which}: {message}"), hint)
    };
    let unknown = (missing > 0).then(|| {
        let message = format!(
            "the causes of {missing} more that wait are not known: at most {MAX_TASKS} are asked about, within {}",
            duration(CALLS_TIMEOUT)
        );
        Check::warn(NAME, message, "`rota explain TASK` has the cause of one")
    });
    remedies.into_iter().take(MAX_REASONS).map(check).chain(unknown).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn cause(code: &str, message: &str, hint: &str) -> Cause {
        Cause { code: code.to_owned(), message: message.to_owned(), hint: hint.to_owned() }
    }

    #[test]
    fn changed_host_keys_are_reported_once() {
        let key = "if the host has a new key: `ssh-keygen -R 'git.example' -f '/state/git-home/known_hosts'`";
        let causes = vec![
            cause(RETRY_DELAY, "git fetch: Host key verification failed.", key),
            cause(RETRY_DELAY, "git fetch: Host key verification failed.", key),
            cause(STORING, "the storage is full", "make room"),
        ];
        let checks = report(Answers { causes, missing: 0 });
        assert_eq!(checks.len(), 2, "{checks:?}");
        assert!(checks.iter().all(|check| check.name == "tasks" && check.verdict == Verdict::Warn));
        assert_eq!(checks[0].hint, key);
        assert_eq!(checks[0].message, "2 tasks wait: git fetch: Host key verification failed.");
        assert_eq!(checks[1].message, "1 task waits: the storage is full");
        assert!(report(Answers { causes: Vec::new(), missing: 0 }).is_empty());
    }

    #[test]
    fn causes_without_remedy_are_passed_over() {
        let is_delivered = cause(DELIVERY, "the work of attempt 1 is done, and is being delivered", "");
        let stores = cause(STORING, "worker w has the work on its disk", "check the storage");
        assert_eq!(remedy(vec![is_delivered.clone(), stores.clone()]), Some(stores));
        assert_eq!(remedy(vec![is_delivered, cause("start_time", "later", "wait")]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_came_in_time_are_kept() {
        let (first, later) = (Duration::from_secs(1), Duration::from_secs(60));
        let begun = std::cell::Cell::new(0);
        let explain = async |name: String| {
            begun.set(begun.get() + 1);
            match name.as_str() {
                "refused" => return Err("not now"),
                "slow" => tokio::time::sleep(later).await,
                _ => tokio::time::sleep(first).await,
            }
            Ok(Some(cause(RETRY_DELAY, &name, "the same for all")))
        };
        let names = ["slow", "one", "two", "refused", "three"].map(str::to_owned).to_vec();
        let answers = ask(names, explain, Instant::now() + CALLS_TIMEOUT).await;
        assert_eq!((answers.missing, answers.causes.len(), begun.get()), (2, 3, 5), "{answers:?}");
        let checks = report(answers);
        assert_eq!(checks[0].message, "3 tasks wait: one");
        assert!(checks[1].message.starts_with("the causes of 2 more that wait are not known"), "{checks:?}");
        // Tasks beyond the largest number are known to be missing, and no more calls run at the same time than are allowed.
        let (running, most) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let explain = async |_: String| {
            running.set(running.get() + 1);
            most.set(running.get().max(most.get()));
            tokio::time::sleep(Duration::from_millis(1)).await;
            running.set(running.get() - 1);
            Ok::<_, ()>(None)
        };
        let answers = ask(vec![String::new(); MAX_TASKS + 3], explain, Instant::now() + CALLS_TIMEOUT).await;
        assert_eq!((answers.missing, most.get()), (3, CONCURRENCY), "{answers:?}");
    }
}
