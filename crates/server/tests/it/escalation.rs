//! Retries with other models.

use anyhow::{Context, Result};
use rota_proto::v1::{self, FailureClass, TaskState, runtime::Kind};
use rota_proto::worker::v1::Assign;
use rota_testkit::client::Client;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, tasks};

fn claude(model: &str) -> v1::Runtime {
    let claude = v1::ClaudeRuntime { model: model.to_owned(), ..Default::default() };
    v1::Runtime { kind: Some(Kind::Claude(claude)) }
}

async fn agent(client: &Client, runtime: v1::Runtime, overrides: v1::Overrides) -> Result<()> {
    let spec = v1::AgentSpec { runtime: Some(runtime), overrides: overrides.into(), ..Default::default() };
    let name = "namespaces/default/agents/coder".to_owned();
    let agent = v1::Agent { name, spec: Some(spec), ..Default::default() };
    let request = v1::UpdateAgentRequest { agent: Some(agent), allow_missing: true, ..Default::default() };
    client.update_agent(request).await?;
    Ok(())
}

fn task() -> v1::Task {
    let mut task = tasks::task("coder");
    let spec = task.spec.get_or_insert_default();
    spec.prompt = "do it".to_owned();
    spec.retry = Some(v1::RetryPolicy {
        max_attempts: 6,
        initial_backoff: Some(tasks::millis(1)),
        escalate: vec!["sonnet".to_owned(), "opus".to_owned()],
        ..Default::default()
    });
    task
}

fn model(assign: &Assign) -> &str {
    match assign.spec.as_ref().and_then(|spec| spec.runtime.as_ref()?.kind.as_ref()) {
        Some(Kind::Claude(claude)) => &claude.model,
        other => panic!("not claude: {other:?}"),
    }
}

#[tokio::test]
async fn attempts_after_failures_of_the_work_use_other_models() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    agent(client, claude(""), v1::Overrides::Limits).await?;
    let mut worker = RawWorker::join(client, raw::hello("coder", "w", 1)).await?;
    let name = tasks::create(client, task()).await?.name;
    let fails = [FailureClass::Agent, FailureClass::Crash, FailureClass::Checks, FailureClass::Agent];
    for (class, expected) in fails.into_iter().zip(["", "sonnet", "sonnet", "opus"]) {
        let assign = worker.take().await?;
        assert_eq!(model(&assign), expected, "before {class:?}");
        worker.fail(&assign, v1::Failure { class: class.into(), message: "no".into(), ..Default::default() });
        assert!(worker.result_ack().await?);
    }
    let assign = worker.take().await?;
    assert_eq!(model(&assign), "opus");
    worker.succeed(&assign, 0, "done");
    let status = tasks::ended(client, &name).await?.status.context("no status")?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 5));
    Ok(())
}

#[tokio::test]
async fn tasks_escalate_only_where_they_may_choose_the_model() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let refused = async |runtime: v1::Runtime, overrides| -> Result<bool> {
        agent(client, runtime, overrides).await?;
        Ok(tasks::create(client, task()).await.is_err())
    };
    assert!(refused(claude("haiku"), v1::Overrides::Limits).await?, "the agent names its model");
    assert!(!refused(claude("haiku"), v1::Overrides::All).await?);
    assert!(refused(claude(""), v1::Overrides::None).await?);
    assert!(refused(tasks::script([]), v1::Overrides::All).await?, "a script has no model");
    let mut many = task();
    many.spec.get_or_insert_default().retry.get_or_insert_default().escalate = vec!["m".to_owned(); 9];
    assert!(tasks::create(client, many).await.is_err());
    Ok(())
}
