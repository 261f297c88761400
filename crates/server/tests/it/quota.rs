//! Limits of model credentials: the tasks that use one wait together, and go on by themselves.

use std::time::Duration;

use anyhow::{Context, Result};
use rota_proto::v1::{self, TaskState, WaitReason};
use rota_proto::worker::v1::Assign;
use rota_testkit::client::Client;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, tasks};

const ONE: &str = "0000000000000001";
const TWO: &str = "0000000000000002";
/// Long enough for everything that a test does before.
const RESET: Duration = Duration::from_secs(30);
const NEVER: Duration = Duration::from_hours(24 * 7);

fn limited(resets: Option<Duration>) -> v1::Failure {
    v1::Failure {
        class: v1::FailureClass::RateLimit.into(),
        message: "You've hit your limit".to_owned(),
        limit: Some(v1::ReachedLimit { name: "five_hour".to_owned(), resets: resets.is_some() }.into()),
        retry_after: resets
            .map(|wait| Box::new(tasks::millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))),
        ..v1::Failure::default()
    }
}

async fn start(backend: Backend) -> Result<Cluster> {
    let cluster = Cluster::start(backend).await?;
    tasks::agent(cluster.client(), "coder", tasks::script([]), &[]).await?;
    Ok(cluster)
}

async fn create(client: &Client, count: usize) -> Result<Vec<String>> {
    let created = (0..count).map(|_| tasks::create(client, tasks::task("coder")));
    let created = futures::future::try_join_all(created).await?;
    Ok(created.into_iter().map(|task| task.name).collect())
}

/// Takes a task, whose credential has reached its limit.
async fn hit_limit(worker: &mut RawWorker, credential: &str, failure: v1::Failure) -> Result<Assign> {
    let assign = worker.take().await?;
    worker.use_credential(&assign, credential);
    worker.fail(&assign, failure);
    anyhow::ensure!(worker.result_ack().await?, "the result was not accepted");
    Ok(assign)
}

async fn cool_downs(client: &Client) -> Result<Vec<v1::CoolDown>> {
    let request = v1::GetAgentRequest { name: "namespaces/default/agents/coder".to_owned() };
    Ok(client.agents().get_agent(request).await?.into_inner().status.unwrap_or_default().cool_downs)
}

async fn until_cooling(client: &Client, count: usize) -> Result<Vec<v1::CoolDown>> {
    tasks::eventually("cool-downs", async || Ok(cool_downs(client).await?.len() == count)).await?;
    cool_downs(client).await
}

async fn explain(client: &Client, name: &str) -> Result<v1::ExplainTaskResponse> {
    let request = v1::ExplainTaskRequest { name: name.to_owned() };
    Ok(client.tasks().explain_task(request).await?.into_inner())
}

fn unix_now() -> f64 {
    rota_telemetry::clock::unix_micros() as f64 / 1e6
}

fn seconds(at: &pbjson_types::Timestamp) -> f64 {
    at.seconds as f64 + f64::from(at.nanos) / 1e9
}

#[tokio::test]
async fn queued_tasks_wait_until_the_reset() -> Result<()> {
    let mut cluster = start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    let mut worker = RawWorker::join(&client, raw::hello("coder", "w", 8)).await?;
    let names = create(&client, 1).await?;
    let first = hit_limit(&mut worker, ONE, limited(Some(RESET))).await?;
    let names = [names, create(&client, 50).await?].concat();
    let until = until_cooling(&client, 1).await?.remove(0);
    assert_eq!(
        (until.credential.as_str(), until.limit.as_str(), until.reset_known),
        (ONE, "five_hour", true)
    );
    let reset = seconds(&until.until_time.context("no end")?);
    let status = tasks::get(&client, &names[0]).await?.status.context("no status")?;
    assert_eq!(status.waiting[0].reason(), WaitReason::Quota);
    assert_eq!((status.waiting[0].subject.as_str(), status.attempt), ("five_hour", 1));
    let explained = explain(&client, &names[9]).await?;
    assert_eq!(explained.causes[0].code, "rate_limit", "{explained:?}");
    assert!(explained.summary.contains("five_hour"), "{explained:?}");
    // A control plane that restarts in between knows it, and the worker names its credential.
    cluster.kill().await;
    cluster.restart().await?;
    let mut hello = raw::hello("coder", "w", 8);
    hello.credential = ONE.to_owned();
    let mut worker = RawWorker::join(&client, hello).await?;
    assert_eq!(cool_downs(&client).await?.len(), 1);
    for _ in &names {
        let assign = worker.take().await?;
        assert!(unix_now() >= reset, "a task was assigned before the limit was reset");
        worker.succeed(&assign, 0, "done");
    }
    for name in &names {
        let status = tasks::ended(&client, name).await?.status.context("no status")?;
        let attempts = 1 + i32::from(name.ends_with(&first.task_id));
        assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, attempts), "{status:?}");
    }
    until_cooling(&client, 0).await?;
    Ok(())
}

#[tokio::test]
async fn workers_with_other_credentials_continue() -> Result<()> {
    let cluster = start(Backend::Memory).await?;
    let client = cluster.client();
    let mut one = RawWorker::join(client, raw::hello("coder", "one", 4)).await?;
    create(client, 1).await?;
    hit_limit(&mut one, ONE, limited(Some(NEVER))).await?;
    until_cooling(client, 1).await?;
    let mut hello = raw::hello("coder", "two", 1);
    hello.credential = TWO.to_owned();
    let mut two = RawWorker::join(client, hello).await?;
    let names = create(client, 5).await?;
    for _ in &names {
        let assign = two.take().await?;
        two.use_credential(&assign, TWO);
        two.succeed(&assign, 0, "done");
    }
    for name in &names {
        let task = tasks::ended(client, name).await?;
        assert_eq!(task.status.context("no status")?.worker, "two");
    }
    Ok(())
}

/// Creates a task with a key of its own.
async fn with_key(client: &Client, key: &str) -> Result<String> {
    let mut task = tasks::task("coder");
    let spec = task.spec.get_or_insert_default();
    spec.secrets.insert("ANTHROPIC_API_KEY".to_owned(), key.to_owned());
    Ok(tasks::create(client, task).await?.name)
}

#[tokio::test]
async fn keys_of_tasks_do_not_block_one_another() -> Result<()> {
    let cluster = start(Backend::Memory).await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("coder", "w", 1)).await?;
    with_key(client, "fake-one").await?;
    let assign = worker.take().await?;
    assert!(assign.own_credentials);
    let [one, two] =
        ["fake-one", "fake-two"].map(|key| rota_proto::credential::id(&assign.credential_key, key));
    worker.use_credential(&assign, &one);
    worker.fail(&assign, limited(Some(NEVER)));
    assert!(worker.result_ack().await?);
    let mut ones = Vec::new();
    for _ in 0..5 {
        ones.push(with_key(client, "fake-one").await?);
    }
    let other = with_key(client, "fake-two").await?;
    let plain = create(client, 1).await?.remove(0);
    for name in [&other, &plain] {
        let assign = worker.take().await?;
        assert!(name.ends_with(&assign.task_id), "a task with the limited key was assigned");
        worker.succeed(&assign, 0, "done");
        tasks::ended(client, name).await?;
    }
    for name in &ones {
        let task = tasks::until_state(client, name, TaskState::Pending).await?;
        let waiting = task.status.context("no status")?.waiting;
        assert_eq!(waiting[0].reason(), WaitReason::Quota);
        let explained = explain(client, name).await?;
        let text = &explained.causes[0].message;
        assert!(text.contains(&one) && !text.contains(&two) && !text.contains("fake"), "{text}");
    }
    assert!(cool_downs(client).await?.is_empty(), "it is not the agent's");
    Ok(())
}

#[tokio::test]
async fn restart_finds_tasks_that_wait_for_their_own_key() -> Result<()> {
    let mut cluster = start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    let mut worker = RawWorker::join(&client, raw::hello("coder", "w", 1)).await?;
    let first = with_key(&client, "fake-one").await?;
    let assign = worker.take().await?;
    worker.use_credential(&assign, &rota_proto::credential::id(&assign.credential_key, "fake-one"));
    worker.fail(&assign, limited(Some(RESET)));
    assert!(worker.result_ack().await?);
    cluster.kill().await;
    cluster.restart().await?;
    let second = with_key(&client, "fake-one").await?;
    let mut worker = RawWorker::join(&client, raw::hello("coder", "w", 1)).await?;
    let reset = tasks::get(&client, &first).await?.status.context("no status")?;
    let reset = seconds(reset.waiting[0].until.as_ref().context("no end")?);
    for name in [&first, &second] {
        let assign = worker.take().await?;
        assert!(unix_now() >= reset);
        worker.succeed(&assign, 0, "done");
        tasks::ended(&client, name).await?;
    }
    Ok(())
}

/// Returns the waiting tasks of the agent that ask for workers.
async fn demand(client: &Client) -> Result<i64> {
    let request = v1::WatchDemandRequest { parent: "namespaces/default".to_owned(), ..Default::default() };
    let mut stream = client.agents().watch_demand(request).await?.into_inner();
    let first = stream.message().await?.context("no demand")?;
    Ok(first.demands.iter().filter(|one| one.agent.ends_with("/coder")).map(|one| one.queued).sum())
}

async fn change_agent(client: &Client) -> Result<()> {
    let name = "namespaces/default/agents/coder".to_owned();
    let mut agent = client.agents().get_agent(v1::GetAgentRequest { name }).await?.into_inner();
    let spec = agent.spec.get_or_insert_default();
    spec.environment.insert("ANTHROPIC_API_KEY".to_owned(), "fake-two".to_owned());
    let request = v1::UpdateAgentRequest { agent: Some(agent), ..Default::default() };
    client.agents().update_agent(request).await?;
    Ok(())
}

#[tokio::test]
async fn changed_agent_is_tried_by_one_task() -> Result<()> {
    let cluster = start(Backend::Memory).await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("coder", "w", 4)).await?;
    create(client, 1).await?;
    hit_limit(&mut worker, ONE, limited(Some(NEVER))).await?;
    until_cooling(client, 1).await?;
    worker.close().await;
    let names = create(client, 5).await?;
    tasks::eventually("no demand", async || Ok(demand(client).await? == 0)).await?;
    change_agent(client).await?;
    tasks::eventually("demand", async || Ok(demand(client).await? == 1)).await?;
    let mut worker = RawWorker::join(client, raw::hello("coder", "new", 4)).await?;
    let first = worker.take().await?;
    worker.use_credential(&first, TWO);
    // It uses another one: all continue, also the task that has met the limit.
    until_cooling(client, 0).await?;
    worker.succeed(&first, 0, "done");
    for _ in 0..names.len() {
        let assign = worker.take().await?;
        worker.use_credential(&assign, TWO);
        worker.succeed(&assign, 0, "done");
    }
    for name in &names {
        tasks::ended(client, name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn queue_timeouts_wait_with_the_credential() -> Result<()> {
    let cluster = start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "other", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("coder", "w", 1)).await?;
    create(client, 1).await?;
    hit_limit(&mut worker, ONE, limited(Some(NEVER))).await?;
    until_cooling(client, 1).await?;
    let with_timeout = async |agent: &str| -> Result<String> {
        let mut task = tasks::task(agent);
        let limits = task.spec.get_or_insert_default().limits.get_or_insert_default();
        limits.queue_timeout = Some(tasks::millis(1000));
        Ok(tasks::create(client, task).await?.name)
    };
    let held = with_timeout("coder").await?;
    let other = with_timeout("other").await?;
    assert_eq!(tasks::ended(client, &other).await?.status.context("no status")?.state(), TaskState::Failed);
    // It is not parked either: a worker with another credential takes it.
    let state = tasks::get(client, &held).await?.status.context("no status")?.state();
    assert_eq!(state, TaskState::Queued);
    let mut hello = raw::hello("coder", "two", 1);
    hello.credential = TWO.to_owned();
    let mut two = RawWorker::join(client, hello).await?;
    assert!(held.ends_with(&two.take().await?.task_id));
    Ok(())
}

#[tokio::test]
async fn cool_down_of_a_key_of_a_task_can_be_ended() -> Result<()> {
    let cluster = start(Backend::Memory).await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("coder", "w", 1)).await?;
    let first = with_key(client, "fake-one").await?;
    let assign = worker.take().await?;
    let id = rota_proto::credential::id(&assign.credential_key, "fake-one");
    // Where the key is used does not matter for those who bring it along.
    worker.use_backend(&assign, &id, "gateway");
    worker.fail(&assign, limited(Some(NEVER)));
    assert!(worker.result_ack().await?);
    let second = with_key(client, "fake-one").await?;
    for name in [&first, &second] {
        tasks::until_state(client, name, TaskState::Pending).await?;
    }
    let end = v1::ResetBreakerRequest { name: "namespaces/default".to_owned(), credential: id };
    client.reset_breaker(end.clone()).await?;
    for name in [&first, &second] {
        let assign = worker.take().await?;
        assert!(name.ends_with(&assign.task_id));
        worker.succeed(&assign, 0, "done");
    }
    let again = client.reset_breaker(end).await.unwrap_err();
    assert!(again.to_string().contains("does not cool down"), "{again}");
    Ok(())
}

#[tokio::test]
async fn endpoint_of_a_task_leaves_the_agent_alone() -> Result<()> {
    let cluster = start(Backend::Memory).await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("coder", "w", 1)).await?;
    let mut task = tasks::task("coder");
    let environment = &mut task.spec.get_or_insert_default().environment;
    environment.insert("ANTHROPIC_BASE_URL".to_owned(), "http://mine".to_owned());
    let name = tasks::create(client, task).await?.name;
    let assign = worker.take().await?;
    assert!(assign.own_credentials);
    worker.use_backend(&assign, ONE, "mine");
    worker.fail(&assign, limited(Some(NEVER)));
    assert!(worker.result_ack().await?);
    let waiting = tasks::until_state(client, &name, TaskState::Pending).await?;
    assert_eq!(waiting.status.context("no status")?.waiting[0].reason(), WaitReason::RetryDelay);
    assert!(cool_downs(client).await?.is_empty());
    // The same id at two back ends: two credentials.
    create(client, 2).await?;
    for backend in ["direct", "gateway"] {
        let assign = worker.take().await?;
        worker.use_backend(&assign, ONE, backend);
        worker.fail(&assign, limited(Some(NEVER)));
        assert!(worker.result_ack().await?);
        worker.close().await;
        worker = RawWorker::join(client, raw::hello("coder", backend, 1)).await?;
    }
    let found = until_cooling(client, 2).await?;
    assert!(found[0].credential != found[1].credential && found.iter().all(|one| one.credential != ONE));
    Ok(())
}
