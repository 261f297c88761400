//! The feed of all workflows: live, resumed, over HTTP, and after a restart.

use anyhow::{Context, Result};
use rota_proto::v1::{WatchWorkflowsRequest, WatchWorkflowsResponse, WorkflowState};
use rota_testkit::{Backend, Cluster, tasks};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::Streaming;

use super::{Api, WORKFLOWS};

async fn watch(cluster: &Cluster, parent: &str, token: &str) -> Result<Streaming<WatchWorkflowsResponse>> {
    let (parent, token) = (parent.to_owned(), token.to_owned());
    Ok(cluster.client().watch_workflows(WatchWorkflowsRequest { parent, token }).await?)
}

async fn next(stream: &mut Streaming<WatchWorkflowsResponse>) -> Result<WatchWorkflowsResponse> {
    timeout(tasks::WAIT_TIMEOUT, stream.message()).await??.context("the feed has ended")
}

/// Reads until a message fits.
async fn until(
    stream: &mut Streaming<WatchWorkflowsResponse>,
    fits: impl Fn(&WatchWorkflowsResponse) -> bool,
) -> Result<WatchWorkflowsResponse> {
    loop {
        let message = next(stream).await?;
        assert!(!message.resync, "{message:?}");
        if fits(&message) {
            return Ok(message);
        }
    }
}

fn is(message: &WatchWorkflowsResponse, alias: &str, state: WorkflowState) -> bool {
    let workflow = message.workflow.as_ref();
    workflow.is_some_and(|workflow| {
        workflow.alias == alias && workflow.status.as_ref().is_some_and(|status| status.state() == state)
    })
}

fn asks(prompt: &str) -> Value {
    json!({ "title": "a release", "steps": [{ "name": "ask", "approval": { "prompt": prompt } }] })
}

async fn approve(api: &Api, alias: &str) -> Result<()> {
    let decision = json!({ "step": "ask", "decision": "STEP_DECISION_APPROVE" });
    let (status, answer) = api.post(&format!("{WORKFLOWS}/{alias}:decide"), &decision).await?;
    anyhow::ensure!(status.is_success(), "{answer}");
    Ok(())
}

#[tokio::test]
async fn changes_and_approvals_arrive_and_resume() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let api = Api::new(&cluster)?;
        let mut own = watch(&cluster, "namespaces/default", "").await?;
        let mut all = watch(&cluster, "namespaces/-", "").await?;
        let mut other = watch(&cluster, "namespaces/other", "").await?;
        let begin = next(&mut own).await?;
        assert!(begin.workflow.is_none() && !begin.resync && !begin.token.is_empty());
        api.create("one", asks("Release one?")).await?;
        let waits = |message: &WatchWorkflowsResponse| {
            message.approvals.iter().any(|step| step.prompt == "Release one?" && step.start_time.is_some())
        };
        let waiting = until(&mut own, waits).await?;
        let workflow = waiting.workflow.context("a workflow")?;
        assert_eq!(workflow.spec.context("a spec")?.title, "a release");
        until(&mut all, waits).await?;
        // Without a watcher.
        drop(own);
        approve(&api, "one").await?;
        api.ended("one").await?;
        api.create("two", asks("Release two?")).await?;
        let mut resumed = watch(&cluster, "namespaces/default", &waiting.token).await?;
        assert!(!next(&mut resumed).await?.resync);
        until(&mut resumed, |message| is(message, "one", WorkflowState::Succeeded)).await?;
        let last =
            until(&mut resumed, |message| message.approvals.iter().any(|step| step.prompt == "Release two?"))
                .await?;
        until(&mut all, |message| is(message, "one", WorkflowState::Succeeded)).await?;
        // From the last token on there is nothing but what comes.
        let mut again = watch(&cluster, "namespaces/default", &last.token).await?;
        next(&mut again).await?;
        let url = format!("{}{WORKFLOWS}/one", api.base);
        assert!(api.http.delete(url).send().await?.status().is_success());
        let deleted = until(&mut again, |message| message.deleted).await?;
        assert_eq!(deleted.workflow.context("a workflow")?.name, workflow.name);
        // Those of another namespace have seen nothing.
        let created = json!({ "alias": "theirs", "spec": asks("?") });
        api.post("/api/v1/namespaces/other/workflows", &created).await?;
        next(&mut other).await?;
        let first = next(&mut other).await?.workflow.context("a workflow")?;
        assert_eq!(first.alias, "theirs");
    }
    Ok(())
}

#[tokio::test]
async fn tokens_of_another_run_resync() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let mut feed = watch(&cluster, "namespaces/default", "").await?;
    let token = next(&mut feed).await?.token;
    Api::new(&cluster)?.create("one", asks("?")).await?;
    let last = until(&mut feed, |message| !message.approvals.is_empty()).await?.token;
    cluster.kill().await;
    cluster.restart().await?;
    for old in [token.as_str(), "nonsense", "ffffffff.0.0-0"] {
        let first = next(&mut watch(&cluster, "namespaces/default", old).await?).await?;
        assert!(first.resync && !first.token.is_empty() && first.token != old, "{old}: {first:?}");
    }
    // Nothing was missed by who had seen all of it.
    let mut caught_up = watch(&cluster, "namespaces/default", &last).await?;
    assert!(next(&mut caught_up).await?.token != token);
    // Server-sent events continue by their id.
    let api = Api::new(&cluster)?;
    let now = next(&mut watch(&cluster, "namespaces/default", "").await?).await?.token;
    approve(&api, "one").await?;
    let request = api.http.get(format!("{}{WORKFLOWS}:watch", api.base));
    let request = request.header("accept", "text/event-stream").header("last-event-id", &now);
    let mut events = request.send().await?;
    let mut text = String::new();
    while !text.contains("WORKFLOW_STATE_SUCCEEDED") {
        let chunk = timeout(tasks::WAIT_TIMEOUT, events.chunk()).await??.context("the feed has ended")?;
        text.push_str(std::str::from_utf8(&chunk)?);
    }
    assert!(text.contains("id: ") && !text.contains("resync"), "{text}");
    Ok(())
}

#[tokio::test]
async fn too_many_approvals_at_a_time_resync() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let mut feed = watch(&cluster, "namespaces/default", "").await?;
    let mut other = watch(&cluster, "namespaces/other", "").await?;
    let before = next(&mut other).await?.token;
    next(&mut feed).await?;
    let step = |number: usize| json!({ "name": format!("s{number}"), "approval": { "prompt": "?" } });
    let spec = json!({ "steps": (0..300).map(step).collect::<Vec<_>>() });
    let api = Api::new(&cluster)?;
    api.create("many", spec).await?;
    let resync = loop {
        let message = next(&mut feed).await?;
        if message.resync {
            break message;
        }
    };
    // It continues from the token that it has sent.
    let mut resumed = watch(&cluster, "namespaces/default", &resync.token).await?;
    assert!(!next(&mut resumed).await?.resync);
    api.create("last", asks("?")).await?;
    while next(&mut resumed).await?.workflow.is_none_or(|workflow| workflow.alias != "last") {}
    // Another namespace has missed nothing, whether its watcher was there or comes back.
    let body = json!({ "alias": "next", "spec": asks("?") });
    let (status, answer) = api.post("/api/v1/namespaces/other/workflows", &body).await?;
    anyhow::ensure!(status.is_success(), "{answer}");
    for mut feed in [other, watch(&cluster, "namespaces/other", &before).await?] {
        until(&mut feed, |message| is(message, "next", WorkflowState::Running)).await?;
    }
    Ok(())
}
