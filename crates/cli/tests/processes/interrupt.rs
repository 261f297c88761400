//! Ctrl-C on a command that follows a task leaves the task alone, and says so.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::TaskState;
use rota_testkit::{history, tasks};

use crate::process::Process;
use crate::{Graces, Stage, work};

/// Ctrl-C once it has said this.
async fn interrupted(stage: &Stage, args: &[&str], once: &str) -> String {
    let mut process = Process::start(args[0], stage.command(args));
    process.says(once).await;
    process.signal(Signal::SIGINT);
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    ended.said
}

#[tokio::test]
async fn the_task_goes_on() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    let client = stage.client()?;
    work::agent(&client).await?;
    let _worker = stage.worker(work::AGENT, "one", 1).await?;
    let gate = stage.dir().join("gate");
    let line = "echo \"I am at it\"; until [ -e \"$GATE\" ]; do sleep 0.02; done; echo done";
    let set = format!("GATE={}", gate.display());
    let run =
        ["run", "--agent", "shell", "--name", "long", "--env", &set, "--command", "--", "sh", "-c", line];
    let said = interrupted(&stage, &run, "I am at it").await;
    let task = stage.rota(&["get", "task", "long", "-o", "json"]).await.json();
    let id = task["uid"].as_str().unwrap();
    for hint in ["The task goes on", &format!("rota watch {id}"), &format!("rota cancel {id}")] {
        assert!(said.contains(hint), "{hint:?} is not in {said}");
    }
    for args in
        [&["watch", "long"][..], &["logs", "-f", "long"], &["events", "-f", "long"], &["attach", "long"]]
    {
        let said = interrupted(&stage, args, "I am at it").await;
        assert!(said.contains("The task goes on") && said.contains(&format!("rota cancel {id}")), "{said}");
    }
    let manifest = "apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {name: behind}\n\
                    spec: {agent: shell, runtime: {command: {shell: exit}}}\n";
    std::fs::write(stage.dir().join("behind.yaml"), manifest)?;
    let said = interrupted(&stage, &["apply", "--wait", "-f", "behind.yaml"], "behind Queued").await;
    assert!(said.contains("The tasks go on") && said.contains("rota cancel behind"), "{said}");
    // These say nothing before: it is their last word, or none.
    for args in [&["wait", "long"][..], &["watch"], &["events"]] {
        let process = Process::start(args[0], stage.command(args));
        // Whoever has a handler for it listens.
        tasks::eventually("a handler", async || Ok(handles_interrupts(process.pid()))).await?;
        process.signal(Signal::SIGINT);
        let ended = process.ended().await;
        assert_eq!(ended.status.code(), Some(130), "{args:?} {ended:?}");
    }
    assert_eq!(
        tasks::get(&client, &format!("namespaces/default/tasks/{id}")).await?.status.unwrap().attempt,
        1
    );
    std::fs::write(gate, "")?;
    let name = "namespaces/default/tasks/long";
    let status = tasks::ended(&client, name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1));
    stage.rota(&["wait", "behind"]).await.done();
    history::check(&client, true).await?.check()
}

fn handles_interrupts(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    caught & (1 << (Signal::SIGINT as u32 - 1)) != 0
}
