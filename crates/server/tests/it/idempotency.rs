//! Creations that are sent twice.

use anyhow::Result;
use rota_proto::v1::{self, TaskState};
use rota_testkit::client::{Client, Error};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, Proxy, history, tasks};

fn create_request(key: &str, id: &str, prompt: &str) -> v1::CreateTaskRequest {
    let mut task = tasks::task("echo");
    task.alias = "same".to_owned();
    task.spec.get_or_insert_default().prompt = prompt.to_owned();
    v1::CreateTaskRequest {
        parent: "namespaces/default".to_owned(),
        task: Some(task),
        idempotency_key: key.to_owned(),
        task_id: id.to_owned(),
        validate_only: false,
    }
}

async fn create(client: &Client, request: v1::CreateTaskRequest) -> Result<v1::Task, Error> {
    client.create_task(request).await
}

async fn count_tasks(client: &Client) -> Result<usize> {
    let request = v1::ListTasksRequest { parent: "namespaces/default".into(), ..Default::default() };
    Ok(client.all_tasks(request, None).await?.len())
}

#[tokio::test]
async fn same_key_returns_same_task() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        let first = create(client, create_request("key", "", "do it")).await?;
        let again = create(client, create_request("key", "", "do it")).await?;
        assert_eq!(first.uid, again.uid);
        // Fields that may be updated later do not matter.
        let mut other = create_request("key", "", "do it");
        let task = other.task.get_or_insert_default();
        task.priority = Some(9);
        task.labels.insert("a".into(), "b".into());
        assert_eq!(create(client, other).await?.uid, first.uid);
        let mut other = create_request("key", "", "do something else");
        let task = other.task.get_or_insert_default();
        task.alias = "other".to_owned();
        task.spec.get_or_insert_default().owner = "another-owner".to_owned();
        let refused = create(client, other).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("IDEMPOTENCY_KEY_CONFLICT"));
        let mut fields: Vec<_> = refused.fields.iter().map(|field| field.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["alias", "spec.owner", "spec.prompt", "spec.title"]);
        // Keys are scoped to a namespace.
        let mut elsewhere = create_request("key", "", "do it");
        elsewhere.parent = "namespaces/other".to_owned();
        assert_ne!(create(client, elsewhere).await?.uid, first.uid);
        assert_eq!(count_tasks(client).await?, 1);
        // The same holds after the task has ended.
        tasks::agent(client, "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 1)?;
        tasks::until_state(client, &first.name, TaskState::Succeeded).await?;
        let existing = create(client, create_request("key", "", "do it")).await?;
        assert_eq!(existing.uid, first.uid);
        assert_eq!(existing.status.unwrap().state(), TaskState::Succeeded);
        history::check(client, true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn same_id_returns_same_task() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let id = "0190aaaa-0000-7000-8000-000000000001";
    let first = create(client, create_request("", id, "do it")).await?;
    assert_eq!(first.uid, id);
    assert_eq!(create(client, create_request("", id, "do it")).await?.uid, id);
    let refused = create(client, create_request("", id, "another")).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("IDEMPOTENCY_KEY_CONFLICT"));
    // Another namespace has ids of its own.
    let mut elsewhere = create_request("", id, "another");
    elsewhere.parent = "namespaces/other".to_owned();
    let other = create(client, elsewhere).await?;
    assert_eq!((other.uid.as_str(), other.spec.unwrap_or_default().prompt.as_str()), (id, "another"));
    let kept = tasks::get(client, &first.name).await?;
    assert_eq!(kept.spec.unwrap_or_default().prompt, "do it");
    let bad = create(client, create_request("", "not-a-uuid", "do it")).await.unwrap_err();
    assert_eq!(bad.fields[0].field, "task_id");
    history::check(client, false).await?.check()
}

#[tokio::test]
async fn concurrent_creations_make_one_task() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let calls = (0..32).map(|_| create(client, create_request("key", "", "do it")));
    let mut ids = Vec::new();
    for created in futures::future::join_all(calls).await {
        ids.push(created?.uid);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(count_tasks(client).await?, 1);
    tasks::until_state(client, "namespaces/default/tasks/same", TaskState::Succeeded).await?;
    // Creations that made no task hold no slot.
    tasks::eventually("all slots free", async || {
        let request = v1::GetAgentRequest { name: "namespaces/default/agents/echo".into() };
        Ok(client.get_agent(request).await?.status.unwrap().free_slots == 4)
    })
    .await?;
    history::check(client, true).await?.check()
}

/// The first of a batch reserves the only slot and turns out to exist: the second, which found none free, gets it.
#[tokio::test]
async fn unused_reservation_reaches_waiting_task() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let known = create(client, create_request("key", "", "do it")).await?;
    tasks::cancel(client, &known.name).await?;
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    for round in 0..20 {
        let mut new = create_request(&round.to_string(), "", "do something else");
        new.task.get_or_insert_default().alias = format!("new-{round}");
        let requests = vec![create_request("key", "", "do it"), new];
        let parent = "namespaces/default".to_owned();
        client
            .batch_create_tasks(v1::BatchCreateTasksRequest { parent, requests, ..Default::default() })
            .await?;
        // Nothing else happens that could wake the queue.
        let assign = worker.take().await?;
        assert_eq!(assign.alias, format!("new-{round}"));
        worker.succeed(&assign, 0, "done");
        assert!(worker.result_ack().await?);
        tasks::eventually("a free slot", async || Ok(tasks::workers(client).await?[0].tasks.is_empty()))
            .await?;
    }
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn lost_response_is_retried() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let proxy = Proxy::start(cluster.addr()).await?;
    let mut options = rota_testkit::client::Options::new(format!("http://{}", proxy.addr()));
    options.retry_for = tasks::WAIT_TIMEOUT;
    let far = Client::new(options)?;
    far.list_tasks(v1::ListTasksRequest { parent: "namespaces/default".into(), ..Default::default() })
        .await?;
    let call = {
        let far = far.clone();
        // Without a key from the caller: the client generates one.
        rota_telemetry::spawn("call", rota_telemetry::OnExit::Done, async move {
            create(&far, create_request("", "", "do it")).await
        })
    };
    let client = cluster.client().clone();
    // The request arrives, and the response is lost with the connection.
    tasks::eventually("the task", async || Ok(count_tasks(&client).await? == 1)).await?;
    proxy.cut();
    cluster.kill().await;
    cluster.restart().await?;
    proxy.open();
    let existing = call.await??;
    assert_eq!(count_tasks(&client).await?, 1);
    assert_eq!(tasks::get(&client, "namespaces/default/tasks/same").await?.uid, existing.uid);
    history::check(&client, false).await?.check()
}
