//! Damaged records: the control plane starts without those of agents, sessions and schedules, and lists kinds without them.

use anyhow::{Context as _, Result};
use rota_core::Namespace;
use rota_proto::names;
use rota_proto::v1::{self, Artifact, ArtifactList, Checkpoint};
use rota_proto::worker::v1::{FetchCheckpointRequest, KeepArtifactsRequest};
use rota_store::{Command, DocumentKey, DocumentKind, Expected, PutDocument};
use rota_testkit::raw::{RawWorker, hello};
use rota_testkit::{Backend, Cluster, Setup, tasks};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tonic::Code;

const DAMAGE: &str = "x'81a57374617465a46e6577'";

#[tokio::test]
async fn control_plane_starts_with_damaged_records() -> Result<()> {
    let setup = Setup { http: true, ..Setup::new(Backend::Sqlite) };
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.client().clone();
    for agent in ["bad", "good"] {
        tasks::agent(&client, agent, tasks::script([]), &[]).await?;
    }
    let name = "namespaces/default/schedules/nightly".to_owned();
    let spec = v1::ScheduleSpec {
        cron: "0 3 * * *".to_owned(),
        task: Some(tasks::task("good")),
        ..Default::default()
    };
    let schedule = v1::Schedule { name: name.clone(), spec: Some(spec), ..Default::default() };
    client
        .update_schedule(v1::UpdateScheduleRequest {
            schedule: Some(schedule),
            allow_missing: true,
            ..Default::default()
        })
        .await?;
    let worker = cluster.worker("good", "one", 1)?;
    let first = tasks::create(&client, tasks::task("good")).await?;
    tasks::ended(&client, &first.name).await?;
    cluster.kill().await;
    drop(worker);
    let database = rusqlite::Connection::open(cluster.folder().join("rota.sqlite"))?;
    for (table, which) in
        [("agents", "name = 'bad'"), ("sessions", "true"), ("documents", "kind = 'schedule'")]
    {
        database.execute(&format!("UPDATE {table} SET record = {DAMAGE} WHERE {which}"), [])?;
    }
    drop(database);
    cluster.restart().await?;
    let client = cluster.client().clone();
    let _worker = cluster.worker("good", "one", 1)?;
    let second = tasks::create(&client, tasks::task("good")).await?;
    tasks::ended(&client, &second.name).await?;
    let url = format!("http://{}/metrics", cluster.http_addr().unwrap());
    let metrics = reqwest::get(url).await?.text().await?;
    assert!(metrics.contains("rota_store_undecodable_records_total 3"), "{metrics}");
    let found = client.get_schedule(v1::GetScheduleRequest { name: name.clone() }).await.unwrap_err();
    assert_eq!(found.reason.as_deref(), Some("STORE_CORRUPT"), "{found:?}");
    let delete = |allow_missing| v1::DeleteAgentRequest {
        name: "namespaces/default/agents/bad".to_owned(),
        allow_missing,
        ..Default::default()
    };
    client.delete_agent(delete(false)).await?;
    assert_eq!(client.delete_agent(delete(false)).await.unwrap_err().code, Code::NotFound);
    client.delete_agent(delete(true)).await?;
    client.delete_schedule(v1::DeleteScheduleRequest { name: name.clone(), ..Default::default() }).await?;
    let found = client.get_schedule(v1::GetScheduleRequest { name }).await.unwrap_err();
    assert_eq!(found.code, Code::NotFound);
    Ok(())
}

#[tokio::test]
async fn damaged_task_is_removed_by_its_id() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let task = tasks::create(cluster.client(), tasks::task("echo")).await?;
    let prune = |task: &str| v1::PruneRequest { task: task.to_owned(), ..Default::default() };
    let by_id = format!("namespaces/default/tasks/{}", task.uid);
    let refused = cluster.client().prune(prune(&by_id)).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("TASK_NOT_ENDED"));
    let refused = cluster.client().prune(prune("namespaces/default/tasks/nightly")).await.unwrap_err();
    assert_eq!(refused.fields[0].field, "task");
    cluster.kill().await;
    let database = rusqlite::Connection::open(cluster.folder().join("rota.sqlite"))?;
    assert_eq!(database.execute(&format!("UPDATE tasks SET record = {DAMAGE}"), [])?, 1);
    drop(database);
    cluster.restart().await?;
    let get = || v1::GetTaskRequest { name: by_id.clone() };
    let damaged = cluster.client().get_task(get()).await.unwrap_err();
    assert_eq!(damaged.reason.as_deref(), Some("STORE_CORRUPT"));
    assert_eq!(cluster.client().prune(prune(&by_id)).await?.removed, 1);
    assert_eq!(cluster.client().get_task(get()).await.unwrap_err().code, Code::NotFound);
    Ok(())
}

/// What a damaged workflow has left names the cause, and ends with its cancellation.
#[tokio::test]
async fn damaged_workflow_is_a_cause_and_is_cancelled() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "idle", tasks::script([]), &[]).await?;
    let run = |task: v1::Task| v1::WorkflowStep {
        name: "wait".to_owned(),
        kind: Some(v1::workflow_step::Kind::Task(task.spec.unwrap_or_default())),
        ..Default::default()
    };
    let spec = v1::WorkflowSpec { steps: vec![run(tasks::task("idle"))], ..Default::default() };
    let workflow = Some(v1::Workflow { spec: Some(spec), ..Default::default() });
    let parent = "namespaces/default".to_owned();
    let request = v1::CreateWorkflowRequest { parent: parent.clone(), workflow, ..Default::default() };
    let name = client.create_workflow(request).await?.name;
    let list = || v1::ListTasksRequest { parent: parent.clone(), ..Default::default() };
    tasks::eventually("its task", async || Ok(client.list_tasks(list()).await?.tasks.len() == 1)).await?;
    let task = client.list_tasks(list()).await?.tasks.remove(0).name;
    cluster.kill().await;
    let database = rusqlite::Connection::open(cluster.folder().join("rota.sqlite"))?;
    assert_eq!(database.execute(&format!("UPDATE workflows SET record = {DAMAGE}"), [])?, 1);
    drop(database);
    cluster.restart().await?;
    let client = cluster.client().clone();
    let explained = client.explain_task(v1::ExplainTaskRequest { name: task.clone() }).await?;
    assert!(explained.causes.iter().any(|cause| cause.code == "workflow_damaged"), "{explained:?}");
    let request = v1::CancelWorkflowRequest { name: name.clone(), ..Default::default() };
    let status = client.cancel_workflow(request).await?.status.unwrap_or_default();
    assert!(status.message.contains("cannot be decoded"), "{status:?}");
    tasks::until_state(&client, &task, v1::TaskState::Cancelled).await?;
    client.delete_workflow(v1::DeleteWorkflowRequest { name }).await?;
    Ok(())
}

#[tokio::test]
async fn damaged_workflow_hides_no_other_approval() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let parent = "namespaces/default".to_owned();
    let mut names = Vec::new();
    for _ in 0..2 {
        let approval = v1::Approval { prompt: "Release?".to_owned(), ..Default::default() };
        let step = v1::WorkflowStep {
            name: "ask".to_owned(),
            kind: Some(v1::workflow_step::Kind::Approval(approval)),
            ..Default::default()
        };
        let spec = v1::WorkflowSpec { steps: vec![step], ..Default::default() };
        let workflow = Some(v1::Workflow { spec: Some(spec), ..Default::default() });
        let request = v1::CreateWorkflowRequest { parent: parent.clone(), workflow, ..Default::default() };
        names.push(cluster.client().create_workflow(request).await?.name);
    }
    let list = |workflow: &str| v1::ListApprovalsRequest {
        parent: parent.clone(),
        workflow: workflow.rsplit('/').next().unwrap_or_default().to_owned(),
        include_nested: !workflow.is_empty(),
        ..Default::default()
    };
    let client = cluster.client().clone();
    tasks::eventually("both ask", async || Ok(client.list_approvals(list("")).await?.approvals.len() == 2))
        .await?;
    cluster.kill().await;
    let database = rusqlite::Connection::open(cluster.folder().join("rota.sqlite"))?;
    let newest = "key = (SELECT max(key) FROM workflows)";
    let damage = format!("UPDATE workflows SET record = {DAMAGE} WHERE {newest}");
    assert_eq!(database.execute(&damage, [])?, 1);
    drop(database);
    cluster.restart().await?;
    let client = cluster.client().clone();
    for workflow in [names[0].as_str(), ""] {
        let approvals = client.list_approvals(list(workflow)).await?.approvals;
        let listed: Vec<_> = approvals.into_iter().filter_map(|one| Some(one.workflow?.name)).collect();
        assert_eq!(listed, names[..1]);
    }
    let request = v1::ExplainWorkflowRequest { name: names[0].clone(), ..Default::default() };
    let causes = client.explain_workflow(request).await?.causes;
    assert_eq!(causes.len(), 1, "{causes:?}");
    Ok(())
}

/// The records of a holder of a concurrency group, of a workflow that is a step, of a step that is a workflow, and of a wait that another
/// step needs.
#[tokio::test]
async fn explanations_name_damaged_records() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    let create = async |alias: &str, spec: Value| {
        let spec = Some(serde_json::from_value(spec)?);
        let workflow = Some(v1::Workflow { alias: alias.to_owned(), spec, ..Default::default() });
        let parent = names::namespace("default");
        let request = v1::CreateWorkflowRequest { parent, workflow, ..Default::default() };
        anyhow::Ok(client.create_workflow(request).await?.uid)
    };
    let go = json!({ "name": "go", "wait": { "signal": "go" } });
    let after = json!({ "name": "after", "needs": [{ "step": "go" }], "wait": { "signal": "end" } });
    let grouped = json!({ "concurrency": { "group": "g" }, "steps": [go] });
    let calls = json!({ "steps": [{ "name": "call", "workflow": { "spec": { "steps": [go] } } }] });
    let holder = create("holder", grouped.clone()).await?;
    create("waits", grouped).await?;
    let outer = create("outer", calls.clone()).await?;
    let stepless = create("stepless", calls).await?;
    let needs = create("needs", json!({ "steps": [go, after] })).await?;
    let below = || v1::ListWorkflowsRequest {
        parent: names::namespace("default"),
        filter: Some(v1::WorkflowFilter { parent_workflow: outer.clone(), ..Default::default() }),
        ..Default::default()
    };
    let nested = async || anyhow::Ok(client.list_workflows(below()).await?.workflows);
    tasks::eventually("the nested workflow", async || Ok(nested().await?.len() == 1)).await?;
    let inner = nested().await?.remove(0).uid;
    cluster.kill().await;
    let database = rusqlite::Connection::open(cluster.folder().join("rota.sqlite"))?;
    let key = |uid: &str| {
        let id = uid.replace('-', "").to_uppercase();
        format!("(SELECT key FROM workflows WHERE hex(id) = '{id}')")
    };
    for (table, which) in [
        ("workflows", format!("key = {}", key(&holder))),
        ("workflows", format!("key = {}", key(&inner))),
        ("steps", format!("step = 0 AND workflow = {}", key(&stepless))),
        ("steps", format!("step = 0 AND workflow = {}", key(&needs))),
    ] {
        let damage = format!("UPDATE {table} SET record = {DAMAGE} WHERE {which}");
        assert_eq!(database.execute(&damage, [])?, 1, "{damage}");
    }
    drop(database);
    cluster.restart().await?;
    let client = cluster.client().clone();
    let held = format!("held by {holder} (its record cannot be decoded)");
    let frees = format!("rota workflow cancel {holder}, then rota workflow delete {holder}");
    let of_inner = format!("workflow {inner} of step call");
    for (workflow, step, code, message, hint) in [
        ("waits", "", "group_full", held.as_str(), frees.as_str()),
        ("outer", "", "workflow_damaged", of_inner.as_str(), inner.as_str()),
        ("stepless", "", "workflow_damaged", "the record of step call cannot be decoded", stepless.as_str()),
        ("needs", "after", "step_needs", "waits for 1 of 1 steps that it needs: go (damaged)", ""),
        ("needs", "after", "workflow_damaged", "the record of step go cannot be decoded", needs.as_str()),
        ("needs", "", "workflow_damaged", "the record of step go cannot be decoded", needs.as_str()),
        ("needs", "go", "workflow_damaged", "the record of step go cannot be decoded", needs.as_str()),
    ] {
        let (name, step) = (names::workflow("default", workflow), step.to_owned());
        let causes = client.explain_workflow(v1::ExplainWorkflowRequest { name, step }).await?.causes;
        let is_meant = |cause: &v1::Cause| {
            cause.code == code && cause.message.contains(message) && cause.hint.contains(hint)
        };
        assert!(causes.iter().any(is_meant), "{workflow}: {causes:?}");
    }
    let decide = |step: &str| v1::DecideStepRequest {
        name: names::workflow("default", "needs"),
        step: step.to_owned(),
        decision: v1::StepDecision::Approve.into(),
        ..Default::default()
    };
    let refused = client.decide_step(decide("go")).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("STORE_CORRUPT"), "{refused:?}");
    let refused = client.decide_step(decide("none")).await.unwrap_err();
    assert_eq!(refused.fields[0].field, "step", "{refused:?}");
    Ok(())
}

/// An attempt continues the checkpoint before the damaged one, and the files of the other attempts are listed.
#[tokio::test]
async fn damaged_list_keeps_no_other_from_being_read() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let mut task = tasks::task("echo");
    let wait = Some(tasks::millis(1));
    let retry = v1::RetryPolicy { initial_backoff: wait, max_backoff: wait, ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    let task = tasks::create(cluster.client(), task).await?;
    for name in ["one", "two"] {
        let mut worker = RawWorker::join(cluster.client(), hello("echo", name, 1)).await?;
        let assign = worker.take().await?;
        // Of no content, so that nothing has to be stored.
        let conversation = Artifact {
            name: format!("checkpoint/{name}.jsonl"),
            sha256: hex::encode(Sha256::digest("")),
            ..Artifact::default()
        };
        let list = ArtifactList {
            artifacts: vec![conversation],
            checkpoint: Some(Checkpoint { conversation: name.to_owned(), ..Checkpoint::default() }),
            ..ArtifactList::default()
        };
        let request = KeepArtifactsRequest {
            namespace: "default".to_owned(),
            worker: name.to_owned(),
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            artifacts: Some(list),
        };
        cluster.client().workers().keep_artifacts(request).await?;
        let class = v1::FailureClass::Source.into();
        let message = "the host is away".to_owned();
        worker.fail(&assign, v1::Failure { class, message, ..Default::default() });
        assert!(worker.result_ack().await?);
        worker.close().await;
    }
    cluster.kill().await;
    let database = rusqlite::Connection::open(cluster.folder().join("rota.sqlite"))?;
    assert_eq!(database.execute("UPDATE artifacts SET list = x'ff' WHERE attempt = 2", [])?, 1);
    drop(database);
    cluster.restart().await?;
    let client = cluster.client().clone();
    let mut worker = RawWorker::join(&client, hello("echo", "three", 1)).await?;
    let assign = worker.take().await?;
    assert_eq!((&assign.task_id, assign.attempt), (&task.uid, 3));
    let request = FetchCheckpointRequest {
        namespace: "default".to_owned(),
        worker: "three".to_owned(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
    };
    let left = client.workers().fetch_checkpoint(request).await?.into_inner();
    let found = left.artifacts.and_then(|list| list.checkpoint).map(|found| found.conversation);
    assert_eq!(found.as_deref(), Some("one"));
    let lists = client.fetch_artifacts(&task.name).await?.attempts;
    let listed = |found: &v1::AttemptArtifacts| {
        let list = found.list.as_ref();
        (found.attempt, list.map(|list| (list.artifacts.len(), list.skipped.len())))
    };
    assert_eq!(lists.iter().map(listed).collect::<Vec<_>>(), [(1, Some((1, 0))), (2, Some((0, 1)))]);
    // A caller who asks for its files does not take them for none.
    let name = "checkpoint/two.jsonl".to_owned();
    let request = v1::DownloadArtifactRequest { parent: task.name, attempt: 2, name };
    let refused = client.artifact_service().download_artifact(request).await.unwrap_err();
    assert_eq!(rota_testkit::client::reason(&refused).as_deref(), Some("STORE_CORRUPT"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_damaged_kind_hides_no_other() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    for namespace in ["alpha", "beta", "gamma"] {
        let (name, spec) = (names::kind(namespace, "notes"), Some(v1::TaskKindSpec::default()));
        let kind = Some(v1::TaskKind { name, spec, ..Default::default() });
        client.put_task_kind(v1::PutTaskKindRequest { task_kind: kind, ..Default::default() }).await?;
    }
    let key = DocumentKey {
        kind: DocumentKind::TaskKind,
        namespace: Namespace::new("beta")?,
        name: "notes".to_owned(),
    };
    let payload = vec![0xff].into();
    let put = Command::PutDocument(PutDocument { key, payload, expected: Expected::Any });
    cluster.store().context("no store")?.apply(vec![put]).await?.remove(0)?;
    let (kinds, damaged) = client.all_kinds("namespaces/-").await?;
    let listed: Vec<_> = kinds.into_iter().map(|kind| kind.name).collect();
    assert_eq!(listed, [names::kind("alpha", "notes"), names::kind("gamma", "notes")]);
    assert_eq!(damaged, [names::kind("beta", "notes")]);
    // It is the last of a page, and no reason to begin again.
    let mut request =
        v1::ListTaskKindsRequest { parent: names::namespace("-"), page_size: 2, ..Default::default() };
    let first = client.list_task_kinds(request.clone()).await?;
    request.page_token = first.next_page_token;
    let rest = client.list_task_kinds(request).await?;
    assert_eq!((rest.task_kinds[0].name.as_str(), rest.task_kinds.len()), (listed[1].as_str(), 1));
    // It is repaired by a new one in its place.
    let (name, spec) = (names::kind("beta", "notes"), Some(v1::TaskKindSpec::default()));
    let kind = Some(v1::TaskKind { name, spec, ..Default::default() });
    client.put_task_kind(v1::PutTaskKindRequest { task_kind: kind, ..Default::default() }).await?;
    assert_eq!(client.all_kinds("namespaces/-").await?.1, [""; 0]);
    Ok(())
}
