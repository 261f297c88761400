//! Viewers: they read over gRPC and HTTP, and change nothing.

use anyhow::{Context, Result};
use rota_proto::v1::{self, TaskState};
use rota_testkit::client::{Client, Options, Token};
use rota_testkit::{Backend, Cluster, Setup, tasks};

const ADMIN: &str = "open sesame";
const VIEWER: &str = "look sesame";

async fn start_cluster() -> Result<Cluster> {
    let setup = Setup {
        token: Some(ADMIN.to_owned()),
        viewer_token: Some(VIEWER.to_owned()),
        ..Setup::new(Backend::Memory)
    };
    Cluster::start_with(setup).await
}

#[tokio::test]
async fn viewers_read_everything_and_change_nothing() -> Result<()> {
    let cluster = start_cluster().await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let task = tasks::create(cluster.client(), tasks::task("echo")).await?;
    let options = Options::new(format!("http://{}", cluster.addr()));
    let viewer = Client::new(Options { token: Token::Fixed(VIEWER.into()), ..options })?;
    tasks::until_state(&viewer, &task.name, TaskState::Succeeded).await?;
    assert_eq!(viewer.all_agents("namespaces/default").await?.len(), 1);
    let refused = tasks::create(&viewer, tasks::task("echo")).await.unwrap_err();
    let refused = refused.downcast_ref::<rota_testkit::client::Error>().context("another error")?;
    assert_eq!(refused.reason.as_deref(), Some("ROLE_FORBIDDEN"), "{refused}");
    assert!(refused.hint.as_deref().is_some_and(|hint| hint.contains("viewers only read")), "{refused}");
    let request = v1::CancelTaskRequest { name: task.name.clone(), ..Default::default() };
    assert_eq!(viewer.cancel_task(request).await.unwrap_err().reason.as_deref(), Some("ROLE_FORBIDDEN"));
    Ok(())
}

#[tokio::test]
async fn responses_to_viewers_name_their_role() -> Result<()> {
    let cluster = start_cluster().await?;
    let http = reqwest::Client::new();
    let list = format!("http://{}/api/v1/namespaces/default/tasks", cluster.addr());
    for (token, role) in [(VIEWER, Some("viewer")), (ADMIN, None)] {
        let answer = http.get(&list).bearer_auth(token).send().await?;
        assert_eq!(answer.status(), http::StatusCode::OK);
        assert_eq!(answer.headers().get("rota-role").map(|role| role.as_bytes()), role.map(str::as_bytes));
    }
    let made = http.post(&list).bearer_auth(VIEWER).json(&serde_json::json!({})).send().await?;
    assert_eq!(made.status(), http::StatusCode::FORBIDDEN);
    Ok(())
}

/// Why the tasks of each route wait is computed for each watcher, and is for operators and admins.
#[tokio::test]
async fn viewers_watch_demand_without_causes() -> Result<()> {
    let cluster = start_cluster().await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let options = Options::new(format!("http://{}", cluster.addr()));
    let viewer = Client::new(Options { token: Token::Fixed(VIEWER.into()), ..options })?;
    tasks::create(cluster.client(), tasks::task("echo")).await?;
    let request =
        v1::WatchDemandRequest { parent: "namespaces/default".into(), differences: true, waits: true };
    let mut demand = viewer.agents().watch_demand(request).await?.into_inner();
    // They would come between the two.
    for queued in 1..=2 {
        loop {
            let next = tokio::time::timeout(tasks::WAIT_TIMEOUT, demand.message()).await??;
            let next = next.context("it ended")?;
            assert_eq!(next.waits, []);
            if next.demands.iter().any(|one| one.queued == queued) {
                break;
            }
        }
        if queued == 1 {
            tasks::create(cluster.client(), tasks::task("echo")).await?;
        }
    }
    Ok(())
}
