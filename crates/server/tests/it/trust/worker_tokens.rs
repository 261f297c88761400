//! Tokens of workers outside of a cluster: whom they let in, and what Hello may claim with them.

use std::time::Duration;

use anyhow::{Context, Result};
use rota_proto::v1::{self, IssueWorkerTokenRequest};
use rota_proto::worker::v1::Hello;
use rota_testkit::client::{Client, Options, Token, reason};
use rota_testkit::raw::{RawWorker, hello, running};
use rota_testkit::{Backend, Cluster, Setup, tasks};

const ECHO: &str = "namespaces/default/agents/echo";

pub(super) async fn start_cluster(backend: Backend) -> Result<Cluster> {
    cluster_of(Setup { token: Some("open sesame".to_owned()), ..Setup::new(backend) }).await
}

async fn cluster_of(setup: Setup) -> Result<Cluster> {
    let cluster = Cluster::start_with(setup).await?;
    for agent in ["echo", "other"] {
        tasks::agent(cluster.client(), agent, tasks::script([]), &[]).await?;
    }
    Ok(cluster)
}

/// Returns a client with a worker token.
async fn holder(cluster: &Cluster, request: IssueWorkerTokenRequest) -> Result<Client> {
    holder_of(cluster, &cluster.client().issue_worker_token(request).await?)
}

/// Returns a client with a worker token that was issued.
pub(super) fn holder_of(cluster: &Cluster, issued: &v1::IssueWorkerTokenResponse) -> Result<Client> {
    let token = issued.token.clone();
    let options = Options::new(format!("http://{}", cluster.addr()));
    Ok(Client::new(Options { token: Token::Fixed(token.into()), retry_for: Duration::ZERO, ..options })?)
}

pub(super) async fn join(client: &Client, hello: Hello) -> Result<RawWorker, String> {
    let joined = RawWorker::join(client, hello).await;
    joined.map_err(|error| match error.downcast_ref::<tonic::Status>() {
        Some(status) => reason(status).unwrap_or_default(),
        None => error.to_string(),
    })
}

pub(super) fn echo() -> IssueWorkerTokenRequest {
    IssueWorkerTokenRequest { agent: ECHO.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn worker_token_is_bound_to_agent_and_worker() -> Result<()> {
    let cluster = start_cluster(Backend::Memory).await?;
    let bound = holder(&cluster, IssueWorkerTokenRequest { worker: "one".into(), ..echo() }).await?;
    let foreign = Hello { namespace: "team".into(), ..hello("echo", "one", 1) };
    for refused in [hello("other", "one", 1), hello("echo", "two", 1), foreign] {
        assert_eq!(join(&bound, refused).await.err().as_deref(), Some("WORKER_NAME_MISMATCH"));
    }
    let _one = join(&bound, hello("echo", "one", 1)).await.map_err(anyhow::Error::msg)?;
    let any = holder(&cluster, echo()).await?;
    let _two = join(&any, hello("echo", "two", 1)).await.map_err(anyhow::Error::msg)?;
    let request = v1::ListTasksRequest { parent: "namespaces/default".into(), ..Default::default() };
    assert_eq!(bound.list_tasks(request).await.unwrap_err().reason.as_deref(), Some("ROLE_FORBIDDEN"));
    let more = bound.issue_worker_token(echo()).await.unwrap_err();
    assert_eq!(more.reason.as_deref(), Some("ROLE_FORBIDDEN"));
    Ok(())
}

#[tokio::test]
async fn hello_only_narrows_what_the_token_grants() -> Result<()> {
    let cluster = start_cluster(Backend::Memory).await?;
    let request = IssueWorkerTokenRequest { max_slots: 2, capabilities: vec!["gpu".into()], ..echo() };
    let client = holder(&cluster, request).await?;
    let claims =
        Hello { capabilities: vec!["gpu".into(), "production".into()], ..hello("echo", "one", 1024) };
    let _worker = join(&client, claims).await.map_err(anyhow::Error::msg)?;
    let request = v1::ListWorkersRequest { parent: "namespaces/default".into(), ..Default::default() };
    let workers = cluster.client().list_workers(request).await?.workers;
    let worker = workers.first().context("the worker is not listed")?;
    assert_eq!((worker.slots, worker.capabilities.as_slice()), (2, ["gpu".to_owned()].as_slice()));
    Ok(())
}

#[tokio::test]
async fn second_process_with_a_workers_token_is_refused() -> Result<()> {
    let cluster = start_cluster(Backend::Memory).await?;
    let client = holder(&cluster, echo()).await?;
    let mut first = join(&client, hello("echo", "one", 1)).await.map_err(anyhow::Error::msg)?;
    let second = Hello { instance: "another".into(), ..hello("echo", "one", 1) };
    assert_eq!(join(&client, second.clone()).await.err().as_deref(), Some("WORKER_CONNECTED"));
    let task = tasks::create(cluster.client(), tasks::task("echo")).await?;
    assert!(task.name.ends_with(&first.take().await?.task_id));
    first.close().await;
    tasks::eventually("the place of the first", async || Ok(join(&client, second.clone()).await.is_ok()))
        .await
}

fn other() -> IssueWorkerTokenRequest {
    IssueWorkerTokenRequest { agent: "namespaces/default/agents/other".to_owned(), ..Default::default() }
}

#[tokio::test]
async fn names_stay_with_their_agent() -> Result<()> {
    let mut setup = Setup { token: Some("open sesame".to_owned()), ..Setup::new(Backend::Memory) };
    setup.timing.reconnect_grace = Duration::from_millis(100);
    let cluster = cluster_of(setup).await?;
    let (own, stranger) = (holder(&cluster, echo()).await?, holder(&cluster, other()).await?);
    let one = join(&own, hello("echo", "one", 1)).await.map_err(anyhow::Error::msg)?;
    one.close().await;
    tasks::eventually("the end of its session", async || {
        Ok(tasks::workers(cluster.client()).await?.is_empty())
    })
    .await?;
    // Tasks may be aimed at it while it is away.
    let taken = join(&stranger, hello("other", "one", 1)).await;
    assert_eq!(taken.err().as_deref(), Some("WORKER_NAME_MISMATCH"));
    // An admin gives the machine to another agent.
    let moved = holder(&cluster, IssueWorkerTokenRequest { worker: "one".into(), ..other() }).await?;
    let _one = join(&moved, hello("other", "one", 1)).await.map_err(anyhow::Error::msg)?;
    Ok(())
}

#[tokio::test]
async fn worker_takes_its_name_from_another_agents() -> Result<()> {
    let cluster = start_cluster(Backend::Memory).await?;
    let stranger = holder(&cluster, other()).await?;
    let mut stranger_as_one = join(&stranger, hello("other", "one", 1)).await.map_err(anyhow::Error::msg)?;
    let named = holder(&cluster, IssueWorkerTokenRequest { worker: "one".into(), ..echo() }).await?;
    let own = Hello { instance: "own".into(), ..hello("echo", "one", 1) };
    let mut one = join(&named, own).await.map_err(anyhow::Error::msg)?;
    let ended = stranger_as_one.session.end_status().await;
    assert_eq!(reason(&ended).as_deref(), Some("WORKER_REPLACED"));
    let again = join(&stranger, hello("other", "one", 1)).await;
    assert_eq!(again.err().as_deref(), Some("WORKER_NAME_MISMATCH"));
    // The process that had the name gives its attempts up, as after any replacement.
    let back = Hello { last_epoch: stranger_as_one.welcome.epoch, ..hello("other", "one", 1) };
    assert_eq!(join(&stranger, back).await.err().as_deref(), Some("WORKER_REPLACED"));
    let task = tasks::create(cluster.client(), tasks::task("echo")).await?;
    assert_eq!(one.take().await?.task_id, task.uid);
    // Of two workers that an admin has given the same name, the first keeps it while it is connected.
    let both = holder(&cluster, IssueWorkerTokenRequest { worker: "one".into(), ..other() }).await?;
    let second = join(&both, hello("other", "one", 1)).await;
    assert_eq!(second.err().as_deref(), Some("WORKER_CONNECTED"));
    Ok(())
}

/// What an admin has given twice stays with the first while its attempts may come back.
#[tokio::test]
async fn cut_off_worker_keeps_its_name_and_attempts() -> Result<()> {
    let mut cluster = start_cluster(Backend::Sqlite).await?;
    let named = IssueWorkerTokenRequest { worker: "one".into(), ..echo() };
    let named = cluster.client().issue_worker_token(named).await?;
    let second = IssueWorkerTokenRequest { worker: "one".into(), ..other() };
    let second = cluster.client().issue_worker_token(second).await?;
    let first = holder_of(&cluster, &named)?;
    let mut one = join(&first, hello("echo", "one", 1)).await.map_err(anyhow::Error::msg)?;
    let task = tasks::create(cluster.client(), tasks::task("echo")).await?;
    let assign = one.take().await?;
    tasks::until_state(cluster.client(), &task.name, v1::TaskState::Running).await?;
    cluster.kill().await;
    cluster.restart().await?;
    let second = holder_of(&cluster, &second)?;
    let taken = join(&second, Hello { instance: "another".into(), ..hello("other", "one", 1) }).await;
    assert_eq!(taken.err().as_deref(), Some("WORKER_CONNECTED"));
    let back = Hello {
        last_epoch: one.welcome.epoch,
        running: vec![running(&assign, 0, 0)],
        ..hello("echo", "one", 1)
    };
    let first = holder_of(&cluster, &named)?;
    let back = join(&first, back).await.map_err(anyhow::Error::msg)?;
    back.succeed(&assign, 0, "done");
    let ended = tasks::ended(cluster.client(), &task.name).await?.status.context("no status")?;
    assert_eq!((ended.state(), ended.worker_losses), (v1::TaskState::Succeeded, 0));
    Ok(())
}
