//! Sessions of pods that were announced and are not any more.

use anyhow::Result;
use jsonwebtoken::Algorithm;
use rota_proto::v1;
use rota_proto::worker::v1::Hello;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, tasks};

use super::issuer::{Issuer, Key, OPERATOR};
use super::oidc::{ECHO, announce, bearer, start_cluster};
use super::scope::agent_of_cluster;

#[tokio::test]
async fn sessions_of_revoked_pods_end() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let cluster = start_cluster(Backend::Memory, issuer.oidc()).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    agent_of_cluster(&operator, "echo").await?;
    let join = async |name: &str, uid: &str| {
        let client = bearer(&cluster, &key.sign(&issuer.pod("default", name, uid))?)?;
        RawWorker::join(&client, Hello { instance: uid.to_owned(), ..raw::hello("echo", name, 1) }).await
    };
    announce(&operator, ECHO, &[("old", "uid-1"), ("kept", "uid-2"), ("draining", "uid-3")]).await?;
    let mut old = join("old", "uid-1").await?;
    let task = tasks::create(cluster.client(), tasks::task("echo")).await?;
    let assign = old.take().await?;
    assert_eq!(assign.task_id, task.uid);
    let (_kept, _draining) = (join("kept", "uid-2").await?, join("draining", "uid-3").await?);
    let (name, worker) = (ECHO.to_owned(), "draining".to_owned());
    cluster.client().drain_agent(v1::DrainAgentRequest { name, worker, ..Default::default() }).await?;

    // The pod of one was deleted, the record of another is lost.
    announce(&operator, ECHO, &[("kept", "uid-2")]).await?;
    old.session.end_status().await;
    tasks::eventually("the end of one record", async || {
        let workers = tasks::workers(cluster.client()).await?;
        let mut left: Vec<_> = workers.into_iter().map(|worker| worker.name).collect();
        left.sort();
        Ok(left == ["namespaces/default/workers/draining", "namespaces/default/workers/kept"])
    })
    .await?;
    let refused = join("old", "uid-1").await.unwrap_err();
    let refused = refused.downcast_ref::<tonic::Status>().and_then(rota_testkit::client::reason);
    assert_eq!(refused.as_deref(), Some("WORKER_NOT_ANNOUNCED"));
    // Its task is free for the others.
    tasks::eventually("the task's next attempt", async || {
        let status = tasks::get(cluster.client(), &task.name).await?.status.unwrap_or_default();
        Ok(status.worker.ends_with("kept") && status.attempt >= 2)
    })
    .await?;
    // Announced again, it may join.
    announce(&operator, ECHO, &[("kept", "uid-2"), ("old", "uid-1")]).await?;
    join("old", "uid-1").await?;
    Ok(())
}
