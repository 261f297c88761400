//! Circuit breakers of back ends of models: one that is unavailable to many tasks gets none of any agent that uses it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rota_core::breaker::Policy;
use rota_proto::v1::{self, BreakerState, FailureClass, TaskState};
use rota_testkit::client::Client;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, Setup, tasks};

const CREDENTIAL: &str = "0000000000000001";
const GATEWAY: &str = "gateway.example";
const DIRECT: &str = "api.example";
const HOUR: Duration = Duration::from_hours(1);

async fn start(failures: u32, cooldown: Duration) -> Result<Cluster> {
    let setup = Setup { breakers: Policy { failures, cooldown }, http: true, ..Setup::new(Backend::Memory) };
    let cluster = Cluster::start_with(setup).await?;
    for agent in ["coder", "tester", "writer"] {
        tasks::agent(cluster.client(), agent, tasks::script([]), &[]).await?;
    }
    Ok(cluster)
}

async fn worker(client: &Client, agent: &str) -> Result<RawWorker> {
    RawWorker::join(client, raw::hello(agent, agent, 2)).await
}

async fn create(client: &Client, agent: &str) -> Result<String> {
    let mut task = tasks::task(agent);
    let retry = v1::RetryPolicy { max_attempts: 1, ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    Ok(tasks::create(client, task).await?.name)
}

/// Runs a task of the worker's agent, which fails at a back end.
async fn fails(client: &Client, worker: &mut RawWorker, agent: &str, class: FailureClass) -> Result<()> {
    let name = create(client, agent).await?;
    let assign = worker.take().await?;
    worker.use_backend(&assign, CREDENTIAL, GATEWAY);
    worker.fail(&assign, v1::Failure { class: class.into(), message: "529".into(), ..Default::default() });
    ensure!(worker.result_ack().await?, "the result was not accepted");
    // One that waits for its back end keeps its place in the queue, in front of those that the test creates later.
    if class == FailureClass::Overload {
        tasks::cancel(client, &name).await?;
    }
    Ok(())
}

/// Runs a task of the worker's agent, which succeeds at a back end.
async fn works(client: &Client, worker: &mut RawWorker, agent: &str, backend: &str) -> Result<()> {
    let name = create(client, agent).await?;
    let assign = worker.take().await?;
    ensure!(name.ends_with(&assign.task_id), "another task was assigned: {}", assign.task_id);
    worker.use_backend(&assign, CREDENTIAL, backend);
    worker.succeed(&assign, 0, "done");
    tasks::ended(client, &name).await?;
    Ok(())
}

async fn breakers(client: &Client) -> Result<Vec<v1::Breaker>> {
    Ok(client.get_system_status(v1::GetSystemStatusRequest {}).await?.breakers)
}

async fn until_state(client: &Client, state: Option<BreakerState>) -> Result<()> {
    let reached = async || Ok(breakers(client).await?.first().map(v1::Breaker::state) == state);
    tasks::eventually(&format!("{state:?}"), reached).await
}

async fn agent_status(client: &Client, agent: &str) -> Result<v1::AgentStatus> {
    let request = v1::GetAgentRequest { name: format!("namespaces/default/agents/{agent}") };
    Ok(client.agents().get_agent(request).await?.into_inner().status.unwrap_or_default())
}

async fn state(client: &Client, name: &str) -> Result<TaskState> {
    Ok(tasks::get(client, name).await?.status.context("no status")?.state())
}

#[tokio::test]
async fn unavailable_back_end_holds_back_its_agents() -> Result<()> {
    let cluster = start(3, HOUR).await?;
    let client = cluster.client();
    let mut coder = worker(client, "coder").await?;
    let mut tester = worker(client, "tester").await?;
    let mut writer = worker(client, "writer").await?;
    works(client, &mut writer, "writer", DIRECT).await?;
    for class in [FailureClass::Overload, FailureClass::Overload, FailureClass::Crash] {
        fails(client, &mut coder, "coder", class).await?;
    }
    fails(client, &mut tester, "tester", FailureClass::Overload).await?;
    until_state(client, Some(BreakerState::Open)).await?;
    // It is the only one: agents are not to blame.
    let [breaker] = breakers(client).await?.try_into().map_err(|all| anyhow::anyhow!("{all:?}"))?;
    assert_eq!((breaker.agent.as_str(), breaker.failures), ("", 3));
    assert_eq!(breaker.backend, format!("namespaces/default/backends/{GATEWAY}"));
    let waiting = [create(client, "coder").await?, create(client, "tester").await?];
    works(client, &mut writer, "writer", DIRECT).await?;
    for (name, agent) in waiting.iter().zip(["coder", "tester"]) {
        assert_eq!(state(client, name).await?, TaskState::Queued);
        let why = client.explain_task(v1::ExplainTaskRequest { name: name.clone() }).await?;
        assert_eq!(why.causes[0].code, "breaker_open");
        assert!(why.causes[0].message.contains(GATEWAY), "{why:?}");
        assert!(agent_status(client, agent).await?.breaker.contains(GATEWAY));
    }
    assert_eq!(agent_status(client, "writer").await?.breaker, "");
    let status = client.get_system_status(v1::GetSystemStatusRequest {}).await?;
    assert_eq!(status.causes[0].code, "breaker_open");
    assert!(status.causes[0].message.contains(GATEWAY), "{status:?}");
    let page = reqwest::get(format!("http://{}/metrics", cluster.http_addr().unwrap())).await?.text().await?;
    let metric = format!(r#"rota_backend_breaker_state{{namespace="default",backend="{GATEWAY}"}} 2"#);
    assert!(page.contains(&metric) && page.contains("rota_breakers_opened_total 1"), "{page}");
    // A reset by one agent is one for all.
    let name = "namespaces/default/agents/coder".to_owned();
    let reset = client.reset_breaker(v1::ResetBreakerRequest { name, ..Default::default() }).await?;
    assert_eq!(reset.breaker.context("it was not open")?.backend, breaker.backend);
    for (worker, name) in [&mut coder, &mut tester].into_iter().zip(&waiting) {
        assert!(name.ends_with(&worker.take().await?.task_id));
    }
    Ok(())
}

#[tokio::test]
async fn one_probe_serves_all_agents() -> Result<()> {
    let cluster = start(2, Duration::from_millis(100)).await?;
    let client = cluster.client();
    let mut coder = worker(client, "coder").await?;
    let mut tester = worker(client, "tester").await?;
    let mut writer = worker(client, "writer").await?;
    fails(client, &mut coder, "coder", FailureClass::Overload).await?;
    fails(client, &mut tester, "tester", FailureClass::Overload).await?;
    until_state(client, Some(BreakerState::HalfOpen)).await?;
    let first = create(client, "coder").await?;
    let probe = coder.take().await?;
    assert!(first.ends_with(&probe.task_id));
    let other = create(client, "tester").await?;
    works(client, &mut writer, "writer", DIRECT).await?;
    assert_eq!(state(client, &other).await?, TaskState::Queued);
    // What is wrong with a task shows nothing of the back end: another one is the next probe.
    coder.use_backend(&probe, CREDENTIAL, GATEWAY);
    coder.fail(&probe, v1::Failure { class: FailureClass::Invalid.into(), ..Default::default() });
    let probe = tester.take().await?;
    assert!(other.ends_with(&probe.task_id));
    let last = create(client, "coder").await?;
    works(client, &mut writer, "writer", DIRECT).await?;
    assert_eq!(state(client, &last).await?, TaskState::Queued);
    tester.use_backend(&probe, CREDENTIAL, GATEWAY);
    tester.succeed(&probe, 0, "done");
    assert!(last.ends_with(&coder.take().await?.task_id));
    assert_eq!(breakers(client).await?, []);
    Ok(())
}

#[tokio::test]
async fn one_worker_does_not_show_that_a_back_end_is_unavailable() -> Result<()> {
    let cluster = start(3, HOUR).await?;
    let client = cluster.client();
    let mut coder = worker(client, "coder").await?;
    let mut writer = worker(client, "writer").await?;
    works(client, &mut writer, "writer", GATEWAY).await?;
    // The last three are the worker's.
    for _ in 0..5 {
        fails(client, &mut coder, "coder", FailureClass::Overload).await?;
    }
    let suspended = async || {
        let request = v1::ListWorkersRequest { parent: "namespaces/default".into(), ..Default::default() };
        let workers = client.list_workers(request).await?.workers;
        let worker = workers.into_iter().find(|worker| worker.name.ends_with("/coder"));
        Ok(worker.is_some_and(|worker| worker.breaker.contains("overload: 529")))
    };
    tasks::eventually("the breaker of the worker", suspended).await?;
    until_state(client, Some(BreakerState::Closed)).await?;
    let waits = create(client, "coder").await?;
    // The others are served, unless they see the same.
    let explained = client.explain_task(v1::ExplainTaskRequest { name: waits.clone() }).await?;
    assert!(!format!("{explained:?}").contains("back end"), "{explained:?}");
    fails(client, &mut writer, "writer", FailureClass::Overload).await?;
    until_state(client, Some(BreakerState::Open)).await?;
    assert_eq!(state(client, &waits).await?, TaskState::Queued);
    Ok(())
}

#[tokio::test]
async fn only_worker_shows_that_its_back_end_is_unavailable() -> Result<()> {
    let cluster = start(3, HOUR).await?;
    let client = cluster.client();
    let mut coder = worker(client, "coder").await?;
    let _elsewhere = worker(client, "writer").await?;
    for _ in 0..3 {
        fails(client, &mut coder, "coder", FailureClass::Overload).await?;
    }
    until_state(client, Some(BreakerState::Open)).await
}

#[tokio::test]
async fn changed_agent_leaves_the_back_end() -> Result<()> {
    let cluster = start(2, HOUR).await?;
    let client = cluster.client();
    let mut coder = worker(client, "coder").await?;
    let mut tester = worker(client, "tester").await?;
    let mut writer = worker(client, "writer").await?;
    fails(client, &mut coder, "coder", FailureClass::Overload).await?;
    fails(client, &mut tester, "tester", FailureClass::Overload).await?;
    until_state(client, Some(BreakerState::Open)).await?;
    let names = [create(client, "coder").await?, create(client, "coder").await?];
    let name = "namespaces/default/agents/coder".to_owned();
    let mut agent = client.agents().get_agent(v1::GetAgentRequest { name }).await?.into_inner();
    agent.spec.get_or_insert_default().description = "calls another host".to_owned();
    let request = v1::UpdateAgentRequest { agent: Some(agent), ..Default::default() };
    client.agents().update_agent(request).await?;
    // One task tries.
    let probe = coder.take().await?;
    assert!(names[0].ends_with(&probe.task_id));
    let waits = create(client, "tester").await?;
    works(client, &mut writer, "writer", DIRECT).await?;
    assert_eq!(state(client, &names[1]).await?, TaskState::Queued);
    assert_eq!(state(client, &waits).await?, TaskState::Queued);
    // It uses another back end, whose tasks run, and shows nothing of the first, which the other agent tries.
    coder.use_backend(&probe, CREDENTIAL, DIRECT);
    assert!(names[1].ends_with(&coder.take().await?.task_id));
    assert!(waits.ends_with(&tester.take().await?.task_id));
    assert_eq!(breakers(client).await?.len(), 1);
    // Nothing is known any more of a back end that no agent uses.
    let name = "namespaces/default/agents/tester".to_owned();
    client.agents().delete_agent(v1::DeleteAgentRequest { name, ..Default::default() }).await?;
    until_state(client, None).await
}
