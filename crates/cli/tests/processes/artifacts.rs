//! Files that attempts leave behind, and files that tasks are given: kept, handed on, downloaded, and removed with their tasks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use rota_client::Client;
use rota_proto::v1::{self, TaskState, event};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::tasks;
use sha2::{Digest, Sha256};

use crate::storing::stop_now;
use crate::{Fixture, Graces, workload};

/// Writes files as a careless or hostile agent would.
const LEAVES: &str = r#"
mkdir -p "$ROTA_OUTPUT/deep" dist
printf 'a report' > "$ROTA_OUTPUT/deep/report.md"
printf '#!/bin/sh\necho tool\n' > "$ROTA_OUTPUT/tool.sh" && chmod +x "$ROTA_OUTPUT/tool.sh"
printf '{"summary": "done"}' > "$ROTA_OUTPUT/result.json"
ln -s /etc/hostname "$ROTA_OUTPUT/link"
mkfifo "$ROTA_OUTPUT/pipe"
printf built > dist/app.js && printf other > other.txt
"#;

fn keeping(line: &str) -> v1::Task {
    let mut task = workload::shell(line, &[]);
    let workspace = v1::Workspace { keep_files: vec!["dist/**".to_owned()], ..Default::default() };
    task.spec.get_or_insert_default().workspace = Some(workspace);
    task
}

/// Returns the files below a folder, by their paths within it.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

/// Returns the parts that the control plane has stored.
pub(crate) fn stored(fixture: &Fixture) -> Vec<String> {
    let mut found = files(&fixture.data.join("artifacts"));
    found.retain(|path| path != ".rota-artifacts");
    found
}

#[tokio::test]
async fn files_of_attempts_are_listed_and_downloaded() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let task = tasks::create(&client, v1::Task { alias: "build".to_owned(), ..keeping(LEAVES) }).await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.result.unwrap().text.as_str()), (TaskState::Succeeded, "done"));
    assert!(status.has_artifacts);
    assert_eq!(tasks::notices(&tasks::log(&client, &task.name).await?), ["artifacts_stored"]);

    let listed = fixture.rota(&["artifacts", "build"]).await;
    assert_eq!(listed.code, 0, "{listed:?}");
    let names: Vec<_> =
        listed.out.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(names, ["output/deep/report.md", "output/tool.sh", "workspace/dist/app.js"]);
    assert!(listed.out.contains(&hex::encode(Sha256::digest("a report"))), "as sha256sum prints it");
    assert!(listed.err.contains("output/link is not kept: is a symbolic link"), "{}", listed.err);
    assert!(listed.err.contains("output/pipe is not kept: is not a regular file"), "{}", listed.err);

    let all = fixture.rota(&["download", "build"]).await;
    assert_eq!(all.code, 0, "{all:?}");
    let folder = fixture.dir().join("build");
    assert_eq!(files(&folder), ["output/deep/report.md", "output/tool.sh", "workspace/dist/app.js"]);
    assert_eq!(fs::read_to_string(folder.join("output/deep/report.md"))?, "a report");
    assert!(folder.join("output/tool.sh").metadata()?.permissions().mode() & 0o100 != 0);
    assert_eq!(folder.join("workspace/dist/app.js").metadata()?.permissions().mode() & 0o111, 0);

    // Nothing is replaced, or written through a link, unless asked.
    let again = fixture.rota(&["download", "build", "output/deep"]).await;
    assert!(again.code == 1 && again.err.contains("--force"), "{again:?}");
    let elsewhere = fixture.dir().join("precious");
    fs::write(&elsewhere, "precious")?;
    fs::remove_file(folder.join("output/tool.sh"))?;
    std::os::unix::fs::symlink(&elsewhere, folder.join("output/tool.sh"))?;
    assert_eq!(fixture.rota(&["download", "build", "output/tool.sh", "--force"]).await.code, 0);
    assert_eq!(fs::read_to_string(&elsewhere)?, "precious");
    let unknown = fixture.rota(&["download", "build", "output/de"]).await;
    assert!(unknown.code == 1 && unknown.err.contains("rota artifacts build"), "{unknown:?}");
    Ok(())
}

/// A backup of the store has no contents: after the loss of a whole volume, only records are restored.
#[tokio::test]
async fn restore_without_contents_is_reported() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let task = tasks::create(&client, keeping(LEAVES)).await?;
    tasks::ended(&client, &task.name).await?;
    let lost = stored(&fixture).len();
    assert!(lost > 0);
    let backup = fixture.dir().join("backup.sqlite");
    fixture.rota(&["admin", "backup", backup.to_str().unwrap()]).await.success();
    worker.kill().await;
    fixture.stop_server().await;
    let (data, backup) = (fixture.data.clone(), backup.to_str().unwrap());
    // The key is kept elsewhere.
    let key = fs::read(data.join("secrets.key"))?;
    fs::remove_dir_all(&data)?;
    let restored = fixture.rota(&["restore", backup, "--data-dir", data.to_str().unwrap()]).await;
    assert!(restored.code == 0 && restored.err.contains("not in a backup"), "{restored:?}");
    fs::write(data.join("secrets.key"), &key)?;
    fs::set_permissions(data.join("secrets.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    fixture.start_server().await?;
    let reported = fixture.server_mut().prints("contents of artifacts are lost").await;
    assert!(reported.contains(&format!("parts={lost}")), "{lost} parts: {reported}");
    Ok(())
}

#[tokio::test]
async fn dependents_and_inputs_find_their_files() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let first = tasks::create(&client, v1::Task { alias: "first".to_owned(), ..keeping(LEAVES) }).await?;
    let read = r#"cd "$ROTA_CONTEXT" && cat artifacts/first/output/deep/report.md artifacts/first/workspace/dist/app.js && ./artifacts/first/output/tool.sh"#;
    let mut second = workload::shell(read, &[]);
    second.spec.get_or_insert_default().depends_on =
        vec![v1::Dependency { task: first.uid.clone(), ..Default::default() }];
    let second = tasks::create(&client, second).await?.name;
    let status = tasks::ended(&client, &second).await?.status.unwrap();
    assert_eq!(status.result.unwrap().text, "a reportbuilttool");

    fs::write(fixture.dir().join("sales.csv"), "1,2,3")?;
    let line = r#"cat "$ROTA_CONTEXT/input/sales.csv""#;
    let run = ["run", "--agent", workload::AGENT, "--input", "sales.csv", "--quiet", "--command", "--"];
    let given = fixture.rota(&[&run[..], &["sh", "-c", line]].concat()).await;
    assert_eq!((given.code, given.out.trim()), (0, "1,2,3"), "{given:?}");
    let missing = fixture.rota(&["run", "--agent", workload::AGENT, "--input", "none.csv", "x"]).await;
    assert!(missing.code != 0 && missing.err.contains("none.csv"), "{missing:?}");
    Ok(())
}

#[tokio::test]
async fn files_of_failed_and_cancelled_attempts_are_kept() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 2).await?;
    let line = r#"echo "attempt $ROTA_ATTEMPT" > "$ROTA_OUTPUT/log"; exit 3"#;
    let mut failing = workload::shell(line, &[]);
    let retry = v1::RetryPolicy {
        max_attempts: 2,
        initial_backoff: Some(std::time::Duration::from_millis(1).into()),
        ..Default::default()
    };
    failing.spec.get_or_insert_default().retry = Some(retry);
    let failing = tasks::create(&client, failing).await?.name;
    assert_eq!(tasks::ended(&client, &failing).await?.status.unwrap().state(), TaskState::Failed);
    for attempt in ["1", "2"] {
        let to = fixture.dir().join(attempt);
        let id = failing.rsplit('/').next().unwrap();
        let done = fixture.rota(&["download", id, "--attempt", attempt, "--to", to.to_str().unwrap()]).await;
        assert_eq!(done.code, 0, "{done:?}");
        assert_eq!(fs::read_to_string(to.join("output/log"))?, format!("attempt {attempt}\n"));
    }
    let endless = r#"echo half > "$ROTA_OUTPUT/half"; echo ready; sleep 1000"#;
    let endless = tasks::create(&client, workload::shell(endless, &[])).await?.name;
    workload::prints(&client, &endless, "ready").await?;
    client.cancel_task(v1::CancelTaskRequest { name: endless.clone(), ..Default::default() }).await?;
    assert_eq!(tasks::ended(&client, &endless).await?.status.unwrap().state(), TaskState::Cancelled);
    let list = client.fetch_artifacts(&endless).await?.attempts;
    assert_eq!(list[0].list.as_ref().unwrap().artifacts[0].name, "output/half");
    Ok(())
}

/// A transfer of many parts continues where it ended when its control plane is killed.
#[tokio::test]
async fn transfers_survive_a_killed_control_plane() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    // Random, so that no part is like another; the last is a partial one.
    let line =
        r#"head -c 100000123 /dev/urandom > "$ROTA_OUTPUT/big"; sha256sum "$ROTA_OUTPUT/big" | cut -c1-64"#;
    let mut known = 0;
    let name = loop {
        assert!(known < 5 * 96, "each upload was over before the kill");
        let name = tasks::create(&client, workload::shell(line, &[])).await?.name;
        tasks::eventually("the first parts", async || Ok(stored(&fixture).len() > known + 5)).await?;
        fixture.kill_server().await;
        let before = stored(&fixture).len();
        fixture.start_server().await?;
        if before < known + 96 {
            break name;
        }
        // A stalled machine may kill too late.
        tasks::ended(&client, &name).await?;
        known = stored(&fixture).len();
    };
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    let digest = status.result.unwrap().text;
    assert_eq!((status.state, status.attempt), (TaskState::Succeeded.into(), 1));
    let id = name.rsplit('/').next().unwrap();
    let done = fixture.rota(&["download", id, "--to", "got"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let got = fs::read(fixture.dir().join("got/output/big"))?;
    assert_eq!((got.len(), hex::encode(Sha256::digest(&got))), (100_000_123, digest));
    Ok(())
}

/// Damage of what is stored is found, and named.
#[tokio::test]
async fn damaged_parts_fail_the_download() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let line = r#"echo text > "$ROTA_OUTPUT/text""#;
    let name = tasks::create(&client, workload::shell(line, &[])).await?.name;
    tasks::ended(&client, &name).await?;
    let [part] = &stored(&fixture)[..] else { panic!("{:?}", stored(&fixture)) };
    let part: PathBuf = fixture.data.join("artifacts").join(part);
    let mut bytes = fs::read(&part)?;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&part, bytes)?;
    let id = name.rsplit('/').next().unwrap();
    let done = fixture.rota(&["download", id, "--to", "got"]).await;
    assert!(done.code == 1 && done.err.contains("damaged"), "{done:?}");
    assert!(files(&fixture.dir().join("got")).is_empty(), "nothing is left of it");
    Ok(())
}

/// Starts a control plane in which a namespace has room for 2 MiB.
async fn with_quota() -> Result<Fixture> {
    let mut fixture = Fixture::bare();
    fixture.server_environment.push(("ROTA_SERVER_ARTIFACTS_QUOTA_MIB", "2".to_owned()));
    fixture.environment = vec![("ROTA_WORKER_CHECKPOINT_INTERVAL", "0s".to_owned())];
    fixture.start_server().await?;
    workload::agent(&fixture.client()?).await?;
    Ok(fixture)
}

/// Work whose files have no room waits for room where it is, and is not done again. All other work continues.
#[tokio::test]
async fn full_quota_deletes_no_work() -> Result<()> {
    let mut fixture = with_quota().await?;
    let client = fixture.client()?;
    let _worker = fixture.worker(workload::AGENT, "w", 2).await?;
    let count = fixture.dir().join("count");
    let line = format!(
        "echo run >> {}; head -c 3145728 /dev/urandom > $ROTA_OUTPUT/noise; echo large",
        count.display()
    );
    let large = tasks::create(&client, workload::shell(&line, &[])).await?;
    let notice = async || -> Result<_> {
        let log = tasks::log(&client, &large.name).await?;
        Ok(log.into_iter().find_map(|event| match event.kind {
            Some(event::Kind::Notice(notice)) if notice.code == "artifacts_full" => Some(notice.message),
            _ => None,
        }))
    };
    tasks::eventually("a notice", async || Ok(notice().await?.is_some())).await?;
    assert!(notice().await?.unwrap().contains("that they may take"));
    // A result that needs no room counts.
    let small = tasks::create(&client, workload::shell("echo done", &[])).await?;
    let status = tasks::ended(&client, &small.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    let input = fixture.dir().join("input");
    // Three parts, which take little once they are compressed.
    fs::write(&input, ["a", "b", "c"].map(|part| part.repeat(1 << 20)).concat())?;
    let run =
        ["run", "--agent", workload::AGENT, "--command", "--input", input.to_str().unwrap(), "--", "true"];
    let refused = fixture.rota(&run).await;
    assert!(refused.code != 0 && refused.err.contains("rota admin prune"), "{refused:?}");
    let line = "head -c 2097152 /dev/urandom > $ROTA_OUTPUT/noise";
    let filling = tasks::create(&client, workload::shell(line, &[])).await?;
    tasks::ended(&client, &filling.name).await?;
    starts_no_agent_in_vain(&fixture, &client).await?;

    fixture.stop_server().await;
    fixture.server_environment = vec![("ROTA_SERVER_ARTIFACTS_QUOTA_MIB", "64".to_owned())];
    fixture.start_server().await?;
    let status = tasks::ended(&client, &large.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    assert_eq!(
        (status.result.unwrap().text.as_str(), fs::read_to_string(count)?.as_str()),
        ("large", "run\n")
    );
    let id = large.name.rsplit('/').next().unwrap();
    let done = fixture.rota(&["download", id, "--to", "got"]).await;
    assert_eq!((done.code, fs::metadata(fixture.dir().join("got/output/noise"))?.len()), (0, 3_145_728));
    Ok(())
}

/// Checks that an attempt whose files had no room is followed by none while there is still no room.
async fn starts_no_agent_in_vain(fixture: &Fixture, client: &Client) -> Result<()> {
    tasks::agent(client, "raw", tasks::script([]), &[]).await?;
    let token = fs::read_to_string(fixture.worker_token("raw", "raw").await?)?;
    let own = fixture.client_with(token.trim(), Duration::from_secs(60))?;
    let mut worker = RawWorker::join(&own, raw::hello("raw", "raw", 1)).await?;
    let mut task = tasks::task("raw");
    let retry = v1::RetryPolicy { initial_backoff: Some(tasks::millis(1)), ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    let task = tasks::create(client, task).await?;
    let assign = worker.take().await?;
    let class = v1::FailureClass::Source.into();
    worker
        .fail(&assign, v1::Failure { class, of_storage: true, upload_bytes: Some(1), ..Default::default() });
    let failures = async || -> Result<Vec<_>> {
        let log = tasks::log(client, &task.name).await?;
        Ok(log
            .into_iter()
            .filter_map(|event| match event.kind {
                Some(event::Kind::State(change)) => change.failure,
                _ => None,
            })
            .collect())
    };
    tasks::eventually("a second failure", async || Ok(failures().await?.len() == 2)).await?;
    let failure = failures().await?.remove(1);
    assert!(failure.message.contains("no attempt is started"), "{failure:?}");
    assert!(failure.of_storage && failure.hint.contains("rota admin prune"), "{failure:?}");
    // Not before parts can have become free.
    assert!(failure.retry_after.as_ref().unwrap().seconds >= 600, "{failure:?}");
    let next = tasks::create(client, tasks::task("raw")).await?;
    let assign = worker.take().await?;
    assert!(next.name.ends_with(&assign.task_id), "{assign:?}");
    worker.succeed(&assign, 0, "done");
    worker.close().await;
    Ok(())
}

/// What the next attempt continues from is stored before files that may take long, or have no room.
#[tokio::test]
async fn drained_attempts_keep_their_checkpoint_first() -> Result<()> {
    let line = "if test -e $ROTA_CHECKPOINT/step; then cat $ROTA_CHECKPOINT/step; exit; fi; test $ROTA_ATTEMPT = 1 || exit 7; \
                echo 50 > $ROTA_CHECKPOINT/step; head -c 4194304 /dev/urandom > $ROTA_OUTPUT/noise; echo working; sleep 600";
    for _ in 0..4 {
        let fixture = with_quota().await?;
        let client = fixture.client()?;
        let mut worker = fixture.worker(workload::AGENT, "w", 1).await?;
        let task = tasks::create(&client, workload::shell(line, &[])).await?;
        workload::prints(&client, &task.name, "working").await?;
        let in_time = stop_now(&mut worker).await?;
        fs::rename(fixture.state_dir(), fixture.dir().join("lost"))?;
        let _worker = fixture.worker(workload::AGENT, "other", 1).await?;
        let status = tasks::ended(&client, &task.name).await?.status.unwrap();
        if !in_time && status.state() == TaskState::Failed {
            continue;
        }
        assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
        assert_eq!(status.result.unwrap().text, "50");
        return Ok(());
    }
    panic!("no worker had the time to store what its attempt has left");
}
