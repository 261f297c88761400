//! Schedules whose runs are workflows.

use anyhow::Result;
use rota_proto::v1::{self, ScheduleConcurrency, WorkflowState};
use rota_testkit::{Backend, tasks};
use serde_json::{Value, json};

use super::{Fixture, NAME, times};

fn workflow(given: Value) -> v1::ScheduledWorkflow {
    serde_json::from_value(given).unwrap()
}

fn spec(given: Value) -> v1::ScheduleSpec {
    v1::ScheduleSpec { cron: "* * * * *".to_owned(), workflow: Some(workflow(given)), ..Default::default() }
}

/// Workflow that lasts until a signal or its cancellation.
fn endless() -> Value {
    json!({ "spec": { "steps": [{ "name": "hold", "wait": { "signal": "go" } }] } })
}

impl Fixture {
    async fn put_template(&self, step: &str) -> Result<v1::WorkflowTemplate> {
        self.put_template_with(json!({ "name": step, "wait": { "duration": "0s" } })).await
    }

    async fn put_template_with(&self, step: Value) -> Result<v1::WorkflowTemplate> {
        let template = serde_json::from_value(json!({
            "name": "namespaces/default/templates/deploy",
            "spec": {
                "parameters": [{ "name": "image", "schema": { "type": "string" } }],
                "workflow": {
                    "steps": [step],
                    "outputs": { "image": "${{ inputs.image }}" },
                },
            },
        }))?;
        let request = v1::UpdateWorkflowTemplateRequest {
            workflow_template: Some(template),
            allow_missing: true,
            ..Default::default()
        };
        Ok(self.client().update_workflow_template(request).await?)
    }

    /// Returns the workflows of the schedule, oldest first.
    async fn workflows(&self) -> Result<Vec<v1::Workflow>> {
        let filter = v1::WorkflowFilter {
            labels: [("rota.dev/schedule".to_owned(), "nightly".to_owned())].into(),
            ..Default::default()
        };
        let request = v1::ListWorkflowsRequest {
            parent: "namespaces/default".to_owned(),
            filter: Some(filter),
            ..Default::default()
        };
        let mut all = self.client().list_workflows(request).await?.workflows;
        all.reverse();
        Ok(all)
    }

    async fn workflow(&self, id: &str) -> Result<v1::Workflow> {
        let request = v1::GetWorkflowRequest { name: format!("namespaces/default/workflows/{id}") };
        Ok(self.client().get_workflow(request).await?)
    }
}

#[tokio::test]
async fn workflow_of_the_newest_version_runs_at_each_time() -> Result<()> {
    let fixture = Fixture::start(Backend::Sqlite, "2026-01-01T00:00:30Z").await?;
    let missing = spec(json!({ "template": "deploy", "parameters": { "image": "a" } }));
    let refused = fixture.create(missing.clone()).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("TEMPLATE_NOT_FOUND"), "{refused}");
    fixture.put_template("first").await?;
    fixture.create(missing).await?;
    fixture.set("2026-01-01T00:01:00Z");
    fixture.until("a run", |status| status.recent.len() == 1).await?;
    fixture.put_template("second").await?;
    fixture.set("2026-01-01T00:02:00Z");
    let status = fixture.until("two runs", |status| status.recent.len() == 2).await?;
    assert_eq!(times(&status.recent), ["2026-01-01T00:02:00Z", "2026-01-01T00:01:00Z"]);
    assert!(status.recent.iter().all(|run| run.workflow_state() == WorkflowState::Succeeded), "{status:?}");
    assert!(status.recent.iter().all(|run| run.end_time.is_some() && run.task.is_empty()), "{status:?}");
    assert_eq!((status.started, status.problem.as_str()), (2, ""));
    let all = fixture.workflows().await?;
    let ids: Vec<_> = all.iter().map(|workflow| workflow.uid.as_str()).collect();
    assert_eq!(ids, [&status.recent[1].workflow, &status.recent[0].workflow]);
    assert!(all.iter().all(|workflow| workflow.alias == "nightly"));
    for (id, version) in ids.into_iter().zip(["deploy@1", "deploy@2"]) {
        let status = fixture.workflow(id).await?.status.unwrap();
        assert_eq!(status.template, version);
        assert_eq!(serde_json::to_value(status.outputs)?, json!({ "image": "a" }));
    }
    // A list names the template, and no parameters.
    let request = v1::ListSchedulesRequest { parent: "namespaces/default".to_owned(), ..Default::default() };
    let listed = fixture.client().list_schedules(request).await?.schedules.remove(0);
    assert_eq!(listed.spec.unwrap().workflow, Some(workflow(json!({ "template": "deploy" }))));
    Ok(())
}

#[tokio::test]
async fn policies_decide_about_active_workflows() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    let with =
        |policy: ScheduleConcurrency| v1::ScheduleSpec { concurrency: policy.into(), ..spec(endless()) };
    fixture.create(with(ScheduleConcurrency::Forbid)).await?;
    fixture.set("2026-01-01T00:01:00Z");
    fixture.until("a run", |status| status.active.len() == 1 && status.started == 1).await?;
    fixture.set("2026-01-01T00:02:00Z");
    let status = fixture.until("a skip", |status| status.skipped == 1).await?;
    let reason = status.last_skip.unwrap().reason;
    assert_eq!(reason, format!("the run of workflow {} has not ended", status.active[0].workflow));
    let run =
        fixture.client().run_schedule(v1::RunScheduleRequest { name: NAME.into(), ..Default::default() });
    assert_eq!(run.await.unwrap_err().reason.as_deref(), Some("SCHEDULE_ACTIVE"));
    fixture.create(with(ScheduleConcurrency::Allow)).await?;
    fixture.set("2026-01-01T00:03:00Z");
    fixture.until("two runs", |status| status.active.len() == 2 && status.started == 2).await?;
    // A list has the state of the newer one alone.
    let request = v1::ListSchedulesRequest { parent: "namespaces/default".to_owned(), ..Default::default() };
    let listed = fixture.client().list_schedules(request).await?.schedules.remove(0).status.unwrap();
    let states: Vec<_> = listed.active.iter().map(v1::ScheduleRun::workflow_state).collect();
    assert_eq!(states, [WorkflowState::Unspecified, WorkflowState::Running]);
    fixture.create(with(ScheduleConcurrency::Replace)).await?;
    fixture.set("2026-01-01T00:04:00Z");
    let status = fixture.until("a replacement", |status| status.recent.len() == 2).await?;
    assert!(status.recent.iter().all(|run| run.workflow_state() == WorkflowState::Cancelled), "{status:?}");
    assert_eq!(times(&status.active), ["2026-01-01T00:04:00Z"]);
    assert_eq!(status.active[0].workflow_state(), WorkflowState::Running);
    Ok(())
}

#[tokio::test]
async fn run_without_a_successor_is_not_replaced() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    let hold = json!({ "name": "hold", "wait": { "signal": "go" } });
    let mut template = fixture.put_template_with(hold).await?;
    let given = spec(json!({ "template": "deploy", "parameters": { "image": "a" } }));
    let given = v1::ScheduleSpec { concurrency: ScheduleConcurrency::Replace.into(), ..given };
    fixture.create(given).await?;
    fixture.set("2026-01-01T00:01:00Z");
    let first = fixture.until("a run", |status| status.started == 1).await?.active.remove(0).workflow;
    // The next run lacks a parameter.
    let parameters = &mut template.spec.get_or_insert_default().parameters;
    parameters.push(serde_json::from_value(json!({ "name": "region", "schema": { "type": "string" } }))?);
    let update =
        v1::UpdateWorkflowTemplateRequest { workflow_template: Some(template), ..Default::default() };
    fixture.client().update_workflow_template(update).await?;
    fixture.set("2026-01-01T00:02:00Z");
    let status = fixture.until("a refusal", |status| !status.problem.is_empty()).await?;
    assert_eq!((status.active.len(), &status.active[0].workflow), (1, &first), "{status:?}");
    let request = v1::SignalWorkflowRequest {
        name: format!("namespaces/default/workflows/{first}"),
        signal: "go".to_owned(),
        payload: None,
    };
    tasks::eventually("its step", async || {
        Ok(fixture.client().signal_workflow(request.clone()).await?.steps == 1)
    })
    .await?;
    let status = fixture.until("its end", |status| status.active.is_empty()).await?;
    let ended = status.recent.iter().find(|run| run.workflow == first).unwrap();
    assert_eq!(ended.workflow_state(), WorkflowState::Succeeded, "{status:?}");
    Ok(())
}

#[tokio::test]
async fn replaced_workflows_run_their_finally_steps() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    let mut given = endless();
    given["spec"]["finally"] = json!([{ "name": "clean", "wait": { "signal": "clean" } }]);
    let spec = v1::ScheduleSpec { concurrency: ScheduleConcurrency::Replace.into(), ..spec(given) };
    fixture.create(spec).await?;
    for minute in 1..=4 {
        fixture.set(&format!("2026-01-01T00:0{minute}:00Z"));
        fixture.until("a run", |status| status.started == minute).await?;
    }
    // Three were cancelled, the first one at three times.
    let first = fixture.status().await?.active[0].workflow.clone();
    let request = v1::SignalWorkflowRequest {
        name: format!("namespaces/default/workflows/{first}"),
        signal: "clean".to_owned(),
        payload: None,
    };
    tasks::eventually("its finally-step", async || {
        Ok(fixture.client().signal_workflow(request.clone()).await?.steps == 1)
    })
    .await?;
    let status = fixture.until("its end", |status| status.recent.len() == 1).await?;
    assert_eq!(status.recent[0].workflow, first);
    assert_eq!((status.recent[0].workflow_state(), status.active.len()), (WorkflowState::Cancelled, 3));
    Ok(())
}

#[tokio::test]
async fn requested_run_is_returned_without_its_template() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    fixture.put_template_with(json!({ "name": "hold", "wait": { "signal": "go" } })).await?;
    fixture.create(spec(json!({ "template": "deploy", "parameters": { "image": "a" } }))).await?;
    let request = v1::RunScheduleRequest { name: NAME.into(), idempotency_key: "a".into() };
    let first = fixture.client().run_schedule(request.clone()).await?.workflow.unwrap();
    let name = "namespaces/default/templates/deploy".to_owned();
    let delete = v1::DeleteWorkflowTemplateRequest { name, ..Default::default() };
    fixture.client().delete_workflow_template(delete).await?;
    let again = fixture.client().run_schedule(request).await?.workflow.unwrap();
    assert_eq!(again.uid, first.uid);
    let status = fixture.status().await?;
    assert_eq!((status.active.len(), status.recent.len(), status.problem.as_str()), (1, 0, ""));
    let name = format!("namespaces/default/workflows/{}", first.uid);
    let cancel = v1::CancelWorkflowRequest { name, ..Default::default() };
    fixture.client().cancel_workflow(cancel).await?;
    let status = fixture.until("its end", |status| status.recent.len() == 1).await?;
    assert_eq!(status.recent[0].workflow, first.uid);
    Ok(())
}

/// A run whose record cannot be decoded is not known to be over: it stays, and the others go on.
#[tokio::test]
async fn damaged_run_does_not_stop_its_schedule() -> Result<()> {
    let mut fixture = Fixture::start(Backend::Sqlite, "2026-01-01T00:00:30Z").await?;
    fixture.create(spec(endless())).await?;
    fixture.set("2026-01-01T00:01:00Z");
    let runs = |run: &v1::ScheduleRun| run.workflow_state() == WorkflowState::Running;
    let status = fixture.until("a run", |status| status.active.iter().any(runs)).await?;
    let damaged = status.active[0].workflow.clone();
    fixture.cluster.kill().await;
    let database = rusqlite::Connection::open(fixture.cluster.folder().join("rota.sqlite"))?;
    assert_eq!(database.execute("UPDATE workflows SET record = x'ff'", [])?, 1);
    drop(database);
    fixture.cluster.restart().await?;
    fixture.set("2026-01-01T00:02:00Z");
    let status = fixture.until("the next run", |status| status.active.iter().any(runs)).await?;
    assert_eq!(status.active.len(), 2, "{status:?}");
    assert_eq!(status.active[0].workflow, damaged);
    assert!(status.active[0].message.contains("corrupt"), "{status:?}");
    assert_eq!(status.problem, "");
    Ok(())
}

/// A run whose record cannot be decoded keeps no other one from being replaced.
#[tokio::test]
async fn damaged_run_is_replaced_with_the_others() -> Result<()> {
    let mut fixture = Fixture::start(Backend::Sqlite, "2026-01-01T00:00:30Z").await?;
    let replaces = v1::ScheduleSpec { concurrency: ScheduleConcurrency::Replace.into(), ..spec(endless()) };
    fixture.create(replaces).await?;
    fixture.set("2026-01-01T00:01:00Z");
    let runs = |run: &v1::ScheduleRun| run.workflow_state() == WorkflowState::Running;
    fixture.until("a run", |status| status.active.iter().any(runs)).await?;
    fixture.cluster.kill().await;
    let database = rusqlite::Connection::open(fixture.cluster.folder().join("rota.sqlite"))?;
    assert_eq!(database.execute("UPDATE workflows SET record = x'ff'", [])?, 1);
    drop(database);
    fixture.cluster.restart().await?;
    for minute in 2..=3 {
        fixture.set(&format!("2026-01-01T00:0{minute}:00Z"));
        fixture.until("the next run", |status| status.started == minute).await?;
    }
    let status = fixture.until("the end of the second", |status| !status.recent.is_empty()).await?;
    assert_eq!(status.recent[0].workflow_state(), WorkflowState::Cancelled, "{status:?}");
    assert_eq!(status.problem, "");
    Ok(())
}

#[tokio::test]
async fn restart_finds_the_workflow_of_a_run() -> Result<()> {
    let mut fixture = Fixture::start(Backend::Sqlite, "2026-01-01T00:00:30Z").await?;
    fixture.create(spec(endless())).await?;
    fixture.set("2026-01-01T00:01:00Z");
    let before = fixture.until("a run", |status| status.active.len() == 1 && status.started == 1).await?;
    let id = before.active[0].workflow.clone();
    fixture.cluster.kill().await;
    fixture.cluster.restart().await?;
    let name = format!("namespaces/default/workflows/{id}");
    let cancel = v1::CancelWorkflowRequest { name, ..Default::default() };
    fixture.client().cancel_workflow(cancel).await?;
    let status = fixture.until("its end", |status| status.recent.len() == 1).await?;
    assert_eq!(status.recent[0].workflow, id);
    assert_eq!(status.recent[0].workflow_state(), WorkflowState::Cancelled);
    assert_eq!(fixture.workflows().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn history_removes_older_workflows() -> Result<()> {
    let fixture = Fixture::start(Backend::Sqlite, "2026-01-01T00:00:30Z").await?;
    let history = Some(v1::ScheduleHistory { succeeded: 2, failed: 0 });
    let quick = json!({ "spec": { "steps": [{ "name": "a", "wait": { "duration": "0s" } }] } });
    fixture.create(v1::ScheduleSpec { history, ..spec(quick) }).await?;
    for minute in 1..=4 {
        fixture.set(&format!("2026-01-01T00:0{minute}:00Z"));
        fixture.until("a run", |status| status.started == minute && status.active.is_empty()).await?;
    }
    let status = fixture.status().await?;
    assert_eq!(times(&status.recent), ["2026-01-01T00:04:00Z", "2026-01-01T00:03:00Z"]);
    let kept = [status.recent[1].workflow.clone(), status.recent[0].workflow.clone()];
    tasks::eventually("the removal of older workflows", async || {
        let left: Vec<_> = fixture.workflows().await?.into_iter().map(|workflow| workflow.uid).collect();
        Ok(left == kept)
    })
    .await
}

#[tokio::test]
async fn requested_run_returns_its_workflow() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    fixture.create(v1::ScheduleSpec { paused: Some(true), ..spec(endless()) }).await?;
    let request = v1::RunScheduleRequest { name: NAME.into(), idempotency_key: "a".into() };
    let first = fixture.client().run_schedule(request.clone()).await?;
    assert_eq!(first.task, None);
    let workflow = first.workflow.unwrap();
    assert_eq!(workflow.labels["rota.dev/schedule"], "nightly");
    let again = fixture.client().run_schedule(request).await?.workflow.unwrap();
    assert_eq!(again.uid, workflow.uid);
    let status = fixture.status().await?;
    assert_eq!((status.started, status.active[0].requested), (1, true));
    let name = format!("namespaces/default/workflows/{}", workflow.uid);
    let cancel = v1::CancelWorkflowRequest { name: name.clone(), ..Default::default() };
    fixture.client().cancel_workflow(cancel).await?;
    fixture.until("its end", |status| status.recent.len() == 1).await?;
    Ok(())
}

#[tokio::test]
async fn invalid_workflows_name_their_field() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    fixture.put_template("first").await?;
    let refused = async |spec: v1::ScheduleSpec| {
        let error = Box::pin(fixture.create(spec)).await.unwrap_err();
        error.fields.iter().map(|field| field.field.clone()).collect::<Vec<_>>().join(" ")
    };
    for (given, field) in [
        (json!({}), "schedule.spec.workflow.spec"),
        (json!({ "spec": {} }), "schedule.spec.workflow.spec.steps"),
        (
            json!({ "spec": { "steps": [{ "name": "a", "needs": [{ "step": "b" }], "wait": { "duration": "0s" } }] } }),
            "schedule.spec.workflow.spec.steps[0].needs[0]",
        ),
        (json!({ "template": "deploy" }), "schedule.spec.workflow.parameters.image"),
        (
            json!({ "template": "deploy", "parameters": { "image": 1 } }),
            "schedule.spec.workflow.parameters.image",
        ),
        (json!({ "template": "deploy@0" }), "schedule.spec.workflow.template"),
        (
            json!({ "template": "deploy", "spec": { "inputFiles": { "image": {} } } }),
            "schedule.spec.workflow.spec.input_files",
        ),
        (
            json!({ "spec": { "steps": endless()["spec"]["steps"], "inputFiles": { "data": {} } } }),
            "schedule.spec.workflow.spec.input_files",
        ),
        (
            json!({ "spec": endless()["spec"], "labels": { "rota.dev/cluster": "a" } }),
            "schedule.spec.workflow.labels",
        ),
    ] {
        assert_eq!(refused(spec(given.clone())).await, field, "{given}");
    }
    let both = v1::ScheduleSpec { task: Some(tasks::task("a")), ..spec(endless()) };
    assert_eq!(refused(both).await, "schedule.spec.workflow");
    Ok(())
}
