//! Steps that wait for a person in workflows that are steps: they are listed and explained, and wake the watchers of those around them.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_proto::v1::{WatchWorkflowRequest, WatchWorkflowResponse};
use rota_testkit::{Backend, Cluster, tasks};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::Streaming;

use super::nested::nested;
use super::{Api, WORKFLOWS};

fn signal(name: &str, needs: &[&str]) -> Value {
    let needs: Vec<_> = needs.iter().map(|step| json!({ "step": step })).collect();
    json!({ "name": name, "needs": needs, "wait": { "signal": name } })
}

/// Returns the steps of a workflow and of those below it that wait for a person, as `step` or `around/step`, the newest first.
async fn asking(api: &Api, workflow: &str) -> Result<Vec<String>> {
    let path = format!("/api/v1/namespaces/default/approvals?workflow={workflow}&includeNested=true");
    let page = api.get(&path).await?;
    let approvals = page["approvals"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |asks: &Value| {
        let path = [text(&asks["workflow"]["parentStep"]), text(&asks["step"]["name"])];
        path.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    };
    Ok(approvals.iter().map(name).collect())
}

/// Returns the id of the only workflow below one.
async fn inner(api: &Api, outer: &str) -> Result<String> {
    tasks::eventually("the nested workflow", async || Ok(nested(api, outer).await?.len() == 1)).await?;
    Ok(nested(api, outer).await?[0]["uid"].as_str().context("an id")?.to_owned())
}

async fn send(api: &Api, workflow: &str, signal: &str) -> Result<()> {
    let path = format!("{WORKFLOWS}/{workflow}:signal");
    let (status, sent) = api.post(&path, &json!({ "signal": signal })).await?;
    anyhow::ensure!(status == StatusCode::OK, "{sent}");
    Ok(())
}

/// Reads messages until the steps that wait for a person are these ones. Each message names the step around them.
async fn woken(
    stream: &mut Streaming<WatchWorkflowResponse>,
    api: &Api,
    workflow: &str,
    expected: &[&str],
) -> Result<()> {
    loop {
        let message =
            timeout(tasks::WAIT_TIMEOUT, stream.message()).await??.context("the stream has ended")?;
        assert!(message.steps.iter().all(|step| step.name == "call"), "{message:?}");
        if asking(api, workflow).await? == expected {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn nested_approvals_wake_watchers_around_them() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let api = Api::new(&cluster)?;
    let ask = json!({ "name": "ask", "needs": [{ "step": "go" }], "approval": { "prompt": "Release?" } });
    let spec = json!({ "steps": [signal("go", &[]), ask, signal("end", &["ask"])] });
    let around = |spec| json!({ "steps": [{ "name": "call", "workflow": { "spec": spec } }] });
    api.create("outer", around(around(spec))).await?;
    // One of another root, which is no part of it.
    api.create("other", json!({ "steps": [{ "name": "other", "approval": { "prompt": "?" } }] })).await?;
    let innermost = inner(&api, &inner(&api, "outer").await?).await?;
    api.until_step(&innermost, "go", "RUNNING").await?;
    assert!(asking(&api, "outer").await?.is_empty());
    let request = WatchWorkflowRequest {
        name: "namespaces/default/workflows/outer".to_owned(),
        ..WatchWorkflowRequest::default()
    };
    let mut stream = cluster.client().watch_workflow(request).await?;
    let first = timeout(tasks::WAIT_TIMEOUT, stream.message()).await??.context("no message")?;
    assert_eq!(first.steps.len(), 1);
    // A watcher of the innermost workflow alone is woken, too, also without its steps.
    let name = format!("namespaces/default/workflows/{innermost}");
    let request = WatchWorkflowRequest { name, without_steps: true };
    let mut own = cluster.client().watch_workflow(request).await?;
    timeout(tasks::WAIT_TIMEOUT, own.message()).await??.context("no message")?;
    // Nothing of the outermost workflow changes until its end.
    send(&api, &innermost, "go").await?;
    woken(&mut own, &api, &innermost, &["call/ask"]).await?;
    woken(&mut stream, &api, "outer", &["call/ask"]).await?;
    let decision = json!({ "step": "ask", "decision": "STEP_DECISION_APPROVE" });
    let (status, decided) = api.post(&format!("{WORKFLOWS}/{innermost}:decide"), &decision).await?;
    assert_eq!(status, StatusCode::OK, "{decided}");
    woken(&mut stream, &api, "outer", &[]).await?;
    Ok(())
}

#[tokio::test]
async fn explanations_begin_with_who_is_awaited() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let api = Api::new(&cluster)?;
    let with_waits = |last: Vec<Value>| {
        let waits = (0..60).map(|at| signal(&format!("w{at}"), &[]));
        json!({ "steps": waits.chain(last).collect::<Vec<_>>() })
    };
    let ask = |prompt: &str| json!({ "name": "ask", "approval": { "prompt": prompt } });
    let call = json!({ "name": "call", "workflow": { "spec": with_waits(vec![ask("Inner?")]) } });
    api.create("outer", with_waits(vec![ask("Outer?"), call])).await?;
    let innermost = inner(&api, "outer").await?;
    tasks::eventually("both ask", async || Ok(asking(&api, "outer").await? == ["call/ask", "ask"])).await?;
    let explained = api.get(&format!("{WORKFLOWS}/outer:explain")).await?;
    let causes = explained["causes"].as_array().context("no causes")?;
    assert_eq!(causes.len(), 50, "{explained}");
    assert_eq!(causes[0]["message"], "step ask waits for a decision: Outer?");
    let message = format!("in workflow {innermost} of step call: step ask waits for a decision: Inner?");
    assert_eq!(causes[1]["message"], message);
    let hint = causes[1]["hint"].as_str().unwrap_or_default();
    assert!(hint.contains(&format!("approve {innermost} --step ask")), "{hint}");
    let asked = causes.iter().filter(|cause| cause["code"] == "step_approval").count();
    assert_eq!(asked, 2, "each once: {explained}");
    Ok(())
}
