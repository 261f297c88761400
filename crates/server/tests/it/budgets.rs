//! The budget of a task, which is that of all its attempts.

use anyhow::Result;
use rota_proto::v1::{self, FailureClass, TaskState};
use rota_testkit::{Backend, Cluster, tasks};
use v1::script_step::Kind as Step;

/// Returns a task whose first two attempts fail after they have cost 40 millionths of a dollar each.
fn task(budget: i64) -> v1::Task {
    let used = v1::ScriptUsage { cost_micro_usd: 40, ..Default::default() };
    let crash = v1::ScriptFailure { class: "crash".into(), attempts: 2, ..Default::default() };
    let mut task = tasks::task("spender");
    let spec = task.spec.get_or_insert_default();
    spec.runtime = Some(tasks::script([Step::Usage(used), Step::Fail(crash)]));
    spec.limits = Some(v1::Limits { budget_micro_usd: budget, ..Default::default() });
    spec.retry = Some(v1::RetryPolicy { initial_backoff: Some(tasks::millis(1)), ..Default::default() });
    task
}

#[tokio::test]
async fn attempts_share_the_budget_of_their_task() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "spender", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("spender", "one", 1)?;
    let ended = async |budget| -> Result<_> {
        let name = tasks::create(client, task(budget)).await?.name;
        Ok(tasks::ended(client, &name).await?.status.unwrap())
    };
    let enough = ended(81).await?;
    assert_eq!((enough.state(), enough.attempt), (TaskState::Succeeded, 3), "{enough:?}");
    // There is no third attempt.
    let spent = ended(80).await?;
    let failure = spent.failure.unwrap();
    assert_eq!(failure.class(), FailureClass::Budget, "{failure:?}");
    assert!(
        failure.message.contains("$0.00008 of $0.00008") && failure.hint.contains("budgetUsd"),
        "{failure:?}"
    );
    assert_eq!(spent.usage.unwrap().cost_micro_usd, 80);
    Ok(())
}

/// A running attempt is stopped by its report, whatever its runtime.
#[tokio::test]
async fn spent_budget_stops_a_running_attempt() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "spender", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("spender", "one", 1)?;
    let used = |cost_micro_usd| Step::Usage(v1::ScriptUsage { cost_micro_usd, ..Default::default() });
    let hour = Step::Delay(tasks::millis(3_600_000));
    let mut task = tasks::scripted("spender", [used(10), used(99), used(101), hour, used(500)]);
    let spec = task.spec.get_or_insert_default();
    spec.limits = Some(v1::Limits { budget_micro_usd: 100, ..Default::default() });
    let name = tasks::create(client, task).await?.name;
    let status = tasks::ended(client, &name).await?.status.unwrap();
    let failure = status.failure.clone().unwrap();
    assert_eq!((status.state(), failure.class()), (TaskState::Failed, FailureClass::Budget), "{failure:?}");
    assert_eq!((status.attempt, status.usage.unwrap().cost_micro_usd), (1, 101));
    assert_eq!(
        tasks::notices(&tasks::log(client, &name).await?),
        ["task_budget_nearly_spent", "budget_reached"]
    );
    Ok(())
}

/// An agent's default is the budget of its tasks too.
#[tokio::test]
async fn default_budget_of_agent_stops_a_running_attempt() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let used = Step::Usage(v1::ScriptUsage { cost_micro_usd: 100, ..Default::default() });
    let spec = v1::AgentSpec {
        runtime: Some(tasks::script([used, Step::Delay(tasks::millis(3_600_000))])),
        default_limits: Some(v1::Limits { budget_micro_usd: 100, ..Default::default() }),
        ..Default::default()
    };
    let agent = v1::Agent {
        name: "namespaces/default/agents/spender".into(),
        spec: Some(spec),
        ..Default::default()
    };
    let request = v1::UpdateAgentRequest { agent: Some(agent), allow_missing: true, ..Default::default() };
    client.update_agent(request).await?;
    let _worker = cluster.worker("spender", "one", 1)?;
    let name = tasks::create(client, tasks::task("spender")).await?.name;
    let status = tasks::ended(client, &name).await?.status.unwrap();
    assert_eq!(status.failure.unwrap().class(), FailureClass::Budget);
    Ok(())
}
