//! Secrets reach the attempt and nothing else.

use std::path::Path;

use anyhow::Result;
use rota_proto::v1::{self, TaskState};
use rota_testkit::{Backend, Cluster, WorkerHandle, history, tasks};

/// Long enough not to occur anywhere by chance.
const WORD: &str = "correct horse battery staple, and then some";

fn shell(line: &str) -> v1::Runtime {
    let command = v1::CommandRuntime { shell: line.to_owned(), ..Default::default() };
    v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) }
}

/// Returns the files below a folder that contain the word.
fn files_containing(folder: &Path, word: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_containing(&path, word)?);
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(word.len()).any(|part| part == word.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

#[tokio::test]
async fn only_the_attempt_receives_secrets() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "shell", shell("printf %s \"$WORD\" | wc -c"), &[]).await?;
    let mut task = tasks::task("shell");
    let spec = task.spec.get_or_insert_default();
    spec.secrets.insert("WORD".into(), WORD.into());
    spec.environment.insert("MARK".into(), "a mark that may be seen".into());
    let made = tasks::create(&client, task).await?;
    let mut responses = format!("{made:?}");
    assert_eq!(made.spec.unwrap().secret_names, ["WORD"]);
    // While the task waits, and across a restart, the secret is sealed.
    cluster.kill().await;
    assert!(!files_containing(cluster.folder(), "a mark that may be seen")?.is_empty());
    assert!(files_containing(cluster.folder(), WORD)?.is_empty());
    assert!(is_stored(cluster.folder(), &made.uid)?);
    cluster.restart().await?;
    let _worker = cluster.worker("shell", "one", 1)?;
    let ended = tasks::ended(&client, &made.name).await?;
    let status = ended.status.as_ref().unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
    assert_eq!(status.result.as_ref().unwrap().text.trim(), WORD.len().to_string());
    responses += &format!(
        "{ended:?}{:?}{:?}",
        tasks::log(&client, &made.name).await?,
        tasks::get(&client, &made.name).await?
    );
    let parent = "namespaces/default".to_owned();
    responses +=
        &format!("{:?}", client.list_tasks(v1::ListTasksRequest { parent, ..Default::default() }).await?);
    assert!(!responses.contains(WORD));
    assert!(files_containing(cluster.folder(), WORD)?.is_empty());
    // A retry needs the secrets again.
    let again = v1::RetryTaskRequest { name: made.name.clone(), ..Default::default() };
    assert_eq!(client.retry_task(again.clone()).await.unwrap_err().fields[0].field, "secrets");
    let secrets = [("WORD".to_owned(), "short".to_owned())].into();
    let again = client.retry_task(v1::RetryTaskRequest { secrets, ..again }).await?;
    let status = tasks::ended(&client, &again.name).await?.status.unwrap();
    assert_eq!(status.result.unwrap().text.trim(), "5");
    history::check(&client, true).await?.check()?;
    cluster.stop().await;
    assert!(!is_stored(cluster.folder(), &made.uid)?);
    Ok(())
}

/// Returns whether the table of secrets has a row of a task.
fn is_stored(folder: &Path, uid: &str) -> Result<bool> {
    let id: uuid::Uuid = uid.parse()?;
    let database = rusqlite::Connection::open(folder.join("rota.sqlite"))?;
    let sql = "SELECT count(*) FROM secrets JOIN tasks USING (key) WHERE id = ?1";
    Ok(database.query_row(sql, [id], |row| row.get::<_, i64>(0))? > 0)
}

#[tokio::test]
async fn unreadable_secrets_fail_the_task() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let mut task = tasks::task("echo");
    task.spec.get_or_insert_default().secrets.insert("WORD".into(), WORD.into());
    let task = tasks::create(&client, task).await?;
    cluster.kill().await;
    // As if it were sealed under another key.
    let database = rusqlite::Connection::open(cluster.folder().join("rota.sqlite"))?;
    assert_eq!(database.execute("UPDATE secrets SET sealed = randomblob(96)", [])?, 1);
    drop(database);
    cluster.restart().await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    let failure = status.failure.unwrap();
    assert!(failure.message.contains("another key") && !failure.hint.is_empty(), "{failure:?}");
    // The slot is free again.
    let next = tasks::create(&client, tasks::task("echo")).await?;
    tasks::until_state(&client, &next.name, TaskState::Succeeded).await?;
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn task_receives_only_named_agent_secrets() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let show = shell("printf '%s,%s,%s' \"$KEY\" \"${TOKEN-none}\" \"$OWN\"");
    tasks::agent(client, "shell", show, &[]).await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("KEY"), "k")?;
    std::fs::write(folder.path().join("TOKEN"), "t")?;
    let mut options =
        cluster.worker_options(cluster.addr(), "shell", "one", 1, cluster.folder().join("one"))?;
    options.secrets_dir = Some(folder.path().to_owned());
    let _worker = WorkerHandle::start(options);
    let run = async |names: Option<&[&str]>| -> Result<v1::TaskStatus> {
        let mut task = tasks::task("shell");
        let spec = task.spec.get_or_insert_default();
        spec.secrets.insert("OWN".into(), "o".into());
        spec.agent_secrets =
            names.map(|names| v1::SecretSelection { names: names.iter().map(ToString::to_string).collect() });
        spec.retry = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
        let task = tasks::create(client, task).await?;
        Ok(*tasks::ended(client, &task.name).await?.status.unwrap())
    };
    for (names, seen) in [
        (None, "k,t,o"),
        (Some(&["KEY"][..]), "k,none,o"),
        (Some(&[]), ",none,o"),
        (Some(&["KEY", "OWN"]), "k,none,o"),
    ] {
        let status = run(names).await?;
        assert_eq!(status.result.unwrap_or_default().text, seen, "{names:?}");
    }
    let failure = run(Some(&["KEY", "OTHER"])).await?.failure.unwrap();
    assert_eq!(failure.class(), v1::FailureClass::Invalid);
    assert!(failure.message.contains("OTHER") && failure.message.contains("KEY, TOKEN"), "{failure:?}");
    Ok(())
}
