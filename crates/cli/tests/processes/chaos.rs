//! Many tasks that fail at random while a worker and the control plane are killed.

use std::collections::BTreeSet;

use anyhow::Result;
use rota_client::Client;
use rota_proto::v1::{self, ScriptFailure, TaskState, script_step::Kind as Step};
use rota_testkit::{history, tasks};

use crate::process::Process;
use crate::{Fixture, Graces, procfs};

const TASKS: u64 = 200;

/// Returns a task that depends only on a number.
fn task(number: u64) -> v1::Task {
    let class = ["agent", "crash", "hang", "overload", "protocol", "refusal"][number as usize % 6];
    let failure = |share: u64| {
        let probability = Some(share as f64 / 10.0);
        Step::Fail(ScriptFailure { class: class.to_owned(), probability, ..Default::default() })
    };
    let mut steps = vec![Step::Progress(0.1), Step::Output("began".into()), Step::Jitter(tasks::millis(80))];
    match number % 20 {
        0 => steps.push(Step::SpawnOrphan(true)),
        10 => steps.push(Step::Crash(9)),
        _ => {}
    }
    steps.extend([failure(number % 7), Step::Message("half".into()), failure(number % 3)]);
    steps.push(Step::Succeed("done".into()));
    let mut task = tasks::scripted("echo", steps);
    task.priority = Some((number % 11) as i32);
    let spec = task.spec.get_or_insert_default();
    if let Some(v1::runtime::Kind::Scripted(script)) =
        spec.runtime.as_mut().and_then(|runtime| runtime.kind.as_mut())
    {
        script.seed = 1 + number * 7919;
    }
    spec.retry = Some(v1::RetryPolicy {
        max_attempts: 1 + (number % 5) as i32,
        max_worker_losses: Some(10),
        initial_backoff: Some(tasks::millis(10)),
        max_backoff: Some(tasks::millis(50)),
    });
    task
}

async fn in_states(client: &Client, states: &[TaskState]) -> Result<usize> {
    let states = states.iter().map(|state| i32::from(*state)).collect();
    let filter = Some(v1::TaskFilter { states, ..Default::default() });
    let parent = rota_proto::names::namespace(tasks::NAMESPACE);
    Ok(client.all_tasks(v1::ListTasksRequest { parent, filter, ..Default::default() }, None).await?.len())
}

async fn ended(client: &Client, at_least: u64) -> Result<()> {
    let finals = [TaskState::Succeeded, TaskState::Failed, TaskState::Cancelled];
    tasks::eventually(&format!("{at_least} ends"), async || {
        Ok(in_states(client, &finals).await? as u64 >= at_least)
    })
    .await
}

#[tokio::test]
async fn all_tasks_finish_exactly_once() -> Result<()> {
    let mut fixture = Fixture::start(Graces::SHORT).await?;
    let client = fixture.client()?;
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let doomed = fixture.worker("echo", "doomed", 4).await?;
    let steady = fixture.worker("echo", "steady", 4).await?;
    let one = |number| v1::CreateTaskRequest { task: Some(task(number)), ..Default::default() };
    let parent = rota_proto::names::namespace(tasks::NAMESPACE);
    let batch =
        v1::BatchCreateTasksRequest { parent, requests: (0..TASKS).map(one).collect(), ..Default::default() };
    let made = client.batch_create_tasks(batch).await?.results;
    let made = made.into_iter().filter_map(|result| match result.kind {
        Some(v1::batch_create_tasks_result::Kind::Task(task)) => Some(task.name),
        _ => None,
    });
    let names: Vec<_> = made.collect();
    assert_eq!(names.len() as u64, TASKS);

    ended(&client, TASKS / 4).await?;
    doomed.kill().await;
    let late = fixture.worker("echo", "late", 4).await?;
    ended(&client, TASKS / 2).await?;
    fixture.kill_server().await;
    fixture.start_server().await?;
    for name in &names {
        tasks::ended(&client, name).await?;
    }
    let found = history::check(&client, true).await?;
    assert_eq!(found.states.values().sum::<usize>() as u64, TASKS);
    assert!(found.attempts as u64 > TASKS, "{found:?}");
    found.check()?;
    // No process is left, whichever process started it.
    let mine: BTreeSet<_> = [fixture.server(), &steady, &late].into_iter().map(Process::pid).collect();
    tasks::eventually("the end of all processes", async || {
        Ok(procfs::marked(fixture.mark()).iter().all(|one| mine.contains(&one.pid)))
    })
    .await
}
