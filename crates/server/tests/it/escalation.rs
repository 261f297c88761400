//! Retries with other models, and by other agents.

use anyhow::{Context, Result};
use rota_proto::v1::{self, FailureClass, TaskState, runtime::Kind};
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_proto::worker::v1::{Assign, Result as AttemptResult, result};
use rota_testkit::client::Client;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, tasks};

fn claude(model: &str) -> v1::Runtime {
    let claude = v1::ClaudeRuntime { model: model.to_owned(), ..Default::default() };
    v1::Runtime { kind: Some(Kind::Claude(claude)) }
}

async fn agent(client: &Client, runtime: v1::Runtime, overrides: v1::Overrides) -> Result<()> {
    named(client, "coder", runtime, overrides).await
}

async fn named(client: &Client, name: &str, runtime: v1::Runtime, overrides: v1::Overrides) -> Result<()> {
    let spec = v1::AgentSpec { runtime: Some(runtime), overrides: overrides.into(), ..Default::default() };
    let name = format!("namespaces/default/agents/{name}");
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

/// A task whose attempts after two failures of its work are the senior's.
fn to_senior() -> v1::Task {
    let mut task = task();
    let spec = task.spec.get_or_insert_default();
    let retry = spec.retry.get_or_insert_default();
    retry.escalate = ["sonnet", "agent/senior"].map(str::to_owned).to_vec();
    spec.limits.get_or_insert_default().budget_micro_usd = 1_000_000;
    task
}

async fn fail(worker: &mut RawWorker, class: FailureClass, spent: i64) -> Result<Assign> {
    let assign = worker.take().await?;
    let usage = v1::Usage { cost_micro_usd: spent, ..Default::default() };
    let event = v1::Event { kind: Some(v1::event::Kind::Usage(usage)), ..Default::default() };
    worker.report(&assign, 1, vec![event]);
    worker.send(Outgoing::Result(Box::new(AttemptResult {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        last_attempt_seq: 1,
        kind: Some(result::Kind::Failed(v1::Failure {
            class: class.into(),
            message: "no".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    })));
    anyhow::ensure!(worker.result_ack().await?, "the result was not accepted");
    Ok(assign)
}

fn budget(assign: &Assign) -> Option<i64> {
    Some(assign.spec.as_ref()?.limits.as_ref()?.budget_micro_usd)
}

#[tokio::test]
async fn attempts_move_to_another_agent() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let mut cluster = Cluster::start(backend).await?;
        let client = cluster.client().clone();
        named(&client, "coder", claude(""), v1::Overrides::Limits).await?;
        named(&client, "senior", claude("opus"), v1::Overrides::All).await?;
        let mut coder = RawWorker::join(&client, raw::hello("coder", "c", 1)).await?;
        let name = tasks::create(&client, to_senior()).await?.name;
        assert_eq!(model(&fail(&mut coder, FailureClass::Agent, 1).await?), "");
        assert_eq!(model(&fail(&mut coder, FailureClass::Checks, 10).await?), "sonnet");
        // It waits for a worker of the other agent: one more of the first makes no difference, nor does a restart.
        let moved = tasks::until_state(&client, &name, TaskState::Queued).await?;
        assert_eq!(moved.status.context("no status")?.escalated_to, "senior");
        let mut others = tasks::create(&client, tasks::task("coder")).await?.name;
        let assign = coder.take().await?;
        assert!(others.ends_with(&assign.task_id), "the first agent got it again");
        coder.succeed(&assign, 0, "done");
        tasks::ended(&client, &others).await?;
        if backend == Backend::Sqlite {
            coder.close().await;
            cluster.kill().await;
            cluster.restart().await?;
            others = tasks::create(&client, tasks::task("coder")).await?.name;
            let mut coder = RawWorker::join(&client, raw::hello("coder", "d", 1)).await?;
            assert!(others.ends_with(&coder.take().await?.task_id));
        }
        let mut senior = RawWorker::join(&client, raw::hello("senior", "s", 1)).await?;
        let assign = fail(&mut senior, FailureClass::Agent, 100).await?;
        assert!(name.ends_with(&assign.task_id));
        assert_eq!((model(&assign), assign.agent.as_str(), assign.attempt), ("opus", "senior", 3));
        // The budget is that of all attempts, and what the other agent has left is not continued.
        assert_eq!(budget(&assign), Some(1_000_000 - 11));
        let checkpoints = assign.checkpoints.context("no checkpoints")?;
        assert!(!checkpoints.exist);
        assert_eq!(checkpoints.last_failure.context("no failure")?.class(), FailureClass::Checks);
        let assign = senior.take().await?;
        assert_eq!(
            (assign.agent.as_str(), assign.attempt, budget(&assign)),
            ("senior", 4, Some(1_000_000 - 111))
        );
        senior.succeed(&assign, 0, "done");
        let status = tasks::ended(&client, &name).await?.status.context("no status")?;
        assert_eq!((status.state(), status.escalated_to.as_str()), (TaskState::Succeeded, "senior"));
        let log = tasks::log(&client, &name).await?;
        let noted = |event: &v1::Event| matches!(&event.kind, Some(v1::event::Kind::Notice(one)) if one.code == "escalated");
        assert_eq!(log.iter().filter(|event| noted(event)).count(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn agents_that_tasks_escalate_to_decide_what_they_may_set() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    named(client, "coder", claude(""), v1::Overrides::All).await?;
    named(client, "senior", claude("opus"), v1::Overrides::Limits).await?;
    let refused = tasks::create(client, to_senior()).await.unwrap_err();
    assert!(refused.to_string().contains("retry.escalate"), "the senior names its model: {refused}");
    named(client, "program", tasks::script([]), v1::Overrides::All).await?;
    let mut without_model = tasks::task("program");
    let retry = without_model.spec.get_or_insert_default().retry.get_or_insert_default();
    retry.escalate = vec!["opus".to_owned()];
    let refused = tasks::create(client, without_model).await.unwrap_err().to_string();
    assert!(refused.contains("names a model, and the runtime of the agent has none"), "{refused}");
    let mut only_agent = to_senior();
    let retry = only_agent.spec.get_or_insert_default().retry.get_or_insert_default();
    retry.escalate = vec!["agent/senior".to_owned()];
    tasks::create(client, only_agent.clone()).await?;
    let mut continued = only_agent.clone();
    continued.spec.get_or_insert_default().environment.insert("A".to_owned(), "b".to_owned());
    assert!(tasks::create(client, continued).await.is_err(), "the senior lets no task set variables");
    let mut alone = only_agent.clone();
    alone.spec.get_or_insert_default().isolation = v1::Isolation::Pod.into();
    assert!(tasks::create(client, alone).await.is_err());
    let mut unnamed = only_agent;
    let retry = unnamed.spec.get_or_insert_default().retry.get_or_insert_default();
    retry.escalate = vec!["agent/".to_owned()];
    assert!(tasks::create(client, unnamed).await.is_err());
    Ok(())
}

/// An agent that does not exist yet is waited for.
#[tokio::test]
async fn task_waits_for_the_agent_that_it_escalates_to() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    named(client, "coder", claude(""), v1::Overrides::Limits).await?;
    let mut coder = RawWorker::join(client, raw::hello("coder", "c", 1)).await?;
    let name = tasks::create(client, to_senior()).await?.name;
    for _ in 0..2 {
        fail(&mut coder, FailureClass::Agent, 1).await?;
    }
    let missing = |status: &v1::TaskStatus| {
        status
            .waiting
            .iter()
            .any(|one| one.reason() == v1::WaitReason::AgentMissing && one.subject == "senior")
    };
    tasks::until(client, &name, missing).await?;
    named(client, "senior", claude(""), v1::Overrides::Limits).await?;
    let mut senior = RawWorker::join(client, raw::hello("senior", "s", 1)).await?;
    assert!(name.ends_with(&senior.take().await?.task_id));
    Ok(())
}
