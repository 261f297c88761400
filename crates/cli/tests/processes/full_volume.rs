//! A full volume of the control plane: what was accepted is completed, nothing new is, and space can be freed.

use anyhow::{Context, Result};
use rota_proto::v1::{self, TaskState};
use rota_testkit::tasks;
use serde_json::json;

use crate::{Fixture, Graces, workload};

/// Size of the control plane's volume.
const DISK: &str = "48m";
/// Bytes of each task's prompt, and their number: a quarter of the volume.
const PROMPT: usize = 256 * 1024;
const TASKS: usize = 48;

fn large() -> v1::Task {
    let mut task = workload::shell("true", &[]);
    task.spec.get_or_insert_default().prompt = "x".repeat(PROMPT);
    task
}

async fn space(client: &rota_client::Client) -> Result<v1::StoreSpace> {
    let status = client.get_system_status(v1::GetSystemStatusRequest {}).await?;
    status.store.and_then(|store| store.space).context("the store has no files")
}

/// Creation of a workflow that waits for a signal.
fn workflow(key: &str) -> v1::CreateWorkflowRequest {
    serde_json::from_value(json!({
        "parent": "namespaces/default",
        "workflow": { "spec": { "steps": [{ "name": "hold", "wait": { "signal": "go" } }] } },
        "idempotencyKey": key,
    }))
    .unwrap()
}

/// Asserts that nothing new is accepted, and that what exists is returned.
async fn nothing_new_is_accepted(client: &rota_client::Client, known: &str) -> Result<()> {
    let refused = tasks::create(client, large()).await.unwrap_err().downcast::<rota_client::Error>()?;
    let template = serde_json::from_value(json!({
        "workflowTemplate": {
            "name": "namespaces/default/templates/new",
            "spec": { "workflow": { "steps": [{ "name": "a", "wait": { "duration": "0s" } }] } },
        },
        "allowMissing": true,
    }))?;
    let schedule = serde_json::from_value(json!({
        "schedule": {
            "name": "namespaces/default/schedules/new",
            "spec": { "cron": "0 3 * * *", "workflow": { "spec": workflow("").workflow.unwrap().spec } },
        },
        "allowMissing": true,
    }))?;
    let kind = serde_json::from_value(json!({
        "taskKind": { "name": "namespaces/default/kinds/new", "spec": { "description": "new" } },
    }))?;
    let all = [
        refused,
        client.create_workflow(workflow("new")).await.unwrap_err(),
        client.update_workflow_template(template).await.unwrap_err(),
        client.update_schedule(schedule).await.unwrap_err(),
        client.put_task_kind(kind).await.unwrap_err(),
    ];
    for refused in all {
        assert_eq!(refused.reason.as_deref(), Some("STORE_NEARLY_FULL"), "{refused:?}");
    }
    assert_eq!(client.create_workflow(workflow("known")).await?.uid, known);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn full_volume_takes_what_frees_space() -> Result<()> {
    let mut fixture = Fixture::on_small_disk(Graces::LONG, DISK).await?;
    fixture.start_server().await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 2).await?;
    for _ in 0..TASKS {
        let task = tasks::create(&client, large()).await?;
        assert_eq!(tasks::ended(&client, &task.name).await?.status.unwrap().state(), TaskState::Succeeded);
    }
    let gate = fixture.dir().join("gate");
    let wait = format!("until test -e {}; do sleep 0.1; done", gate.display());
    let running = tasks::create(&client, workload::shell(&wait, &[])).await?;
    tasks::until_state(&client, &running.name, TaskState::Running).await?;
    let known = client.create_workflow(workflow("known")).await?;

    fixture.disk.as_ref().context("no disk")?.fill()?;
    // Noticed within seconds, by a measurement.
    tasks::eventually("no new task is accepted", async || {
        let status = client.get_system_status(v1::GetSystemStatusRequest {}).await?;
        Ok(status.causes.iter().any(|cause| cause.code == "store_space"))
    })
    .await?;
    Box::pin(nothing_new_is_accepted(&fixture.impatient_client()?, &known.uid)).await?;

    // The control plane starts on the full volume, and takes the result of what runs.
    fixture.kill_server().await;
    fixture.start_server().await?;
    std::fs::write(&gate, "")?;
    let ended = tasks::ended(&client, &running.name).await?.status.unwrap();
    assert_eq!((ended.state(), ended.attempt), (TaskState::Succeeded, 1));

    // Removed records leave room, though the file keeps its size.
    let before = space(&client).await?;
    let pruned = fixture.rota(&["admin", "prune", "--older-than", "0s"]).await;
    assert_eq!(pruned.code, 0, "{pruned:?}");
    tasks::eventually("room for tasks", async || {
        let now = space(&client).await?;
        Ok(now.reusable_bytes > before.reusable_bytes + i64::try_from(TASKS * PROMPT / 2)?)
    })
    .await?;
    let task = tasks::create(&client, large()).await?;
    assert_eq!(tasks::ended(&client, &task.name).await?.status.unwrap().state(), TaskState::Succeeded);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_restores_the_store() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 2).await?;
    let kept = tasks::create(&client, large()).await?;
    tasks::ended(&client, &kept.name).await?;

    let file = fixture.dir().join("rota.backup");
    let made = fixture.rota(&["admin", "backup", file.to_str().unwrap()]).await;
    assert_eq!(made.code, 0, "{made:?}");
    let folder = fixture.dir().join("backups");
    std::fs::create_dir(&folder)?;
    let kept_one = ["admin", "backup", "--directory", folder.to_str().unwrap(), "--keep", "1"];
    assert_eq!(fixture.rota(&kept_one).await.code, 0);
    assert_eq!(std::fs::read_dir(&folder)?.count(), 1);
    let lost = tasks::create(&client, workload::shell("true", &[])).await?;
    tasks::ended(&client, &lost.name).await?;
    assert!(!fixture.data.join("rota.sqlite.backup").exists(), "nothing is left next to the database");

    let (file, data) = (file.to_str().unwrap().to_owned(), fixture.data.to_str().unwrap().to_owned());
    let restore = ["restore", &file, "--data-dir", &data, "--replace"];
    let refused = fixture.rota(&restore).await;
    assert!(refused.code == 1 && refused.err.contains("in use"), "{refused:?}");
    fixture.kill_server().await;
    let refused = fixture.rota(&restore[..4]).await;
    assert!(refused.code == 1 && refused.err.contains("--replace"), "{refused:?}");
    let token = fixture.dir().join("token");
    let other = ["restore", token.to_str().unwrap(), "--data-dir", &data, "--replace"];
    let refused = fixture.rota(&other).await;
    assert!(refused.code == 1 && refused.err.contains("not a database"), "{refused:?}");
    let newest = ["restore", "--directory", folder.to_str().unwrap(), "--data-dir", &data, "--replace"];
    for restore in [&restore[..], &newest] {
        let restored = fixture.rota(restore).await;
        assert_eq!(restored.code, 0, "{restored:?}");
    }
    fixture.start_server().await?;
    let restored = tasks::get(&client, &kept.name).await?;
    assert_eq!(restored.status.unwrap().state(), TaskState::Succeeded);
    assert_eq!(restored.spec.unwrap().prompt.len(), PROMPT);
    assert_eq!(tasks::get(&client, &lost.name).await.unwrap_err().reason.as_deref(), Some("TASK_NOT_FOUND"));
    let after = tasks::create(&client, workload::shell("true", &[])).await?;
    assert_eq!(tasks::ended(&client, &after.name).await?.status.unwrap().state(), TaskState::Succeeded);
    Ok(())
}
