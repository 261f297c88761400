//! Search of tasks by words: what is found, by whom, and that the index follows the commits over restarts and losses.

use std::time::Duration;

use anyhow::{Context, Result};
use rota_core::TaskKey;
use rota_proto::v1::{self, TaskState, TaskTextField, script_step::Kind as Step};
use rota_testkit::client::Client;
use rota_testkit::{Backend, Cluster, Setup, tasks};

const PARENT: &str = "namespaces/default";

fn asking(text: &str) -> v1::SearchTasksRequest {
    v1::SearchTasksRequest { parent: PARENT.into(), text: text.into(), ..Default::default() }
}

/// Waits until the index has everything that was committed.
async fn indexed(client: &Client) -> Result<()> {
    tasks::eventually("the index", async || {
        let page = client.search_tasks(asking("any")).await?;
        Ok(page.indexed_revision == page.revision)
    })
    .await
}

async fn names(client: &Client, request: v1::SearchTasksRequest) -> Result<Vec<String>> {
    let hits = client.search_tasks(request).await?.hits;
    Ok(hits.into_iter().map(|hit| hit.task.unwrap_or_default().alias).collect())
}

async fn create(client: &Client, parent: &str, alias: &str, prompt: &str) -> Result<v1::Task> {
    let mut task = tasks::task("absent");
    task.alias = alias.into();
    let spec = task.spec.get_or_insert_default();
    spec.prompt = prompt.into();
    spec.owner = if alias.len().is_multiple_of(2) { "even" } else { "odd" }.into();
    let request = v1::CreateTaskRequest { parent: parent.into(), task: Some(task), ..Default::default() };
    Ok(Box::pin(client.create_task(request)).await?)
}

#[tokio::test]
async fn words_of_all_texts_are_found() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        tasks::agent(client, "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "w", 1)?;
        let end = |alias: &str, prompt: &str, step| {
            let mut task = tasks::scripted("echo", [step]);
            let spec = task.spec.get_or_insert_default();
            (spec.title, spec.prompt) = (format!("Title of {alias}"), prompt.to_owned());
            task.alias = alias.to_owned();
            task
        };
        let failure = v1::ScriptFailure { message: "connection refused".into(), ..Default::default() };
        let done = end("done", "Sort the invoices\nby their date.", Step::Succeed("All 12 sorted.".into()));
        let failed = end("failed", "Call the server", Step::Fail(failure));
        for (task, state) in [(done, TaskState::Succeeded), (failed, TaskState::Failed)] {
            let mut task = task;
            let once = v1::RetryPolicy { max_attempts: 1, ..Default::default() };
            task.spec.get_or_insert_default().retry = Some(once);
            let name = tasks::create(client, task).await?.name;
            tasks::until_state(client, &name, state).await?;
        }
        indexed(client).await?;
        let cases: [(&str, &[&str], TaskTextField, &str); 7] = [
            ("title", &["failed", "done"], TaskTextField::Title, "Title of failed"),
            ("INVOICE date", &["done"], TaskTextField::Prompt, "Sort the invoices by their date."),
            ("12", &["done"], TaskTextField::Result, "All 12 sorted."),
            ("sort all", &["done"], TaskTextField::Prompt, "Sort the invoices by their date."),
            ("connection refused", &["failed"], TaskTextField::Failure, "connection refused"),
            ("invoices refused", &[], TaskTextField::Unspecified, ""),
            ("nothing", &[], TaskTextField::Unspecified, ""),
        ];
        for (text, aliases, field, snippet) in cases {
            let page = client.search_tasks(asking(text)).await?;
            let found: Vec<_> =
                page.hits.iter().map(|hit| hit.task.clone().unwrap_or_default().alias).collect();
            assert_eq!(found, aliases, "{text}");
            let first = page.hits.into_iter().next().unwrap_or_default();
            assert_eq!((first.field(), first.snippet.as_str()), (field, snippet), "{text}");
        }
        let failed = v1::TaskFilter { states: vec![TaskState::Failed.into()], ..Default::default() };
        assert_eq!(
            names(client, v1::SearchTasksRequest { filter: Some(failed), ..asking("title") }).await?,
            ["failed"]
        );
    }
    Ok(())
}

#[tokio::test]
async fn search_is_bounded_to_a_namespace_and_paged() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let mut wanted = Vec::new();
    for index in 0..7 {
        let alias = "a".repeat(index + 1);
        create(client, PARENT, &alias, "a needle").await?;
        create(client, "namespaces/other", "elsewhere", "a needle").await?;
        wanted.insert(0, alias);
    }
    indexed(client).await?;
    assert_eq!(names(client, asking("needle")).await?, wanted);
    let all = v1::SearchTasksRequest { parent: "namespaces/-".into(), page_size: 100, ..asking("needle") };
    assert_eq!(names(client, all).await?.len(), 14);
    for filter in [None, Some(v1::TaskFilter { owner: "odd".into(), ..Default::default() })] {
        let odd = filter.is_some();
        let mut request = v1::SearchTasksRequest { page_size: 2, filter, ..asking("needle") };
        let mut found = Vec::new();
        loop {
            let page = client.search_tasks(request.clone()).await?;
            assert!(page.hits.len() <= 2);
            found.extend(page.hits.into_iter().map(|hit| hit.task.unwrap_or_default().alias));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        let wanted: Vec<_> = wanted.iter().filter(|alias| !odd || alias.len() % 2 == 1).cloned().collect();
        assert_eq!(found, wanted);
    }
    // Over HTTP, too.
    let path = format!(
        "http://{}/api/v1/{PARENT}/tasks:search?text=needle&pageSize=1&filter.owner=even",
        cluster.addr()
    );
    let answer: serde_json::Value = reqwest::get(path).await?.error_for_status()?.json().await?;
    assert_eq!(answer["hits"][0]["task"]["alias"], wanted[1]);
    assert_eq!(answer["hits"][0]["field"], "TASK_TEXT_FIELD_PROMPT");
    assert_eq!(answer["hits"][0]["snippet"], "a needle");
    Ok(())
}

#[tokio::test]
async fn hostile_searches_are_refused_or_harmless() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    create(client, PARENT, "a", "plain \"quoted' text").await?;
    indexed(client).await?;
    let many = (0..17).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
    for text in ["", "  ", "\0", "***", "\"", "' -- ;", &many, &"x".repeat(1025)] {
        let refused = client.search_tasks(asking(text)).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("INVALID_FIELD"), "{text:?}: {refused}");
        assert!(refused.to_string().contains("word"), "{text:?}: {refused}");
    }
    for text in ["\"plain", "plain*", "plain\0quoted", "'plain' | !quoted", "(plain", &"plain ".repeat(170)] {
        assert_eq!(names(client, asking(text)).await?, ["a"], "{text:?}");
    }
    for text in ["plain NEAR/2 quoted", "words : plain", "plain OR missing", "{plain words}"] {
        assert_eq!(names(client, asking(text)).await?, [""; 0], "{text:?}");
    }
    let negative = v1::SearchTasksRequest { page_size: -1, ..asking("plain") };
    assert_eq!(client.search_tasks(negative).await.unwrap_err().reason.as_deref(), Some("INVALID_FIELD"));
    Ok(())
}

#[tokio::test]
async fn index_follows_over_kills_and_its_loss() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    let file = cluster.folder().join("rota.sqlite.search");
    let mut wanted = Vec::new();
    for round in 0..4 {
        for index in 0..20 {
            let alias = format!("{round}-{index}");
            create(&client, PARENT, &alias, "a needle").await?;
            wanted.insert(0, alias);
        }
        // At any place of the indexing.
        cluster.kill().await;
        assert!(round == 0 || file.exists());
        match round {
            1 => std::fs::remove_file(&file)?,
            2 => std::fs::write(&file, [b'x'; 8192])?,
            _ => {}
        }
        cluster.restart().await?;
        indexed(&client).await?;
        let request = v1::SearchTasksRequest { page_size: 100, ..asking("needle") };
        assert_eq!(names(&client, request).await?, wanted, "round {round}");
    }
    Ok(())
}

#[tokio::test]
async fn removed_tasks_leave_the_index() -> Result<()> {
    let mut setup = Setup::new(Backend::Sqlite);
    setup.timing.retention = Some(Duration::from_millis(1));
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.client().clone();
    let old = create(&client, PARENT, "old", "a needle").await?;
    create(&client, PARENT, "left", "a needle").await?;
    tasks::cancel(&client, &old.name).await?;
    indexed(&client).await?;
    let keys = async |cluster: &Cluster| {
        let store = cluster.store().context("it does not run")?;
        anyhow::Ok(store.indexed_keys(TaskKey(0), 10).await?.len())
    };
    assert_eq!(keys(&cluster).await?, 2);
    // A start removes what is older than the retention.
    cluster.stop().await.context("it did not stop")?;
    cluster.restart().await?;
    tasks::eventually("the removal", async || Ok(keys(&cluster).await? == 1)).await?;
    assert_eq!(names(&client, asking("needle")).await?, ["left"]);
    Ok(())
}
