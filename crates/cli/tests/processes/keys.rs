//! Keys of sealed secrets: a control plane with another key than the store's does not start, and keys are rotated while tasks wait.

use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use rota_proto::v1::{BatchCreateTasksRequest, CreateTaskRequest, RotateKeyRequest, Task, TaskState};
use rota_testkit::postgres::PostgresServer;
use rota_testkit::tasks;

use crate::responses::Response;
use crate::{Fixture, workload};

/// Tasks with secrets, more than one call of a rotation seals again.
const TASKS: usize = 1100;
const WORD: &str = "correct horse battery staple";

/// Writes key files: `old`, `new` and `third`.
fn write_keys(fixture: &Fixture) {
    for (name, byte) in [("old", 1), ("new", 2), ("third", 3)] {
        write(fixture, name, &[byte; 32], 0o600);
    }
}

fn write(fixture: &Fixture, name: &str, content: &[u8], mode: u32) {
    let path = fixture.dir().join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Sets the files of keys of the next start.
fn use_keys(fixture: &mut Fixture, file: &str, next: Option<&str>) {
    let keys = [("ROTA_SERVER_KEY_FILE", Some(file)), ("ROTA_SERVER_NEXT_KEY_FILE", next)];
    for (name, file) in keys {
        fixture.server_environment.retain(|(known, _)| *known != name);
        fixture.server_environment.extend(file.map(|file| (name, file.to_owned())));
    }
}

/// Starts a control plane that is to end by itself.
async fn start_refused(fixture: &Fixture, flags: &[&str]) -> Response {
    let mut command = fixture.server_command(([127, 0, 0, 1], 0).into());
    command.arg("--data-dir").arg(&fixture.data).args(flags);
    Response::of(command, "").await
}

/// Returns a task that prints the length of its secret.
fn secret_task(agent: &str) -> Task {
    let mut task = workload::shell("printf %s \"$WORD\" | wc -c", &[]);
    let spec = task.spec.get_or_insert_default();
    spec.secrets.insert("WORD".into(), WORD.into());
    spec.target = tasks::task(agent).spec.unwrap().target;
    task
}

async fn create_idle(fixture: &Fixture, count: usize) -> Result<()> {
    let client = fixture.client()?;
    let mut left = count;
    while left > 0 {
        let part = left.min(50);
        let parent = "namespaces/default".to_owned();
        let one = || CreateTaskRequest {
            parent: parent.clone(),
            task: Some(secret_task("idle")),
            ..Default::default()
        };
        let requests = (0..part).map(|_| one()).collect();
        client
            .batch_create_tasks(BatchCreateTasksRequest {
                parent: parent.clone(),
                requests,
                ..Default::default()
            })
            .await?;
        left -= part;
    }
    Ok(())
}

/// Rotates the key of a store, with an interruption. The environment of the fixture names the store.
async fn rotate(mut fixture: Fixture) -> Result<()> {
    write_keys(&fixture);
    use_keys(&mut fixture, "old", None);
    fixture.start_server().await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let mut names = vec![tasks::create(&client, secret_task(workload::AGENT)).await?.name];
    create_idle(&fixture, TASKS).await?;
    names.push(tasks::create(&client, secret_task(workload::AGENT)).await?.name);
    let schedule = "apiVersion: rota.dev/v1alpha1\nkind: Schedule\nmetadata: {name: nightly}\nspec:\n  cron: \"0 3 1 1 *\"\n  task:\n    \
        agent: shell\n    runtime: {command: {shell: 'printf %s \"$WORD\" | wc -c'}}\n    secrets: {WORD: \"correct horse battery staple\"}\n";
    std::fs::write(fixture.dir().join("schedule.yaml"), schedule)?;
    fixture.rota(&["apply", "-f", "schedule.yaml"]).await.success();
    fixture.rota(&["admin", "rotate-key"]).await.failed(1, &["has only the key", "--next-key-file"]);
    fixture.stop_server().await;

    use_keys(&mut fixture, "old", Some("new"));
    fixture.start_server().await?;
    // One part, and the control plane is killed.
    let part = fixture.impatient_client()?.rotate_key(RotateKeyRequest {}).await?;
    assert!(part.more && part.resealed > 0 && part.unreadable == 0, "{part:?}");
    let (new, old) = (part.key_id, part.previous_key_id);
    names.push(tasks::create(&client, secret_task(workload::AGENT)).await?.name);
    fixture.kill_server().await;
    for (file, missing) in [("old", &new), ("new", &old)] {
        use_keys(&mut fixture, file, None);
        start_refused(&fixture, &[]).await.failed(1, &["sealed under the key", missing, "--next-key-file"]);
    }

    use_keys(&mut fixture, "old", Some("new"));
    fixture.start_server().await?;
    let done = fixture.rota(&["admin", "rotate-key", "-o", "json"]).await.json();
    let resealed = usize::try_from(done["resealed"].as_u64().unwrap())?;
    let first = usize::try_from(part.resealed)?;
    // The task that was created meanwhile is sealed under the next key; the schedule is one more.
    assert_eq!((first + resealed, done["unreadable"].as_u64()), (TASKS + 3, Some(0)), "{done}");
    assert_eq!(done["keyId"].as_str(), Some(&*new));
    let again = fixture.rota(&["admin", "rotate-key", "-o", "json"]).await.json();
    assert_eq!(again["resealed"], 0);
    fixture.stop_server().await;

    use_keys(&mut fixture, "old", None);
    start_refused(&fixture, &[]).await.failed(1, &["sealed under the key", &new]);
    use_keys(&mut fixture, "new", None);
    fixture.start_server().await?;
    let _worker = fixture.worker(workload::AGENT, "one", 2).await?;
    let run = fixture.rota(&["schedule", "run", "nightly", "-o", "json"]).await.json();
    names.push(run["name"].as_str().unwrap_or_else(|| panic!("{run}")).to_owned());
    for name in &names {
        let status = tasks::ended(&client, name).await?.status.unwrap();
        assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
        assert_eq!(workload::printed(&client, name).await?.trim(), WORD.len().to_string());
    }
    Ok(())
}

#[tokio::test]
async fn key_of_a_file_is_rotated() -> Result<()> {
    rotate(Fixture::bare()).await
}

#[tokio::test]
async fn key_of_a_database_is_rotated() -> Result<()> {
    let mut fixture = Fixture::bare();
    let artifacts = fixture.dir().join("artifacts");
    std::fs::create_dir(&artifacts)?;
    fixture.server_environment = vec![
        ("ROTA_SERVER_STORE", PostgresServer::shared().database()?),
        ("ROTA_SERVER_ARTIFACTS", format!("file://{}", artifacts.display())),
        ("ROTA_SERVER_ADVERTISE", "127.0.0.1:7".to_owned()),
    ];
    rotate(fixture).await
}

#[tokio::test]
async fn unusable_keys_are_refused() -> Result<()> {
    let mut fixture = Fixture::bare();
    write_keys(&fixture);
    fixture.start_server().await?;
    fixture.stop_server().await;
    let made = fixture.data.join("secrets.key");
    let key = std::fs::read(&made)?;
    // As after a mount of its volume by a pod with another policy for its group.
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o660))?;
    fixture.start_server().await?;
    fixture.stop_server().await;
    assert_eq!(made.metadata()?.permissions().mode() & 0o777, 0o600);
    start_refused(&fixture, &["--key-file", "third"]).await.failed(1, &["sealed under the key"]);
    // It is not replaced by a new one.
    std::fs::remove_file(&made)?;
    start_refused(&fixture, &[]).await.failed(1, &["is missing", "--replace-lost-key"]);
    assert!(!made.exists());
    write(&fixture, "short", &[1; 31], 0o600);
    write(&fixture, "open", &key, 0o602);
    for (flags, why) in [
        (["--key-file", "short"], "has 31 bytes instead of 32"),
        (["--key-file", "open"], "other users can access"),
    ] {
        start_refused(&fixture, &flags).await.failed(1, &[why]);
        start_refused(&fixture, &["--key-file", "third", "--next-key-file", flags[1]])
            .await
            .failed(1, &[why]);
    }
    let same = start_refused(&fixture, &["--key-file", "third", "--next-key-file", "third"]).await;
    same.failed(1, &["contain the same key"]);
    fixture.server_environment.push(("ROTA_SERVER_REPLACE_LOST_KEY", "true".to_owned()));
    fixture.start_server().await?;
    fixture.server_mut().prints("replaced as lost").await;
    fixture.stop_server().await;
    fixture.server_environment.clear();
    fixture.start_server().await
}
