//! Bounds that an agent sets for tasks that set none, in whichever order the two come.

use anyhow::Result;
use rota_client::Client;
use rota_proto::names;
use rota_proto::v1::{self, FailureClass, TaskState, script_step::Kind as Step};
use rota_testkit::{Cluster, Keep, history, tasks};

/// The agent `echo`, whose tasks hang, with these bounds.
async fn agent(client: &Client, limits: v1::Limits) -> Result<()> {
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

fn short() -> v1::Limits {
    let span = |millis| Some(tasks::millis(millis));
    v1::Limits { timeout: span(300), cancel_grace: span(100), ..Default::default() }
}

async fn ends_with(client: &Client, task: &v1::Task, class: FailureClass) -> Result<()> {
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Failed, "{status:?}");
    assert_eq!(status.failure.as_ref().unwrap().class(), class, "{status:?}");
    Ok(())
}

#[tokio::test]
async fn a_timeout_of_an_agent_that_comes_after_its_task() -> Result<()> {
    let cluster = Cluster::start(Keep::Sqlite).await?;
    let client = cluster.client();
    let task = tasks::create(client, tasks::task("echo")).await?;
    assert_eq!(task.status.as_ref().unwrap().state(), TaskState::Pending);
    let _worker = cluster.worker("echo", "w1", 1)?;
    agent(client, short()).await?;
    ends_with(client, &task, FailureClass::Timeout).await?;
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn a_timeout_of_the_agent_that_took_it() -> Result<()> {
    let cluster = Cluster::start(Keep::Memory).await?;
    let client = cluster.client();
    agent(client, short()).await?;
    let words = vec!["code".to_owned()];
    let kinds = [
        v1::target::Kind::Capabilities(v1::CapabilitySet { words }),
        v1::target::Kind::Worker("w1".to_owned()),
    ];
    let mut made = Vec::new();
    for kind in kinds {
        let mut task = tasks::task("nobody");
        task.spec.get_or_insert_default().target = Some(v1::Target { kind: Some(kind) });
        made.push(tasks::create(client, task).await?);
    }
    let _worker = cluster.worker("echo", "w1", 2)?;
    for task in &made {
        ends_with(client, task, FailureClass::Timeout).await?;
    }
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn a_queue_timeout_of_an_agent_that_comes_after_its_task() -> Result<()> {
    let cluster = Cluster::start(Keep::Sqlite).await?;
    let client = cluster.client();
    let task = tasks::create(client, tasks::task("echo")).await?;
    let mut patient = tasks::task("echo");
    patient.spec.get_or_insert_default().limits =
        Some(v1::Limits { queue_timeout: Some(tasks::millis(3_600_000)), ..Default::default() });
    let patient = tasks::create(client, patient).await?;
    agent(client, v1::Limits { queue_timeout: Some(tasks::millis(50)), ..Default::default() }).await?;
    ends_with(client, &task, FailureClass::QueueTimeout).await?;
    let status = tasks::get(client, &patient.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Queued);
    Ok(())
}
