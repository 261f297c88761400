//! What tasks may set besides their work is decided by their agent.

use anyhow::Result;
use rota_proto::names;
use rota_proto::v1::{self, FailureClass, Overrides, TaskState};
use rota_testkit::{Backend, Cluster, tasks};

fn shell(line: &str) -> v1::Runtime {
    let command = v1::CommandRuntime { shell: line.to_owned(), ..Default::default() };
    v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) }
}

/// Returns a task that replaces its agent's program.
fn replacing(agent: &str) -> v1::Task {
    let mut task = tasks::task(agent);
    task.spec.get_or_insert_default().runtime = Some(shell("echo replaced"));
    task
}

async fn agent(cluster: &Cluster, name: &str, capabilities: &[&str], overrides: Overrides) -> Result<()> {
    let spec = v1::AgentSpec {
        runtime: Some(shell("echo own")),
        capabilities: capabilities.iter().map(ToString::to_string).collect(),
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

fn creation(task: v1::Task, key: &str) -> v1::CreateTaskRequest {
    let parent = names::namespace(tasks::NAMESPACE);
    v1::CreateTaskRequest { parent, task: Some(task), idempotency_key: key.into(), ..Default::default() }
}

#[tokio::test]
async fn forbidden_fields_are_refused_at_creation() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    agent(&cluster, "free", &[], Overrides::All).await?;
    agent(&cluster, "fixed", &[], Overrides::Unspecified).await?;
    let first = client.create_task(creation(replacing("free"), "once")).await?;
    let refused = client.create_task(creation(replacing("fixed"), "")).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("OVERRIDE_FORBIDDEN"), "{refused}");
    assert!(refused.to_string().contains("runtime.command"), "{refused}");
    assert!(refused.hint.unwrap().contains("overrides: All"));
    // In a batch it stands alone.
    let batch = v1::BatchCreateTasksRequest {
        parent: names::namespace(tasks::NAMESPACE),
        requests: vec![creation(replacing("fixed"), ""), creation(tasks::task("fixed"), "")],
        ..Default::default()
    };
    let results = client.batch_create_tasks(batch).await?.results;
    let made = |at: usize| matches!(results[at].kind, Some(v1::batch_create_tasks_result::Kind::Task(_)));
    assert_eq!([made(0), made(1)], [false, true]);
    // The repetition of a creation finds its task, whatever the agent has forbidden since.
    agent(&cluster, "free", &[], Overrides::None).await?;
    let again = client.create_task(creation(replacing("free"), "once")).await?;
    assert_eq!(again.uid, first.uid);
    Ok(())
}

#[tokio::test]
async fn forbidden_fields_fail_at_assignment() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    // Neither the named agent nor one with the capability is known when the tasks are created.
    let named = tasks::create(client, replacing("late")).await?;
    let mut capable = replacing("");
    let words = v1::CapabilitySet { capabilities: vec!["acting".into()] };
    let target = v1::Target { kind: Some(v1::target::Kind::Capabilities(words)) };
    capable.spec.get_or_insert_default().target = Some(target);
    let capable = tasks::create(client, capable).await?;
    agent(&cluster, "late", &["acting"], Overrides::Limits).await?;
    let worker = cluster.worker("late", "one", 1)?;
    for task in [&named, &capable] {
        let status = tasks::ended(client, &task.name).await?.status.unwrap();
        assert_eq!(status.state(), TaskState::Failed, "{status:?}");
        let failure = status.failure.unwrap();
        assert_eq!(failure.class(), FailureClass::Invalid, "{failure:?}");
        assert!(failure.message.contains("runtime.command"), "{failure:?}");
    }
    // Its slot is free again.
    let own = tasks::create(client, tasks::task("late")).await?;
    let status = tasks::ended(client, &own.name).await?.status.unwrap();
    assert_eq!(status.result.unwrap().text.trim(), "own");
    worker.stop().await
}
