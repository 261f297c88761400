//! Circuit breakers: an agent whose infrastructure fails receives no tasks for a while, and other agents are not
//! affected.

use std::time::Duration;

use anyhow::{Context, Result};
use rota_core::breaker::Policy;
use rota_proto::v1::{self, BreakerState, SystemState, TaskState, script_step::Kind as Step};
use rota_proto::worker::v1::session_request::Kind;
use rota_proto::worker::v1::{Result as AttemptResult, result};
use rota_testkit::client::Client;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, Setup, history, tasks};

const AGENT: &str = "namespaces/default/agents/coder";

async fn start_cluster(failures: u32, cooldown: Duration) -> Result<Cluster> {
    let setup = Setup { breakers: Policy { failures, cooldown }, http: true, ..Setup::new(Backend::Memory) };
    let cluster = Cluster::start_with(setup).await?;
    for agent in ["coder", "other"] {
        tasks::agent(cluster.client(), agent, tasks::script([]), &[]).await?;
    }
    Ok(cluster)
}

/// A scripted task that ends immediately, with the given step.
fn failing_task(class: &str) -> v1::Task {
    let failure = v1::ScriptFailure { class: class.into(), message: "no".into(), ..Default::default() };
    let mut task = tasks::scripted("coder", [Step::Fail(failure)]);
    let spec = task.spec.get_or_insert_default();
    let backoff = Some(tasks::millis(60_000));
    let retry = v1::RetryPolicy { max_attempts: 1, initial_backoff: backoff, ..Default::default() };
    spec.retry = Some(retry);
    task
}

/// Runs a task whose attempt fails. One that waits for credentials is cancelled: it is to fail once.
async fn run_failing_task(client: &Client, class: &str) -> Result<()> {
    let name = tasks::create(client, failing_task(class)).await?.name;
    let failed = |status: &v1::TaskStatus| {
        status.attempt > 0 && matches!(status.state(), TaskState::Pending | TaskState::Failed)
    };
    let task = tasks::until(client, &name, failed).await?;
    if task.status.unwrap_or_default().state() == TaskState::Pending {
        tasks::cancel(client, &name).await?;
    }
    Ok(())
}

async fn system_status(client: &Client) -> Result<v1::SystemStatus> {
    Ok(client.get_system_status(v1::GetSystemStatusRequest {}).await?)
}

/// Returns the breakers after they have observed all commits.
async fn wait_for_breaker(client: &Client, state: Option<BreakerState>) -> Result<v1::SystemStatus> {
    let breakers = async || system_status(client).await;
    tasks::eventually(&format!("{state:?}"), async || {
        Ok(breakers().await?.breakers.first().map(v1::Breaker::state) == state)
    })
    .await?;
    breakers().await
}

async fn task_state(client: &Client, name: &str) -> Result<TaskState> {
    Ok(tasks::get(client, name).await?.status.unwrap().state())
}

async fn queued_demand(client: &Client) -> Result<Option<i64>> {
    let request = v1::WatchDemandRequest { parent: "namespaces/default".into(), ..Default::default() };
    let demand = client.agents().watch_demand(request).await?.into_inner().message().await?;
    Ok(demand
        .context("nothing came")?
        .demands
        .into_iter()
        .find(|one| one.agent == AGENT)
        .map(|one| one.queued))
}

#[tokio::test]
async fn open_breaker_reaches_all_watchers_of_the_status() -> Result<()> {
    let cluster = start_cluster(1, Duration::from_secs(3600)).await?;
    let client = cluster.client();
    let _worker = cluster.worker("coder", "one", 1)?;
    let request = v1::WatchSystemStatusRequest {};
    let mut watchers = Vec::new();
    for _ in 0..3 {
        let mut watcher = client.admin().watch_system_status(request).await?.into_inner();
        let first = watcher.message().await?.context("nothing came")?;
        assert_eq!((first.state(), first.causes.len()), (SystemState::Healthy, 0));
        watchers.push(watcher);
    }
    run_failing_task(client, "auth").await?;
    for watcher in &mut watchers {
        // Numbers of workers and tasks may have come before.
        let next = loop {
            let next = watcher.message().await?.context("nothing came")?;
            if next.state() != SystemState::Healthy {
                break next;
            }
        };
        assert_eq!((next.state(), next.causes[0].code.as_str()), (SystemState::Degraded, "breaker_open"));
    }
    // A watcher that comes later begins with the state of then, also after a pause without watchers.
    drop(watchers);
    let reset = v1::ResetBreakerRequest { name: AGENT.into(), ..Default::default() };
    client.reset_breaker(reset).await?;
    let mut late = client.admin().watch_system_status(request).await?.into_inner();
    let first = late.message().await?.context("nothing came")?;
    let last = match first.state() {
        SystemState::Healthy => first,
        _ => late.message().await?.context("nothing came")?,
    };
    assert_eq!((last.state(), last.causes.len()), (SystemState::Healthy, 0));
    Ok(())
}

#[tokio::test]
async fn breaker_opens_reports_and_resets() -> Result<()> {
    let cluster = start_cluster(3, Duration::from_secs(3600)).await?;
    let client = cluster.client();
    let _workers = [cluster.worker("coder", "one", 4)?, cluster.worker("other", "two", 1)?];
    // Failures of the task itself do not count, and neither do successes in between.
    for class in ["auth", "auth", "agent", "auth", "auth", "invalid", "timeout"] {
        run_failing_task(client, class).await?;
    }
    let now = wait_for_breaker(client, Some(BreakerState::Closed)).await?;
    assert_eq!(now.state(), SystemState::Healthy);
    assert_eq!(now.breakers[0].failures, 2);
    run_failing_task(client, "auth").await?;
    let now = wait_for_breaker(client, Some(BreakerState::Open)).await?;
    let breaker = &now.breakers[0];
    assert_eq!(breaker.agent.as_str(), AGENT);
    assert_eq!(breaker.failure_class(), v1::FailureClass::Auth);
    assert!(breaker.open_until_time.is_some());
    assert_eq!(now.state(), SystemState::Degraded);
    assert_eq!(now.causes[0].code.as_str(), "breaker_open");

    let waits = tasks::create(client, tasks::task("coder")).await?.name;
    let other = tasks::create(client, tasks::task("other")).await?.name;
    tasks::until_state(client, &other, TaskState::Succeeded).await?;
    assert_eq!(task_state(client, &waits).await?, TaskState::Queued);
    let why = client.explain_task(v1::ExplainTaskRequest { name: waits.clone() }).await?;
    assert_eq!(why.causes[0].code, "breaker_open");
    assert!(why.causes[0].message.contains("coder") && why.causes[0].message.contains("auth"), "{why:?}");
    assert!(why.causes[1..].iter().all(|cause| cause.code == "behind"), "{why:?}");
    // More workers would be idle, too.
    assert_eq!(queued_demand(client).await?, Some(0));
    let page = reqwest::get(format!("http://{}/metrics", cluster.http_addr().unwrap())).await?.text().await?;
    assert!(page.contains(r#"rota_breaker_state{namespace="default",agent="coder"} 2"#), "{page}");
    assert!(page.contains("rota_breakers_opened_total 1"), "{page}");

    let reset = async |name: &str| {
        client.reset_breaker(v1::ResetBreakerRequest { name: name.into(), ..Default::default() }).await
    };
    let before = reset(AGENT).await?.breaker.context("it was not open")?;
    assert_eq!(before.state(), BreakerState::Open);
    tasks::until_state(client, &waits, TaskState::Succeeded).await?;
    assert_eq!(system_status(client).await?.breakers, []);
    assert_eq!(reset(AGENT).await?.breaker, None);
    let refused = reset("namespaces/default/agents/missing").await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("AGENT_NOT_FOUND"));
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn successful_probe_closes_breaker() -> Result<()> {
    let cluster = start_cluster(2, Duration::from_millis(100)).await?;
    let client = cluster.client();
    let workers = [cluster.worker("coder", "one", 2)?, cluster.worker("coder", "two", 2)?];
    run_failing_task(client, "auth").await?;
    run_failing_task(client, "auth").await?;
    wait_for_breaker(client, Some(BreakerState::HalfOpen)).await?;
    let mut names = Vec::new();
    let asks = || vec![Step::Ask("go?".into()), Step::Succeed("done".into())];
    for steps in [vec![Step::Hang(true)], asks(), asks()] {
        names.push(tasks::create(client, tasks::scripted("coder", steps)).await?.name);
    }
    // One of four free slots receives a task.
    tasks::until_state(client, &names[0], TaskState::Running).await?;
    for name in &names[1..] {
        assert_eq!(task_state(client, name).await?, TaskState::Queued);
    }
    let why = client.explain_task(v1::ExplainTaskRequest { name: names[1].clone() }).await?;
    assert!(
        why.causes[0].code == "breaker_open" && why.causes[0].message.contains("one probe task"),
        "{why:?}"
    );
    assert_eq!(queued_demand(client).await?, Some(1));
    assert_eq!(system_status(client).await?.breakers[0].state(), BreakerState::HalfOpen);
    // A probe that proves nothing about the agent lets the next one start.
    tasks::cancel(client, &names[0]).await?;
    // A probe that requests input has proved the agent: the others need not wait for its end.
    tasks::until_state(client, &names[1], TaskState::InputRequired).await?;
    tasks::until_state(client, &names[2], TaskState::InputRequired).await?;
    assert_eq!(system_status(client).await?.breakers, []);
    tasks::answer(client, &names[1], "yes").await?;
    tasks::answer(client, &names[2], "yes").await?;
    for name in &names {
        tasks::ended(client, name).await?;
    }
    for worker in workers {
        worker.drain().await?;
    }
    history::check(client, true).await?.check()
}

/// The key of an agent expires, and is replaced after the breaker has probed it many times.
#[tokio::test]
async fn expired_credentials_fail_no_task() -> Result<()> {
    let cluster = start_cluster(2, Duration::from_millis(50)).await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("coder", "one", 2)).await?;
    let mut names = Vec::new();
    for _ in 0..10 {
        let mut task = tasks::task("coder");
        let retry = v1::RetryPolicy { initial_backoff: Some(tasks::millis(1)), ..Default::default() };
        task.spec.get_or_insert_default().retry = Some(retry);
        names.push(tasks::create(client, task).await?.name);
    }
    let mut attempts = 0;
    let serve = async {
        loop {
            let assign = worker.take().await?;
            attempts += 1;
            if attempts > 12 {
                worker.succeed(&assign, 0, "done");
                continue;
            }
            let failure = v1::Failure { class: v1::FailureClass::Auth.into(), ..Default::default() };
            worker.send(Kind::Result(Box::new(AttemptResult {
                task_id: assign.task_id.clone(),
                fence: assign.fence,
                kind: Some(result::Kind::Failed(failure)),
                ..AttemptResult::default()
            })));
        }
        #[expect(unreachable_code, reason = "the type of its errors")]
        anyhow::Ok(())
    };
    let ends = async {
        for name in &names {
            let status = tasks::ended(client, name).await?.status.context("no status")?;
            assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = ends => ended?,
        ended = serve => ended?,
    }
    assert!(attempts >= 12 + names.len(), "the breaker has probed with {attempts} attempts");
    history::check(client, true).await?.check()
}

/// A failure with credentials of the task itself, or of a deleted agent, is not counted.
#[tokio::test]
async fn task_failures_do_not_open_breaker() -> Result<()> {
    let cluster = start_cluster(2, Duration::from_secs(3600)).await?;
    let client = cluster.client();
    let _worker = cluster.worker("coder", "one", 4)?;
    for _ in 0..3 {
        let mut task = failing_task("auth");
        let environment = &mut task.spec.get_or_insert_default().environment;
        environment.insert("ANTHROPIC_BASE_URL".into(), "http://localhost:1".into());
        let name = tasks::create(client, task).await?.name;
        tasks::until_state(client, &name, TaskState::Failed).await?;
    }
    run_failing_task(client, "auth").await?;
    let now = wait_for_breaker(client, Some(BreakerState::Closed)).await?;
    assert_eq!(now.breakers[0].failures, 1);
    run_failing_task(client, "auth").await?;
    wait_for_breaker(client, Some(BreakerState::Open)).await?;
    // A changed agent may have been repaired.
    tasks::agent(client, "coder", tasks::script([]), &["code"]).await?;
    wait_for_breaker(client, None).await?;
    Ok(())
}

/// A missing program that the agent names is an infrastructure failure, not the task's.
#[tokio::test]
async fn missing_program_opens_breaker() -> Result<()> {
    let cluster = start_cluster(2, Duration::from_secs(3600)).await?;
    let client = cluster.client();
    let command = v1::CommandRuntime { argv: vec!["/nonexistent/program".into()], ..Default::default() };
    let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) };
    tasks::agent(client, "coder", runtime, &[]).await?;
    let _worker = cluster.worker("coder", "one", 1)?;
    // Its program is tried twice, preferably on two workers, and one task is not enough.
    let name = tasks::create(client, tasks::task("coder")).await?.name;
    tasks::until_state(client, &name, TaskState::Failed).await?;
    let now = wait_for_breaker(client, Some(BreakerState::Closed)).await?;
    assert_eq!(now.breakers[0].failures, 1);
    tasks::create(client, tasks::task("coder")).await?;
    let now = wait_for_breaker(client, Some(BreakerState::Open)).await?;
    assert_eq!(now.breakers[0].failure_class(), v1::FailureClass::Start);
    // The worker's breaker opened too. A reset closes both.
    client.reset_breaker(v1::ResetBreakerRequest { name: AGENT.into(), ..Default::default() }).await?;
    assert_eq!(tasks::workers(client).await?.first().context("no worker")?.breaker, "");
    Ok(())
}

/// What a task brings itself is part of its record, so that a restart does not blame its agent.
#[tokio::test]
async fn own_credentials_survive_a_restart() -> Result<()> {
    let policy = Policy { failures: 2, cooldown: Duration::from_secs(3600) };
    let mut cluster = Cluster::start_with(Setup { breakers: policy, ..Setup::new(Backend::Sqlite) }).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "coder", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("coder", "one", 1)?;
    let failure = v1::ScriptFailure { class: "auth".into(), message: "no".into(), ..Default::default() };
    let mut task = tasks::scripted("coder", [Step::Ask("go?".into()), Step::Fail(failure)]);
    let spec = task.spec.get_or_insert_default();
    spec.retry = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    spec.environment.insert("ANTHROPIC_BASE_URL".into(), "http://localhost:1".into());
    let name = tasks::create(&client, task).await?.name;
    tasks::until_state(&client, &name, TaskState::InputRequired).await?;
    cluster.kill().await;
    cluster.restart().await?;
    tasks::answer(&client, &name, "yes").await?;
    tasks::until_state(&client, &name, TaskState::Failed).await?;
    run_failing_task(&client, "auth").await?;
    let now = wait_for_breaker(&client, Some(BreakerState::Closed)).await?;
    assert_eq!(now.breakers[0].failures, 1);
    Ok(())
}
