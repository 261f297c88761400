//! Schedules of a control plane that is killed again and again, and the commands of a user.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use rota_proto::v1;
use rota_testkit::client::Client;
use rota_testkit::tasks;

use crate::{Fixture, Graces};

const NAME: &str = "namespaces/default/schedules/ticks";

async fn status(client: &Client) -> Result<v1::ScheduleStatus> {
    let request = v1::GetScheduleRequest { name: NAME.to_owned() };
    Ok(client.get_schedule(request).await?.status.unwrap_or_default())
}

async fn created(client: &Client) -> Result<Vec<v1::Task>> {
    let request = v1::ListTasksRequest { parent: "namespaces/default".into(), ..Default::default() };
    Ok(client.all_tasks(request, None).await?)
}

/// Every fourth second is due, so that a slow machine does not have more runs than may be active. A kill may hit between any two
/// steps of a run.
#[tokio::test]
async fn kills_neither_lose_nor_repeat_runs() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    let spec = v1::ScheduleSpec {
        cron: "*/4 * * * * *".to_owned(),
        catch_up: v1::ScheduleCatchUp::All.into(),
        task: Some(tasks::task("absent")),
        ..Default::default()
    };
    let schedule = v1::Schedule { name: NAME.to_owned(), spec: Some(spec), ..Default::default() };
    let request =
        v1::UpdateScheduleRequest { schedule: Some(schedule), allow_missing: true, ..Default::default() };
    Box::pin(client.update_schedule(request)).await?;
    for round in 0..12 {
        let before = (created(&client).await?.len(), status(&client).await?.active.len());
        tasks::eventually("another run", async || {
            Ok(match round % 2 {
                0 => created(&client).await?.len() > before.0,
                _ => status(&client).await?.active.len() > before.1,
            })
        })
        .await?;
        fixture.kill_server().await;
        fixture.start_server().await?;
    }
    // A run whose task the last kill has prevented would be skipped by a pause.
    tasks::eventually("the task of each run", async || {
        Ok(created(&client).await?.len() == status(&client).await?.active.len())
    })
    .await?;
    let paused = fixture.rota(&["schedule", "pause", "ticks"]).await;
    assert_eq!(paused.code, 0, "{paused:?}");
    let last = status(&client).await?;
    assert_eq!((last.recent.len(), last.skipped, last.last_skip.clone()), (0, 0, None), "{last:?}");
    let runs: BTreeSet<_> = last.active.iter().map(|run| run.task.clone()).collect();
    let found: BTreeSet<_> = created(&client).await?.into_iter().map(|task| task.uid).collect();
    assert_eq!(runs, found, "each run has its task, and each task its run");
    assert_eq!(runs.len(), last.active.len());
    let times = last.active.iter().map(|run| run.schedule_time.as_ref().map(|at| at.seconds));
    let times = times.collect::<Option<Vec<_>>>().context("a run has no time")?;
    let wanted: Vec<_> = (0_i64..).map(|run| times[0] + 4 * run).take(times.len()).collect();
    assert_eq!(times, wanted, "each due second has one run");
    // Of two rounds, one waits for the task of a run, and the other perhaps for the same run.
    assert!(times.len() >= 6, "{times:?}");
    Ok(())
}

#[tokio::test]
async fn commands_create_show_and_run_schedules() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let _worker = fixture.worker("echo", "one", 1).await?;
    let rota = async |args: &[&str]| {
        let args: Vec<_> = ["schedule"].iter().chain(args).copied().collect();
        fixture.rota(&args).await
    };
    let made = rota(&[
        "create",
        "nightly",
        "--cron",
        "0 3 * * *",
        "--time-zone",
        "Europe/Berlin",
        "--jitter",
        "5m",
        "--concurrency",
        "forbid",
        "--agent",
        "echo",
        "Update the dependencies",
    ])
    .await;
    assert_eq!(made.code, 0, "{made:?}");
    assert!(made.err.contains("schedule nightly created; next time: "), "{made:?}");
    let wrong = rota(&["create", "other", "--cron", "0 3 * *", "x"]).await;
    assert!(wrong.code != 0 && wrong.err.contains("five fields"), "{wrong:?}");
    let next = rota(&["next", "--cron", "30 2 29 3 *", "--time-zone", "Europe/Berlin", "--count", "2"]).await;
    assert_eq!(next.out.lines().count(), 2, "{next:?}");
    let list = rota(&["list"]).await;
    assert!(list.out.contains("nightly") && list.out.contains("Europe/Berlin"), "{list:?}");
    let run = rota(&["run", "nightly", "--wait"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    tasks::eventually("the end of the run", async || {
        let shown = rota(&["get", "nightly"]).await;
        Ok(shown.out.contains("succeeded") && shown.out.contains("requested"))
    })
    .await?;
    let manifest = "apiVersion: rota.dev/v1alpha1\nkind: Schedule\nmetadata: {name: nightly}\n\
                    spec:\n  cron: 0 4 * * *\n  task: {agent: echo, prompt: Update the dependencies}\n";
    let applied = fixture.apply("schedule.yaml", manifest).await;
    assert!(applied.out.contains("schedule/nightly configured"), "{applied:?}");
    let again = fixture.apply("schedule.yaml", manifest).await;
    assert!(again.out.contains("schedule/nightly unchanged"), "{again:?}");
    let deleted = rota(&["delete", "nightly"]).await;
    assert_eq!(deleted.code, 0, "{deleted:?}");
    let missing = rota(&["get", "nightly"]).await;
    assert_eq!(missing.code, 4, "{missing:?}");
    Ok(())
}

#[tokio::test]
async fn commands_schedule_workflows_of_templates() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let template = "apiVersion: rota.dev/v1alpha1\nkind: WorkflowTemplate\nmetadata: {name: greet}\nspec:\n  \
                    parameters: [{name: who, schema: {type: string}}]\n  \
                    workflow:\n    steps: [{name: pause, wait: {duration: 0s}}]\n    outputs: {text: 'hello ${{ inputs.who }}'}\n";
    fixture.apply("template.yaml", template).await.success();
    let create = ["schedule", "create", "hourly", "--cron", "0 * * * *", "--template", "greet@1"];
    let missing = fixture.rota(&create).await;
    missing.failed(1, &["schedule.spec.workflow.parameters.who"]);
    let short = fixture.rota(&[&create[..], &["-p", "who=you"]].concat()).await;
    short.failed(2, &["is not a priority", "is given with --parameter"]);
    let mut complete = create.to_vec();
    complete.extend(["--parameter", "who=you"]);
    fixture.rota(&complete).await.success();
    let lonely =
        fixture.rota(&["schedule", "create", "b", "--cron", "0 * * * *", "--parameter", "who=you", "x"]);
    lonely.await.failed(2, &["--template"]);
    assert!(fixture.rota(&["schedule", "get", "hourly"]).await.success().contains("template greet@1"));
    let run = fixture.rota(&["schedule", "run", "hourly", "--wait"]).await;
    assert!(run.code == 0 && run.out.contains("workflow SUCCEEDED"), "{run:?}");
    tasks::eventually("the end of the run", async || {
        let shown = fixture.rota(&["schedule", "get", "hourly"]).await;
        Ok(shown.out.contains("succeeded") && shown.out.contains("requested"))
    })
    .await?;
    let listed = fixture.rota(&["workflow", "list", "-l", "rota.dev/schedule=hourly"]).await;
    assert!(listed.out.contains("SUCCEEDED"), "{listed:?}");
    let manifest = "apiVersion: rota.dev/v1alpha1\nkind: Schedule\nmetadata: {name: hourly}\n\
                    spec:\n  cron: 0 * * * *\n  workflow: {template: greet, parameters: {who: all}}\n";
    let applied = fixture.apply("schedule.yaml", manifest).await;
    assert!(applied.out.contains("schedule/hourly configured"), "{applied:?}");
    let again = fixture.apply("schedule.yaml", manifest).await;
    assert!(again.out.contains("schedule/hourly unchanged"), "{again:?}");
    Ok(())
}

#[tokio::test]
async fn commands_keep_versions_of_templates() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let file = fixture.dir().join("template.json");
    let path = file.to_str().context("a path")?;
    let write = |step: &str| {
        let spec = serde_json::json!({
            "parameters": [{"name": "image", "schema": {"type": "string"}, "default": "app"}],
            "workflow": {"steps": [{"name": step, "task": {"prompt": "x", "target": {"agent": "a"}}}]},
        });
        std::fs::write(&file, spec.to_string())
    };
    let apply = async || fixture.rota(&["template", "apply", "deploy", "-f", path]).await;
    write("build")?;
    assert_eq!(apply().await.success(), "template/deploy created");
    assert_eq!(apply().await.success(), "template/deploy unchanged");
    write("test")?;
    assert_eq!(apply().await.success(), "template/deploy configured: version 2");
    let first = fixture.rota(&["template", "get", "deploy", "--version", "1", "-o", "json"]).await.json();
    assert_eq!(first["spec"]["workflow"]["steps"][0]["name"], "build");
    assert!(fixture.rota(&["template", "get", "deploy"]).await.success().contains("\"app\""));
    assert!(fixture.rota(&["template", "list"]).await.success().contains("image"));
    fixture.rota(&["template", "delete", "deploy"]).await.success();
    fixture.rota(&["template", "get", "deploy"]).await.failed(4, &["does not exist"]);
    Ok(())
}
