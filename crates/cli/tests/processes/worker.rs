//! Workers that are killed, and workers that reconnect too late.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::{self, TaskState};
use rota_testkit::{Proxy, history, tasks};

use crate::process::Process;
use crate::procfs::{self, ProcessInfo};
use crate::{Fixture, Graces, left_results, workload};

#[tokio::test]
async fn killed_worker_is_replaced() -> Result<()> {
    let fixture = Fixture::start(Graces::SHORT).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let first = fixture.worker(workload::AGENT, "first", 1).await?;
    let mark = workload::mark();
    let line = format!(
        "[ \"$ROTA_ATTEMPT\" = 1 ] || {{ echo done; exit; }}\n{}{}",
        workload::ORPHANS,
        workload::HANG
    );
    let name = tasks::create(&client, workload::shell(&line, &[("MARK", &mark)])).await?.name;
    let began = procfs::wait_for_sessions(&mark, workload::SESSIONS).await?;
    let _second = fixture.worker(workload::AGENT, "second", 1).await?;
    first.kill().await;

    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.worker.as_str()), (TaskState::Succeeded, "second"));
    assert_eq!((status.attempt, status.worker_losses), (2, 1));
    assert_eq!(status.result.unwrap().text, "done");
    procfs::wait_for_none(&mark).await?;
    // One that is ending has lost its environment before its entry.
    tasks::eventually("their end", async || Ok(!began.iter().any(ProcessInfo::is_alive))).await?;
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn late_results_are_rejected() -> Result<()> {
    let fixture = Fixture::start(Graces::STRICT).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let proxy = Proxy::start(fixture.addr()).await?;
    let late = fixture.worker_at(proxy.addr(), workload::AGENT, "late", 1).await?;
    let gates = fixture.dir().to_owned();
    let line = "echo \"$ROTA_ATTEMPT $$\"\nuntil [ -e \"$GATES/$ROTA_ATTEMPT\" ]; do sleep 0.02; done\n\
                echo \"attempt $ROTA_ATTEMPT\"";
    let task = workload::shell(line, &[("GATES", gates.to_str().unwrap())]);
    let name = tasks::create(&client, task).await?.name;
    workload::prints(&client, &name, "1 ").await?;
    let pid: i32 = workload::printed(&client, &name).await?.trim().strip_prefix("1 ").unwrap().parse()?;
    let agent = ProcessInfo::of(pid).unwrap();
    let _other = fixture.worker(workload::AGENT, "other", 1).await?;

    // Its lease expires and another worker runs the task; only the worker is stopped, its agent exits.
    late.signal(Signal::SIGSTOP);
    let runs_elsewhere =
        |status: &v1::TaskStatus| status.worker == "other" && status.state() == TaskState::Running;
    tasks::until(&client, &name, runs_elsewhere).await?;
    std::fs::write(gates.join("1"), "")?;
    tasks::eventually("the first agent's end", async || Ok(!agent.is_alive())).await?;

    // It continues, and has its result before it can send it.
    proxy.cut();
    late.signal(Signal::SIGCONT);
    let attempts = fixture.state_dir().join("running/default/late");
    left_results::until_result_is_on_disk(&attempts).await?;
    proxy.open();
    tasks::eventually("the notice of the late result", async || {
        Ok(tasks::notices(&tasks::log(&client, &name).await?).contains(&"stale_result".to_owned()))
    })
    .await?;
    assert!(runs_elsewhere(&tasks::get(&client, &name).await?.status.unwrap()));

    std::fs::write(gates.join("2"), "")?;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.worker.as_str()), (TaskState::Succeeded, "other"));
    assert!(status.result.unwrap().text.ends_with("attempt 2"));
    let log = tasks::log(&client, &name).await?;
    assert_eq!(tasks::notices(&log), ["stale_result"]);
    assert!(!tasks::outputs(&log).concat().contains("attempt 1"));
    tasks::eventually("an empty directory", async || Ok(std::fs::read_dir(&attempts)?.next().is_none()))
        .await?;
    // The late worker accepts tasks again.
    let mut again = workload::shell("echo again", &[]);
    let target = v1::target::Kind::Worker("late".to_owned());
    again.spec.get_or_insert_default().target = Some(v1::Target { kind: Some(target) });
    let again = tasks::create(&client, again).await?.name;
    assert_eq!(tasks::ended(&client, &again).await?.status.unwrap().state(), TaskState::Succeeded);
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn drain_timeout_requeues_tasks() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let mut command = fixture.command(&[
        "worker",
        "--agent",
        workload::AGENT,
        "--worker",
        "first",
        "--drain-timeout",
        "0s",
    ]);
    command.arg("--state-dir").arg(fixture.state_dir());
    command.env("ROTA_TOKEN_FILE", fixture.worker_token(workload::AGENT, "first").await?);
    let first = Process::start("first", command);
    tasks::connected(&client, "first").await?;
    let mark = workload::mark();
    let line =
        format!("[ \"$ROTA_ATTEMPT\" = 1 ] || {{ echo done; exit; }}\n{}sleep 1000", workload::ORPHANS);
    let mut task = workload::shell(&line, &[("MARK", &mark)]);
    // A failure of the agent would be final.
    task.spec.get_or_insert_default().retry = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    let name = tasks::create(&client, task).await?.name;
    procfs::wait_for_sessions(&mark, workload::SESSIONS).await?;
    first.signal(Signal::SIGTERM);
    assert!(first.ended().await.status.success());
    procfs::wait_for_none(&mark).await?;
    let _second = fixture.worker(workload::AGENT, "second", 1).await?;

    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.worker.as_str()), (TaskState::Succeeded, "second"));
    assert_eq!((status.attempt, status.worker_losses), (2, 0));
    history::check(&client, true).await?.check()
}

/// Prints whether the program of the first attempt, which ignores all requests to end, is alive in the second one.
const NEIGHBOUR: &str = r#"
if [ "$ROTA_ATTEMPT" = 1 ]; then
    echo $$ > neighbour
    trap '' INT TERM HUP
    echo started
    while :; do sleep 0.05; done
fi
if kill -0 "$(cat neighbour)" 2>/dev/null; then echo overlap; else echo alone; fi
"#;

/// A worker is killed, and its task runs again in the same directory: on another worker, or on its successor.
async fn second_attempt_after_a_kill(workspace: v1::Workspace, successor: &str) -> Result<String> {
    let fixture = Fixture::start(Graces::SHORT).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let first = fixture.worker(workload::AGENT, "first", 1).await?;
    let mut task = workload::shell(NEIGHBOUR, &[]);
    let project = fixture.dir().join("project");
    std::fs::create_dir(&project)?;
    let path =
        if workspace.path.is_empty() { project.to_string_lossy().into_owned() } else { workspace.path };
    task.spec.get_or_insert_default().workspace = Some(v1::Workspace { path, ..workspace });
    let name = tasks::create(&client, task).await?.name;
    workload::prints(&client, &name, "started").await?;
    first.kill().await;
    let _successor = fixture.worker(workload::AGENT, successor, 1).await?;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2));
    Ok(status.result.unwrap().text)
}

#[tokio::test]
async fn kept_workspace_waits_for_programs_of_killed_worker() -> Result<()> {
    let mode = v1::WorkspaceMode::Keep.into();
    let kept = v1::Workspace { mode, path: "shared".to_owned(), ..Default::default() };
    assert_eq!(second_attempt_after_a_kill(kept, "second").await?, "alone");
    Ok(())
}

#[tokio::test]
async fn restarted_worker_waits_for_programs_of_its_predecessor() -> Result<()> {
    let mode = v1::WorkspaceMode::InPlace.into();
    let in_place = v1::Workspace { mode, ..Default::default() };
    assert_eq!(second_attempt_after_a_kill(in_place, "first").await?, "alone");
    Ok(())
}

/// Of two processes with one name and one directory the first continues: the second would end attempts that have cost money, and remove
/// their files.
#[tokio::test]
async fn second_process_in_a_workers_directory_is_refused() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _first = fixture.worker(workload::AGENT, "one", 1).await?;
    let gate = fixture.dir().join("gate");
    let line = format!(
        "echo half > file; echo started; until [ -e {} ]; do sleep 0.02; done; cat file",
        gate.display()
    );
    let name = tasks::create(&client, workload::shell(&line, &[])).await?.name;
    workload::prints(&client, &name, "started").await?;
    let mut command = fixture.command(&["worker", "--agent", workload::AGENT, "--worker", "one"]);
    command.arg("--state-dir").arg(fixture.state_dir());
    command.env("ROTA_TOKEN_FILE", fixture.dir().join("one.token"));
    let refused = Process::start("second", command).ended().await;
    assert!(!refused.status.success(), "{refused:?}");
    assert!(
        refused.output.contains("another process of worker one runs in the state directory"),
        "{refused:?}"
    );
    std::fs::write(&gate, "")?;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &name).await?, "started\nhalf\n");
    history::check(&client, true).await?.check()
}

/// One that no message takes would be sent again in every session.
#[tokio::test]
async fn results_that_no_message_takes_fail() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    let dense = "printf 1; yes ,1 | head -n 400000 | tr -d '\\n'";
    let many = "printf '{}'; yes ',{}' | head -n 200000 | tr -d '\\n'";
    let deep = "yes [ | head -n 60 | tr -d '\\n'; yes ] | head -n 60 | tr -d '\\n'";
    for (data, wanted) in
        [(dense, "bytes"), (many, "lists and values"), (deep, "within one another"), ("printf 1", "")]
    {
        let line = format!(
            "{{ printf '{{\"data\": {{\"a\": ['; {data}; printf ']}}}}'; }} > \"$ROTA_OUTPUT/result.json\""
        );
        let name = tasks::create(&client, workload::shell(&line, &[])).await?.name;
        let status = tasks::ended(&client, &name).await?.status.unwrap();
        let message = status.failure.as_ref().map(|failed| failed.message.as_str()).unwrap_or_default();
        assert_eq!((message.contains(wanted), message.is_empty()), (true, wanted.is_empty()), "{status:?}");
        assert_eq!(status.attempt, 1, "{message}");
    }
    Ok(())
}
