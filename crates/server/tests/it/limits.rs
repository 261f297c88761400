//! Limits that an agent sets for tasks without any, whichever of the two is created first.

use anyhow::Result;
use rota_proto::names;
use rota_proto::v1::{self, FailureClass, TaskState, script_step::Kind as Step};
use rota_testkit::client::Client;
use rota_testkit::{Backend, Cluster, history, tasks};

/// Creates the agent `echo`, whose tasks hang, with the given limits.
async fn create_agent(client: &Client, limits: v1::Limits) -> Result<()> {
    let spec = v1::AgentSpec {
        runtime: Some(tasks::script([Step::Hang(true)])),
        capabilities: vec!["code".to_owned()],
        management: v1::Management::External.into(),
        default_limits: Some(limits),
        ..Default::default()
    };
    let agent =
        v1::Agent { name: names::agent(tasks::NAMESPACE, "echo"), spec: Some(spec), ..Default::default() };
    client
        .update_agent(v1::UpdateAgentRequest {
            agent: Some(agent),
            allow_missing: true,
            ..Default::default()
        })
        .await?;
    Ok(())
}

fn short_limits() -> v1::Limits {
    let span = |millis| Some(tasks::millis(millis));
    v1::Limits { timeout: span(300), cancel_grace: span(100), ..Default::default() }
}

async fn assert_fails_with(client: &Client, task: &v1::Task, class: FailureClass) -> Result<()> {
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Failed, "{status:?}");
    assert_eq!(status.failure.as_ref().unwrap().class(), class, "{status:?}");
    Ok(())
}

#[tokio::test]
async fn agent_timeout_applies_to_earlier_task() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let task = tasks::create(client, tasks::task("echo")).await?;
    assert_eq!(task.status.as_ref().unwrap().state(), TaskState::Pending);
    let _worker = cluster.worker("echo", "w1", 1)?;
    create_agent(client, short_limits()).await?;
    assert_fails_with(client, &task, FailureClass::Timeout).await?;
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn timeout_of_accepting_agent_applies() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    create_agent(client, short_limits()).await?;
    let words = vec!["code".to_owned()];
    let kinds = [
        v1::target::Kind::Capabilities(v1::CapabilitySet { capabilities: words }),
        v1::target::Kind::Worker("w1".to_owned()),
    ];
    let mut made = Vec::new();
    for kind in kinds {
        let mut task = tasks::task("missing");
        task.spec.get_or_insert_default().target = Some(v1::Target { kind: Some(kind) });
        made.push(tasks::create(client, task).await?);
    }
    let _worker = cluster.worker("echo", "w1", 2)?;
    for task in &made {
        assert_fails_with(client, task, FailureClass::Timeout).await?;
    }
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn agent_queue_timeout_applies_to_earlier_task() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let task = tasks::create(client, tasks::task("echo")).await?;
    let mut patient = tasks::task("echo");
    patient.spec.get_or_insert_default().limits =
        Some(v1::Limits { queue_timeout: Some(tasks::millis(3_600_000)), ..Default::default() });
    let patient = tasks::create(client, patient).await?;
    create_agent(client, v1::Limits { queue_timeout: Some(tasks::millis(50)), ..Default::default() }).await?;
    assert_fails_with(client, &task, FailureClass::QueueTimeout).await?;
    let status = tasks::get(client, &patient.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Queued);
    Ok(())
}
