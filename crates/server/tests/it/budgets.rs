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
    // The third attempt is never sent.
    let spent = ended(80).await?;
    let failure = spent.failure.unwrap();
    assert_eq!(failure.class(), FailureClass::Budget, "{failure:?}");
    assert!(failure.message.contains("80 of 80") && failure.hint.contains("budgetUsd"), "{failure:?}");
    assert_eq!(spent.usage.unwrap().cost_micro_usd, 80);
    Ok(())
}
