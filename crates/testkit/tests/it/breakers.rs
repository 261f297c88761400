//! An agent whose attempts fail through no fault of their tasks is given nothing for a while, and nobody else is.

use std::time::Duration;

use anyhow::{Context, Result};
use rota_client::Client;
use rota_core::breaker::Policy;
use rota_proto::v1::{self, BreakerState, SystemState, TaskState, script_step::Kind as Step};
use rota_testkit::{Cluster, Keep, Setup, history, tasks};

const AGENT: &str = "namespaces/default/agents/coder";

async fn cluster(failures: u32, cooldown: Duration) -> Result<Cluster> {
    let setup = Setup { breakers: Policy { failures, cooldown }, http: true, ..Setup::new(Keep::Memory) };
    let cluster = Cluster::start_with(setup).await?;
    for agent in ["coder", "other"] {
        tasks::agent(cluster.client(), agent, tasks::script([]), &[]).await?;
    }
    Ok(cluster)
}

/// A task that ends so, and ends at once.
fn failing(class: &str) -> v1::Task {
    let failure = v1::ScriptFailure { class: class.into(), message: "no".into(), ..Default::default() };
    let mut task = tasks::scripted("coder", [Step::Fail(failure)]);
    let spec = task.spec.get_or_insert_default();
    spec.retry = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    task
}

async fn fails(client: &Client, class: &str) -> Result<()> {
    let name = tasks::create(client, failing(class)).await?.name;
    assert_eq!(tasks::ended(client, &name).await?.status.unwrap().state(), TaskState::Failed);
    Ok(())
}

async fn status(client: &Client) -> Result<v1::SystemStatus> {
    Ok(client.get_system_status(v1::GetSystemStatusRequest {}).await?)
}

/// What the breakers say, once they have taken in what was committed.
async fn until(client: &Client, state: Option<BreakerState>) -> Result<v1::SystemStatus> {
    let told = async || status(client).await;
    tasks::eventually(&format!("{state:?}"), async || {
        Ok(told().await?.breakers.first().map(v1::Breaker::state) == state)
    })
    .await?;
    told().await
}

async fn state(client: &Client, name: &str) -> Result<TaskState> {
    Ok(tasks::get(client, name).await?.status.unwrap().state())
}

async fn queued(client: &Client) -> Result<Option<i64>> {
    let request = v1::WatchDemandRequest { parent: "namespaces/default".into() };
    let told = client.agents().watch_demand(request).await?.into_inner().message().await?;
    Ok(told.context("nothing came")?.demands.into_iter().find(|one| one.agent == AGENT).map(|one| one.queued))
}

#[tokio::test]
async fn it_opens_says_so_and_is_reset_by_hand() -> Result<()> {
    let cluster = cluster(3, Duration::from_secs(3600)).await?;
    let client = cluster.client();
    let _workers = [cluster.worker("coder", "one", 4)?, cluster.worker("other", "two", 1)?];
    // What a task itself is to blame for counts for nothing, and neither does what goes well in between.
    for class in ["auth", "auth", "agent", "auth", "auth", "invalid", "timeout"] {
        fails(client, class).await?;
    }
    let now = until(client, Some(BreakerState::Closed)).await?;
    assert_eq!((now.state(), now.breakers[0].failures), (SystemState::Healthy, 2));
    fails(client, "auth").await?;
    let now = until(client, Some(BreakerState::Open)).await?;
    let breaker = &now.breakers[0];
    assert_eq!((breaker.agent.as_str(), breaker.failure_class()), (AGENT, v1::FailureClass::Auth));
    assert!(breaker.until_time.is_some());
    assert_eq!((now.state(), now.causes[0].code.as_str()), (SystemState::Degraded, "breaker_open"));

    let waits = tasks::create(client, tasks::task("coder")).await?.name;
    let other = tasks::create(client, tasks::task("other")).await?.name;
    tasks::until_state(client, &other, TaskState::Succeeded).await?;
    assert_eq!(state(client, &waits).await?, TaskState::Queued);
    let why = client.explain_task(v1::ExplainTaskRequest { name: waits.clone() }).await?;
    assert_eq!(why.causes[0].code, "breaker_open");
    assert!(why.causes[0].message.contains("coder") && why.causes[0].message.contains("auth"), "{why:?}");
    assert!(why.causes[1..].iter().all(|cause| cause.code == "behind"), "{why:?}");
    // More workers would only wait, too.
    assert_eq!(queued(client).await?, Some(0));
    let page = reqwest::get(format!("http://{}/metrics", cluster.http_addr().unwrap())).await?.text().await?;
    assert!(page.contains(r#"rota_breaker_state{namespace="default",agent="coder"} 2"#), "{page}");
    assert!(page.contains("rota_breakers_opened_total 1"), "{page}");

    let reset = async |name: &str| client.reset_breaker(v1::ResetBreakerRequest { name: name.into() }).await;
    let before = reset(AGENT).await?.breaker.context("it was not open")?;
    assert_eq!(before.state(), BreakerState::Open);
    tasks::until_state(client, &waits, TaskState::Succeeded).await?;
    assert_eq!(status(client).await?.breakers, []);
    assert_eq!(reset(AGENT).await?.breaker, None);
    let refused = reset("namespaces/default/agents/nobody").await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("AGENT_NOT_FOUND"));
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn one_task_goes_through_and_shows_that_it_works_again() -> Result<()> {
    let cluster = cluster(2, Duration::from_millis(100)).await?;
    let client = cluster.client();
    let workers = [cluster.worker("coder", "one", 2)?, cluster.worker("coder", "two", 2)?];
    fails(client, "auth").await?;
    fails(client, "auth").await?;
    until(client, Some(BreakerState::HalfOpen)).await?;
    let mut names = Vec::new();
    let asks = || vec![Step::Ask("go?".into()), Step::Succeed("done".into())];
    for steps in [vec![Step::Hang(true)], asks(), asks()] {
        names.push(tasks::create(client, tasks::scripted("coder", steps)).await?.name);
    }
    // Of four free slots one is given away.
    tasks::until_state(client, &names[0], TaskState::Running).await?;
    for name in &names[1..] {
        assert_eq!(state(client, name).await?, TaskState::Queued);
    }
    let why = client.explain_task(v1::ExplainTaskRequest { name: names[1].clone() }).await?;
    assert!(why.causes[0].code == "breaker_open" && why.causes[0].message.contains("one task"), "{why:?}");
    assert_eq!(queued(client).await?, Some(1));
    assert_eq!(status(client).await?.breakers[0].state(), BreakerState::HalfOpen);
    // One that says nothing of its agent lets the next one try.
    tasks::cancel(client, &names[0]).await?;
    // One that gets so far as to ask somebody works: the others need not wait for the answer.
    tasks::until_state(client, &names[1], TaskState::InputRequired).await?;
    tasks::until_state(client, &names[2], TaskState::InputRequired).await?;
    assert_eq!(status(client).await?.breakers, []);
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

/// A task that brings a key of its own speaks for itself, and one whose agent is gone for nobody.
#[tokio::test]
async fn what_is_no_fault_of_the_agents_opens_nothing() -> Result<()> {
    let cluster = cluster(2, Duration::from_secs(3600)).await?;
    let client = cluster.client();
    let _worker = cluster.worker("coder", "one", 4)?;
    for _ in 0..3 {
        let mut task = failing("auth");
        let environment = &mut task.spec.get_or_insert_default().environment;
        environment.insert("ANTHROPIC_BASE_URL".into(), "http://localhost:1".into());
        let name = tasks::create(client, task).await?.name;
        tasks::until_state(client, &name, TaskState::Failed).await?;
    }
    fails(client, "auth").await?;
    let now = until(client, Some(BreakerState::Closed)).await?;
    assert_eq!(now.breakers[0].failures, 1);
    fails(client, "auth").await?;
    until(client, Some(BreakerState::Open)).await?;
    // Whoever changes an agent may have mended it.
    tasks::agent(client, "coder", tasks::script([]), &["code"]).await?;
    until(client, None).await?;
    Ok(())
}

/// A program that the agent names and that is not there is not the tasks' fault.
#[tokio::test]
async fn a_program_that_is_not_there_opens_it() -> Result<()> {
    let cluster = cluster(2, Duration::from_secs(3600)).await?;
    let client = cluster.client();
    let command = v1::CommandRuntime { argv: vec!["/nonexistent/program".into()], ..Default::default() };
    let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) };
    tasks::agent(client, "coder", runtime, &[]).await?;
    let _worker = cluster.worker("coder", "one", 1)?;
    for _ in 0..2 {
        let name = tasks::create(client, tasks::task("coder")).await?.name;
        tasks::until_state(client, &name, TaskState::Failed).await?;
    }
    let now = until(client, Some(BreakerState::Open)).await?;
    assert_eq!(now.breakers[0].failure_class(), v1::FailureClass::Start);
    Ok(())
}
