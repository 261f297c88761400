//! Attempts that end while the storage of artifacts is away: their work waits on the disk of their worker, without a slot, and is not done
//! again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rota_client::Client;
use rota_proto::v1::{self, TaskState};
use rota_testkit::s3_server::S3Server;
use rota_testkit::{history, tasks};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::process::Process;
use crate::{Fixture, Graces, dev, workload};

/// Returns a fixture whose workers release slots soon.
pub(crate) fn impatient() -> Fixture {
    let mut fixture = Fixture::bare();
    fixture.graces = Graces::SHORT;
    fixture.environment = vec![("ROTA_WORKER_STORING_TIMEOUT", "100ms".to_owned())];
    fixture
}

/// Storage in the folder of a control plane, which is away while a file is in its place.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn of(fixture: &Fixture) -> Self {
        Self(fixture.data.join("artifacts"))
    }

    fn elsewhere(&self) -> PathBuf {
        self.0.with_file_name("elsewhere")
    }

    pub(crate) fn take_away(&self) -> Result<()> {
        fs::create_dir_all(&self.0)?;
        fs::rename(&self.0, self.elsewhere())?;
        Ok(fs::write(&self.0, "")?)
    }

    pub(crate) fn bring_back(&self) -> Result<()> {
        fs::remove_file(&self.0)?;
        Ok(fs::rename(self.elsewhere(), &self.0)?)
    }
}

/// Returns a task that prints "once", waits for a file, and leaves what no other attempt would.
fn task(gate: &Path) -> v1::Task {
    let line = format!(
        "echo once; echo secret > $HOME/.netrc; until test -e {}; do sleep 0.05; done; \
         head -c 300000 /dev/urandom > $ROTA_OUTPUT/file; sha256sum $ROTA_OUTPUT/file | cut -c1-64 > $ROTA_OUTPUT/sum",
        gate.display()
    );
    workload::shell(&line, &[])
}

/// Waits until the work of a task is done, and its slot free.
pub(crate) async fn waits_for_storage(client: &Client, name: &str) -> Result<()> {
    let waits = |status: &v1::TaskStatus| {
        status.state() == TaskState::Running && status.delivering && status.attempt == 1
    };
    tasks::until(client, name, waits).await.map(drop)
}

/// Kills a worker, and waits until the control plane no longer waits for it.
async fn kill(client: &Client, mut worker: Process, name: &str) -> Result<()> {
    worker.signal(Signal::SIGKILL);
    worker.wait().await;
    tasks::eventually("the end of the session", async || {
        let all = tasks::workers(client).await?;
        Ok(all.iter().all(|known| !known.name.ends_with(&format!("/{name}"))))
    })
    .await
}

/// Time for a worker that is stopped to store what its attempts leave (`STOPPING_TIME` in `keep` of the worker).
const STOPPING_TIME: Duration = Duration::from_secs(20);

/// Stops a worker, and does not wait for its attempts. Returns whether it has ended before their time to store what they leave was over.
pub(crate) async fn stop_now(worker: &mut Process) -> Result<bool> {
    worker.signal(Signal::SIGTERM);
    tasks::eventually("the drain", async || Ok(worker.count("draining") > 0)).await?;
    let began = Instant::now();
    worker.signal(Signal::SIGTERM);
    worker.wait().await;
    Ok(began.elapsed() < STOPPING_TIME)
}

/// Downloads what a task has left, and returns whether it is whole.
async fn is_whole(fixture: &Fixture, name: &str) -> Result<bool> {
    let id = name.rsplit('/').next().unwrap();
    fixture.rota(&["download", id, "--to", id]).await.success();
    let output = fixture.dir().join(id).join("output");
    let sum = hex::encode(Sha256::digest(fs::read(output.join("file"))?));
    Ok(sum == fs::read_to_string(output.join("sum"))?.trim())
}

/// The storage is away for long, and with it, for a while, the worker and the control plane.
#[tokio::test]
async fn work_waits_for_its_storage_without_a_slot() -> Result<()> {
    let mut fixture = impatient();
    let folder = fixture.dir().join("s3");
    fs::create_dir_all(&folder)?;
    let s3 = S3Server::start(&folder).await?;
    s3.bucket("rota")?;
    fixture.server_environment.push(("ROTA_SERVER_ARTIFACTS", "s3://rota/team".to_owned()));
    fixture.server_environment.extend(s3.environment());
    fixture.start_server().await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let gate = fixture.dir().join("go-on");
    let name = tasks::create(&client, task(&gate)).await?.name;
    workload::prints(&client, &name, "once").await?;
    let address = s3.address();
    drop(s3);
    fs::write(&gate, "")?;
    waits_for_storage(&client, &name).await?;
    // Not with it: what may have secrets.
    let running = fixture.state_dir().join("running/default/w");
    tasks::eventually("only what is to be stored", async || {
        let own = fs::read_dir(&running)?.next().context("the attempt has a directory")??.path();
        let names: Vec<_> =
            fs::read_dir(own.join("scratch"))?.flatten().map(|entry| entry.file_name()).collect();
        Ok(names == ["output"])
    })
    .await?;
    let explained = fixture.rota(&["explain", name.rsplit('/').next().unwrap()]).await.success();
    assert!(explained.contains("worker w has it on its disk"), "{explained}");
    let listed = fixture.rota(&["get", "tasks"]).await.success();
    assert!(listed.contains("delivery"), "{listed}");

    // The only slot is free.
    let other = tasks::create(&client, workload::shell("echo other", &[])).await?.name;
    assert_eq!(tasks::ended(&client, &other).await?.status.unwrap().state(), TaskState::Succeeded);

    // Nothing is lost with the process of the worker, nor with that of the control plane.
    kill(&client, worker, "w").await?;
    fixture.kill_server().await;
    fixture.start_server().await?;
    waits_for_storage(&client, &name).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    waits_for_storage(&client, &name).await?;
    let other = tasks::create(&client, workload::shell("echo other", &[])).await?.name;
    assert_eq!(tasks::ended(&client, &other).await?.status.unwrap().state(), TaskState::Succeeded);

    let _s3 = S3Server::start_at(&folder, address).await?;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &name).await?, "once\n");
    assert!(is_whole(&fixture, &name).await?);
    tasks::eventually("an empty directory", async || {
        Ok(fs::read_dir(fixture.state_dir().join("running/default/w"))?.next().is_none())
    })
    .await?;
    history::check(&client, true).await?.check()
}

/// A storage that is away for long must not fill the disk: beyond eight, an attempt keeps its slot, and no other one begins.
#[tokio::test]
async fn ninth_attempt_keeps_its_slot() -> Result<()> {
    let mut fixture = impatient();
    fixture.start_server().await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let _other = fixture.worker(workload::AGENT, "other", 1).await?;
    let storage = Folder::of(&fixture);
    storage.take_away()?;
    let create = async |worker: &str, line: &str| -> Result<String> {
        let mut task = workload::shell(line, &[]);
        let kind = Some(v1::target::Kind::Worker(worker.to_owned()));
        task.spec.get_or_insert_default().target = Some(v1::Target { kind });
        Ok(tasks::create(&client, task).await?.name)
    };
    let mut names = Vec::new();
    for _ in 0..10 {
        names.push(create("w", "echo once; echo text > $ROTA_OUTPUT/file").await?);
    }
    for name in &names[..8] {
        waits_for_storage(&client, name).await?;
    }
    workload::prints(&client, &names[8], "once").await?;
    // Takes longer than a worker waits for the storage before it would release the slot.
    for _ in 0..5 {
        tasks::ended(&client, &create("other", "sleep 0.1").await?).await?;
    }
    let status = async |name: &str| anyhow::Ok(tasks::get(&client, name).await?.status.unwrap_or_default());
    let ninth = status(&names[8]).await?;
    assert_eq!((ninth.state(), ninth.delivering), (TaskState::Running, false));
    assert_eq!(status(&names[9]).await?.state(), TaskState::Queued);
    storage.bring_back()?;
    for name in &names {
        let status = tasks::ended(&client, name).await?.status.unwrap();
        assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    }
    history::check(&client, true).await?.check()
}

/// A drained worker does not wait either; of one whose disk is lost, the task runs again.
#[tokio::test]
async fn work_runs_again_only_without_its_disk() -> Result<()> {
    let mut fixture = impatient();
    fixture.start_server().await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let mut worker = fixture.worker(workload::AGENT, "w", 2).await?;
    let gate = fixture.dir().join("go-on");
    let kept = tasks::create(&client, task(&gate)).await?.name;
    workload::prints(&client, &kept, "once").await?;
    let storage = Folder::of(&fixture);
    storage.take_away()?;
    fs::write(&gate, "")?;
    waits_for_storage(&client, &kept).await?;
    worker.signal(Signal::SIGTERM);
    worker.wait().await;
    let worker = fixture.worker(workload::AGENT, "w", 2).await?;
    waits_for_storage(&client, &kept).await?;
    let cancelled = tasks::create(&client, task(&gate)).await?.name;
    waits_for_storage(&client, &cancelled).await?;
    tasks::cancel(&client, &cancelled).await?;
    assert_eq!(tasks::ended(&client, &cancelled).await?.status.unwrap().state(), TaskState::Cancelled);

    kill(&client, worker, "w").await?;
    waits_for_storage(&client, &kept).await?;
    fs::remove_dir_all(fixture.state_dir())?;
    storage.bring_back()?;
    let _worker = fixture.worker(workload::AGENT, "w", 2).await?;
    let status = tasks::ended(&client, &kept).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &kept).await?, "once\nonce\n");
    assert!(is_whole(&fixture, &kept).await?);
    history::check(&client, true).await?.check()
}

/// Tasks that are given files wait for them, without a slot, and however little time they have to work.
#[tokio::test]
async fn files_that_are_given_wait_for_their_storage() -> Result<()> {
    let mut fixture = Fixture::start(Graces::SHORT).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    fs::write(fixture.dir().join("sales.csv"), "1,2,3")?;
    let mut names = Vec::new();
    for time in ["20s", "1h"] {
        let run = ["run", "--agent", workload::AGENT, "--input", "sales.csv", "--detach", "--timeout", time];
        let line = r#"cat "$ROTA_CONTEXT/input/sales.csv""#;
        let id = fixture.rota(&[&run[..], &["--command", "--", "sh", "-c", line]].concat()).await.success();
        names.push(rota_proto::names::task(tasks::NAMESPACE, id.trim()));
    }
    let [short, long] = &names[..] else { unreachable!() };
    let storage = Folder::of(&fixture);
    storage.take_away()?;
    let worker = fixture.worker(workload::AGENT, "w", 2).await?;
    let waits = |status: &v1::TaskStatus| {
        status.state() == TaskState::Pending
            && status.waiting.iter().any(|wait| wait.reason() == v1::WaitReason::RetryDelay)
    };
    // More than its time, in which no program has run.
    tasks::until(&client, short, |status| waits(status) && status.attempt > 1).await?;
    let id = long.rsplit('/').next().unwrap();
    tasks::eventually("the explanation", async || {
        let explained = fixture.rota(&["explain", id]).await.success();
        Ok(explained.contains("attempts wait for the storage of artifacts"))
    })
    .await?;
    let status = fixture.rota(&["admin", "status"]).await;
    assert!(status.out.contains("storage of artifacts"), "{status:?}");
    // A slow machine may have begun the next attempt, which has a notice of its own.
    let mut log = tasks::log(&client, long).await?;
    log.retain(|event| event.attempt == 1);
    assert_eq!(tasks::notices(&log), ["artifacts_unavailable"]);
    kill(&client, worker, "w").await?;

    fixture.environment = vec![("ROTA_WORKER_STORING_TIMEOUT", "100ms".to_owned())];
    let _worker = fixture.worker(workload::AGENT, "w", 2).await?;
    tasks::until(&client, long, |status| waits(status) && status.attempt > 2).await?;
    storage.bring_back()?;
    for name in &names {
        let status = tasks::ended(&client, name).await?.status.unwrap();
        assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
        assert_eq!(workload::printed(&client, name).await?, "1,2,3");
    }
    history::check(&client, true).await?.check()
}

/// Nor is it done again because its worker has to end before the attempt has released its slot.
#[tokio::test]
async fn forced_stops_leave_work_to_the_next_process() -> Result<()> {
    let fixture = Fixture::start(Graces::SHORT).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let mut worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let gate = fixture.dir().join("go-on");
    let name = tasks::create(&client, task(&gate)).await?.name;
    workload::prints(&client, &name, "once").await?;
    let storage = Folder::of(&fixture);
    storage.take_away()?;
    fs::write(&gate, "")?;
    let work_ended = |event: &v1::Event| matches!(event.kind, Some(v1::event::Kind::WorkEnded(_)));
    tasks::eventually("the end of the work", async || {
        Ok(tasks::log(&client, &name).await?.iter().any(work_ended))
    })
    .await?;
    stop_now(&mut worker).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    waits_for_storage(&client, &name).await?;
    storage.bring_back()?;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &name).await?, "once\n");
    assert!(is_whole(&fixture, &name).await?);
    history::check(&client, true).await?.check()
}

/// A storage that responds and has lost what tasks need is not waited for.
#[tokio::test]
async fn lost_contents_are_not_waited_for() -> Result<()> {
    let fixture = Fixture::start(Graces::SHORT).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let mut worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let gate = fixture.dir().join("go-on");
    let line = format!(
        "cat $ROTA_CHECKPOINT/step 2>/dev/null; echo 50 > $ROTA_CHECKPOINT/step; echo once; \
         until test -e {}; do sleep 0.05; done",
        gate.display()
    );
    let continued = tasks::create(&client, workload::shell(&line, &[])).await?.name;
    workload::prints(&client, &continued, "once").await?;
    stop_now(&mut worker).await?;
    fs::write(fixture.dir().join("sales.csv"), "1,2,3")?;
    let run = ["run", "--agent", workload::AGENT, "--input", "sales.csv", "--detach", "--command", "--"];
    let given = fixture.rota(&[&run[..], &["true"]].concat()).await.success();
    let folder = Folder::of(&fixture).0;
    fs::remove_dir_all(&folder)?;
    fs::create_dir(&folder)?;
    // Otherwise it would be taken for one that is away.
    fs::write(folder.join(".rota-artifacts"), "")?;
    fs::rename(fixture.state_dir(), fixture.dir().join("lost"))?;
    fs::write(&gate, "")?;
    let _worker = fixture.worker(workload::AGENT, "other", 1).await?;
    let status = tasks::ended(&client, &continued).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &continued).await?, "once\nonce\n", "it starts over");
    let notices = tasks::notices(&tasks::log(&client, &continued).await?);
    assert!(notices.iter().any(|code| code == "checkpoint_unusable"), "{notices:?}");
    let given = rota_proto::names::task(tasks::NAMESPACE, given.trim());
    let status = tasks::ended(&client, &given).await?.status.unwrap();
    let failure = status.failure.unwrap();
    assert_eq!((failure.class(), status.attempt), (v1::FailureClass::Invalid, 1), "{failure:?}");
    Ok(())
}

/// Nor does it end with its agent, whose workers take no other tasks.
#[tokio::test]
async fn work_is_stored_after_its_agent_is_deleted() -> Result<()> {
    let mut fixture = impatient();
    fixture.data = fixture.dir().join("data");
    let (_dev, client) = dev::up(&fixture).await?;
    fixture.apply("agent.yaml", dev::AGENT).await.success();
    let gate = fixture.dir().join("go-on");
    let name = tasks::create(&client, task(&gate)).await?.name;
    workload::prints(&client, &name, "once").await?;
    let storage = Folder::of(&fixture);
    storage.take_away()?;
    fs::write(&gate, "")?;
    waits_for_storage(&client, &name).await?;
    let first = tasks::workers(&client).await?.remove(0).instance;
    fixture.rota(&["delete", "agent", workload::AGENT]).await.success();
    tasks::eventually("another process that only stores", async || {
        Ok(tasks::workers(&client).await?.iter().any(|worker| worker.instance != first && worker.draining))
    })
    .await?;
    storage.bring_back()?;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    assert!(is_whole(&fixture, &name).await?);
    tasks::eventually("no workers", async || Ok(tasks::workers(&client).await?.is_empty())).await
}
