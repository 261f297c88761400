//! Exports of tasks: every task once, in both formats, over gRPC and HTTP, also of an export that was interrupted.

use anyhow::Result;
use rota_proto::v1::{self, TaskExportFormat as Format};
use rota_testkit::client::Client;
use rota_testkit::{Backend, Cluster, tasks};

const PARENT: &str = "namespaces/default";
/// More than a page, and more than a message.
const COUNT: usize = 450;

fn asking(format: Format) -> v1::ExportTasksRequest {
    v1::ExportTasksRequest { parent: PARENT.into(), format: format.into(), ..Default::default() }
}

async fn export(client: &Client, request: v1::ExportTasksRequest) -> Result<Vec<u8>> {
    let (mut parts, mut whole) = (client.export_tasks(request).await?, Vec::new());
    while let Some(part) = parts.message().await? {
        assert!(part.data.len() <= 256 << 10, "{} bytes", part.data.len());
        whole.extend_from_slice(&part.data);
    }
    Ok(whole)
}

fn rows(csv: &[u8], has_head: bool) -> Vec<csv::StringRecord> {
    let mut reader = csv::ReaderBuilder::new().has_headers(has_head).from_reader(csv);
    reader.records().map(Result::unwrap).collect()
}

/// Creates tasks, and returns their names, the newest first.
async fn fill(client: &Client) -> Result<Vec<String>> {
    let task = |number: usize| {
        let mut task = tasks::task("absent");
        let spec = task.spec.get_or_insert_default();
        spec.prompt = format!("=number {number},\n\"{}\"", "x".repeat(2000));
        spec.owner = (number % 2).to_string();
        v1::CreateTaskRequest { parent: PARENT.into(), task: Some(task), ..Default::default() }
    };
    let requests = (0..COUNT).map(task).collect();
    let request = v1::BatchCreateTasksRequest { parent: PARENT.into(), requests, ..Default::default() };
    let answers = client.batch_create_tasks(request).await?.results;
    let name = |answer: v1::BatchCreateTasksResult| match answer.kind {
        Some(v1::batch_create_tasks_result::Kind::Task(task)) => task.name,
        other => panic!("{other:?}"),
    };
    Ok(answers.into_iter().rev().map(name).collect())
}

#[tokio::test]
async fn every_task_is_exported_once() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        let names = fill(client).await?;
        let csv = export(client, v1::ExportTasksRequest { texts: true, ..asking(Format::Csv) }).await?;
        assert!(csv.starts_with(b"name,alias,title,state,"));
        let all = rows(&csv, true);
        assert_eq!(all.iter().map(|row| &row[0]).collect::<Vec<_>>(), names);
        let prompt = format!("'=number {},\n\"{}\"", COUNT - 1, "x".repeat(2000));
        assert_eq!((&all[0][3], &all[0][30]), ("pending", prompt.as_str()));
        // Cut off in the middle of a row: its last whole row is where it continues.
        let part = &csv[..csv.len() / 2];
        let end = part.windows(2).rposition(|two| two == b"\r\n").unwrap() + 2;
        let begun = rows(&part[..end], true);
        assert!(begun.len() > 10 && begun.len() < COUNT);
        let after = begun.last().unwrap()[0].to_owned();
        let rest =
            export(client, v1::ExportTasksRequest { texts: true, after, ..asking(Format::Csv) }).await?;
        assert_eq!(begun.into_iter().chain(rows(&rest, false)).collect::<Vec<_>>(), all);
        // A filter, and JSON.
        let filter = v1::TaskFilter { owner: "1".into(), ..Default::default() };
        let lines =
            export(client, v1::ExportTasksRequest { filter: Some(filter), ..asking(Format::Jsonl) }).await?;
        let lines: Vec<v1::Task> =
            String::from_utf8(lines)?.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let odd: Vec<_> = names.iter().step_by(2).cloned().collect();
        assert_eq!(lines.iter().map(|task| task.name.clone()).collect::<Vec<_>>(), odd);
        assert!(lines.iter().all(|task| task.spec.as_ref().is_some_and(|spec| spec.prompt.is_empty())));
    }
    Ok(())
}

#[tokio::test]
async fn export_is_a_file_over_http() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let names = fill(cluster.client()).await?;
    let url = format!("http://{}/api/v1/{PARENT}/tasks:export", cluster.addr());
    let answer = reqwest::get(format!("{url}?format=TASK_EXPORT_FORMAT_CSV")).await?.error_for_status()?;
    assert_eq!(answer.headers()["content-type"], "text/csv; charset=utf-8");
    assert_eq!(answer.headers()["content-disposition"], "attachment");
    let all = rows(&answer.bytes().await?, true);
    assert_eq!(all.iter().map(|row| &row[0]).collect::<Vec<_>>(), names);
    assert!(all.iter().all(|row| row[30].is_empty()), "no prompts");
    let lines = reqwest::get(format!("{url}?filter.owner=0")).await?.error_for_status()?;
    assert_eq!(lines.headers()["content-type"], "application/x-ndjson");
    assert_eq!(lines.text().await?.lines().count(), COUNT / 2);
    for wrong in ["format=X", "format=9", "after=x", "after=namespaces/default/tasks/none"] {
        assert!(reqwest::get(format!("{url}?{wrong}")).await?.status().is_client_error(), "{wrong}");
    }
    Ok(())
}
