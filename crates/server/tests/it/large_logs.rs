//! Logs and lists that exceed the largest message: they are read in pages.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use futures::StreamExt;
use prost::Message;
use rota_proto::v1;
use rota_proto::worker::v1::Assign;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, history, tasks};

const PARENT: &str = "namespaces/default";
const OUTPUT_SIZE: usize = 64 << 10;
/// A page of a log, one more entry, and the task.
const MAX_MESSAGE: usize = (256 << 10) + 2 * OUTPUT_SIZE;

/// Entries of each report, which fill a message of a session.
const OUTPUTS: i64 = 25;

/// A task that runs, with a large log.
struct Reported {
    cluster: Cluster,
    worker: RawWorker,
    task: v1::Task,
    assign: Assign,
}

impl Reported {
    async fn new(reports: i64) -> Result<Self> {
        let cluster = Cluster::start(Backend::Sqlite).await?;
        let client = cluster.client();
        tasks::agent(client, "echo", tasks::script([]), &[]).await?;
        let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
        let task = tasks::create(client, tasks::task("echo")).await?;
        let assign = worker.take().await?;
        for report in 0..reports {
            worker.report(&assign, 1 + report * OUTPUTS, outputs(usize::try_from(OUTPUTS)?));
        }
        Ok(Self { cluster, worker, task, assign })
    }
}

fn outputs(count: usize) -> Vec<v1::Event> {
    let text = "x".repeat(OUTPUT_SIZE);
    (0..count).map(|_| raw::output(&text)).collect()
}

#[tokio::test]
async fn large_log_is_read_from_start() -> Result<()> {
    const REPORTS: i64 = 24;
    let Reported { cluster, mut worker, task, assign } = Reported::new(REPORTS).await?;
    let client = cluster.client();
    worker.succeed(&assign, REPORTS * OUTPUTS, "done");
    assert!(worker.result_ack().await?);
    let last = tasks::ended(client, &task.name).await?.status.unwrap().log_seq;
    assert!(last > REPORTS * OUTPUTS);
    let mut seen = Vec::new();
    let mut watch = client.watch_task(&task.name, 0);
    while let Some(update) = watch.next().await {
        let update = update?;
        assert!(update.encoded_len() <= MAX_MESSAGE);
        seen.extend(update.events.iter().map(|event| event.log_seq));
    }
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn large_log_is_searched_in_pieces() -> Result<()> {
    const REPORTS: i64 = 12;
    let Reported { cluster, mut worker, task, assign } = Reported::new(REPORTS).await?;
    let client = cluster.client();
    let found = vec![raw::output("\nthe nee"), raw::output("dle\n"), raw::output("needles\n")];
    worker.report(&assign, 1 + REPORTS * OUTPUTS, found);
    worker.succeed(&assign, REPORTS * OUTPUTS + 3, "done");
    assert!(worker.result_ack().await?);
    tasks::ended(client, &task.name).await?;
    let (mut hits, mut calls, mut after_log_seq) = (Vec::new(), 0, 0);
    loop {
        let request = v1::SearchTaskLogRequest {
            name: task.name.clone(),
            text: "Needle".to_owned(),
            after_log_seq,
            page_size: 1,
        };
        let answer = client.search_task_log(request).await?;
        assert!(answer.hits.len() <= 1);
        hits.extend(answer.hits);
        calls += 1;
        if answer.next_log_seq == 0 {
            break;
        }
        assert!(answer.next_log_seq > after_log_seq, "each call gets on");
        after_log_seq = answer.next_log_seq;
    }
    assert!(calls > 1);
    let lines: Vec<_> = hits.iter().map(|hit| hit.line.as_str()).collect();
    assert_eq!(lines, ["the needle", "needles"]);
    // The entry is the one in which the text ends.
    let mut watch = client.watch_task(&task.name, hits[0].log_seq - 1);
    let entry = watch.next().await.context("nothing came")??.events.into_iter().next();
    let Some(v1::event::Kind::Output(output)) = entry.and_then(|entry| entry.kind) else {
        anyhow::bail!("no output");
    };
    assert_eq!(&output.data[..], b"dle\n");
    Ok(())
}

#[tokio::test]
async fn large_log_is_downloaded_in_parts() -> Result<()> {
    let Reported { cluster, mut worker, task, assign } = Reported::new(4).await?;
    let client = cluster.client();
    worker.succeed(&assign, 4 * OUTPUTS, "done");
    assert!(worker.result_ack().await?);
    tasks::ended(client, &task.name).await?;
    let request = v1::DownloadTaskLogRequest { name: task.name.clone() };
    let mut parts = client.tasks().download_task_log(request).await?.into_inner();
    let (mut text, mut count) = (Vec::new(), 0);
    while let Some(part) = parts.message().await? {
        assert!(part.data.len() <= MAX_MESSAGE, "{}", part.data.len());
        text.extend_from_slice(&part.data);
        count += 1;
    }
    assert!(count > 1);
    let written = text.iter().filter(|byte| **byte == b'x').count();
    assert!(written >= 100 * OUTPUT_SIZE, "{written}");
    // Over HTTP it is a file.
    let url = format!("http://{}/api/v1/{}:downloadLog", cluster.addr(), task.name);
    let answer = reqwest::Client::builder().no_proxy().build()?.get(&url).send().await?;
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(answer.headers()["content-disposition"], "attachment");
    assert_eq!(answer.bytes().await?, text);
    Ok(())
}

#[tokio::test]
async fn large_commit_is_split_in_feed() -> Result<()> {
    // Many messages, one commit, of which a worker may send at most 2 MiB at a time.
    const OUTPUTS: usize = 30;
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut live = client.watch_tasks(PARENT, "", false);
    let start = live.next().await.context("nothing came")??.token;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    worker.report(&assign, 1, outputs(OUTPUTS));
    worker.succeed(&assign, i64::try_from(OUTPUTS)?, "done");
    let last = tasks::ended(client, &task.name).await?.status.unwrap().log_seq;
    let wanted = (1..=last).collect::<Vec<_>>();
    let from_store = client.watch_tasks(PARENT, start, false);
    for mut watch in [live, from_store] {
        let (mut seen, mut tokens) = (Vec::new(), Vec::new());
        while seen.last() != Some(&last) {
            let answer = watch.next().await.context("it ended")??;
            assert!(answer.encoded_len() <= MAX_MESSAGE && !answer.resync);
            seen.extend(answer.events.iter().map(|event| event.log_seq));
            tokens.push((answer.token, seen.len()));
        }
        assert_eq!(seen, wanted);
        // Every token resumes without a gap, also those within the commit.
        for (token, delivered) in tokens {
            if delivered == seen.len() {
                continue;
            }
            let mut rest = client.watch_tasks(PARENT, token, false);
            let mut first = None;
            while first.is_none() {
                let answer = rest.next().await.context("it ended")??;
                first = answer.events.first().map(|event| event.log_seq);
            }
            let next = i64::try_from(delivered)? + 1;
            assert!(first.is_some_and(|first| first <= next), "{first:?} after {delivered}");
        }
    }
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn list_of_large_tasks_is_paged() -> Result<()> {
    const BATCHES: usize = 3;
    const TASKS: usize = 180;
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    // 32 KiB of labels each, more than 16 MiB together.
    let labels: BTreeMap<_, _> = (0..64).map(|index| (format!("{index:0>256}"), "v".repeat(256))).collect();
    let request = |_| v1::CreateTaskRequest {
        task: Some(v1::Task { labels: labels.clone(), ..tasks::task("echo") }),
        ..Default::default()
    };
    for _ in 0..BATCHES {
        let requests = (0..TASKS).map(request).collect();
        let batch = v1::BatchCreateTasksRequest { parent: PARENT.into(), requests, ..Default::default() };
        let made = client.batch_create_tasks(batch).await?.results;
        let is_task = |kind| matches!(kind, Some(v1::batch_create_tasks_result::Kind::Task(_)));
        assert!(made.into_iter().all(|result| is_task(result.kind)));
    }
    let mut request = v1::ListTasksRequest { parent: PARENT.into(), page_size: 1000, ..Default::default() };
    let (mut names, mut pages) = (Vec::new(), 0);
    loop {
        let page = client.list_tasks(request.clone()).await?;
        assert!(page.encoded_len() <= (4 << 20) + MAX_MESSAGE && !page.tasks.is_empty());
        pages += 1;
        names.extend(page.tasks.into_iter().map(|task| task.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!((names.len(), pages), (BATCHES * TASKS, 5));
    // Newest first, each once.
    assert!(names.windows(2).all(|two| two[0] > two[1]));
    Ok(())
}
