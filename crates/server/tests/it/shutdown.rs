//! Shutdown of the control plane, whichever streams are open.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use futures::StreamExt;
use rota_proto::v1::{self, TaskState, script_step::Kind as Step};
use rota_server::ShutdownOutcome;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, PANIC_SKEW, Setup, history, tasks};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_types::StatusExt;

const PARENT: &str = "namespaces/default";

#[tokio::test]
async fn shutdown_completes_with_open_streams() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.another_client()?;
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let steps = [Step::Ask("go?".into()), Step::Succeed("done".into())];
    let task = tasks::create(&client, tasks::scripted("echo", steps)).await?;
    tasks::until_state(&client, &task.name, TaskState::InputRequired).await?;
    let mut hand = RawWorker::join(&client, raw::hello("echo", "hand", 1)).await?;
    let name = task.name.clone();
    let mut one = client
        .tasks()
        .watch_task(v1::WatchTaskRequest { name: name.clone(), after_log_seq: 0, ..Default::default() })
        .await?
        .into_inner();
    let mut many = client
        .tasks()
        .watch_tasks(v1::WatchTasksRequest { parent: PARENT.into(), ..Default::default() })
        .await?
        .into_inner();
    let mut agents =
        client.agents().watch_agents(v1::WatchAgentsRequest { parent: PARENT.into() }).await?.into_inner();
    let mut demand = client
        .agents()
        .watch_demand(v1::WatchDemandRequest { parent: PARENT.into(), differences: true, waits: true })
        .await?
        .into_inner();
    let first = v1::AttachTaskRequest {
        kind: Some(v1::attach_task_request::Kind::Watch(v1::WatchTaskRequest {
            name,
            after_log_seq: 0,
            ..Default::default()
        })),
    };
    let inbound = tokio_stream::once(first).chain(futures::stream::pending());
    let mut attached = client.tasks().attach_task(inbound).await?.into_inner();
    // Also streams of library services, which do not observe the shutdown.
    let channel = rota_testkit::client::lazy_channel(&rota_testkit::client::Options::new(format!(
        "http://{}",
        cluster.addr()
    )))?;
    let asked = HealthCheckRequest { service: String::new() };
    let mut health = HealthClient::new(channel.clone()).watch(asked).await?.into_inner();
    let asked = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let asked = tokio_stream::once(asked).chain(futures::stream::pending());
    let mut described =
        ServerReflectionClient::new(channel).server_reflection_info(asked).await?.into_inner();
    // Every stream is open once it has sent a message.
    one.message().await?.context("nothing came")?;
    many.message().await?.context("nothing came")?;
    agents.message().await?.context("nothing came")?;
    demand.message().await?.context("nothing came")?;
    attached.message().await?.context("nothing came")?;
    health.message().await?.context("nothing came")?;
    described.message().await?.context("nothing came")?;
    assert_eq!(cluster.stop().await, Some(ShutdownOutcome::Graceful));
    let mut reasons = Vec::new();
    macro_rules! end {
        ($stream:ident) => {
            loop {
                match $stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break reasons.push("no reason".to_owned()),
                    Err(status) => {
                        break reasons.push(
                            status.get_details_error_info().map(|info| info.reason).unwrap_or_default(),
                        );
                    }
                }
            }
        };
    }
    end!(one);
    end!(many);
    end!(agents);
    end!(demand);
    end!(attached);
    end!(health);
    end!(described);
    let status = hand.session.end_status().await;
    reasons.push(status.get_details_error_info().map(|info| info.reason).unwrap_or_default());
    assert_eq!(reasons, ["STOPPING"; 8]);
    cluster.restart().await?;
    let client = cluster.client();
    tasks::answer(client, &task.name, "yes").await?;
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded);
    assert_eq!(status.attempt, 1);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn store_failure_ends_server_with_error() -> Result<()> {
    let setup = Setup::new(Backend::Sqlite);
    let skew = Arc::clone(&setup.skew);
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.another_client()?;
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let kept = tasks::create(&client, tasks::task("echo")).await?;
    let mut many = client
        .tasks()
        .watch_tasks(v1::WatchTasksRequest { parent: PARENT.into(), ..Default::default() })
        .await?
        .into_inner();
    skew.store(PANIC_SKEW, Ordering::Relaxed);
    let request = v1::CreateTaskRequest {
        parent: PARENT.into(),
        task: Some(tasks::task("echo")),
        ..Default::default()
    };
    assert!(client.tasks().create_task(request).await.is_err());
    let ended = cluster.ended().await.context("the control plane kept running without a store")?;
    let error = ended.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("restart")), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("`commits` exited unexpectedly: the store's writer"), "{error}");
    while let Ok(Some(_)) = many.message().await {}
    // A process manager restarts it on its durable state.
    skew.store(0, Ordering::Relaxed);
    cluster.restart().await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let status = tasks::ended(cluster.client(), &kept.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded);
    Ok(())
}

#[tokio::test]
async fn failed_sync_ends_server_with_error() -> Result<()> {
    let setup = Setup::new(Backend::Memory);
    let unsynced = Arc::clone(&setup.unsynced);
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.another_client()?;
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    unsynced.store(true, Ordering::Relaxed);
    let request = v1::CreateTaskRequest {
        parent: PARENT.into(),
        task: Some(tasks::task("echo")),
        ..Default::default()
    };
    assert!(client.tasks().create_task(request).await.is_err());
    // It must not go on: the kernel may have dropped what it could not write, and reports that once.
    let ended = cluster.ended().await.context("the control plane kept running after a failed sync")?;
    let error = ended.unwrap_err();
    assert!(matches!(error, rota_server::Error::BackgroundTaskExited("commits")), "{error:?}");
    Ok(())
}
