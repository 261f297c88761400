//! Workers that are killed, and workers that come back too late.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::{self, TaskState};
use rota_testkit::{Proxy, history, tasks};

use crate::process::Process;
use crate::seen::{self, Seen};
use crate::{Graces, Stage, work};

#[tokio::test]
async fn nothing_of_a_killed_worker_is_left_and_another_does_its_task() -> Result<()> {
    let stage = Stage::start(Graces::SHORT).await?;
    let client = stage.client()?;
    work::agent(&client).await?;
    let first = stage.worker(work::AGENT, "first", 1).await?;
    let mark = work::mark();
    let line = format!("[ \"$ROTA_ATTEMPT\" = 1 ] || {{ echo done; exit; }}\n{}{}", work::STRAYS, work::HANG);
    let name = tasks::create(&client, work::shell(&line, &[("MARK", &mark)])).await?.name;
    let began = seen::are_there(&mark, work::SESSIONS).await?;
    let _second = stage.worker(work::AGENT, "second", 1).await?;
    first.kill().await;

    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.worker.as_str()), (TaskState::Succeeded, "second"));
    assert_eq!((status.attempt, status.worker_losses), (2, 1));
    assert_eq!(status.result.unwrap().text, "done");
    seen::none_is_left(&mark).await?;
    assert!(!began.iter().any(Seen::is_there));
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn the_late_result_of_a_stopped_worker_is_refused() -> Result<()> {
    let stage = Stage::start(Graces::STRICT).await?;
    let client = stage.client()?;
    work::agent(&client).await?;
    let proxy = Proxy::start(stage.addr()).await?;
    let late = stage.worker_at(proxy.addr(), work::AGENT, "late", 1).await?;
    let gates = stage.dir().to_owned();
    let line = "echo \"$ROTA_ATTEMPT $$\"\nuntil [ -e \"$GATES/$ROTA_ATTEMPT\" ]; do sleep 0.02; done\n\
                echo \"attempt $ROTA_ATTEMPT\"";
    let task = work::shell(line, &[("GATES", gates.to_str().unwrap())]);
    let name = tasks::create(&client, task).await?.name;
    work::prints(&client, &name, "1 ").await?;
    let pid: i32 = work::printed(&client, &name).await?.trim().strip_prefix("1 ").unwrap().parse()?;
    let agent = Seen::of(pid).unwrap();
    let _other = stage.worker(work::AGENT, "other", 1).await?;

    // Its lease ends, and the task goes to another; only the worker is stopped, its agent comes to an end.
    late.signal(Signal::SIGSTOP);
    let runs_elsewhere =
        |status: &v1::TaskStatus| status.worker == "other" && status.state() == TaskState::Running;
    tasks::until(&client, &name, runs_elsewhere).await?;
    std::fs::write(gates.join("1"), "")?;
    tasks::eventually("the first agent's end", async || Ok(!agent.is_there())).await?;

    // It goes on, and has its result before it can tell it.
    proxy.cut();
    late.signal(Signal::SIGCONT);
    let attempts = stage.state_dir().join("attempts/late");
    tasks::eventually("the attempt's end", async || Ok(std::fs::read_dir(&attempts)?.next().is_none()))
        .await?;
    proxy.open();
    tasks::eventually("the word of the late result", async || {
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
    // The late one is as good as new.
    let mut again = work::shell("echo again", &[]);
    let target = v1::target::Kind::Worker("late".to_owned());
    again.spec.get_or_insert_default().target = Some(v1::Target { kind: Some(target) });
    let again = tasks::create(&client, again).await?.name;
    assert_eq!(tasks::ended(&client, &again).await?.status.unwrap().state(), TaskState::Succeeded);
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn what_does_not_end_in_time_goes_back_to_the_queue() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    let client = stage.client()?;
    work::agent(&client).await?;
    let mut command =
        stage.command(&["worker", "--agent", work::AGENT, "--worker", "first", "--drain-timeout", "0s"]);
    command.arg("--state-dir").arg(stage.state_dir());
    command.env("ROTA_ENDPOINT", format!("http://{}", stage.addr()));
    let first = Process::start("first", command);
    tasks::connected(&client, "first").await?;
    let mark = work::mark();
    let line = format!("[ \"$ROTA_ATTEMPT\" = 1 ] || {{ echo done; exit; }}\n{}sleep 1000", work::STRAYS);
    let mut task = work::shell(&line, &[("MARK", &mark)]);
    // An agent's failure would be the end.
    task.spec.get_or_insert_default().retry = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    let name = tasks::create(&client, task).await?.name;
    seen::are_there(&mark, work::SESSIONS).await?;
    first.signal(Signal::SIGTERM);
    assert!(first.ended().await.status.success());
    seen::none_is_left(&mark).await?;
    let _second = stage.worker(work::AGENT, "second", 1).await?;

    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.worker.as_str()), (TaskState::Succeeded, "second"));
    assert_eq!((status.attempt, status.worker_losses), (2, 1));
    history::check(&client, true).await?.check()
}
