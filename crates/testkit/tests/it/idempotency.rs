//! Creations that are said twice.

use anyhow::Result;
use rota_client::{Client, Error};
use rota_proto::v1::{self, TaskState};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Cluster, Keep, Proxy, history, tasks};

fn request(key: &str, id: &str, prompt: &str) -> v1::CreateTaskRequest {
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

async fn count(client: &Client) -> Result<usize> {
    let request = v1::ListTasksRequest { parent: "namespaces/default".into(), ..Default::default() };
    Ok(client.all_tasks(request, None).await?.len())
}

#[tokio::test]
async fn the_same_key_is_the_same_task() -> Result<()> {
    for keep in [Keep::Memory, Keep::Sqlite] {
        let cluster = Cluster::start(keep).await?;
        let client = cluster.client();
        let first = create(client, request("key", "", "do it")).await?;
        let again = create(client, request("key", "", "do it")).await?;
        assert_eq!(first.uid, again.uid);
        // What may be changed later does not matter.
        let mut other = request("key", "", "do it");
        let task = other.task.get_or_insert_default();
        task.priority = Some(9);
        task.labels.insert("a".into(), "b".into());
        assert_eq!(create(client, other).await?.uid, first.uid);
        let mut other = request("key", "", "do something else");
        let task = other.task.get_or_insert_default();
        task.alias = "other".to_owned();
        task.spec.get_or_insert_default().owner = "somebody".to_owned();
        let refused = create(client, other).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("KEY_REUSED"));
        let mut fields: Vec<_> = refused.fields.iter().map(|field| field.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["alias", "spec.owner", "spec.prompt", "spec.title"]);
        // Keys belong to a namespace.
        let mut elsewhere = request("key", "", "do it");
        elsewhere.parent = "namespaces/other".to_owned();
        assert_ne!(create(client, elsewhere).await?.uid, first.uid);
        assert_eq!(count(client).await?, 1);
        // Also when it has ended.
        tasks::agent(client, "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 1)?;
        tasks::until_state(client, &first.name, TaskState::Succeeded).await?;
        let told = create(client, request("key", "", "do it")).await?;
        assert_eq!((told.uid, told.status.unwrap().state()), (first.uid, TaskState::Succeeded));
        history::check(client, true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn the_same_id_is_the_same_task() -> Result<()> {
    let cluster = Cluster::start(Keep::Sqlite).await?;
    let client = cluster.client();
    let id = "0190aaaa-0000-7000-8000-000000000001";
    let first = create(client, request("", id, "do it")).await?;
    assert_eq!(first.uid, id);
    assert_eq!(create(client, request("", id, "do it")).await?.uid, id);
    let refused = create(client, request("", id, "another")).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("KEY_REUSED"));
    // Nobody learns of another namespace's tasks.
    let mut elsewhere = request("", id, "do it");
    elsewhere.parent = "namespaces/other".to_owned();
    let refused = create(client, elsewhere).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("KEY_OUTLIVED"));
    let bad = create(client, request("", "not-a-uuid", "do it")).await.unwrap_err();
    assert_eq!(bad.fields[0].field, "task_id");
    history::check(client, false).await?.check()
}

#[tokio::test]
async fn both_at_once_make_one() -> Result<()> {
    let cluster = Cluster::start(Keep::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let calls = (0..32).map(|_| create(client, request("key", "", "do it")));
    let mut ids = Vec::new();
    for told in futures::future::join_all(calls).await {
        ids.push(told?.uid);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(count(client).await?, 1);
    tasks::until_state(client, "namespaces/default/tasks/same", TaskState::Succeeded).await?;
    // No slot is kept for those that were none.
    tasks::eventually("all slots free", async || {
        let request = v1::GetAgentRequest { name: "namespaces/default/agents/echo".into() };
        Ok(client.get_agent(request).await?.status.unwrap().free_slots == 4)
    })
    .await?;
    history::check(client, true).await?.check()
}

/// The first of a batch has the only slot kept for it, and is none: the second one, which found it taken, gets it.
#[tokio::test]
async fn a_slot_kept_for_nobody_goes_to_who_waits() -> Result<()> {
    let cluster = Cluster::start(Keep::Sqlite).await?;
    let client = cluster.client();
    let known = create(client, request("key", "", "do it")).await?;
    tasks::cancel(client, &known.name).await?;
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    for round in 0..20 {
        let mut new = request(&round.to_string(), "", "do something else");
        new.task.get_or_insert_default().alias = format!("new-{round}");
        let requests = vec![request("key", "", "do it"), new];
        let parent = "namespaces/default".to_owned();
        client
            .batch_create_tasks(v1::BatchCreateTasksRequest { parent, requests, ..Default::default() })
            .await?;
        // Nothing else happens that could wake it.
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
async fn an_answer_that_was_lost_is_asked_for_again() -> Result<()> {
    let mut cluster = Cluster::start(Keep::Sqlite).await?;
    let proxy = Proxy::start(cluster.addr()).await?;
    let mut options = rota_client::Options::new(format!("http://{}", proxy.addr()));
    options.retry_for = tasks::PATIENCE;
    let far = Client::new(options)?;
    far.list_tasks(v1::ListTasksRequest { parent: "namespaces/default".into(), ..Default::default() })
        .await?;
    let call = {
        let far = far.clone();
        // Without a key of the caller's: the client has one of its own.
        rota_telemetry::spawn("call", rota_telemetry::OnExit::Done, async move {
            create(&far, request("", "", "do it")).await
        })
    };
    let client = cluster.client().clone();
    // The question passes, the answer is lost with whoever gave it.
    tasks::eventually("the task", async || Ok(count(&client).await? == 1)).await?;
    proxy.cut();
    cluster.kill().await;
    cluster.restart().await?;
    proxy.open();
    let told = call.await??;
    assert_eq!(count(&client).await?, 1);
    assert_eq!(tasks::get(&client, "namespaces/default/tasks/same").await?.uid, told.uid);
    history::check(&client, false).await?.check()
}
