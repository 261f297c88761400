//! The `/metrics` page after everything that it counts has happened.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use rota_proto::v1::{self, TaskState, script_step::Kind as Step};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, Setup, tasks};

/// Every metric name. A changed name breaks dashboards and alerts.
const NAMES: &[&str] = &[
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
    "rota_artifacts_bytes",
    "rota_artifacts_full",
    "rota_artifacts_lost",
    "rota_artifacts_unavailable",
    "rota_attempt_duration_seconds",
    "rota_attempts_ended_total",
    "rota_agent_cool_down_seconds",
    "rota_history_lost_timestamp_seconds",
    "rota_last_backup_timestamp_seconds",
    "rota_load_ratio",
    "rota_notifications_total",
    "rota_notifications_waiting",
    "rota_backend_breaker_state",
    "rota_breaker_state",
    "rota_breakers_opened_total",
    "rota_budget_used_ratio",
    "rota_build_info",
    "rota_cost_usd_total",
    "rota_dispatch_latency_seconds",
    "rota_failures_total",
    "rota_background_task_last_success_timestamp_seconds",
    "rota_background_task_activations_total",
    "rota_owner",
    "rota_passed_connections",
    "rota_queue_oldest_age_seconds",
    "rota_queue_tasks",
    "rota_recoveries_total",
    "rota_schedule_lag_seconds",
    "rota_schedule_runs_total",
    "rota_scheduler_slot_mismatch_total",
    "rota_schedules_failing",
    "rota_search_index_lag_revisions",
    "rota_store_commit_commands",
    "rota_store_commit_duration_seconds",
    "rota_store_follow_ups_set_aside_total",
    "rota_store_free_bytes",
    "rota_store_reusable_bytes",
    "rota_store_size_bytes",
    "rota_store_undecodable_records_total",
    "rota_store_volume_bytes",
    "rota_store_write_failures_total",
    "rota_store_writes_failing",
    "rota_tasks",
    "rota_tasks_created_total",
    "rota_tasks_ended_total",
    "rota_work_refused_total",
    "rota_workflow_approvals_waiting",
    "rota_workflows_ended_total",
    "rota_tasks_recovered_total",
    "rota_tokens_total",
    "rota_worker_sessions_ended_total",
    "rota_worker_sessions_total",
    "rota_worker_slots",
    "rota_workers",
];

async fn fetch_page(cluster: &Cluster, accept: &str) -> Result<(String, String)> {
    let addr = cluster.http_addr().context("it does not listen")?;
    let asked = reqwest::Client::new().get(format!("http://{addr}/metrics")).header("accept", accept);
    let answer = asked.send().await?.error_for_status()?;
    let kind = answer.headers()["content-type"].to_str()?.to_owned();
    Ok((kind, answer.text().await?))
}

/// Waits until the page has these lines: metrics follow the commits, after callers received their response.
async fn expect_lines(cluster: &Cluster, lines: &[&str]) -> Result<()> {
    let last = RefCell::new(String::new());
    let missing = || -> Vec<_> {
        let text = last.borrow();
        lines.iter().filter(|line| !text.lines().any(|present| present == **line)).copied().collect()
    };
    let all = tasks::eventually("the metrics", async || {
        let text = fetch_page(cluster, "*/*").await?.1;
        last.replace(text);
        Ok(missing().is_empty())
    })
    .await;
    all.with_context(|| format!("{:?} are missing in {}", missing(), last.borrow()))
}

#[tokio::test]
async fn last_backup_is_dated() -> Result<()> {
    let setup = Setup { http: true, ..Setup::new(Backend::Sqlite) };
    let cluster = Cluster::start_with(setup).await?;
    expect_lines(&cluster, &["rota_last_backup_timestamp_seconds 0"]).await?;
    let began = rota_telemetry::clock::unix_micros() / 1_000_000;
    let mut parts = cluster.client().backup(v1::BackupRequest {}).await?;
    while parts.message().await?.is_some() {}
    let page = fetch_page(&cluster, "*/*").await?.1;
    let value = page.lines().find_map(|line| line.strip_prefix("rota_last_backup_timestamp_seconds "));
    assert!(value.context("no value")?.parse::<f64>()? >= began as f64, "{value:?}");
    Ok(())
}

#[tokio::test]
async fn oldest_age_counts_by_the_stores_clock() -> Result<()> {
    let setup = Setup { http: true, database_skew: -3600 * 1_000_000, ..Setup::new(Backend::Memory) };
    let cluster = Cluster::start_with(setup).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    tasks::create(cluster.client(), tasks::task("echo")).await?;
    expect_lines(&cluster, &[r#"rota_queue_tasks{namespace="default",agent="echo"} 1"#]).await?;
    let page = fetch_page(&cluster, "*/*").await?.1;
    let age = r#"rota_queue_oldest_age_seconds{namespace="default",agent="echo"} "#;
    let age = page.lines().find_map(|line| line.strip_prefix(age)).context("no age")?;
    assert!(age.parse::<f64>()? < 3600.0, "{age}");
    Ok(())
}

#[tokio::test]
async fn every_event_is_counted() -> Result<()> {
    let setup = Setup { http: true, ..Setup::new(Backend::Sqlite) };
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &["code"]).await?;

    // One task waits without a worker, and one for an agent that does not exist.
    let waits = tasks::create(&client, tasks::task("echo")).await?;
    tasks::create(&client, tasks::task("missing")).await?;
    expect_lines(
        &cluster,
        &[
            r#"rota_tasks{state="pending"} 1"#,
            r#"rota_tasks{state="queued"} 1"#,
            r#"rota_queue_tasks{namespace="default",agent="echo"} 1"#,
        ],
    )
    .await?;
    assert!(
        fetch_page(&cluster, "*/*")
            .await?
            .1
            .contains("rota_queue_oldest_age_seconds{namespace=\"default\",agent=\"echo\"}")
    );

    let worker = cluster.worker("echo", "one", 3)?;
    tasks::ended(&client, &waits.name).await?;
    let used = v1::ScriptUsage { input_tokens: 7, output_tokens: 5, cost_micro_usd: 250_000 };
    let steps = [Step::Usage(used), Step::Succeed("done".into())];
    let done = tasks::create(&client, tasks::scripted("echo", steps)).await?;
    tasks::ended(&client, &done.name).await?;
    let failed = v1::ScriptFailure { message: "no".to_owned(), ..Default::default() };
    let mut fails = tasks::scripted("echo", [Step::Fail(failed)]);
    let retry =
        v1::RetryPolicy { max_attempts: 2, initial_backoff: Some(tasks::millis(1)), ..Default::default() };
    fails.spec.get_or_insert_default().retry = Some(retry);
    let fails = tasks::create(&client, fails).await?;
    tasks::ended(&client, &fails.name).await?;
    let long = tasks::create(&client, tasks::scripted("echo", [Step::Hang(true)])).await?;
    tasks::until_state(&client, &long.name, TaskState::Running).await?;
    expect_lines(
        &cluster,
        &[
            r#"rota_tasks{state="running"} 1"#,
            r#"rota_workers{namespace="default",agent="echo",state="busy"} 1"#,
            r#"rota_worker_slots{namespace="default",agent="echo",state="free"} 2"#,
            r#"rota_worker_slots{namespace="default",agent="echo",state="used"} 1"#,
        ],
    )
    .await?;
    tasks::cancel(&client, &long.name).await?;
    tasks::ended(&client, &long.name).await?;
    expect_lines(
        &cluster,
        &[
            r#"rota_tasks{state="running"} 0"#,
            r#"rota_tasks_created_total{namespace="default",agent="echo"} 4"#,
            r#"rota_tasks_ended_total{namespace="default",agent="echo",outcome="succeeded"} 2"#,
            r#"rota_tasks_ended_total{namespace="default",agent="echo",outcome="failed"} 1"#,
            r#"rota_tasks_ended_total{namespace="default",agent="echo",outcome="cancelled"} 1"#,
            r#"rota_attempts_ended_total{namespace="default",agent="echo",outcome="failed"} 2"#,
            r#"rota_attempt_duration_seconds_count{namespace="default",agent="echo"} 5"#,
            r#"rota_dispatch_latency_seconds_count{namespace="default",agent="echo"} 5"#,
            r#"rota_failures_total{class="agent"} 2"#,
            r#"rota_recoveries_total{class="agent",action="retry"} 1"#,
            r#"rota_recoveries_total{class="agent",action="stop"} 1"#,
            r#"rota_tokens_total{namespace="default",agent="echo",model="_none",type="input"} 7"#,
            r#"rota_tokens_total{namespace="default",agent="echo",model="_none",type="output"} 5"#,
            r#"rota_cost_usd_total{namespace="default",agent="echo",model="_none"} 0.25"#,
            r#"rota_worker_sessions_total{kind="first"} 1"#,
        ],
    )
    .await?;
    assert_names(&cluster).await?;

    // The same worker process reconnects after a restart. Counters start at zero with the process, as usual.
    cluster.stop().await;
    cluster.restart().await?;
    expect_lines(
        &cluster,
        &[r#"rota_worker_sessions_total{kind="reconnect"} 1"#, r#"rota_tasks{state="pending"} 1"#],
    )
    .await?;
    worker.drain().await?;
    expect_lines(&cluster, &["rota_worker_sessions_ended_total 1"]).await?;
    Ok(())
}

/// The page, the reference and the list above have the same names. A waiting task adds the age of
/// its queue, which has no samples while nothing waits, and a budget the share of it that is spent.
async fn assert_names(cluster: &Cluster) -> Result<()> {
    tasks::agent(cluster.client(), "idle", tasks::script([]), &[]).await?;
    tasks::create(cluster.client(), tasks::task("idle")).await?;
    let (name, budget) =
        ("namespaces/default".to_owned(), v1::Budget { daily_micro_usd: 1, ..Default::default() });
    let budget = v1::SetNamespaceBudgetRequest { name, budget: Some(budget), ..Default::default() };
    cluster.client().set_namespace_budget(budget).await?;
    expect_lines(cluster, &[r#"rota_queue_tasks{namespace="default",agent="idle"} 1"#]).await?;
    let (kind, plain) = fetch_page(cluster, "*/*").await?;
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let mut names: BTreeSet<_> = (plain.lines().filter_map(|line| line.strip_prefix("# TYPE ")))
        .filter_map(|line| line.split(' ').next())
        .collect();
    // These have no samples without receivers, and without failures of back ends.
    names.extend(["rota_backend_breaker_state", "rota_notifications_total", "rota_notifications_waiting"]);
    // Nor without a task that has recovered, without artifacts, and without schedules that fail.
    names.extend(["rota_artifacts_bytes", "rota_artifacts_full", "rota_artifacts_lost"]);
    names.extend(["rota_schedules_failing", "rota_tasks_recovered_total"]);
    assert_eq!(names, NAMES.iter().copied().collect());
    let described = rota_server::metrics();
    assert_eq!(names, described.iter().map(|metric| metric.name.as_str()).collect());
    let (kind, open) =
        fetch_page(cluster, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5").await?;
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(open.ends_with("# EOF\n"));
    check_with_promtool(&plain)
}

/// Checks the page with `promtool`, where it is installed.
fn check_with_promtool(page: &str) -> Result<()> {
    let program = rota_telemetry::env::var("ROTA_PROMTOOL").unwrap_or_else(|| "promtool".to_owned());
    let started = Command::new(&program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut checking = match started {
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && rota_telemetry::env::var("CI").is_none() =>
        {
            eprintln!("{program} is not installed: the page was not checked by it");
            return Ok(());
        }
        started => started.with_context(|| program.clone())?,
    };
    checking.stdin.take().context("no input")?.write_all(page.as_bytes())?;
    let checked = checking.wait_with_output()?;
    let errors = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && errors.is_empty(), "{errors}");
    Ok(())
}

/// An attempt's duration counts from its start, not from its assignment, also after a restart.
#[tokio::test]
async fn attempt_duration_survives_a_restart() -> Result<()> {
    let setup = Setup { http: true, ..Setup::new(Backend::Sqlite) };
    let skew = Arc::clone(&setup.skew);
    let advance = |seconds: i64| skew.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(&client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(&client, tasks::task("echo")).await?;
    let assign = worker.next_assignment().await?;
    advance(2);
    worker.accept(&assign);
    tasks::until_state(&client, &task.name, TaskState::Running).await?;
    cluster.kill().await;
    cluster.restart().await?;
    let mut hello = raw::hello("echo", "hand", 1);
    hello.running.push(raw::running(&assign, 0, 0));
    let worker = RawWorker::join(&client, hello).await?;
    advance(10);
    worker.succeed(&assign, 0, "done");
    let status = tasks::ended(&client, &task.name).await?.status.context("no status")?;
    let count = r#"rota_attempt_duration_seconds_count{namespace="default",agent="echo"} 1"#;
    expect_lines(&cluster, &[count]).await?;
    let page = fetch_page(&cluster, "*/*").await?.1;
    let sum = r#"rota_attempt_duration_seconds_sum{namespace="default",agent="echo"} "#;
    let sum = page.lines().find_map(|line| line.strip_prefix(sum)).context("no sum")?.parse::<f64>()?;
    let seconds = |at: &pbjson_types::Timestamp| at.seconds as f64 + f64::from(at.nanos) / 1e9;
    let (start, end) = (status.start_time.context("no start")?, status.end_time.context("no end")?);
    assert!((sum - (seconds(&end) - seconds(&start))).abs() < 0.001, "{sum} from {start:?} to {end:?}");
    Ok(())
}

#[tokio::test]
async fn recoveries_are_counted_and_repeated_failures_noted() -> Result<()> {
    let setup = Setup { http: true, ..Setup::new(Backend::Memory) };
    let cluster = Cluster::start_with(setup).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let mut task = tasks::task("echo");
    let backoff = Some(tasks::millis(1));
    let retry = v1::RetryPolicy { max_attempts: 6, initial_backoff: backoff, ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    let task = tasks::create(client, task).await?;
    for _ in 0..4 {
        let assign = worker.take().await?;
        let class = v1::FailureClass::Checks.into();
        worker.fail(&assign, v1::Failure { class, message: "still red".to_owned(), ..Default::default() });
        assert!(worker.result_ack().await?);
    }
    let assign = worker.take().await?;
    worker.succeed(&assign, 0, "green");
    assert!(worker.result_ack().await?);
    expect_lines(
        &cluster,
        &[
            r#"rota_recoveries_total{class="checks",action="retry"} 4"#,
            r#"rota_tasks_recovered_total{namespace="default",agent="echo"} 1"#,
        ],
    )
    .await?;
    let log = tasks::log(client, &task.name).await?;
    let notices: Vec<_> = log
        .iter()
        .filter_map(|event| match &event.kind {
            Some(v1::event::Kind::Notice(notice)) if notice.code == "attention" => Some(notice),
            _ => None,
        })
        .collect();
    let [notice] = notices[..] else { panic!("{notices:?}") };
    assert_eq!(notice.message, "3 attempts have failed, and the task continues; the last: still red");
    assert_eq!(notice.severity(), v1::Severity::High);
    Ok(())
}

#[tokio::test]
async fn workflows_are_counted_by_their_ends() -> Result<()> {
    let setup = Setup { http: true, ..Setup::new(Backend::Sqlite) };
    let mut cluster = Cluster::start_with(setup).await?;
    let create = async |client: &rota_testkit::client::Client| {
        let spec = serde_json::json!({ "steps": [{ "name": "ask", "approval": { "prompt": "Go?" } }] });
        let workflow = v1::Workflow { spec: Some(serde_json::from_value(spec)?), ..Default::default() };
        let request = v1::CreateWorkflowRequest {
            parent: "namespaces/default".to_owned(),
            workflow: Some(workflow),
            ..Default::default()
        };
        anyhow::Ok(client.create_workflow(request).await?.name)
    };
    let asking = create(cluster.client()).await?;
    create(cluster.client()).await?;
    let ended = |outcome: &str, count| format!("rota_workflows_ended_total{{outcome=\"{outcome}\"}} {count}");
    let lines = async |cluster: &Cluster, lines: &[String]| {
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        expect_lines(cluster, &lines).await
    };
    let waiting = |count| format!("rota_workflow_approvals_waiting {count}");
    lines(&cluster, &[waiting(2), ended("succeeded", 0), ended("compensation_failed", 0)]).await?;
    cluster.kill().await;
    cluster.restart().await?;
    lines(&cluster, &[waiting(2)]).await?;
    let decide = v1::DecideStepRequest {
        name: asking.clone(),
        step: "ask".to_owned(),
        decision: v1::StepDecision::Reject.into(),
        ..Default::default()
    };
    cluster.client().decide_step(decide).await?;
    lines(&cluster, &[waiting(1), ended("succeeded", 0), ended("failed", 1)]).await?;
    // The record of the failed one names its newest rerun.
    let again = v1::RerunWorkflowRequest { name: asking, ..Default::default() };
    cluster.client().rerun_workflow(again).await?;
    lines(&cluster, &[waiting(2), ended("failed", 1)]).await
}
