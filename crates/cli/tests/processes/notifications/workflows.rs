//! Notifications about workflows: whom they wait for, and how they have ended.

use anyhow::{Context, Result};
use rota_proto::v1;
use rota_testkit::client::Client;
use rota_testkit::tasks;
use serde_json::{Value, json};

use super::{AGENT, Behavior, Hook, Received, of, start};

async fn create(client: &Client, alias: &str, spec: Value) -> Result<v1::Workflow> {
    let workflow = v1::Workflow {
        alias: alias.to_owned(),
        spec: Some(serde_json::from_value(spec)?),
        ..Default::default()
    };
    let request = v1::CreateWorkflowRequest {
        parent: "namespaces/default".to_owned(),
        workflow: Some(workflow),
        ..Default::default()
    };
    Ok(client.create_workflow(request).await?)
}

fn asks() -> Value {
    json!({ "title": "Release", "steps": [{ "name": "ask", "approval": { "prompt": "Release <!channel> now?", "deadline": "3600s" } }] })
}

fn scripted(step: &Value) -> Value {
    json!({ "target": { "agent": AGENT }, "retry": { "maxAttempts": 1 }, "runtime": { "scripted": { "steps": [step] } } })
}

async fn reject(client: &Client, workflow: &v1::Workflow) -> Result<()> {
    let request = v1::DecideStepRequest {
        name: workflow.name.clone(),
        step: "ask".to_owned(),
        decision: v1::StepDecision::Reject.into(),
        comment: "not today".to_owned(),
    };
    client.decide_step(request).await?;
    Ok(())
}

#[tokio::test]
async fn receivers_are_notified_of_workflows() -> Result<()> {
    let oncall = Hook::start(Behavior::RefuseOnce).await?;
    let chat = Hook::start(Behavior::Answer(200)).await?;
    let wanted = "occasions = [\"approval\", \"workflow_succeeded\"]\nworkflow_link = \"https://rota.example/workflows/{namespace}/{workflow}\"";
    let fixture = start(&[("oncall", "webhook", &oncall, ""), ("chat", "slack", &chat, wanted)]).await?;
    let client = fixture.client()?;
    tasks::agent(&client, AGENT, tasks::script([]), &[]).await?;
    let _worker = fixture.worker(AGENT, "w", 1).await?;

    let release = create(&client, "release", asks()).await?;
    let asked = oncall.until(|one| of("workflow.approval")(one) && one.status == 200).await?;
    assert!(asked.is_signed(), "{asked:?}");
    let data = asked.json()["data"].clone();
    assert_eq!((data["workflow"].as_str(), data["step"].as_str()), (Some(release.uid.as_str()), Some("ask")));
    assert_eq!(data["message"], "Release <!channel> now?");
    assert!(data["deadline"].is_string() && data.get("task").is_none(), "{data}");
    let text = chat.until(|_| true).await?.json()["text"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains("`release` in default waits for an approval"), "{text}");
    assert!(
        text.contains(&format!("<https://rota.example/workflows/default/{}|open>", release.uid)),
        "{text}"
    );
    assert!(text.contains("&lt;!channel&gt;"), "{text}");
    // The command of the message approves.
    let args: Vec<_> = data["command"].as_str().context("a command")?.split(' ').skip(1).collect();
    fixture.rota(&args).await.success();
    chat.until(|one| one.body.contains("has succeeded")).await?;

    let refused = create(&client, "refused", asks()).await?;
    let is_of = |workflow: &v1::Workflow| {
        let id = workflow.uid.clone();
        move |one: &Received| one.body.contains(&id)
    };
    oncall.until(is_of(&refused)).await?;
    reject(&client, &refused).await?;
    let failed = oncall.until(|one| of("workflow.failed")(one) && one.status == 200).await?.json();
    assert!(failed["data"]["step"] == "ask", "{failed}");
    assert!(failed["data"]["message"].as_str().is_some_and(|text| text.contains("not today")), "{failed}");
    let snapshot = &failed["data"]["snapshot"];
    assert!(snapshot["failed"] == 1 && snapshot["ended"].is_string(), "{failed}");

    let undone = create(
        &client,
        "undone",
        json!({
            "onFailure": "ON_STEP_FAILURE_COMPENSATE",
            "steps": [
                { "name": "do", "task": scripted(&json!({ "succeed": "done" })),
                  "compensate": scripted(&json!({ "fail": { "message": "cannot undo" } })) },
                { "name": "ask", "needs": [{ "step": "do" }], "approval": { "prompt": "Keep it?" } },
            ],
        }),
    )
    .await?;
    oncall.until(|one| of("workflow.approval")(one) && is_of(&undone)(one)).await?;
    reject(&client, &undone).await?;
    let left = oncall.until(|one| of("workflow.compensation_failed")(one) && one.status == 200).await?.json();
    assert_eq!(left["data"]["workflow"].as_str(), Some(undone.uid.as_str()));
    let kinds: Vec<_> = oncall.accepted().iter().map(|one| one["type"].clone()).collect();
    assert!(!kinds.contains(&json!("workflow.succeeded")), "only for receivers that name it: {kinds:?}");
    Ok(())
}

#[tokio::test]
async fn killed_control_plane_loses_no_notification_of_workflows() -> Result<()> {
    let hook = Hook::start(Behavior::Hang).await?;
    let mut fixture = start(&[("oncall", "webhook", &hook, "")]).await?;
    let client = fixture.client()?;
    let asking = create(&client, "asking", asks()).await?;
    let failing = create(&client, "failing", asks()).await?;
    let is = |kind: &'static str, workflow: &v1::Workflow| {
        let (kind, id) = (of(kind), workflow.uid.clone());
        move |one: &Received| kind(one) && one.body.contains(&id)
    };
    let first = hook.until(is("workflow.approval", &asking)).await?;
    hook.until(is("workflow.approval", &failing)).await?;
    reject(&client, &failing).await?;
    // Its end waits behind its approval, which the receiver does not take.
    fixture.kill_server().await;
    hook.behavior.send_replace(Behavior::Answer(200));
    fixture.start_server().await?;
    let again = hook.until(|one| is("workflow.approval", &asking)(one) && one.status == 200).await?;
    assert!(again.is_signed() && again.id() == first.id(), "{again:?}");
    hook.until(|one| is("workflow.failed", &failing)(one) && one.status == 200).await?;
    // What was delivered is not sent again by the next start.
    let later = create(&client, "later", asks()).await?;
    hook.until(is("workflow.approval", &later)).await?;
    fixture.stop_server().await;
    let before = hook.accepted().len();
    fixture.start_server().await?;
    let last = create(&client, "last", asks()).await?;
    hook.until(is("workflow.approval", &last)).await?;
    let after = hook.accepted();
    assert!(after.len() <= before + 2, "at most the last one is repeated: {after:?}");
    Ok(())
}
