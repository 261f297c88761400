//! Builders of agents and tasks, calls with test defaults, and waits for states.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use rota_client::Client;
use rota_proto::names;
use rota_proto::v1::{self, script_step::Kind as Step};

/// Namespace of all tests.
pub const NAMESPACE: &str = "default";
/// Timeout of every wait; only a broken system comes near it.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(180);

/// Returns a scripted runtime with the given steps.
pub fn script(steps: impl IntoIterator<Item = Step>) -> v1::Runtime {
    let steps = steps.into_iter().map(|kind| v1::ScriptStep { kind: Some(kind) }).collect();
    v1::Runtime { kind: Some(v1::runtime::Kind::Scripted(v1::ScriptedRuntime { steps, seed: 0 })) }
}

/// Converts milliseconds to the duration type of the API.
pub fn millis(millis: u64) -> pbjson_types::Duration {
    let wait = Duration::from_millis(millis);
    pbjson_types::Duration {
        seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(wait.subsec_nanos()).unwrap_or(0),
    }
}

/// Creates or updates an agent whose workers are started by the test and whose tasks may set everything.
pub async fn agent(
    client: &Client,
    name: &str,
    runtime: v1::Runtime,
    capabilities: &[&str],
) -> Result<v1::Agent> {
    let spec = v1::AgentSpec {
        runtime: Some(runtime),
        capabilities: capabilities.iter().map(ToString::to_string).collect(),
        management: v1::Management::External.into(),
        overrides: v1::Overrides::All.into(),
        ..Default::default()
    };
    let agent = v1::Agent { name: names::agent(NAMESPACE, name), spec: Some(spec), ..Default::default() };
    let request = v1::UpdateAgentRequest { agent: Some(agent), allow_missing: true, ..Default::default() };
    Ok(client.update_agent(request).await?)
}

/// Returns a task for an agent.
pub fn task(agent: &str) -> v1::Task {
    let target = v1::Target { kind: Some(v1::target::Kind::Agent(agent.to_owned())) };
    v1::Task {
        spec: Some(Box::new(v1::TaskSpec { target: Some(target), ..Default::default() })),
        ..Default::default()
    }
}

/// Returns a task for one worker.
pub fn task_on(worker: &str) -> v1::Task {
    let target = v1::Target { kind: Some(v1::target::Kind::Worker(worker.to_owned())) };
    v1::Task {
        spec: Some(Box::new(v1::TaskSpec { target: Some(target), ..Default::default() })),
        ..Default::default()
    }
}

/// Returns a task for an agent that overrides the runtime with a script.
pub fn scripted(agent: &str, steps: impl IntoIterator<Item = Step>) -> v1::Task {
    let mut task = task(agent);
    task.spec.get_or_insert_default().runtime = Some(script(steps));
    task
}

/// Creates a task.
pub async fn create(client: &Client, task: v1::Task) -> Result<v1::Task> {
    let request =
        v1::CreateTaskRequest { parent: names::namespace(NAMESPACE), task: Some(task), ..Default::default() };
    Ok(Box::pin(client.create_task(request)).await?)
}

/// Waits until the status of a task meets a condition, and returns the task as it is then.
pub async fn until(
    client: &Client,
    name: &str,
    condition: impl Fn(&v1::TaskStatus) -> bool,
) -> Result<v1::Task> {
    until_within(WAIT_TIMEOUT, client, name, condition).await
}

async fn until_within(
    limit: Duration,
    client: &Client,
    name: &str,
    condition: impl Fn(&v1::TaskStatus) -> bool,
) -> Result<v1::Task> {
    let wait = async {
        let mut watch = client.watch_task(name, 0);
        while let Some(update) = watch.next().await {
            let task = update?.task.context("an update without a task")?;
            if task.status.as_deref().is_some_and(&condition) {
                return Ok(task);
            }
        }
        bail!("{name} ended without meeting the condition")
    };
    match tokio::time::timeout(limit, wait).await {
        Ok(waited) => waited,
        Err(_) => {
            let now = get(client, name).await?;
            let steps = steps(&log(client, name).await?);
            bail!("{name} did not meet the condition in time: {:?}, after {steps:?}", now.status)
        }
    }
}

/// Waits until a task is in a state.
pub async fn until_state(client: &Client, name: &str, state: v1::TaskState) -> Result<v1::Task> {
    until(client, name, |status| status.state() == state)
        .await
        .with_context(|| format!("waiting for {state:?}"))
}

/// Waits until a task has ended, in any final state.
pub async fn ended(client: &Client, name: &str) -> Result<v1::Task> {
    ended_within(WAIT_TIMEOUT, client, name).await
}

/// Like [`ended`], for work whose time grows with a size that the test was given.
pub async fn ended_within(limit: Duration, client: &Client, name: &str) -> Result<v1::Task> {
    until_within(limit, client, name, |status| {
        matches!(status.state(), v1::TaskState::Succeeded | v1::TaskState::Failed | v1::TaskState::Cancelled)
    })
    .await
}

/// Returns the log of a task up to now.
pub async fn log(client: &Client, name: &str) -> Result<Vec<v1::Event>> {
    let read = async {
        let mut watch = client.watch_task(name, 0);
        let mut events = Vec::new();
        while let Some(update) = watch.next().await {
            let update = update?;
            events.extend(update.events);
            let last = update.task.and_then(|task| task.status).map_or(0, |status| status.log_seq);
            if events.last().map_or(0, |event: &v1::Event| event.log_seq) >= last {
                break;
            }
        }
        Ok(events)
    };
    tokio::time::timeout(WAIT_TIMEOUT, read).await.context("timed out reading the log")?
}

/// Waits until a task has printed something.
pub async fn until_printed(client: &Client, name: &str) -> Result<()> {
    let read = async {
        let mut watch = client.watch_task(name, 0);
        while let Some(update) = watch.next().await {
            if !outputs(&update?.events).is_empty() {
                return Ok(());
            }
        }
        bail!("{name} has ended and printed nothing")
    };
    tokio::time::timeout(WAIT_TIMEOUT, read).await.with_context(|| format!("{name} prints nothing"))?
}

/// Formats a state change as `FROM>TO:reason`.
pub fn step(change: &v1::StateChange) -> String {
    let name = |state: v1::TaskState| state.as_str_name().trim_start_matches("TASK_STATE_").to_owned();
    format!("{}>{}:{}", name(change.from()), name(change.to()), change.reason)
}

/// Returns the state changes of a log, formatted by [`step`].
pub fn steps(log: &[v1::Event]) -> Vec<String> {
    log.iter()
        .filter_map(|event| match &event.kind {
            Some(v1::event::Kind::State(change)) => Some(step(change)),
            _ => None,
        })
        .collect()
}

/// Returns the output events of a log as text.
pub fn outputs(log: &[v1::Event]) -> Vec<String> {
    log.iter()
        .filter_map(|event| match &event.kind {
            Some(v1::event::Kind::Output(output)) => Some(String::from_utf8_lossy(&output.data).into_owned()),
            _ => None,
        })
        .collect()
}

/// Returns the codes of the notices in a log.
pub fn notices(log: &[v1::Event]) -> Vec<String> {
    log.iter()
        .filter_map(|event| match &event.kind {
            Some(v1::event::Kind::Notice(notice)) => Some(notice.code.clone()),
            _ => None,
        })
        .collect()
}

/// Waits for an input request of a task and answers it.
pub async fn answer(client: &Client, name: &str, text: &str) -> Result<()> {
    let task = until(client, name, |status| !status.pending_input.is_empty()).await?;
    let request = task.status.and_then(|status| status.pending_input.into_iter().next());
    let request_id = request.context("no pending input request")?.request_id;
    let input = v1::TaskInput { request_id, text: text.to_owned(), ..Default::default() };
    client.send_task_input(v1::SendTaskInputRequest { name: name.to_owned(), input: Some(input) }).await?;
    Ok(())
}

/// Requests cancellation of a task.
pub async fn cancel(client: &Client, name: &str) -> Result<v1::Task, rota_client::Error> {
    client.cancel_task(v1::CancelTaskRequest { name: name.to_owned(), reason: "enough".to_owned() }).await
}

/// Returns a task as it is now.
pub async fn get(client: &Client, name: &str) -> Result<v1::Task, rota_client::Error> {
    client.get_task(v1::GetTaskRequest { name: name.to_owned() }).await
}

/// Updates the fields of a task that `paths` name.
pub async fn update(client: &Client, task: v1::Task, paths: &[&str]) -> Result<v1::Task, rota_client::Error> {
    let paths = paths.iter().map(ToString::to_string).collect();
    let update_mask = Some(pbjson_types::FieldMask { paths });
    client.update_task(v1::UpdateTaskRequest { task: Some(task), update_mask, ..Default::default() }).await
}

/// Polls a condition until it holds, for what no watch reports.
pub async fn eventually<F>(condition: &str, mut holds: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let wait = async {
        while !holds().await? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    tokio::time::timeout(WAIT_TIMEOUT, wait)
        .await
        .with_context(|| format!("timed out waiting for {condition}"))?
}

/// Returns all workers of the namespace.
pub async fn workers(client: &Client) -> Result<Vec<v1::Worker>> {
    Ok(client.all_workers(&names::namespace(NAMESPACE), "").await?)
}

/// Waits until a worker is connected.
pub async fn connected(client: &Client, name: &str) -> Result<()> {
    let name = names::worker(NAMESPACE, name);
    eventually("a session", async || {
        Ok(workers(client).await?.iter().any(|worker| worker.name == name && worker.connected))
    })
    .await
}
