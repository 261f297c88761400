//! Revocation of worker tokens: whose sessions end with it, and what a restart keeps.

use anyhow::{Context, Result};
use rota_proto::names;
use rota_proto::reasons::TOKEN_REVOKED;
use rota_proto::v1::{IssueWorkerTokenRequest, RevokeWorkerTokenRequest};
use rota_testkit::client::reason;
use rota_testkit::raw::hello;
use rota_testkit::{Backend, tasks};

use super::worker_tokens::{echo, holder_of, join, start_cluster};

fn revocation(name: &str) -> RevokeWorkerTokenRequest {
    RevokeWorkerTokenRequest { name: name.to_owned() }
}

#[tokio::test]
async fn revoked_token_ends_its_sessions_alone() -> Result<()> {
    let cluster = start_cluster(Backend::Memory).await?;
    let admin = cluster.client();
    let shared = admin.issue_worker_token(echo()).await?;
    let own = admin.issue_worker_token(IssueWorkerTokenRequest { worker: "three".into(), ..echo() }).await?;
    let (bad, good) = (holder_of(&cluster, &shared)?, holder_of(&cluster, &own)?);
    let mut one = join(&bad, hello("echo", "one", 1)).await.map_err(anyhow::Error::msg)?;
    let mut two = join(&bad, hello("echo", "two", 1)).await.map_err(anyhow::Error::msg)?;
    let mut three = join(&good, hello("echo", "three", 1)).await.map_err(anyhow::Error::msg)?;

    let listed = admin.all_worker_tokens("namespaces/-").await?;
    let of = |name: &str| listed.iter().find(|token| token.name == name).context("the token is not listed");
    assert_eq!((of(&shared.name)?.sessions, of(&own.name)?.sessions, listed.len()), (2, 1, 2));
    assert_eq!((of(&own.name)?.worker.as_str(), of(&own.name)?.creator.as_str()), ("three", "admin"));
    assert!(of(&shared.name)?.last_use_time.is_some());

    let revoked = admin.revoke_worker_token(revocation(&shared.name)).await?;
    assert_eq!((revoked.sessions, revoked.agent.as_str()), (2, "echo"));
    for worker in [&mut one, &mut two] {
        let ended = worker.session.end_status().await;
        assert_eq!(reason(&ended).as_deref(), Some(TOKEN_REVOKED), "{ended}");
    }
    assert_eq!(join(&bad, hello("echo", "one", 1)).await.err().as_deref(), Some(TOKEN_REVOKED));
    let task = tasks::create(admin, tasks::task("echo")).await?;
    assert!(task.name.ends_with(&three.take().await?.task_id));
    let again = admin.revoke_worker_token(revocation(&shared.name)).await.unwrap_err();
    assert_eq!(again.reason.as_deref(), Some("WORKER_TOKEN_NOT_FOUND"));
    let elsewhere = names::worker_token("team", names::last(&own.name));
    let foreign = admin.revoke_worker_token(revocation(&elsewhere)).await.unwrap_err();
    assert_eq!(foreign.reason.as_deref(), Some("WORKER_TOKEN_NOT_FOUND"));
    let left = admin.all_worker_tokens("namespaces/default").await?;
    assert_eq!(left.into_iter().map(|token| token.name).collect::<Vec<_>>(), [own.name]);
    Ok(())
}

#[tokio::test]
async fn revocation_outlives_a_restart() -> Result<()> {
    let mut cluster = start_cluster(Backend::Sqlite).await?;
    let (bad, good) = (
        cluster.client().issue_worker_token(echo()).await?,
        cluster.client().issue_worker_token(echo()).await?,
    );
    cluster.client().revoke_worker_token(revocation(&bad.name)).await?;
    let worker = join(&holder_of(&cluster, &good)?, hello("echo", "one", 1)).await;
    worker.map_err(anyhow::Error::msg)?.close().await;
    let admin = cluster.client();
    tasks::eventually("the end of the session", async || {
        Ok(admin.all_worker_tokens("namespaces/default").await?.iter().all(|token| token.sessions == 0))
    })
    .await?;
    cluster.stop().await.context("the control plane did not stop")?;
    cluster.restart().await?;

    let refused = join(&holder_of(&cluster, &bad)?, hello("echo", "two", 1)).await;
    assert_eq!(refused.err().as_deref(), Some(TOKEN_REVOKED));
    let listed = cluster.client().all_worker_tokens("namespaces/default").await?;
    let [token] = &listed[..] else { anyhow::bail!("{listed:?}") };
    assert_eq!((token.name.as_str(), token.sessions), (good.name.as_str(), 0));
    assert!(token.last_use_time.is_some(), "the use before the restart is not known");
    let _worker =
        join(&holder_of(&cluster, &good)?, hello("echo", "one", 1)).await.map_err(anyhow::Error::msg)?;
    Ok(())
}

#[tokio::test]
async fn tokens_of_a_namespace_are_limited() -> Result<()> {
    const MAX: usize = 1000;
    let cluster = start_cluster(Backend::Memory).await?;
    let admin = cluster.client();
    let mut first = None;
    for _ in 0..MAX {
        first = Some(admin.issue_worker_token(echo()).await?);
    }
    let refused = admin.issue_worker_token(echo()).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("LIMIT_REACHED"), "{refused}");
    assert_eq!(admin.all_worker_tokens("namespaces/default").await?.len(), MAX);
    admin.revoke_worker_token(revocation(&first.context("no token")?.name)).await?;
    admin.issue_worker_token(echo()).await?;
    Ok(())
}
