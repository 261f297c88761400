//! Tokens that expire while their worker's session is open.

use anyhow::Result;
use jsonwebtoken::Algorithm;
use rota_proto::v1::{self, TaskState};
use rota_proto::worker::v1::Hello;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, tasks};
use serde_json::json;

use super::issuer::{Issuer, Key, OPERATOR, now};
use super::oidc::{bearer, start_cluster};
use super::scope::agent_of_cluster;

#[tokio::test]
async fn session_ends_soon_after_its_token() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let cluster = start_cluster(Backend::Memory, issuer.oidc()).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    agent_of_cluster(&operator, "echo").await?;
    let announced =
        v1::AnnouncedWorker { worker: "one".into(), instance: "uid-1".into(), ..Default::default() };
    let name = "namespaces/default/agents/echo".to_owned();
    operator.announce_workers(v1::AnnounceWorkersRequest { name, workers: vec![announced] }).await?;
    let mut claims = issuer.pod("default", "one", "uid-1");
    let current = bearer(&cluster, &key.sign(&claims)?)?;
    // Clocks may differ by half a minute, and sessions outlive their tokens by as much: five seconds are left.
    claims["exp"] = json!(now() - 25);
    let expired = bearer(&cluster, &key.sign(&claims)?)?;

    let mut hello = Hello { instance: "uid-1".into(), ..raw::hello("echo", "one", 1) };
    let mut worker = RawWorker::join(&expired, hello.clone()).await?;
    let name = tasks::create(cluster.client(), tasks::task("echo")).await?.name;
    let assign = worker.take().await?;
    tasks::until_state(cluster.client(), &name, TaskState::Running).await?;
    let ended = worker.session.end_status().await;
    assert_eq!(ended.code(), tonic::Code::Unavailable, "{ended:?}");
    assert!(ended.message().contains("token has expired"), "{ended:?}");

    // The attempt continues with the next token.
    hello.running.push(raw::running(&assign, 0, 0));
    let mut worker = RawWorker::join(&current, hello).await?;
    worker.succeed(&assign, 0, "done");
    assert!(worker.result_ack().await?);
    let status = tasks::ended(cluster.client(), &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1));
    Ok(())
}
