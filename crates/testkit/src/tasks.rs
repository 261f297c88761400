//! Short ways to say which agents and tasks a test means.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use rota_client::Client;
use rota_proto::names;
use rota_proto::v1::{self, script_step::Kind as Step};

/// The namespace of all tests.
pub const NAMESPACE: &str = "default";
/// Longest wait for anything; only a broken system comes near it.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A script.
pub fn script(steps: impl IntoIterator<Item = Step>) -> v1::Runtime {
    let steps = steps.into_iter().map(|kind| v1::ScriptStep { kind: Some(kind) }).collect();
    v1::Runtime { kind: Some(v1::runtime::Kind::Scripted(v1::ScriptedRuntime { steps, seed: 0 })) }
}

/// A span of time on the wire.
pub fn millis(millis: u64) -> pbjson_types::Duration {
    let wait = Duration::from_millis(millis);
    pbjson_types::Duration {
        seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(wait.subsec_nanos()).unwrap_or(0),
    }
}

/// An agent with that runtime, whose workers come by themselves.
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
        ..Default::default()
    };
    let agent = v1::Agent { name: names::agent(NAMESPACE, name), spec: Some(spec), ..Default::default() };
    let request = v1::UpdateAgentRequest { agent: Some(agent), allow_missing: true, ..Default::default() };
    Ok(client.update_agent(request).await?)
}

/// A task for an agent.
pub fn task(agent: &str) -> v1::Task {
    let target = v1::Target { kind: Some(v1::target::Kind::Agent(agent.to_owned())) };
    v1::Task { spec: Some(v1::TaskSpec { target: Some(target), ..Default::default() }), ..Default::default() }
}

/// A task for one worker.
pub fn task_on(worker: &str) -> v1::Task {
    let target = v1::Target { kind: Some(v1::target::Kind::Worker(worker.to_owned())) };
    v1::Task { spec: Some(v1::TaskSpec { target: Some(target), ..Default::default() }), ..Default::default() }
}

/// A task for an agent, with a script of its own.
pub fn scripted(agent: &str, steps: impl IntoIterator<Item = Step>) -> v1::Task {
    let mut task = task(agent);
    task.spec.get_or_insert_default().runtime = Some(script(steps));
    task
}

/// Hands a task in.
pub async fn create(client: &Client, task: v1::Task) -> Result<v1::Task> {
    let request =
        v1::CreateTaskRequest { parent: names::namespace(NAMESPACE), task: Some(task), ..Default::default() };
    Ok(client.create_task(request).await?)
}

/// Waits until a task is as wanted, and gives it as it is then.
pub async fn until(
    client: &Client,
    name: &str,
    wanted: impl Fn(&v1::TaskStatus) -> bool,
) -> Result<v1::Task> {
    let wait = async {
        let mut watch = client.watch_task(name, 0);
        while let Some(update) = watch.next().await {
            let task = update?.task.context("an update without a task")?;
            if task.status.as_ref().is_some_and(&wanted) {
                return Ok(task);
            }
        }
        bail!("{name} ended otherwise than was waited for")
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(waited) => waited,
        Err(_) => {
            let now = get(client, name).await?;
            let steps = steps(&log(client, name).await?);
            bail!("{name} did not get there: {:?}, after {steps:?}", now.status)
        }
    }
}

/// Waits until a task is in a state.
pub async fn until_state(client: &Client, name: &str, state: v1::TaskState) -> Result<v1::Task> {
    until(client, name, |status| status.state() == state)
        .await
        .with_context(|| format!("waiting for {state:?}"))
}

/// Waits for a task's end.
pub async fn ended(client: &Client, name: &str) -> Result<v1::Task> {
    until(client, name, |status| {
        matches!(status.state(), v1::TaskState::Succeeded | v1::TaskState::Failed | v1::TaskState::Cancelled)
    })
    .await
}

/// A task's whole log as it stands.
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
    tokio::time::timeout(PATIENCE, read).await.context("the log did not come")?
}

/// A state change, as `FROM>TO:reason`.
pub fn step(change: &v1::StateChange) -> String {
    let name = |state: v1::TaskState| state.as_str_name().trim_start_matches("TASK_STATE_").to_owned();
    format!("{}>{}:{}", name(change.from()), name(change.to()), change.reason)
}

/// The state changes of a log.
pub fn steps(log: &[v1::Event]) -> Vec<String> {
    log.iter()
        .filter_map(|event| match &event.kind {
            Some(v1::event::Kind::State(change)) => Some(step(change)),
            _ => None,
        })
        .collect()
}

/// What was printed, a piece an entry.
pub fn outputs(log: &[v1::Event]) -> Vec<String> {
    log.iter()
        .filter_map(|event| match &event.kind {
            Some(v1::event::Kind::Output(output)) => Some(String::from_utf8_lossy(&output.data).into_owned()),
            _ => None,
        })
        .collect()
}

/// The codes of a log's notices.
pub fn notices(log: &[v1::Event]) -> Vec<String> {
    log.iter()
        .filter_map(|event| match &event.kind {
            Some(v1::event::Kind::Notice(notice)) => Some(notice.code.clone()),
            _ => None,
        })
        .collect()
}

/// Answers the only question of a task.
pub async fn answer(client: &Client, name: &str, text: &str) -> Result<()> {
    let task = until(client, name, |status| !status.pending_input.is_empty()).await?;
    let request = task.status.and_then(|status| status.pending_input.into_iter().next());
    let request_id = request.context("no question is open")?.request_id;
    let input = v1::TaskInput { request_id, text: text.to_owned(), ..Default::default() };
    client.send_task_input(v1::SendTaskInputRequest { name: name.to_owned(), input: Some(input) }).await?;
    Ok(())
}

/// Asks for a task's end.
pub async fn cancel(client: &Client, name: &str) -> Result<v1::Task, rota_client::Error> {
    client.cancel_task(v1::CancelTaskRequest { name: name.to_owned(), reason: "enough".to_owned() }).await
}

/// One task.
pub async fn get(client: &Client, name: &str) -> Result<v1::Task, rota_client::Error> {
    client.get_task(v1::GetTaskRequest { name: name.to_owned() }).await
}

/// Changes fields of a task.
pub async fn update(client: &Client, task: v1::Task, paths: &[&str]) -> Result<v1::Task, rota_client::Error> {
    let paths = paths.iter().map(ToString::to_string).collect();
    let update_mask = Some(pbjson_types::FieldMask { paths });
    client.update_task(v1::UpdateTaskRequest { task: Some(task), update_mask, ..Default::default() }).await
}

/// Waits until something asked of the control plane is so.
pub async fn eventually<F>(what: &str, mut look: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let wait = async {
        while !look().await? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("never came: {what}"))?
}

/// Workers of the namespace, as they stand.
pub async fn workers(client: &Client) -> Result<Vec<v1::Worker>> {
    Ok(client.all_workers(&names::namespace(NAMESPACE), "").await?)
}

/// Waits until a worker's session is up.
pub async fn connected(client: &Client, name: &str) -> Result<()> {
    let name = names::worker(NAMESPACE, name);
    eventually("a session", async || {
        Ok(workers(client).await?.iter().any(|worker| worker.name == name && worker.connected))
    })
    .await
}
