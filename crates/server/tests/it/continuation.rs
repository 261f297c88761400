//! What a task may continue: conversation and files of another agent's task are a choice that not every agent leaves to tasks.

use anyhow::Result;
use rota_proto::names;
use rota_proto::v1::{self, Artifact, ArtifactList, Checkpoint, FailureClass, Overrides};
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_proto::worker::v1::{Assign, FetchCheckpointRequest, KeepArtifactsRequest, result};
use rota_testkit::raw::{RawWorker, hello, success};
use rota_testkit::{Backend, Cluster, tasks};
use sha2::{Digest, Sha256};

async fn agent(cluster: &Cluster, name: &str, overrides: Overrides) -> Result<()> {
    let spec = v1::AgentSpec {
        runtime: Some(tasks::script([])),
        capabilities: vec!["acting".to_owned()],
        management: v1::Management::External.into(),
        overrides: overrides.into(),
        ..Default::default()
    };
    let agent =
        v1::Agent { name: names::agent(tasks::NAMESPACE, name), spec: Some(spec), ..Default::default() };
    let request = v1::UpdateAgentRequest { agent: Some(agent), allow_missing: true, ..Default::default() };
    cluster.client().update_agent(request).await?;
    Ok(())
}

/// Runs a task of an agent to its end, which leaves a checkpoint.
async fn source(cluster: &Cluster, agent: &str) -> Result<v1::Task> {
    let task = tasks::create(cluster.client(), tasks::task(agent)).await?;
    run(cluster, agent).await?;
    Ok(task)
}

/// Runs the next task of an agent to its end, which leaves a checkpoint.
async fn run(cluster: &Cluster, agent: &str) -> Result<()> {
    let mut worker = RawWorker::join(cluster.client(), hello(agent, "leaves", 1)).await?;
    let assign = worker.take().await?;
    keep_checkpoint(cluster, "leaves", &assign).await?;
    worker.succeed(&assign, 0, "done");
    assert!(worker.result_ack().await?);
    worker.close().await;
    Ok(())
}

async fn keep_checkpoint(cluster: &Cluster, worker: &str, assign: &Assign) -> Result<()> {
    keep(cluster, worker, assign, None).await
}

async fn keep(cluster: &Cluster, worker: &str, assign: &Assign, changes: Option<v1::Changes>) -> Result<()> {
    // Of no content, so that nothing has to be stored.
    let conversation = Artifact {
        name: "checkpoint/c.jsonl".to_owned(),
        sha256: hex::encode(Sha256::digest("")),
        ..Artifact::default()
    };
    let list = ArtifactList {
        artifacts: vec![conversation],
        checkpoint: Some(Checkpoint { conversation: "c".to_owned(), ..Checkpoint::default() }),
        changes,
        ..ArtifactList::default()
    };
    let request = KeepArtifactsRequest {
        namespace: "default".to_owned(),
        worker: worker.to_owned(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        artifacts: Some(list),
    };
    cluster.client().workers().keep_artifacts(request).await?;
    Ok(())
}

/// A worker that could not note in its list that it has pushed has noted it in its result.
#[tokio::test]
async fn pushes_of_results_are_continued() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    agent(&cluster, "open", Overrides::All).await?;
    let [base, commit, other] = ["a", "b", "c"].map(|digit| digit.repeat(40));
    let mut worker = RawWorker::join(client, hello("open", "leaves", 1)).await?;
    for (delivered, pushed) in [(&commit, true), (&other, false)] {
        let source = tasks::create(client, tasks::task("open")).await?;
        let assign = worker.take().await?;
        let branch = format!("rota/{}", source.uid);
        let changes = v1::Changes {
            base_commit: base.clone(),
            commit: commit.clone(),
            branch: branch.clone(),
            ..Default::default()
        };
        keep(&cluster, "leaves", &assign, Some(changes)).await?;
        let mut result = success(&assign, 0, "done");
        if let Outgoing::Result(result) = &mut result
            && let Some(result::Kind::Succeeded(result)) = &mut result.kind
        {
            result.delivery = Some(v1::Delivery {
                outcome: v1::DeliveryOutcome::Delivered.into(),
                branch,
                commit: delivered.clone(),
                base_commit: base.clone(),
                ..Default::default()
            });
        }
        worker.send(result);
        assert!(worker.result_ack().await?);
        tasks::create(client, continuing(tasks::task("open"), &source)).await?;
        let assign = worker.take().await?;
        let request = FetchCheckpointRequest {
            namespace: "default".to_owned(),
            worker: "leaves".to_owned(),
            task_id: assign.task_id.clone(),
            fence: assign.fence,
        };
        let left = client.workers().fetch_checkpoint(request).await?.into_inner();
        assert_eq!(left.source.and_then(|list| list.changes).map(|changes| changes.pushed), Some(pushed));
        worker.succeed(&assign, 0, "done");
        assert!(worker.result_ack().await?);
    }
    Ok(())
}

fn continuing(mut task: v1::Task, source: &v1::Task) -> v1::Task {
    task.spec.get_or_insert_default().continue_from = source.uid.clone();
    task
}

fn capable() -> v1::Task {
    let words = v1::CapabilitySet { capabilities: vec!["acting".to_owned()] };
    let target = v1::Target { kind: Some(v1::target::Kind::Capabilities(words)) };
    let runtime = Some(tasks::script([]));
    let spec = v1::TaskSpec { target: Some(target), runtime, ..*tasks::task("").spec.unwrap_or_default() };
    v1::Task { spec: Some(Box::new(spec)), ..Default::default() }
}

#[tokio::test]
async fn other_agents_tasks_are_continued_by_choice() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        agent(&cluster, "open", Overrides::All).await?;
        agent(&cluster, "fixed", Overrides::Limits).await?;
        let source = source(&cluster, "open").await?;
        let creation = |task: v1::Task| v1::CreateTaskRequest {
            parent: names::namespace(tasks::NAMESPACE),
            task: Some(continuing(task, &source)),
            ..Default::default()
        };
        let refused = client.create_task(creation(tasks::task("fixed"))).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("OVERRIDE_FORBIDDEN"), "{refused}");
        assert!(refused.to_string().contains("continue_from"), "{refused}");
        assert!(refused.hint.unwrap().contains("overrides: All"));
        // Its own, whatever it lets tasks set.
        agent(&cluster, "open", Overrides::None).await?;
        client.create_task(creation(tasks::task("open"))).await?;
        agent(&cluster, "fixed", Overrides::All).await?;
        let task = client.create_task(creation(tasks::task("fixed"))).await?;
        // What has changed since, and what was not known, is found when it is assigned.
        agent(&cluster, "fixed", Overrides::Limits).await?;
        let unknown = client.create_task(creation(tasks::task("late"))).await?;
        let mut unclear = creation(capable());
        unclear.task.as_mut().unwrap().spec.as_mut().unwrap().runtime = None;
        let refused = client.create_task(unclear).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("INVALID_FIELD"), "{refused}");
        let any = client.create_task(creation(capable())).await?;
        agent(&cluster, "late", Overrides::None).await?;
        let _fixed = cluster.worker("fixed", "one", 1)?;
        let _late = cluster.worker("late", "two", 1)?;
        for task in [&task, &unknown, &any] {
            let failure = tasks::ended(client, &task.name).await?.status.unwrap().failure.unwrap();
            assert_eq!(failure.class(), FailureClass::Invalid, "{failure:?}");
            assert!(failure.message.contains("continue_from"), "{failure:?}");
        }
    }
    Ok(())
}

/// A task of a thread whose conversation has become that of another agent: it fails once, and no worker is to blame.
#[tokio::test]
async fn threads_that_change_agents_fail_by_policy() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    agent(&cluster, "open", Overrides::All).await?;
    agent(&cluster, "fixed", Overrides::Limits).await?;
    let of = |agent: &str| {
        let remember = v1::script_step::Kind::Remember("x".to_owned());
        let mut task = tasks::scripted(agent, [remember]);
        task.spec.get_or_insert_default().thread = "talk".to_owned();
        task
    };
    tasks::create(client, of("fixed")).await?;
    run(&cluster, "fixed").await?;
    // It waits, so that the conversation is still that of the first.
    tasks::create(client, of("open")).await?;
    let third = tasks::create(client, of("fixed")).await?;
    run(&cluster, "open").await?;
    let _worker = cluster.worker("fixed", "one", 1)?;
    let status = tasks::ended(client, &third.name).await?.status.unwrap();
    let failure = status.failure.unwrap();
    assert_eq!((failure.class(), status.attempt), (FailureClass::Invalid, 1), "{failure:?}");
    assert!(failure.hint.contains("overrides: All"), "{failure:?}");
    Ok(())
}

/// While the host of a repository is away, attempts end before their work: however many, the checkpoint before them stays.
#[tokio::test]
async fn long_outages_keep_the_checkpoint() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    agent(&cluster, "open", Overrides::All).await?;
    let mut task = tasks::task("open");
    let wait = Some(tasks::millis(1));
    let retry = v1::RetryPolicy { initial_backoff: wait, max_backoff: wait, ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    let task = tasks::create(client, task).await?;
    for attempt in 1..=20 {
        // Another one each time, so that none passes for sick.
        let name = format!("w{attempt}");
        let mut worker = RawWorker::join(client, hello("open", &name, 1)).await?;
        let assign = worker.take().await?;
        assert_eq!((&assign.task_id, assign.attempt), (&task.uid, attempt));
        if attempt == 1 {
            keep_checkpoint(&cluster, &name, &assign).await?;
        }
        let request = FetchCheckpointRequest {
            namespace: "default".to_owned(),
            worker: name,
            task_id: assign.task_id.clone(),
            fence: assign.fence,
        };
        let left = client.workers().fetch_checkpoint(request).await?.into_inner();
        let found = left.artifacts.and_then(|list| list.checkpoint).map(|found| found.conversation);
        assert_eq!(found.as_deref(), Some("c"), "attempt {attempt}");
        let failure = v1::Failure { message: "the host is away".to_owned(), ..Default::default() };
        worker.fail(&assign, v1::Failure { class: FailureClass::Source.into(), ..failure });
        assert!(worker.result_ack().await?);
        worker.close().await;
    }
    // A caller who asks for the files of the task sees those of the checkpoint, too.
    let kept = client.fetch_artifacts(&task.name).await?.attempts;
    assert_eq!(kept.iter().map(|left| left.attempt).collect::<Vec<_>>(), [1]);
    Ok(())
}
