//! Tasks that keep failing and continue, and those that have failed for good: listed for a person until that is settled.

use anyhow::{Context, Result};
use rota_proto::v1::{self, TaskState};
use rota_testkit::client::Client;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, tasks};

const PARENT: &str = "namespaces/default";

fn failure(message: &str) -> v1::Failure {
    let class = v1::FailureClass::Agent.into();
    v1::Failure { class, message: message.to_owned(), ..Default::default() }
}

async fn listed(client: &Client, namespace: &str, states: &[TaskState]) -> Result<Vec<v1::Task>> {
    let states = states.iter().map(|state| i32::from(*state)).collect();
    let filter = Some(v1::TaskFilter { states, needs_attention: true, ..Default::default() });
    let parent = format!("namespaces/{namespace}");
    Ok(client.list_tasks(v1::ListTasksRequest { parent, filter, ..Default::default() }).await?.tasks)
}

/// The list is the same before and after a restart of the control plane, which reads the tasks of its store again.
#[tokio::test]
async fn failing_tasks_are_listed_until_acknowledged() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let mut cluster = Cluster::start(backend).await?;
        let client = cluster.client().clone();
        tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
        let mut worker = RawWorker::join(&client, raw::hello("echo", "w", 1)).await?;
        let mut task = tasks::scripted("echo", []);
        task.spec.get_or_insert_default().retry = Some(v1::RetryPolicy {
            max_attempts: 6,
            initial_backoff: Some(tasks::millis(1)),
            ..Default::default()
        });
        let name = tasks::create(&client, task).await?.name;
        for _ in 0..3 {
            let assign = worker.take().await?;
            assert_eq!(listed(&client, "default", &[]).await?, []);
            worker.fail(&assign, failure("no luck"));
            assert!(worker.result_ack().await?);
        }
        worker.take().await?;
        tasks::until_state(&client, &name, TaskState::Running).await?;
        if backend == Backend::Sqlite {
            cluster.kill().await;
            cluster.restart().await?;
        }
        let [found] = &listed(&client, "default", &[]).await?[..] else { anyhow::bail!("not one task") };
        let attention = found.status.as_ref().and_then(|status| status.attention.as_ref());
        let attention = attention.context("no reason")?;
        let last = attention.last_failure.as_ref().context("no failure")?;
        assert_eq!((&found.name, attention.failed_attempts, &*last.message), (&name, 3, "no luck"));
        assert_eq!(listed(&client, "-", &[TaskState::Running]).await?.len(), 1);
        assert_eq!(listed(&client, "other", &[]).await?, []);
        assert_eq!(listed(&client, "default", &[TaskState::Failed]).await?, []);
        for _ in 0..2 {
            let request = v1::AcknowledgeTaskRequest { name: name.clone(), reason: "known".to_owned() };
            let status = client.acknowledge_task(request).await?.status.context("no status")?;
            assert_eq!((status.state(), status.attention), (TaskState::Running, None));
        }
        assert_eq!(listed(&client, "default", &[]).await?, []);
        let log = tasks::log(&client, &name).await?;
        let noted = log.iter().filter(
            |event| matches!(&event.kind, Some(v1::event::Kind::Change(change)) if change.message == "known"),
        );
        assert_eq!(noted.count(), 1);
        tasks::cancel(&client, &name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn dead_letters_are_listed_until_replayed() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "w", 1)).await?;
    let mut task = tasks::scripted("echo", []);
    let once = v1::RetryPolicy { max_attempts: 1, ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(once);
    let name = tasks::create(client, task).await?.name;
    tasks::create(client, tasks::task("missing")).await?;
    let letters = async || {
        let filter = Some(v1::TaskFilter { dead_letters: true, ..Default::default() });
        let request = v1::ListTasksRequest { parent: PARENT.to_owned(), filter, ..Default::default() };
        anyhow::Ok(client.list_tasks(request).await?.tasks)
    };
    assert_eq!(letters().await?, []);
    let assign = worker.take().await?;
    worker.fail(&assign, failure("no luck"));
    assert!(worker.result_ack().await?);
    let [letter] = &letters().await?[..] else { anyhow::bail!("not one task") };
    assert_eq!(letter.name, name);
    let mut replayed = letter.clone();
    replayed.labels.insert("rota.dev/replayed".to_owned(), "never".to_owned());
    tasks::update(client, replayed, &["labels"]).await?;
    assert_eq!(letters().await?, []);
    Ok(())
}
