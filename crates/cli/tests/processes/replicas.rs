//! Several replicas on one PostgreSQL: the owner is killed, stopped and frozen; clients and workers are connected to another.

mod group;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::{Limits, TaskState, WatchTaskRequest};
use rota_proto::worker::v1::session_response::Kind as Incoming;
use rota_testkit::postgres::{PostgresServer, Stop};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::tasks;
use tokio::time::Instant;

pub(crate) use self::group::Replicas;
use crate::process::Process;
use crate::{Fixture, Graces, faked_clock, workload};

/// Time in which an owner keeps its lease of 10 s without its database: its last renewal may be a quarter of that ago, or late.
const MAX_RESTART: Duration = Duration::from_secs(6);

#[tokio::test]
async fn killed_owner_is_replaced() -> Result<()> {
    let mut replicas = Replicas::start(PostgresServer::shared().database()?, Graces::LONG, 3).await?;
    let client = replicas.fixture.client()?;
    workload::agent(&client).await?;
    let _worker = replicas.fixture.worker(workload::AGENT, "one", 4).await?;
    let names = replicas.run_tasks(4).await?;
    // One that stands by is alive, ready and scraped.
    assert_eq!(replicas.page(1, "/livez").await?.0, 200);
    let (status, metrics) = replicas.page(1, "/metrics").await?;
    assert!(status == 200 && metrics.lines().any(|line| line == "rota_owner 0"), "{metrics}");
    let (status, ready) = replicas.page(1, "/readyz").await?;
    assert!(status == 200 && ready.contains("standby") && ready.contains("replica-0"), "{ready}");
    replicas.running[0].take().unwrap().kill().await;
    // No lease lasts longer, and so no takeover.
    let bounded = "SELECT bool_and(expires <= clock_timestamp() + interval '10 s') FROM rota.replicas";
    assert_eq!(PostgresServer::shared().sql(&replicas.url, bounded)?, "t");
    let owner = replicas.owner_of(&[1, 2]).await?;
    replicas.start_one(0, "standing by").await;
    for name in &names {
        let known = workload::printed(&client, name).await?.lines().count();
        workload::prints(&client, name, &format!("line {}\n", known + 5)).await?;
    }
    // Once more, whichever it is.
    replicas.running[owner].take().unwrap().kill().await;
    let others: Vec<_> = (0..3).filter(|index| *index != owner).collect();
    replicas.owner_of(&others).await?;
    replicas.start_one(owner, "standing by").await;
    replicas.end_tasks(&names).await
}

#[tokio::test]
async fn stopped_owner_hands_over() -> Result<()> {
    let mut replicas = Replicas::start(PostgresServer::shared().database()?, Graces::LONG, 2).await?;
    let client = replicas.fixture.client()?;
    workload::agent(&client).await?;
    let _worker = replicas.fixture.worker(workload::AGENT, "one", 4).await?;
    let names = replicas.run_tasks(3).await?;
    let owner = replicas.running[0].take().unwrap();
    owner.signal(Signal::SIGTERM);
    let ended = owner.ended().await;
    assert!(ended.status.success(), "{ended:?}");
    // A lease that was not given back would be waited for.
    let lease = "SELECT count(*) FROM rota.replicas WHERE name = 'replica-0'";
    assert_eq!(PostgresServer::shared().sql(&replicas.url, lease)?, "0");
    // Meanwhile, calls are made.
    let mut short = Vec::new();
    for _ in 0..20 {
        short.push(tasks::create(&client, workload::shell("echo short", &[])).await?.name);
    }
    replicas.owner_of(&[1]).await?;
    for name in &short {
        assert_eq!(tasks::ended(&client, name).await?.status.unwrap().state(), TaskState::Succeeded);
    }
    replicas.end_tasks(&names).await
}

/// A replica that was frozen beyond its lease believes that it still owns the database.
#[tokio::test]
async fn frozen_owner_changes_nothing() -> Result<()> {
    let mut replicas = Replicas::start(PostgresServer::shared().database()?, Graces::LONG, 2).await?;
    let client = replicas.fixture.client()?;
    workload::agent(&client).await?;
    let _worker = replicas.fixture.worker(workload::AGENT, "one", 3).await?;
    let names = replicas.run_tasks(3).await?;
    replicas.replica(0).signal(Signal::SIGSTOP);
    replicas.owner_of(&[1]).await?;
    let late = tasks::create(&client, workload::shell("echo line 1; echo last 1", &[])).await?.name;
    replicas.replica(0).signal(Signal::SIGCONT);
    let ended = replicas.running[0].take().unwrap().ended().await;
    // One that was frozen within a renewal knows only that it is late.
    let reasons = ["taken over the database", "not reached for the time of the lease"];
    let explained = reasons.iter().any(|reason| ended.output.contains(reason));
    assert!(!ended.status.success() && explained, "{ended:?}");
    replicas.start_one(0, "standing by").await;
    // It waits for a slot.
    let names = [names, vec![late]].concat();
    replicas.end_tasks(&names).await
}

#[tokio::test]
async fn database_is_described_and_checked() -> Result<()> {
    let replicas = Replicas::start(PostgresServer::shared().database()?, Graces::LONG, 2).await?;
    let listed = replicas.fixture.rota(&["admin", "replicas"]).await.success();
    for words in ["standing by", "PostgreSQL 1", "\nrevision ", ", epoch "] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    let report = replicas.fixture.rota(&["doctor", "-o", "json"]).await.json();
    let checks: Vec<_> =
        report["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "database").collect();
    let text = format!("{checks:?}");
    for words in [
        "PostgreSQL 1",
        "fsync on",
        "no standby",
        "a commit takes",
        "of 300 connections",
        "owned by replica-0",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(checks.iter().all(|check| check["verdict"] != "fail"), "{text}");
    Ok(())
}

/// A cluster that starts has its pods in any order.
#[tokio::test]
async fn database_that_is_away_is_waited_for() -> Result<()> {
    let server = PostgresServer::start("")?;
    let url = server.database()?;
    server.stop(Stop::Fast)?;
    let mut replicas = Replicas::prepare(Fixture::bare(), url, 1)?;
    replicas.start_one(0, "waiting for database").await;
    tasks::eventually("the cause", async || {
        let Ok((status, text)) = replicas.page(0, "/readyz").await else { return Ok(false) };
        Ok(status == 503 && text.contains("\"store\"") && text.contains("no connection to the database"))
    })
    .await?;
    assert_eq!(replicas.page(0, "/livez").await?.0, 200);
    server.resume()?;
    replicas.running[0].as_mut().unwrap().prints("listening on").await;
    workload::agent(&replicas.fixture.client()?).await
}

/// As the owner, it could not read the secrets of tasks that others have created.
#[tokio::test]
async fn replica_with_another_key_never_stands_by() -> Result<()> {
    let mut replicas = Replicas::start(PostgresServer::shared().database()?, Graces::LONG, 2).await?;
    replicas.running[1].take().unwrap().kill().await;
    let key = replicas.fixture.dir().join("key");
    std::fs::write(&key, [8; 32])?;
    replicas.start_one(1, "sealed under the key").await;
    let ended = replicas.running[1].take().unwrap().ended().await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(!ended.output.contains("standing by"), "{ended:?}");
    std::fs::write(&key, [7; 32])?;
    replicas.start_one(1, "standing by").await;
    Ok(())
}

/// A database that is restarted in time costs neither its owner nor the connections that are passed on to that.
#[tokio::test]
async fn database_restart_cuts_no_connection() -> Result<()> {
    for _ in 0..4 {
        if restart_is_survived().await? {
            return Ok(());
        }
    }
    panic!("no owner has survived a restart of its database");
}

/// Restarts the database below two replicas. Returns false if that took so long that it may have cost the owner its lease.
async fn restart_is_survived() -> Result<bool> {
    let server = PostgresServer::start("")?;
    let mut replicas = Replicas::start(server.database()?, Graces::LONG, 2).await?;
    let client = replicas.fixture.client()?;
    workload::agent(&client).await?;
    let _worker = replicas.fixture.worker(workload::AGENT, "one", 2).await?;
    let names = replicas.run_tasks(1).await?;
    let began = Instant::now();
    server.stop(Stop::Fast)?;
    replicas.running[1].as_mut().unwrap().prints("lost the database while waiting for it").await;
    server.resume()?;
    tasks::eventually("an owner", async || {
        Ok(replicas.owns(1) || replicas.replica(0).count("connected to the database again") > 0)
    })
    .await?;
    if began.elapsed() > MAX_RESTART {
        return Ok(false);
    }
    assert!(!replicas.owns(1), "the owner had time to connect again");
    let late = tasks::create(&client, workload::shell("echo late", &[])).await?;
    tasks::ended(&client, &late.name).await?;
    assert_eq!(replicas.replica(0).count("worker joined"), 1);
    replicas.end_tasks(&names).await?;
    Ok(true)
}

/// A client that stops reading keeps its connection open, whatever the server does.
#[tokio::test]
async fn stalled_client_delays_no_handover() -> Result<()> {
    let mut fixture = Fixture::bare();
    // Longer than every wait of a test.
    fixture.shutdown_grace = "1h";
    let mut replicas = Replicas::start_in(fixture, PostgresServer::shared().database()?, 2).await?;
    let client = replicas.fixture.client()?;
    workload::agent(&client).await?;
    let _worker = replicas.fixture.worker(workload::AGENT, "one", 1).await?;
    // More than a client takes that reads nothing.
    let task = workload::shell("head -c 12000000 /dev/zero | tr '\\0' x | fold -w 1000", &[]);
    let name = tasks::create(&client, task).await?.name;
    tasks::ended(&client, &name).await?;
    let (owner, other) = (replicas.addrs[0], replicas.addrs[1]);
    replicas.fixture.connect_to(owner);
    let stalled = replicas.fixture.client()?;
    replicas.fixture.connect_to(other);
    let mut watch =
        stalled.tasks().watch_task(WatchTaskRequest { name, ..Default::default() }).await?.into_inner();
    assert!(watch.message().await?.is_some());
    replicas.replica(0).signal(Signal::SIGTERM);
    replicas.owner_of(&[1]).await?;
    // The old owner still waits for the client.
    replicas.running[0].take().unwrap().kill().await;
    Ok(())
}

/// Deadlines are set by the clock of the database, with which those of machines need not agree.
#[tokio::test]
async fn deadlines_pass_on_a_machine_that_is_behind() -> Result<()> {
    let mut fixture = Fixture::bare();
    let behind = [("FAKETIME", "-60m".to_owned()), ("FAKETIME_DONT_RESET", "1".to_owned())];
    fixture.server_environment = faked_clock::environment(&faked_clock::library()?, behind);
    let replicas = Replicas::start_in(fixture, PostgresServer::shared().database()?, 1).await?;
    let client = replicas.fixture.client()?;
    workload::agent(&client).await?;
    let mut task = workload::shell("echo never", &[]);
    let limits = Limits { queue_timeout: Some(tasks::millis(50)), ..Default::default() };
    task.spec.get_or_insert_default().limits = Some(limits);
    let name = tasks::create(&client, task).await?.name;
    assert_eq!(tasks::ended(&client, &name).await?.status.unwrap().state(), TaskState::Failed);
    Ok(())
}

/// Each connection takes two files at a replica that stands by, and many systems start programs with few.
#[tokio::test]
async fn replicas_may_open_as_many_files_as_allowed() -> Result<()> {
    let mut fixture = Fixture::bare();
    let program = fixture.dir().join("limited");
    let text = format!("#!/bin/sh\nulimit -Sn 200\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_rota"));
    std::fs::write(&program, text)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700))?;
    fixture.server_program = Some(program);
    let replicas = Replicas::start_in(fixture, PostgresServer::shared().database()?, 1).await?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", replicas.replica(0).pid()))?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard, ..] = files.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{files}") };
    assert_eq!(soft, hard);
    Ok(())
}

/// Sessions go through the replica that stands by, to the owner; the next owner knows what the first one has revoked.
#[tokio::test]
async fn revoked_token_is_refused_by_every_owner() -> Result<()> {
    let mut replicas = Replicas::start(PostgresServer::shared().database()?, Graces::LONG, 2).await?;
    workload::agent(&replicas.fixture.client()?).await?;
    let worker = replicas.fixture.worker(workload::AGENT, "one", 1).await?;
    let listed = replicas.fixture.rota(&["admin", "worker-tokens", "-o", "json"]).await.json();
    let name = listed["workerTokens"][0]["name"].as_str().unwrap();
    replicas.fixture.rota(&["admin", "revoke-worker-token", name]).await.success();
    let ended = worker.ended().await;
    assert!(!ended.status.success() && ended.output.contains("was revoked"), "{}", ended.output);

    replicas.running[0].take().unwrap().kill().await;
    assert_eq!(replicas.owner_of(&[1]).await?, 1);
    let fixture = &replicas.fixture;
    let mut command = fixture.command(&["worker", "--agent", workload::AGENT, "--worker", "one"]);
    command.arg("--state-dir").arg(fixture.state_dir());
    command.env("ROTA_ENDPOINT", format!("http://{}", replicas.addrs[1]));
    command.env("ROTA_TOKEN_FILE", fixture.dir().join("one.token"));
    let ended = Process::start("again", command).ended().await;
    assert!(!ended.status.success() && ended.output.contains("was revoked"), "{}", ended.output);
    Ok(())
}

/// Of a worker that does not note it by itself, as one that was cut off before the message arrived.
#[tokio::test]
async fn drain_survives_a_takeover() -> Result<()> {
    let mut replicas = Replicas::start(PostgresServer::shared().database()?, Graces::LONG, 2).await?;
    workload::agent(&replicas.fixture.client()?).await?;
    let token = std::fs::read_to_string(replicas.fixture.worker_token(workload::AGENT, "one").await?)?;
    let join = async |fixture: &Fixture| {
        let client = fixture.client_with(token.trim(), Duration::from_secs(60))?;
        RawWorker::join(&client, raw::hello(workload::AGENT, "one", 1)).await
    };
    let _before = join(&replicas.fixture).await?;
    let drained = replicas.fixture.rota(&["drain", workload::AGENT]).await.success();
    assert_eq!(drained, "worker/one draining");
    replicas.running[0].take().unwrap().kill().await;
    replicas.owner_of(&[1]).await?;
    let listed = tasks::workers(&replicas.fixture.client()?).await?;
    assert!(listed.iter().any(|worker| worker.draining && !worker.connected), "{listed:?}");
    let mut worker = join(&replicas.fixture).await?;
    assert!(matches!(worker.receive().await?, Incoming::Drain(_)));
    Ok(())
}
