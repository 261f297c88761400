//! Many tasks with random failures, while a worker and the control plane are killed.

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rota_proto::v1::{self, ScriptFailure, TaskState, script_step::Kind as Step};
use rota_testkit::client::Client;
use rota_testkit::{Backend, Cluster, history, output, tasks};

const TASKS: usize = 200;

fn random_task(random: &mut StdRng) -> v1::Task {
    let class = ["agent", "crash", "hang", "overload", "protocol", "refusal"][random.random_range(0..6)];
    let failure = |share: f64| {
        let fail = ScriptFailure { class: class.to_owned(), probability: Some(share), ..Default::default() };
        Step::Fail(fail)
    };
    let mut steps = vec![Step::Progress(0.1), output::line(1, 4)];
    steps.push(Step::Jitter(tasks::millis(random.random_range(0..30))));
    steps.push(failure(random.random_range(0.0..0.6)));
    steps.extend([output::line(2, 4), Step::Message("half".into())]);
    steps.push(Step::Delay(tasks::millis(random.random_range(0..10))));
    steps.extend([output::line(3, 4), failure(random.random_range(0.0..0.3))]);
    steps.extend([output::line(4, 4), Step::Succeed("done".into())]);
    let mut task = tasks::scripted("echo", steps);
    task.priority = Some(random.random_range(0..=10));
    let spec = task.spec.get_or_insert_default();
    if let Some(v1::runtime::Kind::Scripted(script)) =
        spec.runtime.as_mut().and_then(|runtime| runtime.kind.as_mut())
    {
        script.seed = random.random_range(1..u64::MAX);
    }
    // Some are programs: only these can print their fence.
    if random.random_bool(0.1) {
        let shell = format!("{}; [ $ROTA_ATTEMPT -ge {} ]", output::shell(30), random.random_range(1..4));
        let kind = v1::runtime::Kind::Command(v1::CommandRuntime { shell, ..Default::default() });
        spec.runtime = Some(v1::Runtime { kind: Some(kind) });
    }
    spec.retry = Some(v1::RetryPolicy {
        max_attempts: random.random_range(1..6),
        max_worker_losses: Some(10),
        initial_backoff: Some(tasks::millis(random.random_range(0..20))),
        max_backoff: Some(tasks::millis(50)),
        escalate: Vec::new(),
    });
    task
}

async fn count_ended(client: &Client) -> Result<usize> {
    let states = [TaskState::Succeeded, TaskState::Failed, TaskState::Cancelled].map(i32::from).to_vec();
    let filter = Some(v1::TaskFilter { states, ..Default::default() });
    let parent = rota_proto::names::namespace(tasks::NAMESPACE);
    Ok(client.all_tasks(v1::ListTasksRequest { parent, filter, ..Default::default() }, None).await?.len())
}

async fn run_chaos(seed: u64) -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    let mut random = StdRng::seed_from_u64(seed);
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let doomed = cluster.worker("echo", "doomed", 6)?;
    let _steady = cluster.worker("echo", "steady", 6)?;
    let requests = (0..TASKS)
        .map(|_| v1::CreateTaskRequest { task: Some(random_task(&mut random)), ..Default::default() });
    let parent = rota_proto::names::namespace(tasks::NAMESPACE);
    let batch = v1::BatchCreateTasksRequest { parent, requests: requests.collect(), ..Default::default() };
    let made = client.batch_create_tasks(batch).await?.results;
    let mut names = Vec::new();
    for result in made {
        match result.kind {
            Some(v1::batch_create_tasks_result::Kind::Task(task)) => names.push(task.name),
            other => anyhow::bail!("not made: {other:?}"),
        }
    }
    tasks::eventually("the first quarter", async || Ok(count_ended(&client).await? >= TASKS / 4)).await?;
    doomed.kill().await;
    let _late = cluster.worker("echo", "late", 6)?;
    tasks::eventually("the first half", async || Ok(count_ended(&client).await? >= TASKS / 2)).await?;
    cluster.kill().await;
    cluster.restart().await?;
    for name in &names {
        tasks::ended(&client, name).await?;
    }
    let found = history::check(&client, true).await?;
    assert_eq!(found.states.values().sum::<usize>(), TASKS);
    assert!(found.attempts > TASKS, "{found:?}");
    found.check()?;
    // No slot was leaked. The last result is published just before its slot is free.
    tasks::eventually("all slots free", async || {
        let request = v1::GetAgentRequest { name: rota_proto::names::agent("default", "echo") };
        let status = client.get_agent(request).await?.status.unwrap();
        Ok((status.workers, status.free_slots, status.queued_tasks) == (2, 12, 0))
    })
    .await?;
    for worker in tasks::workers(&client).await?.iter().filter(|worker| worker.connected) {
        assert!(worker.tasks.is_empty(), "{worker:?}");
    }
    Ok(())
}

#[tokio::test]
async fn every_task_ends_once() -> Result<()> {
    run_chaos(7).await
}

#[tokio::test]
async fn every_task_ends_once_with_another_seed() -> Result<()> {
    run_chaos(1984).await
}
