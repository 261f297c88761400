//! Disks of workers: full ones among healthy ones, and what is left on them. Real file systems, real git, real programs.

use std::path::Path;

use anyhow::Result;
use futures::future::try_join_all;
use rota_proto::v1::{self, TaskState, event};
use rota_testkit::{history, tasks};
use tokio::process::Command;

use crate::process::Process;
use crate::small_disk::SmallDisk;
use crate::{Fixture, Graces, workload};

const HEALTHY: usize = 19;
const TASKS: usize = 60;
/// Size of a sick worker's disk, and of the repository that its attempts clone.
const DISK: &str = "1m";
const REPOSITORY: u64 = 3 << 20;

/// Starts a worker whose state directory is a small disk.
async fn sick(fixture: &Fixture, name: &str, size: &str, full: bool) -> Result<(Process, SmallDisk)> {
    let disk = SmallDisk::mount(&fixture.dir().join(format!("disk-{name}")), size, fixture.mark()).await?;
    if full {
        disk.fill()?;
    }
    let mut worker = fixture.command(&["worker", "--agent", workload::AGENT, "--worker", name]);
    worker.arg("--state-dir").arg(disk.path());
    // It would not take anything otherwise.
    worker.args(["--min-free-disk-mib", "0"]);
    worker.env("ROTA_TOKEN_FILE", fixture.worker_token(workload::AGENT, name).await?);
    let process = Process::start(name, disk.command(&worker));
    tasks::connected(&fixture.client()?, name).await?;
    Ok((process, disk))
}

/// Creates a repository that does not fit on the disk of a sick worker.
async fn repository(at: &Path) -> Result<()> {
    std::fs::create_dir(at)?;
    let file = std::fs::File::create(at.join("big"))?;
    std::io::copy(&mut std::io::Read::take(std::fs::File::open("/dev/urandom")?, REPOSITORY), &mut &file)?;
    let commit =
        "git init -q && git add big && git -c user.name=test -c user.email=test@invalid commit -qm big";
    assert!(Command::new("sh").args(["-c", commit]).current_dir(at).status().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disks_fail_no_task() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let origin = fixture.dir().join("origin");
    repository(&origin).await?;
    // By name, they come first.
    let full = sick(&fixture, "a-full", DISK, true).await?;
    let small = sick(&fixture, "a-small", DISK, false).await?;
    let healthy = (0..HEALTHY)
        .map(async |number| fixture.worker(workload::AGENT, &format!("healthy-{number:02}"), 1).await);
    let healthy = try_join_all(healthy).await?;

    let git = v1::GitSource { url: format!("file://{}", origin.display()), ..v1::GitSource::default() };
    let mut task = workload::shell("test -s big && sleep 0.5", &[]);
    let spec = task.spec.get_or_insert_default();
    spec.workspace = Some(v1::Workspace { git: Some(git), ..v1::Workspace::default() });
    // On a slow machine, the worker with the small disk may be the only free one again and again.
    spec.retry = Some(v1::RetryPolicy { max_attempts: 20, ..Default::default() });
    let created = try_join_all((0..TASKS).map(|_| tasks::create(&client, task.clone()))).await?;
    for name in created.iter().map(|task| &task.name) {
        let status = tasks::ended(&client, name).await?.status.unwrap();
        assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
    }

    let workers = tasks::workers(&client).await?;
    let of = |name: &str| workers.iter().find(|worker| worker.name.ends_with(name)).unwrap();
    let (a_full, a_small) = (of("a-full"), of("a-small"));
    assert_eq!((a_full.succeeded, a_full.failed), (0, 0));
    assert!(a_full.not_ready_reason.contains("No space left on device"), "{a_full:?}");
    // Only its attempts show what is wrong with the other one: they leave nothing of the clone that does not fit.
    assert_eq!((a_small.succeeded, a_small.not_ready_reason.as_str()), (0, ""));
    assert!(a_small.failed > 0);
    assert!(fixture.rota(&["workers"]).await.success().contains("NotReady"));
    assert!(fixture.rota(&["workers", "a-full"]).await.success().contains("No space left on device"));

    // Its breaker opens, if it had time for fewer attempts after further ones.
    tasks::eventually("the breaker of a-small is open", async || {
        if fixture.server().count("the circuit breaker of a worker changed state") > 0 {
            return Ok(true);
        }
        let next = try_join_all((0..TASKS).map(|_| tasks::create(&client, task.clone()))).await?;
        for name in next.iter().map(|task| &task.name) {
            let status = tasks::ended(&client, name).await?.status.unwrap();
            assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
        }
        Ok(false)
    })
    .await?;

    let mut bound = workload::shell("true", &[]);
    let target = v1::target::Kind::Worker("a-full".to_owned());
    bound.spec.get_or_insert_default().target = Some(v1::Target { kind: Some(target) });
    let bound = tasks::create(&client, bound).await?.name;
    let explained = fixture.rota(&["explain", bound.rsplit('/').next().unwrap()]).await.success();
    assert!(explained.contains("worker a-full: ") && explained.contains("No space left"), "{explained}");
    tasks::cancel(&client, &bound).await?;
    drop((full, small, healthy));
    history::check(&client, true).await?.check()
}

/// A clean-up of a cache copies its packs. Where that does not fit, it would fill the disk for good.
#[tokio::test]
async fn clean_ups_fill_no_disk() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let origin = fixture.dir().join("origin");
    repository(&origin).await?;
    let shell =
        async |line: &str, at: &Path| Command::new("sh").args(["-c", line]).current_dir(at).status().await;
    // It is large, and what is checked out is not.
    let small =
        "git rm -q big && git -c user.name=test -c user.email=test@invalid commit -qm small --allow-empty";
    assert!(shell(small, &origin).await?.success());
    let (_worker, disk) = sick(&fixture, "small", "5m", false).await?;
    let git = v1::GitSource { url: format!("file://{}", origin.display()), ..v1::GitSource::default() };
    let mut task = workload::shell("true", &[]);
    task.spec.get_or_insert_default().workspace =
        Some(v1::Workspace { git: Some(git), ..v1::Workspace::default() });
    let run = async || {
        let name = tasks::create(&client, task.clone()).await?.name;
        let status = tasks::ended(&client, &name).await?.status.unwrap();
        assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{status:?}");
        anyhow::Ok(())
    };
    run().await?;
    let caches = std::fs::read_dir(disk.inside().join("repositories/default"))?.flatten();
    let cache = caches.map(|entry| entry.path()).find(|path| path.is_dir()).unwrap();
    // More than git leaves alone.
    let packs = "cd \"$AT\" && for n in $(seq 51); do \
                 echo $n | git hash-object -w --stdin | git pack-objects -q objects/pack/pack; done";
    let mut pack = Command::new("sh");
    pack.args(["-c", packs]).env("AT", disk.path().join(cache.strip_prefix(disk.inside())?));
    pack.env("PATH", rota_telemetry::env::var("PATH").unwrap_or_default());
    assert!(disk.command(&pack).status().await?.success());
    run().await?;
    let packs = std::fs::read_dir(cache.join("objects/pack"))?.flatten();
    let left: Vec<_> =
        packs.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().contains("tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(tasks::workers(&client).await?[0].not_ready_reason, "");
    Ok(())
}

/// Others fill the disk when the agent has done its work, and free it later: nothing is done, or paid for, twice.
#[tokio::test]
async fn work_waits_for_room_on_its_disk() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let origin = fixture.dir().join("origin");
    repository(&origin).await?;
    let (_worker, disk) = sick(&fixture, "small", "12m", false).await?;
    let gate = fixture.dir().join("go-on");
    let line = format!(
        "echo once; head -c 500000 /dev/urandom > work; until test -e {}; do sleep 0.1; done",
        gate.display()
    );
    let git = v1::GitSource { url: format!("file://{}", origin.display()), ..v1::GitSource::default() };
    let mut task = v1::Task { alias: "work".to_owned(), ..workload::shell(&line, &[]) };
    task.spec.get_or_insert_default().workspace =
        Some(v1::Workspace { git: Some(git), ..v1::Workspace::default() });
    let name = tasks::create(&client, task).await?.name;
    workload::prints(&client, &name, "once").await?;
    let at = disk.inside().join("running/default/small");
    tasks::eventually("the work", async || {
        let own = std::fs::read_dir(&at)?.flatten().next();
        Ok(own.is_some_and(|own| {
            own.path().join("work/work").metadata().is_ok_and(|found| found.len() == 500_000)
        }))
    })
    .await?;
    disk.fill()?;
    std::fs::write(&gate, "")?;
    tasks::eventually("the wait for room", async || {
        let log = tasks::log(&client, &name).await?;
        Ok(log.iter().any(|event| {
            matches!(&event.kind, Some(event::Kind::Notice(notice)) if notice.code == "changes_waiting")
        }))
    })
    .await?;
    disk.free()?;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &name).await?, "once\n");
    let diff = fixture.rota(&["diff", "work", "--stat"]).await.success();
    assert!(diff.contains(": 1 files, "), "{diff}");
    Ok(())
}

/// A worker whose machine has no git hands the task on, without an attempt.
#[tokio::test]
async fn machine_without_git_takes_no_clones() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let origin = fixture.dir().join("origin");
    repository(&origin).await?;
    let programs = fixture.dir().join("programs");
    std::fs::create_dir(&programs)?;
    std::os::unix::fs::symlink("/bin/sh", programs.join("sh"))?;
    let mut command = fixture.command(&["worker", "--agent", workload::AGENT, "--worker", "a-bare"]);
    command.arg("--state-dir").arg(fixture.state_dir()).env("PATH", &programs);
    command.env("ROTA_TOKEN_FILE", fixture.worker_token(workload::AGENT, "a-bare").await?);
    let _bare = Process::start("a-bare", command);
    tasks::connected(&client, "a-bare").await?;

    let git = v1::GitSource { url: format!("file://{}", origin.display()), ..v1::GitSource::default() };
    let mut task = workload::shell("test -s big", &[]);
    task.spec.get_or_insert_default().workspace =
        Some(v1::Workspace { git: Some(git), ..v1::Workspace::default() });
    let name = tasks::create(&client, task).await?.name;
    tasks::eventually("the refusal", async || {
        let explained = fixture.rota(&["explain", name.rsplit('/').next().unwrap()]).await.success();
        Ok(explained.contains("git is not on the worker's PATH"))
    })
    .await?;
    let _whole = fixture.worker(workload::AGENT, "whole", 1).await?;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{status:?}");
    // It is fit for everything else.
    let mut plain = workload::shell("echo done", &[]);
    let target = v1::target::Kind::Worker("a-bare".to_owned());
    plain.spec.get_or_insert_default().target = Some(v1::Target { kind: Some(target) });
    let plain = tasks::create(&client, plain).await?.name;
    assert_eq!(tasks::ended(&client, &plain).await?.status.unwrap().state(), TaskState::Succeeded);
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn kept_workspaces_are_cleaned() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "first", 1).await?;
    let state = fixture.state_dir();
    let mut task = workload::shell("echo work > file", &[]);
    task.spec.get_or_insert_default().workspace = Some(v1::Workspace {
        mode: v1::WorkspaceMode::Keep.into(),
        path: "thread".to_owned(),
        ..v1::Workspace::default()
    });
    let name = tasks::create(&client, task).await?.name;
    assert_eq!(tasks::ended(&client, &name).await?.status.unwrap().state(), TaskState::Succeeded);
    let kept = state.join("kept/default/thread");
    let state = state.to_str().unwrap();
    let clean = async |more: &[&str]| {
        fixture.rota(&[&["clean", "--state-dir", state], more].concat()).await.success()
    };
    assert!(clean(&[]).await.contains("removed 0 workspaces"));
    let listed = clean(&["--older-than", "0s", "--dry-run"]).await;
    assert!(listed.contains("kept/default/thread") && listed.contains("would remove 1 "), "{listed}");
    assert!(kept.join("file").exists());
    let json = clean(&["--older-than", "0s", "-o", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(json["workspaces"][0]["removed"], true);
    assert!(!kept.exists());
    Ok(())
}
