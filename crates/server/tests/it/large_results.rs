//! Results of dependencies that one message could not carry: the worker fetches them.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use rota_proto::v1::{self, OnDependencyFailure as Policy, TaskState};
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_proto::worker::v1::{Assign, FetchPreviousResultRequest, Hello, Result as AttemptResult, result};
use rota_testkit::client::Client;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, history, tasks};
use tonic::{Code, Status};

const COUNT: usize = 20;
/// The longest text of a result; with its envelope, more than an assignment carries.
const SIZE: usize = 256 << 10;

/// Time for a worker to fetch, write and pass on 256 MiB while other tests run.
const FULL_FAN_IN_TIMEOUT: Duration = Duration::from_secs(300);

/// Creates tasks with large results, and a task that needs these; returns the assignment of the last.
async fn fan_in(client: &Client, worker: &mut RawWorker) -> Result<Assign> {
    create_fan_in(client, worker).await?;
    worker.take().await
}

async fn create_fan_in(client: &Client, worker: &mut RawWorker) -> Result<()> {
    let mut last = tasks::task("echo");
    for number in 0..COUNT {
        let mut task = tasks::task("echo");
        task.alias = format!("part-{number}");
        tasks::create(client, task).await?;
        let assign = worker.take().await?;
        let text = format!("{number} {}", "x".repeat(if number == 0 { 10 } else { SIZE }));
        worker.succeed(&assign, 0, &text);
        assert!(worker.result_ack().await?);
        let dependency = v1::Dependency { task: format!("part-{number}"), on_failure: Policy::Fail.into() };
        last.spec.get_or_insert_default().depends_on.push(dependency);
    }
    last.alias = "last".to_owned();
    tasks::create(client, last).await?;
    Ok(())
}

async fn fetch(client: &Client, request: &FetchPreviousResultRequest) -> Result<String, Status> {
    let mut workers = client.workers().max_decoding_message_size(64 << 20);
    Ok(workers.fetch_previous_result(request.clone()).await?.into_inner().result.unwrap_or_default().text)
}

#[tokio::test]
async fn large_results_reach_their_dependent() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        tasks::agent(client, "echo", tasks::script([]), &[]).await?;
        let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
        let assign = fan_in(client, &mut worker).await?;
        assert!(assign.encoded_len() < 10 << 10, "{} bytes", assign.encoded_len());
        assert_eq!(assign.previous.len(), COUNT);
        let small = assign.previous.iter().find(|previous| previous.alias == "part-0").context("absent")?;
        assert!(!small.omitted && small.result.as_ref().is_some_and(|result| result.text.starts_with("0 ")));
        for previous in assign.previous.iter().filter(|previous| previous.alias != "part-0") {
            assert!(previous.omitted && previous.result.is_none());
            let request = FetchPreviousResultRequest {
                namespace: "default".to_owned(),
                worker: "hand".to_owned(),
                task_id: assign.task_id.clone(),
                fence: assign.fence,
                previous_task_id: previous.task_id.clone(),
            };
            let text = fetch(client, &request).await?;
            let number = previous.alias.trim_start_matches("part-");
            assert!(text.starts_with(&format!("{number} x")) && text.len() == SIZE);
        }
        // The session lives.
        worker.succeed(&assign, 0, "joined");
        assert!(worker.result_ack().await?);
        tasks::until_state(client, "namespaces/default/tasks/last", TaskState::Succeeded).await?;
        history::check(client, true).await?.check()?;
    }
    Ok(())
}

/// As many dependencies as a task may have, with results as large as they may be, over the real protocol of both sides.
#[tokio::test]
async fn full_fan_in_runs_on_a_worker() -> Result<()> {
    const PARTS: usize = 256;
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let data = (0..768).map(|number| (format!("k{number}"), "d".repeat(1000).into())).collect();
    let result = v1::TaskResult {
        text: "x".repeat((256 << 10) - 16),
        data: Some(pbjson_types::Struct { fields: data }),
        ..Default::default()
    };
    ensure!(result.encoded_len() > 1_000_000 && result.encoded_len() <= 1 << 20, "{}", result.encoded_len());
    // Counts what has arrived: names of the dependencies, and bytes.
    let shell =
        "cd $ROTA_CONTEXT; grep -c '\"alias\": \"part-' previous_results.json; wc -c < previous_results.json";
    let command = v1::CommandRuntime { shell: shell.to_owned(), ..Default::default() };
    let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) };
    tasks::agent(client, "join", runtime, &[]).await?;
    let mut last = tasks::task("join");
    for number in 0..PARTS {
        let mut task = tasks::task("echo");
        task.alias = format!("part-{number}");
        tasks::create(client, task).await?;
        let assign = worker.take().await?;
        worker.send(Outgoing::Result(Box::new(AttemptResult {
            task_id: assign.task_id,
            fence: assign.fence,
            kind: Some(result::Kind::Succeeded(result.clone())),
            ..AttemptResult::default()
        })));
        assert!(worker.result_ack().await?);
        let dependency = v1::Dependency { task: format!("part-{number}"), on_failure: Policy::Fail.into() };
        last.spec.get_or_insert_default().depends_on.push(dependency);
    }
    let last = tasks::create(client, last).await?.name;
    let _joining = cluster.worker("join", "real", 1)?;
    let ended = tasks::ended_within(FULL_FAN_IN_TIMEOUT, client, &last).await?.status.unwrap_or_default();
    assert_eq!(ended.state(), TaskState::Succeeded, "{ended:?}");
    let text = ended.result.unwrap_or_default().text;
    let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let [parts, bytes] = numbers[..] else { bail!("{text:?}") };
    assert_eq!(parts, PARTS);
    assert!(bytes > PARTS * 1_000_000, "{bytes} bytes");
    Ok(())
}

#[tokio::test]
async fn results_are_only_for_the_attempt_that_needs_them() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let assign = fan_in(client, &mut worker).await?;
    let mut other = tasks::task("echo");
    other.alias = "other".to_owned();
    let other = tasks::create(client, other).await?;
    let previous = &assign.previous[1];
    let right = FetchPreviousResultRequest {
        namespace: "default".to_owned(),
        worker: "hand".to_owned(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        previous_task_id: previous.task_id.clone(),
    };
    assert!(fetch(client, &right).await.is_ok());
    let wrong = [
        FetchPreviousResultRequest { fence: right.fence + 1, ..right.clone() },
        FetchPreviousResultRequest { fence: -1, ..right.clone() },
        FetchPreviousResultRequest { worker: "another".to_owned(), ..right.clone() },
        FetchPreviousResultRequest { namespace: "another".to_owned(), ..right.clone() },
        FetchPreviousResultRequest { previous_task_id: other.uid.clone(), ..right.clone() },
        FetchPreviousResultRequest { task_id: other.uid.clone(), ..right.clone() },
    ];
    for request in wrong {
        assert_eq!(fetch(client, &request).await.unwrap_err().code(), Code::NotFound, "{request:?}");
    }
    let request = FetchPreviousResultRequest { task_id: "nonsense".to_owned(), ..right.clone() };
    assert_eq!(fetch(client, &request).await.unwrap_err().code(), Code::InvalidArgument);
    worker.succeed(&assign, 0, "joined");
    assert!(worker.result_ack().await?);
    assert_eq!(fetch(client, &right).await.unwrap_err().code(), Code::NotFound, "the attempt has ended");
    Ok(())
}

#[tokio::test]
async fn worker_that_cannot_fetch_gets_no_omitted_results() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    // A build from before FetchPreviousResult ignores the field that marks an omitted result.
    let hello = Hello { protocol_version: 1, ..raw::hello("echo", "old", 1) };
    let mut old = RawWorker::join(client, hello).await?;
    create_fan_in(client, &mut old).await?;
    let name = "namespaces/default/tasks/last";
    tasks::eventually("a rejection", async || {
        let request = v1::ExplainTaskRequest { name: name.to_owned() };
        let explanation = client.explain_task(request).await?;
        Ok(explanation.summary.contains("upgrade the worker"))
    })
    .await?;
    // Its slot is free, for tasks whose dependencies have small results.
    tasks::create(client, tasks::task("echo")).await?;
    let assign = old.take().await?;
    assert!(assign.previous.is_empty());
    let mut new = RawWorker::join(client, raw::hello("echo", "new", 1)).await?;
    let assign = new.take().await?;
    assert_eq!((assign.alias.as_str(), assign.attempt), ("last", 1));
    new.succeed(&assign, 0, "joined");
    tasks::until_state(client, name, TaskState::Succeeded).await?;
    Ok(())
}
