//! Budgets of agents and namespaces, per day and month.

use anyhow::{Context, Result};
use rota_proto::v1::{self, TaskState, WaitReason};
use rota_proto::worker::v1::{self as wire, Assign, session_request, session_response};
use rota_testkit::client::Client;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, tasks};
use tonic::Code;

const AGENT: &str = "namespaces/default/agents/coder";
const DAY_SECONDS: i64 = 24 * 3600;

fn daily(micro_usd: i64) -> v1::Budget {
    v1::Budget { daily_micro_usd: micro_usd, ..Default::default() }
}

async fn limit(client: &Client, budget: v1::Budget) -> Result<()> {
    let spec = v1::AgentSpec { runtime: Some(tasks::script([])), budget: Some(budget), ..Default::default() };
    let agent = v1::Agent { name: AGENT.into(), spec: Some(spec), ..Default::default() };
    let request = v1::UpdateAgentRequest { agent: Some(agent), allow_missing: true, ..Default::default() };
    client.update_agent(request).await?;
    Ok(())
}

async fn limit_namespace(client: &Client, budget: Option<v1::Budget>) -> Result<v1::BudgetStatus> {
    let name = "namespaces/default".to_owned();
    let set = client
        .set_namespace_budget(v1::SetNamespaceBudgetRequest { name, budget, ..Default::default() })
        .await?;
    Ok(set.status.unwrap_or_default())
}

async fn create(client: &Client) -> Result<String> {
    Ok(tasks::create(client, tasks::task("coder")).await?.name)
}

fn used(micro_usd: i64) -> v1::Event {
    let usage = v1::Usage { cost_micro_usd: micro_usd, ..Default::default() };
    v1::Event { kind: Some(v1::event::Kind::Usage(usage)), ..Default::default() }
}

/// Ends an attempt that has cost something.
async fn end(worker: &mut RawWorker, assign: &Assign, micro_usd: i64) -> Result<()> {
    worker.report(assign, 1, vec![used(micro_usd)]);
    worker.succeed(assign, 1, "done");
    anyhow::ensure!(worker.result_ack().await?, "the result was not accepted");
    Ok(())
}

async fn status(client: &Client) -> Result<v1::AgentStatus> {
    let request = v1::GetAgentRequest { name: AGENT.to_owned() };
    client.get_agent(request).await?.status.context("no status")
}

async fn waiting(client: &Client, name: &str) -> Result<v1::Wait> {
    let waits = |status: &v1::TaskStatus| status.waiting.iter().any(|one| one.reason() == WaitReason::Budget);
    let task = tasks::until(client, name, waits).await?;
    Ok(task.status.context("no status")?.waiting.remove(0))
}

#[tokio::test]
async fn tasks_wait_for_the_budget_of_their_agent() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    limit(&client, daily(100)).await?;
    let mut worker = RawWorker::join(&client, raw::hello("coder", "w", 2)).await?;
    create(&client).await?;
    let assign = worker.take().await?;
    end(&mut worker, &assign, 60).await?;
    let name = create(&client).await?;
    let wait = waiting(&client, &name).await?;
    assert_eq!(wait.subject, "the daily budget of agent coder");
    let until = wait.until.context("no end")?.seconds;
    assert_eq!(until % DAY_SECONDS, 0, "a day of UTC ends");
    let explained = client.explain_task(v1::ExplainTaskRequest { name: name.clone() }).await?;
    assert_eq!(explained.causes[0].code, "budget_spent", "{explained:?}");
    let known = status(&client).await?.budget.context("no budget")?;
    assert_eq!((known.spent_today_micro_usd, known.usual_micro_usd, known.reserved_micro_usd), (60, 60, 0));
    assert_eq!(known.exhausted_until.map(|until| until.seconds), Some(until));
    // A control plane that is killed forgets neither.
    cluster.kill().await;
    cluster.restart().await?;
    let mut worker = RawWorker::join(&client, raw::hello("coder", "w", 2)).await?;
    waiting(&client, &name).await?;
    assert_eq!(status(&client).await?.budget.context("no budget")?.spent_today_micro_usd, 60);
    // More money wakes the queue.
    limit(&client, daily(1000)).await?;
    let assign = worker.take().await?;
    assert!(name.ends_with(&assign.task_id));
    let known = status(&client).await?.budget.context("no budget")?;
    assert_eq!((known.reserved_micro_usd, known.exhausted_until), (60, None));
    end(&mut worker, &assign, 10).await?;
    // The status of the agent follows the commits.
    tasks::eventually("the spending of both attempts", async || {
        Ok(status(&client).await?.budget.context("no budget")?.spent_today_micro_usd == 70)
    })
    .await
}

#[tokio::test]
async fn reached_limit_stops_attempts_of_all_agents() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "coder", tasks::script([]), &[]).await?;
    tasks::agent(client, "other", tasks::script([]), &[]).await?;
    limit_namespace(client, Some(daily(100))).await?;
    let mut coder = RawWorker::join(client, raw::hello("coder", "w", 1)).await?;
    let mut other = RawWorker::join(client, raw::hello("other", "v", 1)).await?;
    let names = [create(client).await?, tasks::create(client, tasks::task("other")).await?.name];
    let assigned = [coder.take().await?, other.take().await?];
    for turn in 1..=17 {
        coder.report(&assigned[0], turn, vec![used(5 * turn)]);
    }
    let nearly =
        async || Ok(tasks::notices(&tasks::log(client, &names[0]).await?) == ["budget_nearly_spent"]);
    tasks::eventually("a warning", nearly).await?;
    other.report(&assigned[1], 1, vec![used(15)]);
    for (worker, assign) in [(&mut coder, &assigned[0]), (&mut other, &assigned[1])] {
        let cancel = async {
            loop {
                if let session_response::Kind::Cancel(cancel) = worker.receive().await? {
                    return anyhow::Ok(cancel);
                }
            }
        };
        let cancel = cancel.await?;
        assert!(cancel.reason.contains("$0.0001 of $0.0001"), "{cancel:?}");
        worker.send(session_request::Kind::Result(Box::new(wire::Result {
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            kind: Some(wire::result::Kind::Cancelled(wire::Cancelled { by: "interrupt".to_owned() })),
            ..Default::default()
        })));
    }
    for name in &names {
        let wait = waiting(client, name).await?;
        assert_eq!(wait.subject, "the daily budget of the namespace");
        let status = tasks::get(client, name).await?.status.context("no status")?;
        assert_eq!((status.state(), status.attempt), (TaskState::Pending, 1));
    }
    // Without the budget both continue.
    limit_namespace(client, None).await?;
    let assign = coder.take().await?;
    end(&mut coder, &assign, 1).await?;
    let assign = other.take().await?;
    end(&mut other, &assign, 1).await?;
    for name in &names {
        let status = tasks::ended(client, name).await?.status.context("no status")?;
        assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2));
    }
    Ok(())
}

#[tokio::test]
async fn exhausted_budget_of_a_namespace_refuses_tasks() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "coder", tasks::script([]), &[]).await?;
    let budget = v1::Budget { when_exhausted: v1::WhenExhausted::Refuse.into(), ..daily(50) };
    let set = limit_namespace(client, Some(budget)).await?;
    assert_eq!((set.name.as_str(), set.budget), ("namespaces/default", Some(budget)));
    let mut worker = RawWorker::join(client, raw::hello("coder", "w", 1)).await?;
    create(client).await?;
    let assign = worker.take().await?;
    end(&mut worker, &assign, 50).await?;
    let request = v1::CreateTaskRequest {
        parent: "namespaces/default".into(),
        task: Some(tasks::task("coder")),
        ..Default::default()
    };
    let refused = client.tasks().create_task(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(refused.message(), "the daily budget of the namespace is spent");
    // Lists follow the commits, the refusal is of the store.
    tasks::eventually("both budgets are listed with what was spent", || async {
        let request = v1::ListBudgetsRequest { parent: "namespaces/-".into(), ..Default::default() };
        let listed = client.list_budgets(request).await?.budgets;
        let spent = listed.iter().map(|one| (one.name.as_str(), one.spent_this_month_micro_usd));
        Ok(spent.eq([("namespaces/default", 50), (AGENT, 50)]))
    })
    .await?;
    let negative = limit_namespace(client, Some(daily(-1))).await;
    assert!(negative.is_err());
    limit_namespace(client, None).await?;
    create(client).await?;
    Ok(())
}

/// Workers of an agent without money leave tasks for any agent to others.
#[tokio::test]
async fn tasks_for_any_agent_go_to_one_with_money() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    for (agent, budget) in [("coder", Some(daily(10))), ("other", None)] {
        let spec = v1::AgentSpec {
            runtime: Some(tasks::script([])),
            capabilities: vec!["code".to_owned()],
            budget,
            ..Default::default()
        };
        let name = format!("namespaces/default/agents/{agent}");
        let agent = v1::Agent { name, spec: Some(spec), ..Default::default() };
        let request =
            v1::UpdateAgentRequest { agent: Some(agent), allow_missing: true, ..Default::default() };
        client.update_agent(request).await?;
    }
    let mut poor = RawWorker::join(client, raw::hello("coder", "poor", 1)).await?;
    create(client).await?;
    let assign = poor.take().await?;
    end(&mut poor, &assign, 10).await?;
    let mut task = tasks::task("coder");
    let words = v1::CapabilitySet { capabilities: vec!["code".to_owned()] };
    let target = v1::Target { kind: Some(v1::target::Kind::Capabilities(words)) };
    task.spec.get_or_insert_default().target = Some(target);
    let name = tasks::create(client, task).await?.name;
    let mut other = RawWorker::join(client, raw::hello("other", "rich", 1)).await?;
    let assign = other.take().await?;
    assert!(name.ends_with(&assign.task_id));
    end(&mut other, &assign, 10).await?;
    Ok(())
}

#[tokio::test]
async fn wrong_report_spoils_no_month() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client().clone();
    limit(&client, v1::Budget::default()).await?;
    let monthly = v1::Budget { monthly_micro_usd: 900_000_000, ..Default::default() };
    limit_namespace(&client, Some(monthly)).await?;
    let mut worker = RawWorker::join(&client, raw::hello("coder", "w", 2)).await?;
    let mut task = tasks::task("coder");
    task.spec.get_or_insert_default().limits.get_or_insert_default().budget_micro_usd = 20_000_000;
    tasks::create(&client, task).await?;
    let assign = worker.take().await?;
    end(&mut worker, &assign, i64::MAX).await?;
    let name = "namespaces/default".to_owned();
    // Lists follow the commits.
    tasks::eventually("both budgets are listed with a bounded report", async || {
        let listed = client.all_budgets(&name).await?;
        Ok(listed.len() == 2 && listed.iter().all(|one| one.spent_today_micro_usd == 200_000_000))
    })
    .await?;
    // The namespace has money left. One without a budget of its own may spend it all, and the books can be corrected.
    create(&client).await?;
    let assign = worker.take().await?;
    end(&mut worker, &assign, i64::MAX).await?;
    let waits = create(&client).await?;
    waiting(&client, &waits).await?;
    let correct = |name: &str, today, month| v1::CorrectSpendingRequest {
        name: name.to_owned(),
        spent_today_micro_usd: today,
        spent_this_month_micro_usd: month,
    };
    for (request, code) in [
        (correct(&name, None, None), Code::InvalidArgument),
        (correct(&name, Some(-1), None), Code::InvalidArgument),
        (correct("namespaces/default/agents/none", Some(0), None), Code::NotFound),
    ] {
        let refused = client.correct_spending(request).await.unwrap_err();
        assert_eq!(refused.code, code, "{refused:?}");
    }
    let corrected = client.correct_spending(correct(AGENT, Some(1), Some(2))).await?.status;
    let corrected = corrected.context("no status")?;
    assert_eq!((corrected.spent_today_micro_usd, corrected.spent_this_month_micro_usd), (1, 2));
    assert_eq!(corrected.usual_micro_usd, 0);
    client.correct_spending(correct(&name, None, Some(3))).await?;
    let assign = worker.take().await?;
    assert!(waits.ends_with(&assign.task_id), "the task continues");
    Ok(())
}
