//! Sessions of pods that were announced and are not any more, or as something else.

use anyhow::{Context, Result};
use jsonwebtoken::Algorithm;
use rota_proto::v1::{self, TaskState};
use rota_proto::worker::v1::{FetchPreviousResultRequest, Hello};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, tasks};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::issuer::{Issuer, Key, OPERATOR};
use super::oidc::{ECHO, announce, bearer, start_cluster};
use super::scope::agent_of_cluster;

/// Returns why a Hello was refused.
fn reason(error: &anyhow::Error) -> Option<String> {
    error.downcast_ref::<tonic::Status>().and_then(rota_testkit::client::reason)
}

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
    // An attempt counts once it has started.
    tasks::until_state(cluster.client(), &task.name, TaskState::Running).await?;
    let (mut kept, _draining) = (join("kept", "uid-2").await?, join("draining", "uid-3").await?);
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
    assert_eq!(reason(&join("old", "uid-1").await.unwrap_err()).as_deref(), Some("WORKER_NOT_ANNOUNCED"));
    // Its task is free for the others.
    let next = kept.take().await?;
    assert_eq!((next.task_id, next.attempt), (task.uid, 2));
    // Announced again, it may join.
    announce(&operator, ECHO, &[("kept", "uid-2"), ("old", "uid-1")]).await?;
    join("old", "uid-1").await?;
    Ok(())
}

#[tokio::test]
async fn first_announcement_after_restart_ends_sessions() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let mut cluster = start_cluster(Backend::Sqlite, issuer.oidc()).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    agent_of_cluster(&operator, "echo").await?;
    let join = async |cluster: &Cluster, name: &str, uid: &str, draining: bool| {
        let client = bearer(cluster, &key.sign(&issuer.pod("default", name, uid))?)?;
        let hello = Hello { instance: uid.to_owned(), draining, ..raw::hello("echo", name, 1) };
        RawWorker::join(&client, hello).await
    };
    let pods = [("kept", "uid-1"), ("deleted", "uid-2"), ("away", "uid-3"), ("draining", "uid-4")];
    announce(&operator, ECHO, &pods).await?;
    let mut before = Vec::new();
    for (name, uid) in pods {
        before.push(join(&cluster, name, uid, false).await?);
    }
    cluster.kill().await;
    cluster.restart().await?;

    // Before the operator announces anything, the workers of stored sessions come back.
    let _kept = join(&cluster, "kept", "uid-1", false).await?;
    let mut back = join(&cluster, "deleted", "uid-2", false).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    announce(&operator, ECHO, &[("kept", "uid-1")]).await?;
    back.session.end_status().await;
    for (name, uid) in [("deleted", "uid-2"), ("away", "uid-3")] {
        let refused = join(&cluster, name, uid, false).await.unwrap_err();
        assert_eq!(reason(&refused).as_deref(), Some("WORKER_NOT_ANNOUNCED"), "{name}");
    }
    // One that drains finishes its tasks, and gets no others.
    let _draining = join(&cluster, "draining", "uid-4", true).await?;
    let workers = tasks::workers(cluster.client()).await?;
    let mut connected: Vec<_> =
        workers.iter().filter(|worker| worker.connected).map(|worker| worker.name.as_str()).collect();
    connected.sort_unstable();
    assert_eq!(connected, ["namespaces/default/workers/draining", "namespaces/default/workers/kept"]);
    Ok(())
}

#[tokio::test]
async fn draining_pods_fetch_before_they_are_back() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let mut cluster = start_cluster(Backend::Sqlite, issuer.oidc()).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    agent_of_cluster(&operator, "echo").await?;
    announce(&operator, ECHO, &[("one", "uid-1")]).await?;
    let pod = |cluster: &Cluster| bearer(cluster, &key.sign(&issuer.pod("default", "one", "uid-1"))?);
    let hello = Hello { instance: "uid-1".to_owned(), ..raw::hello("echo", "one", 1) };
    let mut worker = RawWorker::join(&pod(&cluster)?, hello).await?;
    let mut first = tasks::task("echo");
    first.alias = "first".to_owned();
    tasks::create(cluster.client(), first).await?;
    let assign = worker.take().await?;
    worker.succeed(&assign, 0, "needed");
    assert!(worker.result_ack().await?);
    let mut second = tasks::task("echo");
    let dependency = v1::Dependency { task: "first".to_owned(), ..Default::default() };
    second.spec.get_or_insert_default().depends_on.push(dependency);
    let second = tasks::create(cluster.client(), second).await?;
    let assign = worker.take().await?;
    tasks::until_state(cluster.client(), &second.name, TaskState::Running).await?;
    cluster.kill().await;
    cluster.restart().await?;

    // The operator has lost the record of its pod, and does not announce it any more.
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    announce(&operator, ECHO, &[("other", "uid-2")]).await?;
    let request = FetchPreviousResultRequest {
        namespace: assign.namespace.clone(),
        worker: "one".to_owned(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        previous_task_id: assign.previous[0].task_id.clone(),
    };
    let fetched = pod(&cluster)?.workers().fetch_previous_result(request).await?.into_inner();
    assert_eq!(fetched.result.unwrap_or_default().text, "needed");
    Ok(())
}

#[tokio::test]
async fn first_announcement_after_restart_limits_pods() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let mut cluster = start_cluster(Backend::Sqlite, issuer.oidc()).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    agent_of_cluster(&operator, "echo").await?;
    let join = async |cluster: &Cluster, name: &str, slots: i32| {
        let uid = format!("uid-{name}");
        let client = bearer(cluster, &key.sign(&issuer.pod("default", name, &uid))?)?;
        RawWorker::join(&client, Hello { instance: uid, ..raw::hello("echo", name, slots) }).await
    };
    announce(&operator, ECHO, &[("greedy", "uid-greedy"), ("single", "uid-single")]).await?;
    let _before = (join(&cluster, "greedy", 1).await?, join(&cluster, "single", 1).await?);
    cluster.kill().await;
    cluster.restart().await?;

    // Nothing is announced yet: what they claim is not known to be wrong.
    let _greedy = join(&cluster, "greedy", 1024).await?;
    let mut single = join(&cluster, "single", 1).await?;
    let announced = |name: &str, task: &str| v1::AnnouncedWorker {
        worker: name.to_owned(),
        instance: format!("uid-{name}"),
        slots: Some(2),
        isolated_task: Some(task.to_owned()),
    };
    let task = "01890a5d-ac96-774b-bcce-b302099a8057";
    let workers = vec![announced("greedy", ""), announced("single", task)];
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    operator.announce_workers(v1::AnnounceWorkersRequest { name: ECHO.to_owned(), workers }).await?;
    let workers = tasks::workers(cluster.client()).await?;
    let greedy = workers.iter().find(|worker| worker.name.ends_with("/greedy")).context("not listed")?;
    assert_eq!((greedy.slots, greedy.connected), (2, true));
    // One that was created for a task takes no others.
    single.session.end_status().await;
    let refused = join(&cluster, "single", 1).await.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("WORKER_NAME_MISMATCH"));
    Ok(())
}

#[tokio::test]
async fn uploads_of_revoked_pods_end() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let cluster = start_cluster(Backend::Memory, issuer.oidc()).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    agent_of_cluster(&operator, "echo").await?;
    announce(&operator, ECHO, &[("one", "uid-1")]).await?;
    let pod = bearer(&cluster, &key.sign(&issuer.pod("default", "one", "uid-1"))?)?;
    let parent = || "namespaces/default".to_owned();
    let part = |text: &'static str| v1::UploadPartsRequest { parent: parent(), data: text.into() };
    let (parts, requests) = mpsc::unbounded_channel();
    parts.send(part("first"))?;
    let mut service = pod.artifact_service();
    let upload = service.upload_parts(UnboundedReceiverStream::new(requests));
    let revoked = async {
        let digests = vec![Sha256::digest("first").to_vec()];
        let first = v1::FindMissingPartsRequest { parent: parent(), digests, ..Default::default() };
        tasks::eventually("the first part", async || {
            let missing = cluster.client().artifact_service().find_missing_parts(first.clone()).await?;
            Ok(missing.into_inner().digests.is_empty())
        })
        .await?;
        announce(&operator, ECHO, &[]).await?;
        parts.send(part("second"))?;
        drop(parts);
        anyhow::Ok(())
    };
    let (uploaded, revoked) = tokio::join!(upload, revoked);
    revoked?;
    let refused = uploaded.unwrap_err();
    assert_eq!(rota_testkit::client::reason(&refused).as_deref(), Some("WORKER_NOT_ANNOUNCED"));
    Ok(())
}
